"""The stages at the end: the report's files and the summary on the terminal."""

import argparse
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from pipeline.evaluation import runs
from stages import report
from tests.imports import ROOT
from tests.measured import measure, prepare
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
    prepare(tmp_path / "data" / "prepared", 4)
    return tmp_path


def test_the_report_stage(project: Path) -> None:
    report.main()
    text = Path("metrics/report.md").read_text()
    links = [line.split("](")[1].rstrip(")") for line in text.splitlines() if line.startswith("![")]
    assert links == [
        *("report/methods.png", "report/thresholds.png", "report/training.png"),
        *("report/best.jpg", "report/worst.jpg", "report/random.jpg"),
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
        files += [
            path for folder in ("report", "pictures") for path in Path("metrics", folder).iterdir()
        ]
        written.append({path.name: path.read_bytes() for path in files})
    assert len(written[0]) == 11 and written[0] == written[1]


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
    for module in ("stages.report", "tools.summary"):
        code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
        assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0, module
