"""CUB archives of the official layout, good and bad."""

import re
from pathlib import Path

import numpy as np
import pytest

from pipeline.datasets import Report, cub
from pipeline.errors import UserError
from pipeline.raw import archives
from tests.made import CUB_CLASSES, cub_files, every, tar

FOLDER = "CUB_200_2011"


def raw(tmp_path: Path, files: dict[str, bytes]) -> Path:
    tar(tmp_path / cub.ARCHIVE, files, "w:gz")
    return tmp_path


def params(archive: str | Path, md5: str | None = None) -> cub.Params:
    return cub.Params(archive=str(archive), md5=md5)


def test_the_index_is_the_official_one(tmp_path: Path) -> None:
    dataset = cub.read(params(""), raw(tmp_path, cub_files()))
    assert dataset.class_names == list(CUB_CLASSES.values())
    assert [entry.id for entry in dataset.index] == sorted(entry.id for entry in dataset.index)
    assert [entry.label for entry in dataset.index] == [0] * 6 + [
        1
    ] * 6  # 3 and 12, made contiguous
    first = dataset.index[-1]
    assert first.id == "012.Yellow_headed_Blackbird/Bird_0006_120.jpg"
    assert first.split == "test"
    assert first.boxes.dtype == np.float32
    assert first.boxes.tolist() == [[0, 2, 30, 22.5]]  # x, y, width, height: 0 2 30 20.5
    assert [entry.split for entry in dataset.index[:3]] == ["train", "train", "test"]
    assert (dataset.has_boxes, dataset.published) == (True, True)
    assert dataset.checksum == archives.md5(tmp_path / cub.ARCHIVE)


def test_every_image_comes_once_with_its_bytes(tmp_path: Path) -> None:
    files = cub_files()
    dataset = cub.read(params(""), raw(tmp_path, files))
    for _ in range(2):  # a dataset can be gone through again
        examples = {entry.id: encoded for entry, encoded in every(dataset)}
        assert examples == {
            name.removeprefix(f"{FOLDER}/images/"): content
            for name, content in files.items()
            if "/images/" in name
        }


@pytest.mark.parametrize("file", cub.INDEX)
def test_a_missing_index_file_is_named(tmp_path: Path, file: str) -> None:
    files = cub_files()
    del files[f"{FOLDER}/{file}"]
    with pytest.raises(
        UserError, match=rf"CUB_200_2011\.tgz: no member {FOLDER}/{re.escape(file)};"
    ):
        cub.read(params(""), raw(tmp_path, files))


def test_missing_images_are_named(tmp_path: Path) -> None:
    files = cub_files()
    gone = [name for name in files if "/images/" in name][-2:]
    for name in gone:
        del files[name]
    dataset = cub.read(params(""), raw(tmp_path, files))
    with pytest.raises(UserError) as caught:
        list(every(dataset))
    assert str(caught.value).endswith(
        f"listed in {FOLDER}/images.txt but not in the archive: {', '.join(sorted(gone))}"
    )


@pytest.mark.parametrize("file", cub.INDEX[1:])
def test_a_missing_line_is_named(tmp_path: Path, file: str) -> None:
    files = cub_files()
    lines = files[f"{FOLDER}/{file}"].splitlines()
    files[f"{FOLDER}/{file}"] = b"\n".join(lines[:-1])
    key = lines[-1].split()[0].decode()
    with pytest.raises(UserError, match=rf"{re.escape(file)} has no line for {key}$"):
        cub.read(params(""), raw(tmp_path, files))


def test_a_bad_line_is_named(tmp_path: Path) -> None:
    files = cub_files()
    boxes = f"{FOLDER}/bounding_boxes.txt"
    files[boxes] = files[boxes].replace(b"120 0.0 2.0 30.0 20.5", b"120 0.0 2.0 30.0")
    with pytest.raises(UserError, match=r"bounding_boxes\.txt line 7 is '120 0\.0 2\.0 30\.0'"):
        cub.read(params(""), raw(tmp_path, files))


def test_download_copies_and_checks_a_local_archive(tmp_path: Path) -> None:
    source = tar(tmp_path / "mine.tgz", cub_files(), "w:gz")
    out, said = tmp_path / "out", []
    out.mkdir()
    digest = archives.md5(source)
    cub.download(params(source, digest), out, Report(say=said.append))
    assert (out / cub.ARCHIVE).read_bytes() == source.read_bytes()
    assert said == [f"cub: copying {source}", f"cub: MD5 {digest} is right"]
    cub.download(params(source), out, Report(say=said.append))
    assert said[-1] == "cub: MD5 not checked (datasets.cub.md5 is null)"


def test_download_refuses_another_archive(tmp_path: Path) -> None:
    source = tar(tmp_path / "mine.tgz", cub_files(), "w:gz")
    with pytest.raises(UserError, match=rf"mine\.tgz: its MD5 is {archives.md5(source)}, and"):
        cub.download(params(source, "0" * 32), tmp_path, Report())
    with pytest.raises(UserError, match=r"archive is 'nowhere\.tgz', and there is no such file"):
        cub.download(params("nowhere.tgz"), tmp_path, Report())


def test_relative_archives_belong_to_the_project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DVC runs queued experiments in another folder and names the project in DVC_ROOT."""
    tar(tmp_path / "mine.tgz", cub_files(), "w:gz")
    (tmp_path / "out").mkdir()
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    cub.download(params("mine.tgz"), tmp_path / "out", Report())
    assert (tmp_path / "out" / cub.ARCHIVE).exists()


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_index_files_may_have_a_mark_of_their_encoding(tmp_path: Path, encoding: str) -> None:
    files = cub_files()
    plain = cub.read(params(""), raw(tmp_path, files))
    for file in cub.INDEX:
        name = f"{FOLDER}/{file}"
        files[name] = files[name].decode().replace("\n", "\r\n").encode(encoding)
    marked = cub.read(params(""), raw(tmp_path, files))
    assert marked.class_names == plain.class_names
    assert [(e.id, e.label, e.split, e.boxes.tolist()) for e in marked.index] == [
        (e.id, e.label, e.split, e.boxes.tolist()) for e in plain.index
    ]


@pytest.mark.parametrize(
    "box",
    [
        *("nan 2.0 30.0 20.5", "0.0 NaN 30.0 20.5", "0.0 2.0 nan 20.5", "0.0 2.0 inf 20.5"),
        *("0.0 2.0 0.0 20.5", "0.0 0.0 0.0 0.0", "0.0 2.0 30.0 0", "-1 -1 -1 -1"),
        *("30.0 22.5 -30.0 -20.5", "0.0 2.0 -30.0 20.5", "5 5 1e-9 3", "0 0 1e40 3"),
    ],
)
def test_what_is_no_box_is_left_out_and_named(tmp_path: Path, box: str) -> None:
    files = cub_files()
    boxes = f"{FOLDER}/bounding_boxes.txt"
    files[boxes] = files[boxes].replace(b"120 0.0 2.0 30.0 20.5", f"120 {box}".encode())
    dataset = cub.read(params(""), raw(tmp_path, files))
    image = "012.Yellow_headed_Blackbird/Bird_0006_120.jpg"
    assert [entry.id for entry in dataset.index if not len(entry.boxes)] == [image]
    assert list(dataset.invalid_boxes) == [image]


def test_boxes_beyond_their_image_are_kept(tmp_path: Path) -> None:
    files = cub_files()
    boxes = f"{FOLDER}/bounding_boxes.txt"
    files[boxes] = files[boxes].replace(b"120 0.0 2.0 30.0 20.5", b"120 -20.0 -5.0 400.0 300.0")
    dataset = cub.read(params(""), raw(tmp_path, files))
    assert dataset.index[-1].boxes.tolist() == [[-20, -5, 380, 295]]
    assert dataset.invalid_boxes == {}


def test_boxes_in_shares_of_the_image_are_refused(tmp_path: Path) -> None:
    files = cub_files()
    boxes = f"{FOLDER}/bounding_boxes.txt"
    lines = files[boxes].decode().splitlines()
    shares = [f"{line.split()[0]} 0.1 0.2 0.5 0.75" for line in lines]
    files[boxes] = "\n".join([*shares[:-1], f"{lines[-1].split()[0]} 0 0 0 0"]).encode()
    with pytest.raises(UserError, match=r"bounding_boxes\.txt: no edge of a box is above 1"):
        cub.read(params(""), raw(tmp_path, files))
