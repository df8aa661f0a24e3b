"""Archives are read in one pass; what is wrong with one names it and the member."""

import gzip
import hashlib
import io
import tarfile
from pathlib import Path

import pytest

from pipeline.errors import UserError
from pipeline.raw import archives
from tests.made import tar

FILES = {"a/one.txt": b"1", "./a//two.txt": b"22" * 9000, "b/three.bin": b"\0" * 700}


def every(name: str) -> bool:
    return True


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_wanted_files_come_in_order_under_plain_names(tmp_path: Path, mode: str) -> None:
    path = tar(tmp_path / "x", FILES, mode)
    assert [name for name, _ in archives.files(path, every)] == [
        "a/one.txt",
        "a/two.txt",
        "b/three.bin",
    ]
    assert list(archives.files(path, "a/two.txt".__eq__)) == [("a/two.txt", b"22" * 9000)]


def test_members_are_forgotten(tmp_path: Path) -> None:
    path = tar(tmp_path / "x.tar", {f"{i}": b"x" for i in range(50)})
    with archives.opened(path) as archive:
        for count, _ in enumerate(archives.members(archive, path)):
            assert len(archive.members) == 0, count  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["/etc/passwd", "../up.txt", "a/../../up.txt"])
def test_a_member_outside_is_refused(tmp_path: Path, name: str) -> None:
    path = tar(tmp_path / "x.tar", {"fine": b"", name: b"x"})
    with pytest.raises(UserError, match=rf"x\.tar: member '{name}' lies outside"):
        list(archives.files(path, every))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE])
def test_links_and_devices_are_refused(tmp_path: Path, kind: bytes) -> None:
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w") as archive:
        member = tarfile.TarInfo("a/link.jpg")
        member.type, member.linkname = kind, "/etc/passwd"
        archive.addfile(member)
    with pytest.raises(UserError, match=r"x\.tar: member 'a/link\.jpg' is a link or a device"):
        list(archives.files(path, every))


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz"])
def test_a_truncated_archive_names_the_member(tmp_path: Path, mode: str) -> None:
    content = b"".join(hashlib.sha256(bytes([i])).digest() for i in range(256))  # hard to compress
    path = tar(tmp_path / "x", {"a": b"1", "b": content, "c": content[::-1]}, mode)
    path.write_bytes(path.read_bytes()[: -len(content) - 4000])
    with pytest.raises(UserError, match=r"/x: damaged or truncated at (its beginning|a|b) "):
        list(archives.files(path, every))


def test_what_is_no_archive_or_not_there(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"<html>")
    with pytest.raises(UserError, match="x: damaged or truncated at its beginning"):
        list(archives.files(tmp_path / "x", every))
    (tmp_path / "y").write_bytes(gzip.compress(b"<html>"))
    with pytest.raises(UserError, match="y: damaged or truncated at its beginning"):
        list(archives.files(tmp_path / "y", every))
    with pytest.raises(UserError, match="z: no such file; run `dvc repro download`"):
        list(archives.files(tmp_path / "z", every))


def test_checksums(tmp_path: Path) -> None:
    path, told = tmp_path / "x", []
    path.write_bytes(b"abc" * 1_000_000)
    digest = archives.md5(path, lambda done, total: told.append((done, total)))
    assert digest == hashlib.md5(b"abc" * 1_000_000).hexdigest()
    assert told[-1] == (3_000_000, 3_000_000)


@pytest.mark.parametrize("size", [0, 10, 3 * 2**20, 200 * 2**20])
def test_samples_see_size_and_both_ends(tmp_path: Path, size: int) -> None:
    def digest(edit: tuple[int, bytes] = (0, b"")) -> str:
        path = tmp_path / "x"
        with path.open("wb") as file:
            file.truncate(size)  # sparse: takes no room
            file.seek(edit[0])
            file.write(edit[1])
        return archives.sampled_digest(path)

    plain = digest()
    assert plain == digest()
    assert (
        len({plain, digest((0, b"x")), digest((max(0, size - 1), b"y")), digest((size, b"z"))}) == 4
    )


def test_content_that_tarfile_reads_is_whole(tmp_path: Path) -> None:
    path = tar(tmp_path / "x.tar", FILES)
    with tarfile.open(path) as archive:
        expected = {m.name: io.BytesIO(archive.extractfile(m).read()).getvalue() for m in archive}  # type: ignore[union-attr]
    assert list(expected.values()) == [content for _, content in archives.files(path, every)]


def bomb(path: Path, declared: int, *, kind: bytes = tarfile.REGTYPE, content: int = 4096) -> Path:
    """A compressed archive of a member that declares so many bytes and has `content` zeros."""
    member = tarfile.TarInfo("a/index.txt")
    member.size, member.type = declared, kind
    with gzip.open(path, "wb") as file:
        file.write(member.tobuf(tarfile.GNU_FORMAT) + bytes(content))
    return path


@pytest.mark.parametrize("declared", [2**40, 8 * 2**30, 65 * 2**20])
def test_a_member_that_would_fill_the_memory_is_refused_unread(
    tmp_path: Path, declared: int
) -> None:
    path = bomb(tmp_path / "x.tgz", declared)
    with pytest.raises(UserError, match=rf"x\.tgz: a/index\.txt takes {declared:,} bytes; allowed"):
        list(archives.files(path, every, archives.LARGEST_TEXT))


@pytest.mark.parametrize(
    "kind",
    [tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE],
)
@pytest.mark.parametrize("declared", [2**40, 2**21])
def test_a_header_that_would_fill_the_memory_is_refused_unread(
    tmp_path: Path, kind: bytes, declared: int
) -> None:
    path = bomb(tmp_path / "x.tgz", declared, kind=kind, content=2**22)
    with pytest.raises(UserError, match=r"x\.tgz: damaged or truncated at its beginning") as caught:
        list(archives.files(path, every))
    assert f"a header of {declared:,} bytes" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_sparse_member_counts_as_what_it_unpacks_to(tmp_path: Path) -> None:
    """GNU's old format: the size of the whole file stands apart from that of its data."""
    member = bytearray(tarfile.TarInfo("hole").tobuf(tarfile.GNU_FORMAT))
    member[156:157] = tarfile.GNUTYPE_SPARSE
    member[483:495] = b"77777777777\0"  # 8 GB
    member[148:156] = b"        "
    member[148:156] = b"%06o\0 " % sum(member)
    (tmp_path / "x.tar").write_bytes(bytes(member) + bytes(10240))
    with pytest.raises(UserError, match=r"x\.tar: hole takes 8,589,934,591 bytes; allowed"):
        list(archives.files(tmp_path / "x.tar", every))


def test_a_negative_size_is_damage(tmp_path: Path) -> None:
    path = bomb(tmp_path / "x.tgz", -512)
    with pytest.raises(UserError, match=r"x\.tgz: damaged or truncated"):
        list(archives.files(path, every))
