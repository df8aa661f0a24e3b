"""The forest of a sweep: components that grow entry by entry, each with its box and what else is asked of it.

Entries and edges (`sweep_basins`) go on level by level, the highest first; what is joined after a level
are the components at that threshold. Work grows with what happens, not with pixels × thresholds, and at few
thresholds little happens. Boxes are half-open. Components are records: numba makes of them what C
makes of structs.
"""

import numpy as np

from pipeline.boxes.threshold_sweep.basins import find_basins, find_edges, gather_runs, sort_runs
from pipeline.boxes.threshold_sweep.contours import largest_contour, least_area
from pipeline.boxes.threshold_sweep.levels import jit

# Kept up to date for components that live. Parents lie apart: finding them is most of the work, and
# alone they fit the fastest cache.
COMPONENT = np.dtype(
    [
        (name, np.int32)
        for name in (
            *("left", "top", "right", "bottom", "pixels"),
            "start",  # first pixel in raster order
            "traced",  # twice the contour area, if it was traced since it grew; −1: not
            "changed",  # the last step at which it grew
            # Its box as last told, and the step since when that stands, −1: none was told.
            *("told_left", "told_top", "told_right", "told_bottom", "since"),
        )
    ]
    + [("change", np.int64)],  # its Euler number times 2³² and twice its area: sweep_runs
    align=True,
)
# A box a component had, and the first and last step at which it stood.
SPAN = np.dtype(
    [(name, np.int32) for name in ("left", "top", "right", "bottom", "first", "last")], align=True
)


@jit
def forest_room(rows, stride):  # type: ignore[no-untyped-def]
    """Components, what each is part of, and those that changed; used again by every map."""
    size = rows * stride // 2 + 1  # two peaks or pits never touch
    return np.empty(size, COMPONENT), np.empty(size, np.uint32), np.empty(size, np.uint32)


@jit
def find(parent, c):  # type: ignore[no-untyped-def]
    """Component that c has become part of; c is hung right below it."""
    up = parent[parent[c]]  # nearly always the answer: no branch to foresee
    while parent[up] != up:
        up = parent[up]
    parent[c] = up
    return up


@jit
def join(forest, parent, a, b):  # type: ignore[no-untyped-def]
    """Make two components one; return which lives on, the one with more pixels, and which does not."""
    if forest[a].pixels < forest[b].pixels:
        a, b = b, a
    parent[b] = a
    absorb(forest[a], forest[b])
    return a, b


@jit
def absorb_run(component, run, stride):  # type: ignore[no-untyped-def]
    """Add a run's pixels to a component."""
    component.left = min(component.left, run.left)
    component.top = min(component.top, run.top)
    component.right = max(component.right, run.right)
    component.bottom = max(component.bottom, run.top + 1)
    component.pixels += run.right - run.left
    component.start = min(component.start, (run.top + 1) * stride + run.left + 1)


@jit
def absorb(component, other):  # type: ignore[no-untyped-def]
    """Add an entry's or another component's pixels to a component."""
    component.left = min(component.left, other.left)
    component.top = min(component.top, other.top)
    component.right = max(component.right, other.right)
    component.bottom = max(component.bottom, other.bottom)
    component.pixels += other.pixels
    component.start = min(component.start, other.start)
    component.change += other.change


@jit
def plant(forest, parent, count):  # type: ignore[no-untyped-def]
    """As many components without pixels."""
    for c in range(count):
        component = forest[c]
        parent[c] = c
        component.left = component.top = component.start = 2**31 - 1
        component.right = component.bottom = component.pixels = component.change = 0
        component.changed, component.since = -1, -1


@jit
def close_span(component, step, spans, n):  # type: ignore[no-untyped-def]
    """The component's told box no longer stands: it is the n-th span; return how many there are."""
    if component.since < 0:
        return n
    span = spans[n]
    span.left, span.top = component.told_left, component.told_top
    span.right, span.bottom = component.told_right, component.told_bottom
    span.first, span.last = component.since, step - 1
    component.since = -1
    return n + 1


@jit
def renew_span(component, margin, width, height, step, spans, n):  # type: ignore[no-untyped-def]
    """Unless the component's box is as it was told, tell it anew; return how many spans there are."""
    left, top = component.left - margin, component.top - margin
    right, bottom = min(component.right + margin, width), min(component.bottom + margin, height)
    if (
        component.since >= 0
        and left == component.told_left
        and top == component.told_top
        and right == component.told_right
        and bottom == component.told_bottom
    ):
        return n
    n = close_span(component, step, spans, n)
    component.told_left, component.told_top = left, top
    component.told_right, component.told_bottom = right, bottom
    component.since = step
    return n


@jit
def outranks(forest, c, best):  # type: ignore[no-untyped-def]
    """Whether c has more pixels than `best` (−1: none) or, of equals, the first pixel that comes first."""
    return (
        best < 0
        or forest[c].pixels > forest[best].pixels
        or (forest[c].pixels == forest[best].pixels and forest[c].start < forest[best].start)
    )


@jit
def note(forest, changed, n, c, step):  # type: ignore[no-untyped-def]
    """Add a component to those that changed at this step; return how many there are."""
    changed[n] = c
    n += forest[c].changed != step
    forest[c].changed, forest[c].traced = step, -1
    return n


@jit
def grow(  # type: ignore[no-untyped-def]
    level, stride, found, basins, falling, contours, outline, steps, room, spans, boxes, cells
):
    """Components of a map at each threshold: 8-connected, the last threshold first or, if not `falling`,
    of what is off, 4-connected and apart from the frame, the first threshold first: holes.

    Where there is room, `spans` is filled with their boxes, those of holes grown by one pixel as their
    contours are; step s is threshold T − 1 − s or, of holes, s. `boxes` [T, 4] is filled with the box of the
    largest component: the one with most pixels or, with `contours`, the largest contour area;
    `cells` [T, h, w] with the cells under its outline or the sides of its box. Holes leave both alone.

    Returns the number of spans and, with `contours`, below which threshold components have holes.
    """
    forest, parent, changed = room
    basin, number = find_basins(level, stride, found, falling, basins)
    areas = contours and falling
    gathered, entries, first = gather_runs(level, stride, found, areas, basin, number, basins)
    runs, changes, _ = basins[6:9]
    if not gathered:
        sort_runs(level, stride, found, areas, basin, basins)
    edges, first_edge = find_edges(level, stride, found, basin, falling, basins)
    plant(forest, parent, number)
    outside = -1
    if not falling:  # stays itself
        outside = 0
        forest[0].pixels = 2**30
    margin = 0 if falling else 1
    width, height = stride - 2, level.size // stride - 2
    # The benchmark's corners are inclusive, its boxes one pixel larger but kept inside the map.
    right, bottom = width - contours, height - contours
    count, best, holes, apart = 0, -1, 0, number
    best_start, best_most = -1, -1
    x0, y0, x1, y1 = (0, 0, 0, 0) if contours else (0, 0, width, height)
    for step in range(steps):
        k = steps - step if falling else step
        n = 0
        if gathered:
            for i in range(first[k + 1], first[k + 2]):
                c = find(parent, entries[i].basin)
                absorb(forest[c], entries[i])
                n = note(forest, changed, n, c, step)
        else:
            for i in range(first[k + 1], first[k + 2]):
                c = find(parent, runs[i].basin)
                absorb_run(forest[c], runs[i], stride)
                if areas:
                    forest[c].change += changes[i]
                n = note(forest, changed, n, c, step)
        for i in range(first_edge[k + 1], first_edge[k + 2]):
            a, b = find(parent, edges[i].a), find(parent, edges[i].b)
            if a != b:
                a, b = join(forest, parent, a, b)
                apart -= 1
                count = close_span(forest[b], step, spans, count)
                n = note(forest, changed, n, a, step)
        if n and best >= 0:
            best = find(parent, best)
        living = 0
        for i in range(n):
            c = changed[i]
            if parent[c] != c or c == outside:
                continue
            changed[living] = c
            living += 1
            if spans.size:
                count = renew_span(forest[c], margin, right, bottom, step, spans, count)
            if falling and not contours and outranks(forest, c, best):
                best = c
            if areas and forest[c].change >> 32 != 1:
                holes = max(holes, k)
        if not falling:
            continue
        if living:
            if contours:
                # What did not change can overtake the largest only if that kept its area but lost rank.
                if (
                    best >= 0
                    and forest[best].start != best_start
                    and least_area(forest[best]) <= best_most
                ):
                    living = 0
                    for c in range(number):
                        if forest[c].pixels and parent[c] == c:
                            changed[living] = c
                            living += 1
                elif best >= 0 and forest[best].changed != step:
                    changed[living] = best
                    living += 1
                best, best_most = largest_contour(level, k, stride, forest, changed, living)
                best_start = forest[best].start
            largest = forest[best]
            x0, y0 = largest.left, largest.top
            x1, y1 = min(largest.right, right), min(largest.bottom, bottom)
        box = boxes[k - 1]
        box[0], box[1], box[2], box[3] = x0, y0, x1, y1
        if best < 0:
            continue
        if cells.size:
            mark_seeds(
                *(level, k, stride, found[1], basin, forest, parent, best, outline, cells[k - 1])
            )
        elif apart == 1 and (y1 - y0) * (x1 - x0) == width * height and not contours:
            boxes[: k - 1] = box  # one component and nowhere to grow
            break
    if spans.size:
        for c in range(number):  # what still stands stands to the end
            if parent[c] == c:
                count = close_span(forest[c], steps, spans, count)
    return count, holes


@jit
def mark_seeds(level, on, stride, run_of, basin, forest, parent, best, outline, cells):  # type: ignore[no-untyped-def]
    """Mark the cells [h, w] under the component's pixels on the sides of its box, or on its outline.

    The outline is every pixel with a 4-neighbour that is off or outside the map.
    """
    width, height = stride - 2, level.size // stride - 2
    box = forest[best]
    for y in range(box.top, box.bottom):
        whole_row = outline or y == box.top or y == box.bottom - 1
        for x in range(box.left, box.right, 1 if whole_row else max(1, box.right - 1 - box.left)):
            i = (y + 1) * stride + x + 1
            if level[i] < on or find(parent, basin[run_of[i]]) != best:
                continue
            around = min(level[i - stride], level[i - 1], level[i + 1], level[i + stride])
            if not (outline and around >= on):
                cells[y * cells.shape[0] // height, x * cells.shape[1] // width] = True
