"""dvc.yaml says what is true: each stage's code and params are what it imports and reads."""

import ast
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.imports import ROOT, imported

STAGES: dict[str, Any] = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]


def definition(stage: str) -> dict[str, Any]:
    entry: dict[str, Any] = STAGES[stage]
    return entry.get("do", entry)


def listed(stage: str) -> set[str]:
    """Python files among the stage's dependencies, templates and folders filled in."""
    found = set()
    for dep in definition(stage)["deps"]:
        if dep.endswith(".py"):
            found.add(dep)
        elif (ROOT / dep).is_dir() and dep.startswith(("pipeline", "stages")):
            found |= {p.relative_to(ROOT).as_posix() for p in (ROOT / dep).rglob("*.py")}
    return found


def test_every_stage_is_visited() -> None:
    assert set(STAGES) == {
        *("check", "download", "preprocess", "train", "evaluate", "ablate", "report"),
    }


@pytest.mark.parametrize("stage", sorted(STAGES))
def test_a_stage_depends_on_the_code_it_imports(stage: str) -> None:
    needed = {
        path.relative_to(ROOT).as_posix() for path in imported(ROOT / "stages" / f"{stage}.py")
    }
    assert needed == {dep for dep in listed(stage) if "${" not in dep and needed_statically(dep)}


def needed_statically(dep: str) -> bool:
    """Whether `dep` can be checked against the imports; what is imported by name cannot."""
    return not dep.startswith("pipeline/datasets/") or dep.endswith("__init__.py")


@pytest.mark.parametrize(
    ("stage", "templates"),
    [
        ("download", {"pipeline/datasets/${dataset}.py"}),
        ("preprocess", {"pipeline/datasets/${dataset}.py"}),
        ("train", {"pipeline/methods/${method}.py"}),
        ("evaluate", {"pipeline/methods/${method}.py"}),
        ("ablate", {"pipeline/methods/${item.method}.py"}),
    ],
)
def test_a_stage_depends_on_the_code_params_name(stage: str, templates: set[str]) -> None:
    assert {dep for dep in listed(stage) if "${" in dep} >= templates


def test_a_method_imports_no_other_method() -> None:
    """So that `pipeline/methods/${method}.py` and cam.py are all of a method's own code."""
    files = sorted((ROOT / "pipeline" / "methods").glob("[a-z]*.py"))
    assert len(files) >= 4
    for file in files:
        others = imported(file) & set(files) - {file}
        assert others <= {ROOT / "pipeline" / "methods" / "cam.py"}, file


def test_the_library_imports_no_stage() -> None:
    files = sorted((ROOT / "pipeline").rglob("*.py"))
    assert len(files) > 20
    for file in files:
        assert not [p for p in imported(file) if "stages" in p.relative_to(ROOT).parts], file


def test_only_the_tracker_imports_mlflow() -> None:
    allowed = {"pipeline/tracking.py", "pipeline/served_model.py"}
    for file in sorted((ROOT / "pipeline").rglob("*.py")):
        names = {
            alias.name.split(".")[0]
            for node in ast.walk(ast.parse(file.read_text()))
            if isinstance(node, ast.Import)
            for alias in node.names
        }
        assert "mlflow" not in names or file.relative_to(ROOT).as_posix() in allowed


def test_paths_of_dependencies_exist() -> None:
    for stage in STAGES:
        for dep in definition(stage)["deps"]:
            if dep.startswith(("pipeline", "stages")) and "${" not in dep:
                assert Path(ROOT / dep).exists(), (stage, dep)
