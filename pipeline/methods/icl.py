"""In-sample contrastive learning: contrast foreground with background, and align early attention with late.

M. Ki, Y. Uh, W. Lee, H. Byun, "In-sample Contrastive Learning and Consistent Attention for Weakly Supervised
Object Localization", ACCV 2020. RECONSTRUCTION: no public code was found and the paper's body could not be
read. Its abstract states: a contrastive loss between foreground, dropped foreground and background; a
consistency loss that aligns early attention with late; non-local attention; background dropped as well as
peaks; ADL as the starting point. All forms and numbers below are our reading; ports to every backbone are
ours.
"""

from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from pipeline.backbones import Backbone
from pipeline.layers import class_maps, hiding
from pipeline.layers.non_local import NonLocal
from pipeline.methods import base
from pipeline.methods.base import Criterion, Outputs
from pipeline.params import Section
from pipeline.params.plug_points import PlugPoints

Weight = Annotated[float, Field(ge=0)]


class Params(Section):
    plug_points: PlugPoints
    """As ADL; the deepest is the reference of the consistency loss."""
    drop_rate: hiding.Fraction
    """Probability that a layer hides in a step; otherwise it weights. As ADL: 0.75."""
    peak_threshold: hiding.Fraction
    """Normalized attention of at least this is the peak. As ADL: 0.8 VGG, 0.9 ResNet."""
    foreground_threshold: hiding.Fraction
    """Attention of at least this is foreground. Not published."""
    background_threshold: hiding.Fraction
    """Attention below this is background. Not published."""
    margin: Weight
    """Of the triplet. Not published."""
    contrastive_weight: Weight
    """Not published."""
    consistency_weight: Weight
    """Not published."""

    @model_validator(mode="after")
    def _ordered(self) -> "Params":
        order = (self.background_threshold, self.foreground_threshold, self.peak_threshold)
        if list(order) != sorted(order):
            raise ValueError(
                f"background, foreground and peak threshold are {order}; allowed: from low to high"
            )
        return self


def regions(attention: Tensor, params: Params) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Peak, foreground, foreground without the peak, background of normalised [B, 1, h, w], as bool."""
    peak = attention >= params.peak_threshold
    foreground = attention >= params.foreground_threshold
    return peak, foreground, foreground & ~peak, attention < params.background_threshold


def masked_mean(features: Tensor, mask: Tensor) -> Tensor:
    """Mean feature vector inside a mask, [B, C, h, w] and [B, 1, h, w] → [B, C]; 0 where it is empty."""
    return (features * mask).sum((2, 3)) / mask.sum((2, 3)).clamp_min(1)


def contrast(foreground: Tensor, dropped: Tensor, background: Tensor, margin: float) -> Tensor:
    """Triplet with the dropped foreground as anchor, [B, D] each → [B]."""
    near, far = (_distance(dropped, other) for other in (foreground, background))
    return F.relu(near - far + margin)


def _distance(a: Tensor, b: Tensor) -> Tensor:
    return ((a - b).square().sum(1) + 1e-12).sqrt()


def inconsistency(early: Tensor, late: Tensor) -> Tensor:
    """Early attention outside the late foreground, squared, mean over pixels: [B, 1, h, w] → []."""
    outside = 1 - F.interpolate(late.float(), size=early.shape[2:], mode="nearest")
    return (early * outside).square().mean()


class Method(base.Method):
    params: Params
    reconstruction = True

    def __init__(self, backbone: Backbone, num_classes: int, params: Params) -> None:
        super().__init__(backbone, num_classes, params)
        self.points = [p for p in backbone.points if p in params.plug_points]
        widths = {point: backbone.channels[point] for point in self.points}
        self.non_local = nn.ModuleDict({p: NonLocal(c) for p, c in widths.items()})
        self.projection = nn.ModuleDict({p: nn.Linear(c, 128) for p, c in widths.items()})
        self._draws: dict[str, tuple[bool, bool]] = {}

    def on_batch(
        self, images: Tensor, targets: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        hides = torch.rand(len(self.points), generator=generator) < self.params.drop_rate
        peaks = torch.rand(len(self.points), generator=generator) < 0.5
        draws = zip(hides.tolist(), peaks.tolist(), strict=True)
        self._draws = dict(zip(self.points, draws, strict=True))
        return images, targets

    def forward(self, images: Tensor, targets: Tensor | None = None) -> Outputs:
        if not self.training:
            return super().forward(images, targets)
        contrasts: list[Tensor] = []
        attentions: list[Tensor] = []

        def at(point: str, features: Tensor) -> Tensor:
            if point not in self._draws:
                return features
            raw = self.non_local[point](features).float().mean(1, keepdim=True)
            attention = class_maps.min_max(raw)
            peak, foreground, dropped, background = regions(attention.detach(), self.params)
            vectors = [
                F.normalize(self.projection[point](masked_mean(features.float(), mask)), dim=1)
                for mask in (foreground, dropped, background)
            ]
            there = dropped.any(3).any(2) & background.any(3).any(2)
            loss = contrast(vectors[0], vectors[1], vectors[2], self.params.margin) * there[:, 0]
            contrasts.append(loss.sum() / there.sum().clamp_min(1))
            attentions.append(attention)
            hides, drops_peak = self._draws[point]
            if not hides:
                return features * raw.sigmoid().to(features.dtype)
            return features * ~(peak if drops_peak else background)

        outputs = self.head(self.backbone(images, at), targets)
        late = regions(attentions[-1].detach(), self.params)[1]
        early = [inconsistency(attention, late) for attention in attentions[:-1]]
        outputs.extras["contrast"] = torch.stack(contrasts).sum()
        outputs.extras["inconsistency"] = (
            torch.stack(early).mean() if early else contrasts[0].new_zeros(())
        )
        return outputs

    def loss(self, outputs: Outputs, targets: Tensor, criterion: Criterion) -> Tensor:
        return (
            super().loss(outputs, targets, criterion)
            + self.params.contrastive_weight * outputs.extras["contrast"]
            + self.params.consistency_weight * outputs.extras["inconsistency"]
        )
