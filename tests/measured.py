"""Sample metrics/ folders: figures follow from the per-image rows, so tests can compute them by hand."""

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline import packed
from pipeline.boxes import rules
from pipeline.datasets import Entry
from pipeline.evaluation.formats import map_file
from tests.made import encode, noise

CURVE = ("box_acc_30", "box_acc_50", "box_acc_70")


def measure(
    folder: Path,
    method: str = "cam",
    *,
    iou: Sequence[float | None] = (0.9, 0.8, 0.4, 0.2),
    missed: Sequence[int] = (0,),
    **changed: Any,
) -> None:
    """Write the files of one evaluation; images `missed` are misclassified, IoU None has no box."""
    folder.mkdir(parents=True, exist_ok=True)
    n = len(iou)
    known = [i for i in range(n) if iou[i] is not None]
    images = [
        {
            "id": f"image{i}",
            "label": "wren",
            "predicted": "finch" if i in missed else "wren",
            "iou_true": "" if iou[i] is None else iou[i],
            "iou_predicted": "" if iou[i] is None else iou[i],
            "score": 0.9,
            "threshold": 0.2,
            "x0": 30,
            "y0": 20,
            "x1": 90,
            "y1": 60,
        }
        for i in range(n)
    ]
    write(folder / "per_image.csv", images)
    heat = np.random.default_rng(0).random((n, 4, 6))
    map_file.write(folder, [f"image{i}" for i in range(n)], map_file.Maps.of(heat))
    figures = {"top1_cls_err": 100 * len(missed) / n}
    if known:
        off = [i for i in known if iou[i] < 0.5]  # type: ignore[operator]
        figures["top1_loc_err"] = 100 * len({*off, *(i for i in missed if i in known)}) / len(known)
        figures["gt_known_loc_err"] = 100 * len(off) / len(known)
        figures["max_box_acc"] = 75.0
        curve = [{"threshold": t, **dict.fromkeys(CURVE, 100 * t)} for t in (0.0, 0.2, 0.6)]
        write(folder / "threshold_curve.csv", curve)
    rule, threshold = changed.get("selection", "fixed"), changed.get("threshold", 0.2)
    centre = {"gt_known_loc_err": 60.0, "max_box_acc": 50.0} if known else {}
    localization = {
        "dataset": "synthetic",
        "method": method,
        "backbone": "vgg_small",
        "weights": "none",
        "seed": 0,
        "n": n,
        "n_boxes": len(known),
        "protocol": "classic",
        "selection": "fixed",
        "threshold": 0.2,
        "boxes": rules.load(rule).described(rule, threshold, changed.get("fallbacks", 0), n),
        **figures,
        "intervals": {name: [value - 1, value + 2] for name, value in figures.items()},
        "baselines": {"centre_box": centre},
        "reading": {"input": {"resize": 64, "crop": 56, "test": "squash"}},
        "model_sha256": "0123456789abcdef" * 4,
        "evaluation_sha256": "fedcba9876543210" * 4,
        **changed,
    }
    (folder / "localization.json").write_text(json.dumps(localization))
    epochs = [{"epoch": e, "train_loss": 1 / e, "train_accuracy": 50.0} for e in (1, 2)]
    write(folder / "epochs.csv", epochs)
    (folder / "train.json").write_text(json.dumps(epochs[-1]))


def prepare(root: Path, count: int) -> Path:
    """The test images that `measure` speaks of, each 80 × 120, packed at half that size; returns `root`."""
    root.mkdir(parents=True)
    box = np.array([[20, 10, 100, 70]], np.float32)
    entries = [Entry(f"image{i}", 0, "test", box) for i in range(count)]
    with packed.Writer(root, "test", entries) as writer:
        for i in range(count):
            writer.add(i, encode(noise(40, 60, i)), (80, 120))
    return root


def write(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
