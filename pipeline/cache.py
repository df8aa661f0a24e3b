"""Finished files of work that may be cut short, kept until all of it is done and saved.

DVC empties a stage's outputs before it runs, and an experiment's temporary copy of the project ends with
it. What must outlive both lies in the project's own `.checkpoints/<stage>/<fingerprint>/`.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline.datasets import project_path
from pipeline.files import whole_directory

FORGOTTEN = 7 * 24 * 3600  # seconds after which work that nobody went on with is removed
ROOM = 3  # times its size that must be free


def fingerprint(values: Mapping[str, Any], code: Iterable[bytes]) -> str:
    """Name of all that decides an output's bytes: `values`, and the `code` that computes it."""
    sha = hashlib.sha256(json.dumps(values, sort_keys=True).encode())
    for content in code:
        sha.update(hashlib.sha256(content).digest())
    return sha.hexdigest()[:32]


@contextmanager
def held(stage: str, name: str, say: Callable[[str], None]) -> Iterator[Path]:
    """The folder of the finished files of `name`, a fingerprint; only one process at a time has it.

    It outlives the block unless it is empty: what the stage leaves is safe only when DVC has saved it,
    after its end; then `drop_saved` removes the folder.
    """
    folder = project_path(".checkpoints") / stage / name
    _forget(folder.parent, folder)
    lock = _locked(folder, say)
    try:
        yield folder
    finally:
        with contextlib.suppress(OSError):
            folder.rmdir()  # only if it is empty
        os.close(lock)


def hand_over(folder: Path, files: Iterable[Path], output: Path) -> None:
    """Make `files` of the held `folder` the whole of the directory `output`, without a copy if it can be.

    The folder stays while there is room for it: DVC makes copies of its own, and may be cut short too.
    The next process that asks for the same work takes it from there.
    """
    linked, size = True, 0
    with whole_directory(output) as out:
        for file in files:
            size += file.stat().st_size
            try:
                os.link(file, out / file.name)
            except OSError:  # another file system, or one without links
                shutil.copyfile(file, out / file.name)
                linked = False
    if not linked or shutil.disk_usage(folder).free < ROOM * size:
        shutil.rmtree(folder)


def drop_saved(stage: str, output: Path) -> None:
    """Remove the folders of the work that is in `output`; for a later stage, as DVC has saved it then."""
    for folder in (project_path(".checkpoints") / stage).glob("*"):
        with contextlib.suppress(FileNotFoundError):  # unfinished, or removed by another process
            if (folder / "meta.json").read_bytes() == (output / "meta.json").read_bytes():
                _remove(folder)


def _locked(folder: Path, say: Callable[[str], None]) -> int:
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another process is doing the same work; this one waits until it ends")
            fcntl.flock(lock, fcntl.LOCK_EX)
        if folder.exists() and os.path.samestat(os.fstat(lock), folder.stat()):
            return lock
        os.close(lock)  # who had it has finished and removed it


def _forget(store: Path, ours: Path) -> None:
    """Remove the folders that nobody has gone on with for long."""
    for folder in store.glob("*"):
        with contextlib.suppress(FileNotFoundError):  # another process was first
            if folder != ours and time.time() - folder.stat().st_mtime > FORGOTTEN:
                _remove(folder)


def _remove(folder: Path) -> None:
    """Remove a folder, unless a process has it."""
    lock = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder)
    except BlockingIOError:
        pass
    finally:
        os.close(lock)
