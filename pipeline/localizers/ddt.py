"""Deep descriptor transforming: where the images of one class have something in common.

X.-S. Wei, C.-L. Zhang, J. Wu, C. Shen, Z.-H. Zhou, "Unsupervised Object Discovery and Co-Localization by Deep
Descriptor Transforming", Pattern Recognition 2019, per class as PSOL uses it: the projection of a descriptor on
the class's first principal component, read at > 0. Departs from the paper: the images' usual size and the
backbone's last map instead of pool5 at 448 px. A component's sign is free: the image's border is taken for
background.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from pipeline.localizers import base
from pipeline.methods.base import Outputs, weighted_maps
from pipeline.params import Section


class Params(Section):
    """DDT has no settings."""


class Moments:
    """Sums over one class's descriptors, from which their mean and principal component follow."""

    def __init__(self, channels: int, device: torch.device) -> None:
        self.count = self.border_count = 0
        device = torch.device("cpu") if device.type == "mps" else device  # which has no float64
        self.total = torch.zeros(channels, dtype=torch.float64, device=device)
        self.border = torch.zeros_like(self.total)
        self.products = torch.zeros(channels, channels, dtype=torch.float64, device=device)

    def add(self, features: Tensor) -> None:
        """[B, C, h, w]: a descriptor per cell."""
        rows = features.to(self.total.device).float().permute(0, 2, 3, 1)
        flat, edge = rows.flatten(0, 2), base.border((rows.shape[1], rows.shape[2]), rows.device)
        self.products += flat.mT @ flat  # each batch's in float32, twice as fast
        self.total += flat.double().sum(0)
        self.border += rows[:, edge].double().sum((0, 1))
        self.count += len(flat)
        self.border_count += len(rows) * int(edge.sum())

    def component(self) -> tuple[Tensor, Tensor]:
        """Mean [C] and first principal component [C], positive inside the image rather than at its border."""
        mean = self.total / self.count
        covariance = self.products / self.count - mean[:, None] * mean
        first = torch.linalg.eigh(covariance).eigenvectors[:, -1]
        at_border = (self.border / self.border_count - mean) @ first
        return mean, torch.where(at_border > 0, -first, first)


class Localizer(base.Localizer):
    mean: Tensor
    direction: Tensor

    def __init__(self, backbone: base.Depths, num_classes: int, params: Params) -> None:
        super().__init__(backbone, num_classes, params)
        width = backbone.channels[base.LAST]
        self.register_buffer("mean", torch.zeros(num_classes, width))
        self.register_buffer("direction", torch.full((num_classes, width), width**-0.5))

    @torch.no_grad()
    def fit(self, training: base.Training) -> list[str]:
        """The transform of every class that has images, one class after another."""
        for label in training.labels.unique().tolist():
            moments = Moments(self.mean.shape[1], self.mean.device)
            for some in training.batches((training.labels == label).nonzero()[:, 0]):
                moments.add(training.trained(base.LAST, some))
            self.mean[label], self.direction[label] = (x.float() for x in moments.component())
        return []

    def maps(self, features: Mapping[str, Tensor], outputs: Outputs, classes: Tensor) -> Tensor:
        """The projection (F − mean)·direction of the class."""
        direction, mean = self.direction[classes], self.mean[classes]
        projected = weighted_maps(features[base.LAST], direction)
        return projected - (mean * direction).sum(2)[:, :, None, None]
