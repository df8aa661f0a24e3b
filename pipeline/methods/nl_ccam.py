"""NL-CCAM: non-local blocks in the backbone, and a weighted sum of all classes' maps by rank.

S. Yang, Y. Kim, Y. Kim, C. Kim, "Combinational Class Activation Maps for Weakly Supervised Object
Localization", WACV 2020. The heatmap depends on the ranking of all classes and not on the requested one.
Departs from the paper: ReLU instead of leaky ReLU, conv6 stays on VGG, and the box is read as for every
other method (the paper: 0.12 of the maximum, then the mean). Ports to backbones other than VGG16 are ours.
"""

from typing import Literal

import torch
from torch import Tensor, nn

from pipeline.backbones import Backbone
from pipeline.layers.non_local import NonLocal
from pipeline.methods import base
from pipeline.methods.base import Outputs
from pipeline.params import Section
from pipeline.params.plug_points import PlugPoints


class Params(Section):
    plug_points: PlugPoints
    """After which points a non-local block stands. Published: pool2, pool3, pool4, conv5_3 of VGG16
    (the authors' code)."""
    combination: Literal["top", "top_bottom", "linear", "quadratic", "top20"]
    """g(r), the weight of the r-th ranked class. Published: quadratic on CUB (§4.3); top20 is what its
    successors use on ILSVRC."""


def rank_weights(name: str, count: int) -> Tensor:
    """§3.2: g(1) … g(K), float32 [K]. `top` is CAM; `quadratic` is t², +1 … 0 and then 0 … −1."""
    half = count // 2
    match name:
        case "top":
            return torch.eye(1, count)[0]
        case "top_bottom":
            return torch.eye(1, count)[0] - torch.eye(1, count)[0].flip(0)
        case "linear":
            return torch.linspace(1, -1, count)
        case "quadratic":
            upper = torch.linspace(1, 0, half).square()
            return torch.cat([upper, -torch.linspace(0, 1, count - half).square()])
        case _:
            return (torch.arange(count) < 20).float()


def combined(weights: Tensor, logits: Tensor, ranked: Tensor) -> Tensor:
    """Σ_r g(r)·w of the r-th ranked class: [K, C], [B, K], [K] → [B, C], whose map is Σ_r g(r)·M_r."""
    order = logits.argsort(dim=1, descending=True, stable=True)
    by_class = torch.zeros_like(logits).scatter(1, order, ranked.to(logits).expand_as(logits))
    return by_class @ weights.to(logits)


class Method(base.Method):
    params: Params

    def __init__(self, backbone: Backbone, num_classes: int, params: Params) -> None:
        super().__init__(backbone, num_classes, params)
        self.non_local = nn.ModuleDict(
            {point: NonLocal(backbone.channels[point]) for point in params.plug_points}
        )

    def forward(self, images: Tensor, targets: Tensor | None = None) -> Outputs:
        """The non-local blocks act in evaluation too."""

        def at(point: str, features: Tensor) -> Tensor:
            if point not in self.non_local:
                return features
            seen: Tensor = self.non_local[point](features)
            return seen

        return self.head(self.backbone(images, at), targets)

    def class_maps(self, outputs: Outputs, classes: Tensor) -> Tensor:
        ranked = rank_weights(self.params.combination, self.num_classes)
        weights = combined(self.classifier.weight.detach().float(), outputs.logits.float(), ranked)
        return base.weighted_maps(outputs.features, weights[:, None]).expand(
            -1, classes.shape[1], -1, -1
        )
