"""Random grids that hide cells of an image, as in Hide-and-Seek (Singh & Lee, ICCV 2017)."""

import torch
from torch import Tensor

from pipeline.layers import cells


def draw_grid(
    cell_sizes: tuple[int, ...],
    probability: float,
    size: tuple[int, int, int],
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """For each of B images a cell size from the list, and which of its cells are kept.

    cell_sizes: pixels at a 224 px input, scaled to this one. size: (B, height, width). Returns int64 [B]
    (0: nothing is hidden) and bool [B, rows, columns] for the smallest cells; an image of larger ones uses
    a corner of it.
    """
    count, height, width = size
    ratio = cells.side_ratio(height, width)
    lengths = [cells.scaled_length(length, ratio) for length in cell_sizes]
    sides = torch.tensor(lengths)[torch.randint(len(lengths), (count,), generator=generator)]
    least = min((side for side in lengths if side), default=max(height, width))
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
