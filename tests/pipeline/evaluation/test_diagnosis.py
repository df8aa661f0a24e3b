"""Runs that have learned nothing say so; others say nothing."""

import numpy as np
import pytest

from pipeline.evaluation.diagnosis import lines
from pipeline.evaluation.evaluator import Evaluation


def evaluation(side: float, right: int, n: int = 40) -> Evaluation:
    """Boxes of `side` pixels; the first `right` of n images of four classes are classified rightly."""
    labels = np.arange(n) % 4
    top = np.where(np.arange(n) < right, labels, (labels + 1) % 4)[:, None]
    box = np.tile(np.array([0, 0, side, side], np.float32), (n, 1))
    nothing, curve = np.zeros(n, np.float32), np.zeros((n, 1), np.float32)
    return Evaluation(
        labels,
        top,
        nothing,
        box,
        box,
        nothing,
        nothing > 0,
        nothing,
        nothing,
        curve,
        curve,
        maps=np.zeros((n, 2, 2), np.uint8),
        map_low=nothing,
        map_high=nothing,
        thresholds=np.zeros(1),
    )


def test_a_good_run_says_nothing() -> None:
    assert lines(evaluation(60, 36), 100, 4, "class_map") == []


@pytest.mark.parametrize(
    ("localizer", "hint"), [("class_map", "-S localizer=foreground"), ("foreground", "another")]
)
def test_boxes_around_everything(localizer: str, hint: str) -> None:
    (line,) = lines(evaluation(97, 36), 100, 4, localizer)
    assert line.startswith("100% of the boxes cover more than 90%") and hint in line


@pytest.mark.parametrize("right", [0, 10, 15])
def test_a_classifier_near_chance(right: int) -> None:
    (line,) = lines(evaluation(60, right), 100, 4, "class_map")
    assert "the classifier is right in" in line and "most frequent class alone makes 25%" in line
