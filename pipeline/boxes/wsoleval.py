"""The conventions of clovaai/wsolevaluation, kept to the last bit.

J. Choe et al., "Evaluating Weakly Supervised Object Localization Methods Right", CVPR 2020. Where this
differs from common sense it is the benchmark that does:

heatmaps   OpenCV's bicubic resize in double precision (it overshoots), then min–max per image; maps
           constant or with NaN become zeros; 8 bits by truncation.
on         value > int(τ · max of the 8-bit map).
components 8-connected contours; the largest by contour area, the polygon through pixel *centres* (a
           line has none); of equals, the one whose first pixel in raster order comes last. V2 also
           takes the borders of holes, one pixel larger on each side than the hole.
boxes      inclusive corners, but x1 = x + width and y1 = y + height, then at most the map's last pixel.
           Nothing on: 0, 0, 0, 0 (area 1).
truth      inclusive corners in original pixels, scaled and truncated to integers, neither clipped nor
           made one smaller.

The contours themselves are found in `pipeline.boxes` with protocol `wsoleval`.
"""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipeline.boxes import in_parallel

GRID = (224, 224)  # height, width on which the benchmark scores


def heatmaps(raw: NDArray[Any], size: tuple[int, int] = GRID) -> NDArray[np.float64]:
    """Raw class maps [B, h, w] → maps [B, height, width] in 0 … 1."""
    return normalise(resize(raw, size))


def resize(maps: NDArray[Any], size: tuple[int, int]) -> NDArray[np.float64]:
    """cv2.resize with INTER_CUBIC of double-precision maps [B, h, w], bit for bit."""
    maps = np.asarray(maps, np.float64)
    columns, across = _cubic(maps.shape[2], size[1])
    rows, down = _cubic(maps.shape[1], size[0])
    # The order of the sums is OpenCV's.
    wide = sum(maps[:, :, columns[j]] * across[j] for j in range(4))
    return np.asarray(sum(wide[:, rows[j]] * down[j][:, None] for j in range(4)))


def _cubic(source: int, target: int) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Source pixels and weights [4, target] of cubic convolution, a = −0.75, in OpenCV's single precision."""
    scale = 1 / (target / source)
    where = ((np.arange(target) + 0.5) * scale - 0.5).astype(np.float32)
    first = np.floor(where)
    x = where - first
    one, a = np.float32(1), np.float32(-0.75)
    w0 = ((a * (x + one) - 5 * a) * (x + one) + 8 * a) * (x + one) - 4 * a
    w1 = ((a + 2) * x - (a + 3)) * x * x + one
    w2 = ((a + 2) * (one - x) - (a + 3)) * (one - x) * (one - x) + one
    weights = np.stack([w0, w1, w2, one - w0 - w1 - w2])
    pixels = first.astype(np.intp) + np.arange(-1, 3)[:, None]
    return pixels.clip(0, source - 1), weights.astype(np.float64)


def normalise(maps: NDArray[np.float64]) -> NDArray[np.float64]:
    """Maps [B, H, W] from their minimum and maximum to 0 … 1; constant or with NaN: zeros."""
    low = maps.min(axis=(1, 2), keepdims=True)
    shifted = maps - low
    high = shifted.max(axis=(1, 2), keepdims=True)
    out = np.zeros_like(maps)
    return np.divide(shifted, high, out=out, where=high > 0)  # false for NaN


def quantise(maps: NDArray[Any]) -> NDArray[np.uint8]:
    """Maps in 0 … 1 as the benchmark's 8 bits."""
    return (maps * 255).astype(np.uint8)


def corners(edges: ArrayLike, size: tuple[int, int]) -> NDArray[np.float64]:
    """Half-open boxes [n, 4] → the inclusive corners of the benchmark's CUB lists, in original pixels.

    They end at x + width, not one before, but inside the image of `size` (height, width).
    """
    height, width = size
    whole = np.trunc(np.asarray(edges, np.float64).reshape(-1, 4))
    return np.minimum(whole, [np.inf, np.inf, width - 1, height - 1])


def scale(
    boxes: ArrayLike, size: tuple[int, int], grid: tuple[int, int] = GRID
) -> NDArray[np.float64]:
    """Boxes [n, 4] of an image of `size` (height, width) on the `grid`, truncated to integers."""
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    return np.trunc(boxes * np.tile(grid[::-1], 2) / np.tile(size[::-1], 2))


def mask(
    instances: NDArray[Any], ignore: NDArray[Any] | None = None, size: tuple[int, int] = GRID
) -> NDArray[np.uint8]:
    """Masks [n, h, w] of an image's objects → one [height, width]: 1 object, 0 not, 255 to be ignored.

    Scaled as cv2.resize with INTER_NEAREST; above 0.5 is object; what is object is never ignored.
    """
    rows, columns = (
        np.minimum(np.arange(n) * (1 / (n / m)), m - 1).astype(np.intp)
        for n, m in zip(size, instances.shape[1:], strict=True)
    )
    on = (instances[:, rows[:, None], columns] > 0.5).any(axis=0)
    left_out = False if ignore is None else ignore[rows[:, None], columns] > 0.5
    return np.where(on, 1, np.where(left_out, 255, 0)).astype(np.uint8)


def count_pixels(
    maps: NDArray[Any], masks: NDArray[np.uint8], thresholds: ArrayLike
) -> NDArray[np.int64]:
    """Pixels [B, 2, T + 2] off and on the object, by how many of the rising thresholds and 1 they reach."""
    limits = np.append(np.asarray(thresholds, np.float64), 1)
    counts = np.zeros((len(maps), 2, len(limits) + 1), np.int64)

    from pipeline.boxes.threshold_sweep.levels import count_levels

    def work(part: slice) -> None:
        count_levels(maps[part], masks[part], limits, counts[part])

    in_parallel(work, len(maps))
    return counts


def pxap(counts: NDArray[Any]) -> float:
    """PxAP in percent from the pixel counts [2, T + 2] of a whole data set, added up.

    The area under precision and recall: Σ P_k · (R_k − R_{k−1}) from the highest threshold down, right
    rectangles; thresholds that no pixel reaches are passed over. NaN without any object pixel.
    """
    false, true = counts[:, :0:-1].cumsum(axis=1)
    if not true[-1]:
        return float("nan")
    gained = np.diff(true / true[-1], prepend=0)
    some = true + false > 0
    return float((true[some] / (true[some] + false[some]) * gained[some]).sum() * 100)
