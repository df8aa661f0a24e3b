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


def code_deps(stage: str) -> list[str]:
    """The stage's dependencies on code: files and folders."""
    deps = definition(stage)["deps"]
    return [d for d in deps if d.startswith(("pipeline/", "stages/", "tools/"))]


def covers(dep: str, file: str) -> bool:
    return file == dep or file.startswith(f"{dep}/")


def test_every_stage_is_visited() -> None:
    assert set(STAGES) == {
        *("check", "inputs", "download", "preprocess", "train", "localize", "evaluate", "ablate"),
        "report",
    }


# What a stage imports by the name that params.yaml holds, and what dvc.yaml lists for it.
DATASET = ("datasets", "pipeline/datasets/${dataset}")
METHOD = ("methods", "pipeline/methods/${method}.py")
LOCALIZER = ("localizers", "pipeline/localizers")  # all: one may learn from another
BY_NAME: dict[str, list[tuple[str, str | None]]] = {
    "check": [],  # whatever a method or dataset imports changes no marker file
    "inputs": [],
    "download": [DATASET],
    "preprocess": [DATASET],
    "train": [METHOD],
    "localize": [METHOD, LOCALIZER],
    "evaluate": [METHOD, LOCALIZER],
    # data/inputs.json holds a digest of the methods' own code
    "ablate": [("methods", None), LOCALIZER],
    "report": [],
}


def chosen(kind: str) -> list[Path]:
    """The modules that params.yaml may name: files, or folders with an __init__.py."""
    found = [p for p in (ROOT / "pipeline" / kind).glob("[!_.]*") if p.stem != "base"]
    return [p if p.suffix == ".py" else p / "__init__.py" for p in found if p.name != "__pycache__"]


@pytest.mark.parametrize("stage", sorted(STAGES))
def test_a_stage_depends_on_the_code_it_imports_and_on_no_other(stage: str) -> None:
    needed = relative(imported(ROOT / "stages" / f"{stage}.py"))
    listed = code_deps(stage)
    for kind, template in BY_NAME[stage]:
        assert template is None or template in listed
        files = chosen(kind)
        assert len(files) >= 4
        for file in files:
            name = file.parent.name if file.name == "__init__.py" else file.stem
            listed_now = [*listed, file.relative_to(ROOT).as_posix()]
            if template is not None:
                variable = "${" + template.partition("${")[2].partition("}")[0] + "}"
                listed_now = [dep.replace(variable, name) for dep in listed]
            for other in relative(imported(file)):
                assert any(covers(dep, other) for dep in listed_now), (stage, name, other)
            needed |= relative(imported(file))
    for file in needed - {f"stages/{stage}.py"}:
        own = BY_NAME[stage] and file.startswith(tuple(f"pipeline/{k}/" for k, _ in BY_NAME[stage]))
        assert own or any(covers(dep, file) for dep in listed), (stage, file)
    unused = [d for d in listed if "$" not in d and not any(covers(d, file) for file in needed)]
    assert unused == []


def relative(files: frozenset[Path]) -> set[str]:
    return {file.relative_to(ROOT).as_posix() for file in files}


def test_a_method_imports_no_other_method() -> None:
    """So that `pipeline/methods/${method}.py` and base.py are all of a method's own code."""
    files = sorted((ROOT / "pipeline" / "methods").glob("[a-z]*.py"))
    assert len(files) >= 4
    for file in files:
        others = imported(file) & set(files) - {file}
        assert others <= {ROOT / "pipeline" / "methods" / "base.py"}, file


def test_the_library_imports_no_stage() -> None:
    files = sorted((ROOT / "pipeline").rglob("*.py"))
    assert len(files) > 20
    for file in files:
        assert not [
            p for p in imported(file) if p.relative_to(ROOT).parts[0] in ("stages", "tools")
        ], file


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
            if dep.startswith(("pipeline", "stages", "tools")) and "${" not in dep:
                assert Path(ROOT / dep).exists(), (stage, dep)
