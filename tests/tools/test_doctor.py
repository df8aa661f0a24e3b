"""`wsol doctor`: a line for each thing a machine has or lacks, with what to do."""

import argparse
import shutil
from pathlib import Path

import pytest

from tools import doctor


def checked(capsys: pytest.CaptureFixture[str]) -> tuple[int, list[str]]:
    try:
        doctor.main(argparse.Namespace())
    except SystemExit as end:
        return int(str(end.code)), capsys.readouterr().out.splitlines()
    return 0, capsys.readouterr().out.splitlines()


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "HOSTS", ("weights.invalid",))


def test_what_is_missing_is_named_with_a_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".dvc").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(doctor, "FREE_GB", 10**9)
    code, lines = checked(capsys)
    assert code == 1
    missing = [line.split()[1] for line in lines if line.startswith("MISSING")]
    assert missing == ["programs", "programs", "project", "disk"]
    assert all("; " in line for line in lines if not line.startswith("ok"))
    assert any("weights.invalid cannot be reached" in line for line in lines)


def test_a_machine_that_lacks_only_what_is_optional_is_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if not (shutil.which("git") and shutil.which("dvc")):
        pytest.skip("git or dvc is not on PATH")
    monkeypatch.chdir(tmp_path)
    for name in ("params.yaml", "dvc.yaml"):
        (tmp_path / name).touch()
    (tmp_path / ".dvc").mkdir()
    monkeypatch.setattr(doctor, "FREE_GB", 0)
    code, lines = checked(capsys)
    assert code == 0 and not [line for line in lines if line.startswith("MISSING")]
