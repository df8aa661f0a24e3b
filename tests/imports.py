"""Which files of ours a module imports, read from the source: also inside functions, also by name."""

import ast
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent.parent


@cache
def imported(path: Path) -> frozenset[Path]:
    """Every file of this repository that `path` imports, directly or not, and `path` itself."""
    found = {path}
    todo = [path]
    while todo:
        for other in _direct(todo.pop()) - found:
            found.add(other)
            todo.append(other)
    return frozenset(found)


@cache
def _direct(path: Path) -> frozenset[Path]:
    found: set[Path] = set()
    for node in ast.walk(ast.parse(path.read_text())):
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
    """The module's file and the __init__ files of the packages it is in (empty ones do not count)."""
    parts = name.split(".")
    if parts[0] not in ("pipeline", "stages"):
        return set()
    packages = [ROOT.joinpath(*parts[: i + 1], "__init__.py") for i in range(len(parts))]
    files = {p for p in packages if p.exists() and _has_code(p)}
    module = ROOT.joinpath(*parts).with_suffix(".py")
    return files | ({module} if module.exists() else set())


def _has_code(path: Path) -> bool:
    body = ast.parse(path.read_text()).body
    return any(not (isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant)) for n in body)
