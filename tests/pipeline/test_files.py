"""Whole or not at all: what a failed or killed writer leaves behind."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.files import whole_directory, whole_file, write_text

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
