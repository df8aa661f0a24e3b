"""per_image.csv: its columns, its reader, and the errors that its rows tell of."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline import tables
from pipeline.errors import UserError
from pipeline.evaluation import metrics

Rows = dict[str, dict[str, str]]  # by image

EDGES = ("x0", "y0", "x1", "y1")
COLUMNS = [
    *("id", "label", "predicted", "in_top5", "score", "iou_true", "iou_predicted", "threshold"),
    *EDGES,
]


def read(path: Path) -> Rows:
    """The rows of a per_image.csv by image."""
    path = path / "per_image.csv" if path.is_dir() else path
    rows = [line.values for line in tables.read(path, ["id"])]
    if not rows:
        raise UserError(f"{path} has no rows; needed: a per_image.csv of evaluate")
    by_image = {row["id"]: row for row in rows}
    if len(by_image) < len(rows):
        raise UserError(f"{path} has {len(rows) - len(by_image)} images more than once")
    return by_image


def errors(rows: Rows, images: Sequence[str]) -> dict[str, NDArray[np.float64]]:
    """Each error the columns tell of: 1 wrong, 0 right, NaN without a box to tell by; [N]."""
    known = rows[images[0]]
    columns = {name: np.array([rows[image][name] for image in images]) for name in known}
    hits: dict[str, NDArray[np.bool_]] = {}
    if "label" in known and "predicted" in known:
        hits["top1_cls_err"] = columns["label"] == columns["predicted"]
    if "in_top5" in known:
        hits["top5_cls_err"] = columns["in_top5"] == "1"
    result = {name: np.where(hit, 0.0, 1.0) for name, hit in hits.items()}
    if "iou_predicted" in known and "top1_cls_err" in hits:
        result["top1_loc_err"] = missed(columns["iou_predicted"], hits["top1_cls_err"])
    if "iou_true" in known:
        if "top5_cls_err" in hits:
            result["top5_loc_err"] = missed(columns["iou_true"], hits["top5_cls_err"])
        result["gt_known_loc_err"] = missed(columns["iou_true"], np.ones(len(images), np.bool_))
    return result


def missed(iou: NDArray[np.str_], named: NDArray[np.bool_]) -> NDArray[np.float64]:
    """1 where the class was not named or the box missed, else 0; NaN where the IoU is left empty."""
    values = np.where(iou == "", "nan", iou).astype(np.float64)
    return np.where(np.isnan(values), np.nan, ~(named & (values >= metrics.IOU_CORRECT)))
