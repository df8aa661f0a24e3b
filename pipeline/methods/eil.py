"""Erasing integrated learning: the rest of the network also learns from a map whose peak is erased.

J. Mai, M. Yang, W. Luo, "Erasing Integrated Learning: A Simple Yet Effective Approach for Weakly Supervised
Object Localization", CVPR 2020. Several plug points are MEIL (table 10 of the thesis prints EMIL): each
erases the stream that the one before it began. The released code has one; how the paper joins a second is
our reading. Ports to backbones other than VGG16 are ours.
"""

from typing import Annotated

from pydantic import Field
from torch import Tensor

from pipeline.backbones import identity
from pipeline.layers import hiding
from pipeline.methods import base
from pipeline.methods.base import Criterion, Outputs
from pipeline.params import Section
from pipeline.params.plug_points import PlugPoints


class Params(Section):
    plug_points: PlugPoints
    """Where erased streams begin. Published: after pool4 of VGG16 (code: eil4); MEIL: two points."""
    erase_threshold: Annotated[float, Field(ge=0)]
    """γ: cells of at least this share of the maximum are erased; above 1 none. Published: 0.7 (code)."""
    weight: Annotated[float, Field(ge=0)]
    """λ of an erased stream's loss. Published: 1 (code)."""


class Method(base.Method):
    params: Params

    def forward(self, images: Tensor, targets: Tensor | None = None) -> Outputs:
        """Training: one pass, and one more from each plug point onwards with the same weights."""
        if not self.training:
            return super().forward(images, targets)
        points = [p for p in self.backbone.points if p in self.params.plug_points]
        seen: dict[str, Tensor] = {}

        def watch(point: str, features: Tensor) -> Tensor:
            if point in points:
                seen[point] = features
            return identity(point, features)

        outputs = self.head(self.backbone(images, watch), targets)
        for point in points:
            features = seen[point]
            kept = hiding.drop_mask(hiding.attention_map(features), self.params.erase_threshold)
            rest = self.backbone(features * kept, watch, after=point)
            outputs.extras[point] = self.head(rest, targets).logits
        return outputs

    def loss(self, outputs: Outputs, targets: Tensor, criterion: Criterion) -> Tensor:
        """L = L(s, y) + λ Σ L(s_erased, y)."""
        total = super().loss(outputs, targets, criterion)
        for logits in outputs.extras.values():
            total = total + self.params.weight * criterion(logits, targets)
        return total
