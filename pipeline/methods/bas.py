"""Background activation suppression: learn a mask whose complement no longer supports the class.

P. Wu, W. Zhai, Y. Cao, "Background Activation Suppression for Weakly Supervised Object Localization", CVPR
2022. A generator makes a mask at a plug point; the rest of the network, with constant weights, classifies
what the mask leaves out. The heatmap is the mask. The authors' VGG16 and ResNet50 make it at 28 × 28, ours
at the plug point's size; on VGG the rest includes conv6. Ports to other backbones are ours. The box is read
as for every other method (the authors: threshold 0.15 of the range on CUB).
"""

from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn
from torch.func import functional_call

from pipeline.backbones import Backbone
from pipeline.layers import class_maps
from pipeline.layers.conv_head import conv_head
from pipeline.methods import base
from pipeline.methods.base import Criterion, Outputs
from pipeline.params import Section
from pipeline.params.plug_points import PlugPoints


class Params(Section):
    plug_points: Annotated[PlugPoints, Field(min_length=1, max_length=1)]
    """Where the mask is made. Published: before pool4 of VGG16, layer3 of ResNet50 (code)."""
    area_weight: Annotated[float, Field(ge=0)]
    """β of the mask's area. Published (code): CUB 0.7 VGG16, 1.2 ResNet50; ILSVRC 1, 2."""
    foreground_weight: Annotated[float, Field(ge=0)]
    """Of the loss on the masked class maps. Published (code): CUB 0 VGG16, 0.5 ResNet50; ILSVRC 0.05, 1."""
    mask_start: Annotated[float, Field(ge=0, lt=1)]
    """Share of the epochs before the mask's losses act. Published: 0 (code). Until the classifier can tell a
    masked image from a whole one only the area counts, and closes the mask; short trainings do not recover."""
    top_classes: Annotated[int, Field(ge=0)]
    """The heatmap is the mean mask of so many best classes; 0: the asked class's mask, as on ILSVRC.
    Published (code): CUB 80 VGG16, 200 others."""
    width: Annotated[int, Field(ge=1)]
    """Channels inside the head. Published: 1024 (code)."""


def suppression(background: Tensor, score: Tensor) -> Tensor:
    """Eq. 4: s_bg / s_y per image, [B]; 0, without gradient, where the background has the larger score."""
    ratio = background / (score.detach() + 1e-8)
    return torch.where(background < score.detach(), ratio, torch.zeros_like(ratio))


class Method(base.Method):
    params: Params
    _masks = True

    def __init__(self, backbone: Backbone, num_classes: int, params: Params) -> None:
        super().__init__(backbone, num_classes, params)
        self.point = params.plug_points[0]
        self.generator = nn.Conv2d(backbone.channels[self.point], num_classes, 3, padding=1)
        nn.init.normal_(self.generator.weight, std=0.02)  # the authors' VGG16

    def begin_epoch(self, progress: float) -> None:
        self._masks = progress >= self.params.mask_start

    def add_head(self, channels: int, num_classes: int) -> None:
        self.first = conv_head(channels, self.params.width, num_classes)

    def forward(
        self, images: Tensor, targets: Tensor | None = None, rest_only: bool = False
    ) -> Outputs:
        """With `rest_only`, `images` are features of the plug point and only what follows is run."""
        if rest_only:
            return self.head(self.backbone(images, after=self.point), None)
        seen: dict[str, Tensor] = {}

        def at(point: str, features: Tensor) -> Tensor:
            if point == self.point:
                seen["features"] = features
            return features

        outputs = self.head(self.backbone(images, at), targets)
        outputs.extras["masks"] = masks = self.generator(seen["features"]).float().sigmoid()
        if self.training and targets is not None and self._masks:
            mask = class_maps.of_class(masks, targets[:, None])
            outputs.extras["mask"] = mask
            left = seen["features"].detach() * (1 - mask)
            outputs.extras["background"] = self._frozen_rest(left)
        return outputs

    def _frozen_rest(self, features: Tensor) -> Tensor:
        """Logits of the rest of the network with constant weights, leaving its batch statistics unchanged."""
        state = {name: p.detach() for name, p in self.named_parameters()}
        state |= {name: buffer.clone() for name, buffer in self.named_buffers()}
        outputs: Outputs = functional_call(self, state, (features,), {"rest_only": True})
        return outputs.logits

    def head(self, features: Tensor, targets: Tensor | None) -> Outputs:
        """Non-negative maps, and so non-negative scores."""
        maps = self.first(features).relu()
        return Outputs(maps.mean((2, 3), dtype=torch.float32), features, {"maps": maps})

    def loss(self, outputs: Outputs, targets: Tensor, criterion: Criterion) -> Tensor:
        """L = L_cls + w·L_fg + mean(s_bg/s_y) + β·mean(mask); the last two train the mask and the layers
        before it only. Before `mask_start` L_cls alone."""
        if not self._masks:
            return criterion(outputs.logits, targets)
        mask, label = outputs.extras["mask"], targets[:, None]
        score = outputs.logits.gather(1, label)[:, 0]
        background = outputs.extras["background"].gather(1, label)[:, 0]
        maps = outputs.extras["maps"].float()
        inside = maps * F.adaptive_avg_pool2d(mask, (maps.shape[2], maps.shape[3]))
        return (
            criterion(outputs.logits, targets)
            + self.params.foreground_weight * criterion(inside.mean((2, 3)), targets)
            + suppression(background, score).mean()
            + self.params.area_weight * mask.mean()
        )

    def class_maps(self, outputs: Outputs, classes: Tensor) -> Tensor:
        masks, count = outputs.extras["masks"], self.params.top_classes
        if not count:
            return class_maps.of_class(masks, classes)
        best = outputs.logits.topk(min(count, self.num_classes), dim=1).indices
        mean = class_maps.of_class(masks, best).mean(1, keepdim=True)
        return mean.expand(-1, classes.shape[1], -1, -1)
