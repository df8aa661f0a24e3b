"""C²AM: foreground and background told apart by contrast between images, without their labels.

J. Xie, J. Xiang, J. Chen, X. Hou, X. Zhao, L. Shen, "C²AM: Contrastive learning of Class-agnostic Activation Map for
Weakly Supervised Object Localization and Semantic Segmentation", CVPR 2022.
P = σ(BN(conv3×3([F; F′]))) of two depths; f and g are the P- and (1 − P)-weighted means of the features. The loss is
the mean of −log(1 − cos(f_i, g_j)) over all pairs, and of e^(−α·rank) · −log cos(z_i, z_j) for z = f and z = g, rank
by similarity. Which side is the object, P does not say: the image's border is background. The authors decide after
the first epoch; here it is decided anew after each, as one epoch of few images is too short.
Departs from the paper: the trunk stays as it is, any backbone's last and 1/16 maps stand for layer4 and layer3,
and the map is read at P > ½.
"""

from collections.abc import Mapping
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from pipeline.localizers import base
from pipeline.methods.base import Outputs, full_precision
from pipeline.params import Section

EARLY = "stride16_early"
CLIP = (0.0005, 0.9995)
"""Cosines are kept inside, so that their logarithms stay finite."""


class Params(Section):
    """The head's training."""

    epochs: Annotated[int, Field(ge=1)]
    learning_rate: Annotated[float, Field(gt=0)]
    rank_decay: Annotated[float, Field(ge=0)]
    """α: 0.05 on CUB, 0.25 elsewhere in the authors' code."""
    batch_size: Annotated[int, Field(ge=2)]
    """Images that are compared with each other."""


class Localizer(base.Localizer):
    params: Params
    sign: Tensor

    def __init__(self, backbone: base.Depths, num_classes: int, params: Params) -> None:
        super().__init__(backbone, num_classes, params)
        self.depths = (base.LAST, EARLY)
        self.conv = nn.Conv2d(
            sum(backbone.channels[d] for d in self.depths), 1, 3, padding=1, bias=False
        )
        self.norm = nn.BatchNorm2d(1)
        self.register_buffer("sign", torch.ones(()))

    def fit(self, training: base.Training) -> list[str]:
        generator = training.generator()
        with torch.no_grad():
            drawn = torch.randn(self.conv.weight.shape, generator=generator)
            self.conv.weight.copy_(drawn * (2 / self.conv.weight[0].numel()) ** 0.5)
            self.norm.reset_parameters()
            self.sign.fill_(1)
        optimizer = torch.optim.AdamW(self.parameters(), lr=self.params.learning_rate)
        count, size = len(training.labels), self.params.batch_size
        for _ in range(self.params.epochs):
            inside = torch.zeros((), device=self.sign.device)
            order = torch.randperm(count, generator=generator)
            self.train()
            for some in order.split(size):
                if len(some) < 2 <= count:
                    continue  # a single image has no pairs
                x = self._joined({d: training.trained(d, some) for d in self.depths})
                with torch.enable_grad():
                    logits = self._logits(x)
                    loss = contrast(x, logits.sigmoid(), self.params.rank_decay)
                    optimizer.zero_grad()
                    loss.backward()
                optimizer.step()
                inside += _inside(logits.detach().sigmoid()).sum()
            if inside < 0:
                self.sign.neg_()
        self.eval()
        return []

    def maps(self, features: Mapping[str, Tensor], outputs: Outputs, classes: Tensor) -> Tensor:
        """The logit of P, or of 1 − P where that is the object."""
        with full_precision(features[base.LAST]):
            logits = self._logits(self._joined(features))
        return base.same_for_all(logits[:, 0], classes)

    def _joined(self, features: Mapping[str, Tensor]) -> Tensor:
        """The depths side by side on the last map's grid, each at unit root mean square."""
        size = features[base.LAST].shape[2:]
        scaled = []
        for depth in self.depths:
            x = features[depth].float()
            x = F.adaptive_avg_pool2d(x, (size[0], size[1])) if x.shape[2:] != size else x
            scaled.append(x / x.square().mean((1, 2, 3), keepdim=True).sqrt().clamp_min(1e-6))
        return torch.cat(scaled, 1)

    def _logits(self, x: Tensor) -> Tensor:
        """[B, C, h, w] → [B, 1, h, w]."""
        logits: Tensor = self.norm(self.conv(x)) * self.sign
        return logits


def contrast(x: Tensor, P: Tensor, rank_decay: float) -> Tensor:
    """The loss of features x [B, C, h, w] and P [B, 1, h, w]."""
    flat, weight = x.flatten(2), P.flatten(2)
    f = F.normalize((weight * flat).mean(2), dim=1)
    g = F.normalize(((1 - weight) * flat).mean(2), dim=1)
    apart = -torch.log(1 - (f @ g.mT).clamp(*CLIP)).mean()
    return apart + alike(f, rank_decay) + alike(g, rank_decay)


def alike(z: Tensor, rank_decay: float) -> Tensor:
    """Mean of e^(−α·rank) · −log cos(z_i, z_j) over i ≠ j, the most similar j first at rank 0. z: unit [B, C]."""
    cosine = (z @ z.mT).clamp(*CLIP)
    itself = torch.eye(len(z), dtype=torch.bool, device=z.device)
    # A descending sort puts the image itself first, at rank −1 here.
    rank = cosine.detach().masked_fill(itself, 2.0).argsort(1, descending=True).argsort(1) - 1
    losses = torch.exp(-rank_decay * rank.float()) * -torch.log(cosine)
    return losses.masked_fill(itself, 0.0).sum() / max(1, len(z) * (len(z) - 1))


def _inside(P: Tensor) -> Tensor:
    """How much larger P [B, 1, h, w] is inside an image than at its border: [B]."""
    at_border = base.border((P.shape[2], P.shape[3]), P.device)
    if at_border.all():
        return P.new_zeros(len(P))
    return P[:, 0, ~at_border].mean(1) - P[:, 0, at_border].mean(1)
