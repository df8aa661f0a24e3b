"""Attention-based dual hiding: beside the attention map's peak, hide squares around expected cells.

Z. Zhang, T. D. Bui, "Attention-based Dual Hiding Method for Weakly Supervised Object Localization",
submitted to ICIP 2021; thesis chapter 4. Tables 5, 6 (ResNet50) and 9 print AMH.
Departs from the paper: Eq. 14 as printed averages a distribution that sums to one, which is 1/(w·h) for
every channel; a channel's weight is its expected activation Σ a·softmax(a) instead, the form of Eq. 19.
Eq. 13 lacks an exponential in its denominator. As printed, its softmax has temperature 1: with
activations near 1 it is almost uniform and the expected cell lies in the middle of any map, so the default
temperature is a share of the map's maximum. The side of the square is not published. With more than one
point, each is sought among the cells that the points before it have not hidden.
"""

from typing import Annotated, Literal

import torch
from pydantic import AfterValidator, Field
from torch import Tensor

from pipeline.backbones import Backbone
from pipeline.layers import cells, hiding
from pipeline.methods import base


def _odd(value: int) -> int:
    if value % 2 == 0:
        raise ValueError("an odd number")
    return value


def _three_and_maybe_one(branches: tuple[int, ...]) -> tuple[int, ...]:
    if sorted(branches) not in ([3], [1, 3]):
        raise ValueError("[3] or [1, 3]")
    return branches


TemperatureUnit = Literal["maximum", "activation"]
Branches = Annotated[tuple[int, ...], AfterValidator(_three_and_maybe_one)]


class Params(hiding.Strategy):
    attention_mask: bool
    """Hide the peak of the attention map, Eq. 11. Published: true (Table 8)."""
    spatial_top: Annotated[int, Field(ge=0)]
    """Expected points of the attention map to hide; 0: none. Published: 1, the best of Table 8."""
    channel_top: Annotated[int, Field(ge=0)]
    """Channels whose expected point to hide, by weight; 0: none. Published: 1, the best of Table 8."""
    block_size: Annotated[int, Field(ge=1), AfterValidator(_odd)]
    """Side of the square hidden around a point, cells at a 224 px input, odd. Not published."""
    temperature: Annotated[float, Field(gt=0)]
    """Of the spatial softmax, in the unit below. Not published."""
    temperature_unit: TemperatureUnit
    """`maximum` of each map, or `activation`, where 1 is Eq. 13 as printed."""
    branches: Branches
    """Of Algorithm 1, where this mask replaces Eq. 11's: 3 hides the peak, 1 the peak and the background.
    §4.2 leaves open whether 1 is among them."""


def spatial_softmax(
    maps: Tensor, temperature: float, unit: TemperatureUnit, hidden: Tensor | None = None
) -> Tensor:
    """Eq. 13: softmax over the cells of each map of [B, C, H, W], those of `hidden` left out.

    In the unit `maximum` the temperature is a share of the largest value among the cells that take part.
    """
    if hidden is not None:
        maps = maps.masked_fill(hidden, torch.finfo(maps.dtype).min)
    peak = maps.amax((2, 3), keepdim=True)
    scale = peak.abs().clamp_min(torch.finfo(maps.dtype).tiny) if unit == "maximum" else 1.0
    # From the peak down: a map of zeros is uniform, and no quotient overflows.
    scaled = (maps - peak) / (temperature * scale)
    return scaled.flatten(2).softmax(2).unflatten(2, maps.shape[2:])


def channel_weights(features: Tensor, temperature: float, unit: TemperatureUnit) -> Tensor:
    """Eq. 14, as departed from: Σ_ij a_cij · s_cij, [B, C, H, W] → [B, C]."""
    return (features * spatial_softmax(features, temperature, unit)).sum((2, 3))


def expected_cell(distribution: Tensor) -> tuple[Tensor, Tensor]:
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


def expected_region(maps: Tensor, side: int, temperature: float, unit: TemperatureUnit) -> Tensor:
    """The squares around the expected cell of each of n maps in turn, [B, n, H, W] → bool [B, 1, H, W].

    Cells that an earlier map's square covers take no part in a later map's softmax.
    """
    region = torch.zeros_like(maps[:, :1], dtype=torch.bool)
    for turn in maps.split(1, dim=1):
        row, column = expected_cell(spatial_softmax(turn, temperature, unit, region))
        region = region | area(row, column, (maps.shape[2], maps.shape[3]), side)
    return region


def dual_mask(features: Tensor, attention: Tensor, params: Params, ratio: float) -> Tensor:
    """§4.2: True outside the peak of the attention map, its expected region and the top channels'.

    ratio: see `cells.side_ratio`.
    """
    hidden = torch.zeros_like(attention, dtype=torch.bool)
    side = cells.scaled_odd(params.block_size, ratio)
    softmax = params.temperature, params.temperature_unit
    if params.attention_mask:
        hidden = hidden | ~hiding.drop_mask(attention, params.hide_threshold)
    if params.spatial_top:
        repeated = attention.expand(-1, params.spatial_top, -1, -1)
        hidden = hidden | expected_region(repeated, side, *softmax)
    if params.channel_top:
        maps = features.detach().float()
        n = min(params.channel_top, maps.shape[1])
        top = channel_weights(maps, *softmax).topk(n, dim=1).indices
        chosen = maps.take_along_dim(top[:, :, None, None], dim=1)
        hidden = hidden | expected_region(chosen, side, *softmax)
    return ~hidden


class Method(base.Method):
    params: Params

    def __init__(self, backbone: Backbone, num_classes: int, params: Params) -> None:
        super().__init__(backbone, num_classes, params)
        self.branches = hiding.BranchCounter(params.plug_points)

    def on_feature(
        self, point: str, features: Tensor, targets: Tensor | None, ratio: float
    ) -> Tensor:
        if point not in self.params.plug_points:
            return features
        attention = hiding.attention_map(features)
        dual = dual_mask(features, attention, self.params, ratio)
        mask, branch = hiding.select(
            attention,
            self.params,
            ratio,
            peak_mask=dual if 3 in self.params.branches else None,
            dispersed_mask=dual if 1 in self.params.branches else None,
        )
        self.branches.add(point, branch)
        return features * mask

    def statistics(self) -> dict[str, float]:
        """Share of images by branch, `ahd/<plug point>/dispersed | passed | hidden`."""
        return self.branches.fractions("ahd")
