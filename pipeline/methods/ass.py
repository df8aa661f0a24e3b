"""Attention-based selection strategy: choose per feature map whether to hide its peak, more, or nothing.

Z. Zhang, T. D. Bui, "Attention-based Selection Strategy for Weakly Supervised Object Localization",
ICPR 2020; thesis chapter 3. The equations are in pipeline/layers/hiding.py.
The paper does not give μ1, μ2 and the least number of peak cells, and gives two background thresholds;
see the fields of its `Strategy`. Masks are not rescaled and act in training only.
"""

from typing import Literal

import torch
from torch import Tensor

from pipeline.backbones import Backbone
from pipeline.layers import hiding
from pipeline.methods import base


class Params(hiding.Strategy):
    selection: Literal["strategy", "always"]
    """Algorithm 1, or hide the peak of every map. Published: strategy; both are in Table 2."""


class Method(base.Method):
    params: Params

    def __init__(self, backbone: Backbone, num_classes: int, params: Params) -> None:
        super().__init__(backbone, num_classes, params)
        self.branches = hiding.BranchCounter(params.plug_points)

    def on_feature(
        self, point: str, features: Tensor, targets: Tensor | None, ratio: float
    ) -> Tensor:
        if point not in self.params.plug_points:
            return features
        attention = hiding.attention_map(features)
        if self.params.selection == "always":
            mask = hiding.drop_mask(attention, self.params.hide_threshold)
            branch = mask.new_full((len(mask),), hiding.BRANCHES.index("hidden"), dtype=torch.int64)
        else:
            mask, branch = hiding.select(attention, self.params, ratio)
        self.branches.add(point, branch)
        return features * mask

    def statistics(self) -> dict[str, float]:
        """Share of images by branch, `ass/<plug point>/dispersed | passed | hidden`."""
        return self.branches.fractions("ass")
