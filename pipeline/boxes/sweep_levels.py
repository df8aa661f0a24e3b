"""A heatmap as levels, and its flat runs in the order in which a sweep switches them on.

The level of a pixel is the number of thresholds it passes. A *flat run* is a maximal stretch of one
row with one level; runs are numbered in raster order.
"""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
import numpy as np
from numba.core.caching import UserProvidedCacheLocator


class NamedByContent(UserProvidedCacheLocator):
    """The cache folder is named after the text of the functions, not after where their files lie."""

    @classmethod
    def get_suitable_cache_subpath(cls, py_file: str) -> str:
        return Path(py_file).stem


def _compiled(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """Compile on first call without holding the GIL, and keep the result on disk.

    Numba's cache looks at the one file a function stands in; the functions of a sweep call each
    other over several, so their cache is named after the text of all.
    """
    config: Any = numba.config
    here = Path(__file__).parent
    text = b"".join(path.read_bytes() for path in sorted(here.glob("sweep*.py")))
    # DVC runs experiments in copies of the repository that it deletes: the main one keeps the cache.
    root = Path(config.CACHE_DIR or Path(os.environ.get("DVC_ROOT", here.parents[1])) / ".numba")
    cache = root / f"sweep-{hashlib.sha256(text).hexdigest()[:16]}"

    def decorate(function: Callable[..., Any]) -> Any:
        before = config.CACHE_DIR, config.CACHE_LOCATOR_CLASSES
        config.CACHE_DIR = str(cache)
        # Where that folder cannot be written, the user's own cache.
        config.CACHE_LOCATOR_CLASSES = f"{__name__}.NamedByContent, UserWideCacheLocator"
        try:
            return numba.njit(cache=True, nogil=True, error_model="numpy", **options)(function)
        finally:
            config.CACHE_DIR, config.CACHE_LOCATOR_CLASSES = before

    return decorate


jit = _compiled()
# For what is called once per run: handing arrays to a compiled function costs more than its work.
inlined = _compiled(inline="always")


@inlined
def level_of(value, limits, scale):  # type: ignore[no-untyped-def]
    """How many of the rising limits (the last one infinite) are ≤ value.

    The guess is right or one off where limits are evenly spaced; it is mended for any.
    """
    n = limits.size - 1
    k = int(min(max((value - limits[0]) * scale + 1.0, 0.0), np.float64(n)))
    while value >= limits[k]:
        k += 1
    while k > 0 and value < limits[k - 1]:
        k -= 1
    return k


@inlined
def limits_per_unit(limits):  # type: ignore[no-untyped-def]
    """Density of the rising limits, without the infinite last one; 0 if they are all equal."""
    spread = limits[-2] - limits[0]
    return (limits.size - 2) / spread if spread > 0 else 0.0


@jit
def float_levels(maps, thresholds, levels, falls):  # type: ignore[no-untyped-def]
    """Levels of maps [B, H, W]: how many thresholds τ [1 or B, T] have value ≥ τ · max, in float64.

    `falls` [B] is set where the maximum is negative: there τ · max falls as τ rises, and levels
    count the thresholds from the last one.
    """
    n = thresholds.shape[1]
    limits = np.full(n + 1, np.inf)
    for i in range(maps.shape[0]):
        values = maps[i]
        top = np.float64(values.max())
        falls[i] = top < 0
        taus = thresholds[i % thresholds.shape[0]]
        for k in range(n):
            limits[k] = top * taus[n - 1 - k if falls[i] else k]
        scale = limits_per_unit(limits)
        for y in range(values.shape[0]):
            for x in range(values.shape[1]):
                levels[i, y, x] = level_of(np.float64(values[y, x]), limits, scale)


@jit
def count_levels(maps, masks, limits, counts):  # type: ignore[no-untyped-def]
    """Add to counts [B, 2, T + 1] the pixels of each level of maps [B, H, W], off and on the object.

    masks: 0 off, 1 on, anything else left out; limits [T + 1] rising, the last one infinite.
    """
    scale = limits_per_unit(limits)
    for i in range(maps.shape[0]):
        for y in range(maps.shape[1]):
            for x in range(maps.shape[2]):
                if masks[i, y, x] <= 1:
                    k = level_of(np.float64(maps[i, y, x]), limits, scale)
                    counts[i, masks[i, y, x], k] += 1


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


@inlined
def unpack(run):  # type: ignore[no-untyped-def]
    """(row, start, stop) of a packed run."""
    return run >> 42, (run >> 21) & 0x1FFFFF, run & 0x1FFFFF
