"""A metric added to the table, and to nothing else, is in the files, the report and the comparison."""

import json
from pathlib import Path

import numpy as np
import pytest

from pipeline.evaluation import logged, metrics, runs
from pipeline.evaluation.formats import localization, per_class, per_image
from pipeline.evaluation.metrics import Metric, Scored
from pipeline.files import write_csv
from pipeline.report import page
from tests.measured import measure
from tools import experiments, heatmap_sheet, summary, wsol

OVERLAP = Metric("mean_iou", "Mean IoU", lambda of: of.iou_true, better="higher", short="mean IoU")
SCORED = Scored(
    top1=np.array([True, False, True]),
    top5=np.ones(3, np.bool_),
    iou_predicted=np.array([0.75, 0.25, np.nan]),
    iou_true=np.array([0.75, 0.25, np.nan]),
)


@pytest.fixture(autouse=True)
def _table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "METRICS", (*metrics.METRICS, OVERLAP))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The files of ASS, as the main run and as a variant, and those of CAM with half the IoU."""
    variants = tmp_path / "ablation" / "all"
    for place, share in (
        (tmp_path, 1.0),
        (variants / "methods-ass", 1.0),
        (variants / "methods-cam", 0.5),
    ):
        iou = (0.8 * share, 0.4 * share)
        measure(place, "ass" if share == 1 else "cam", iou=iou, missed=())
        values = json.loads((place / localization.FILE).read_text())
        found = metrics.figures(Scored(iou_true=np.array(iou)), bootstrap=50, seed=0)
        written = localization.of_figures(found)
        values["intervals"] |= written.pop("intervals")
        localization.write(place / localization.FILE, {**values, **written})
        classes = per_class.rows(SCORED, np.array([0, 0, 1]), ["wren", "crow"])
        per_class.write(place / per_class.FILE, classes)
    return tmp_path


def test_it_is_in_the_files(folder: Path) -> None:
    values = json.loads((folder / localization.FILE).read_text())
    assert values["mean_iou"] == pytest.approx(60)
    low, high = values["intervals"]["mean_iou"]
    assert low == pytest.approx(40) and high == pytest.approx(80)
    classes = per_class.read(folder / per_class.FILE)
    assert [row["mean_iou"] for row in classes] == [50, None]


def test_it_is_logged(folder: Path) -> None:
    outcome = logged.outcome(folder)
    assert outcome.figures["loc/mean_iou"] == pytest.approx(60)
    assert "| mean_iou | 60.0 | 40.0 – 80.0 |" in outcome.description


def test_it_is_in_the_report_and_the_summary(folder: Path) -> None:
    results = runs.read(folder)
    text = page.markdown(results)
    assert "Mean IoU (↑)" in text and "**60.0**" in text
    (study,) = (line for line in text.splitlines() if line.startswith("| ASS") and "+30.0" in line)
    assert "60.0 (40.0–80.0)" in study
    assert {row["figure"] for row in page.rows(results)} >= {"mean_iou"}
    assert "mean IoU ↑" in summary.summary(results)


def test_it_is_compared_and_higher_is_better(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wsol.run(["compare", str(folder / "ablation/all/methods-cam"), str(folder)])
    (line,) = (line for line in capsys.readouterr().out.splitlines() if "mean_iou" in line)
    assert "30.00 → 60.00" in line and line.endswith("B is better")


def test_it_is_in_the_tables_of_experiments_and_heatmaps(folder: Path) -> None:
    one = experiments.Experiment(
        "e",
        {**localization.read(folder)},
        per_image.read(folder),
        60.0,
        {"dataset": "synthetic"},
    )
    (row,) = experiments.table([one], 20)
    assert row["mean_iou"] == 60 and row["mean_iou_low"] == 40
    write_csv(folder / "experiments.csv", [row], experiments.columns())
    assert "mean IoU ↑" in next(experiments.markdown([row]))
    assert "mean_iou" in heatmap_sheet.columns()
