"""Tar archives read in one pass and bounded memory, without unpacking; checksums of large files."""

import hashlib
import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from lzma import LZMAError
from pathlib import Path, PurePosixPath

from pipeline.cache import sampled_digest as sampled_digest
from pipeline.datasets import Slice
from pipeline.errors import UserError

AGAIN = "take it again from its source"
BLOCK = 2**20
LARGEST_IMAGE = 2**28  # bytes that a file of an archive may take in memory
LARGEST_TEXT = 2**26
HEADERS = (
    *(tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK),
    *(tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE),
)
LARGEST_HEADER = 2**20  # of a member: its long name and extended attributes


class _Member(tarfile.TarInfo):
    """A member whose headers are read into memory only if they are of a header's size."""

    def _proc_member(self, archive: tarfile.TarFile) -> tarfile.TarInfo:
        if self.type in HEADERS and self.size > LARGEST_HEADER:
            raise tarfile.ReadError(
                f"a header of {self.size:,} bytes; allowed: at most {LARGEST_HEADER:,}"
            )
        if self.size < 0:
            raise tarfile.ReadError("a negative size")
        return super()._proc_member(archive)  # type: ignore[misc]


def files(
    path: Path, wanted: Callable[[str], bool], largest: int = LARGEST_IMAGE
) -> Iterator[tuple[str, bytes]]:
    """Yield (name, content) of the wanted files of a tar archive, plain or compressed, in its order.

    Names are normalised (`./a//b` is `a/b`). Raises UserError naming archive and member where it is
    damaged or truncated, where a wanted member takes more than `largest` bytes, or where a member is a
    link or lies outside the archive's own folder.
    """
    with opened(path) as archive:
        for name, member in members(archive, path):
            if wanted(name):
                if member.size > largest:
                    raise UserError(
                        f"{path}: {member.name} takes {member.size:,} bytes; allowed: at most "
                        f"{largest:,}; {AGAIN}"
                    )
                yield name, content(archive, member, path)


@contextmanager
def opened(path: Path) -> Iterator[tarfile.TarFile]:
    """The archive at `path`, to be read from front to back."""
    with _told(path, "its beginning"):
        archive = tarfile.open(path, "r:*", tarinfo=_Member)  # noqa: SIM115
    with archive:
        yield archive


def members(archive: tarfile.TarFile, path: Path | str) -> Iterator[tuple[str, tarfile.TarInfo]]:
    """Yield (normalised name, member) of every regular file, forgetting each as it proceeds."""
    last = "its beginning"
    while True:
        with _told(path, last):
            member = archive.next()
        if member is None:
            return
        setattr(archive, "members", [])  # noqa: B010  tarfile would remember them all
        last = member.name
        name = PurePosixPath(member.name)
        if name.is_absolute() or ".." in name.parts:
            raise UserError(
                f"{path}: member {member.name!r} lies outside the archive's folder; allowed: paths "
                "inside it. Nothing was unpacked; use an archive from a source you trust"
            )
        if not (member.isfile() or member.isdir()):
            raise UserError(
                f"{path}: member {member.name!r} is a link or a device; allowed: files and folders"
            )
        if member.isfile():
            yield str(name), member


def content(archive: tarfile.TarFile, member: tarfile.TarInfo, path: Path | str) -> bytes:
    """The bytes of one member."""
    with _told(path, member.name):
        file = archive.extractfile(member)
        assert file is not None
        return file.read()


def slices(
    path: Path, start: int = 0, end: int | None = None, name: str = ""
) -> Iterator[tuple[str, Slice]]:
    """Yield (normalised name, where it lies) of every file of an uncompressed tar, by headers alone.

    start, end: the bytes of `path` that are the archive, of one that lies in another as `name`. Raises
    UserError as `members` does, and if the mark at an archive's end is missing: it may have been cut
    short between two files.
    """
    where = f"{path}: {name}" if name else str(path)
    end = path.stat().st_size if end is None else end
    with path.open("rb") as file:
        file.seek(start)
        with _told(where, "its beginning"):
            archive = tarfile.open(fileobj=file, mode="r:", tarinfo=_Member)  # noqa: SIM115
        for member_name, member in members(archive, where):
            if member.offset_data + member.size > end:
                raise UserError(f"{where}: damaged or truncated at {member.name}; {AGAIN}")
            yield member_name, Slice(str(path), member.offset_data, member.size)
        file.seek(archive.offset)  # of the block that is no header
        if archive.offset + tarfile.BLOCKSIZE > end or any(file.read(tarfile.BLOCKSIZE)):
            raise UserError(f"{where}: damaged or truncated at byte {archive.offset:,}; {AGAIN}")


def md5(path: Path, progress: Callable[[int, int], None] = lambda done, total: None) -> str:
    """MD5 of the whole file, as hexadecimal digits; progress receives (bytes done, bytes in all)."""
    digest, total, done = hashlib.md5(usedforsecurity=False), path.stat().st_size, 0
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
            done += len(block)
            progress(done, total)
    return digest.hexdigest()


@contextmanager
def _told(path: Path | str, where: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file; run `dvc repro download`") from error
    except (tarfile.TarError, EOFError, zlib.error, LZMAError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the disk's trouble, not the archive's
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: damaged or truncated at {where} ({reason}); {AGAIN}") from error
