"""Finished files of work that may be cut short, kept until all of it is done.

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

FORGOTTEN = 30 * 24 * 3600  # seconds after which work that nobody went on with is removed


def fingerprint(values: Mapping[str, Any], code: Iterable[Path]) -> str:
    """Of all that decides the bytes: `values`, and the content of the files `code`."""
    sha = hashlib.sha256(json.dumps(values, sort_keys=True).encode())
    for path in code:
        sha.update(hashlib.sha256(path.read_bytes()).digest())
    return sha.hexdigest()[:32]


@contextmanager
def held(stage: str, name: str, say: Callable[[str], None]) -> Iterator[Path]:
    """The folder of the finished files of `name`, a fingerprint; only one process at a time has it.

    It outlives the block unless it is empty; `drop` it once its content is where it belongs.
    """
    folder = project_path(".checkpoints") / stage / name
    _forget(folder.parent, folder)
    lock = _locked(folder, say)
    try:
        yield folder
    finally:
        os.close(lock)
        with contextlib.suppress(OSError):
            folder.rmdir()  # only if it is empty


def drop(folder: Path) -> None:
    """Remove the folder, which must be held: all of it is done."""
    shutil.rmtree(folder)


def copy(source: Path, target: Path) -> None:
    """Make `target` the file `source`: the same bytes on the disk where that can be, else a copy."""
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copyfile(source, target)


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
    """Remove the folders that nobody holds or has gone on with for long."""
    for folder in store.glob("*"):
        if folder == ours or time.time() - folder.stat().st_mtime < FORGOTTEN:
            continue
        lock = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            drop(folder)
        except BlockingIOError:
            pass  # somebody is at it
        finally:
            os.close(lock)
