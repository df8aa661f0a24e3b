"""per_image.csv: a row per test image."""

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from pipeline import tables
from pipeline.errors import UserError
from pipeline.evaluation.metrics import Scored
from pipeline.files import write_csv
from pipeline.text import uncell

FILE = "per_image.csv"
EDGES = ("x0", "y0", "x1", "y1")


class Row(TypedDict, total=False):
    """One image; the box is the predicted class's, in pixels of the original image, half-open."""

    id: str
    label: str
    predicted: str
    in_top5: int
    score: float
    iou_true: float | str  # empty without a true box
    iou_predicted: float | str
    threshold: float
    x0: float
    y0: float
    x1: float
    y1: float


Rows = dict[str, dict[str, str]]  # by image, as read


def write(path: Path, rows: Sequence[Row]) -> None:
    """Write rows that have the same columns: all, or as many as are known."""
    known = rows[0] if rows else Row.__annotations__
    write_csv(path, rows, [name for name in Row.__annotations__ if name in known])


def rounded(iou: float) -> float | str:
    """An IoU as it is written."""
    return "" if np.isnan(iou) else round(float(iou), 6)


def read(path: Path) -> Rows:
    """The rows of a per_image.csv, or of the one in a folder, by image."""
    path = path / FILE if path.is_dir() else path
    return _by_image(path, (line.values for line in tables.read(path, ["id"])))


def parse(text: str, name: str) -> Rows:
    """The rows of a file's text; `name` is what messages call it."""
    rows = csv.DictReader(io.StringIO(text, newline=""))
    return _by_image(name, ({key: uncell(cell) for key, cell in row.items()} for row in rows))


def _by_image(name: Path | str, rows: Iterable[dict[str, str]]) -> Rows:
    listed = list(rows)
    if not listed:
        raise UserError(f"{name} has no rows; needed: a per_image.csv of evaluate")
    by_image = {row["id"]: row for row in listed}
    if len(by_image) < len(listed):
        raise UserError(f"{name} has {len(listed) - len(by_image)} images more than once")
    return by_image


def scored(rows: Rows, images: Sequence[str]) -> Scored:
    """What the columns tell of these images, in this order."""
    known = rows[images[0]]
    columns = {name: np.array([rows[image][name] for image in images]) for name in known}
    named = "label" in columns and "predicted" in columns
    return Scored(
        top1=columns["label"] == columns["predicted"] if named else None,
        top5=columns["in_top5"] == "1" if "in_top5" in columns else None,
        iou_predicted=_numbers(columns.get("iou_predicted")),
        iou_true=_numbers(columns.get("iou_true")),
    )


def _numbers(cells: NDArray[np.str_] | None) -> NDArray[np.float64] | None:
    return None if cells is None else np.where(cells == "", "nan", cells).astype(np.float64)
