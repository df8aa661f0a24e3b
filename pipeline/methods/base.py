"""CAM, and the base class whose methods others override in one or more of five places.

The equations are those of class activation maps (Zhou et al., CVPR 2016), numbered as in thesis chapter 5.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from pipeline import backbones
from pipeline.backbones import Backbone
from pipeline.layers.cells import side_ratio
from pipeline.params import Section

Criterion = Callable[[Tensor, Tensor], Tensor]
Images = Callable[[], Iterable[tuple[Tensor, Tensor]]]
"""One pass over the training images, class by class: (normalised [B, 3, H, W], labels int64 [B])."""


@dataclass
class Outputs:
    """A forward pass: logits [B, K], the last feature map [B, C, h, w], and what a method adds."""

    logits: Tensor
    features: Tensor
    extras: dict[str, Tensor] = field(default_factory=dict)


class Method(nn.Module):
    """A backbone, a pooling, a linear classifier, and a heatmap computed from their weights.

    A method inherits this and overrides what its paper changes. `targets` are class indices [B] or
    probabilities [B, K], and None where the labels are not known.
    """

    box_selection: str = "fixed"
    """Place 5: how the method's own heatmap becomes a box, a value of box.selection."""
    reconstruction: bool = False
    """Whether neither the paper's code nor its text was available, so that parts are our reading."""

    pretrained_classifier: bool = False
    """Whether training starts from the classifier that the backbone's weights came with."""

    rows: slice = slice(None)
    whole: int | None = None
    """Set by the loop before `on_batch`: it is given `rows` of a batch of `whole` images, which processes
    share. What is drawn for each image is drawn for all of them, so that any number draws the same."""

    def __init__(self, backbone: Backbone, num_classes: int, params: Section) -> None:
        super().__init__()
        self.backbone = backbone
        self.params: Section = params
        self.num_classes = num_classes
        self.add_head(backbone.out_channels, num_classes)

    def add_head(self, channels: int, num_classes: int) -> None:
        """Place 3: the layers behind the last feature map of `channels`."""
        self.classifier = nn.Linear(channels, num_classes)
        nn.init.normal_(self.classifier.weight, std=0.01)
        nn.init.zeros_(self.classifier.bias)

    def keep_classifier(self, weight: Tensor, bias: Tensor) -> None:
        """Start from the classifier that the trunk was trained with, [K, C] and [K], where it fits.

        A head of another kind keeps its random weights. As clovaai/wsolevaluation has it for ILSVRC.
        """
        classifier = getattr(self, "classifier", None)
        if isinstance(classifier, nn.Linear) and classifier.weight.shape == weight.shape:
            with torch.no_grad():
                classifier.weight.copy_(weight)
                classifier.bias.copy_(bias)
            self.pretrained_classifier = True

    def on_batch(
        self, images: Tensor, targets: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Place 1, in training, before the network: the batch to learn from, which may be longer.

        All that is drawn at random in a step is drawn here, from `generator` (on the CPU).
        """
        return images, targets

    def on_feature(
        self, point: str, features: Tensor, targets: Tensor | None, ratio: float
    ) -> Tensor:
        """Place 2, in training, at every plug point of the backbone: the replacement tensor.

        ratio: the input's side over 224 px, by which numbers that count cells are scaled.
        """
        return features

    def pool(self, features: Tensor) -> Tensor:
        """Eq. 15, global average pooling: [B, C, h, w] → float32 [B, C]."""
        return features.mean(dim=(2, 3), dtype=torch.float32)

    def head(self, features: Tensor, targets: Tensor | None) -> Outputs:
        """Place 3: pooling and classifier, in float32."""
        with full_precision(features):
            return Outputs(self.classifier(self.pool(features)), features)

    def loss(self, outputs: Outputs, targets: Tensor, criterion: Criterion) -> Tensor:
        """Place 3: the scalar to minimize, with `criterion(logits, targets)` as its main term."""
        return criterion(outputs.logits, targets)

    def class_maps(self, outputs: Outputs, classes: Tensor) -> Tensor:
        """Place 4: raw heatmaps [B, Q, h, w] of the asked `classes`, int64 [B, Q]."""
        return weighted_maps(outputs.features, self.classifier.weight[classes])

    def begin_training(self, class_names: list[str], images: Images) -> list[str]:
        """Called before the first epoch; returns lines for the log. Results belong in buffers."""
        return []

    def end_training(self, images: Images) -> None:
        """Called after the last epoch, in evaluation mode. Results belong in buffers."""

    def begin_epoch(self, progress: float) -> None:
        """Called before each epoch with the completed share of training, in [0, 1)."""

    def statistics(self) -> dict[str, float]:
        """Statistics of the epoch, by name; reading resets them."""
        return {}

    def forward(self, images: Tensor, targets: Tensor | None = None) -> Outputs:
        """One forward pass; methods with several streams, or blocks that act in evaluation, override it."""

        ratio = side_ratio(images.shape[2], images.shape[3])

        def at(point: str, features: Tensor) -> Tensor:
            return self.on_feature(point, features, targets, ratio)

        return self.head(
            self.backbone(images, at if self.training else backbones.identity), targets
        )

    def parameter_groups(
        self, learning_rate: float, head_multiplier: float
    ) -> list[dict[str, Any]]:
        """The optimizer's groups: the trunk, and everything new at `head_multiplier` times its rate."""
        trunk = list(self.backbone.trunk.parameters())
        known = set(map(id, trunk))
        new = [p for p in self.parameters() if id(p) not in known]
        return [
            {"params": params, "lr": learning_rate * multiplier, "multiplier": multiplier}
            for params, multiplier in ((trunk, 1.0), (new, head_multiplier))
        ]


def weighted_maps(features: Tensor, weights: Tensor) -> Tensor:
    """Eq. 16: M_q = Σ_k w_qk · F_k. [B, C, h, w] and [B, Q, C] → float32 [B, Q, h, w], without bias."""
    with full_precision(features):
        return torch.einsum("bqc,bchw->bqhw", weights.float(), features.float())


def full_precision(tensor: Tensor) -> torch.autocast:
    """Context manager that disables autocast: poolings and heatmaps need float32's precision."""
    return torch.autocast(tensor.device.type, enabled=False)
