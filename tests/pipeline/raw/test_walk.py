"""preprocess and predict find the same images in the same folder."""

import os
from pathlib import Path

import pytest

from pipeline.datasets import Report, folder
from pipeline.errors import UserError
from pipeline.output_folder import OutputFolder
from pipeline.raw.walk import walk
from tests.made import encode, noise
from tools.predict import find_images


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two classes of two images among all that is left out: hidden, made by predict, not images."""
    root = tmp_path / "photos"
    for i, name in enumerate(("cat/0.jpg", "cat/1.PNG", "dog/deep/0.jpg", "dog/1.jpg")):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(encode(noise(8, 9, i)))
    for hidden in (".git/x.jpg", "cat/.thumbs/0.jpg", "dog/._1.jpg"):
        (root / hidden).parent.mkdir(parents=True, exist_ok=True)
        (root / hidden).write_bytes(b"")
    (root / "cat" / "notes.txt").write_text("")
    os.mkfifo(root / "dog" / "pipe.jpg")
    return root


def found_by_both(root: Path) -> list[str]:
    """What predict finds, having asserted that a folder dataset has the same."""
    found = [path.relative_to(root).as_posix() for path in find_images(root)]
    params = folder.Params(
        images=str(root), boxes=None, test_fraction=0.5, split=None, split_seed=0
    )
    folder.download(params, root.parent, Report())
    listed = [entry.id for entry in folder.read(params, root.parent).index]
    assert sorted(found) == sorted(listed)
    return found


IMAGES = ["cat/0.jpg", "cat/1.PNG", "dog/1.jpg", "dog/deep/0.jpg"]


def test_hidden_files_and_folders_are_left_out(photos: Path) -> None:
    assert found_by_both(photos) == IMAGES


def test_linked_folders_are_followed_but_not_in_circles(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "0.jpg").write_bytes(encode(noise(8, 9, 9)))
    (photos / "bird").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (photos / "dog" / "again").symlink_to(photos, target_is_directory=True)
    assert found_by_both(photos) == ["bird/0.jpg", *IMAGES]


@pytest.mark.parametrize("out", ["predictions", "cat/boxes", "dog/deep/out"])
def test_pictures_that_an_earlier_run_wrote_are_not_found(photos: Path, out: str) -> None:
    folder_out = OutputFolder.checked(photos / out, "wsol predict", [photos])
    with folder_out.replaced() as partial:
        (partial / "pictures").mkdir()
        (partial / "pictures" / "0.jpg").write_bytes(encode(noise(8, 9)))
    assert found_by_both(photos) == IMAGES


def test_a_link_to_nothing_is_found_so_that_it_can_be_named(photos: Path) -> None:
    (photos / "cat" / "gone.jpg").symlink_to("/nowhere.jpg")
    assert photos / "cat" / "gone.jpg" in list(walk(photos))


def test_one_image_and_what_is_none(photos: Path) -> None:
    assert find_images(photos / "cat" / "1.PNG") == [photos / "cat" / "1.PNG"]
    for given in ("cat/notes.txt", "nowhere.jpg", ".git"):
        if given == ".git":
            (photos / ".git" / "x.jpg").unlink()
        with pytest.raises(UserError, match="no image in"):
            find_images(photos / given)
