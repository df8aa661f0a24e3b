"""What several methods are built of: a head of convolutions, a non-local block, a grid that hides, min–max."""

from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Block = TypeVar("Block", bound=nn.Module)


def conv_head(channels: int, width: int, outputs: int) -> nn.Sequential:
    """ACoL's head: 3 × 3, ReLU, 3 × 3, ReLU, 1 × 1; one map per output, [B, C, h, w] → [B, outputs, h, w]."""
    head = nn.Sequential(
        nn.Conv2d(channels, width, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(width, width, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(width, outputs, 1),
    )
    return initialised(head)


def initialised(module: Block) -> Block:
    """Xavier weights and zero biases in every convolution, as in the heads of ACoL's code."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    return module


class NonLocal(nn.Module):
    """X + BN(W·softmax(QᵀK)V): every position sees every other; the identity until BN has learned.

    NL-CCAM's form: queries and keys of C/8 channels, no division by √d. [B, C, h, w] → the same shape.
    """

    def __init__(self, channels: int, reduction: int = 8) -> None:
        super().__init__()
        inner = max(1, channels // reduction)
        self.query = nn.Conv2d(channels, inner, 1)
        self.key = nn.Conv2d(channels, inner, 1)
        self.value = nn.Conv2d(channels, channels, 1)
        self.out = nn.Conv2d(channels, channels, 1)
        self.norm = nn.BatchNorm2d(channels)
        nn.init.zeros_(self.norm.weight)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (conv(x).flatten(2).mT for conv in (self.query, self.key, self.value))
        seen = F.scaled_dot_product_attention(q, k, v, scale=1.0)
        update: Tensor = self.norm(self.out(seen.mT.unflatten(2, x.shape[2:])))
        return x + update


def draw_grid(
    cell_sizes: tuple[int, ...],
    probability: float,
    size: tuple[int, int, int],
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """For each of B images a cell size from the list, and which of its cells are kept.

    size: (B, height, width). Returns int64 [B] (0: nothing is hidden) and bool [B, rows, columns] for the
    smallest cells; an image of larger ones uses a corner of it.
    """
    count, height, width = size
    sides = torch.tensor(cell_sizes)[torch.randint(len(cell_sizes), (count,), generator=generator)]
    least = min((side for side in cell_sizes if side), default=max(height, width))
    rows, columns = -(-height // least), -(-width // least)
    kept = torch.rand((count, rows, columns), generator=generator) >= probability
    return sides, kept | (sides == 0)[:, None, None]


def grid_mask(sides: Tensor, kept: Tensor, height: int, width: int) -> Tensor:
    """The grids of `draw_grid` pixel by pixel: bool [B, 1, height, width], True where kept."""
    side = torch.where(sides > 0, sides, max(height, width))[:, None]
    row = torch.arange(height, device=sides.device) // side
    column = torch.arange(width, device=sides.device) // side
    image = torch.arange(len(sides), device=sides.device)
    return kept[image[:, None, None], row[:, :, None], column[:, None, :]][:, None]


def min_max(maps: Tensor) -> Tensor:
    """Each map of [..., h, w] from its minimum and maximum to 0 … 1; constant ones to 0."""
    low = maps.amin((-2, -1), keepdim=True)
    spread = maps.amax((-2, -1), keepdim=True) - low
    return (maps - low) / torch.where(spread > 0, spread, 1)


def of_class(maps: Tensor, classes: Tensor) -> Tensor:
    """The maps of the asked classes: [B, K, h, w] and int64 [B, Q] → [B, Q, h, w]."""
    return maps[torch.arange(len(maps), device=maps.device)[:, None], classes]
