"""ResNet50 whose layer4 has stride 1: no dilation, so published weights load unchanged.

Plug points are the stem's ReLU and the four stages. The thesis does not say where it plugs ResNet50.
"""

from functools import partial

from torch import nn

from pipeline.backbones.base import Backbone, Segment, accept_channels
from pipeline.backbones.weights import torchvision_weights


def resnet50(input_channels: int) -> Backbone:
    """ResNet50; layer4 is both `stride16_late` and `last`."""
    from torchvision.models import resnet50 as published

    trunk = published(weights=None)
    del trunk.fc
    trunk.layer4[0].conv2.stride = trunk.layer4[0].downsample[0].stride = (1, 1)
    accept_channels(trunk, input_channels)
    segments = {
        "stride2": Segment(nn.Sequential(trunk.conv1, trunk.bn1, trunk.relu), 64),
        "stride4": Segment(nn.Sequential(trunk.maxpool, trunk.layer1), 256),
        "stride8": Segment(trunk.layer2, 512),
        "stride16_early": Segment(trunk.layer3, 1024),
        "stride16_late": Segment(trunk.layer4, 2048),
    }
    return Backbone(
        "resnet50",
        trunk,
        segments,
        same={"last": "stride16_late"},
        imagenet=partial(torchvision_weights, "resnet50"),
    )


NETWORKS = {"resnet50": resnet50}
PUBLISHED = ("resnet50",)
