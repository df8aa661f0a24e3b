"""Boxes in pixels: told from shares of the image (0 … 1), from percent, and from what is no box."""

from collections.abc import Iterable, Sequence

import numpy as np


def shares_suspected(boxes: Iterable[Sequence[float] | np.ndarray]) -> str | None:
    """What is wrong if there are boxes and no edge of any of them, as given, lies above 1."""
    edges = [edge for box in boxes for edge in box]
    if not edges or max(edges) > 1:
        return None
    return (
        "no edge of a box is above 1, so these are shares of the image (0 … 1); allowed: pixels; "
        "multiply x by the image's width and y by its height"
    )


def valid(boxes: np.ndarray) -> np.ndarray:
    """Which of the boxes [n, 4] are boxes: finite, x0 < x1 and y0 < y1."""
    x0, y0, x1, y1 = boxes.T
    ordered: np.ndarray = (x0 < x1) & (y0 < y1)
    return ordered & np.isfinite(boxes).all(1)


def shown(boxes: np.ndarray) -> str:
    """Boxes [n, 4] as messages show them."""
    return "; ".join(", ".join(f"{edge:g}" for edge in box) for box in boxes.tolist())


def percent_suspected(boxes: Sequence[np.ndarray], sizes: np.ndarray) -> str | None:
    """A warning if the boxes look like percent: all edges within 100, all of the images larger.

    boxes: [n, 4] of each image; sizes: [images, 2], height and width.
    """
    boxed = [i for i, of in enumerate(boxes) if len(of)]
    if not boxed:
        return None
    edges = np.concatenate([boxes[i] for i in boxed])
    if edges.max() > 100 or sizes[boxed].min() <= 100:
        return None
    return (
        f"no edge of a box lies beyond 100, and every image is larger (at least "
        f"{sizes[boxed].min()} pixels): if these are percent, multiply them by the image's size; "
        "boxes are taken as pixels"
    )
