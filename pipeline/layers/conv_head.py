"""Classification heads of convolutions, as introduced by ACoL (Zhang et al., CVPR 2018)."""

from typing import TypeVar

from torch import nn

Block = TypeVar("Block", bound=nn.Module)


def conv_head(channels: int, width: int, outputs: int) -> nn.Sequential:
    """3 × 3, ReLU, 3 × 3, ReLU, 1 × 1; one map per output, [B, C, h, w] → [B, outputs, h, w]."""
    head = nn.Sequential(
        nn.Conv2d(channels, width, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(width, width, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(width, outputs, 1),
    )
    return xavier(head)


def xavier(module: Block) -> Block:
    """Initialize every convolution with Xavier weights and zero biases, as ACoL's code does its heads."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    return module
