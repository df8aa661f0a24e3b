"""Revisited CAM: weighted pooling, recombined weights and a threshold chosen per image.

Z. Zhang, "Revisiting Class Activation Map: Two Stage Method for Weakly Supervised Object Localization",
2021; thesis chapter 5. The two-stage choice of the box, Eq. 22, is pipeline/boxes/rules/two_stage.py.
Departs from the paper: Eq. 18 lacks an exponential in its denominator, and Eq. 19 divides a weighted mean by
w·h once more, which only scales the logits; a param restores the division.
"""

from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor

from pipeline.methods import base
from pipeline.methods.base import Outputs
from pipeline.params import Section


class Params(Section):
    pooling: Literal["wgap", "gap"]
    """Weighted (Eq. 18, 19) or plain (Eq. 15) average. Published: wgap (§5.4.1)."""
    divide_by_area: bool
    """Divide the weighted average by w·h, as Eq. 19 is printed; without effect on gap."""
    recombine: Annotated[bool, Field(json_schema_extra={"when": "evaluation"})]
    """Heatmaps from |w| (Eq. 21) instead of w (Eq. 16); the classifier keeps w. Published: true (§5.4.2)."""


def weighted_average_pooling(features: Tensor) -> Tensor:
    """Eq. 18, 19 without the division: Σ_ij P·softmax(P), [B, C, h, w] → float32 [B, C]."""
    P = features.float().flatten(2)
    return (P * P.softmax(2)).sum(2)


def recombine(weights: Tensor) -> Tensor:
    """Eq. 21: M_p − M_n = Σ_p w_p·F_p − Σ_n w_n·F_n is the map of |w|."""
    return weights.abs()


class Method(base.Method):
    box_selection = "two_stage"
    params: Params

    def pool(self, features: Tensor) -> Tensor:
        if self.params.pooling == "gap":
            return super().pool(features)
        pooled = weighted_average_pooling(features)
        area = features.shape[2] * features.shape[3]
        return pooled / area if self.params.divide_by_area else pooled

    def class_maps(self, outputs: Outputs, classes: Tensor) -> Tensor:
        weights = self.classifier.weight[classes]
        return base.weighted_maps(
            outputs.features, recombine(weights) if self.params.recombine else weights
        )
