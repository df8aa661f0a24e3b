"""Every threshold's components from one pass over a heatmap: union–find on its flat runs.

A map is first reduced to levels: the number of thresholds a pixel passes. A *flat run* is a maximal
stretch of one row with one level; runs are numbered in raster order. They are switched on level by
level, the highest first, each joined to the runs already on that touch it; what is joined after a
level are the components at that threshold. Work grows with the runs, not with runs × thresholds:
a smooth map at few thresholds has few runs, so the few-threshold case needs no road of its own.
Run upwards with 4-connectivity, the same growth yields the holes of the components.

A component's root is its lowest run, so the root's order is the raster order of first pixels.
Imported only when a sweep is asked for; compiled once, cached beside this file.
"""

import numba
import numpy as np

from pipeline.sweep_contours import add_quads, outer_area

jit = numba.njit(cache=True, nogil=True, error_model="numpy")


@jit
def float_levels(values, thresholds, level):  # type: ignore[no-untyped-def]
    """Level of each pixel: how many thresholds τ have value ≥ τ · max (in double precision).

    Returns whether levels count the thresholds from the last one: for a negative maximum the
    limits τ · max fall as τ rises.
    """
    height, width = values.shape
    n = thresholds.size
    top = values[0, 0]
    for y in range(height):
        for x in range(width):
            top = max(top, values[y, x])
    falls = top < 0
    limits = np.empty(n + 1)
    for k in range(n):
        limits[k] = thresholds[n - 1 - k if falls else k] * top
    limits[n] = np.inf
    low = limits[0]
    spread = limits[n - 1] - low
    scale = (n - 1) / spread if spread > 0 else 0.0
    for y in range(height):
        for x in range(width):
            value = values[y, x]
            # For evenly spaced thresholds the guess is right or one off; it is mended either way.
            guess = min(max((value - low) * scale + 1.0, 0.0), float(n))
            k = int(guess)
            while value >= limits[k]:
                k += 1
            while k > 0 and value < limits[k - 1]:
                k -= 1
            level[y, x] = k
    return falls


@jit
def byte_levels(values, thresholds, level):  # type: ignore[no-untyped-def]
    """Level of each 8-bit pixel: how many thresholds τ have value > int(τ · max)."""
    height, width = values.shape
    top = 0
    for y in range(height):
        for x in range(width):
            top = max(top, int(values[y, x]))
    table = np.zeros(256, np.int32)
    for k in range(thresholds.size):
        for value in range(int(thresholds[k] * top) + 1, 256):
            table[value] = k + 1
    for y in range(height):
        for x in range(width):
            level[y, x] = table[values[y, x]]
    return False


@jit
def flat_runs(level, run_of, run_y, run_x, run_level):  # type: ignore[no-untyped-def]
    """Number the flat runs in raster order; run r covers run_x[r] … run_x[r + 1] of its row."""
    height, width = level.shape
    n = -1
    for y in range(height):
        last = -1
        for x in range(width):
            here = level[y, x]
            if here != last:
                n += 1
                run_y[n] = y
                run_x[n] = x
                run_level[n] = here
                last = here
            run_of[y, x] = n
    return n + 1
