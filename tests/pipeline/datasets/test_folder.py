"""A user's folder of images with its CSV files, right and wrong."""

from pathlib import Path

import numpy as np
import pytest

from pipeline.datasets import Dataset, Report, folder
from pipeline.errors import UserError
from tests.made import encode, every, noise

IDS = [f"{name}/{i}.jpg" for name in ("cat", "dog", "dog/brown") for i in range(4)]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for i, image_id in enumerate(IDS):
        path = tmp_path / "photos" / image_id
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode(noise(20, 30, i)))
    (tmp_path / "photos" / "cat" / "notes.txt").write_text("not an image")
    (tmp_path / "photos" / ".hidden").mkdir()
    (tmp_path / "photos" / "dog" / ".0.jpg").write_text("somebody's thumbnail")
    return tmp_path / "photos"


def params(photos: Path, **changes: object) -> folder.Params:
    values = {"boxes": None, "test_fraction": 0.25, "split": None, "split_seed": 0}
    return folder.Params.model_validate({"images": str(photos), **values, **changes})


def write(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


def made(photos: Path, **changes: object) -> Dataset:
    raw = photos.parent / "raw"
    raw.mkdir(exist_ok=True)
    folder.download(params(photos, **changes), raw, Report())
    return folder.read(params(photos, **changes), raw)


def problems(photos: Path, **changes: object) -> list[str]:
    with pytest.raises(UserError) as caught:
        made(photos, **changes)
    return [problem.replace(str(photos.parent), "~") for problem in caught.value.problems]


def test_ids_are_paths_and_classes_are_folders(photos: Path) -> None:
    said: list[str] = []
    folder.download(params(photos), photos.parent, Report(say=said.append))
    assert said == [f"folder: 12 images in {photos}; 1 other files are left out"]
    dataset = made(photos)
    assert dataset.class_names == ["cat", "dog"]
    assert [entry.id for entry in dataset.index] == sorted(IDS)
    assert [entry.label for entry in dataset.index] == [0] * 4 + [1] * 8
    assert (dataset.has_boxes, dataset.published) == (False, False)
    for entry, content in every(dataset):
        assert content == (photos / entry.id).read_bytes()
        assert entry.boxes.shape == (0, 4)


def test_links_to_folders_are_followed_but_not_in_circles(photos: Path) -> None:
    (photos / "cat" / "again").symlink_to(photos / "cat", target_is_directory=True)
    (photos / "bird").symlink_to(photos / "dog" / "brown", target_is_directory=True)
    dataset = made(photos)
    assert dataset.class_names == ["bird", "cat", "dog"]
    assert [entry.id for entry in dataset.index] == sorted(
        [*IDS, *(f"bird/{i}.jpg" for i in range(4))]
    )


def test_a_share_of_each_class_is_drawn_for_the_test(photos: Path) -> None:
    def test_ids(**changes: object) -> list[str]:
        return [entry.id for entry in made(photos, **changes).index if entry.split == "test"]

    drawn = test_ids()
    assert [image_id.split("/")[0] for image_id in drawn] == ["cat", "dog", "dog"]
    assert test_ids() == drawn
    assert test_ids(split_seed=1) != drawn
    (photos / "ant").mkdir()
    (photos / "ant" / "0.jpg").write_bytes(encode(noise(5, 6)))
    assert test_ids() == drawn  # another class changes nothing; one image alone is trained on


def test_the_split_file_is_followed_and_the_rest_is_drawn(photos: Path) -> None:
    rows = [
        "image_id,split",
        "cat/0.jpg,test",
        "cat/1.jpg,val",
        "cat/2.jpg,train",
        "cat/3.jpg,train",
    ]
    split = write(photos.parent / "split.csv", "\n".join(rows))
    dataset = made(photos, split=split)
    assert [entry.split for entry in dataset.index[:4]] == ["test", "val", "train", "train"]
    assert [entry.split for entry in dataset.index[4:]].count("test") == 2


def test_boxes_are_read_some_images_having_none_or_two(photos: Path) -> None:
    rows = [
        "x0,y0,x1,y1,image_id,note",
        "1,2,3.5,4,dog/1.jpg,",
        "0,0,9,9,cat/0.jpg,a",
        "5,5,6,7,dog/1.jpg,b",
    ]
    boxes = write(photos.parent / "boxes.csv", "\ufeff" + "\n".join(rows))  # as Excel writes it
    dataset = made(photos, boxes=boxes)
    found = {entry.id: entry.boxes for entry in dataset.index if len(entry.boxes)}
    assert dataset.has_boxes
    assert {image_id: b.tolist() for image_id, b in found.items()} == {
        "cat/0.jpg": [[0, 0, 9, 9]],
        "dog/1.jpg": [[1, 2, 3.5, 4], [5, 5, 6, 7]],
    }
    assert all(boxes.dtype == np.float32 for boxes in found.values())
    rows[1] = rows[1].replace("3.5", "3.6")
    moved = made(photos, boxes=write(photos.parent / "boxes.csv", "\n".join(rows)))
    assert moved.checksum != dataset.checksum


def test_all_mistakes_of_the_files_are_told_at_once(photos: Path) -> None:
    boxes = write(
        photos.parent / "b.csv",
        "image_id,x0,y0,x1,y1\ncat/9.jpg,1,2,3,4\ncat/0.jpg,1,2,1,4\ncat/1.jpg,1,2,x,4\ncat/2.jpg,1,2,nan,4\ncat/3.jpg,1\n",
    )
    split = write(
        photos.parent / "s.csv", "image_id,split\ncat/0.jpg,tset\ncat/1.jpg,test\ncat/1.jpg,train\n"
    )
    assert problems(photos, boxes=boxes, split=split) == [
        "~/b.csv line 2: 'cat/9.jpg' is no image of datasets.folder.images",
        "~/b.csv line 3 is cat/0.jpg, 1, 2, 1, 4: allowed: x0 < x1 and y0 < y1",
        "~/b.csv line 4 is cat/1.jpg, 1, 2, x, 4: could not convert string to float: 'x'",
        "~/b.csv line 5 is cat/2.jpg, 1, 2, nan, 4: allowed: x0 < x1 and y0 < y1",
        "~/b.csv line 6 is cat/3.jpg, 1, None, None, None: float() argument must be a string or a "
        "real number, not 'NoneType'",
        "~/s.csv line 2 is cat/0.jpg, tset: allowed: train, test, val",
        "~/s.csv line 4 is cat/1.jpg, train: the image has a line already",
    ]
    many = "image_id,split\n" + "x.jpg,test\n" * 30
    told = problems(photos, split=write(photos.parent / "many.csv", many))
    assert (len(told), told[-1]) == (21, "~/many.csv: and 10 more lines like these")
    wrong = write(photos.parent / "w.csv", "image,x,y,w,h\n")
    assert problems(photos, boxes=wrong, split="no.csv") == [
        "~/w.csv: its columns are image, x, y, w, h; allowed: image_id, x0, y0, x1, y1",
        "params.yaml: datasets.folder.split is 'no.csv': there is no such file",
    ]


def test_mistakes_of_the_folder_are_told(photos: Path) -> None:
    (photos / "empty").mkdir()
    (photos / "stray.png").write_bytes(b"")
    assert problems(photos) == [
        "~/photos/stray.png is in no class; move it into ~/photos/<class>/",
        f"~/photos/empty has no image; allowed: files ending in {' '.join(folder.images.EXTENSIONS)}",
    ]
    (photos / "empty").rmdir()
    (photos / "stray.png").rename(photos / "cat" / "\udcff.png")
    assert problems(photos) == [r"~/photos/cat/\udcff.png: its name is not UTF-8; rename it"]
    (told,) = problems(photos / "nowhere")
    assert "datasets.folder.images is" in told
    assert "there is no such folder" in told


def test_one_class_alone_is_refused(photos: Path) -> None:
    (photos / "cat").rename(photos / "dog" / "cat")
    assert problems(photos) == ["~/photos has 1 class folders; allowed: at least two"]


def test_an_image_that_changed_is_told_when_it_is_read(photos: Path) -> None:
    dataset = made(photos)
    (photos / "dog" / "1.jpg").write_bytes(encode(noise(4, 4)))
    with pytest.raises(
        UserError, match=r"dog/1\.jpg is not the file it was.*dvc repro -f download"
    ):
        list(every(dataset))
    (photos / "cat" / "0.jpg").unlink()
    with pytest.raises(UserError, match=r"cat/0\.jpg: No such file"):
        list(every(dataset))
    with pytest.raises(UserError, match=r"images\.csv is missing; run `dvc repro download`"):
        folder.read(params(photos), photos)
