"""Predictions and ground truth → errors in percent, each with a 95 % bootstrap interval over images.

Boxes are x0, y0, x1, y1 half-open edges: area = (x1 − x0)(y1 − y0).
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypedDict

import numpy as np
from numpy.typing import ArrayLike, NDArray

IOU_CORRECT = 0.5
IOU_V2 = (0.3, 0.5, 0.7)  # MaxBoxAccV2, each at its own best threshold
INTERVAL = (2.5, 97.5)  # percentiles
RESAMPLES = 1000  # of a difference, in the report as in `wsol compare`

Weights = NDArray[np.float32]


class Figure(TypedDict):
    """A value and its 95 % bootstrap interval."""

    value: float
    low: float
    high: float


def iou(a: ArrayLike, b: ArrayLike) -> NDArray[np.float64]:
    """Intersection over union of boxes [..., 4], broadcast; two empty boxes have 0."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    low = np.maximum(a[..., :2], b[..., :2])
    high = np.minimum(a[..., 2:], b[..., 2:])
    both = np.prod(np.clip(high - low, 0, None), axis=-1)
    union = np.prod(a[..., 2:] - a[..., :2], axis=-1) + np.prod(b[..., 2:] - b[..., :2], axis=-1)
    union = union - both
    return np.divide(both, union, out=np.zeros_like(union), where=union > 0)


def best_iou(boxes: NDArray[Any], truth: Sequence[NDArray[Any]]) -> NDArray[np.float64]:
    """Best IoU of each box [B, 4] with its image's ground-truth boxes [n, 4]; NaN without any."""
    return np.array(
        [iou(b, t).max() if len(t) else np.nan for b, t in zip(boxes, truth, strict=True)]
    )


def summarise(
    labels: NDArray[Any],
    topk: NDArray[Any],
    iou_true: NDArray[Any],
    iou_predicted: NDArray[Any],
    curve_largest: NDArray[Any],
    curve_any: NDArray[Any],
    thresholds: NDArray[Any],
    *,
    bootstrap: int,
    seed: int,
) -> dict[str, Figure]:
    """Every error and accuracy of a run, in percent.

    labels [N]; topk [N, ≤ 5] classes, best first; IoU [N] of the boxes of the true and the predicted
    class with the best true box; the two curves [N, T] at `thresholds` [T]. NaN IoU: an image without
    boxes, left out of the box figures, which are absent where no image has any.
    """
    if curve_largest.shape != curve_any.shape or curve_any.shape[1:] != thresholds.shape:
        raise ValueError(
            f"curves {curve_largest.shape}, {curve_any.shape} at {len(thresholds)} thresholds"
        )
    top1 = topk[:, 0] == labels
    top5 = (topk == labels[:, None]).any(axis=1)
    boxed = ~np.isnan(iou_true)
    found = iou_true >= IOU_CORRECT

    def figures(weights: Weights) -> dict[str, NDArray[np.float64]]:
        inside = weights[:, boxed]
        of_all = {"top1_cls_err": ~top1, "top5_cls_err": ~top5}
        of_boxed = {
            "top1_loc_err": ~(top1 & (iou_predicted >= IOU_CORRECT)),
            "top5_loc_err": ~(top5 & found),
            "gt_known_loc_err": ~found,
        }
        result = {name: share(weights, wrong) for name, wrong in of_all.items()}
        if boxed.any():
            result |= {name: share(inside, wrong[boxed]) for name, wrong in of_boxed.items()}
            result |= max_box_accuracies(inside, curve_largest[boxed], curve_any[boxed])
        return result

    return with_intervals(figures, len(labels), bootstrap=bootstrap, seed=seed)


def max_box_accuracies(
    weights: Weights, largest: NDArray[Any], every: NDArray[Any]
) -> dict[str, NDArray[np.float64]]:
    """MaxBoxAcc and MaxBoxAccV2 in percent of each resample [R], from curves [N, T] without NaN.

    The best threshold is found anew in each resample, and for each IoU of V2.
    """
    v1 = share(weights, hits(largest, IOU_CORRECT)).max(axis=1)
    v2 = [share(weights, hits(every, delta)).max(axis=1) for delta in IOU_V2]
    return {"max_box_acc": v1, "max_box_acc_v2": np.mean(v2, axis=0)}


def box_accuracy(curve: NDArray[Any], delta: float) -> NDArray[np.float64]:
    """Percent of images with IoU ≥ `delta` at each threshold, [N, T] → [T]; NaN rows are left out."""
    boxed = curve[~np.isnan(curve[:, 0])]
    return share(np.ones((1, len(boxed)), np.float32), hits(boxed, delta))[0]


def hits(curve: NDArray[Any], delta: float) -> NDArray[np.bool_]:
    """IoU ≥ δ in the curve's own precision: the float32 nearest to 7 / 10 is below the double."""
    return np.asarray(curve >= np.asarray(delta, curve.dtype))


def paired_difference(
    a: NDArray[Any], b: NDArray[Any], *, bootstrap: int, seed: int
) -> dict[str, Figure]:
    """Means of two runs' values [N] on the same images, in percent, and of b − a, image by image."""
    both = ~(np.isnan(a.astype(np.float64)) | np.isnan(b.astype(np.float64)))
    values = {"a": a[both], "b": b[both], "difference": b[both].astype(np.float64) - a[both]}

    def figures(weights: Weights) -> dict[str, NDArray[np.float64]]:
        return {name: share(weights, of) for name, of in values.items()}

    return with_intervals(figures, int(both.sum()), bootstrap=bootstrap, seed=seed)


def with_intervals(
    figures: Callable[[Weights], dict[str, NDArray[np.float64]]],
    images: int,
    *,
    bootstrap: int,
    seed: int,
) -> dict[str, Figure]:
    """Figures with their 95 % percentile intervals over images; all are of the same resamples.

    `figures` takes weights [R, N] and returns {name: [R]}; NaN, where a resample says nothing, is
    left out. Without resamples the interval is the value.
    """
    values = figures(np.ones((1, images), np.float32))
    drawn = [figures(weights) for weights in resamples(images, bootstrap, seed)] or [values]
    result = {}
    for name, (value,) in values.items():
        low, high = np.nanpercentile(np.concatenate([part[name] for part in drawn]), INTERVAL)
        result[name] = Figure(value=float(value), low=float(low), high=float(high))
    return result


def resamples(images: int, count: int, seed: int) -> Iterator[Weights]:
    """Yield `count` bootstrap resamples, up to 100 at a time: how often each image was drawn [R, N]."""
    generator = np.random.default_rng(seed)
    for start in range(0, count, 100):
        drawn = generator.integers(0, images, (min(100, count - start), images))
        yield np.array([np.bincount(row, minlength=images) for row in drawn], np.float32)


def share(weights: Weights, values: NDArray[Any]) -> NDArray[np.float64]:
    """Weighted mean in percent of values [N] or [N, T], for each of weights [R, N] → [R] or [R, T].

    Counts stay exact in single precision (below 2²⁴); NaN where all weights are 0.
    """
    kind = np.float32 if values.dtype == bool else np.float64
    total = weights.sum(axis=1, dtype=np.float64).reshape(-1, *[1] * (values.ndim - 1))
    counts = (weights @ values.astype(kind)).astype(np.float64)
    return np.divide(100 * counts, total, out=np.full_like(counts, np.nan), where=total > 0)
