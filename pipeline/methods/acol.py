"""Adversarial complementary learning: a second classifier learns from the regions that the first ignores.

X. Zhang, Y. Wei, J. Feng, Y. Yang, T. Huang, "Adversarial Complementary Learning for Weakly Supervised
Object Localization", CVPR 2018. Both heads are convolutions on the backbone's last feature map, 14 × 14 at
224 px (the authors' VGG16 keeps 28 × 28 by pools of stride 1, and averages over 3 × 3 cells before its
heads); on VGG that map has passed conv6. Ports to backbones other than VGG16 are ours.
"""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from pipeline.layers import class_maps
from pipeline.layers.conv_head import conv_head
from pipeline.methods import base
from pipeline.methods.base import Criterion, Outputs
from pipeline.params import Section


class Params(Section):
    erase_threshold: Annotated[float, Field(ge=0)]
    """δ: cells of at least this share of A's normalized map are erased; above 1 none. Published: 0.6 (§4.3)."""
    width: Annotated[int, Field(ge=1)]
    """Channels inside a head. Published: 1024 (the authors' code)."""


def kept(maps: Tensor, threshold: float) -> Tensor:
    """Where a map [..., h, w], normalised from 0 to 1, stays below δ; a constant to the gradient."""
    return class_maps.min_max(maps.detach().float()) < threshold


class Method(base.Method):
    params: Params

    def add_head(self, channels: int, num_classes: int) -> None:
        self.first = conv_head(channels, self.params.width, num_classes)
        self.second = conv_head(channels, self.params.width, num_classes)

    def head(self, features: Tensor, targets: Tensor | None) -> Outputs:
        """A's maps; in training also B's logits on the features that A's map of the label leaves."""
        maps = self.first(features)
        extras = {"maps": maps}
        if self.training and targets is not None:
            left = kept(class_maps.of_class(maps, targets[:, None]), self.params.erase_threshold)
            extras["second"] = self.second(features * left).mean((2, 3), dtype=torch.float32)
        return Outputs(maps.mean((2, 3), dtype=torch.float32), features, extras)

    def loss(self, outputs: Outputs, targets: Tensor, criterion: Criterion) -> Tensor:
        """L(s_A, y) + L(s_B, y)."""
        return criterion(outputs.logits, targets) + criterion(outputs.extras["second"], targets)

    def class_maps(self, outputs: Outputs, classes: Tensor) -> Tensor:
        """max(A_c, B_c), each normalized; B gets the features that A's map of that same class leaves."""
        first = class_maps.of_class(outputs.extras["maps"], classes)
        left = kept(first, self.params.erase_threshold)
        seen = outputs.features[:, None] * left[:, :, None]
        second = self.second(seen.flatten(0, 1)).unflatten(0, classes.shape)
        asked = classes[:, :, None, None, None].expand(-1, -1, 1, *second.shape[3:])
        second = second.gather(2, asked)[:, :, 0]
        return torch.maximum(class_maps.min_max(first.float()), class_maps.min_max(second.float()))
