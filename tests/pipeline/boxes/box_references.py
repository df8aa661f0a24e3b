"""Boxes the plain way, one labelling per threshold: what the sweep must equal, and is timed against."""

import itertools
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pipeline.params import TwoStage

Box = tuple[int, int, int, int]
EIGHT = np.ones((3, 3), int)


def scipy_boxes(values: NDArray[Any], threshold: float) -> tuple[Box, list[Box]]:
    """`classic`: the largest component's box and the boxes of all, by scipy.ndimage.label."""
    label, n = ndimage.label(values >= threshold * values.max(), structure=EIGHT)
    if n == 0:
        return (0, 0, values.shape[1], values.shape[0]), []
    boxes = [
        (columns.start, rows.start, columns.stop, rows.stop)
        for rows, columns in ndimage.find_objects(label)
    ]
    return boxes[np.bincount(label.ravel())[1:].argmax()], boxes


def opencv_boxes(values: NDArray[np.uint8], threshold: float) -> tuple[Box, list[Box]]:
    """`wsoleval`: the largest contour's box and the boxes of all, by cv2.findContours."""
    height, width = values.shape
    limit = int(threshold * values.max())
    binary = cv2.threshold(values, limit, 255, cv2.THRESH_BINARY)[1]
    contours = cv2.findContours(binary, cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)[0]
    if len(contours) == 0:
        return (0, 0, 0, 0), []
    boxes = []
    for contour in contours:
        x, y, w, h = cv2.boundingRect(contour)
        boxes.append((x, y, min(x + w, width - 1), min(y + h, height - 1)))
    areas = [cv2.contourArea(contour) for contour in contours]
    return boxes[areas.index(max(areas))], boxes


def plain_iou(a: Sequence[float], b: Sequence[float], pixel: int) -> float:
    """IoU of half-open edges (pixel = 0) or inclusive corners (pixel = 1)."""
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]) + pixel)
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]) + pixel)
    both = width * height
    area_a = (a[2] - a[0] + pixel) * (a[3] - a[1] + pixel)
    area_b = (b[2] - b[0] + pixel) * (b[3] - b[1] + pixel)
    union = area_a + area_b - both
    return both / union if union > 0 else 0.0


def plain_two_stage(
    values: NDArray[Any], features: NDArray[Any], params: TwoStage
) -> tuple[list[int], float] | None:
    """Thesis §5.4.3 and Eq. 22, one threshold, one seed and one position after the other."""
    height, width = values.shape
    _, h, w = features.shape
    vectors = features.astype(np.float64)
    if params.center:
        vectors = vectors - vectors.mean(axis=(1, 2), keepdims=True)
    best = None
    for tau in np.arange(params.step, 1 - 1e-9, params.step):
        label, _ = ndimage.label(values >= tau * values.max(), structure=EIGHT)
        mask = label == 1 + np.bincount(label.ravel())[1:].argmax()
        ys, xs = np.nonzero(mask)
        x0, y0, x1, y1 = xs.min(), ys.min(), xs.max() + 1, ys.max() + 1
        cells = set()
        for y, x in zip(ys, xs, strict=True):
            if params.seeds == "sides":
                holds = y in (y0, y1 - 1) or x in (x0, x1 - 1)
            else:
                around = [(y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)]
                holds = not all(
                    0 <= v < height and 0 <= u < width and mask[v, u] for v, u in around
                )
            if holds:
                cells.add((y * h // height, x * w // width))
        if len(cells) < params.min_seeds:
            continue
        similarity = np.zeros((h, w))
        for seed in cells:
            A = vectors[:, seed[0], seed[1]]
            for i, j in itertools.product(range(h), range(w)):
                P = vectors[:, i, j]
                similarity[i, j] += A @ P / (np.linalg.norm(A) * np.linalg.norm(P)) / len(cells)
        if best is None or similarity.var() < best[0] * (1 - 1e-5):
            best = (similarity.var(), [x0, y0, x1, y1], tau)
    return best[1:] if best else None
