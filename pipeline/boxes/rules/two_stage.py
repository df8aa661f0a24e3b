"""RCAM's second stage: a threshold for each image, chosen without labels (thesis §5.4.3, Eq. 22).

Every candidate box is held by seeds, the feature-map cells under the pixels that bound it. The seeds
of a good box lie on the object's border, alike to object and background: the box wins whose mean
similarity map has the least variance. Works for the maps and features of any method.

Departs from the paper: features are centred first if `params.center` (the mean feature vector of the
image subtracted), since post-ReLU vectors all point the same way.
"""

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from pipeline import boxes
from pipeline.boxes.rules import base
from pipeline.params import TwoStage

# Variances closer than this are equal: the order of a sum must not decide for the higher threshold.
TIE = 1e-5


class Rule(base.BoxRule):
    """`select`; where it finds no box, the box at the reading's threshold."""

    needs = ("features",)
    unit = "relative"
    per_image = True
    sentence = (
        "each image's threshold chosen from its own features, without labels "
        "({fallbacks:,} of {n:,} images fell back to {threshold:g})"
    )

    def choose(
        self,
        maps: Tensor,
        features: Tensor | None,
        threshold: float,
        unit: base.Unit,
        settings: TwoStage,
    ) -> base.Boxes:
        assert features is not None, "two_stage reads features"
        picked, levels, found = (x.cpu().numpy() for x in select(maps, features, settings))
        fallback = base.at_threshold(maps, threshold, unit)
        return base.Boxes(
            np.where(found[:, None], picked, fallback.boxes).astype(np.float32),
            np.where(found, levels, threshold).astype(np.float32),
            found,
        )


@torch.no_grad()
def select(maps: Tensor, features: Tensor, params: TwoStage) -> tuple[Tensor, Tensor, Tensor]:
    """Box [B, 4], its threshold [B] and whether there is one [B], on the features' device.

    maps [B, H, W], min–max normalised and upsampled; features [B, C, h, w]; boxes are half-open, in
    the maps' pixels. Where no threshold has a box with enough seeds, box and threshold mean nothing.
    """
    taus = candidates(params.step)
    found, cells = boxes.seeds(
        maps.float().cpu().numpy(),
        taus,
        (features.shape[2], features.shape[3]),
        outline=params.seeds == "contour",
    )
    seeds = torch.from_numpy(cells).to(features.device).flatten(2).float()
    variance = contrast(seeds, unit_vectors(features, center=params.center))
    variance[seeds.sum(2) < params.min_seeds] = torch.inf
    least = variance.amin(1, keepdim=True)
    chosen = (variance <= least * (1 + TIE)).int().argmax(1)
    picked = torch.from_numpy(found).to(features)[torch.arange(len(chosen)), chosen]
    return picked, torch.from_numpy(taus).to(features)[chosen], least[:, 0].isfinite()


def candidates(step: float) -> np.ndarray:
    """Thresholds step, 2 · step, … below 1."""
    return step * np.arange(1, math.ceil(1 / step - 1e-9))


def unit_vectors(features: Tensor, *, center: bool) -> Tensor:
    """Feature vectors of length 1 (zero stays zero), [B, C, h, w] → [B, C, hw]."""
    P = features.float().flatten(2)
    if center:
        P = P - P.mean(2, keepdim=True)
    return normalize(P, dim=1)


def contrast(seeds: Tensor, P: Tensor) -> Tensor:
    """Variance of each candidate's mean similarity map (Eq. 22): seeds [B, T, hw] → [B, T].

    The mean over seeds A of A·P_ij is (mean of A)·P_ij: the h·w × h·w similarities need not be formed.
    """
    A = seeds @ P.transpose(1, 2) / seeds.sum(2, keepdim=True).clamp_min(1)
    return (A @ P).var(2, correction=0)
