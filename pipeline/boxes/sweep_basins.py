"""Basins: the runs that flow to one peak of a map, and what goes on in each at each level.

Every run that is not a peak touches one that comes before it, and so belongs to a basin. At any
level, what is on of a basin is part of one component. So a sweep need not know runs, only entries:
what all runs of one basin and one level add to a component. A smooth map has few basins and many
runs in each entry; a rough one has so many that its runs are entries themselves. Read from the other
end of the order, the same holds for pits and holes.
"""

import numpy as np

from pipeline.boxes.sweep_levels import jit
from pipeline.boxes.sweep_runs import AFTER, BEFORE, begin, neighbour

ENTRY = np.dtype(
    [
        *((name, np.int32) for name in ("basin", "pixels", "start", "left", "top", "right")),
        ("bottom", np.int32),
        ("level", np.int32),
        ("change", np.int64),
    ],
    align=True,
)


@jit
def basins_room(rows, stride, thresholds, dense):  # type: ignore[no-untyped-def]
    """Room for basins and entries; every map of a batch uses it again."""
    size = rows * stride
    return (
        np.empty(size + 2, np.int32),
        np.empty(size + 2, np.int32),
        np.empty(size + 2, np.int32),
        np.empty(size + 2, np.int32),
        np.empty(dense * size, np.int32),
        np.empty(size, ENTRY),
        np.empty(thresholds + 3, np.int32),
        np.empty(thresholds + 1, np.int32),
    )


@jit
def find_basins(level, stride, found, falling, room):  # type: ignore[no-untyped-def]
    """Number the basin of each run: peaks of the level map or, if not `falling`, pits, 4-connected.

    Pit 0 is the frame. Returns the basin of each run, and how many there are; runs that are never on, or
    the frame under `falling`, have none.
    """
    before, run_of, start = found[:3]
    basin, flows, number = room[:3]
    ways = np.zeros(256, np.int32)
    for m in range(256):
        way = BEFORE[m] if falling else AFTER[m]
        if way >= 0:
            ways[m] = neighbour(way, stride)
    runs = start.size - 1
    flows[0] = number[0] = 0
    names = 0 if falling else 1
    lowest = 1 if falling else 0
    # In the order of the pixels, most runs touch one whose basin is known; the others get a name of
    # their own, that stands for where they flow to.
    for i in range(runs):
        r = i if falling else runs - 1 - i
        pixel = start[r] if falling else start[r + 1] - 1
        if level[pixel] < lowest:
            basin[r] = 0
            continue
        way = ways[before[pixel]]
        if way != 0 and (way < 0) == falling:
            basin[r] = basin[run_of[pixel + way]]
        else:
            flows[names] = -1 - run_of[pixel + way]
            basin[r] = names
            names += 1
    for name in range(names):
        if flows[name] < 0:
            flows[name] = basin[-1 - flows[name]]
    count = 0
    for name in range(names):
        if flows[name] == name:
            number[name] = count
            count += 1
    for name in range(names):
        to = name
        while flows[to] != to:
            flows[to] = flows[flows[to]]
            to = flows[to]
        number[name] = number[to]
    for r in range(runs):
        basin[r] = number[basin[r]]
    return basin, count


@jit
def find_entries(level, stride, found, contours, lowest, basin, count, room):  # type: ignore[no-untyped-def]
    """What goes on in each of the basins at each level from `lowest`, in the order of levels.

    Returns the entries and `first`: those of level k are [first[k + 1], first[k + 2]).
    """
    start, change = found[2], found[3]
    order, slot, entries, first, rank = room[3:]
    # Entries are looked up by basin and level or, where those are too many, by levels that occur.
    levels = first.size - 2
    ranked = count * levels > slot.size
    if ranked:
        rank[:] = 0
        for r in range(start.size - 1):
            rank[max(0, level[start[r]])] = 1
        levels = 0
        for k in range(rank.size):
            levels += rank[k]
            rank[k] = levels - 1
    dense = count * levels <= slot.size
    if dense:
        slot[: count * levels] = -1
    first[:] = 0
    n, y, row = 0, -1, stride
    for r in range(start.size - 1):
        here = level[start[r]]
        while start[r] >= row:
            y += 1
            row += stride
        if here < lowest:
            continue
        b = basin[r]
        x0 = start[r] - row + stride - 1
        x1 = x0 + start[r + 1] - start[r]
        e = n
        if dense:
            at = b * levels + (rank[here] if ranked else here)
            e = slot[at]
            if e < 0:
                slot[at] = e = n
        entry = entries[e]
        if e == n:
            n += 1
            first[here + 2] += 1
            entry.basin, entry.level, entry.pixels, entry.change = b, here, 0, 0
            entry.start, entry.top, entry.left, entry.right = start[r], y, x0, x1
        entry.pixels += x1 - x0
        entry.left = min(entry.left, x0)
        entry.right = max(entry.right, x1)
        entry.bottom = y + 1
        if contours:
            entry.change += change[r + 1] - change[r]
    begin(first)
    for e in range(n):
        k = entries[e].level + 1
        order[first[k]] = e
        first[k] += 1
    first[1:] = first[:-1].copy()
    first[0] = 0
    return entries, order, first
