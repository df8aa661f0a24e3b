"""Operations on class maps that several methods share: min–max normalization, and selection by class."""

import torch
from torch import Tensor


def min_max(maps: Tensor) -> Tensor:
    """Each map of [..., h, w] from its minimum and maximum to 0 … 1; constant ones to 0."""
    low = maps.amin((-2, -1), keepdim=True)
    spread = maps.amax((-2, -1), keepdim=True) - low
    return (maps - low) / torch.where(spread > 0, spread, 1)


def of_class(maps: Tensor, classes: Tensor) -> Tensor:
    """The maps of the asked classes: [B, K, h, w] and int64 [B, Q] → [B, Q, h, w]."""
    return maps[torch.arange(len(maps), device=maps.device)[:, None], classes]
