"""The stage as it is run: what it leaves, what it says, what it imports."""

import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.datasets import cub
from stages import download, entry
from tests.imports import ROOT
from tests.made import cub_files, tar
from tests.tiny import write_params

SMALL = {
    "datasets__synthetic__classes": 2,
    "datasets__synthetic__train_per_class": 3,
    "datasets__synthetic__test_per_class": 2,
    "datasets__synthetic__side": 32,
}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["download"])
    return tmp_path


def test_the_default_dataset_is_drawn(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_params(project, **SMALL)
    download.main()
    assert [path.name for path in (project / "data" / "raw").iterdir()] == ["synthetic.tar"]
    out = capsys.readouterr().out.splitlines()
    assert out[0] == "synthetic: drawing 10 pictures of 2 species"
    assert out[-1].startswith("synthetic: data/raw is ready, 0.0")


def test_a_failure_leaves_what_was_there_and_is_one_line(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tar(project / "birds.tgz", cub_files(), "w:gz")
    changes = {"dataset": "cub", "datasets__cub__archive": "birds.tgz"}
    write_params(project, **changes, datasets__cub__md5=None)
    download.main()
    write_params(project, **changes, datasets__cub__md5="0" * 32)
    with pytest.raises(SystemExit) as caught:
        entry.run(download.main)
    assert caught.value.code == 2
    (line,) = [x for x in capsys.readouterr().err.splitlines() if x.startswith("error")]
    assert line.startswith("error: birds.tgz: its MD5 is ")
    assert [path.name for path in (project / "data").iterdir()] == ["raw"]
    assert (project / "data" / "raw" / cub.ARCHIVE).read_bytes() == Path("birds.tgz").read_bytes()


@pytest.mark.parametrize("stage", ["download", "preprocess"])
def test_the_data_stages_take_no_arguments_and_load_no_framework(
    stage: str, tmp_path: Path
) -> None:
    loaded = (
        f"import sys, stages.{stage} as s, pipeline.params as p, pipeline.datasets as d\n"
        "[d.module(name) for name in p.names('datasets')]\n"
        "print(sorted({'torch', 'mlflow', 'pandas', 'matplotlib'} & sys.modules.keys()))\n"
        "sys.argv[1:] = ['--help']; s.entry.run(s.main, s.__doc__)"
    )
    done = subprocess.run(
        [sys.executable, "-c", loaded],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT)},
        check=True,
    )
    assert done.stdout.startswith("[]\nusage: ")
