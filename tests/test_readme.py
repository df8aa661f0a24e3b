"""The README's tables are what the files of benchmarks/ say, and what it shows is there."""

import re
from importlib.util import find_spec

import yaml

from benchmarks import tables
from pipeline import methods, params, presets
from tests.imports import ROOT
from tools import wsol

TEXT = (ROOT / "README.md").read_text("utf-8")


def test_every_table_comes_out_of_its_file() -> None:
    assert len(tables.BLOCK.findall(TEXT)) >= 2
    assert tables.filled(TEXT) == TEXT, "python -m benchmarks.tables rewrites them"


def test_no_table_is_broken_in_two() -> None:
    lines = ["", *TEXT.splitlines(), ""]
    rows = [k for k, line in enumerate(lines) if line.startswith("|")]
    first = [k for k in rows if not lines[k - 1].startswith("|")]
    assert len(first) >= 5
    for k in first:
        assert re.fullmatch(r"[|\s:-]+", lines[k + 1]), lines[k]


def test_every_method_has_a_row_and_a_reconstruction_is_called_one() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*?) \| \[`\w+\.py`\]", TEXT, re.M))
    assert sorted(rows) == methods.names()
    for name, what in rows.items():
        source = (ROOT / "pipeline" / "methods" / f"{name}.py").read_text("utf-8")
        assert ("reconstruction" in what) == ("reconstruction = True" in source), name


def test_every_command_it_shows_exists() -> None:
    modules = set(re.findall(r"python -m ((?:stages|tools|benchmarks)\.\w+)", TEXT))
    assert modules and all(find_spec(module) for module in modules)
    commands = set(re.findall(r"^(?:\$ )?wsol (\w+)|`wsol (\w+)", TEXT, re.M))
    named = {name for found in commands for name in found if name}
    assert len(named) >= 6 and named <= set(wsol.COMMANDS)
    targets = set(re.findall(r"^(?:\$ )?make (\w+)", TEXT, re.M))
    makefile = (ROOT / "Makefile").read_text("utf-8")
    assert targets and all(f"\n{target}:" in makefile for target in targets)
    named = set(re.findall(r"wsol preset ([a-z]\S*)", TEXT))
    assert len(named) >= 4 and named <= set(presets.names())


def test_every_param_it_names_exists() -> None:
    written = yaml.safe_load((ROOT / "params.yaml").read_text("utf-8"))
    keys = params.leaves(written)
    given = re.findall(r"-S '?([\w.]+)=", TEXT)
    told = re.findall(
        r"`((?:box|datasets|evaluate|heatmaps|prepare|train|methods)\.[\w.]+)[`:]", TEXT
    )
    assert len(given) >= 8 and len(told) >= 5
    sections = {key.rpartition(".")[0] for key in keys}
    assert [key for key in (*given, *told) if key not in keys and key not in sections] == []


def test_every_link_leads_somewhere() -> None:
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", TEXT) if "://" not in link]
    assert len(links) >= 18
    assert [link for link in links if not (ROOT / link).exists()] == []
