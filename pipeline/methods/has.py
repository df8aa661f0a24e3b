"""Hide-and-Seek: hide random cells of a grid on the image.

K. K. Singh, Y. J. Lee, "Hide-and-Seek: Forcing a Network to be Meticulous for Weakly-supervised Object and
Action Localization", ICCV 2017. The image is normalized before, so a hidden cell has the dataset's mean.
The paper works on AlexNet and GoogLeNet; other backbones need no port, since only the input changes.
"""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from pipeline.layers import grid
from pipeline.methods import base
from pipeline.params import Section


class Params(Section):
    cell_sizes: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)]
    """Side of a cell, drawn for each image, pixels at a 224 px input; 0 hides nothing. Published
    (the authors' code): 0, 16, 32, 44, 56."""
    probability: Annotated[float, Field(ge=0, le=1)]
    """Probability that a cell is hidden. Published: 0.5 (§4.1)."""


class Method(base.Method):
    params: Params

    def on_batch(
        self, images: Tensor, targets: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        count, height, width = self.whole or len(images), *images.shape[2:]
        drawn = grid.draw_grid(
            self.params.cell_sizes, self.params.probability, (count, height, width), generator
        )
        sides, kept = (x[self.rows].to(images.device, non_blocking=True) for x in drawn)
        return images * grid.grid_mask(sides, kept, height, width), targets
