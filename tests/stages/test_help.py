"""`--help` of a stage explains it and does nothing; arguments a stage does not have are refused."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.imports import ROOT

STAGES = sorted(yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"])


def run(stage: str, folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", f"stages.{stage}", *arguments],
        cwd=folder,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("stage", STAGES)
def test_help_does_nothing(stage: str, tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    (tmp_path / "metrics").mkdir()
    (tmp_path / "metrics" / "report.md").write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    done = run(stage, tmp_path, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"usage: python -m stages.{stage}")
    refused = run(stage, tmp_path, "--nope")
    assert refused.returncode == 2
    assert sorted(tmp_path.rglob("*")) == before
    assert (tmp_path / "metrics" / "report.md").read_text() == "mine"
