"""Predictions and ground truth → errors in percent, each with a 95 % bootstrap interval over images.

Boxes are x0, y0, x1, y1 half-open edges: area = (x1 − x0)(y1 − y0).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

IOU_CORRECT = 0.5
IOU_V2 = (0.3, 0.5, 0.7)  # MaxBoxAccV2, each at its own best threshold
INTERVAL = (2.5, 97.5)  # percentiles


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


def resample(images: int, resamples: int, seed: int) -> NDArray[np.float64]:
    """Bootstrap weights [resamples, images]: how often each image is drawn, over the images."""
    generator = np.random.default_rng(seed)
    return generator.multinomial(images, np.full(images, 1 / images), size=resamples) / images


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
) -> dict[str, dict[str, float]]:
    """Every error and accuracy, {name: {"value", "low", "high"}}."""
    raise NotImplementedError
