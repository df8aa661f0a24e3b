"""README.md and docs/: tables come from files, links and anchors resolve, commands and params exist."""

import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

from benchmarks import tables
from pipeline import methods, params, presets
from tests.imports import ROOT
from tools import wsol

PAGES = tables.pages()
TEXTS = {page: page.read_text("utf-8") for page in PAGES}
EVERYTHING = "\n".join(TEXTS.values())


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def test_every_page_is_visited() -> None:
    assert len(PAGES) >= 13
    listed = yaml.safe_load((ROOT / "mkdocs.yml").read_text("utf-8"))["nav"]
    assert sorted(listed) == sorted(page.name for page in PAGES if page.parent.name == "docs")


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_table_comes_out_of_its_file(page: Path) -> None:
    assert tables.filled(TEXTS[page]) == TEXTS[page], "python -m benchmarks.tables rewrites it"


def test_tables_are_filled_at_all() -> None:
    assert len(tables.BLOCK.findall(EVERYTHING)) >= 5


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_link_leads_somewhere(page: Path) -> None:
    links = [link for link in re.findall(r"\]\(([^)\s]+)\)", TEXTS[page]) if "://" not in link]
    for link in links:
        file, _, anchor = link.partition("#")
        target = (page.parent / file).resolve() if file else page
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target.read_text("utf-8")), link


def anchors(text: str) -> set[str]:
    titles = re.findall(r"^#+ (.*)$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_links_are_found_at_all() -> None:
    assert len(re.findall(r"\]\(", EVERYTHING)) >= 20


def test_the_site_builds(tmp_path: Path) -> None:
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "-q", "--strict", "-d", str(tmp_path / "site")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    assert (tmp_path / "site" / "data" / "index.html").exists()


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_no_table_is_broken_in_two(page: Path) -> None:
    lines = ["", *TEXTS[page].splitlines(), ""]
    rows = [k for k, line in enumerate(lines) if line.startswith("|")]
    for k in (k for k in rows if not lines[k - 1].startswith("|")):
        assert re.fullmatch(r"[|\s:-]+", lines[k + 1]), lines[k]


def test_every_command_shown_exists() -> None:
    modules = set(re.findall(r"python -m ((?:stages|tools|benchmarks)\.\w+)", EVERYTHING))
    assert len(modules) >= 5
    assert [module for module in modules if not find_spec(module)] == []
    commands = re.findall(r"^(?:\$ )?wsol ([a-z]\w*)|`wsol ([a-z]\w*)", EVERYTHING, re.M)
    named = {name for found in commands for name in found if name}
    assert len(named) >= 6 and sorted(named - set(wsol.COMMANDS)) == []
    chosen = set(re.findall(r"wsol preset ([a-z]\S*)", EVERYTHING))
    assert len(chosen) >= 3 and sorted(chosen - set(presets.names())) == []
    targets = set(re.findall(r"^(?:\$ )?make (\w[\w-]*)", EVERYTHING, re.M))
    makefile = (ROOT / "Makefile").read_text("utf-8")
    assert targets and [target for target in targets if f"\n{target}:" not in makefile] == []


def test_every_param_named_exists() -> None:
    keys = params.leaves(yaml.safe_load((ROOT / "params.yaml").read_text("utf-8")))
    given = re.findall(r"-S ['\"]?([a-z][\w.]*)=", EVERYTHING)
    sections = "box|datasets|evaluate|heatmaps|prepare|train|methods|localizers|ablate"
    named = re.findall(rf"`((?:{sections})\.[\w.]+)[`:]", EVERYTHING)
    assert len(given) >= 8 and len(named) >= 5
    known = {*keys, *(key.rpartition(".")[0] for key in keys)}
    assert [key for key in (*given, *named) if key not in known] == []


def test_every_method_has_a_row_and_a_reconstruction_is_called_one() -> None:
    page = TEXTS[ROOT / "docs" / "methods.md"]
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*?) \| \[`\w+\.py`\]", page, re.M))
    assert sorted(rows) == methods.names()
    for name, what in rows.items():
        source = (ROOT / "pipeline" / "methods" / f"{name}.py").read_text("utf-8")
        assert ("reconstruction" in what) == ("reconstruction = True" in source), name


def test_the_readme_is_short() -> None:
    assert len(TEXTS[ROOT / "README.md"].splitlines()) <= 130
