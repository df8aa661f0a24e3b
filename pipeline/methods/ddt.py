"""Deep descriptor transforming: where the images of one class have something in common, without training.

X.-S. Wei, C.-L. Zhang, J. Wu, C. Shen, Z.-H. Zhou, "Unsupervised Object Discovery and Co-Localization by Deep
Descriptor Transforming", Pattern Recognition 2019, as PSOL uses it per class. The trunk stays as loaded; only
a linear classifier learns, to say which class's transform to use. Departs from the paper: the images' usual
size and the backbone's last map instead of pool5 at 448 px; the projection is cut at zero and then read like
any other heatmap. A component's sign is free: the image's border is taken for background. A sanity check, no rival:
a method that does not beat it has not learned to localize.
"""

from typing import Any

import torch
from torch import Tensor

from pipeline.backbones import Backbone
from pipeline.methods import base
from pipeline.methods.base import Images, Outputs
from pipeline.params import Section


class Params(Section):
    """DDT has nothing to choose."""


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
        rows = features.to(self.total.device).double().permute(0, 2, 3, 1)
        flat, inner = rows.flatten(0, 2), rows[:, 1:-1, 1:-1]
        self.products += flat.mT @ flat
        self.total += flat.sum(0)
        self.border += flat.sum(0) - inner.sum((0, 1, 2))
        self.count += len(flat)
        self.border_count += len(flat) - inner.shape[:3].numel()

    def component(self) -> tuple[Tensor, Tensor]:
        """Mean [C] and first principal component [C], positive inside the image rather than at its border."""
        mean = self.total / self.count
        covariance = self.products / self.count - mean[:, None] * mean
        first = torch.linalg.eigh(covariance).eigenvectors[:, -1]
        at_border = (self.border / self.border_count - mean) @ first
        return mean, torch.where(at_border > 0, -first, first)


class Method(base.Method):
    params: Params
    mean: Tensor
    direction: Tensor

    def __init__(self, backbone: Backbone, num_classes: int, params: Params) -> None:
        backbone.remove_neck()  # new layers would have to learn
        super().__init__(backbone, num_classes, params)
        channels = backbone.out_channels
        self.register_buffer("mean", torch.zeros(num_classes, channels))
        self.register_buffer("direction", torch.full((num_classes, channels), channels**-0.5))

    def train(self, mode: bool = True) -> "Method":
        super().train(mode)
        self.backbone.eval()
        return self

    def forward(self, images: Tensor, targets: Tensor | None = None) -> Outputs:
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.training):
            features = self.backbone(images)
        return self.head(features, targets)

    def parameter_groups(
        self, learning_rate: float, head_multiplier: float
    ) -> list[dict[str, Any]]:
        trunk, new = super().parameter_groups(learning_rate, head_multiplier)
        return [{**trunk, "lr": 0.0, "multiplier": 0.0}, new]

    @torch.no_grad()
    def end_training(self, images: Images) -> None:
        """The transform of every class that has images, one class after another."""
        current, moments = -1, Moments(0, self.mean.device)
        for batch, labels in images():
            features = self.backbone(batch)
            for label in labels.unique().tolist():
                if label != current:
                    self._keep(current, moments)
                    current, moments = label, Moments(features.shape[1], features.device)
                moments.add(features[labels == label])
        self._keep(current, moments)

    def _keep(self, label: int, moments: Moments) -> None:
        if moments.count:
            self.mean[label], self.direction[label] = (x.float() for x in moments.component())

    def class_maps(self, outputs: Outputs, classes: Tensor) -> Tensor:
        """The projection (F − mean)·direction of the class, cut off at zero."""
        direction, mean = self.direction[classes], self.mean[classes]
        projected = base.weighted_maps(outputs.features, direction)
        return (projected - (mean * direction).sum(2)[:, :, None, None]).relu()
