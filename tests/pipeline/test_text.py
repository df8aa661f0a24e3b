"""Names from outside change nothing on a terminal, in a spreadsheet or on a page."""

import csv
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import text
from pipeline.errors import UserError
from pipeline.files import write_csv
from pipeline.tables import read
from tests.imports import ROOT

NASTY = [
    ("\x1b[31mred", "\\x1b[31mred"),
    ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
    ("a\rb", "a\\x0db"),
    ("\x9b2J", "\\x9b2J"),
    ("\x7f\x08", "\\x7f\\x08"),
    ("gpj.\u202eexe", "gpj.\\u202eexe"),
    ("a\u2028b", "a\\u2028b"),
    ("Vögel 鳥 👩‍🔬", "Vögel 鳥 👩‍🔬"),
]


@pytest.mark.parametrize(("name", "shown"), NASTY)
def test_a_terminal_shows_control_characters(name: str, shown: str) -> None:
    stream = io.StringIO()
    print(f"left out: {name}", file=text.Screen(stream))  # type: ignore[arg-type]
    assert stream.getvalue() == f"left out: {shown}\n"


def test_a_progress_bar_is_drawn_as_ever() -> None:
    stream = io.StringIO()
    screen = text.Screen(stream)
    for part in ("\r 10 %", "\n\n", "\x1b[A\x1b[A", "\r", "done\n"):
        screen.write(part)
    assert stream.getvalue() == "\r 10 %\n\n\x1b[A\x1b[A\rdone\n"


def test_a_command_shows_the_names_it_is_given_escaped(tmp_path: Path) -> None:
    bad = tmp_path / "\x1b[2Jphotos\nerror: a forged line"
    undecodable = os.fsencode(tmp_path) + b"/\xff\x1b"
    code = "from tools.wsol import main; main()"
    for name in (os.fsencode(bad), undecodable):
        for encoding in ("utf-8", "ascii"):
            done = subprocess.run(
                [sys.executable, "-c", code, "predict", name],
                cwd=tmp_path,
                env={"PYTHONPATH": str(ROOT), "PYTHONIOENCODING": encoding},
                capture_output=True,
            )
            assert done.returncode == 2
            assert done.stderr.startswith(b"error: ") and done.stderr.count(b"\n") == 1
            assert b"\x1b" not in done.stderr and b"\\x1b" in done.stderr


def test_a_mistake_is_one_line_whatever_it_quotes() -> None:
    assert UserError("no image in a\nerror: b").problems == ["no image in a\\nerror: b"]


NAMES = [
    "=1+1",
    "@SUM(A1)",
    "+x",
    "-x.jpg",
    "'=x",
    "''-y",
    "=cmd|' /C calc'!A0",
    "plain",
    "'quoted'",
]


def test_a_spreadsheet_computes_no_name_and_our_reader_reads_it_back(tmp_path: Path) -> None:
    rows = [{"image": name, "x0": -1.5, "x1": "-0.25"} for name in NAMES]
    write_csv(tmp_path / "boxes.csv", rows, ["image", "x0", "x1"])
    with (tmp_path / "boxes.csv").open(newline="") as file:
        raw = list(csv.DictReader(file))
    assert not [row for row in raw if row["image"][0] in "=+-@\t\r"]
    assert {row["x0"] for row in raw} == {"-1.5"} and {row["x1"] for row in raw} == {"-0.25"}
    found = read(tmp_path / "boxes.csv", ["image", "x0"])
    assert [line.values["image"] for line in found] == NAMES


@given(st.text())
def test_every_cell_is_read_back(value: str) -> None:
    assert text.uncell(text.cell(value)) == value


def test_markdown_shows_html_as_text() -> None:
    assert text.markdown("<img src=x onerror=alert(1)>|\n") == (
        "&lt;img src=x onerror=alert(1)>\\|\\n"
    )
