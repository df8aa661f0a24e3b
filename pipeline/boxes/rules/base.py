"""The contract of a box rule: maps on the test grid → one box each.

A rule is a file of this folder with a class `Rule`; `box.selection` in params.yaml names the file.
"""

from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from pipeline import boxes
from pipeline.boxes import absolute
from pipeline.params import TwoStage

Unit = Literal["relative", "absolute"]
"""Of a threshold: a share of the map's own range, 0 … 1, or the map's own unit (a logit, a cosine)."""


class Boxes(NamedTuple):
    """One row per map: boxes float32 [B, 4], half-open, in the map's pixels; thresholds float32 [B].

    `found` [B] is False where the rule had no answer and fell back to the reading's threshold.
    """

    boxes: NDArray[np.float32]
    thresholds: NDArray[np.float32]
    found: NDArray[np.bool_]


class BoxRule:
    """The box of the largest component at one threshold for all images, which params.yaml gives."""

    needs: tuple[str, ...] = ()
    """Model outputs that it reads beside logits and maps: `features`, the last feature map."""
    unit: Unit | None = None
    """Of the maps it can read; None: whatever the localizer's maps are in."""
    chosen_on: str | None = None
    """The split whose true boxes choose its threshold; None: no box of any split is looked at."""
    per_image: bool = False
    """Whether each image has a threshold of its own."""
    sentence: str = ""
    """How the report describes it, with `{threshold:g}`, `{fallbacks:,}` and `{n:,}` to fill in."""

    def choose(
        self,
        maps: Tensor,
        features: Tensor | None,
        threshold: float,
        unit: Unit,
        settings: TwoStage,
    ) -> Boxes:
        """One box for each of the maps [B, H, W]; relative maps are in 0 … 1."""
        return at_threshold(maps, threshold, unit)

    def described(self, name: str, threshold: float, fallbacks: int, n: int) -> dict[str, Any]:
        """How tables name it (`fixed 0.2`) and the report describes it, after boxes for `n` images."""
        return {
            "label": name if self.per_image else f"{name} {threshold:g}",
            "sentence": self.sentence.format(threshold=threshold, fallbacks=fallbacks, n=n),
            "per_image": self.per_image,
        }


def at_threshold(maps: Tensor, threshold: float, unit: Unit) -> Boxes:
    """The largest component's box of each map at one threshold."""
    batch = maps.cpu().numpy()
    cut = absolute.boxes_at if unit == "absolute" else boxes.boxes_at
    thresholds = np.full(len(batch), threshold, np.float32)
    return Boxes(cut(batch, threshold), thresholds, np.ones(len(batch), bool))
