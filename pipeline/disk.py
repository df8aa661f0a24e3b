"""Trouble with the place that is written to, told as what it is."""

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.errors import UserError

FULL = (errno.ENOSPC, errno.EDQUOT)
CLOSED = (errno.EACCES, errno.EPERM, errno.EROFS)


@contextmanager
def trouble_told(path: Path) -> Iterator[None]:
    """Turn a full disk, and what may not be read or written, into a UserError while `path` is made."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            place = next(folder for folder in path.absolute().parents if folder.exists())
            free = shutil.disk_usage(place).free / 1e9
            raise UserError(
                f"{path}: the disk is full or its quota used up ({free:.1f} GB free); make room and "
                "run the same command again: nothing half-written is left"
            ) from error
        if error.errno in CLOSED:
            raise UserError(
                f"{error.filename or path}: {error.strerror}; allowed: files and folders that this "
                "user may read, and an output that may be written"
            ) from error
        raise
