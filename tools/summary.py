"""The last run's errors in a small table, and where everything is (what `make repro` ends with).

wsol summary
"""

import argparse
import sys
import unicodedata
from collections.abc import Sequence

from pipeline.evaluation import metrics
from pipeline.evaluation.runs import Results
from pipeline.report import published
from stages.layout import METRICS
from stages.report import read

PLACES = {
    "report": METRICS / "report.md",
    "figures as data": METRICS / "report.csv",
    "pictures": METRICS / "pictures",
}


def arguments(parser: argparse.ArgumentParser) -> None:
    """It takes none."""


def main(options: argparse.Namespace) -> None:
    if reconfigure := getattr(sys.stdout, "reconfigure", None):
        reconfigure(errors="replace")  # a terminal without ↑ shows ?
    print(summary(read()))


def summary(results: Results) -> str:
    """The table and the places, as plain text."""
    main = results.main
    shown = [metric for metric in metrics.brief() if main.figure(metric.name)]
    names = [metric.name for metric in shown]
    lines = [(f"this run ({published.name(main.values['method'])})", main.figure)]
    lines += [(run.key, run.figure) for run in results.variants.values() if run.study == "methods"]
    rows = [("error, %", *(metric.heading for metric in shown))]
    for label, figure in lines:
        found = [figure(name) for name in names]
        rows.append((label, *(f"{value.value:.1f}" if value else "–" for value in found)))
    centre = main.centre_box
    if centre:
        values = (f"{centre[name]:.1f}" if name in centre else "–" for name in names)
        rows.append(("centre box", *values))
    others = sum(run.study != "methods" for run in results.variants.values())
    text = ["", f"  {main.described()}", "", *aligned(rows)]
    text += [f"  … and {others} more variants in the report"] if others else []
    places = [(name, f"{path}") for name, path in PLACES.items() if path.exists()]
    text += [
        "",
        *(f"  {name:<15}  {path}" for name, path in (*places, ("every run", "make ui"))),
        "",
    ]
    return "\n".join(text)


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows below a ruled header in columns as wide as terminals show them: names left, numbers right."""
    widths = [max(map(width, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        spaces = [" " * (wide - width(cell)) for cell, wide in zip(row, widths, strict=True)]
        cells = [spaces[i] + cell if i else cell + spaces[i] for i, cell in enumerate(row)]
        lines.append("  " + "   ".join(cells))
    return [lines[0], "  " + "─" * (width(lines[0]) - 2), *lines[1:]]


def width(text: str) -> int:
    """Columns a terminal needs for `text`: East Asian wide characters two, combining marks none."""
    return sum(
        (0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1)
        for c in text
    )
