"""PSOL: a class-agnostic regressor on the boxes that another localizer finds in the training images.

C.-L. Zhang, Y.-H. Cao, J. Wu, "Rethinking the Route Towards Weakly Supervised Object Localization", CVPR 2020:
‖σ(W·GAP F) − box‖², with a box as x, y, width, height in shares of the image's sides; the classifier stays separate.
Departs from the paper: the regressor is one linear layer on the trunk as it is, fitted by L-BFGS.
"""

from collections.abc import Mapping
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import linear

from pipeline import boxes
from pipeline.layers import logistic
from pipeline.localizers import base
from pipeline.methods.base import Outputs, full_precision
from pipeline.params import Section

SIDE = 112
"""Pixels of the square grid that the teacher's maps are resized to before their boxes are read."""


class Params(Section):
    """The teacher, and the regression."""

    teacher: Literal["foreground", "ddt", "c2am", "tokencut", "border"]
    """The localizer whose boxes are learned; DDT in the paper."""
    penalty: Annotated[float, Field(ge=0)]
    """Of the squared weights of the standardised features."""
    iterations: Annotated[int, Field(ge=1)]


class Localizer(base.Localizer):
    params: Params
    regresses = True
    weight: Tensor
    bias: Tensor

    def __init__(self, backbone: base.Depths, num_classes: int, params: Params) -> None:
        super().__init__(backbone, num_classes, params)
        self.learns_from = (params.teacher,)
        self.register_buffer("weight", torch.zeros(4, backbone.channels[base.LAST]))
        self.register_buffer("bias", torch.zeros(4))

    @property
    def teacher(self) -> base.Localizer:
        """The localizer learned from, fitted first."""
        teacher: base.Localizer = self.get_submodule(self.params.teacher)  # type: ignore[assignment]
        return teacher

    @torch.no_grad()
    def fit(self, training: base.Training) -> list[str]:
        lines = self.teacher.fit(training)
        pooled, targets = [], []
        for some in training.batches():
            features = {
                depth: training.trained(depth, some)
                for depth in dict.fromkeys((base.LAST, *self.teacher.depths))
            }
            pooled.append(features[base.LAST].mean((2, 3)))
            labels = training.labels[some].to(self.weight.device)
            nothing = Outputs(torch.empty(0), features[base.LAST])
            maps = self.teacher.maps(features, nothing, labels[:, None])[:, 0]
            targets.append(boxes_of(maps))
        rows = torch.cat(pooled)
        weight, bias = regressed(rows, torch.cat(targets).to(rows), self.params)
        self.weight.copy_(weight)
        self.bias.copy_(bias)
        return [*lines, f"psol: learned from {len(rows)} boxes of {self.params.teacher}"]

    def boxes(self, features: Mapping[str, Tensor], outputs: Outputs, classes: Tensor) -> Tensor:
        F = features[base.LAST]
        with full_precision(F):
            pooled = F.mean((2, 3), dtype=torch.float32)
            found = linear(pooled, self.weight, self.bias).sigmoid()
        corners = torch.cat([found[:, :2], found[:, :2] + found[:, 2:]], 1).clamp_max(1)
        return corners[:, None].expand(-1, classes.shape[1], -1)


def boxes_of(maps: Tensor) -> Tensor:
    """x, y, width, height [B, 4], in shares, of the largest component above 0 of raw maps [B, h, w]."""
    resized = boxes.resize(maps.float(), (SIDE, SIDE)).cpu().numpy()
    found = boxes.boxes_at((resized > 0).astype(np.float32), 0.5)
    corners = torch.from_numpy(found) / SIDE
    return torch.cat([corners[:, :2], corners[:, 2:] - corners[:, :2]], 1)


def regressed(rows: Tensor, targets: Tensor, params: Params) -> tuple[Tensor, Tensor]:
    """Weight [4, C] and bias [4] of least ‖σ(rows·W + b) − targets‖², mean over rows."""
    mean, scale = logistic.standardised(rows)

    def loss(weight: Tensor, bias: Tensor, part: slice) -> Tensor:
        found = linear((rows[part] - mean) / scale, weight, bias).sigmoid()
        return (found - targets[part]).square().sum() / len(rows)

    fitted = logistic.minimised(loss, 4, rows, penalty=params.penalty, iterations=params.iterations)
    return logistic.folded(*fitted, mean, scale)
