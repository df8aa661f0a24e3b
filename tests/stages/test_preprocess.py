"""The stage as it is run, on each dataset that can be made here."""

import sys
from pathlib import Path

import pytest

from pipeline import packed
from pipeline.errors import UserError
from stages import download, preprocess
from tests.made import cub_files, ilsvrc, tar
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


def test_processes_are_worth_starting() -> None:
    assert preprocess.processes(1) == 1
    assert preprocess.processes(1999) == 1
    assert 1 <= preprocess.processes(10**7) <= 10**4
