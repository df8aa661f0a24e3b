"""A heatmap as levels, and its flat runs in the order in which a sweep switches them on.

The level of a pixel is the number of thresholds it passes. A *flat run* is a maximal stretch of one
row with one level; runs are numbered in raster order.
"""

import numba
import numpy as np

jit = numba.njit(cache=True, nogil=True, error_model="numpy")


@jit
def float_levels(maps, thresholds, levels, falls):  # type: ignore[no-untyped-def]
    """Levels of maps [B, H, W]: how many thresholds τ [1 or B, T] have value ≥ τ · max, in float64.

    `falls` [B] is set where the maximum is negative: there τ · max falls as τ rises, and levels
    count the thresholds from the last one.
    """
    n = thresholds.shape[1]
    limits = np.empty(n + 1)
    limits[n] = np.inf
    for i in range(maps.shape[0]):
        values = maps[i]
        top = values.max()
        falls[i] = top < 0
        taus = thresholds[i % thresholds.shape[0]]
        for k in range(n):
            limits[k] = (taus[n - 1 - k] if falls[i] else taus[k]) * np.float64(top)
        low = limits[0]
        spread = limits[n - 1] - low
        scale = (n - 1) / spread if spread > 0 else 0.0
        for y in range(values.shape[0]):
            for x in range(values.shape[1]):
                value = np.float64(values[y, x])
                # Right or one off for evenly spaced thresholds; mended for all.
                k = int(min(max((value - low) * scale + 1.0, 0.0), np.float64(n)))
                while value >= limits[k]:
                    k += 1
                while k > 0 and value < limits[k - 1]:
                    k -= 1
                levels[i, y, x] = k


@jit
def byte_levels(maps, thresholds, levels, falls):  # type: ignore[no-untyped-def]
    """Levels of 8-bit maps [B, H, W]: how many thresholds τ [1 or B, T] have value > int(τ · max)."""
    table = np.empty(256, np.int32)
    for i in range(maps.shape[0]):
        values = maps[i]
        top = np.float64(values.max())
        taus = thresholds[i % thresholds.shape[0]]
        falls[i] = False
        table[:] = 0
        value = 0
        for k in range(taus.size):
            limit = int(taus[k] * top)
            while value <= min(limit, 255):
                table[value] = k
                value += 1
        table[value:] = taus.size
        for y in range(values.shape[0]):
            for x in range(values.shape[1]):
                levels[i, y, x] = table[values[y, x]]


@jit
def sort_runs(level, found, runs, bucket):  # type: ignore[no-untyped-def]
    """Sort the flat runs of a level map [H, W] by level, in raster order within one.

    A run is packed as row << 42 | start << 21 | stop; runs[bucket[k]] … runs[bucket[k + 1] − 1] are
    those of level k. `found` is room for as many pairs as pixels.
    """
    height, width = level.shape
    bucket[:] = 0
    n = -1
    for y in range(height):
        last = -1
        for x in range(width):
            here = level[y, x]
            if here != last:
                if x > 0:
                    found[n, 0] |= x
                n += 1
                found[n, 0] = (y << 42) | (x << 21)
                found[n, 1] = here
                bucket[here + 2] += 1
                last = here
        found[n, 0] |= width
    # bucket[k + 1] is where level k's next run goes: at first its start, at last the next one's.
    for k in range(2, bucket.size):
        bucket[k] += bucket[k - 1]
    for r in range(n + 1):
        k = found[r, 1] + 1
        runs[bucket[k]] = found[r, 0]
        bucket[k] += 1
