"""Heatmap → boxes: resizing, min–max, and the boxes of its components at any number of thresholds.

Boxes are x0, y0, x1, y1; maps are [B, height, width]. Two protocols:

`classic`   a pixel is on if value ≥ τ · max (in double precision); components are 8-connected, the
            largest has most pixels (on a tie: the first pixel in raster order comes first), edges are
            half-open. No pixel on (τ > 1): the whole map, the answer that claims nothing.
`wsoleval`  as clovaai/wsolevaluation: see `pipeline.boxes.wsoleval`.

Numba is imported, and the sweep compiled (once, cached), when the first sweep is asked for.
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from torch.nn.functional import interpolate

Protocol = Literal["classic", "wsoleval"]
PROTOCOLS = get_args(Protocol)
IMAGES_AT_ONCE = 16  # per thread: room for one map is allocated once for so many


class Curve(NamedTuple):
    """Best IoU with any ground-truth box at every threshold, [B, T]; NaN rows have no ground truth."""

    largest: NDArray[np.float32]  # of the largest component's box
    any: NDArray[np.float32]  # of the best component's box


def resize(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Maps [B, h, w] at `size` (height, width): bilinear, pixel centres (align_corners false)."""
    return interpolate(maps[:, None], size=size, mode="bilinear", align_corners=False)[:, 0]


def normalise(maps: Tensor) -> Tensor:
    """Maps [B, H, W] scaled per image from its minimum and maximum to 0 … 1; constant maps → 0."""
    low = maps.amin(dim=(1, 2), keepdim=True)
    spread = maps.amax(dim=(1, 2), keepdim=True) - low
    return (maps - low) / torch.where(spread > 0, spread, 1)


def ivr(maps: Tensor, quantile: float) -> Tensor:
    """Maps [B, H, W] less their own quantile, cut at zero, by their maximum: 0 … 1; constant maps → 0.

    J. Kim et al., "Normalization Matters in Weakly Supervised Object Localization", ICCV 2021.
    """
    cut = torch.quantile(maps.flatten(1), quantile, dim=1)[:, None, None]
    above = (maps - cut).relu()
    top = above.amax(dim=(1, 2), keepdim=True)
    return above / torch.where(top > 0, top, 1)


def boxes_at(
    maps: NDArray[Any], thresholds: ArrayLike, protocol: Protocol = "classic"
) -> NDArray[np.float32]:
    """Box [B, 4] of the largest component at one threshold, or at one per image [B]."""
    each = np.broadcast_to(np.asarray(thresholds, np.float64).reshape(-1, 1), (len(maps), 1))
    return sweep(maps, each, protocol)[:, 0].astype(np.float32)


def sweep(
    maps: NDArray[Any],
    thresholds: ArrayLike,
    protocol: Protocol = "classic",
    *,
    threads: int | None = None,
) -> NDArray[np.int32]:
    """Boxes [B, T, 4] of the largest component at rising thresholds [T], or [B, T]."""
    return _sweep(maps, thresholds, protocol, threads=threads)[0]


def curve(
    maps: NDArray[Any],
    truth: Sequence[NDArray[Any]],
    thresholds: ArrayLike,
    protocol: Protocol = "classic",
    *,
    threads: int | None = None,
) -> Curve:
    """Best IoU of each image's largest and of its best component with boxes [n, 4], per threshold.

    `truth` is in the maps' pixels: half-open edges under `classic`, the benchmark's own inclusive
    corners under `wsoleval`.
    """
    if len(truth) != len(maps):
        raise ValueError(f"{len(maps)} maps but ground truth for {len(truth)}")
    boxes = [np.asarray(b, np.float64).reshape(-1, 4) for b in truth]
    scored = _sweep(maps, thresholds, protocol, truth=boxes, threads=threads)[1]
    without = np.array([len(b) == 0 for b in boxes], bool)
    scored.largest[without] = np.nan
    scored.any[without] = np.nan
    return scored


def seeds(
    maps: NDArray[Any],
    thresholds: ArrayLike,
    grid: tuple[int, int],
    *,
    outline: bool,
    threads: int | None = None,
) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
    """Largest boxes [B, T, 4] under `classic` and the cells [B, T, h, w] of `grid` that hold them.

    Those are the cells under the component's pixels on the four sides of its box or, with `outline`,
    under all its pixels that have a 4-neighbour outside it.
    """
    boxes, _, cells = _sweep(
        maps, thresholds, "classic", grid=grid, outline=outline, threads=threads
    )
    return boxes, cells


def components(
    values: NDArray[Any], thresholds: ArrayLike, protocol: Protocol = "classic"
) -> NDArray[np.int32]:
    """Boxes of all components of one map [H, W] at rising thresholds [T], as spans [n, 6].

    A span is x0, y0, x1, y1, first, last: a component has this box at thresholds first … last. Under
    `wsoleval` the borders of holes are among them.
    """
    levels, falls, taus = _levels(values[None], thresholds, protocol, 1)
    boxes = np.empty((1, taus.shape[1], 4), np.int32)

    from pipeline.boxes.threshold_sweep.kernels import every_span

    found = every_span(levels, protocol == "wsoleval", boxes, np.empty((1, 0, 0, 0), np.bool_))
    spans = np.concatenate([part.view(np.int32).reshape(-1, 6) for part in found])
    if falls[0]:
        spans[:, 4:] = taus.shape[1] - 1 - spans[:, :3:-1]
    return spans


def _sweep(
    maps: NDArray[Any],
    thresholds: ArrayLike,
    protocol: Protocol,
    *,
    truth: Sequence[NDArray[np.float64]] | None = None,
    grid: tuple[int, int] | None = None,
    outline: bool = False,
    threads: int | None,
) -> tuple[NDArray[np.int32], Curve, NDArray[np.bool_]]:
    """Boxes [B, T, 4]; with `truth` the curve, else [B, 0]; with `grid` cells [B, T, h, w]."""
    levels, falls, taus = _levels(maps, thresholds, protocol, threads)
    images, steps = len(levels), taus.shape[1]
    flat = np.concatenate([np.empty((0, 4)), *(truth or [])])
    offsets = np.zeros(images + 1, np.int64)
    if truth:
        offsets[1:] = np.cumsum([len(b) for b in truth])
    boxes = np.empty((images, steps, 4), np.int32)
    largest, every = np.empty((2, images, 0 if truth is None else steps), np.float32)
    cells = np.zeros((images, steps, *grid) if grid else (images, 0, 0, 0), np.bool_)

    from pipeline.boxes.threshold_sweep.kernels import curves

    def work(part: slice) -> None:
        curves(
            levels[part],
            protocol == "wsoleval",
            outline,
            flat,
            offsets[part.start : part.stop + 1],
            boxes[part],
            largest[part],
            every[part],
            cells[part],
        )

    in_parallel(work, images, threads)
    if falls.any():
        for array in (boxes, largest, every, cells):
            array[falls] = array[falls, ::-1]
    return boxes, Curve(largest, every), cells


def _levels(
    maps: NDArray[Any], thresholds: ArrayLike, protocol: Protocol, threads: int | None
) -> tuple[NDArray[np.signedinteger[Any]], NDArray[np.bool_], NDArray[np.float64]]:
    """(levels [B, H + 2, W + 2], in a frame below them; whether they count from the last threshold [B];
    thresholds [1 or B, T]).
    """
    taus = np.atleast_2d(np.asarray(thresholds, np.float64))
    maps, tops = _checked(maps, taus, protocol)
    small = np.int16 if taus.shape[1] < 2**15 - 1 else np.int32
    levels = np.empty((len(maps), maps.shape[1] + 2, maps.shape[2] + 2), small)
    falls = np.zeros(len(maps), np.bool_)

    from pipeline.boxes.threshold_sweep import levels as quantised

    fill = quantised.byte_levels if protocol == "wsoleval" else quantised.float_levels

    def work(part: slice) -> None:
        each = taus[part] if len(taus) > 1 else taus
        fill(maps[part], tops[part], each, levels[part], falls[part])

    in_parallel(work, len(maps), threads)
    return levels, falls, taus


def _checked(
    maps: NDArray[Any], taus: NDArray[np.float64], protocol: Protocol
) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """The maps as a contiguous array, 8-bit under `wsoleval`, and their maxima [B]; or ValueError."""
    if protocol not in PROTOCOLS:
        raise ValueError(f"protocol is {protocol!r}; allowed: {', '.join(PROTOCOLS)}")
    if maps.ndim != 3 or 0 in maps.shape[1:]:
        raise ValueError(f"maps have shape {maps.shape}; allowed: [B, height, width], not empty")
    if taus.size == 0 or np.isnan(taus).any() or (np.diff(taus) < 0).any():
        raise ValueError("thresholds must be given in rising order, at least one")
    maps = np.ascontiguousarray(maps)
    flat = maps.reshape(len(maps), maps.shape[1] * maps.shape[2])
    tops = flat.max(1)
    if maps.dtype != np.uint8 and maps.size:
        low, high = flat.min(), tops.max()
        if not (np.isfinite(low) and np.isfinite(high)):
            raise ValueError("maps hold NaN or infinite values")
        if protocol == "wsoleval":
            if low < 0 or high > 1:
                raise ValueError("maps leave 0 … 1; under wsoleval they are scaled to it before")
            maps, tops = ((of * 255).astype(np.uint8) for of in (maps, tops))
    return maps, tops.astype(np.float64)


def in_parallel(work: Callable[[slice], None], images: int, threads: int | None = None) -> None:
    """Call `work` for all images in parts, on threads: compiled code lets go of the GIL.

    As many threads as asked for, else as NUMBA_NUM_THREADS says, else as torch uses.
    """
    threads = threads or int(os.environ.get("NUMBA_NUM_THREADS", 0)) or torch.get_num_threads()
    step = max(1, min(IMAGES_AT_ONCE, -(-images // threads)))
    parts = [slice(i, min(i + step, images)) for i in range(0, images, step)]
    if threads == 1 or len(parts) <= 1:
        for part in parts:
            work(part)
        return
    with ThreadPoolExecutor(threads) as pool:
        for done in [pool.submit(work, part) for part in parts]:
            done.result()
