"""The drawn dataset: the same from the same seed, and steady when it grows."""

from pathlib import Path

import pytest

from pipeline.datasets import Dataset, Report, synthetic
from pipeline.errors import UserError
from pipeline.raw import images
from tests.made import every

SMALL = {"classes": 3, "train_per_class": 3, "test_per_class": 2, "side": 48, "seed": 0}


def made(folder: Path, **changes: int) -> Dataset:
    folder.mkdir()
    params = synthetic.Params(**{**SMALL, **changes})
    synthetic.download(params, folder, Report())
    return synthetic.read(params, folder)


def contents(dataset: Dataset) -> dict[str, bytes]:
    return {entry.id: encoded for entry, encoded in every(dataset)}


def test_one_file_the_same_bytes_from_the_same_seed(tmp_path: Path) -> None:
    first, second, other = made(tmp_path / "a"), made(tmp_path / "b"), made(tmp_path / "c", seed=1)
    assert [path.name for path in (tmp_path / "a").iterdir()] == [synthetic.ARCHIVE]
    assert first.checksum == second.checksum != other.checksum
    same = [(tmp_path / name / synthetic.ARCHIVE).read_bytes() for name in "ab"]
    assert same[0] == same[1]


def test_the_index_tells_what_the_pictures_are(tmp_path: Path) -> None:
    dataset = made(tmp_path / "a")
    assert dataset.class_names == sorted(dataset.class_names)
    assert [entry.id for entry in dataset.index] == sorted(entry.id for entry in dataset.index)
    assert [entry.split for entry in dataset.index] == ["train"] * 3 + ["test"] * 2 + (
        ["train"] * 3 + ["test"] * 2
    ) * 2
    sizes = set()
    for entry, encoded in every(dataset):
        assert entry.id.startswith(dataset.class_names[entry.label])
        _, (height, width) = images.decode(encoded)
        ((x0, y0, x1, y1),) = entry.boxes.tolist()
        assert 0 <= x0 < x1 <= width
        assert 0 <= y0 < y1 <= height
        assert min(height, width) == 48
        sizes.add((height, width))
    assert len(sizes) > 3  # not all are square


def test_growing_leaves_what_was_there(tmp_path: Path) -> None:
    small = contents(made(tmp_path / "a"))
    grown = contents(made(tmp_path / "b", classes=5, train_per_class=4))
    assert len(grown) == 30
    assert small.items() <= grown.items()


def test_another_datasets_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"synthetic\.tar: no such file; run `dvc repro download`"):
        synthetic.read(synthetic.Params(**SMALL), tmp_path)
