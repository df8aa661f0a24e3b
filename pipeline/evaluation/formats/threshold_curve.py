"""threshold_curve.csv: the box accuracy in percent at each threshold, for three IoU."""

from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipeline import tables
from pipeline.evaluation import metrics
from pipeline.evaluation.metrics import Scored
from pipeline.files import write_csv

FILE = "threshold_curve.csv"
Columns = dict[str, NDArray[np.float64]]


def name(delta: float, component: str = "largest") -> str:
    """The column of an IoU, of the `largest` component or of the best of `any`."""
    return f"{'' if component == 'largest' else 'any_'}box_acc_{delta * 100:.0f}"


def columns(scored: Scored, thresholds: ArrayLike) -> Columns:
    """`threshold`, and each accuracy [T]; empty where no image has a true box."""
    curves = {"largest": scored.curve_largest, "any": scored.curve_any}
    found = {"threshold": np.asarray(thresholds, np.float64)}
    for component, curve in curves.items():
        if curve is None or np.isnan(curve[:, 0]).all():
            return {}
        for delta in metrics.IOU_V2:
            found[name(delta, component)] = metrics.box_accuracy(curve, delta)
    return found


def write(path: Path, columns: Columns) -> None:
    rows = [
        {
            key: round(value, 6 if key == "threshold" else 4)
            for key, value in zip(columns, row, strict=True)
        }
        for row in zip(*(column.tolist() for column in columns.values()), strict=True)
    ]
    header = ["threshold", *(name(d, c) for c in ("largest", "any") for d in metrics.IOU_V2)]
    write_csv(path, rows, header)


def read(folder: Path) -> Columns:
    """The columns; {} where the file, or any true box, is absent."""
    return tables.columns(folder / FILE)
