"""VGG16 as in VGG-GAP, and a thin VGG that trains from scratch on a CPU.

Plug points are the four pools, conv5_3, and as `last` the new conv6 behind it. vgg_small has no fourth
pool: its last map has 1/8 of the image's side, 12 × 12 at 96 px, and the depths named `stride16_early`,
`stride16_late` and `last` are at 1/8 there.
"""

from collections.abc import Iterator
from functools import partial

from torch import nn

from pipeline.backbones.base import Backbone, Segment
from pipeline.backbones.weights import torchvision_weights
from pipeline.params.plug_points import POINTS

_VGG16 = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
_SMALL = ((8,), (16,), (32,), (64, 64), (96,))


def vgg16(input_channels: int) -> Backbone:
    """VGG16 with conv6 in the place of pool5 and the fully connected layers."""
    neck = nn.Sequential(nn.Conv2d(512, 1024, 3, padding=1), nn.ReLU(inplace=True))
    layers = nn.Sequential(*_layers(_VGG16, input_channels, batch_norm=False, pools=4))
    return _vgg("vgg16", layers, Segment(neck, 1024))


def vgg_small(input_channels: int) -> Backbone:
    """VGG's five stages, thin, with batch norm, and 1/8 of the image's side from the third pool on."""
    conv = nn.Conv2d(96, 128, 3, padding=1, bias=False)
    neck = nn.Sequential(conv, nn.BatchNorm2d(128), nn.ReLU(inplace=True))
    layers = nn.Sequential(*_layers(_SMALL, input_channels, batch_norm=True, pools=3))
    return _vgg("vgg_small", layers, Segment(neck, 128))


NETWORKS = {"vgg16": vgg16, "vgg_small": vgg_small}
PUBLISHED = ("vgg16",)


def _layers(
    stages: tuple[tuple[int, ...], ...], channels: int, *, batch_norm: bool, pools: int
) -> Iterator[nn.Module]:
    """VGG's convolutions and a pool between stages, the identity after `pools`; torchvision's numbering."""
    for stage, widths in enumerate(stages):
        if stage:
            yield nn.MaxPool2d(2, 2) if stage <= pools else nn.Identity()
        for width in widths:
            yield nn.Conv2d(channels, width, 3, padding=1)
            if batch_norm:
                yield nn.BatchNorm2d(width)
            yield nn.ReLU(inplace=True)
            channels = width


def _vgg(name: str, features: nn.Sequential, neck: Segment) -> Backbone:
    trunk = nn.Module()
    trunk.features = features
    ends = [
        i + 1 for i, layer in enumerate(features) if isinstance(layer, nn.MaxPool2d | nn.Identity)
    ]
    cuts = zip(POINTS, [0, *ends], [*ends, len(features)], strict=False)
    segments = {point: _segment(features[a:b]) for point, a, b in cuts} | {"last": neck}
    imagenet = partial(torchvision_weights, name) if name in PUBLISHED else None
    backbone = Backbone(name, trunk, segments, neck=neck.layers, imagenet=imagenet)
    for module in backbone.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return backbone


def _segment(layers: nn.Sequential) -> Segment:
    return Segment(layers, [m.out_channels for m in layers if isinstance(m, nn.Conv2d)][-1])
