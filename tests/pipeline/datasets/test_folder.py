"""A user's folder of images with its CSV files, right and wrong."""

from pathlib import Path

import numpy as np
import pytest

from pipeline.datasets import Dataset, Report, folder
from pipeline.errors import UserError
from pipeline.raw import images
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
        "~/b.csv line 2: 'cat/9.jpg' is not an image of datasets.folder.images",
        "~/b.csv line 3 is cat/0.jpg, 1, 2, 1, 4: allowed: x0 < x1 and y0 < y1",
        "~/b.csv line 4 is cat/1.jpg, 1, 2, x, 4: 'x' is not a number",
        "~/b.csv line 5 is cat/2.jpg, 1, 2, nan, 4: 'nan' is not a number",
        "~/b.csv line 6 is cat/3.jpg, 1, , , : '' is not a number",
        "~/s.csv line 2 is cat/0.jpg, tset: allowed: train, test, val",
        "~/s.csv line 4 is cat/1.jpg, train: the image has a line already",
    ]
    many = "image_id,split\n" + "x.jpg,test\n" * 30
    told = problems(photos, split=write(photos.parent / "many.csv", many))
    assert (len(told), told[-1]) == (21, "and 10 more like these")
    wrong = write(photos.parent / "w.csv", "image,x,y,w,h\n")
    assert problems(photos, boxes=wrong, split="no.csv") == [
        "~/w.csv has no column image_id, x0, y0, x1, y1; its columns are image, x, y, w, h; "
        "needed: image_id,x0,y0,x1,y1",
        "params.yaml: datasets.folder.split is 'no.csv': there is no such file",
    ]


def test_mistakes_of_the_folder_are_told(photos: Path) -> None:
    (photos / "empty").mkdir()
    (photos / "stray.png").write_bytes(b"")
    assert problems(photos) == [
        "~/photos/stray.png is in no class; move it into ~/photos/<class>/",
        f"~/photos/empty has no image; allowed: files ending in {' '.join(images.EXTENSIONS)}",
    ]
    (photos / "empty").rmdir()
    (photos / "stray.png").rename(photos / "cat" / "\udcff.png")
    assert problems(photos) == [r"~/photos/cat/\udcff.png: its name is not UTF-8; rename it"]
    (told,) = problems(photos / "nowhere")
    assert "datasets.folder.images is" in told
    assert "there is no such folder" in told


def test_one_class_alone_is_refused(photos: Path) -> None:
    (photos / "cat").rename(photos / "dog" / "cat")
    assert problems(photos) == [
        "~/photos has 1 class folders; allowed: at least two; write datasets.folder.images: "
        "~/photos/dog, if that holds the classes"
    ]


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


def arranged(root: Path, *folders: str, images: int = 4) -> Path:
    """A folder of images, so many in each of the `folders`, all different."""
    for k, name in enumerate(folders):
        for i in range(images):
            path = root / name / f"{i}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encode(noise(12, 16, 100 * k + i)))
    return root


def said(photos: Path, **changes: object) -> list[str]:
    lines: list[str] = []
    raw = photos.parent / "raw"
    raw.mkdir(exist_ok=True)
    folder.download(params(photos, **changes), raw, Report(say=lines.append))
    return lines


@pytest.mark.parametrize(
    ("folders", "splits"),
    [
        (("train", "val", "test"), {"train": "train", "val": "val", "test": "test"}),
        (("Train", "VALID", "Test"), {"Train": "train", "VALID": "val", "Test": "test"}),
        (("TRAIN", "validation", "TEST"), {"TRAIN": "train", "validation": "val", "TEST": "test"}),
        (("train", "test"), {"train": "train", "test": "test"}),
    ],
)
def test_folders_that_are_all_splits_are_taken_as_splits(
    tmp_path: Path, folders: tuple[str, ...], splits: dict[str, str]
) -> None:
    names = [f"{split}/{name}" for split in folders for name in ("cat", "dog/brown")]
    photos = arranged(tmp_path / "photos", *names)
    assert f"folder: {', '.join(sorted(folders))} are taken as splits" in said(photos)[1]
    dataset = made(photos)
    assert dataset.class_names == ["cat", "dog"]
    assert len(dataset.index) == 8 * len(folders)
    for entry in dataset.index:
        top, name = entry.id.split("/")[:2]
        assert (entry.split, dataset.class_names[entry.label]) == (splits[top], name)


def test_without_a_folder_test_the_test_images_are_drawn_from_train(tmp_path: Path) -> None:
    photos = arranged(tmp_path / "photos", "train/cat", "train/dog", "val/cat", "val/dog")
    assert said(photos)[2] == "folder: test is drawn: 0.25 of each class of the others"
    found = {entry.id: entry.split for entry in made(photos).index}
    assert {split for image, split in found.items() if image.startswith("val/")} == {"val"}
    drawn = [split for image, split in found.items() if image.startswith("train/")]
    assert (drawn.count("test"), drawn.count("train")) == (2, 6)


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    dataset = made(arranged(tmp_path / "photos", "train", "car", "test"))
    assert dataset.class_names == ["car", "test", "train"]


@pytest.mark.parametrize(
    ("folders", "told"),
    [
        (("train/cat", "train/dog", "cat"), "has folders of splits (train) beside others (cat)"),
        (("train", "val"), "train holds images, and as a split it holds a folder for each class"),
        (("train/cat", "train/dog", "val"), "val holds images, and as a split"),
        (("val/cat", "test/cat", "val/dog"), "has test, val and no train"),
        (
            ("train/cat", "train/dog", "val/cat", "valid/dog"),
            "has val and valid; allowed: one folder for each split",
        ),
        (
            ("cat/train", "cat/test", "dog/train", "dog/test"),
            "cat holds the splits test, train; if it is the data set",
        ),
        (
            ("photos/train/cat", "photos/train/dog", "photos/val/cat"),
            "photos holds the splits train, val; if it is the data set, write "
            "datasets.folder.images: ~/root/photos;",
        ),
        (
            ("photos/cat", "photos/dog"),
            "has 1 class folders; allowed: at least two; write datasets.folder.images: ~/root/photos,",
        ),
        (("train/cat", "val/cat"), "train has 1 class folders; allowed: at least two"),
    ],
)
def test_what_is_ambiguous_or_a_level_too_high_is_refused(
    tmp_path: Path, folders: tuple[str, ...], told: str
) -> None:
    assert told in problems(arranged(tmp_path / "root", *folders))[0]


def test_a_split_without_images_and_a_list_of_splits_beside_them_are_refused(
    tmp_path: Path,
) -> None:
    photos = arranged(tmp_path / "photos", "train/cat", "train/dog", "val/cat")
    split = write(tmp_path / "s.csv", "image_id,split\n")
    assert (
        "the folders of datasets.folder.images give the splits" in problems(photos, split=split)[0]
    )
    (photos / "test").mkdir()
    (photos / "train" / "bird").mkdir()
    told = problems(photos)
    assert [line.split(" has no image")[0] for line in told] == [
        "~/photos/test",
        "~/photos/train/bird",
    ]


NFC, NFD = "M\u00fcller", "Mu\u0308ller"


def test_names_that_unicode_calls_equal_are_one_class(tmp_path: Path) -> None:
    photos = arranged(tmp_path / "photos", "wren", NFC)
    arranged(photos, f"{NFD}/more")
    assert any(f"2 folders are called {NFC}, spelled" in line for line in said(photos))
    assert made(photos).class_names == [NFC, "wren"]


@pytest.mark.parametrize(("disk", "listed"), [(NFC, NFD), (NFD, NFC), (NFD, NFD)])
def test_lists_find_images_in_the_other_unicode_form(
    tmp_path: Path, disk: str, listed: str
) -> None:
    photos = arranged(tmp_path / "photos", "wren", disk)
    text = (
        f"image_id,x0,y0,x1,y1\n{listed}/0.jpg,1,2,3,4\nwren\\1.jpg,1,2,3,5\n./wren/2.jpg,1,2,3,6\n"
    )
    dataset = made(photos, boxes=write(tmp_path / "b.csv", text))
    assert [entry.id for entry in dataset.index if len(entry.boxes)] == sorted(
        [f"{disk}/0.jpg", "wren/1.jpg", "wren/2.jpg"]
    )


def test_a_name_that_two_images_have_is_told(tmp_path: Path) -> None:
    photos = arranged(tmp_path / "photos", "wren", f"{NFC}/\u00fc", f"{NFC}/u\u0308")
    mixed = f"{NFD}/\u00fc"
    told = problems(
        photos, boxes=write(tmp_path / "b.csv", f"image_id,x0,y0,x1,y1\n{mixed}/0.jpg,1,2,3,4\n")
    )
    assert told[0].endswith("is the name of 2 images of datasets.folder.images")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "cp1252"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_lists_of_spreadsheets_are_read(tmp_path: Path, encoding: str, delimiter: str) -> None:
    photos = arranged(tmp_path / "photos", "caf\u00e9", "wren")
    rows = [["image_id", "x0", "y0", "x1", "y1"], ["caf\u00e9/1.jpg", "1", "2.5", "3", "4"]]
    text = "\r\n".join(delimiter.join(row) for row in rows)
    (tmp_path / "b.csv").write_bytes(text.encode(encoding))
    (tmp_path / "s.csv").write_bytes(
        f"image_id{delimiter}split\r\ncaf\u00e9/1.jpg{delimiter}val\r\n".encode(encoding)
    )
    dataset = made(photos, boxes=str(tmp_path / "b.csv"), split=str(tmp_path / "s.csv"))
    (boxed,) = [entry for entry in dataset.index if len(entry.boxes)]
    assert (boxed.id, boxed.split, boxed.boxes.tolist()) == (
        "caf\u00e9/1.jpg",
        "val",
        [[1, 2.5, 3, 4]],
    )


@pytest.mark.parametrize("boxes", [1, 8])
def test_shares_of_the_image_are_refused(photos: Path, boxes: int) -> None:
    rows = [f"{image_id},0,0.25,1,{0.5 + i / 100}" for i, image_id in enumerate(IDS[:boxes])]
    text = "image_id,x0,y0,x1,y1\n" + "\n".join(rows)
    (told,) = problems(photos, boxes=write(photos.parent / "b.csv", text))
    assert told.startswith("~/b.csv: no edge of a box is above 1, so these are shares of the image")


def test_a_list_without_lines_gives_no_boxes(photos: Path) -> None:
    boxes = write(photos.parent / "b.csv", "image_id,x0,y0,x1,y1\n,,,,\n")
    assert (
        said(photos, boxes=boxes)[1] == f"folder: {boxes} has no box; there will be no box scores"
    )
    assert not made(photos, boxes=boxes).has_boxes
    reason = params(photos, boxes=boxes).without_val_boxes()
    assert reason == f"{boxes} has no box"
    assert params(photos).without_val_boxes() == "datasets.folder.boxes is null"


def test_the_same_picture_in_two_splits_or_classes_is_told(tmp_path: Path) -> None:
    photos = arranged(tmp_path / "photos", "train/cat", "train/dog", "test/cat", "test/dog")
    (photos / "test" / "cat" / "copy.jpg").write_bytes((photos / "train/cat/0.jpg").read_bytes())
    (photos / "train" / "dog" / "copy.jpg").write_bytes((photos / "train/cat/1.jpg").read_bytes())
    lines = [line for line in said(photos) if "more than one" in line]
    assert lines == [
        "folder: 1 pictures are in more than one split, such as test/cat/copy.jpg (test), "
        "train/cat/0.jpg (train); errors on test are then too low; put each picture in one split",
        "folder: 1 pictures are in more than one class, such as train/cat/1.jpg (cat), "
        "train/dog/copy.jpg (dog); one of the labels is then wrong",
    ]


def test_links_to_nothing_are_told(photos: Path) -> None:
    (photos / "cat" / "gone.jpg").symlink_to("/nowhere.jpg")
    (photos / "cat" / "gone.txt").symlink_to("/nowhere.txt")
    assert problems(photos) == ["~/photos/cat/gone.jpg is a link to nothing; mend or remove it"]
