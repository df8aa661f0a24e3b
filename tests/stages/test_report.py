"""The stages at the end: the report's files and the summary on the terminal."""

import argparse
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.evaluation import runs
from stages import report
from tests.imports import ROOT
from tests.measured import measure
from tools import summary


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder as the stages find it, measured in params.yaml's setting."""
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "params.yaml").read_text()
    names = "methods-cam, methods-ass, masks-attention, masks-channel2"
    (tmp_path / "params.yaml").write_text(re.sub(r"run: \[.*?\]", f"run: [{names}]", text))
    metrics = tmp_path / "metrics"
    measure(metrics)
    measure(metrics / "ablation" / "methods-ass" / "methods-ass", "ass")
    measure(metrics / "ablation" / "methods-cam" / "methods-cam")
    measure(metrics / "ablation" / "masks-attention" / "masks-attention", "ahd")
    (metrics / "pictures").mkdir()
    for name in ("worst", "best", "methods_strip"):
        Image.fromarray(np.full((30, 40, 3), 90, np.uint8)).save(
            metrics / "pictures" / f"{name}.png"
        )
    return tmp_path


def test_the_report_stage(project: Path) -> None:
    report.main()
    text = Path("metrics/report.md").read_text()
    links = [line.split("](")[1].rstrip(")") for line in text.splitlines() if line.startswith("![")]
    assert links == [
        *("report/methods.png", "report/thresholds.png", "report/training.png"),
        *("report/best.jpg", "report/worst.jpg", "report/methods_strip.jpg"),
    ]
    assert all((Path("metrics") / link).exists() for link in links)
    assert Path("metrics/report.csv").read_text().startswith("source,table,published_variant,")
    assert "spatial_top: 0" in text  # the change, from params.yaml
    assert "No results yet: `masks-channel2`." in text


def test_a_second_run_writes_the_same_bytes(project: Path) -> None:
    written = []
    for _ in range(2):
        report.main()
        files = [Path("metrics/report.md"), Path("metrics/report.csv")]
        files += sorted(Path("metrics/report").iterdir())
        written.append({path.name: path.read_bytes() for path in files})
    assert len(written[0]) == 8 and written[0] == written[1]


def test_photographs_stay_out_of_git(tmp_path: Path) -> None:
    measure(tmp_path, dataset="cub")
    (tmp_path / "pictures").mkdir()
    Image.new("RGB", (9, 9)).save(tmp_path / "pictures" / "best.png")
    shown = report.draw(runs.read(tmp_path), tmp_path)
    assert shown[-1] == ("Best boxes", "pictures/best.png")
    assert not (tmp_path / "report" / "best.jpg").exists()


def test_the_summary(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report.main()
    summary.main(argparse.Namespace())
    lines = capsys.readouterr().out.splitlines()
    assert "  synthetic, vgg_small, weights none, seed 0, 4 test images" in lines
    start = next(i for i, line in enumerate(lines) if "error, %" in line)
    assert [line.split()[0] for line in lines[start + 2 : start + 6]] == [
        *("this", "methods-cam", "methods-ass", "centre"),
    ]
    assert lines[start + 3].split() == ["methods-cam", "25.0", "75.0", "50.0", "75.0"]
    assert len({len(line) for line in lines[start : start + 6]}) == 1
    assert "  … and 1 more variants in the report" in lines
    assert any("metrics/report.md" in line for line in lines)
    assert any("make ui" in line for line in lines)


def test_the_summary_without_boxes_or_ablation(tmp_path: Path) -> None:
    measure(tmp_path, iou=(None, None))
    text = summary.summary(runs.read(tmp_path))
    assert "Top-1 cls" in text and "Top-1 loc" not in text and "centre box" not in text


def test_columns_are_as_wide_as_a_terminal_shows_them() -> None:
    lines = summary.aligned([("name", "x"), ("鳥", "1"), ("e\u0301ider", "22")])
    assert lines == [
        "  name     x",
        "  ──────────",
        "  鳥       1",
        "  e\u0301ider   22",
    ]


def test_neither_stage_imports_torch() -> None:
    from tests.imports import imported

    for command in ("stages/report.py", "tools/summary.py"):
        names = {p.stem for p in imported(ROOT / command)}
        assert not names & {"evaluator", "loop"}
