"""Curves: what is drawn is what the files say, in the same bytes each time."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.evaluation import runs
from pipeline.report import plots
from tests.measured import measure


def has(image: Image.Image, colour: str) -> bool:
    rgb = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return bool((np.asarray(image) == rgb).all(2).any())


def test_every_line_is_drawn_in_its_colour() -> None:
    x = np.linspace(0, 1, 20)
    drawn = plots.threshold_curve({"a": (x, 100 * x), "b": (x, 50 * x)}, chosen={"a": 0.2})
    assert has(drawn, plots.SERIES[0]) and has(drawn, plots.SERIES[1])
    assert not has(drawn, plots.SERIES[2])
    again = plots.threshold_curve({"a": (x, 100 * x), "b": (x, 50 * x)}, chosen={"a": 0.2})
    assert drawn.tobytes() == again.tobytes()


@pytest.mark.parametrize("val", [None, np.array([np.nan, np.nan])])
def test_training_without_held_out_images(val: np.ndarray | None) -> None:
    epochs = {"epoch": np.array([1, 2]), "train_loss": np.array([2.0, 1.0])}
    drawn = plots.training_curves(epochs if val is None else epochs | {"val_loss": val})
    assert has(drawn, plots.SERIES[0]) and not has(drawn, plots.SERIES[1])


def test_which_curves_results_have(tmp_path: Path) -> None:
    measure(tmp_path)
    assert [name for name, _, _ in plots.of(runs.read(tmp_path))] == ["thresholds", "training"]
    measure(tmp_path / "ablation" / "all" / "methods-cam")
    measure(tmp_path / "ablation" / "all" / "methods-rcam", "rcam", selection="two_stage")
    results = runs.read(tmp_path)
    names = [name for name, _, _ in plots.of(results)]
    assert results.main.threshold == 0.2
    assert results.variants["methods-rcam"].threshold is None
    assert names == ["methods", "thresholds", "training"]


def test_without_boxes_there_is_only_training(tmp_path: Path) -> None:
    measure(tmp_path, iou=(None, None))
    assert [name for name, _, _ in plots.of(runs.read(tmp_path))] == ["training"]
