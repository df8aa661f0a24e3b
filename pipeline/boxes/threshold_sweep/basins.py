"""Basins: the runs that flow to one peak of a map, and all that happens to them, level by level.

Every run that is not a peak touches one that comes before it, and so belongs to a basin. At any
level, what is on of a basin is part of one component. So what a sweep joins are basins, and all it
has to know is which runs go on at a level (entries) and which basins meet there (edges). Read from
the other end of the order, the same holds for pits and holes.

Indices are unsigned: numba need not ask whether they count from the end.
"""

import numpy as np

from pipeline.boxes.threshold_sweep.levels import jit
from pipeline.boxes.threshold_sweep.runs import AFTER, ARCS, BEFORE, GAPS, neighbour

# What a basin's runs of one level add to a component: their box, pixels, first pixel in raster order and
# change of area and Euler number.
ENTRY = np.dtype(
    [("basin", np.uint32)]
    + [(name, np.int32) for name in ("left", "top", "right", "bottom", "pixels", "start", "level")]
    + [("change", np.int64)],
    align=True,
)
RUN = np.dtype([("basin", np.uint32), ("top", np.int32), ("left", np.int32), ("right", np.int32)])
NONE = np.uint32(2**32 - 1)
EDGE = np.dtype([("a", np.uint32), ("b", np.uint32), ("level", np.int32)])


@jit
def basins_room(rows, stride, thresholds):  # type: ignore[no-untyped-def]
    """Room for basins, entries and edges; every map of a batch uses it again."""
    size = rows * stride
    return (
        # find_basins: basin of each run; where a name flows to; its number
        *(
            np.empty(size + 2, np.uint32),
            np.empty(size + 2, np.int32),
            np.empty(size + 2, np.uint32),
        ),
        # gather_runs: entries by basin and level; as they were met; in the order of levels
        *(np.empty(2 * size, np.uint32), np.empty(size + 2, ENTRY), np.empty(size + 2, ENTRY)),
        # sort_runs: runs in the order of levels; what they change; where levels begin
        *(
            np.empty(size + 2, RUN),
            np.empty(size + 2, np.int64),
            np.empty(thresholds + 4, np.uint32),
        ),
        # find_edges: as they were met; in the order of levels; where levels begin
        *(np.empty(4 * size + 1, EDGE), np.empty(4 * size + 1, EDGE)),
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
def sort_runs(level, stride, found, contours, basin, room):  # type: ignore[no-untyped-def]
    """The runs in the order of levels, and with `contours` what each changes.

    Returns them and `first`: those of level k are [first[k + 1], first[k + 2]).
    """
    start, change = found[2], found[3]
    runs, changes, first = room[6:9]
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
        run = runs[first[k]]
        run.basin, run.top = basin[r], y
        run.left, run.right = start[r] - row + stride - 1, start[r + 1] - row + stride - 1
        if contours:
            changes[first[k]] = change[r + 1] - change[r]
        first[k] += 1
    return runs, changes, first


@jit
def gather_runs(level, stride, found, contours, basin, count, room):  # type: ignore[no-untyped-def]
    """All runs of one basin and one level as one entry, in the order of levels; False where looking them
    up would not pay, which shows in the first eighth of the runs.

    Returns whether it is done, the entries, and `first` as `sort_runs`.
    """
    start, change = found[2], found[3]
    slot, loose, entries = room[3:6]
    first = room[8]
    cells = max(1, count) * (first.size - 2)  # runs that have no basin say 0
    if cells > slot.size:
        return False, entries, first
    slot, few = slot[:cells], start[: start.size // 8]
    if 10 * look_up(level, stride, few, change, contours, basin, slot, loose, first) > 3 * few.size:
        return False, entries, first
    n = look_up(level, stride, start, change, contours, basin, slot, loose, first)
    begin(first)
    for e in range(n):
        k = np.uint32(loose[e].level + 2)
        entries[first[k]] = loose[e]
        first[k] += 1
    return True, entries, first


@jit
def look_up(level, stride, start, change, contours, basin, slot, entries, first):  # type: ignore[no-untyped-def]
    """Gather the runs into entries, looked up in `slot` [basins × levels]; return how many there are.

    `first` [k + 3] is filled with how many there are of level k.
    """
    slot[:] = NONE
    first[:] = 0
    levels = first.size - 2
    n = np.uint32(0)
    y, row = -1, stride
    for r in range(start.size - 1):
        while start[r] >= row:
            y += 1
            row += stride
        here = level[start[r]]
        left, right = start[r] - row + stride - 1, start[r + 1] - row + stride - 1
        at = np.uint32(basin[r] * levels + here + 1)
        e = slot[at]
        if e == NONE:
            slot[at] = n
            entry = entries[n]
            n += np.uint32(1)
            first[np.uint32(here + 3)] += 1
            entry.basin, entry.level, entry.start = basin[r], here, start[r]
            entry.left, entry.top, entry.right, entry.bottom = left, y, right, y + 1
            entry.pixels = right - left
            entry.change = change[r + 1] - change[r] if contours else 0
            continue
        entry = entries[e]
        entry.left, entry.right = min(entry.left, left), max(entry.right, right)
        entry.bottom = y + 1
        entry.pixels += right - left
        if contours:
            entry.change += change[r + 1] - change[r]
    return n


@jit
def find_edges(level, stride, found, basin, falling, room):  # type: ignore[no-untyped-def]
    """Where basins meet: arcs of neighbours (`ARCS`, `GAPS`) in another basin than their pixel, in the
    order of its level.

    Returns the edges and `first`: those of level k are [first[k + 1], first[k + 2]).
    """
    before, run_of, _, _, meeting = found
    ways = ARCS if falling else GAPS
    loose, edges, first = room[9:]
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
