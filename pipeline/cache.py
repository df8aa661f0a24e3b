"""Resumable outputs, one folder per fingerprint; the project's root, and paths relative to it.

DVC empties a stage's outputs before it runs, and deletes an experiment's temporary copy of the project
with it. What must outlive both lies in `.checkpoints/` of the project itself. No other module knows
that name, or DVC_ROOT.
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

from pipeline.files import whole_directory

FORGOTTEN = 7 * 24 * 3600  # seconds after which work that nobody went on with is removed
SAMPLES, SAMPLE = 64, 2**20  # bytes each
ROOM = 3  # times its size that must be free


def project_root() -> Path:
    """The project's folder, absolute: DVC's main repository, also from an experiment's copy of it.

    DVC_ROOT where DVC runs the command, else the nearest parent with `.dvc`, else the working directory.
    """
    if given := os.environ.get("DVC_ROOT"):
        return Path(given).resolve()
    here = Path.cwd().resolve()
    return next((folder for folder in (here, *here.parents) if (folder / ".dvc").is_dir()), here)


def project_path(text: str) -> Path:
    """A path of params.yaml: absolute, from `~`, or relative to the project.

    As written where the project is the working directory, which keeps messages short.
    """
    path = Path(text).expanduser()
    return path if in_project() else project_root() / path


def in_project() -> bool:
    """Whether this process runs in the project itself, not in an experiment's copy of it."""
    return project_root() == Path.cwd().resolve()


def store(*names: str) -> Path:
    """A file or folder that outlives experiments: `.checkpoints/<names>` of the project."""
    return project_root().joinpath(".checkpoints", *names)


def digest(parts: Iterable[bytes]) -> str:
    """SHA-256 of `parts`, each preceded by its length."""
    sha = hashlib.sha256()
    for part in parts:
        sha.update(len(part).to_bytes(8, "big"))
        sha.update(part)
    return sha.hexdigest()


def digest_file(path: Path) -> str:
    """SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sampled_digest(path: Path) -> str:
    """SHA-256 of a file's size and of 64 blocks of 1 MiB spread evenly over it, both ends included.

    Tells archives, versions and truncated copies apart in a second, where reading 150 GB takes an
    hour; not every single damaged byte is seen (damaged images are, when they are decoded).
    """
    size = path.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        for i in range(SAMPLES):
            file.seek(max(0, size - SAMPLE) * i // (SAMPLES - 1))
            digest.update(file.read(SAMPLE))
    return digest.hexdigest()


def fingerprint(values: Mapping[str, Any], contents: Iterable[bytes]) -> str:
    """Name of all that decides an output's bytes: `values`, and the `contents` of code and data."""
    return digest([json.dumps(values, sort_keys=True).encode(), *contents])[:32]


@contextmanager
def held(stage: str, name: str, say: Callable[[str], None]) -> Iterator[Path]:
    """The folder of the finished files of `name`, a fingerprint; only one process at a time has it.

    It outlives the block unless it is empty: what the stage leaves is safe only when DVC has saved it,
    after its end; then `drop_saved` removes the folder.
    """
    folder = store(stage, name)
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
    for folder in store(stage).glob("*"):
        with contextlib.suppress(FileNotFoundError):  # unfinished, or removed by another process
            if (folder / "meta.json").read_bytes() == (output / "meta.json").read_bytes():
                _remove(folder)


def keep_latest(folders: Path, limit: int, ours: Path) -> None:
    """Remove the folders not changed for longest, beyond `limit` bytes in all; never `ours`, nor one in use."""
    total = 0
    for folder in sorted(folders.glob("*"), key=lambda path: path.stat().st_mtime, reverse=True):
        total += sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        if total > limit and folder != ours:
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


def _forget(folders: Path, ours: Path) -> None:
    """Remove the folders that no process has resumed for long."""
    for folder in folders.glob("*"):
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
