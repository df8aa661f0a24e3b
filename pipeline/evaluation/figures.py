"""What an evaluation wrote, as MLflow keeps it."""

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.text import uncell


def figures(localization: Mapping[str, Any]) -> dict[str, float]:
    """`loc/<name>` in percent, and the ends `_low` and `_high` of its 95 % interval."""
    found = {}
    for name, (low, high) in localization["intervals"].items():
        found[f"loc/{name}"] = localization[name]
        found |= {f"loc/{name}_low": low, f"loc/{name}_high": high}
    return found


def described(localization: Mapping[str, Any]) -> str:
    """The figures as a Markdown table, for a run's description."""
    rows = [
        f"| {name} | {localization[name]:.1f} | {low:.1f} – {high:.1f} |"
        for name, (low, high) in localization["intervals"].items()
    ]
    centre = localization.get("baselines", {}).get("centre_box", {})
    rows += [f"| {name}, centre box | {value:.1f} | |" for name, value in centre.items()]
    head = "| figure, percent | value | 95 % interval |\n|---|---:|---|"
    return "\n".join([head, *rows, "", "Pictures, tables and the threshold curve: see Artifacts."])


def read_csv(path: Path) -> list[dict[str, Any]]:
    """Rows of a CSV file: numbers as numbers, empty cells as None."""
    with path.open(newline="", encoding="utf-8") as file:
        return [{key: _value(text) for key, text in row.items()} for row in csv.DictReader(file)]


def _value(text: str) -> float | int | str | None:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return uncell(text) or None
