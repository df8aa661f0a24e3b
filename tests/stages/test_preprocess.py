"""The stage as it is run, on each dataset that can be made here."""

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from pipeline import packed
from pipeline.errors import UserError
from stages import download, preprocess
from tests.made import annotation, cub_files, encode, ilsvrc, many_ilsvrc, noise, tar
from tests.stages.test_download import SMALL
from tests.tiny import write_params

PREPARED = Path("data/prepared")


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["preprocess"])
    return tmp_path


def run(project: Path, **changes: object) -> packed.Meta:
    write_params(project, **changes)
    download.main()
    preprocess.main()
    return packed.read_meta(PREPARED)


def test_synthetic(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    meta = run(project, **SMALL)
    assert meta.counts == {"train": 4, "val": 2, "test": 4}
    files = [f"{split}-00000-of-00001.arrow" for split in ("test", "train", "val")]
    assert sorted(path.name for path in PREPARED.iterdir()) == ["meta.json", *files]
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("data/prepared: 2 classes, 4 train, 2 val, 4 test, 0.0")
    before = {path.name: path.read_bytes() for path in PREPARED.iterdir()}
    preprocess.main()
    assert {path.name: path.read_bytes() for path in PREPARED.iterdir()} == before


def test_cub(project: Path) -> None:
    tar(project / "birds.tgz", cub_files(), "w:gz")
    meta = run(
        project,
        dataset="cub",
        datasets__cub__archive="birds.tgz",
        datasets__cub__md5=None,
        prepare__short_side=20,
    )
    assert meta.counts == {"train": 6, "val": 2, "test": 4}
    assert meta.class_names == ["003.Sooty_Albatross", "012.Yellow_headed_Blackbird"]
    test = packed.Split.open(PREPARED, "test")
    assert test.sizes.tolist() == [[49, 58], [40, 64]] * 2
    assert test.boxes[1].tolist() == [[0, 2, 30, 22.5]]


def test_ilsvrc(project: Path) -> None:
    ilsvrc(project / "archives")
    meta = run(project, dataset="ilsvrc", datasets__ilsvrc__root="archives")
    assert meta.counts == {"train": 6, "val": 2, "test": 4}
    test = packed.Split.open(PREPARED, "test")
    assert test.labels.tolist() == [0, 0, 1, 1]
    assert [len(boxes) for boxes in test.boxes] == [1, 1, 2, 1]


def test_a_failure_leaves_what_was_there(project: Path) -> None:
    run(project, **SMALL)
    before = {path.name: path.read_bytes() for path in PREPARED.iterdir()}
    write_params(project, dataset="cub", datasets__cub__archive="no.tgz")
    with pytest.raises(
        UserError, match=r"CUB_200_2011\.tgz: no such file; run `dvc repro download`"
    ):
        preprocess.main()
    assert {path.name: path.read_bytes() for path in PREPARED.iterdir()} == before


def one_class(root: Path) -> None:
    shutil.rmtree(root)
    many_ilsvrc(root, classes=1, train=4, test=2, photo=lambda i: encode(noise(30, 40, i)))


def no_annotation(root: Path) -> None:
    tar(root / "ILSVRC2012_bbox_val_v3.tgz", {"val/other.xml": b""}, "w:gz")
    annotated = {"ILSVRC2012_val_00000001": annotation(("n01000001", 0, 0, 9, 9))}
    tar(
        root / "ILSVRC2012_bbox_val_v3.tgz",
        {f"val/{name}.xml": text for name, text in annotated.items()},
        "w:gz",
    )


def cut_boxes(root: Path) -> None:
    os.truncate(root / "ILSVRC2012_bbox_val_v3.tgz", 200)


def cut_images(root: Path) -> None:
    os.truncate(root / "ILSVRC2012_img_train.tar", 5000)


def no_train_archive(root: Path) -> None:
    (root / "ILSVRC2012_img_train.tar").unlink()


@pytest.mark.parametrize("when", ["before download", "after download"])
@pytest.mark.parametrize(
    ("spoil", "stage", "line"),
    [
        (
            one_class,
            preprocess,
            "archives has only one class, n00000001; allowed: at least two; `data",
        ),
        (
            no_annotation,
            preprocess,
            "bbox_val_v3.tgz: no annotation of ILSVRC2012_val_00000002, wh",
        ),
        (cut_boxes, preprocess, "bbox_val_v3.tgz: damaged or truncated at val/"),
        (
            cut_images,
            download,
            "img_train.tar: damaged or truncated at n02000002.tar; take it again",
        ),
        (no_train_archive, download, "ILSVRC2012_img_train.tar is missing"),
    ],
)
def test_what_is_wrong_with_the_archives_is_one_line(
    project: Path, spoil: Callable[[Path], None], stage: ModuleType, line: str, when: str
) -> None:
    write_params(project, dataset="ilsvrc", datasets__ilsvrc__root="archives")
    ilsvrc(project / "archives")
    if when == "after download":
        download.main()
        stage, line = (
            preprocess,
            ": not the archive that was checked; if it changed on purpose, run `",
        )
        if spoil is no_train_archive:
            line = (
                "ILSVRC2012_img_train.tar is missing; put it back, or run `dvc repro -f download`"
            )
    spoil(project / "archives")
    with pytest.raises(UserError) as caught:
        if when == "before download":
            download.main()
        preprocess.main()
    assert line in caught.value.problems[0]
    assert "\n" not in caught.value.problems[0]
    made = {path.name for path in (project / "data").iterdir()} if stage is preprocess else set()
    assert made == ({"raw"} if stage is preprocess else set())
    assert list(project.rglob("*.partial")) == []


def test_processes_are_worth_starting() -> None:
    assert preprocess.processes(1) == 1
    assert preprocess.processes(1999) == 1
    assert 1 <= preprocess.processes(10**7) <= 10**4
