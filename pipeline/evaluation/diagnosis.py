"""Signs that a run has not learned to tell classes apart, or to localize: a line each, with what to try."""

import numpy as np

from pipeline.evaluation.evaluator import Evaluation

COVERED = 0.9
"""Share of the image from which on a box says nothing."""


def lines(test: Evaluation, side: int, classes: int, localizer: str) -> list[str]:
    """What is wrong with an evaluation, if anything; side: of the test grid, in pixels."""
    found = []
    x0, y0, x1, y1 = test.boxes_predicted.T
    whole = float(((x1 - x0) * (y1 - y0) > COVERED * side**2).mean())
    if whole > 0.5:
        other = "another localizer" if localizer == "foreground" else "-S localizer=foreground"
        found.append(
            f"{whole:.0%} of the boxes cover more than {COVERED:.0%} of their image; "
            f"try {other}, or pretrained weights"
        )
    right, n = float((test.top[:, 0] == test.labels).mean()), len(test.labels)
    chance = float(np.bincount(test.labels, minlength=classes).max() / n)
    # Two standard errors above always answering the most frequent class.
    if classes > 1 and right < chance + 2 * (chance * (1 - chance) / n) ** 0.5:
        found.append(
            f"the classifier is right in {right:.0%} of the images, where the most frequent class alone "
            f"makes {chance:.0%}; try pretrained weights, more epochs (train.min_steps), or train.trunk: frozen"
        )
    return found
