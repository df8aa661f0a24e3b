"""Image files of a folder, found the same way wherever a user names one."""

from collections.abc import Iterator
from pathlib import Path

from pipeline.output_folder import LIST
from pipeline.raw.images import EXTENSIONS


def walk(folder: Path, above: frozenset[Path] = frozenset()) -> Iterator[Path]:
    """Every file below `folder`, also broken links, sorted by name folder by folder.

    Links to folders are followed, but not in circles. What is hidden (a leading dot) is left out, and so
    are folders that a command of ours wrote: pictures of predictions are nobody's photographs.
    """
    real = folder.resolve()
    if real in above:
        return
    for path in sorted(folder.iterdir()):
        if is_entered(path):
            yield from walk(path, above | {real})
        elif not (path.name.startswith(".") or path.is_dir()) and (
            path.is_file() or path.is_symlink()  # not a pipe, which would never end
        ):
            yield path


def is_entered(path: Path) -> bool:
    """Whether `walk` goes into the folder `path`, circles apart."""
    return path.is_dir() and not path.name.startswith(".") and not (path / LIST).exists()


def is_image(path: Path) -> bool:
    """Whether the file's name is that of an image."""
    return path.suffix.lower() in EXTENSIONS
