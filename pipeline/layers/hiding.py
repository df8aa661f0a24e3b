"""Attention map, drop mask, dispersion, and Algorithm 1's choice between masks.

Maps are [B, 1, H, W]; a mask is boolean, True where a cell is kept (the papers' 1), False where it is
hidden (their 0). Masks are constants to the gradient, and nothing here waits for the device.
Source: Z. Zhang, "Localizing Object Position by Using only Image-level Labels", Concordia 2021, ch. 3.
"""

from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from pipeline.params import Section
from pipeline.params.plug_points import PlugPoints

Fraction = Annotated[float, Field(ge=0, le=1)]
Weight = Annotated[float, Field(ge=0)]

BRANCHES = ("dispersed", "passed", "hidden")  # Algorithm 1's, by the index that `select` returns


class Strategy(Section):
    """Where and by which thresholds Algorithm 1 hides."""

    plug_points: PlugPoints
    """Where maps are hidden. Published: pool3, pool4, conv5_3 (§3.3.1)."""
    hide_threshold: Fraction
    """α of Eq. 11: a pixel of at least α · maximum belongs to the peak. Published: 0.8 (§3.3.1)."""
    target_threshold: Fraction
    """A pixel of at least this share of the maximum belongs to the target. Published: 0.3 (§3.3.1)."""
    background_threshold: Fraction
    """A pixel below this share of the maximum is background. Published: 0.2 (§3.3.1; §3.2 says 0.1)."""
    small_target: Fraction
    """d/b: a target below this share of the map is left alone. Published: 0.2 (§3.3.1)."""
    peak_proportion: Fraction
    """a/d: a peak above this share of the target is left alone. Published: 0.3 (§3.3.1)."""
    dispersion_threshold: Weight
    """Eq. 12's D from which a peak is dispersed; squared cells at a 224 px input. Published: 40 (§3.3.1)."""
    variance_weight: Weight
    """μ1 of Eq. 12, without unit. Not published; 1 makes D the variance that §3.3.1 compares with 40."""
    isolated_weight: Weight
    """μ2 of Eq. 12; squared cells per isolated cell. Not published; 0 for the same reason."""
    min_peak_pixels: Annotated[int, Field(ge=1)]
    """Condition (1) of §3.2: a peak of fewer cells, at a 224 px input, is not dispersed. Not published."""

    @model_validator(mode="after")
    def _background_lies_below_target(self) -> "Strategy":
        if self.background_threshold > self.target_threshold:
            raise ValueError(
                f"background_threshold is {self.background_threshold}; allowed: at most "
                f"target_threshold, which is {self.target_threshold}"
            )
        return self


def attention_map(features: Tensor) -> Tensor:
    """Eq. 10: the mean over channels of [B, C, H, W], float32 [B, 1, H, W], cut off from the gradient."""
    return features.detach().mean(dim=1, keepdim=True, dtype=torch.float32)


def drop_mask(attention: Tensor, threshold: float) -> Tensor:
    """Eq. 11: False where a pixel is at least `threshold` · its map's maximum, True elsewhere."""
    return attention < threshold * attention.amax(dim=(2, 3), keepdim=True)


def dispersion(hidden: Tensor, variance_weight: float, isolated_weight: float) -> Tensor:
    """Eq. 12: D = μ1 (Var(X) + Var(Y)) + μ2 P of each image's hidden pixels, float32 [B].

    hidden: bool [B, 1, H, W]. Var is the population's, in squared cells; P counts hidden cells
    without a hidden 8-neighbour. Nothing hidden gives 0.
    """
    variance = _variance(hidden.sum(2)) + _variance(hidden.sum(3))
    around = F.avg_pool2d(hidden.float(), 3, stride=1, padding=1, divisor_override=1)
    isolated = (hidden & (around < 1.5)).sum((1, 2, 3))
    return variance_weight * variance + isolated_weight * isolated


def _variance(counts: Tensor) -> Tensor:
    """Variance of a position 0…L−1 that occurs counts[b, 0, position] times: [B, 1, L] → [B]."""
    weights = counts[:, 0].float()
    total = weights.sum(1, keepdim=True).clamp(min=1)
    position = torch.arange(weights.shape[1], device=weights.device, dtype=torch.float32)
    mean = (weights * position).sum(1, keepdim=True) / total
    return (weights * (position - mean).square()).sum(1) / total[:, 0]


def select(
    attention: Tensor,
    params: Strategy,
    ratio: float,
    peak_mask: Tensor | None = None,
    dispersed_mask: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Algorithm 1, per image: a mask [B, 1, H, W] and the index in BRANCHES [B] that it came from.

    A dispersed peak is hidden with the background; else a small target, or one that is mostly peak, is
    passed raw; else the peak is hidden. The peak is Eq. 11's, unless `dispersed_mask` replaces it in the
    first case or `peak_mask` in the last. ratio: see `cells.side_ratio`; dispersion and number of cells
    grow with its square.
    """
    kept = drop_mask(attention, params.hide_threshold)
    background = drop_mask(attention, params.background_threshold)
    a = _pixels(~kept)
    b = attention.shape[2] * attention.shape[3]
    d = _pixels(~drop_mask(attention, params.target_threshold))
    v = dispersion(~kept, params.variance_weight, params.isolated_weight)

    area = ratio**2
    dispersed = (a >= area * params.min_peak_pixels) & (v >= area * params.dispersion_threshold)
    passed = (d / b < params.small_target) | (a / d > params.peak_proportion)
    branch = torch.where(dispersed, 0, torch.where(passed, 1, 2))

    chosen = branch[:, None, None, None]
    object_left = (kept if dispersed_mask is None else dispersed_mask) & ~background
    raw_or_peak = (chosen == 1) | (kept if peak_mask is None else peak_mask)
    return torch.where(chosen == 0, object_left, raw_or_peak), branch


def _pixels(region: Tensor) -> Tensor:
    return region.sum((1, 2, 3))


class BranchCounter(nn.Module):
    """Number of images per plug point and branch, counted on the device that computes."""

    counts: Tensor

    def __init__(self, points: tuple[str, ...]) -> None:
        super().__init__()
        self.points = points
        empty = torch.zeros(len(points), len(BRANCHES), dtype=torch.int64)
        self.register_buffer("counts", empty, persistent=False)

    def add(self, point: str, branch: Tensor) -> None:
        """Count a batch's branches, int64 [B]."""
        indices = torch.arange(len(BRANCHES), device=branch.device)
        self.counts[self.points.index(point)] += (branch[:, None] == indices).sum(0)

    def fractions(self, method: str) -> dict[str, float]:
        """`method/point/branch` → share of the images since the last call; waits for the device."""
        rows = self.counts.tolist()
        self.counts.zero_()
        return {
            f"{method}/{point}/{branch}": count / sum(row)
            for point, row in zip(self.points, rows, strict=True)
            for branch, count in zip(BRANCHES, row, strict=True)
            if sum(row)
        }
