"""Attention-based dual hiding: beside the attention map's peak, hide squares around expected pixels.

Z. Zhang, T. D. Bui, "Attention-based Dual Hiding Method for Weakly Supervised Object Localization",
submitted to ICIP 2021; thesis chapter 4, where tables 5, 6 and 9 call it AMH.
Departs from the paper: Eq. 14 as printed averages a distribution that sums to one, which is 1/(w·h) for
every channel; a channel's weight is its expected activation Σ a·softmax(a) instead, the form of Eq. 19.
Eq. 13 lacks an exponential below the line. The side of the square and the softmax's temperature are not
published. More than one point: each is sought where the points before it have not hidden.
"""

from typing import Annotated

import torch
from pydantic import AfterValidator, Field
from torch import Tensor

from pipeline.backbones import Backbone
from pipeline.layers import hiding
from pipeline.methods import base


def _odd(value: int) -> int:
    if value % 2 == 0:
        raise ValueError("an odd number")
    return value


class Params(hiding.Strategy):
    attention_mask: bool
    """Hide the peak of the attention map, Eq. 11. Published: true (Table 8)."""
    spatial_top: Annotated[int, Field(ge=0)]
    """Expected points of the attention map to hide; 0: none. Published: 1, the best of Table 8."""
    channel_top: Annotated[int, Field(ge=0)]
    """Channels whose expected point to hide, by weight; 0: none. Published: 1, the best of Table 8."""
    block_size: Annotated[int, Field(ge=1), AfterValidator(_odd)]
    """Side of the square hidden around a point, feature-map pixels, odd. Not published."""
    temperature: Annotated[float, Field(gt=0)]
    """Of the spatial softmax, in units of activation. Not published; 1 is Eq. 13 as printed."""


def spatial_softmax(maps: Tensor, temperature: float, hidden: Tensor | None = None) -> Tensor:
    """Eq. 13: softmax over the pixels of each map of [B, C, H, W], those of `hidden` left out."""
    scaled = maps / temperature
    if hidden is not None:
        scaled = scaled.masked_fill(hidden, torch.finfo(scaled.dtype).min)
    return scaled.flatten(2).softmax(2).unflatten(2, maps.shape[2:])


def channel_weights(features: Tensor, temperature: float) -> Tensor:
    """Eq. 14, as departed from: Σ_ij a_cij · s_cij, [B, C, H, W] → [B, C]."""
    return (features * spatial_softmax(features, temperature)).sum((2, 3))


def expected_pixel(distribution: Tensor) -> tuple[Tensor, Tensor]:
    """Spatial soft-argmax, rounded: (row, column) of each map of [B, C, H, W], each [B, C]."""
    rows, columns = (
        torch.arange(n, device=distribution.device, dtype=torch.float32)
        for n in distribution.shape[2:]
    )
    row = (distribution.sum(3) * rows).sum(2)
    column = (distribution.sum(2) * columns).sum(2)
    return row.round(), column.round()


def area(row: Tensor, column: Tensor, size: tuple[int, int], side: int) -> Tensor:
    """Fig. 20: True in the square of `side` around (row, column), clipped: [B, C] → bool [B, C, H, W]."""

    def near(centre: Tensor, length: int) -> Tensor:
        positions = torch.arange(length, device=centre.device)
        return (positions - centre[..., None]).abs() <= side // 2

    return near(row, size[0])[..., :, None] & near(column, size[1])[..., None, :]


def expected_region(maps: Tensor, side: int, temperature: float) -> Tensor:
    """The squares around the expected pixel of each of n maps in turn, [B, n, H, W] → bool [B, 1, H, W].

    Pixels that an earlier map's square covers take no part in a later map's softmax.
    """
    region = torch.zeros_like(maps[:, :1], dtype=torch.bool)
    for turn in maps.split(1, dim=1):
        row, column = expected_pixel(spatial_softmax(turn, temperature, region))
        region = region | area(row, column, (maps.shape[2], maps.shape[3]), side)
    return region


def dual_mask(features: Tensor, attention: Tensor, params: Params) -> Tensor:
    """§4.2: True outside the peak of the attention map, its expected region and the top channels'."""
    hidden = torch.zeros_like(attention, dtype=torch.bool)
    if params.attention_mask:
        hidden = hidden | ~hiding.drop_mask(attention, params.hide_threshold)
    if params.spatial_top:
        repeated = attention.expand(-1, params.spatial_top, -1, -1)
        hidden = hidden | expected_region(repeated, params.block_size, params.temperature)
    if params.channel_top:
        maps = features.detach().float()
        n = min(params.channel_top, maps.shape[1])
        top = channel_weights(maps, params.temperature).topk(n, dim=1).indices
        chosen = maps.take_along_dim(top[:, :, None, None], dim=1)
        hidden = hidden | expected_region(chosen, params.block_size, params.temperature)
    return ~hidden


class Method(base.Method):
    params: Params

    def __init__(self, backbone: Backbone, num_classes: int, params: Params) -> None:
        super().__init__(backbone, num_classes, params)
        self.branches = hiding.BranchCounter(params.plug_points)

    def on_feature(self, point: str, features: Tensor, targets: Tensor | None) -> Tensor:
        if point not in self.params.plug_points:
            return features
        attention = hiding.attention_map(features)
        dual = dual_mask(features, attention, self.params)
        mask, branch = hiding.select(attention, self.params, peak_mask=dual)
        self.branches.add(point, branch)
        return features * mask

    def statistics(self) -> dict[str, float]:
        """Share of images by branch, `ahd/<plug point>/dispersed | passed | hidden`."""
        return self.branches.fractions("ahd")
