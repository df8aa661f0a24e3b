"""Boxes the plain way, one labelling per threshold: what the sweep must equal, and is timed against."""

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Box = tuple[int, int, int, int]
EIGHT = np.ones((3, 3), int)


def scipy_boxes(values: NDArray[Any], threshold: float) -> tuple[Box, set[Box]]:
    """`classic`: the largest component's box and the boxes of all, by scipy.ndimage.label."""
    label, n = ndimage.label(values >= threshold * values.max(), structure=EIGHT)
    if n == 0:
        return (0, 0, values.shape[1], values.shape[0]), set()
    boxes = [
        (columns.start, rows.start, columns.stop, rows.stop)
        for rows, columns in ndimage.find_objects(label)
    ]
    return boxes[np.bincount(label.ravel())[1:].argmax()], set(boxes)


def opencv_boxes(values: NDArray[np.uint8], threshold: float) -> tuple[Box, set[Box]]:
    """`wsoleval`: the largest contour's box and the boxes of all, by cv2.findContours."""
    height, width = values.shape
    limit = int(threshold * values.max())
    binary = cv2.threshold(values, limit, 255, cv2.THRESH_BINARY)[1]
    contours = cv2.findContours(binary, cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)[0]
    if len(contours) == 0:
        return (0, 0, 0, 0), {(0, 0, 0, 0)}
    boxes = []
    for contour in contours:
        x, y, w, h = cv2.boundingRect(contour)
        boxes.append((x, y, min(x + w, width - 1), min(y + h, height - 1)))
    areas = [cv2.contourArea(contour) for contour in contours]
    return boxes[areas.index(max(areas))], set(boxes)


def plain_iou(a: Sequence[float], b: Sequence[float], pixel: int) -> float:
    """IoU of half-open edges (pixel = 0) or inclusive corners (pixel = 1)."""
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]) + pixel)
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]) + pixel)
    both = width * height
    area_a = (a[2] - a[0] + pixel) * (a[3] - a[1] + pixel)
    area_b = (b[2] - b[0] + pixel) * (b[3] - b[1] + pixel)
    union = area_a + area_b - both
    return both / union if union > 0 else 0.0
