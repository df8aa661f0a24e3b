"""Image files of a folder, found the same way wherever a user names one."""

from collections.abc import Callable, Iterator
from pathlib import Path

from pipeline.raw.images import EXTENSIONS


def walk(
    folder: Path,
    skip: Callable[[Path], bool] = lambda folder: False,
    above: frozenset[Path] = frozenset(),
) -> Iterator[Path]:
    """Every file below `folder`, also broken links, sorted by name folder by folder.

    Links to folders are followed, but not in circles; what is hidden (a leading dot) is left out, as are
    folders that `skip` says.
    """
    real = folder.resolve()
    if real in above:
        return
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        if path.is_dir():
            if not skip(path):
                yield from walk(path, skip, above | {real})
        elif path.is_file() or path.is_symlink():
            yield path


def is_image(path: Path) -> bool:
    """Whether the file's name is that of an image."""
    return path.suffix.lower() in EXTENSIONS
