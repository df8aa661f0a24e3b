"""A heatmap as levels: the level of a pixel is the number of thresholds it passes."""

import hashlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
import numpy as np
from numba.core import event
from numba.core.caching import UserProvidedCacheLocator


class NamedByContent(UserProvidedCacheLocator):
    """The cache folder is named after the text of the functions, not after where their files lie."""

    @classmethod
    def get_suitable_cache_subpath(cls, py_file: str) -> str:
        return Path(py_file).stem


def _compiled() -> Callable[[Callable[..., Any]], Any]:
    """Compile on first call without holding the GIL, and keep the result on disk.

    Numba's cache looks at the one file a function stands in; the functions of a sweep call each
    other over several, so their cache is named after the text of all.
    """
    config: Any = numba.config
    here = Path(__file__).parent
    text = b"".join(path.read_bytes() for path in sorted(here.glob("*.py")))
    # DVC runs experiments in copies of the repository that it deletes: the main one keeps the cache.
    root = Path(config.CACHE_DIR or Path(os.environ.get("DVC_ROOT", here.parents[2])) / ".numba")
    cache = root / f"sweep-{hashlib.sha256(text).hexdigest()[:16]}"

    def decorate(function: Callable[..., Any]) -> Any:
        before = config.CACHE_DIR, config.CACHE_LOCATOR_CLASSES
        config.CACHE_DIR = str(cache)
        # Where that folder cannot be written, the user's own cache.
        config.CACHE_LOCATOR_CLASSES = f"{__name__}.NamedByContent, UserWideCacheLocator"
        try:
            return numba.njit(cache=True, nogil=True, error_model="numpy")(function)
        finally:
            config.CACHE_DIR, config.CACHE_LOCATOR_CLASSES = before

    return decorate


class Announcement(event.Listener):
    """Says that the sweep is being compiled when it is, not when it is taken from the cache."""

    def __init__(self) -> None:
        self.told = False

    def on_start(self, event: Any) -> None:
        ours = event.data["dispatcher"].py_func.__module__.startswith("pipeline.boxes.")
        if ours and not self.told:
            self.told = True
            told = (
                "boxes: compiling the sweep over thresholds, once on this machine: some 20 seconds"
            )
            print(told, file=sys.stderr, flush=True)

    def on_end(self, event: Any) -> None:
        pass


event.register("numba:compile", Announcement())
jit = _compiled()


@jit
def spacing(limits):  # type: ignore[no-untyped-def]
    """(lowest limit, limits per unit, slack) of rising limits.

    (value − lowest) · per unit + 1 never falls as the value rises; rounded down, it is how many limits
    are ≤ value, unless it is within `slack` of a whole number: then it may be one off. Slack 1: the
    limits are not evenly spaced, and nothing can be said.
    """
    low = limits[0]
    spread = limits[-1] - low
    scale = (limits.size - 1) / spread if spread > 0 else 1.0
    slack = 0.0
    for k in range(limits.size):
        error = abs((limits[k] - low) * scale - k)
        if not error < 0.25:  # or NaN
            return low, scale, 1.0
        slack = max(slack, abs((limits[k] - low) * scale + 1.0 - (k + 1)))
    return low, scale, slack


@jit
def row_levels(row, limits, low, scale, slack, out):  # type: ignore[no-untyped-def]
    """How many of the rising limits are ≤ each value of a row, exactly; the rest from `spacing`."""
    most = np.float64(limits.size)
    close = slack == 1.0
    if not close:
        for x in range(row.size):  # no branches: many pixels at once
            reached = (np.float64(row[x]) - low) * scale + 1.0
            out[x] = np.int32(min(max(reached, 0.0), most))
            close |= abs(reached - np.rint(reached)) <= slack
    if close:
        for x in range(row.size):
            value = np.float64(row[x])
            k = np.int64(out[x])
            if slack == 1.0:
                k = np.searchsorted(limits, value, side="right")
            elif k < limits.size and value >= limits[k]:
                k += 1
            elif k > 0 and value < limits[k - 1]:
                k -= 1
            out[x] = k


@jit
def float_levels(maps, tops, thresholds, levels, falls):  # type: ignore[no-untyped-def]
    """Levels of maps [B, H, W]: how many thresholds τ [1 or B, T] have value ≥ τ · max, in float64.

    `tops` [B] are the maxima. The levels come in a frame: [B, H + 2, W + 2]. `falls` [B] is set where the
    maximum is negative: there τ · max falls as τ rises, and levels count the thresholds from the last
    one.
    """
    height, width = maps.shape[1:]
    for i in range(maps.shape[0]):
        falls[i] = tops[i] < 0
        limits = tops[i] * thresholds[i % thresholds.shape[0]]
        if falls[i]:
            limits = limits[::-1].copy()
        low, scale, slack = spacing(limits)
        for y in range(height):
            row_levels(maps[i, y], limits, low, scale, slack, levels[i, y + 1, 1 : width + 1])
        frame(levels[i])


@jit
def frame(level):  # type: ignore[no-untyped-def]
    """The frame around a map is below every level."""
    level[0] = level[-1] = -1
    level[:, 0] = level[:, -1] = -1


@jit
def count_levels(maps, masks, limits, counts):  # type: ignore[no-untyped-def]
    """Add to counts [B, 2, T + 1] the pixels of each level of maps [B, H, W], off and on the object.

    masks: 0 off, 1 on, anything else left out; limits [T] rising.
    """
    low, scale, slack = spacing(limits)
    level = np.empty(maps.shape[2], np.int32)
    for i in range(maps.shape[0]):
        for y in range(maps.shape[1]):
            row_levels(maps[i, y], limits, low, scale, slack, level)
            for x in range(maps.shape[2]):
                if masks[i, y, x] <= 1:
                    counts[i, masks[i, y, x], level[x]] += 1


@jit
def byte_levels(maps, tops, thresholds, levels, falls):  # type: ignore[no-untyped-def]
    """Levels of 8-bit maps [B, H, W]: how many thresholds τ [1 or B, T] have value > int(τ · max).

    All else as float_levels.
    """
    height, width = maps.shape[1:]
    table = np.empty(256, np.int32)
    for i in range(maps.shape[0]):
        taus = thresholds[i % thresholds.shape[0]]
        falls[i] = False
        value = 0
        for k in range(taus.size):
            limit = int(taus[k] * tops[i])
            while value <= min(limit, 255):
                table[value] = k
                value += 1
        table[value:] = taus.size
        for y in range(height):
            row, out = maps[i, y], levels[i, y + 1, 1 : width + 1]
            for x in range(width):
                out[x] = table[row[x]]
        frame(levels[i])
