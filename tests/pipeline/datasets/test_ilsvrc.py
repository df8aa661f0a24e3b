"""A stand-in for ILSVRC: the official archives' names and layout, two classes."""

import os
import re
import tarfile
from pathlib import Path

import pytest

from pipeline.datasets import Dataset, Report, ilsvrc
from pipeline.errors import UserError
from pipeline.raw import archives
from tests.made import annotation, encode, every, noise, tar
from tests.made import ilsvrc as make


@pytest.fixture
def ready(tmp_path: Path) -> tuple[ilsvrc.Params, Path]:
    params = ilsvrc.Params(root=str(make(tmp_path / "archives")))
    (tmp_path / "raw").mkdir()
    ilsvrc.download(params, tmp_path / "raw", Report())
    return params, tmp_path / "raw"


def test_classes_splits_and_boxes(ready: tuple[ilsvrc.Params, Path]) -> None:
    dataset = ilsvrc.read(*ready)
    assert dataset.class_names == ["n01000001", "n02000002"]
    assert [(entry.id, entry.label, entry.split) for entry in dataset.index] == [
        ("n01000001/ILSVRC2012_val_00000001.JPEG", 0, "test"),
        ("n01000001/ILSVRC2012_val_00000003.JPEG", 0, "test"),
        *((f"n01000001/n01000001_{i}.JPEG", 0, "train") for i in range(4)),
        ("n02000002/ILSVRC2012_val_00000002.JPEG", 1, "test"),
        ("n02000002/ILSVRC2012_val_00000004.JPEG", 1, "test"),
        *((f"n02000002/n02000002_{i}.JPEG", 1, "train") for i in range(4)),
    ]
    boxes = {
        entry.id[-13:-5]: entry.boxes.tolist() for entry in dataset.index if entry.split == "test"
    }
    assert boxes == {  # 0…39 inclusive is 40 pixels: the whole image
        "00000001": [[0, 0, 40, 50]],
        "00000002": [[4, 5, 14, 25], [20, 5, 30, 25]],
        "00000003": [[1, 2, 4, 5]],  # the other object is of another class
        "00000004": [[4, 5, 14, 25]],
    }


def test_every_image_comes_once(ready: tuple[ilsvrc.Params, Path]) -> None:
    dataset = ilsvrc.read(*ready)
    examples = {entry.id: encoded for entry, encoded in every(dataset)}
    assert examples.keys() == {entry.id for entry in dataset.index}
    assert examples["n01000001/n01000001_2.JPEG"] == encode(noise(30, 40, 11))
    assert [i for i, _ in dataset.examples([7, 2])] == [7, 2]  # as they lie: n02000002.tar is first


def test_what_to_put_where_is_told(tmp_path: Path) -> None:
    (tmp_path / ilsvrc.VAL).write_bytes(b"")
    with pytest.raises(UserError) as caught:
        ilsvrc.download(ilsvrc.Params(root=str(tmp_path)), tmp_path, Report())
    first, second, how = caught.value.problems
    assert first == f"{tmp_path / ilsvrc.TRAIN} is missing"
    assert second == f"{tmp_path / ilsvrc.BOXES} is missing"
    assert "image-net.org" in how
    assert "datasets.ilsvrc.root" in how


def test_changed_archives_are_noticed(ready: tuple[ilsvrc.Params, Path]) -> None:
    params, raw = ready
    with (Path(params.root) / ilsvrc.VAL).open("ab") as file:
        file.write(b"\0")
    with pytest.raises(
        UserError, match=r"img_val\.tar: not the archive that was.*repro -f download"
    ):
        ilsvrc.read(params, raw)
    (raw / ilsvrc.MANIFEST).unlink()
    with pytest.raises(
        UserError, match=r"ilsvrc\.json is missing; put it back, or run `dvc repro -f"
    ):
        ilsvrc.read(params, raw)


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("ILSVRC2012_val_00000001", b"<annotation>", "is no annotation of an image"),
        ("ILSVRC2012_val_00000001", annotation(), "has no object"),
        ("ILSVRC2012_val_00000001", annotation(("n09", 0, 0, 1, 1)), "is of n09, which"),
        ("ILSVRC2012_val_00000009", annotation(("n01000001", 0, 0, 1, 1)), "no annotation of"),
        (
            "ILSVRC2012_val_00000001",
            annotation(("n01000001", 0, 0, 1, 1)).replace(b"<xmax>1</xmax>", b""),
            "is no annotation of an image",
        ),
    ],
)
def test_bad_annotations_are_named(tmp_path: Path, name: str, text: bytes, reason: str) -> None:
    root = make(tmp_path / "archives")
    tar(root / ilsvrc.BOXES, {f"val/{name}.xml": text}, "w:gz")
    ilsvrc.download(ilsvrc.Params(root=str(root)), tmp_path, Report())
    with pytest.raises(UserError, match=f"bbox_val_v3.*{name[:19]}.*{reason}|{reason}.*_val_0"):
        ilsvrc.read(ilsvrc.Params(root=str(root)), tmp_path)


def refused(root: Path) -> str:
    """What `download` says of the archives, having left no list of images."""
    out = root.parent / "raw"
    out.mkdir()
    with pytest.raises(UserError) as caught:
        ilsvrc.download(ilsvrc.Params(root=str(root)), out, Report())
    assert [path.name for path in out.iterdir()] == [ilsvrc.MANIFEST]
    (problem,) = caught.value.problems
    return problem


@pytest.mark.parametrize("name", [ilsvrc.TRAIN, ilsvrc.VAL])
@pytest.mark.parametrize("place", ["in an image", "between images", "in a header"])
def test_an_archive_cut_short_is_named(tmp_path: Path, name: str, place: str) -> None:
    root = make(tmp_path / "archives")
    path = root / name
    with tarfile.open(path) as archive:
        last = archive.getmembers()[-1]
    ends = {"in an image": 100, "between images": 0, "in a header": 0}
    size = last.offset_data + ends[place] if place == "in an image" else last.offset
    os.truncate(path, size + (200 if place == "in a header" else 0))
    assert re.search(
        rf"{re.escape(str(path))}.*: damaged or truncated at .*; take it", refused(root)
    )


@pytest.mark.parametrize("size", [3000, 0])
def test_an_inner_archive_cut_short_is_named(tmp_path: Path, size: int) -> None:
    root = make(tmp_path / "archives")
    photos = {f"n01000001_{i}.JPEG": encode(noise(300, 400, i)) for i in range(2)}
    good = tar(tmp_path / "inner.tar", photos).read_bytes()
    with tarfile.open(tmp_path / "inner.tar") as archive:
        second = archive.getmembers()[1].offset
    tar(root / ilsvrc.TRAIN, {"n01000001.tar": good[: size or second]})
    assert "img_train.tar: n01000001.tar: damaged or truncated at " in refused(root)


def test_a_damaged_header_is_no_end(tmp_path: Path) -> None:
    root = make(tmp_path / "archives")
    with tarfile.open(root / ilsvrc.VAL) as archive:
        second = archive.getmembers()[1].offset
    with (root / ilsvrc.VAL).open("r+b") as file:
        file.seek(second)
        file.write(b"garbage")
    assert f"img_val.tar: damaged or truncated at byte {second:,}; take it" in refused(root)


def test_a_class_without_images_is_named(tmp_path: Path) -> None:
    root = make(tmp_path / "archives")
    inner = tar(tmp_path / "inner.tar", {}).read_bytes()
    tar(root / ilsvrc.TRAIN, {"n01000001.tar": inner})
    assert "img_train.tar: n01000001.tar has no image; take it again" in refused(root)


def test_an_archive_that_shrinks_while_it_is_read_is_named(
    ready: tuple[ilsvrc.Params, Path],
) -> None:
    dataset = ilsvrc.read(*ready)
    path = Path(ready[0].root) / ilsvrc.VAL
    os.truncate(path, 1000)
    with pytest.raises(
        UserError, match=rf"{re.escape(str(path))} ends before byte [\d,]+; it changed"
    ):
        list(every(dataset))


def with_annotations(tmp_path: Path, first: bytes, others: bytes | None = None) -> Dataset:
    """The archives with the text of the first annotation, and with that of all others, replaced."""
    root = make(tmp_path / "archives")
    texts = dict(archives.files(root / ilsvrc.BOXES, lambda name: True))
    names = sorted(texts)
    texts |= {names[0]: first} | (dict.fromkeys(names[1:], others) if others else {})
    tar(root / ilsvrc.BOXES, texts, "w:gz")
    params = ilsvrc.Params(root=str(root))
    ilsvrc.download(params, tmp_path, Report())
    return ilsvrc.read(params, tmp_path)


@pytest.mark.parametrize(
    ("box", "kept"),
    [
        (("nan", 5, 13, 24), []),
        ((13, 5, 4, 24), []),
        ((4, 24, 13, 5), []),
        ((4, 5, "inf", 24), []),
        ((-4, 5, 13, 24), [[-4, 5, 14, 25]]),  # beyond the image, as some published ones are
        ((4, 5, 4, 5), [[4, 5, 5, 6]]),  # a single pixel
    ],
)
def test_annotations_that_are_no_boxes_are_left_out_and_named(
    tmp_path: Path, box: tuple[int, int, int, int], kept: list[list[int]]
) -> None:
    good = ("n01000001", 1, 2, 3, 4)
    dataset = with_annotations(tmp_path, annotation(("n01000001", *box), good))
    image = "n01000001/ILSVRC2012_val_00000001.JPEG"
    (entry,) = [entry for entry in dataset.index if entry.id == image]
    assert entry.boxes.tolist() == [*kept, [1, 2, 4, 5]]
    assert list(dataset.invalid_boxes) == ([] if kept else [image])


def test_annotations_in_shares_of_the_image_are_refused(tmp_path: Path) -> None:
    share = annotation(("n01000001", 0.1, 0, 0.9, 1))  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"bbox_val_v3\.tgz: no edge of a box is above 1"):
        with_annotations(tmp_path, share, share)


def test_val_has_no_boxes() -> None:
    assert ilsvrc.Params(root="").without_val_boxes()
