"""The code that a result depends on: the closure of a module's imports, read from the source."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("pipeline", "stages", "tools")


def fingerprints(*modules: str) -> Iterator[bytes]:
    """The meaning of each file that `modules` import, directly or not, in a fixed order.

    modules: dotted names, as in `pipeline.training.loop`. What is imported by name at run time, such as
    the chosen method, is given as a module of its own. Comments and docstrings do not count: text may
    be corrected without computing anything again.
    """
    found = {file for name in modules for start in _files(name) for file in imported(start)}
    for path in sorted(found):
        yield f"{path.relative_to(ROOT).as_posix()}\n{_meaning(path)}".encode()


def meaning(module: str) -> str:
    """The source of one module without comments, docstrings and layout."""
    path = ROOT.joinpath(*module.split("."))
    file = path.with_suffix(".py")
    return _meaning(file if file.exists() else path / "__init__.py")


@cache
def imported(path: Path) -> frozenset[Path]:
    """Every file of this project that `path` imports, directly or not, and `path` itself.

    Imports inside functions count; packages whose __init__.py is only a docstring do not.
    """
    found, pending = {path}, [path]
    while pending:
        new = _direct(pending.pop()) - found
        found |= new
        pending += new
    return frozenset(found)


@cache
def _direct(path: Path) -> frozenset[Path]:
    found: set[Path] = set()
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue
        for name in names:
            found |= _files(name)
    return frozenset(found)


def _files(name: str) -> set[Path]:
    """The module's file, and the __init__.py of each package around it that holds code."""
    parts = name.split(".")
    if parts[0] not in PACKAGES:
        return set()
    packages = [ROOT.joinpath(*parts[: i + 1], "__init__.py") for i in range(len(parts))]
    files = {path for path in packages if path.exists() and _has_code(path)}
    module = ROOT.joinpath(*parts).with_suffix(".py")
    return files | ({module} if module.exists() else set())


def _has_code(path: Path) -> bool:
    return any(not _is_text(node) for node in _tree(path).body)


def _is_text(node: ast.stmt) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"))


@cache
def _meaning(path: Path) -> str:
    """The source without comments, docstrings and layout."""
    tree = ast.parse(path.read_text("utf-8"))
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [child for child in body if not _is_text(child)]  # type: ignore[attr-defined]
    return ast.dump(tree)
