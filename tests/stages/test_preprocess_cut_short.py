"""Preprocess killed, stopped or out of disk, as a real process: it continues, and the bytes are the same."""

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import psutil
import pytest

from tests.imports import ROOT
from tests.interrupts import interruptible
from tests.made import encode, many_ilsvrc, noise
from tests.tiny import write_params

pytestmark = pytest.mark.slow


# The stage with files of five images.
RUN = """
import sys
from pipeline import packed
packed.IMAGES_PER_FILE, packed.ROWS_PER_BATCH = 5, 2
from stages import download, entry, preprocess
stage, images_per_process = sys.argv[1:]
sys.argv[1:] = []
preprocess.IMAGES_PER_PROCESS = int(images_per_process)
main = {"download": download, "preprocess": preprocess}[stage].main
entry.run(main, kept="finished files are kept; the same command continues after them")
"""
FILES = 13  # 9 of 44 training images, 1 of 4 val, 3 of 12 test
PREPARED = Path("data/prepared")
ALONE, IN_PARALLEL = 1000, 20  # images per process


@cache
def photo(i: int) -> bytes:
    return encode(noise(600, 800, i % 7))


class Project:
    """The main repository `root`; the stage runs in a temporary copy of it each time, as under `--temp`."""

    def __init__(self, root: Path) -> None:
        self.root, self.runs = root, 0
        many_ilsvrc(root / "archives", classes=4, train=12, test=3, photo=photo)

    def copy(self) -> Path:
        folder = self.root / f"copy{self.runs}"
        self.runs += 1
        folder.mkdir()
        write_params(folder, dataset="ilsvrc", datasets__ilsvrc__root="archives")
        if (self.root / "raw").exists():
            shutil.copytree(self.root / "raw", folder / "data" / "raw")
        return folder

    def start(self, stage: str, folder: Path, processes: int) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [sys.executable, "-c", RUN, stage, str(processes)],
            cwd=folder,
            env=os.environ | {"PYTHONPATH": str(ROOT), "DVC_ROOT": str(self.root)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            preexec_fn=interruptible,
        )

    def run(self, stage: str, folder: Path, processes: int = ALONE) -> tuple[int, str]:
        running = self.start(stage, folder, processes)
        output, _ = running.communicate()
        return running.returncode, output

    def download(self) -> None:
        folder = self.copy()
        code, output = self.run("download", folder)
        assert code == 0, output
        (folder / "data" / "raw").rename(self.root / "raw")

    def finished(self) -> int:
        return len(list(self.root.glob(".checkpoints/preprocess/*/*.arrow")))

    def wait_for(self, files: int, running: "subprocess.Popen[str]") -> None:
        while self.finished() < files and running.poll() is None:
            time.sleep(0.002)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / PREPARED).iterdir()}


@pytest.fixture
def project(tmp_path: Path) -> Project:
    made = Project(tmp_path)
    made.download()
    return made


@pytest.fixture
def whole(project: Project) -> dict[str, bytes]:
    """What an uninterrupted run leaves."""
    folder = project.copy()
    code, output = project.run("preprocess", folder)
    assert code == 0, output
    found = contents(folder)
    assert len(found) == FILES + 1
    assert project.finished() == FILES  # until DVC has saved what is handed over
    shutil.rmtree(project.root / ".checkpoints")
    return found


@pytest.mark.parametrize("processes", [ALONE, IN_PARALLEL])
def test_killed_at_random_moments_it_goes_on(
    project: Project, whole: dict[str, bytes], processes: int
) -> None:
    rng = random.Random(processes)
    kills = 0
    while True:
        folder, before = project.copy(), project.finished()
        running = project.start("preprocess", folder, processes)
        project.wait_for(before + rng.randint(1, 5), running)
        time.sleep(rng.random() * 0.05)
        if kills < 3 and running.poll() is None:
            own = psutil.Process(running.pid).children(recursive=True)
            running.send_signal(rng.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM]))
            kills += 1
        output, _ = running.communicate(timeout=60)  # until no worker holds the pipe any more
        if before:
            assert "continues where it was cut short: " in output
            assert "of 60 images are in them" in output
        if running.returncode == 0:
            break
        assert not (folder / PREPARED).exists() or contents(folder) == whole
        assert psutil.wait_procs(own, timeout=5)[1] == []
        assert project.finished() > 0
        shutil.rmtree(folder)
    assert kills >= 2
    assert contents(folder) == whole
    (store,) = project.root.glob(".checkpoints/preprocess/*")
    assert all(path.suffix in (".arrow", ".json") for path in store.iterdir())
    assert [p.name for p in (folder / "data").iterdir() if p.name.startswith(".")] == []


def test_ctrl_c_says_so_and_it_goes_on(project: Project, whole: dict[str, bytes]) -> None:
    folder = project.copy()
    running = project.start("preprocess", folder, IN_PARALLEL)
    project.wait_for(3, running)
    os.killpg(running.pid, signal.SIGINT)  # as a terminal does, to the workers too
    output, _ = running.communicate()
    assert running.returncode == 130
    assert output.splitlines()[-1].startswith("interrupted: finished files are kept;")
    assert "Traceback" not in output
    code, output = project.run("preprocess", folder)
    assert (code, contents(folder)) == (0, whole)
    assert "continues where it was cut short" in output


def test_files_of_other_settings_are_not_mixed_in(
    project: Project, whole: dict[str, bytes]
) -> None:
    folder = project.copy()
    running = project.start("preprocess", folder, ALONE)
    project.wait_for(3, running)
    running.kill()
    running.communicate()
    other = project.copy()
    write_params(
        other, dataset="ilsvrc", datasets__ilsvrc__root="archives", prepare__jpeg_quality=50
    )
    code, output = project.run("preprocess", other)
    assert code == 0
    assert "continues" not in output
    assert project.finished() >= 3  # the others still wait for their own settings
    code, output = project.run("preprocess", folder)
    assert (code, contents(folder)) == (0, whole)
    assert "continues" in output


def test_unreadable_images_cost_no_second_run(project: Project) -> None:
    def damaged(i: int) -> bytes:
        return b"no image" if i == 13 else photo(i)

    shutil.rmtree(project.root / "archives")
    shutil.rmtree(project.root / "raw")
    many_ilsvrc(project.root / "archives", classes=4, train=12, test=3, photo=damaged)
    project.download()
    folder = project.copy()
    code, output = project.run("preprocess", folder)
    assert code == 2
    assert "n00000003/n00000003_1.JPEG: it is not an image of a known format" in output
    assert "set prepare.skip_unreadable to true" in output
    assert project.finished() == FILES
    write_params(
        folder, dataset="ilsvrc", datasets__ilsvrc__root="archives", prepare__skip_unreadable=True
    )
    code, output = project.run("preprocess", folder)
    assert code == 0
    assert "continues where it was cut short: 60 of 60 images" in output
    assert "left out: n00000003/n00000003_1.JPEG" in output
    shutil.rmtree(project.root / ".checkpoints")
    again = project.copy()
    write_params(
        again, dataset="ilsvrc", datasets__ilsvrc__root="archives", prepare__skip_unreadable=True
    )
    assert project.run("preprocess", again)[0] == 0
    assert contents(again) == contents(folder)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 400 KiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if (
        os.geteuid()
        or subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=400k", "none", str(disk)], check=False
        ).returncode
    ):
        pytest.skip("mounting a file system needs root")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def remount(disk: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(disk)], check=True)


def test_a_full_disk_is_told_and_it_goes_on_when_there_is_room(
    project: Project, whole: dict[str, bytes], small_disk: Path
) -> None:
    size = sum(map(len, whole.values()))
    remount(small_disk, f"size={size * 6 // 10}")
    folder = small_disk / "copy"
    shutil.copytree(project.copy(), folder)
    (project.root / ".checkpoints").symlink_to(small_disk)
    code, output = project.run("preprocess", folder)
    assert code == 2, output
    (line,) = (line for line in output.splitlines() if line.startswith("error: "))
    assert re.search(
        r"\.checkpoints/preprocess/\w+\S*: the disk is full .* \(0.0 GB free\); make room", line
    )
    assert project.finished() > 0
    assert "Traceback" not in output
    assert not (folder / PREPARED).exists()
    assert list(small_disk.rglob(".*partial")) == []
    remount(small_disk, f"size={size * 3}")
    code, output = project.run("preprocess", folder)
    assert (code, contents(folder)) == (0, whole)
    assert "continues where it was cut short" in output


def test_a_read_only_output_is_told(project: Project, small_disk: Path) -> None:
    folder = small_disk / "copy"
    shutil.copytree(project.copy(), folder)
    remount(small_disk, "ro")
    code, output = project.run("preprocess", folder)
    assert code == 2, output
    (line,) = (line for line in output.splitlines() if line.startswith("error: "))
    assert line.startswith("error: data/.prepared.")
    assert ": Read-only file system; allowed: " in line
    assert "Traceback" not in output
    assert project.finished() == FILES  # all but the last step is done
    remount(small_disk, "rw")


def test_a_finished_file_that_was_damaged_is_made_again(
    project: Project, whole: dict[str, bytes]
) -> None:
    folder = project.copy()
    assert project.run("preprocess", folder)[0] == 0
    damaged = next(project.root.glob(".checkpoints/preprocess/*/train-00003*.arrow"))
    with damaged.open("r+b") as file:
        file.seek(1000)
        file.write(b"garbage")
    code, output = project.run("preprocess", folder)
    assert (code, contents(folder)) == (0, whole)
    assert "55 of 60 images are in them" in output
