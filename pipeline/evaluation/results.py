"""An evaluation as the files people read."""

from pathlib import Path
from typing import Any

import numpy as np

from pipeline import packed
from pipeline.cache import digest
from pipeline.evaluation import metrics
from pipeline.evaluation.evaluator import Evaluation
from pipeline.evaluation.formats import localization, per_class, per_image, threshold_curve
from pipeline.loading import placement
from pipeline.model.reader import Reading
from pipeline.params import Input, Params


def summary(
    evaluation: Evaluation,
    params: Params,
    reading: Reading,
    *,
    baselines: dict[str, dict[str, float]],
    model_sha256: str,
) -> dict[str, Any]:
    """Errors in percent with 95 % bootstrap intervals, and all that is needed to read them rightly.

    `params` name the experiment; boxes were read as `reading` says. A threshold chosen on the test set
    appears only inside `max_box_acc*`.
    """
    n, fallbacks = len(evaluation.labels), int((~evaluation.found).sum())
    figures = metrics.figures(
        evaluation.scored, bootstrap=params.evaluate.bootstrap, seed=params.seed
    )
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
        **localization.of_figures(figures),
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


def per_image_rows(
    evaluation: Evaluation, images: packed.Split, class_names: list[str], input: Input
) -> list[per_image.Row]:
    """One row per image, the box in pixels of the original image."""
    rows = []
    for i in range(len(evaluation.labels)):
        size = tuple(images.sizes[i])
        box = placement.boxes_to_image(evaluation.boxes_predicted[i : i + 1], size, input)[0]
        x0, y0, x1, y1 = (round(edge, 2) for edge in box.tolist())
        rows.append(
            per_image.Row(
                id=images.ids[i],
                label=class_names[evaluation.labels[i]],
                predicted=class_names[evaluation.top[i, 0]],
                in_top5=int(evaluation.labels[i] in evaluation.top[i]),
                score=round(float(evaluation.score[i]), 6),
                iou_true=per_image.rounded(evaluation.iou_true[i]),
                iou_predicted=per_image.rounded(evaluation.iou_predicted[i]),
                threshold=round(float(evaluation.threshold[i]), 4),
                x0=x0,
                y0=y0,
                x1=x1,
                y1=y1,
            )
        )
    return rows


def write(
    folder: Path,
    values: localization.Values,
    evaluation: Evaluation,
    images: packed.Split,
    class_names: list[str],
    input: Input,
) -> None:
    """Write every file of an evaluation into `folder`; values: of `summary`."""
    scored = evaluation.scored
    rows = per_image_rows(evaluation, images, class_names, input)
    per_image.write(folder / per_image.FILE, rows)
    classes = per_class.rows(scored, evaluation.labels, class_names)
    per_class.write(folder / per_class.FILE, classes)
    curve = threshold_curve.columns(scored, evaluation.thresholds)
    threshold_curve.write(folder / threshold_curve.FILE, curve)
    localization.write(folder / localization.FILE, values)
