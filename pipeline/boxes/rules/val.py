"""One threshold for all images: the one whose boxes are right most often on the `val` split."""

import numpy as np
from numpy.typing import NDArray

from pipeline.boxes.rules import base


class Rule(base.BoxRule):
    """Boxes as `fixed`, at the threshold of `best_threshold`."""

    chosen_on = "val"
    sentence = "threshold {threshold:g}, chosen on held-out training images, not on test images"


def best_threshold(hits: NDArray[np.bool_], thresholds: NDArray[np.float64]) -> float:
    """The threshold at which most of the images [N, T] are right; the lowest of equals."""
    return float(thresholds[hits.mean(0).argmax()])
