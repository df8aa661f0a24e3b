"""Code fingerprints: the closure of imports, without comments and docstrings."""

from pathlib import Path

import pytest

from pipeline import code


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project of four modules: a imports b (inside a function), b imports room.c; d stands alone."""
    files = {
        "pipeline/__init__.py": '"""Only text."""',
        "pipeline/a.py": "def f():\n    from pipeline import b\n    return b.x\n",
        "pipeline/b.py": "from pipeline.room.c import x\n",
        "pipeline/room/__init__.py": "y = 1\n",
        "pipeline/room/c.py": '"""Text."""\nx = 1\n',
        "pipeline/d.py": "z = 1\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(code, "ROOT", tmp_path)
    forget()
    return tmp_path


def forget() -> None:
    for function in (code.imported, code._direct, code._tree, code._meaning):
        function.cache_clear()


def test_the_closure_follows_imports_into_packages_and_functions(package: Path) -> None:
    found = {p.relative_to(package).as_posix() for p in code.imported(package / "pipeline/a.py")}
    assert found == {
        *("pipeline/a.py", "pipeline/b.py"),
        *("pipeline/room/__init__.py", "pipeline/room/c.py"),
    }


@pytest.mark.parametrize(
    ("edited", "text", "same"),
    [
        ("pipeline/room/c.py", "x = 2\n", False),
        ("pipeline/room/__init__.py", "y = 2\n", False),
        ("pipeline/room/c.py", '"""Other words."""\n# and a comment\nx = (1)\n', True),
        ("pipeline/d.py", "z = 2\n", True),
    ],
)
def test_only_code_that_is_imported_counts(
    package: Path, edited: str, text: str, same: bool
) -> None:
    before = list(code.fingerprints("pipeline.a"))
    (package / edited).write_text(text)
    forget()
    assert (list(code.fingerprints("pipeline.a")) == before) is same
