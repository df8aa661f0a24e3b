"""The COCO files as pycocotools reads them."""

import contextlib
import io
import json
from pathlib import Path

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from pipeline import coco

# pycocotools' own
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

NAMES = ["auklet", "Möwe 鳥"]
IMAGES = [
    {"file_name": "a b/1.jpg", "height": 40, "width": 60},
    {"file_name": "ü.png", "height": 30, "width": 20},
]
ROWS = [
    {"label": NAMES[1], "score": 0.9, "x0": 10.0, "y0": 5.0, "x1": 30.0, "y1": 25.0},
    {"label": NAMES[0], "score": 0.4, "x0": 0.0, "y0": 0.0, "x1": 20.0, "y1": 12.5},
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "coco.json").write_text(json.dumps(coco.dataset(ROWS, IMAGES, NAMES)))
    (tmp_path / "coco_results.json").write_text(json.dumps(coco.results(ROWS, NAMES)))
    return tmp_path


def test_a_data_set_gives_masks_and_takes_results(folder: Path) -> None:
    with contextlib.redirect_stdout(io.StringIO()):
        loaded = COCO(str(folder / "coco.json"))
        found = loaded.loadRes(str(folder / "coco_results.json"))
        again = loaded.loadRes(loaded.dataset["annotations"])
    assert [category["name"] for category in loaded.loadCats(loaded.getCatIds())] == NAMES
    for annotations in (loaded, found, again):
        first, second = (annotations.loadAnns(i)[0] for i in (1, 2))
        assert (first["bbox"], first["area"], first["score"]) == (
            [10.0, 5.0, 20.0, 20.0],
            400.0,
            0.9,
        )
        expected = np.zeros((40, 60), np.uint8)
        expected[5:25, 10:30] = 1
        assert (annotations.annToMask(first) == expected).all()
        assert annotations.annToMask(second).shape == (30, 20)


def test_results_score_100_against_themselves(folder: Path) -> None:
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(folder / "coco.json"))
        scored = COCOeval(truth, truth.loadRes(str(folder / "coco_results.json")), "bbox")
        scored.evaluate()
        scored.accumulate()
        scored.summarize()
    assert scored.stats[0] == pytest.approx(1.0)


def test_no_image_at_all_is_still_a_data_set() -> None:
    made = coco.dataset([], [], NAMES)
    assert made["images"] == made["annotations"] == []
