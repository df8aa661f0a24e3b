"""Output folders that commands replace: only what an earlier run of the same command wrote is deleted.

Such a folder holds `.written.json`: the command, and the SHA-256 of every file it wrote. A folder with any
other file, or with one that was edited since, is refused before any work.
"""

import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.cache import digest_file, project_root
from pipeline.errors import UserError
from pipeline.files import disk_problem, read_json, whole_directory, write_json

LIST = ".written.json"
LONGEST_NAME, LONGEST_PATH = 255, 4000  # bytes
SHOWN = 3


@dataclass(frozen=True)
class OutputFolder:
    """A folder that `command` may replace."""

    path: Path
    command: str

    @classmethod
    def checked(cls, path: Path, command: str, inputs: Iterable[Path] = ()) -> "OutputFolder":
        """The folder `path`, for all of what `command` writes.

        Raises UserError if it is, contains or lies above one of the `inputs`, the project, the working
        directory or the home folder; if it holds anything that `command` did not write; or if it cannot
        be written. Links are resolved.
        """
        check_name(path)
        folder = cls(path, command)
        guarded = {
            **{f"the input {shown(given)}": given for given in inputs},
            "the project": project_root(),
            "the working directory": Path.cwd(),
            "your home folder": Path("~").expanduser(),
        }
        for what, guard in guarded.items():
            if is_or_contains(path, guard):
                raise folder._refused(f"it is {what}, or lies above it")
        folder._check_owned()
        folder._check_writable()
        return folder

    @contextmanager
    def replaced(self) -> Iterator[Path]:
        """Yield an empty folder that replaces `path`, whole, when the block ends well."""
        with whole_directory(self.path) as partial:
            yield partial
            self._check_owned()  # what was put there in the meantime stays
            written = {
                file.relative_to(partial).as_posix(): digest_file(file)
                for file in sorted(partial.rglob("*"))
                if file.is_file()
            }
            write_json(partial / LIST, {"command": self.command, "files": written})

    def _check_owned(self) -> None:
        if not self.path.exists():
            return
        if not self.path.is_dir():
            raise self._refused("it is a file")
        found = [file for file in sorted(self.path.rglob("*")) if not _is_plain_folder(file)]
        if not found:
            return
        listed = read_list(self.path)
        if listed is None or listed.get("command") != self.command:
            raise self._refused(
                f"it holds {_some(self.path, found)}, not written by `{self.command}`"
            )
        files: dict[str, str] = listed["files"]
        foreign = [
            file
            for file in found
            if file != self.path / LIST
            and (
                file.is_symlink()
                or files.get(file.relative_to(self.path).as_posix()) != digest_file(file)
            )
        ]
        if foreign:
            raise self._refused(
                f"it holds {_some(self.path, foreign)}, not written by `{self.command}` "
                "or changed since"
            )

    def _check_writable(self) -> None:
        """Try it: permissions, read-only disks and quotas all answer."""
        real = self.path.resolve()
        if os.path.ismount(real):
            raise self._refused("it is a mount point, which cannot be replaced as a whole")
        above = next(folder for folder in real.parents if folder.exists())
        try:
            with tempfile.TemporaryDirectory(dir=above, prefix=".wsol-"):
                pass
        except OSError as error:
            raise self._refused(disk_problem(error, above) or str(error)) from error

    def _refused(self, why: str) -> UserError:
        return UserError(
            f"--out {shown(self.path)}: {why}; allowed: a new or an empty folder, or one that "
            f"an earlier `{self.command}` wrote"
        )


def check_name(path: Path) -> None:
    """Raise UserError for an output whose name no disk or no text file takes."""
    lengths = {max((len(os.fsencode(part)) for part in path.parts), default=0): LONGEST_NAME}
    lengths[len(os.fsencode(path.absolute()))] = LONGEST_PATH
    for size, most in lengths.items():
        if size > most:
            raise UserError(f"--out {shown(path)}: {size} bytes; allowed: at most {most} bytes")
    try:
        os.fspath(path).encode()
    except UnicodeEncodeError as error:
        raise UserError(
            f"--out {shown(path)}: the name is not UTF-8; allowed: names in UTF-8"
        ) from error


def is_or_contains(folder: Path, path: Path) -> bool:
    """Whether `folder` is `path` or lies above it, links and spellings aside."""
    if not folder.exists():
        return folder.resolve() in (path.resolve(), *path.resolve().parents)
    real = path.resolve()
    return any(above.exists() and above.samefile(folder) for above in (real, *real.parents))


def read_list(folder: Path) -> dict[str, Any] | None:
    """The command and the files of a folder that a command wrote; None for any other folder."""
    try:
        listed = read_json(folder / LIST)
    except (OSError, ValueError):
        return None
    return listed if isinstance(listed, dict) and isinstance(listed.get("files"), dict) else None


def shown(path: Path) -> str:
    """A path as messages show it: one line, whatever its bytes."""
    text = os.fsencode(path).decode("utf-8", "backslashreplace")
    return text if text.isprintable() else ascii(text)[1:-1]


def _is_plain_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _some(folder: Path, files: list[Path]) -> str:
    names = ", ".join(shown(file.relative_to(folder)) for file in files[:SHOWN])
    return names + (f" and {len(files) - SHOWN} more" if len(files) > SHOWN else "")
