"""What ablate.run names are DVC stages, and nothing else is: with real DVC, on a small copy."""

import re
from pathlib import Path

import pytest

from tests.stages.project import CORE, Project, make

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The project after `dvc repro` without any ablation, committed."""
    made = make(tmp_path_factory.mktemp("ablate"))
    made.set(ablate__run=[], train__warmup_epochs=0, train__epochs=1)
    made.run("dvc", "repro")
    made.commit("Results")
    return made


def ran(output: str) -> list[str]:
    """The stages that DVC ran, but for the one that always runs."""
    return [name for name in re.findall(r"Running stage '(.+)'", output) if name != "inputs"]


def asks(project: Project, *names: str) -> list[str]:
    """The stages run by `dvc exp run -S ablate.run=[…]`."""
    return ran(project.run("dvc", "exp", "run", "-S", f"ablate.run=[{','.join(names)}]").stdout)


def test_names_are_asked_for_one_after_another(project: Project) -> None:
    """One story, since each step needs the results of the one before."""
    assert "Ablation studies" not in project.read("metrics/report.md")
    assert not list(project.folder.glob("metrics/ablation/*/*"))

    assert asks(project, "core") == ["check", "ablate@core", "report"]
    core = project.folder / "metrics" / "ablation" / "core"
    assert sorted(path.name for path in core.iterdir()) == sorted(CORE)
    main = project.read("models/model.json")
    assert project.read("metrics/ablation/core/methods-cam/per_image.csv") == project.read(
        "metrics/per_image.csv"
    )
    assert "### RCAM: its parts" in project.read("metrics/report.md")

    # Another method's code changes nothing, a variant's own does; a comment does not.
    def edit(name: str, text: str) -> list[str]:
        path = project.folder / "pipeline" / "methods" / f"{name}.py"
        before = path.read_text()
        path.write_text(before + text)
        stages = ran(project.run("dvc", "repro").stdout)
        path.write_text(before)
        return stages

    assert edit("danet", "\nUNUSED = 1\n") == []
    assert edit("ass", "\nUNUSED = 1\n") == ["ablate@core", "report"]

    # Nothing is trained again for a variant that is added.
    finished = trainings(project)
    assert asks(project, "core", "rcam-two_stage") == ["check", "ablate@rcam-two_stage", "report"]
    assert trainings(project) == finished
    assert project.read("models/model.json") == main

    # What is no longer asked for is no longer shown.
    assert asks(project, "rcam-two_stage") == ["check", "report"]
    assert "### Methods" not in project.read("metrics/report.md")


def trainings(project: Project) -> set[Path]:
    return set((project.folder / ".checkpoints").glob("*/finished/*.safetensors"))


def test_an_unknown_name_is_one_line_before_any_work(project: Project) -> None:
    done = project.run("dvc", "exp", "run", "-S", "ablate.run=[cor]", check=False)
    project.run("git", "checkout", "-q", "params.yaml")
    assert done.returncode != 0 and ran(done.stdout) == ["check"]
    line = "error: params.yaml: ablate.run names 'cor', which is unknown; did you mean core?"
    assert line in done.stdout and "Traceback" not in done.stdout
