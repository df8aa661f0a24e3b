"""`python -m stages.check`: the first stage; its output says only that all is well."""

from pathlib import Path

import pytest

from pipeline import params
from pipeline.errors import UserError
from stages import check, entry
from tests import tiny

ROOT = Path(__file__).parents[2]
MARKER = Path("data/params.ok")


@pytest.fixture
def text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The committed params.yaml, copied to where the test is."""
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "params.yaml").read_text()
    Path("params.yaml").write_text(text)
    return text


def test_the_marker_does_not_say_what_was_checked(text: str) -> None:
    entry.run(check.main)
    first = MARKER.read_bytes()
    changed = text.replace("\nseed: ", "\nseed: 1")
    assert changed != text
    Path("params.yaml").write_text(changed)
    entry.run(check.main)
    assert MARKER.read_bytes() == first == b"params.yaml passed the check\n"


def test_every_problem_is_told_and_nothing_written(
    text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    changed = text.replace("\nseed: ", "\nseed: -1").replace("\n  epochs: ", "\n  epochs: -")
    Path("params.yaml").write_text(changed.replace("\ntrain:", "\ntrian: {}\ntrain:"))
    with pytest.raises(SystemExit) as end:
        entry.run(check.main)
    assert end.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(" is ")[0] for line in lines[:3]] == [
        "error: params.yaml: seed",
        "error: params.yaml: train.epochs",
        "error: params.yaml: trian",
    ]
    assert not MARKER.exists()


@pytest.mark.parametrize("workspace", [True, False])
def test_what_an_experiment_left_in_params_is_told(
    text: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], workspace: bool
) -> None:
    """An experiment of `--temp` or the queue has a params.yaml of its own, which goes with it."""
    Path("params.yaml").write_text(text.replace("\nseed: ", "\nseed: -1"))
    monkeypatch.setenv("DVC_EXP_NAME", "wide-eyed")
    monkeypatch.setenv("DVC_ROOT", str(Path.cwd() if workspace else Path.cwd().parent))
    with pytest.raises(SystemExit):
        entry.run(check.main)
    lines = capsys.readouterr().err.splitlines()
    assert any("git checkout params.yaml" in line for line in lines) == workspace
    assert lines[-1].startswith("error: params.yaml: seed is -1")


def test_files_are_the_projects_also_in_an_experiments_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`dvc exp run --queue` runs in a copy of what Git knows, which the user's files are not in."""
    project, copy = tmp_path / "project", tmp_path / "copy"
    copy.mkdir()
    (project / "own").mkdir(parents=True)
    (project / "own" / "w.pth").touch()
    (project / "tree.csv").touch()
    for folder in (project, copy):
        tiny.write_params(
            folder,
            method="danet",
            weights="own/w.pth",
            methods__danet__hierarchy="tree.csv",
        )
    monkeypatch.setenv("DVC_ROOT", str(project))
    for folder, root in ((project, ""), (copy, f"{project}/")):
        monkeypatch.chdir(folder)
        read = params.load()
        assert read.weights == f"{root}own/w.pth"
        assert read.method_params.model_dump()["hierarchy"] == f"{root}tree.csv"
        params.load_all()
    assert params.flat(params.load())["weights"] == f"{project}/own/w.pth"
    monkeypatch.delenv("DVC_ROOT")
    with pytest.raises(UserError, match=r"weights is 'own/w\.pth', and there is no such file"):
        params.load_all()
