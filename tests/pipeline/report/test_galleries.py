"""Galleries: drawn from files alone, boxes where they belong, titles that people read."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline import packed
from pipeline.errors import UserError
from pipeline.evaluation import runs
from pipeline.params import Input
from pipeline.report import galleries
from tests.measured import measure, prepare


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    return prepare(tmp_path / "prepared", 4)


def test_titles_are_for_people() -> None:
    row = {"id": "029/a.jpg", "label": "006.Least_Auklet", "predicted": "005.Crested_Auklet"}
    row |= {"iou_predicted": "0.734", "score": "0.912", "threshold": "0.2"}
    caption, note = galleries.titles("RCAM", row)
    assert caption == "RCAM · Crested Auklet · IoU 0.73"
    assert note == "is Least Auklet · score 91% · threshold 0.20 · 029/a.jpg"
    right = row | {"label": "005.Crested_Auklet", "iou_predicted": ""}
    assert galleries.titles("RCAM", right) == (
        "RCAM · Crested Auklet",
        "score 91% · threshold 0.20 · 029/a.jpg",
    )


@pytest.mark.parametrize(
    ("name", "title"),
    [
        ("006.Least_Auklet", "Least Auklet"),
        ("St._Bernard", "St. Bernard"),
        ("no.5", "no.5"),
        ("12.", "12."),
        ("3.5 mm", "5 mm"),
        ("_", "_"),
    ],
)
def test_class_names_for_people(name: str, title: str) -> None:
    assert galleries.class_title(name) == title


def test_each_gallery_is_drawn_and_an_empty_one_is_not(tmp_path: Path, prepared: Path) -> None:
    measure(tmp_path / "metrics")
    out = tmp_path / "pictures"
    galleries.draw(runs.read(tmp_path / "metrics").main, prepared, out, 2)
    assert sorted(p.name for p in out.iterdir()) == ["best.png", "random.png", "worst.png"]
    with Image.open(out / "best.png") as sheet:
        assert sheet.height > 210
    measure(tmp_path / "metrics", iou=(None,) * 4)
    galleries.draw(runs.read(tmp_path / "metrics").main, prepared, out, 2)
    assert [p.name for p in out.iterdir()] == ["random.png"]
    galleries.draw(runs.read(tmp_path / "metrics").main, prepared, out, 0)
    assert list(out.iterdir()) == []


def test_other_images_than_those_evaluated_are_refused(tmp_path: Path) -> None:
    measure(tmp_path / "metrics")
    other = prepare(tmp_path / "prepared", 3)
    with pytest.raises(UserError, match="are not of the images in"):
        galleries.draw(runs.read(tmp_path / "metrics").main, other, tmp_path / "pictures", 2)


@pytest.mark.parametrize("test", ["squash", "center_crop"])
def test_a_view_is_what_the_network_saw_and_boxes_stay_on_their_pixels(
    tmp_path: Path, test: str
) -> None:
    """The stored image is 40 × 60 of an original 80 × 120; the central crop leaves out 1/8 at each edge."""
    images = packed.Split.open(prepare(tmp_path / "prepared", 1), "test")
    input = Input(resize=64, crop=48 if test == "center_crop" else 64, test=test)  # type: ignore[arg-type]
    photograph, boxes, truth = galleries.view(images, 0, np.array([[40.0, 30, 80, 50]]), input)
    left, top = (8, 5) if test == "center_crop" else (0, 0)
    assert photograph.shape == (40 - 2 * top, 60 - 2 * left, 3)
    assert boxes.tolist() == [[20 - left, 15 - top, 40 - left, 25 - top]]
    assert truth[0].tolist() == [10 - left, 5 - top, 50 - left, 35 - top]
