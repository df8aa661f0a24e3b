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
    """The stage's dependencies on code: files, and whole packages where one is named."""
    deps = definition(stage)["deps"]
    return {d for d in deps if d.startswith(("pipeline/", "stages/")) and not d.endswith(".csv")}


# Packages that are one dependency: what is in them changes together, and DVC reads fewer lines.
WHOLE = ("pipeline/boxes", "pipeline/params", "pipeline/tracking")


def named(file: str) -> str:
    """How dvc.yaml names a file of ours: by itself, or by the package that is listed whole."""
    return next((package for package in WHOLE if file.startswith(f"{package}/")), file)


def test_every_stage_is_visited() -> None:
    assert set(STAGES) == {
        *("check", "download", "preprocess", "train", "evaluate", "ablate", "report"),
    }


# What a stage imports by the name that params.yaml holds, and what dvc.yaml lists for it.
DATASET = ("datasets", "pipeline/datasets/${dataset}.py")
METHOD = ("methods", "pipeline/methods/${method}.py")
BY_NAME = {
    "check": [("datasets", ""), ("methods", "")],
    "download": [DATASET],
    "preprocess": [DATASET],
    "train": [METHOD],
    "evaluate": [METHOD],
    "ablate": [("methods", "pipeline/methods/${item.method}.py")],
    "report": [],
}


@pytest.mark.parametrize("stage", sorted(STAGES))
def test_a_stage_depends_on_the_code_it_imports(stage: str) -> None:
    needed = relative(imported(ROOT / "stages" / f"{stage}.py"))
    for kind, template in BY_NAME[stage]:
        files = sorted((ROOT / "pipeline" / kind).glob("[a-z]*.py"))
        assert len(files) >= 4
        # Of the files themselves only the chosen one; of what they import, all.
        needed |= {template} | {n for file in files for n in relative(imported(file))}
    own = {f"pipeline/{kind}/" for kind, _ in BY_NAME[stage]}
    common = {"pipeline/methods/cam.py"}
    needed = {n for n in needed if n and (n in common or "{" in n or is_shared(n, own))}
    if stage == "check":  # whatever else a method or dataset imports changes no marker file
        needed &= relative(imported(ROOT / "stages" / "check.py"))
    assert listed(stage) == {named(n) for n in needed}


def relative(files: frozenset[Path]) -> set[str]:
    return {file.relative_to(ROOT).as_posix() for file in files}


def is_shared(name: str, own: set[str]) -> bool:
    """Whether `name` is no file that is imported by name."""
    return name.endswith("__init__.py") or not name.startswith(tuple(own or {"-"}))


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
    files = [f for f in sorted((ROOT / "pipeline").rglob("*.py")) if f.parent.name != "tracking"]
    assert len(files) > 30
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            assert not [name for name in names if name.split(".")[0] == "mlflow"], file


def test_paths_of_dependencies_exist() -> None:
    for stage in STAGES:
        for dep in definition(stage)["deps"]:
            if dep.startswith(("pipeline", "stages")) and "${" not in dep:
                assert Path(ROOT / dep).exists(), (stage, dep)
