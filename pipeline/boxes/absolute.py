"""Boxes at thresholds in the maps' own unit: a pixel is on if its value ≥ t, whatever the map's range.

The sweep's `classic` protocol compares value ≥ τ · max. A map is handed to it as the number of
thresholds that each pixel reaches, so that no comparison is rounded. Where no pixel reaches t, the
box is the whole map, as under `classic`.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipeline import boxes


def boxes_at(maps: NDArray[Any], threshold: float) -> NDArray[np.float32]:
    """Box [B, 4] of the largest component of each map [B, H, W] at one threshold."""
    return boxes.boxes_at(*ranked(maps, [threshold]))


def curve(maps: NDArray[Any], truth: Sequence[NDArray[Any]], thresholds: ArrayLike) -> boxes.Curve:
    """As `boxes.curve` under `classic`, at rising thresholds [T] in the maps' own unit."""
    ranks, taus = ranked(maps, thresholds)
    return boxes.curve(ranks, truth, taus)


def ranked(
    maps: NDArray[Any], thresholds: ArrayLike
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """(maps of ranks 0 … T, the sweep's thresholds [B, T]): value ≥ t exactly where rank ≥ τ · max."""
    limits = np.asarray(thresholds, np.float64)
    if not np.isfinite(maps).all():
        raise ValueError("maps hold NaN or infinite values")
    ranks = np.searchsorted(limits, maps.astype(np.float64), side="right").astype(np.float32)
    tops = np.maximum(ranks.max(axis=(1, 2)), 1)  # a map of zeros: τ · 0 is reached everywhere
    return ranks, (np.arange(len(limits)) + 0.5) / tops[:, None]
