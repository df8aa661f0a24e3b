"""The forest of a sweep: components that grow run by run, each with its box and what else is asked of it.

Runs are switched on level by level, the highest first; what is joined after a level are the
components at that threshold. Work grows with the runs, not with runs × thresholds, and few thresholds
make few runs. Boxes are half-open. Components are records: numba makes of them what C makes of structs.
"""

import numpy as np

from pipeline.boxes.sweep_basins import find_basins, find_entries
from pipeline.boxes.sweep_contours import largest_contour, least_area
from pipeline.boxes.sweep_levels import inlined, jit
from pipeline.boxes.sweep_runs import ARCS, GAPS, neighbour

# Kept up to date for components that live; those that were joined to another know their parent.
COMPONENT = np.dtype(
    [
        (name, np.int32)
        for name in (
            *("parent", "left", "top", "right", "bottom", "pixels"),
            "start",  # first pixel in raster order
            "traced",  # twice the contour area, if it was traced since it grew; −1: not
            "changed",  # the last step at which it grew
            "span",  # the one that is open, −1: none
        )
    ]
    + [("change", np.int64)],  # its Euler number times 2³² and twice its area: sweep_runs
    align=True,
)
# A box a component had, and the first and last step (−1: still open) at which it stood.
SPAN = np.dtype(
    [(name, np.int32) for name in ("left", "top", "right", "bottom", "first", "last")], align=True
)


@jit
def forest_room(rows, stride):  # type: ignore[no-untyped-def]
    """Components and those that changed; used again by every map."""
    size = rows * stride // 2 + 1  # two peaks or pits never touch
    return np.empty(size, COMPONENT), np.empty(size, np.int32)


@inlined
def find(forest, c):  # type: ignore[no-untyped-def]
    """Component that c has become part of; those passed are hung one higher (path halving)."""
    while forest[c].parent != c:
        forest[c].parent = forest[forest[c].parent].parent
        c = forest[c].parent
    return c


@inlined
def join(forest, spans, a, b, step):  # type: ignore[no-untyped-def]
    """Make two components one and return it: the one with more pixels lives on."""
    if a != b:
        if forest[a].pixels < forest[b].pixels:
            a, b = b, a
        whole, part = forest[a], forest[b]
        part.parent = a
        absorb(whole, part)
        if part.span >= 0:
            spans[part.span].last = step - 1
    return a


@inlined
def absorb(component, other):  # type: ignore[no-untyped-def]
    """Add an entry's or another component's pixels to a component."""
    component.left = min(component.left, other.left)
    component.top = min(component.top, other.top)
    component.right = max(component.right, other.right)
    component.bottom = max(component.bottom, other.bottom)
    component.pixels += other.pixels
    component.start = min(component.start, other.start)
    component.change += other.change


@inlined
def plant(forest, count):  # type: ignore[no-untyped-def]
    """As many components without pixels."""
    for c in range(count):
        component = forest[c]
        component.parent = c
        component.left = component.top = component.start = 2**31 - 1
        component.right = component.bottom = component.pixels = component.change = 0
        component.changed, component.span = -1, -1


@inlined
def close_span(forest, spans, c, step):  # type: ignore[no-untyped-def]
    """The component's box no longer stands."""
    if forest[c].span >= 0:
        spans[forest[c].span].last = step - 1
        forest[c].span = -1


@inlined
def renew_span(forest, spans, n, c, margin, width, height, step):  # type: ignore[no-untyped-def]
    """Unless the component's box is as before, close its span and open the n-th; return how many."""
    left, top = forest[c].left - margin, forest[c].top - margin
    right = min(forest[c].right + margin, width)
    bottom = min(forest[c].bottom + margin, height)
    if forest[c].span >= 0:
        last = spans[forest[c].span]
        if last.left == left and last.top == top and last.right == right and last.bottom == bottom:
            return n
        close_span(forest, spans, c, step)
    span = spans[n]
    span.left, span.top, span.right, span.bottom = left, top, right, bottom
    span.first, span.last = step, -1
    forest[c].span = n
    return n + 1


@inlined
def outranks(forest, c, best):  # type: ignore[no-untyped-def]
    """Whether c has more pixels than `best` (−1: none) or, of equals, the first pixel that comes first."""
    return (
        best < 0
        or forest[c].pixels > forest[best].pixels
        or (forest[c].pixels == forest[best].pixels and forest[c].start < forest[best].start)
    )


@inlined
def note(forest, changed, n, c, step):  # type: ignore[no-untyped-def]
    """Add a component to those that changed at this step; return how many there are."""
    if forest[c].changed != step:
        forest[c].changed, forest[c].traced = step, -1
        changed[n] = c
        n += 1
    return n


@inlined
def keep_living(forest, components, n):  # type: ignore[no-untyped-def]
    """Move to the front those of components[:n] that were not joined to another; return how many."""
    living = 0
    for i in range(n):
        if forest[components[i]].parent == components[i]:
            components[living] = components[i]
            living += 1
    return living


@inlined
def switch_on(k, stride, found, ways, basin, entries, forest, changed, spans, step):  # type: ignore[no-untyped-def]
    """Let the entries of level k go on and join what meets there; return how many living components changed."""
    before, run_of, meeting, first_meet = found[0], found[1], found[4], found[5]
    entry, order, first = entries
    n = 0
    for i in range(first[k + 1], first[k + 2]):
        e = order[i]
        c = find(forest, entry[e].basin)
        absorb(forest[c], entry[e])
        n = note(forest, changed, n, c, step)
    for i in range(first_meet[k + 1], first_meet[k + 2]):
        pixel = meeting[i]
        root = find(forest, basin[run_of[pixel]])
        way = ways[before[pixel]]
        while way:
            c = find(forest, basin[run_of[pixel + neighbour(way & 7, stride)]])
            root = join(forest, spans, root, c, step)
            way >>= 4
        n = note(forest, changed, n, root, step)
    return keep_living(forest, changed, n)


@jit
def grow_components(  # type: ignore[no-untyped-def]
    level, stride, found, basins, contours, outline, room, spans, boxes, cells
):
    """Boxes [T, 4] of the largest 8-connected component at each threshold, the last threshold first.

    The largest has most pixels or, with `contours`, the largest contour area. Where there is room,
    `spans` is filled (step s is threshold T − 1 − s), and `cells` [T, h, w] with the cells under the
    largest component's outline or the sides of its box. Returns the number of spans and, with
    `contours`, below which threshold components have holes.
    """
    forest, changed = room
    basin, number = find_basins(level, stride, found, True, basins)
    entries = find_entries(level, stride, found, 1, basin, number, basins)
    plant(forest, number)
    run_of = found[1]
    thresholds, width, height = boxes.shape[0], stride - 2, level.size // stride - 2
    # The benchmark's corners are inclusive, its boxes one pixel larger but kept inside the map.
    right, bottom = width - contours, height - contours
    count, best, holes = 0, -1, 0
    best_start, best_most = -1, -1
    x0, y0, x1, y1 = (0, 0, 0, 0) if contours else (0, 0, width, height)
    for step in range(thresholds):
        k = thresholds - step
        n = switch_on(k, stride, found, ARCS, basin, entries, forest, changed, spans, step)
        if n:
            if best >= 0:
                best = find(forest, best)
            for i in range(n):
                c = changed[i]
                if spans.size:
                    count = renew_span(forest, spans, count, c, 0, right, bottom, step)
                if not contours:
                    best = c if outranks(forest, c, best) else best
                elif forest[c].change >> 32 != 1:
                    holes = max(holes, k)
            if contours:
                # What did not change can overtake the largest only if that kept its area but lost rank.
                if (
                    best >= 0
                    and forest[best].start != best_start
                    and least_area(forest[best]) <= best_most
                ):
                    n = 0
                    for c in range(number):
                        if forest[c].pixels and forest[c].parent == c:
                            changed[n] = c
                            n += 1
                elif best >= 0 and forest[best].changed != step:
                    changed[n] = best
                    n += 1
                best, best_most = largest_contour(level, k, stride, forest, changed, n)
                best_start = forest[best].start
            largest = forest[best]
            x0, y0 = largest.left, largest.top
            x1, y1 = min(largest.right, right), min(largest.bottom, bottom)
        box = boxes[k - 1]
        box[0], box[1], box[2], box[3] = x0, y0, x1, y1
        if cells.size and best >= 0:
            mark_seeds(level, k, stride, run_of, basin, forest, best, outline, cells[k - 1])
    close_all(spans, count, thresholds)
    return count, holes


@jit
def grow_holes(level, stride, found, basins, steps, room, spans):  # type: ignore[no-untyped-def]
    """Spans of the holes' contours: what is off, 4-connected and apart from the frame, grown by one.

    Step s is threshold s, of the first `steps`. Returns the number of spans.
    """
    forest, changed = room
    pit, number = find_basins(level, stride, found, False, basins)
    entries = find_entries(level, stride, found, 0, pit, number, basins)
    plant(forest, number)
    forest[0].pixels = 2**30  # so that the outside stays itself
    width, height = stride - 2, level.size // stride - 2
    count = 0
    for step in range(steps):
        n = switch_on(step, stride, found, GAPS, pit, entries, forest, changed, spans, step)
        for i in range(n):
            if changed[i]:
                count = renew_span(forest, spans, count, changed[i], 1, width - 1, height - 1, step)
    close_all(spans, count, steps)
    return count


@jit
def close_all(spans, count, steps):  # type: ignore[no-untyped-def]
    """What still stands stands to the end."""
    for i in range(count):
        if spans[i].last < 0:
            spans[i].last = steps - 1


@jit
def mark_seeds(level, on, stride, run_of, basin, forest, best, outline, cells):  # type: ignore[no-untyped-def]
    """Mark the cells [h, w] under the component's pixels on the sides of its box, or on its outline.

    The outline is every pixel with a 4-neighbour that is off or outside the map.
    """
    width, height = stride - 2, level.size // stride - 2
    box = forest[best]
    for y in range(box.top, box.bottom):
        whole_row = outline or y == box.top or y == box.bottom - 1
        for x in range(box.left, box.right, 1 if whole_row else max(1, box.right - 1 - box.left)):
            i = (y + 1) * stride + x + 1
            if level[i] < on or find(forest, basin[run_of[i]]) != best:
                continue
            around = min(level[i - stride], level[i - 1], level[i + 1], level[i + stride])
            if not (outline and around >= on):
                cells[y * cells.shape[0] // height, x * cells.shape[1] // width] = True
