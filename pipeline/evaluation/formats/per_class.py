"""per_class.csv: a row per class, with the figures of its test images."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from pipeline import tables
from pipeline.evaluation import metrics
from pipeline.evaluation.metrics import Scored
from pipeline.files import write_csv

FILE = "per_class.csv"
Row = dict[str, Any]


def rows(scored: Scored, labels: NDArray[Any], class_names: Sequence[str]) -> list[Row]:
    """The brief figures in percent of each class's images, in the order of the classes; labels: [N]."""
    found = []
    for number, name in enumerate(class_names):
        mine = labels == number
        values = metrics.values(scored.where(mine)) if mine.any() else {}
        row: Row = {"class": name, "images": int(mine.sum())}
        for metric in metrics.brief(oracles=False):
            row[metric.name] = round(values[metric.name], 4) if metric.name in values else ""
        found.append(row)
    return found


def write(path: Path, rows: Sequence[Row]) -> None:
    names = [metric.name for metric in metrics.brief(oracles=False)]
    write_csv(path, rows, ["class", "images", *names])


def read(path: Path) -> list[Row]:
    """The rows; an empty cell is None."""
    return tables.typed(path)
