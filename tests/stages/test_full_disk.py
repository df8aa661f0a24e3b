"""A full disk, as a real file system: one line, nothing half-written, and the same bytes once there is room."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from tests import tiny
from tests.stages.trained import command, place

pytestmark = pytest.mark.slow


STAGE = {name: (sys.executable, "-m", f"stages.{name}") for name in ("train", "evaluate", "report")}
WSOL = str(Path(sys.executable).with_name("wsol"))
COMMANDS = {
    **STAGE,
    "predict": (WSOL, "predict", "photos"),
    "preset": (WSOL, "preset", "quick", "-S", "seed=1"),
}
WRITES = {
    "train": ("models", "metrics/epochs.csv"),
    "evaluate": ("metrics/localization.json", "metrics/per_image.csv", "metrics/maps.npz"),
    "report": ("metrics/report.md", "metrics/report"),
    "predict": ("predictions",),
    "preset": ("params.yaml",),
}


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A real file system of 64 MiB."""
    disk = tmp_path_factory.mktemp("disk")
    mount = ["mount", "-t", "tmpfs", "-o", "size=64m", "none", str(disk)]
    if os.geteuid() or subprocess.run(mount, check=False).returncode:
        pytest.skip("mounting a file system needs root")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project in which every command has been through, with room."""
    counts = {"train": 6, "val": 2, "test": 4}
    prepared = tiny.prepare(tmp_path_factory.mktemp("data") / "prepared", counts)
    folder = place(tmp_path_factory.mktemp("whole") / "p", prepared, train__epochs=2)
    (folder / "photos").mkdir()
    for i in range(3):
        Image.new("RGB", (300, 200), (60 * i, 90, 120)).save(folder / "photos" / f"{i}.jpg")
    shutil.copy(folder / "params.yaml", folder / "before.yaml")
    for name in COMMANDS:  # the preset comes last
        done = command(folder, *COMMANDS[name])
        assert done.returncode == 0, done.stdout
    return folder


@pytest.fixture
def project(whole: Path, disk: Path) -> Iterator[Path]:
    """The same project on the small disk."""
    shutil.copytree(whole, disk / "p")
    shutil.copy(whole / "before.yaml", disk / "p" / "params.yaml")
    yield disk / "p"
    shutil.rmtree(disk / "p")
    (disk / "filler").unlink(missing_ok=True)


def fill(disk: Path, left: int) -> None:
    """Leave `left` bytes free."""
    (disk / "filler").write_bytes(b"")
    with (disk / "filler").open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, shutil.disk_usage(disk).free - left)


def contents(folder: Path, names: tuple[str, ...]) -> dict[str, bytes]:
    files = [f for n in names for f in [folder / n, *(folder / n).rglob("*")] if f.is_file()]
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in files}


def forget(project: Path, name: str) -> None:
    """As before the command ran first."""
    for path in WRITES[name] if name != "preset" else ():
        _remove(project / path)
    if name in ("train", "evaluate"):
        _remove(project / ".checkpoints")


def _remove(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)


@pytest.mark.parametrize(
    ("name", "left"),  # bytes: none, some for the first file, some for half of the pictures
    [
        *(("train", 0), ("train", 65536), ("evaluate", 0), ("report", 4096)),
        *(("predict", 24576), ("preset", 0)),
    ],
)
def test_one_line_then_the_same_bytes(
    whole: Path, project: Path, disk: Path, name: str, left: int
) -> None:
    forget(project, name)
    before = contents(project, WRITES[name])
    fill(disk, left)
    done = command(project, *COMMANDS[name])
    assert "Traceback" not in done.stdout
    assert done.returncode == 2
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("error: "))
    assert "the disk is full" in line
    left_behind, expected = contents(project, WRITES[name]), contents(whole, WRITES[name])
    for key, content in left_behind.items():  # one output may be written before another fails
        assert content in (before.get(key), expected.get(key)), key
    assert list(project.rglob(".*.partial")) == []
    (disk / "filler").unlink()
    again = command(project, *COMMANDS[name])
    assert again.returncode == 0, again.stdout
    now = contents(project, WRITES[name])
    for volatile in (
        "metrics/epochs.csv",
        "metrics/report/training.png",
    ):  # seconds, images per second
        now.pop(volatile, None)
        expected.pop(volatile, None)
    assert now.keys() == expected.keys()
    assert [key for key in now if now[key] != expected[key]] == []


@pytest.mark.parametrize("left", [0, 8192])
def test_evaluation_goes_through_without_keeping_heatmaps(
    whole: Path, disk: Path, tmp_path: Path, left: int
) -> None:
    """A memory map of a sparse file would end the process where the disk has no page for it."""
    folder = tmp_path / "p"
    shutil.copytree(whole, folder)
    shutil.copy(whole / "before.yaml", folder / "params.yaml")
    forget(folder, "evaluate")
    (disk / "store").mkdir()
    (folder / ".checkpoints").symlink_to(disk / "store")
    fill(disk, left)
    done = command(folder, *STAGE["evaluate"])
    shutil.rmtree(disk / "store")
    (disk / "filler").unlink()
    assert done.returncode == 0, done.stdout
    assert "not kept" in done.stdout
    names = ("metrics/localization.json", "metrics/per_image.csv")
    assert contents(folder, names) == contents(whole, names)
