"""`wsol figures`: every figure of a trained model, in both formats, and what is left out says why."""

import csv
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.report import plates
from pipeline.report.plates import View
from tests import tiny
from tests.stages.trained import command, place
from tools.figures import NAMES

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    counts = {"train": 4, "val": 1, "test": 3}
    return tiny.prepare(tmp_path_factory.mktemp("data") / "prepared", counts)


PHOTOGRAPH = np.full((20, 30, 3), 128, np.uint8)


def wsol(folder: Path, *words: str) -> str:
    done = command(folder, sys.executable, "-m", "tools.wsol", "figures", *words)
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_every_figure_of_a_hiding_method(tmp_path: Path, prepared: Path) -> None:
    folder = place(tmp_path / "project", prepared, method="ahd")
    for stage in (["stages.train"], ["stages.ablate", "methods-cam"]):
        done = command(folder, sys.executable, "-m", *stage)
        assert done.returncode == 0, done.stdout
    said = wsol(folder, "--images", "1")
    assert "left out" not in said
    out = folder / "metrics" / "figures"
    for name in NAMES:
        width = plates.WIDTH / (2 if name == "branches" else 1)
        with Image.open(out / f"{name}.png") as image:
            assert image.width == 300 * width
        assert (out / f"{name}.pdf").read_bytes().startswith(b"%PDF")
    with (out / "branches.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["plug_point"] for row in rows] == ["stride8", "stride16_early", "stride16_late"]
    for row in rows:
        assert sum(float(row[b]) for b in ("dispersed", "passed", "hidden")) == pytest.approx(1)
    first = (out / "thresholds.pdf").read_bytes()
    wsol(folder, "thresholds", "--images", "1")
    assert (out / "thresholds.pdf").read_bytes() == first
    assert not (out / "channels.png").exists()  # the folder holds what was asked for last


def test_what_a_model_has_no_figure_of_is_said(tmp_path: Path, prepared: Path) -> None:
    folder = place(tmp_path / "project", prepared)
    assert command(folder, sys.executable, "-m", "stages.train").returncode == 0
    said = wsol(folder, "branches", "comparison", "attention", "--images", "1")
    assert "branches: left out, since cam has no branches" in said
    assert "comparison: left out, since the trained model is CAM itself" in said
    assert "metrics/figures/attention.png" in said


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["atention"], "figure is 'atention'; allowed: attention, comparison,"),
        (["--images", "0"], "--images is 0; allowed: a whole number >= 1"),
    ],
)
def test_mistakes_are_one_line(tmp_path: Path, words: list[str], problem: str) -> None:
    done = command(tmp_path, sys.executable, "-m", "tools.wsol", "figures", *words)
    assert done.returncode == 2
    assert problem in done.stdout and len(done.stdout.splitlines()) == 1


def test_photographs_of_any_shape_are_equally_high() -> None:
    views = [View(PHOTOGRAPH, aspect) for aspect in (0.5, 1.0, 2.0)]
    figure = plates.plate([views])
    sizes = [axes.get_position().size * figure.get_size_inches() for axes in figure.axes]
    assert [height for _, height in sizes] == pytest.approx([sizes[0][1]] * 3)
    assert [width / height for width, height in sizes] == pytest.approx([0.5, 1.0, 2.0])
    assert figure.get_size_inches()[0] == plates.WIDTH


def test_a_prediction_is_told_from_the_truth_without_colour(tmp_path: Path) -> None:
    box, truth = np.array([0.1, 0.1, 0.6, 0.6]), np.array([[0.2, 0.2, 0.9, 0.9]])
    figure = plates.plate([[View(PHOTOGRAPH, 1.5, box=box, truth=truth)]])
    lines = {line.get_color(): line for line in figure.axes[0].lines}
    assert lines[plates.GREEN].is_dashed() is False
    assert lines[plates.RED].is_dashed() is True
    assert lines[plates.GREEN].get_xdata()[:2] == pytest.approx([0.1, 0.6])
    assert {path.suffix for path in plates.save(figure, tmp_path, "plate")} == {".png", ".pdf"}
