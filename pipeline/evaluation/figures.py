"""What an evaluation wrote, as MLflow keeps it: figures, and curves over the threshold."""

import csv
from collections.abc import Iterator, Mapping
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


def curve(path: Path) -> Iterator[tuple[int, dict[str, float]]]:
    """The threshold in hundredths of the heatmap's range, and `curve/<name>` at it, in percent."""
    for row in read_csv(path):
        threshold = row.pop("threshold")
        yield round(100 * threshold), {f"curve/{name}": value for name, value in row.items()}


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
