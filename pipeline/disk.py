"""A full disk, told as what it is."""

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.errors import UserError

FULL = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def full_disk_told(path: Path) -> Iterator[None]:
    """Turn "no space left" while `path` is written into a UserError that says how much is free."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        place = next(folder for folder in path.absolute().parents if folder.exists())
        free = shutil.disk_usage(place).free / 1e9
        raise UserError(
            f"{path}: the disk is full or its quota used up ({free:.1f} GB free); make room and run "
            "the same command again: nothing half-written is left"
        ) from error
