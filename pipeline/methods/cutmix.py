"""CutMix: paste a box from another image of the batch, and mix the labels by area.

S. Yun, D. Han, S. J. Oh, S. Chun, J. Choe, Y. Yoo, "CutMix: Regularization Strategy to Train Strong
Classifiers with Localizable Features", ICCV 2019. One box and one λ for the whole batch, as in the authors'
code. Heatmaps are plain CAM.
"""

from typing import Annotated

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from pipeline.methods import base
from pipeline.params import Section


class Params(Section):
    beta: Annotated[float, Field(gt=0)]
    """λ ~ Beta(β, β). Published: 1 (§4.1)."""
    probability: Annotated[float, Field(ge=0, le=1)]
    """Probability that a batch is mixed. Published: 1 for ImageNet (the authors' command line); 0.5 for CIFAR."""


def box(lam: float, centre: tuple[int, int], height: int, width: int) -> tuple[int, int, int, int]:
    """Eq. 2: x0, y0, x1, y1 of a box of area 1 − λ around (x, y), clipped to the image."""
    side = (1 - lam) ** 0.5
    half_w, half_h = int(width * side) // 2, int(height * side) // 2
    x, y = centre
    return max(x - half_w, 0), max(y - half_h, 0), min(x + half_w, width), min(y + half_h, height)


class Method(base.Method):
    params: Params

    def on_batch(
        self, images: Tensor, targets: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        draw = np.random.default_rng(int(torch.randint(2**62, (), generator=generator)))
        if draw.random() >= self.params.probability:
            return images, targets
        _, _, height, width = images.shape
        lam = float(draw.beta(self.params.beta, self.params.beta))
        centre = int(draw.integers(width)), int(draw.integers(height))
        x0, y0, x1, y1 = box(lam, centre, height, width)
        # Partners come from the rows that are here: a process that shares the batch sees no others.
        drawn = torch.randperm(self.whole or len(images), generator=generator)[self.rows]
        other = drawn.argsort().to(images.device, non_blocking=True)
        mixed = images.clone()
        mixed[:, :, y0:y1, x0:x1] = images[other, :, y0:y1, x0:x1]
        kept = 1 - (x1 - x0) * (y1 - y0) / (height * width)  # λ of the area after clipping
        # Not one_hot, which synchronizes with the device to check the labels.
        labels = (targets[:, None] == torch.arange(self.num_classes, device=targets.device)).float()
        return mixed, kept * labels + (1 - kept) * labels[other]
