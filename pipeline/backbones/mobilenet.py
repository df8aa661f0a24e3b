"""MobileNetV2 without its last stride, cut behind the expansion of the first block of a stage.

The blocks' outputs are linear and signed: their channel mean is no attention map. The expansion in a
stage's first block has passed ReLU6, has the map size of the stage before, and no shortcut leads around it.
"""

from functools import partial

from torch import nn

from pipeline.backbones.base import Backbone, Segment, accept_channels
from pipeline.backbones.weights import torchvision_weights

_CUTS = {  # the block whose expansion is the point: index in torchvision's `features`, channels
    "stride2": (2, 96),
    "stride4": (4, 144),
    "stride8": (7, 192),
    "stride16_early": (11, 384),
    "stride16_late": (14, 576),
}


def mobilenet_v2(input_channels: int) -> Backbone:
    """MobileNetV2; `last` is the 1 × 1 convolution behind all blocks."""
    from torchvision.models import mobilenet_v2 as published

    trunk = published(weights=None)
    del trunk.classifier
    accept_channels(trunk, input_channels)
    blocks = trunk.features
    blocks[14].conv[1][0].stride = (1, 1)
    segments: dict[str, Segment] = {}
    layers: list[nn.Module] = []
    done = 0
    for point, (index, channels) in _CUTS.items():
        expansion, *rest = blocks[index].conv
        segments[point] = Segment(nn.Sequential(*layers, *blocks[done:index], expansion), channels)
        layers, done = rest, index + 1
    segments["last"] = Segment(nn.Sequential(*layers, *blocks[done:]), 1280)
    # The expansion two blocks behind `stride16_late`, in the last block of its stage.
    inner = {"deep": Segment(blocks[16].conv[0], 960)}
    imagenet = partial(torchvision_weights, "mobilenet_v2")
    return Backbone("mobilenet_v2", trunk, segments, inner=inner, imagenet=imagenet)


NETWORKS = {"mobilenet_v2": mobilenet_v2}
PUBLISHED = ("mobilenet_v2",)
