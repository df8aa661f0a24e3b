"""Finished files outlive the process that made them, and belong to one process at a time."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline import cache


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """DVC's main repository; the stage runs in a temporary copy of it."""
    (tmp_path / "copy").mkdir()
    monkeypatch.chdir(tmp_path / "copy")
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    return tmp_path


def test_the_folder_is_the_projects_own_and_stays_unless_it_is_empty(project: Path) -> None:
    with cache.held("pack", "ab", print) as folder:
        assert folder == project / ".checkpoints" / "pack" / "ab"
    assert not folder.exists()
    with pytest.raises(KeyError), cache.held("pack", "ab", print) as folder:
        (folder / "file").write_text("whole")
        raise KeyError
    with cache.held("pack", "ab", print) as folder:
        assert (folder / "file").read_text() == "whole"


HOLD = """
import sys, time
from pipeline import cache as parts
with parts.held("pack", "ab", print) as folder:
    print("held", flush=True)
    sys.stdin.readline()
    (folder / "file").write_text("of the first")
"""


def test_a_second_process_waits_and_takes_what_the_first_has_left(project: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    first = subprocess.Popen(
        [sys.executable, "-c", HOLD], env=environment, stdin=-1, stdout=-1, text=True
    )
    assert first.stdout is not None
    assert first.stdout.readline() == "held\n"
    said: list[str] = []

    def say(text: str) -> None:
        said.append(text)
        first.communicate("\n")

    with cache.held("pack", "ab", say) as folder:
        assert (folder / "file").read_text() == "of the first"
    assert said == ["another process is doing the same work; this one waits until it ends"]


def test_what_nobody_went_on_with_for_long_is_removed(project: Path) -> None:
    store = project / ".checkpoints" / "pack"
    month = time.time() - cache.FORGOTTEN
    for name, age in {"old": month - 60, "new": month + 3600, "held": month - 60}.items():
        (store / name).mkdir(parents=True)
        os.utime(store / name, (age, age))
    with cache.held("pack", "held", print) as held:
        os.utime(held, (month - 60, month - 60))
        with cache.held("pack", "other", print):
            assert sorted(path.name for path in store.iterdir()) == ["held", "new", "other"]


def test_the_fingerprint_is_of_values_and_code() -> None:
    name = cache.fingerprint({"b": 1, "a": 2}, [b"code"])
    assert name == cache.fingerprint({"a": 2, "b": 1}, [b"code"])
    assert name != cache.fingerprint({"a": 2, "b": 2}, [b"code"])
    assert name != cache.fingerprint({"a": 2, "b": 1}, [b"edited"])


def meta(folder: Path, text: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "meta.json").write_text(text)


def test_what_is_handed_over_is_the_same_file_and_stays_until_a_later_stage(project: Path) -> None:
    output = project / "copy" / "out"
    output.mkdir()
    (output / "old").write_text("gone")
    with cache.held("pack", "ab", print) as folder:
        meta(folder, "{}")
        (folder / "notes").write_text("not handed over")
        cache.hand_over(folder, [folder / "meta.json"], output)
    assert [path.name for path in output.iterdir()] == ["meta.json"]
    assert (output / "meta.json").samefile(folder / "meta.json")
    for name, text in {"other": '{"val_seed": 1}', "held": "{}"}.items():
        meta(project / ".checkpoints" / "pack" / name, text)
    (project / ".checkpoints" / "pack" / "unfinished").mkdir()
    with cache.held("pack", "held", print):
        cache.drop_saved("pack", output)
    left = sorted(path.name for path in (project / ".checkpoints" / "pack").iterdir())
    assert left == ["held", "other", "unfinished"]


@pytest.mark.parametrize("trouble", ["no links", "no room"])
def test_a_second_copy_is_not_kept(
    project: Path, monkeypatch: pytest.MonkeyPatch, trouble: str
) -> None:
    def refused(source: Path, target: Path) -> None:
        raise OSError(18, "Invalid cross-device link")

    if trouble == "no links":
        monkeypatch.setattr(os, "link", refused)
    else:
        monkeypatch.setattr(cache, "ROOM", 10**15)
    with cache.held("pack", "ab", print) as folder:
        meta(folder, "{}")
        cache.hand_over(folder, [folder / "meta.json"], project / "out")
        assert not folder.exists()
    assert (project / "out" / "meta.json").read_text() == "{}"
