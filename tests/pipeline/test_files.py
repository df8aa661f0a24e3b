"""Whole or not at all: what a failed or killed writer leaves behind."""

import errno
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.errors import UserError
from pipeline.files import recover, whole_directory, whole_file, write_text
from tests.interrupts import interruptible

KILLED = """
import os, signal, sys
from pathlib import Path
from pipeline.files import whole_directory, whole_file
with whole_directory(Path(sys.argv[1]) / "folder") as folder, whole_file(Path(sys.argv[1]) / "file") as file:
    (folder / "half").write_text("half")
    file.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_failed_writer_leaves_the_old_content_and_nothing_else(tmp_path: Path) -> None:
    write_text(tmp_path / "file", "old")
    with pytest.raises(OSError, match="full"), whole_file(tmp_path / "file") as file:
        file.write_text("half")
        raise OSError("disk full")
    with pytest.raises(OSError, match="full"), whole_directory(tmp_path / "folder") as folder:
        (folder / "half").write_text("half")
        raise OSError("disk full")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == "old"


def test_the_next_writer_removes_what_a_killed_one_left(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert len(list(tmp_path.iterdir())) == 2  # both partial
    other = tmp_path / f".file.{1}.partial"  # process 1 is running: not ours to remove
    other.write_text("being written")
    with whole_directory(tmp_path / "folder") as folder:
        (folder / "whole").write_text("whole")
    write_text(tmp_path / "file", "whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == [other.name, "file", "folder"]


# Replaces `folder`, and stops itself by a signal as the n-th rename begins or has ended.
REPLACE = """
import os, signal, sys
from pathlib import Path
from pipeline.files import whole_directory
target, number, moment, when = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
rename, renames = Path.rename, 0
def counted(path, to):
    global renames
    renames += 1
    if renames == moment and when == "before":
        os.kill(os.getpid(), number)
    rename(path, to)
    if renames == moment and when == "after":
        os.kill(os.getpid(), number)
Path.rename = counted
with whole_directory(target) as new:
    for i in range(100):
        (new / str(i)).write_text("new")
"""


def replaced(folder: Path, number: signal.Signals, moment: int, when: str) -> int:
    done = subprocess.run(
        [sys.executable, "-c", REPLACE, folder, str(number.value), str(moment), when],
        check=False,
        stderr=subprocess.DEVNULL,
        preexec_fn=interruptible,
    )
    return done.returncode


def old(folder: Path) -> Path:
    folder.mkdir()
    for i in range(50):
        (folder / str(i)).write_text("old")
    return folder


def content(folder: Path) -> tuple[int, set[str]]:
    files = list(folder.iterdir())
    return len(files), {file.read_text() for file in files}


@pytest.mark.parametrize(
    ("moment", "when", "left"),
    [(1, "before", "old"), (1, "after", "new"), (2, "before", "new"), (2, "after", "new")],
)
def test_killed_at_any_rename_the_folder_is_the_old_or_the_new_one(
    tmp_path: Path, moment: int, when: str, left: str
) -> None:
    folder = old(tmp_path / "folder")
    assert replaced(folder, signal.SIGKILL, moment, when) == -signal.SIGKILL
    recover(folder)
    assert content(folder) == {"old": (50, {"old"}), "new": (100, {"new"})}[left]
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("moment", [1, 2])
def test_signals_wait_until_the_folder_is_replaced(
    tmp_path: Path, number: signal.Signals, moment: int
) -> None:
    folder = old(tmp_path / "folder")
    assert replaced(folder, number, moment, "after") != 0
    assert content(folder) == (100, {"new"})
    if number == signal.SIGINT:  # SIGTERM ends a process at once, when it comes through
        assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_killed_at_random_moments_a_folder_of_many_files_is_whole(tmp_path: Path) -> None:
    """As issues report it: the kill comes from outside, while an old output of many files is swapped."""
    folder, rng = old(tmp_path / "folder"), random.Random(0)
    kills = 0
    for _ in range(12):
        process = subprocess.Popen([sys.executable, "-c", LOOP, folder], stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()  # it has begun
        time.sleep(rng.random() * 0.05)
        process.kill()
        process.communicate()
        kills += process.returncode == -signal.SIGKILL
        recover(folder)
        count, texts = content(folder)
        assert (count, len(texts)) in {(50, 1), (300, 1)}
        assert [path.name for path in tmp_path.iterdir()] == ["folder"]
    assert kills == 12


LOOP = """
import sys
from pathlib import Path
from pipeline.files import whole_directory
print("begun", flush=True)
while True:
    with whole_directory(Path(sys.argv[1])) as new:
        for i in range(300):
            (new / str(i)).write_text("new")
"""


def test_a_rename_that_fails_puts_the_old_folder_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, rename = old(tmp_path / "folder"), Path.rename

    def refused(path: Path, to: Path) -> Path:
        if path.suffix == ".partial":
            raise OSError(errno.EBUSY, "Device or resource busy")
        return rename(path, to)

    monkeypatch.setattr(Path, "rename", refused)
    with pytest.raises(OSError, match="busy"), whole_directory(folder):
        pass
    assert content(folder) == (50, {"old"})
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_a_link_stays_and_what_it_names_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(old(tmp_path / "elsewhere"))
    with whole_directory(tmp_path / "link") as folder:
        (folder / "file").write_text("new")
    assert (tmp_path / "link").is_symlink()
    assert content(tmp_path / "elsewhere") == (1, {"new"})


@pytest.mark.parametrize("name", ["x" * 255, "é" * 127, "a [b] *?"])
def test_every_name_that_a_disk_takes_can_be_written(tmp_path: Path, name: str) -> None:
    for text in ("old", "new"):
        write_text(tmp_path / "file" / name, text)
        with whole_directory(tmp_path / "folder" / name) as folder:
            (folder / "file").write_text(text)
    assert [p.name for p in (tmp_path / "file").iterdir()] == [name]
    assert content(tmp_path / "folder" / name) == (1, {"new"})


HIDDEN = {
    "torch": RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 64 vs 0"),
    "safetensors": Exception("I/O error: No space left on device (os error 28)"),
    "numpy": OSError("16000 requested and 4096 written"),
    "quota": OSError(errno.EDQUOT, "Disk quota exceeded"),
}


@pytest.mark.parametrize("library", HIDDEN)
def test_a_full_disk_is_one_line_whatever_a_library_makes_of_it(
    tmp_path: Path, library: str
) -> None:
    write_text(tmp_path / "file", "old")
    with (
        pytest.raises(UserError, match=r"file: the disk is full .*make room and run the same"),
        whole_file(tmp_path / "file") as file,
    ):
        file.write_text("half")
        raise HIDDEN[library]
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == "old"


def test_other_errors_stay_what_they_are(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="shape"), whole_file(tmp_path / "file"):
        raise RuntimeError("shape mismatch")


@pytest.mark.parametrize("where", ["a file", "below a file"])
def test_an_output_that_cannot_be_is_one_line(tmp_path: Path, where: str) -> None:
    write_text(tmp_path / "file", "mine")
    path = tmp_path / "file" if where == "a file" else tmp_path / "file" / "folder"
    with pytest.raises(UserError, match="Not a directory"), whole_directory(path):
        pass
    assert (tmp_path / "file").read_text() == "mine"
