"""Basins: the runs that flow to one peak of a map, and all that happens to them, level by level.

Every run that is not a peak touches one that comes before it, and so belongs to a basin. At any
level, what is on of a basin is part of one component. So what a sweep joins are basins, and all it
has to know is which runs go on at a level (entries) and which basins meet there (edges). Read from
the other end of the order, the same holds for pits and holes.

Indices are unsigned: numba need not ask whether they count from the end.
"""

import numpy as np

from pipeline.boxes.sweep_levels import jit
from pipeline.boxes.sweep_runs import AFTER, ARCS, BEFORE, GAPS, neighbour

ENTRY = np.dtype(
    [("basin", np.uint32)]
    + [(name, np.int32) for name in ("left", "top", "right", "bottom", "pixels", "start", "level")]
    + [("change", np.int64)],
    align=True,
)
NONE = np.uint32(2**32 - 1)
EDGE = np.dtype([("a", np.uint32), ("b", np.uint32), ("level", np.int32)])


@jit
def basins_room(rows, stride, thresholds):  # type: ignore[no-untyped-def]
    """Room for basins, entries and edges; every map of a batch uses it again."""
    size = rows * stride
    return (
        np.empty(size + 2, np.uint32),
        np.empty(size + 2, np.int32),
        np.empty(size + 2, np.uint32),
        np.empty(2 * size, np.uint32),
        np.empty(size + 2, ENTRY),
        np.empty(size + 2, ENTRY),
        np.empty(thresholds + 4, np.uint32),
        np.empty(4 * size + 1, EDGE),
        np.empty(4 * size + 1, EDGE),
        np.empty(thresholds + 4, np.uint32),
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
            basin[r] = basin[run_of[np.uint32(pixel + way)]]
        else:
            flows[names] = -1 - run_of[np.uint32(pixel + way)]
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
def find_entries(level, stride, found, contours, basin, count, room):  # type: ignore[no-untyped-def]
    """What the runs add to components, in the order of levels.

    In smooth maps, all runs of one basin and one level are one entry; in rough ones, looking that up would
    not pay.

    Returns the entries and `first`: those of level k are [first[k + 1], first[k + 2]).
    """
    slot, loose, entries, first = room[3:7]
    if not gather_runs(level, stride, found, contours, basin, count, slot, loose, entries, first):
        sort_runs(level, stride, found, contours, basin, entries, first)
    return entries, first


@jit
def sort_runs(level, stride, found, contours, basin, entries, first):  # type: ignore[no-untyped-def]
    """Every run as an entry of its own."""
    start, change = found[2], found[3]
    first[:] = 0
    for r in range(start.size - 1):
        first[np.uint32(level[start[r]] + 3)] += 1
    begin(first)
    y, row = -1, stride
    for r in range(start.size - 1):
        while start[r] >= row:
            y += 1
            row += stride
        k = np.uint32(level[start[r]] + 2)
        entry = entries[first[k]]
        first[k] += 1
        entry.basin, entry.start, entry.top, entry.bottom = basin[r], start[r], y, y + 1
        entry.left, entry.right = start[r] - row + stride - 1, start[r + 1] - row + stride - 1
        entry.pixels = entry.right - entry.left
        if contours:
            entry.change = change[r + 1] - change[r]


@jit
def gather_runs(  # type: ignore[no-untyped-def]
    level, stride, found, contours, basin, count, slot, loose, entries, first
):
    """The runs of one basin and one level as one entry; False and nothing of use where that would not pay.

    Whether it pays shows in the first eighth of the runs.
    """
    start, change = found[2], found[3]
    levels = first.size - 2
    cells = max(1, count) * levels  # runs that have no basin say 0
    if cells > slot.size:
        return False
    slot[:cells] = NONE
    first[:] = 0
    n = np.uint32(0)
    y, row = -1, stride
    for r in range(start.size - 1):
        if r == start.size // 8 and n > 0.3 * r:
            return False
        while start[r] >= row:
            y += 1
            row += stride
        here = level[start[r]]
        left, right = start[r] - row + stride - 1, start[r + 1] - row + stride - 1
        at = np.uint32(basin[r] * levels + here + 1)
        if slot[at] == NONE:
            slot[at] = n
            entry = loose[n]
            n += np.uint32(1)
            first[np.uint32(here + 3)] += 1
            entry.basin, entry.level, entry.start, entry.top = basin[r], here, start[r], y
            entry.left, entry.right, entry.pixels, entry.change = left, right, 0, 0
        entry = loose[slot[at]]
        entry.left, entry.right = min(entry.left, left), max(entry.right, right)
        entry.bottom = y + 1
        entry.pixels += right - left
        if contours:
            entry.change += change[r + 1] - change[r]
    begin(first)
    for e in range(n):
        k = np.uint32(loose[e].level + 2)
        entries[first[k]] = loose[e]
        first[k] += 1
    return True


@jit
def find_edges(level, stride, found, basin, falling, room):  # type: ignore[no-untyped-def]
    """Where basins meet: arcs of neighbours (`ARCS`, `GAPS`) in another basin than their pixel, in the
    order of its level.

    Returns the edges and `first`: those of level k are [first[k + 1], first[k + 2]).
    """
    before, run_of, _, _, meeting = found
    ways = ARCS if falling else GAPS
    loose, edges, first = room[7:]
    first[:] = 0
    n = np.uint32(0)
    for i in range(meeting.size):
        pixel = meeting[i]
        here, own = level[pixel], basin[run_of[pixel]]
        way = ways[before[pixel]]
        while way:
            edge = loose[n]
            edge.a, edge.level = own, here
            edge.b = basin[run_of[np.uint32(pixel + neighbour(way & 7, stride))]]
            n += np.uint32(edge.b != own)
            way >>= 4
    for i in range(n):
        first[np.uint32(loose[i].level + 3)] += 1
    begin(first)
    for i in range(n):
        k = np.uint32(loose[i].level + 2)
        edges[first[k]] = loose[i]
        first[k] += 1
    return edges, first


@jit
def begin(first):  # type: ignore[no-untyped-def]
    """From how many there are of each level, to where each level begins."""
    for k in range(1, first.size):
        first[k] += first[k - 1]
