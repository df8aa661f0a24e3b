"""evaluate and `wsol predict`, as processes, draw the same boxes on the same image files."""

import csv
from pathlib import Path

import pytest

from pipeline import packed
from tests import tiny
from tests.stages.trained import command, place

pytestmark = pytest.mark.slow


EDGES = ("x0", "y0", "x1", "y1")


@pytest.mark.parametrize("rule", ["val", "two_stage"])
def test_predict_gives_the_boxes_of_evaluate(tmp_path: Path, rule: str) -> None:
    prepared = tiny.prepare(tmp_path / "prepared", {"train": 6, "val": 3, "test": 5})
    folder = place(tmp_path / "run", prepared, box__selection=rule, train__precision="bf16")
    images = packed.Split.open(prepared, "test")
    for i in range(len(images)):
        path = folder / "photos" / images.ids[i]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(images.encoded(i))
    for words in (
        ("stages.train",),
        ("stages.evaluate",),
        ("tools.wsol", "predict", "photos", "--out", "out", "--no-pictures", "--batch-size", "4"),
    ):
        done = command(folder, "python", "-m", *words)
        assert done.returncode == 0, done.stdout
    with (folder / "metrics" / "per_image.csv").open() as file:
        evaluated = {row["id"]: [row[edge] for edge in EDGES] for row in csv.DictReader(file)}
    with (folder / "out" / "boxes.csv").open() as file:
        predicted = {row["image"]: [row[edge] for edge in EDGES] for row in csv.DictReader(file)}
    assert len(evaluated) == 15
    assert predicted == evaluated
