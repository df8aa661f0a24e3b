"""Heatmaps scored by themselves, without the model that made them: raw maps and truth → figures.

Images come in batches, each with a grid of its own size: under `wsoleval` 224 × 224, under `classic`
the image's own pixels or a square chosen for all.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline import boxes
from pipeline.boxes import Protocol, wsoleval
from pipeline.evaluation import metrics
from pipeline.evaluation.saved_maps import Truth

Grid = tuple[int, int]


class Measured(NamedTuple):
    """What is known of N images; IoU is NaN without boxes, `pixels` empty without masks."""

    fixed: NDArray[np.float32]  # [N], IoU at the fixed threshold
    largest: NDArray[np.float32]  # [N, T], the curve
    any: NDArray[np.float32]  # [N, T]
    pixels: NDArray[np.int64]  # [N, 2, T + 2], or [N, 2, 0]

    @property
    def scored(self) -> metrics.Scored:
        """What the figures are made of."""
        return metrics.Scored(
            iou_true=self.fixed,
            curve_largest=self.largest,
            curve_any=self.any,
            pixels=self.pixels if self.pixels.size else None,
        )

    @classmethod
    def concatenate(cls, parts: Sequence["Measured"]) -> "Measured":
        return cls(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


def grid_of(truth: Truth, protocol: Protocol, side: int | None) -> Grid:
    """The (height, width) on which an image is scored."""
    if protocol == "wsoleval":
        return wsoleval.GRID
    return truth.size if side is None else (side, side)


def measure(
    mapped: Sequence[NDArray[Any]],
    truths: Sequence[Truth],
    masks: Sequence[NDArray[np.uint8]] | None,
    protocol: Protocol,
    side: int | None,
    threshold: float,
    thresholds: NDArray[np.float64],
) -> Measured:
    """Measure maps in 0 … 1; maps and masks are on the images' grids already (`on_grid`)."""
    n, t = len(mapped), len(thresholds)
    measured = Measured(
        np.empty(n, np.float32),
        np.empty((n, t), np.float32),
        np.empty((n, t), np.float32),
        np.empty((n, 2, t + 2 if masks else 0), np.int64),
    )
    grids = [grid_of(truth, protocol, side) for truth in truths]
    kinds = [(grid, values.dtype) for grid, values in zip(grids, mapped, strict=True)]
    for grid, dtype in set(
        kinds
    ):  # images of one grid are swept together, each in its own precision
        which = [i for i in range(n) if kinds[i] == (grid, dtype)]
        maps = np.stack([mapped[i] for i in which])
        real = [boxes_on_grid(truths[i], grid, protocol) for i in which]
        measured.fixed[which] = boxes.curve(maps, real, [threshold], protocol).largest[:, 0]
        measured.largest[which], measured.any[which] = boxes.curve(maps, real, thresholds, protocol)
        if masks:
            mine = np.stack([masks[i] for i in which])
            measured.pixels[which] = wsoleval.count_pixels(maps, mine, thresholds)
    return measured


def on_grid(raw: NDArray[Any], grid: Grid, protocol: Protocol) -> NDArray[Any]:
    """A raw map [h, w] as the protocol's heatmap [height, width] in 0 … 1.

    Under `wsoleval` a map that has the grid's size is a finished score map, as the benchmark reads
    from its files: neither resized nor scaled. ValueError for one that leaves 0 … 1.
    """
    if protocol == "wsoleval" and raw.shape == grid:
        low, high = raw.min(), raw.max()
        if low < 0 or high > 1:
            raise ValueError(
                f"is {grid[0]} × {grid[1]}, the benchmark's score map, but holds {low:g} … {high:g}; "
                "allowed: 0 … 1, or a map of another size, which is resized and scaled"
            )
        return raw
    if protocol == "wsoleval":
        return wsoleval.heatmaps(raw[None], grid)[0]
    return boxes.normalise(boxes.resize(torch.from_numpy(raw)[None], grid))[0].numpy()


def boxes_on_grid(truth: Truth, grid: Grid, protocol: Protocol) -> NDArray[np.float64]:
    """An image's boxes [n, 4] in the pixels of the grid."""
    if protocol == "wsoleval":
        return wsoleval.scale(truth.boxes, truth.size, grid)
    return truth.boxes * np.tile(grid[::-1], 2) / np.tile(truth.size[::-1], 2)


def _pxap(weights: metrics.Weights, pixels: NDArray[Any]) -> NDArray[np.float64]:
    drawn = weights @ pixels.reshape(len(pixels), -1).astype(np.float64)
    counts = drawn.reshape(len(weights), *pixels.shape[1:])
    return np.array([wsoleval.pxap(each) for each in counts])


PXAP = metrics.Metric("pxap", "PxAP", lambda of: of.pixels, better="higher", figure=_pxap)


def table() -> tuple[metrics.Metric, ...]:
    """The metrics of maps: all there are, and PxAP where there are masks."""
    return (*metrics.METRICS, PXAP)


def figures(measured: Measured, *, bootstrap: int, seed: int) -> dict[str, metrics.Figure]:
    """GT-known error, MaxBoxAcc and MaxBoxAccV2 where there are boxes, PxAP where there are masks."""
    return metrics.figures(measured.scored, bootstrap=bootstrap, seed=seed, table=table())
