"""Mining complementary regions: two complementary halves of an image share channels and agree on one map.

S. Babar, S. Das, "Where to Look?: Mining Complementary Image Regions for Weakly Supervised Object
Localization", WACV 2021. RECONSTRUCTION: no public code was found and the paper's body could not be read.
Its abstract states: regional dropout at complementary places makes two images of one; a channel-wise
assisted attention module and a spatial self-attention module let each use the other's regions; an
attention-based fusion loss joins the maps. All forms and numbers below are our reading.
"""

from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from pipeline.layers import class_maps, grid, hiding
from pipeline.layers.conv_head import conv_head
from pipeline.layers.non_local import NonLocal
from pipeline.methods import base
from pipeline.methods.base import Criterion, Outputs
from pipeline.params import Section


class Params(Section):
    cell_sizes: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)]
    """Side of a hidden cell, drawn for each image, pixels at a 224 px input. Not published."""
    probability: hiding.Fraction
    """Probability that a cell goes to the second image. Not published; 0.5 splits them evenly."""
    fusion_weight: Annotated[float, Field(ge=0)]
    """Of the fusion loss. Not published."""
    fusion_start: hiding.Fraction
    """Share of the epochs before the fusion loss acts. Not published."""
    width: Annotated[int, Field(ge=1)]
    """Channels inside a head. Not published."""


class ChannelAssist(nn.Module):
    """F · (1 + c), with c the other image's channel attention (squeeze and excitation)."""

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        inner = max(1, channels // reduction)
        self.excite = nn.Sequential(
            nn.Linear(channels, inner), nn.ReLU(), nn.Linear(inner, channels), nn.Sigmoid()
        )

    def forward(self, features: Tensor, other: Tensor) -> Tensor:
        weights: Tensor = self.excite(other.mean((2, 3)))
        return features * (1 + weights[:, :, None, None])


def fusion(first: Tensor, second: Tensor) -> Tensor:
    """Half the squared distance of each map [B, h, w] from their maximum, which is a constant."""
    union = torch.maximum(first, second).detach()
    return (F.mse_loss(first, union) + F.mse_loss(second, union)) / 2


class Method(base.Method):
    params: Params
    reconstruction = True

    def add_head(self, channels: int, num_classes: int) -> None:
        self.assist = ChannelAssist(channels)
        self.attend = NonLocal(channels)
        self.first = conv_head(channels, self.params.width, num_classes)
        self.second = conv_head(channels, self.params.width, num_classes)
        self._fuses = False

    def begin_epoch(self, progress: float) -> None:
        self._fuses = progress >= self.params.fusion_start

    def on_batch(
        self, images: Tensor, targets: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """All first halves, then all second halves: a batch of twice the length."""
        count, height, width = self.whole or len(images), *images.shape[2:]
        drawn = grid.draw_grid(
            self.params.cell_sizes, self.params.probability, (count, height, width), generator
        )
        sides, kept = (x[self.rows].to(images.device, non_blocking=True) for x in drawn)
        mask = grid.grid_mask(sides, kept, height, width)
        return torch.cat([images * mask, images * ~mask]), torch.cat([targets, targets])

    def head(self, features: Tensor, targets: Tensor | None) -> Outputs:
        """Training: each half gets the other's channel attention. Evaluation: the image gets its own."""
        halves = features.chunk(2) if self.training else (features, features)
        helped = [
            self.attend(self.assist(own, other))
            for own, other in zip(halves, halves[::-1], strict=True)
        ]
        maps = [head(x) for head, x in zip((self.first, self.second), helped, strict=True)]
        logits = [m.mean((2, 3), dtype=torch.float32) for m in maps]
        joined = torch.cat(logits) if self.training else (logits[0] + logits[1]) / 2
        return Outputs(joined, features, {"first": maps[0], "second": maps[1]})

    def loss(self, outputs: Outputs, targets: Tensor, criterion: Criterion) -> Tensor:
        """L = L(s1, y) + L(s2, y) + λ·L_fusion; `targets` holds the labels of both halves."""
        total = 2 * criterion(outputs.logits, targets)
        if not self._fuses:
            return total
        maps = self._normalised(outputs, targets.chunk(2)[0][:, None])
        return total + self.params.fusion_weight * fusion(*maps)

    def class_maps(self, outputs: Outputs, classes: Tensor) -> Tensor:
        return torch.maximum(*self._normalised(outputs, classes))

    def _normalised(self, outputs: Outputs, classes: Tensor) -> tuple[Tensor, Tensor]:
        first, second = (
            class_maps.min_max(class_maps.of_class(outputs.extras[name].float(), classes).relu())
            for name in ("first", "second")
        )
        return first, second
