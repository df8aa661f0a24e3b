"""Which neighbours of each pixel are on before it, and the flat runs of a map.

A *flat run* is a maximal stretch of one row with one level; its pixels go on together. All pixels are
put into one order: by level, the higher first, and within a level in raster order. The neighbours that
come before a pixel are a byte, bit k the k-th counter-clockwise from the right. All that switching
the pixel on does follows from that byte: what it belongs to, which components it joins, and by how
much it changes area and Euler number. Read from the other end, the order and the complements of the
bytes do the same for the holes, 4-connected.

Maps lie in a frame, row after row, `stride` = W + 2 pixels each; pixels are counted with the frame.
"""

import numpy as np

from pipeline.boxes.threshold_sweep.levels import jit

EAST, NORTH, WEST, SOUTH = 0, 2, 4, 6
SIDES = 1 << EAST | 1 << NORTH | 1 << WEST | 1 << SOUTH


def _arcs(before: int) -> list[int]:
    """Directions, one on each 8-connected arc of the neighbours that come before.

    Arcs are parted by a side that is off, with the corner after it if that is off too; what follows is
    on the next arc.
    """
    on = [before >> (k % 8) & 1 for k in range(10)]
    ends = [k for k in (EAST, NORTH, WEST, SOUTH) if not on[k] and (on[k + 1] or on[k + 2])]
    return [(k + 1) % 8 if on[k + 1] else (k + 2) % 8 for k in ends]


def _gaps(before: int) -> list[int]:
    """Directions, one side on each 4-connected arc of the neighbours that do not come before."""
    on = [before >> (k % 8) & 1 for k in range(10)]
    return [k for k in (EAST, NORTH, WEST, SOUTH) if not on[k] and (on[k + 1] or on[k + 2])]


def _change(before: int) -> int:
    """Change of the component's Euler number, times 2³², and of twice its area.

    A 2 × 2 block of pixels adds half a square when its third goes on, another half with its fourth.
    """
    area = sum(
        sum(before >> (k + j) % 8 & 1 for j in range(3)) >= 2 for k in (EAST, NORTH, WEST, SOUTH)
    )
    return (1 - len(_gaps(before))) * 2**32 + area


def _packed(directions: list[int]) -> int:
    """At most four directions, 4 bits each (8 is added to tell them from nothing)."""
    return sum((8 + k) << 4 * i for i, k in enumerate(directions))


ARCS = np.array([_packed(_arcs(before)) for before in range(256)], np.int32)
GAPS = np.array([_packed(_gaps(before)) for before in range(256)], np.int32)
CHANGE = np.array([_change(before) for before in range(256)], np.int64)
# One neighbour that comes before, or one side that does not; of many the first in raster order.
RASTER = (3, NORTH, 1, WEST, EAST, 5, SOUTH, 7)
BEFORE = np.array([next((k for k in RASTER if m >> k & 1), -1) for m in range(256)], np.int32)
AFTER = np.array(
    [next((k for k in RASTER[::-1] if ~m & SIDES & 1 << k), -1) for m in range(256)], np.int32
)
ACROSS = np.array([1, 1, 0, -1, -1, -1, 0, 1], np.int32)
DOWN = np.array([0, -1, -1, -1, 0, 1, 1, 1], np.int32)


@jit
def neighbour(direction, stride):  # type: ignore[no-untyped-def]
    """Where it lies, seen from a pixel."""
    return DOWN[direction] * stride + ACROSS[direction]


@jit
def look_around(level, stride, before, meets):  # type: ignore[no-untyped-def]
    """Fill `before` with each pixel's neighbours that come before it, `meets` with whether they are more
    than one arc (in the frame, anything). No branches: many pixels at once.
    """
    n = level.size - 2 * stride - 2
    first = stride + 1
    east, west = level[first + 1 : first + 1 + n], level[first - 1 : first - 1 + n]
    north, south = level[1 : 1 + n], level[first + stride : first + stride + n]
    north_east, north_west = level[2 : 2 + n], level[:n]
    south_west = level[first + stride - 1 : first + stride - 1 + n]
    south_east = level[first + stride + 1 : first + stride + 1 + n]
    here, out, several = level[first:][:n], before[first:][:n], meets[first:][:n]
    for i in range(n):
        out[i] = (
            np.int32(east[i] > here[i])
            | np.int32(north_east[i] >= here[i]) << 1
            | np.int32(north[i] >= here[i]) << 2
            | np.int32(north_west[i] >= here[i]) << 3
            | np.int32(west[i] >= here[i]) << 4
            | np.int32(south_west[i] > here[i]) << 5
            | np.int32(south[i] > here[i]) << 6
            | np.int32(south_east[i] > here[i]) << 7
        )
    byte = np.uint8  # numba would take more
    for i in range(n):
        # An arc ends at a side that is off, see `_gaps`.
        on = out[i]
        turned = byte(on >> 1) | byte(on << 7) | byte(on >> 2) | byte(on << 6)
        ends = byte(byte(~on) & byte(turned) & byte(SIDES))
        several[i] = byte(byte(ends & byte(ends - byte(1))) != 0)


@jit
def runs_room(rows, stride):  # type: ignore[no-untyped-def]
    """Room for the runs of a map, see `find_runs`; every map of a batch uses it again."""
    size = rows * stride
    return (
        np.zeros(size, np.uint8),
        np.zeros(size, np.uint8),
        np.empty(size, np.uint32),
        np.empty(size + 2, np.uint32),
        np.empty(size + 1, np.uint32),
        np.empty(size + 2, np.int64),
    )


@jit
def find_runs(level, stride, contours, room):  # type: ignore[no-untyped-def]
    """Fill the room with the runs of a map. Returns the parts of it that last:

    before   the neighbours that come before each pixel
    run_of   the run each pixel is part of
    start    first pixel of each run; the run ends where the next one starts
    change   of area and Euler number (`_change`) by all runs before each, with `contours`
    meeting  the pixels at which arcs of such neighbours meet
    """
    before, arcs, run_of, start, meeting, change = room
    look_around(level, stride, before, arcs)
    # Written for every pixel, kept is what the last of a run wrote: no branches.
    r, found, last, done = 0, 0, level[0], np.int64(0)
    start[0], change[0] = 0, 0
    for i in range(level.size):
        here = level[i]
        r += here != last
        last = here
        run_of[i] = r
        start[r + 1] = i + 1
        if contours:
            done += CHANGE[before[i]]
            change[r + 1] = done
        meeting[found] = i
        found += arcs[i] & (here >= 0)
    return before, run_of, start[: r + 2], change, meeting[:found]
