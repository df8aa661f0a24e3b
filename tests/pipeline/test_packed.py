"""What is packed comes back: in order, in any order of coming, from several files, and nothing else."""

import json
from pathlib import Path

import numpy as np
import pyarrow.feather
import pytest

from pipeline import packed
from pipeline.datasets import NO_BOXES, Entry
from pipeline.errors import UserError


def entries(count: int) -> list[Entry]:
    boxes = [
        NO_BOXES,
        np.array([[1, 2, 3, 4]], np.float32),
        np.arange(8, dtype=np.float32).reshape(2, 4),
    ]
    return [Entry(f"k/ä{i}.jpg", i % 5, "train", boxes[i % 3]) for i in range(count)]


def write(root: Path, index: list[Entry], order: list[int], skipped: int | None = None) -> None:
    root.mkdir(exist_ok=True)
    with packed.Writer(root, "train", index, per_file=4) as writer:
        for i in order:
            if i == skipped:
                writer.skip(i, "it is empty")
            else:
                writer.add(i, bytes([i]) * (i + 1), (10 + i, 20 + i))


def test_columns_come_back_in_the_order_of_the_index(tmp_path: Path) -> None:
    index = entries(10)
    write(tmp_path, index, [9, 3, 0, 1, 8, 2, 7, 4, 6, 5])
    assert [p.name for p in packed.files(tmp_path)] == [
        f"train-0000{i}-of-00003.arrow" for i in range(3)
    ]
    split = packed.Split.open(tmp_path, "train")
    assert len(split) == 10
    assert split.ids == [entry.id for entry in index]
    assert split.labels.tolist() == [i % 5 for i in range(10)]
    assert (split.labels.dtype, split.sizes.dtype) == (np.int64, np.int32)
    assert split.sizes.tolist() == [[10 + i, 20 + i] for i in range(10)]
    assert [split.encoded(i) for i in range(10)] == [bytes([i]) * (i + 1) for i in range(10)]
    for entry, boxes in zip(index, split.boxes, strict=True):
        assert boxes.dtype == np.float32
        assert boxes.tolist() == entry.boxes.tolist()


def test_opening_makes_no_column(tmp_path: Path) -> None:
    write(tmp_path, entries(6), list(range(6)))
    split = packed.Split.open(tmp_path, "train")
    assert (len(split), split.encoded(5)) == (6, bytes([5]) * 6)
    assert not {"ids", "labels", "sizes", "boxes"} & set(vars(split))


def test_bytes_do_not_depend_on_the_order_of_coming(tmp_path: Path) -> None:
    index = entries(9)
    write(tmp_path / "a", index, list(range(9)))
    write(tmp_path / "b", index, list(reversed(range(9))))
    for file in packed.files(tmp_path / "a"):
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes()


def test_skipped_images_are_left_out(tmp_path: Path) -> None:
    write(tmp_path, entries(6), [5, 4, 3, 2, 1, 0], skipped=4)
    split = packed.Split.open(tmp_path, "train")
    assert split.ids == [f"k/ä{i}.jpg" for i in (0, 1, 2, 3, 5)]
    assert split.encoded(4) == bytes([5]) * 6


@pytest.mark.parametrize("notes", ["", "{}", None])
def test_a_file_whose_notes_are_lost_is_made_again(tmp_path: Path, notes: str | None) -> None:
    write(tmp_path, entries(9), list(range(9)))
    second = tmp_path / "train-00001-of-00003.notes.json"
    second.unlink() if notes is None else second.write_text(notes)
    before = {path: path.read_bytes() for path in packed.files(tmp_path)}
    with packed.Writer(tmp_path, "train", entries(9), per_file=4) as writer:
        assert list(writer.waiting()) == [4, 5, 6, 7]
        for i in range(4, 8):
            writer.add(i, bytes([i]) * (i + 1), (10 + i, 20 + i))
    assert {path: path.read_bytes() for path in packed.files(tmp_path)} == before


def test_a_split_may_be_empty(tmp_path: Path) -> None:
    write(tmp_path, [], [])
    split = packed.Split.open(tmp_path, "train")
    assert (len(split), split.boxes, split.sizes.shape) == (0, [], (0, 2))


def test_pandas_reads_the_files(tmp_path: Path) -> None:
    write(tmp_path, entries(3), [0, 1, 2])
    table = pyarrow.feather.read_table(tmp_path / "train-00000-of-00001.arrow")
    table.validate(full=True)
    assert table.to_pandas()["image"].tolist() == [b"\0", b"\1\1", b"\2\2\2"]


def test_an_image_that_never_came_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"1 images"):
        write(tmp_path, entries(3), [0, 2])


def test_missing_and_damaged_files_are_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"0 files of split train.*dvc repro"):
        packed.Split.open(tmp_path, "train")
    write(tmp_path, entries(6), list(range(6)))
    first, second = packed.files(tmp_path)
    second.rename(tmp_path / "gone")
    with pytest.raises(UserError, match=r"1 files of split train, not all"):
        packed.Split.open(tmp_path, "train")
    second.write_bytes(first.read_bytes()[:100])
    with pytest.raises(UserError, match=r"train-00001-of-00002\.arrow is damaged"):
        packed.Split.open(tmp_path, "train")


def test_meta_comes_back_or_is_told(tmp_path: Path) -> None:
    meta = packed.Meta(
        *("cub", ["a", "b"], {"train": 2}, "0f", True, 128, 95, 1, {"a/x.jpg": "it is empty"}),
        *({"train": 1}, {"b/y.jpg": "0, 0, 0, 0"}),
    )
    packed.write_meta(tmp_path, meta)
    assert packed.read_meta(tmp_path) == meta
    (tmp_path / "meta.json").write_text(json.dumps({"dataset": "cub"}))
    with pytest.raises(UserError, match=r"meta\.json is not what preprocess writes"):
        packed.read_meta(tmp_path)
    with pytest.raises(UserError, match=r"meta\.json is missing"):
        packed.read_meta(tmp_path / "nowhere")
