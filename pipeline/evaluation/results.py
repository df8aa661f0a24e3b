"""An evaluation as the tables people read: localization.json, per image, per class, per threshold."""

from pathlib import Path
from typing import Any

import numpy as np

from pipeline import packed
from pipeline.cache import digest
from pipeline.evaluation import metrics
from pipeline.evaluation.evaluator import Evaluation
from pipeline.evaluation.per_image import EDGES
from pipeline.loading import geometry
from pipeline.model.reader import Reading
from pipeline.params import Input, Params

Row = dict[str, Any]
DELTAS = (30, 50, 70)


def localization(
    evaluation: Evaluation,
    params: Params,
    reading: Reading,
    *,
    baselines: dict[str, dict[str, float]],
    model_sha256: str,
) -> Row:
    """Errors in percent with 95 % bootstrap intervals, and all that is needed to read them rightly.

    `params` name the experiment; boxes were read as `reading` says. A threshold chosen on the test set
    appears only inside `max_box_acc*`.
    """
    n, fallbacks = len(evaluation.labels), int((~evaluation.found).sum())
    figures = metrics.summarise(
        evaluation.labels,
        evaluation.top,
        evaluation.iou_true,
        evaluation.iou_predicted,
        evaluation.curve_largest,
        evaluation.curve_any,
        evaluation.thresholds,
        bootstrap=params.evaluate.bootstrap,
        seed=params.seed,
    )
    intervals = {name: figure for name, figure in figures.items() if isinstance(figure, dict)}
    return {
        "dataset": params.dataset,
        "method": params.method,
        "backbone": params.backbone,
        "weights": Path(params.weights).name,
        "seed": params.seed,
        "n": n,
        "n_boxes": int((~np.isnan(evaluation.iou_true)).sum()),
        "protocol": params.box.protocol,
        "selection": reading.rule,
        "threshold": reading.threshold,
        "threshold_unit": reading.unit,
        "fallbacks": fallbacks,
        "boxes": reading.box_rule.described(reading.rule, reading.threshold, fallbacks, n),
        **{name: figure["value"] for name, figure in intervals.items()},
        "intervals": {name: [figure["low"], figure["high"]] for name, figure in intervals.items()},
        "baselines": baselines,
        "reading": reading.model_dump(mode="json"),
        "model_sha256": model_sha256,
        "evaluation_sha256": settings_sha256(params),
    }


def settings_sha256(params: Params) -> str:
    """Fingerprint of the settings that decide the figures of a given model."""
    sections = (
        *(params.heatmaps, params.box, params.evaluate, params.input, params.method_params),
        *(params.localize, *params.localizers.values()),
    )
    texts = [params.heatmap, *params.localizers, *(s.model_dump_json() for s in sections)]
    return digest(text.encode() for text in texts)


def per_image(
    evaluation: Evaluation, images: packed.Split, class_names: list[str], input: Input
) -> list[Row]:
    """One row per image; the box is the predicted class's, in pixels of the original image, half-open."""
    rows = []
    for i in range(len(evaluation.labels)):
        box = geometry.boxes_to_image(
            evaluation.boxes_predicted[i : i + 1], tuple(images.sizes[i]), input
        )[0]
        rows.append(
            {
                "id": images.ids[i],
                "label": class_names[evaluation.labels[i]],
                "predicted": class_names[evaluation.top[i, 0]],
                "in_top5": int(evaluation.labels[i] in evaluation.top[i]),
                "score": round(float(evaluation.score[i]), 6),
                "iou_true": _number(evaluation.iou_true[i]),
                "iou_predicted": _number(evaluation.iou_predicted[i]),
                "threshold": round(float(evaluation.threshold[i]), 4),
                **{edge: round(at, 2) for edge, at in zip(EDGES, box.tolist(), strict=True)},
            }
        )
    return rows


def _number(value: float) -> float | str:
    return "" if np.isnan(value) else round(float(value), 6)


def per_class(evaluation: Evaluation, class_names: list[str]) -> list[Row]:
    """Errors in percent of each class's images, in the order of the classes."""
    hit = evaluation.top[:, 0] == evaluation.labels
    rows = []
    for k, name in enumerate(class_names):
        mine = evaluation.labels == k
        boxed = mine & ~np.isnan(evaluation.iou_true)
        rows.append(
            {
                "class": name,
                "images": int(mine.sum()),
                "top1_cls_err": _error(hit[mine]),
                "top1_loc_err": _error((hit & (evaluation.iou_predicted >= 0.5))[boxed]),
                "gt_known_loc_err": _error((evaluation.iou_true >= 0.5)[boxed]),
            }
        )
    return rows


def _error(right: np.ndarray) -> float | str:
    return round(100 * (1 - float(right.mean())), 4) if len(right) else ""


def threshold_curve(evaluation: Evaluation) -> list[Row]:
    """BoxAcc in percent at IoU 0.3, 0.5 and 0.7, of the largest and of the best component, per threshold."""
    scored = ~np.isnan(evaluation.iou_true)
    rows = []
    for t, threshold in enumerate(evaluation.thresholds.tolist()) if scored.any() else ():
        row: Row = {"threshold": round(threshold, 6)}
        for prefix, curve in (
            ("box_acc", evaluation.curve_largest),
            ("any_box_acc", evaluation.curve_any),
        ):
            for delta in DELTAS:
                right = curve[scored, t] >= delta / 100
                row[f"{prefix}_{delta}"] = round(100 * float(right.mean()), 4)
        rows.append(row)
    return rows
