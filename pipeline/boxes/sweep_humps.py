"""Every threshold's components of a smooth heatmap, from its rows' humps: no labels, no run-by-run joining.

A *hump* is a stretch of one row whose levels rise to a peak and fall again (the valley between two
belongs to the left one): at any level what is on of it is one segment. Two humps that touch are one
component from the highest level on at which a pixel of each, next to each other, are both on. Humps
that are never a component of their own join a *basin*, a peak of the map; basins join at saddles.
What switches on in a basin at each of its levels is counted in one pass over the flat runs; adding up
from the top level down gives every component at every level. Work grows with pixels and the basins'
lives, not with runs × thresholds; a map with more humps than smooth maps have is left to the forest.
"""

import numpy as np

from pipeline.boxes.sweep_contours import largest_contour
from pipeline.boxes.sweep_forest import close_all, close_span, most_pixels, renew_span
from pipeline.boxes.sweep_levels import inlined, jit

HUMP = np.dtype(
    [
        (name, np.int32)
        for name in (
            *("row", "start", "stop"),  # its pixels
            *("first", "last"),  # its flat runs, half-open
            "peak",  # its highest level
            "parent",  # the hump it was joined to, or itself
            "basin",  # of its component while joining, −1: none yet
            "own",  # basin it is part of at its peak
        )
    ],
    align=True,
)
EDGE = np.dtype([("a", np.int32), ("b", np.int32), ("level", np.int32)], align=True)
BASIN = np.dtype(
    [
        (name, np.int32)
        for name in (
            "peak",  # from this level down to the one above `saddle` it is a component
            "saddle",
            "into",  # the basin it is part of from the saddle down
            "entry",  # what goes on in it at level l is entries[entry + peak − l]
            *("left", "top", "right", "bottom", "pixels", "start"),  # as of a COMPONENT
            *("area", "euler", "traced", "span"),
        )
    ],
    align=True,
)
# What goes on in a basin at one level.
ENTRY = np.dtype(
    [(name, np.int32) for name in ("pixels", "start", "left", "right", "bottom", "area", "euler")],
    align=True,
)
FAR = 2**31 - 1


@jit
def find_humps(level, runs, humps, edges):  # type: ignore[no-untyped-def]
    """Flat runs (start, level) [n, 2] and humps of a level map [H, W], and the valleys in its rows.

    Returns how many humps and edges; −1, 0 where there may be more humps than room.
    """
    height, width = level.shape
    n, m, e = 0, 0, 0
    for y in range(height):
        if m + width > humps.size:
            return -1, 0
        row = level[y]
        last, rising = -1, True
        open_ = False
        for x in range(width):
            here = row[x]
            if here == last:
                continue
            if here == 0:
                if open_:
                    humps[m].stop, humps[m].last = x, n
                    m += 1
                    open_ = False
            else:
                if not open_ or (here > last and not rising):
                    if open_:
                        humps[m].stop, humps[m].last = x, n
                        edges[e].a, edges[e].b, edges[e].level = m, m + 1, last
                        e += 1
                        m += 1
                    hump = humps[m]
                    hump.row, hump.start, hump.first = y, x, n
                    hump.parent, hump.basin = m, -1
                    open_, rising = True, True
                elif here < last:
                    rising = False
                if rising:
                    humps[m].peak = here
                runs[n, 0], runs[n, 1] = x, here
                n += 1
            last = here
        if open_:
            humps[m].stop, humps[m].last = width, n
            m += 1
    return m, e


@inlined
def touching_level(level, a, b):  # type: ignore[no-untyped-def]
    """Highest level at which humps a and b, of rows next to each other, touch (8-connected); 0: never."""
    highest = np.int32(0)
    for shift in range(-1, 2):
        start = max(a.start, b.start - shift)
        stop = min(a.stop, b.stop - shift)
        if start < stop:
            one = level[a.row, start:stop]
            other = level[b.row, start + shift : stop + shift]
            for i in range(one.size):
                highest = max(highest, min(one[i], other[i]))
    return highest


@jit
def touch_rows(level, humps, m, edges, e):  # type: ignore[no-untyped-def]
    """Add the edges between humps of rows next to each other; return how many edges there are."""
    above, i = 0, 0
    while i < m:
        # Humps of one row; `above` is the first of the row before it, or this row's first.
        row = humps[i].row
        end = i
        while end < m and humps[end].row == row:
            end += 1
        if above < i and humps[above].row == row - 1:
            j = above
            for h in range(i, end):
                while j < i and humps[j].stop < humps[h].start:
                    j += 1
                k = j
                while k < i and humps[k].start <= humps[h].stop:
                    highest = touching_level(level, humps[h], humps[k])
                    if highest > 0:
                        edges[e].a, edges[e].b, edges[e].level = h, k, highest
                        e += 1
                    k += 1
        above, i = i, end
    return e


@inlined
def root_of(humps, h):  # type: ignore[no-untyped-def]
    while humps[h].parent != h:
        humps[h].parent = humps[humps[h].parent].parent
        h = humps[h].parent
    return h


@jit
def join_humps(humps, m, edges, e, levels, ranks, basins):  # type: ignore[no-untyped-def]
    """Join humps from the highest level down.

    Returns how many basins there are, how many of them end (ranks[2], in that order) and how many
    levels they live in all.
    """
    order, ranked, merges = ranks
    # Edges (`order`) and humps (`ranked`) in falling order of level.
    bucket = np.zeros(levels + 2, np.int32)
    peaks = np.zeros(levels + 2, np.int32)
    for i in range(e):
        bucket[levels - edges[i].level + 1] += 1
    for i in range(m):
        peaks[levels - humps[i].peak + 1] += 1
    for k in range(1, levels + 2):
        bucket[k] += bucket[k - 1]
        peaks[k] += peaks[k - 1]
    for i in range(e):
        k = levels - edges[i].level
        order[bucket[k]] = i
        bucket[k] += 1
    for i in range(m):
        k = levels - humps[i].peak
        ranked[peaks[k]] = i
        peaks[k] += 1
    count, merged, lives = 0, 0, 0
    i, h = 0, 0
    while h < m or i < e:
        here = 0
        if h < m:
            here = humps[ranked[h]].peak
        if i < e:
            here = max(here, edges[order[i]].level)
        while i < e and edges[order[i]].level == here:
            edge = edges[order[i]]
            a, b = root_of(humps, edge.a), root_of(humps, edge.b)
            if a != b:
                if humps[a].basin < 0 or (0 <= humps[b].basin < humps[a].basin):
                    a, b = b, a
                humps[b].parent = a
                gone = humps[b].basin
                if gone >= 0:
                    basins[gone].saddle, basins[gone].into = here, humps[a].basin
                    lives += basins[gone].peak - here
                    merges[merged] = gone
                    merged += 1
            i += 1
        first = h
        while h < m and humps[ranked[h]].peak == here:
            root = root_of(humps, ranked[h])
            if humps[root].basin < 0:
                basin = basins[count]
                basin.peak, basin.saddle, basin.into = here, 0, -1
                humps[root].basin = count
                count += 1
            h += 1
        for r in range(first, h):
            humps[ranked[r]].own = humps[root_of(humps, ranked[r])].basin
    total = 0
    for b in range(count):
        basins[b].entry = total
        total += basins[b].peak - basins[b].saddle
    return count, merged, total


@inlined
def entry_of(basins, b, level):  # type: ignore[no-untyped-def]
    """Index of the entry of what b is part of at a level."""
    while basins[b].saddle >= level:
        b = basins[b].into
    return basins[b].entry + basins[b].peak - level


@jit
def count_runs(runs, humps, m, basins, entries, total, stride):  # type: ignore[no-untyped-def]
    """Fill entries[:total] with the flat runs, each counted in what its hump is part of at its level."""
    for i in range(total):
        entry = entries[i]
        entry.pixels, entry.start, entry.left, entry.right, entry.bottom = 0, FAR, FAR, 0, 0
        entry.area, entry.euler = 0, 0
    for h in range(m):
        hump = humps[h]
        y, first, last, own = hump.row, hump.first, hump.last, hump.own
        for r in range(first, last):
            x0 = runs[r, 0]
            x1 = runs[r + 1, 0] if r + 1 < last else hump.stop
            entry = entries[entry_of(basins, own, runs[r, 1])]
            entry.pixels += x1 - x0
            entry.start = min(entry.start, y * stride + x0)
            entry.left = min(entry.left, x0)
            entry.right = max(entry.right, x1)
            entry.bottom = y + 1


@jit
def count_blocks(level, humps, m, basins, entries, framed, own):  # type: ignore[no-untyped-def]
    """Add to the entries twice the area and four times the Euler number of the 2 × 2 blocks of pixels.

    A block's pixels go on in falling order of level: the third makes it half a square, the fourth a
    whole one; with one pixel on it counts 1 towards the Euler number, with two 0 (on the diagonal −2),
    with three −1, with four 0. `framed` is filled with the levels in a frame of zeros, `own` with the
    basin of each pixel's hump.
    """
    height, width = level.shape
    stride = width + 2
    framed[:stride] = 0
    framed[(height + 1) * stride :] = 0
    for y in range(height):
        at = (y + 1) * stride
        framed[at] = 0
        framed[at + 1 : at + 1 + width] = level[y]
        framed[at + 1 + width] = 0
    for h in range(m):
        at = (humps[h].row + 1) * stride + 1
        own[at + humps[h].start : at + humps[h].stop] = humps[h].own
    for i in range((height + 1) * stride - 1):
        a, b, c, d = framed[i], framed[i + 1], framed[i + stride], framed[i + stride + 1]
        if a == b and a == c and a == d:
            if a > 0:
                entries[entry_of(basins, own[i], a)].area += 2
            continue
        above, below = max(a, b), max(c, d)
        lower_above, lower_below = min(a, b), min(c, d)
        first, fourth = max(above, below), min(lower_above, lower_below)
        middle, other = min(above, below), max(lower_above, lower_below)
        second, third = max(middle, other), min(middle, other)
        if above > below:
            basin = own[i] if a == above else own[i + 1]
        else:
            basin = own[i + stride] if c == below else own[i + stride + 1]
        entries[entry_of(basins, basin, first)].euler += 1
        if second > 0:
            diagonal = min(a, d) > max(b, c) or min(b, c) > max(a, d)
            entries[entry_of(basins, basin, second)].euler -= 3 if diagonal else 1
            if third > 0:
                entry = entries[entry_of(basins, basin, third)]
                entry.area += 1
                entry.euler += 1 if diagonal else -1
                if fourth > 0:
                    entry = entries[entry_of(basins, basin, fourth)]
                    entry.area += 1
                    entry.euler += 1


@inlined
def add_to(basin, other, width):  # type: ignore[no-untyped-def]
    """Count in a basin what goes on in it: an entry, or another basin."""
    basin.pixels += other.pixels
    basin.start = min(basin.start, other.start)
    basin.top = basin.start // width
    basin.left = min(basin.left, other.left)
    basin.right = max(basin.right, other.right)
    basin.bottom = max(basin.bottom, other.bottom)
    basin.area += other.area
    basin.euler += other.euler
    basin.traced = -1


@jit
def grow_basins(  # type: ignore[no-untyped-def]
    framed, contours, basins, count, merges, merged, entries, living, width, height, spans, boxes
):
    """As grow_components, from the entries of the basins."""
    steps = boxes.shape[0]
    right, bottom = width - contours, height - contours
    born, n, ended, spanned, best = 0, 0, 0, 0, -1
    holes = False
    for step in range(steps):
        here = steps - step
        changed = False
        while ended < merged and basins[merges[ended]].saddle == here:
            part = merges[ended]
            close_span(basins, spans, part, step)
            add_to(basins[basins[part].into], basins[part], width)
            ended += 1
            changed = True
        if changed:
            kept = 0
            for i in range(n):
                if basins[living[i]].saddle < here:
                    living[kept] = living[i]
                    kept += 1
            n = kept
        while born < count and basins[born].peak == here:
            basin = basins[born]
            basin.pixels, basin.start, basin.left, basin.right, basin.bottom = 0, FAR, FAR, 0, 0
            basin.area, basin.euler, basin.span = 0, 0, -1
            living[n] = born
            n += 1
            born += 1
        for i in range(n):
            basin = basins[living[i]]
            entry = entries[basin.entry + basin.peak - here]
            if entry.pixels:
                add_to(basin, entry, width)
                holes |= contours and basin.euler != 4
                changed = True
                if spans.size:
                    spanned = renew_span(basins, spans, spanned, living[i], 0, right, bottom, step)
        if changed and contours:
            best = largest_contour(framed, here, width + 2, basins, living, n)[0]
        elif changed:
            best = most_pixels(basins, living, n, -1)
        box = boxes[here - 1]
        if best >= 0:
            largest = basins[best]
            box[0], box[1] = largest.left, largest.top
            box[2], box[3] = min(largest.right, right), min(largest.bottom, bottom)
        elif contours:
            box[:] = 0
        else:
            box[0], box[1], box[2], box[3] = 0, 0, width, height
    close_all(spans, spanned, steps)
    return spanned, holes
