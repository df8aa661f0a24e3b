"""Self-produced guidance: confident pixels of the class map supervise two early branches, and those a third.

X. Zhang, Y. Wei, G. Kang, Y. Yang, T. Huang, "Self-produced Guidance for Weakly-supervised Object
Localization", ECCV 2018. All three branches act in training only; the heatmap is CAM's. The paper's network
is InceptionV3; VGG16 and ResNet50 follow later ports, other backbones are ours. Two faults of the authors'
code are corrected: the fallback threshold is each image's own, and guidance is a constant.
"""

from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from pipeline.backbones import Backbone
from pipeline.layers import cells, class_maps, hiding
from pipeline.layers.conv_head import xavier
from pipeline.methods import base
from pipeline.methods.base import Criterion, Outputs
from pipeline.params import Section
from pipeline.params.plug_points import PlugPoints

Three = Annotated[tuple[hiding.Fraction, ...], Field(min_length=3, max_length=3)]


class Params(Section):
    plug_points: Annotated[PlugPoints, Field(min_length=2, max_length=2)]
    """The maps that B1 and B2 read, by depth. Published: around the last two blocks of
    InceptionV3 (the authors' code)."""
    high: Three
    """Seeds of B2, B1 and C: above is object. Published: 0.7, 0.5, 0.7 (the authors' code)."""
    low: Three
    """Seeds of B2, B1 and C: below is background. Published: 0.05, 0.05, 0.1 (the authors' code)."""
    min_pixels: Annotated[int, Field(ge=0)]
    """An image with fewer object pixels, at a 224 px input, takes 0.7 of its maximum as `high` instead.
    Published: 30 (the authors' code)."""
    width: Annotated[int, Field(ge=1)]
    """Channels inside a branch. Published: 512 (later ports to VGG16)."""

    @model_validator(mode="after")
    def _low_below_high(self) -> "Params":
        if any(low > high for low, high in zip(self.low, self.high, strict=True)):
            raise ValueError(f"low is {self.low}; allowed: at most high, which is {self.high}")
        return self


def seeds(maps: Tensor, high: float, low: float, min_pixels: float) -> tuple[Tensor, Tensor]:
    """Eq. 1: (label, counted), bool like `maps` [B, 1, H, W]: object above `high`, background below `low`.

    Pixels in between are not counted; background takes precedence.
    """
    maps = maps.detach()
    few = (maps > high).sum((1, 2, 3), keepdim=True) < min_pixels
    threshold = torch.where(few, 0.7 * maps.amax((1, 2, 3), keepdim=True), high)
    background = maps < low
    label = (maps > threshold) & ~background
    return label, label | background


def guided(logits: Tensor, label: Tensor, counted: Tensor) -> Tensor:
    """Binary cross-entropy averaged over the counted pixels of the batch."""
    loss = F.binary_cross_entropy_with_logits(logits.float(), label.float(), reduction="none")
    return (loss * counted).sum() / counted.sum().clamp_min(1)


class Method(base.Method):
    params: Params

    def __init__(self, backbone: Backbone, num_classes: int, params: Params) -> None:
        super().__init__(backbone, num_classes, params)
        width, points = params.width, params.plug_points
        self.private = nn.ModuleDict({p: _block(backbone.channels[p], width) for p in points})
        self.shared = nn.Sequential(_block(width, width), nn.Conv2d(width, 1, 1))
        self.last = nn.Sequential(_block(backbone.out_channels, width), nn.Conv2d(width, 1, 1))
        xavier(self.private)
        xavier(self.shared)
        xavier(self.last)

    def forward(self, images: Tensor, targets: Tensor | None = None) -> Outputs:
        if not self.training:
            return super().forward(images, targets)
        seen: dict[str, Tensor] = {}

        def at(point: str, features: Tensor) -> Tensor:
            if point in self.private:
                seen[point] = self.shared(self.private[point](features))
            return features

        features = self.backbone(images, at)
        outputs = self.head(features, targets)
        size = images.shape[2:]
        first, second = (point for point in self.backbone.points if point in self.private)
        branches = {"b1": seen[first], "b2": seen[second], "c": self.last(features)}
        outputs.extras |= {name: _resized(branch, size) for name, branch in branches.items()}
        return outputs

    def loss(self, outputs: Outputs, targets: Tensor, criterion: Criterion) -> Tensor:
        """L = L(s, y) + guided losses: B2 by the class map, B1 by B2, and C by the mean of both."""
        b1, b2, c = (outputs.extras[name] for name in ("b1", "b2", "c"))
        with torch.no_grad():
            attention = _resized(self.class_maps(outputs, targets[:, None]), b1.shape[2:])
            one, two = b1.float().sigmoid(), b2.float().sigmoid()
            teachers = (class_maps.min_max(attention), two, (one + two) / 2)
        total = super().loss(outputs, targets, criterion)
        min_pixels = self.params.min_pixels * cells.side_ratio(*b1.shape[2:]) ** 2
        for k, (branch, teacher) in enumerate(zip((b2, b1, c), teachers, strict=True)):
            label, counted = seeds(teacher, self.params.high[k], self.params.low[k], min_pixels)
            total = total + guided(branch, label, counted)
        return total


def _block(channels: int, width: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, width, 3, padding=1), nn.ReLU())


def _resized(maps: Tensor, size: torch.Size) -> Tensor:
    return F.interpolate(maps.float(), size=size, mode="bilinear", align_corners=False)
