"""Attention-based dropout layer: hide the peak of a feature map, or multiply the map by its attention.

J. Choe, H. Shim, "Attention-based Dropout Layer for Weakly Supervised Object Localization", CVPR 2019. The
paper plugs VGG16, ResNet50-SE and InceptionV3; ports to other backbones are ours. ResNet50 is plugged after
whole stages.
"""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from pipeline.backbones import Backbone
from pipeline.layers import hiding
from pipeline.methods import base
from pipeline.params import Section
from pipeline.params.plug_points import PlugPoints


class Params(Section):
    plug_points: PlugPoints
    """Published: after pool3, pool4 and conv5_3 of VGG16 (the authors' code: `3 4 53`)."""
    drop_rate: hiding.Fraction
    """Probability that a layer hides in a step; otherwise it weights. Published: 0.75 (§4.1)."""
    drop_threshold: Annotated[float, Field(ge=0)]
    """γ: cells of at least this share of the maximum are hidden; above 1 none. Published: 0.8 VGG,
    0.9 ResNet50 (the authors' code)."""


def importance(features: Tensor) -> Tensor:
    """§3.1: the sigmoid of the mean over channels, [B, C, h, w] → [B, 1, h, w]; not detached."""
    return features.float().mean(1, keepdim=True).sigmoid().to(features.dtype)


class Method(base.Method):
    params: Params

    def __init__(self, backbone: Backbone, num_classes: int, params: Params) -> None:
        super().__init__(backbone, num_classes, params)
        self._drops: dict[str, bool] = {}

    def on_batch(
        self, images: Tensor, targets: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        drawn = torch.rand(len(self.params.plug_points), generator=generator)
        drops = (drawn < self.params.drop_rate).tolist()  # one draw per layer for the whole batch
        self._drops = dict(zip(self.params.plug_points, drops, strict=True))
        return images, targets

    def on_feature(
        self, point: str, features: Tensor, targets: Tensor | None, ratio: float
    ) -> Tensor:
        if point not in self._drops:
            return features
        if not self._drops[point]:
            return features * importance(features)
        return features * hiding.drop_mask(
            hiding.attention_map(features), self.params.drop_threshold
        )
