"""Atomic writes: to a temporary name beside the target, synced, then renamed; disk errors as UserError.

A folder is replaced in three steps: the old one is renamed aside, the new one is renamed into place,
the old one is deleted. Killed in between, the next writer or `recover` finishes what was begun.
"""

import csv
import errno
import glob
import hashlib
import json
import os
import re
import shutil
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline import text
from pipeline.errors import UserError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
CLOSED = (errno.EACCES, errno.EPERM, errno.EROFS)
UNUSABLE = (errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.EIO)
# What libraries say that write by themselves: safetensors, NumPy and PyTorch keep no errno.
FULL_TEXT = re.compile(
    r"No space left on device|Disk quota exceeded|File too large|os error (27|28|122)\b"
    r"|\d+ requested and \d+ written|PytorchStreamWriter failed|unexpected pos \d+ vs \d+"
)
LONG_NAME = 200  # bytes; the temporary name is longer, and 255 are allowed
SYNCING = 16  # threads: the disk syncs files together that are asked for together


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path that replaces `path` when the block ends well, also at a power cut."""
    with translate_errors(path):
        partial = _temporary(path)
        recover(path)
        try:
            yield partial
            _sync(partial)
            partial.replace(path)
            _sync(path.parent)
        finally:
            partial.unlink(missing_ok=True)


@contextmanager
def whole_directory(path: Path) -> Iterator[Path]:
    """Yield a new, empty directory that replaces `path` when the block ends well.

    At every moment, also after a power cut, `path` or what `recover` puts there is the old or the new
    one, whole. A link is followed: what it names is replaced, and the link stays.
    """
    path = path.resolve() if path.is_symlink() else path
    with translate_errors(path):
        partial = _temporary(path)
        recover(path)
        if path.exists() and not path.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))
        aside = partial.with_suffix(".old")
        partial.mkdir()
        try:
            yield partial
            _sync_tree(partial)
            with signals_held():
                _swap(partial, path, aside)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
            if path.exists():
                shutil.rmtree(aside, ignore_errors=True)


def recover(path: Path) -> None:
    """Finish a replacement of `path` that was killed, and remove what killed writers left beside it."""
    left = {
        file
        for file in path.parent.glob(f".{glob.escape(_short(path.name))}.*")
        if file.suffix in (".partial", ".old") and _abandoned(file)
    }
    for old in sorted(file for file in left if file.suffix == ".old"):
        if not path.exists():
            new = old.with_suffix(".partial")  # whole: the old one is set aside only for such a one
            (new if new.exists() else old).rename(path)
        _remove(old)
    for partial in left:
        _remove(partial)


@contextmanager
def signals_held() -> Iterator[None]:
    """Deliver Ctrl-C and SIGTERM when the block has ended. Threads but the main one get none anyway."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    before = {
        number: handler
        for number in (signal.SIGINT, signal.SIGTERM)
        if (handler := signal.getsignal(number)) not in (signal.SIG_IGN, None)
    }
    for number in before:
        signal.signal(number, lambda caught, _: came.append(caught))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for held in came:
            signal.raise_signal(held)


def _swap(new: Path, path: Path, aside: Path) -> None:
    if not path.exists():
        new.rename(path)
    else:
        path.rename(aside)
        try:
            new.rename(path)
        except BaseException:
            aside.rename(path)
            raise
    _sync(path.parent)


def _temporary(path: Path) -> Path:
    """This process's temporary name beside `path`, whose folder is made."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        number = errno.ENOTDIR
        raise NotADirectoryError(number, os.strerror(number), str(path.parent)) from error
    return path.with_name(f".{_short(path.name)}.{os.getpid()}.partial")


def _short(name: str) -> str:
    encoded = os.fsencode(name)
    return name if len(encoded) <= LONG_NAME else hashlib.sha256(encoded).hexdigest()[:32]


def _abandoned(temporary: Path) -> bool:
    """Whether the process that made it has ended, or is this one, which made it for an earlier block."""
    owner = temporary.name.split(".")[-2]
    if not owner.isdecimal():
        return False
    try:
        os.kill(int(owner), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return int(owner) == os.getpid()


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _sync_tree(folder: Path) -> None:
    inside = [path for path in folder.rglob("*") if not path.is_symlink()]
    with ThreadPoolExecutor(SYNCING) as pool:
        for _ in pool.map(_sync, [*inside, folder]):
            pass


def _sync(path: Path) -> None:
    """Wait until a file or folder is on the disk; a file system that cannot say so is not asked twice."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except PermissionError:  # written for others only
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):
            raise
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path`, whole."""
    with whole_file(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(path: Path, values: Mapping[str, Any] | Sequence[Any]) -> None:
    """Write `values` as indented JSON in their given order; NaN is refused."""
    write_text(path, json.dumps(values, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object."""
    values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return values


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
    """Write `rows` as CSV with a header of `columns` (also when there are no rows)."""
    with whole_file(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({name: text.cell(value) for name, value in row.items()})


@contextmanager
def translate_errors(path: Path) -> Iterator[None]:
    """Translate disk-full and permission errors into UserError while `path` is written."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if problem := disk_problem(error, path):
            raise UserError(problem) from error
        raise


def disk_problem(error: BaseException, path: Path | None = None) -> str | None:
    """The line for a disk that is full or closed; None if that is not what the error, or its cause, says.

    path: what was being written, where the error does not name a file.
    """
    found = _disk_error(error)
    if found is None:
        return None
    place = found.filename if isinstance(found.filename, str) else None
    name = os.fsencode(place or path or "an output").decode("utf-8", "backslashreplace")
    if found.errno in FULL:
        target = path or Path(place or ".")
        there = next((folder for folder in target.absolute().parents if folder.exists()), Path("/"))
        free = shutil.disk_usage(there).free / 1e9
        why = (
            f"no file may become this large here ({os.strerror(errno.EFBIG)})"
            if found.errno == errno.EFBIG
            else f"the disk is full or its quota used up ({free:.1f} GB free)"
        )
        return (
            f"{path or name}: {why}; make room and run the same command again: "
            "nothing half-written is left"
        )
    return (
        f"{name}: {os.strerror(found.errno or 0)}; allowed: files and folders that this user may read, "
        "and an output that may be written"
    )


def _disk_error(error: BaseException | None) -> OSError | None:
    """The error of the disk behind `error`, also where a library has hidden it in another one."""
    seen: list[BaseException] = []
    while error is not None and error not in seen:
        if isinstance(error, OSError) and error.errno in (*FULL, *CLOSED, *UNUSABLE):
            return error
        if FULL_TEXT.search(str(error)):
            return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        seen.append(error)
        error = error.__cause__ or error.__context__
    return None
