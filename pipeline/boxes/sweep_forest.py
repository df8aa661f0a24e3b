"""The forest of a sweep: components that grow run by run, each with its box and what else is asked of it.

Runs are switched on level by level, the highest first; what is joined after a level are the
components at that threshold. Work grows with the runs, not with runs × thresholds, and few thresholds
make few runs. Boxes are half-open. Components are records: numba makes of them what C makes of structs.
"""

import numpy as np

from pipeline.boxes.sweep_contours import largest_contour, least_area
from pipeline.boxes.sweep_levels import inlined, jit
from pipeline.boxes.sweep_runs import AFTER, ARCS, BEFORE, GAPS, steps_of

# Kept up to date for components that live; those that were joined to another know their parent.
COMPONENT = np.dtype(
    [
        (name, np.int32)
        for name in (
            *("parent", "left", "top", "right", "bottom", "pixels"),
            "start",  # first pixel in raster order
            *("area", "euler"),  # twice the area of its blocks, Euler number: sweep_contours
            "traced",  # twice the contour area, if it was traced since it grew; −1: not
            "changed",  # the last step at which it grew
            "span",  # the one that is open, −1: none
        )
    ],
    align=True,
)
# A box a component had, and the first and last step (−1: still open) at which it stood.
SPAN = np.dtype(
    [(name, np.int32) for name in ("left", "top", "right", "bottom", "first", "last")], align=True
)


@jit
def forest_room(rows, stride):  # type: ignore[no-untyped-def]
    """Components, the one each run was given, and those that changed; used again by every map."""
    size = rows * stride
    return np.empty(size, COMPONENT), np.empty((2, size), np.int32)


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
        whole.left = min(whole.left, part.left)
        whole.top = min(whole.top, part.top)
        whole.right = max(whole.right, part.right)
        whole.bottom = max(whole.bottom, part.bottom)
        whole.pixels += part.pixels
        whole.start = min(whole.start, part.start)
        whole.area += part.area
        whole.euler += part.euler
        if part.span >= 0:
            spans[part.span].last = step - 1
    return a


@inlined
def bear(forest, c):  # type: ignore[no-untyped-def]
    """A component without pixels."""
    component = forest[c]
    component.parent = c
    component.left = component.top = component.start = 2**31 - 1
    component.right = component.bottom = 0
    component.pixels = component.area = component.euler = 0
    component.changed, component.span = -1, -1


@inlined
def add_run(component, y, x0, x1):  # type: ignore[no-untyped-def]
    """Columns x0 … x1 − 1 of row y go on in a component."""
    component.left = min(component.left, x0)
    component.top = min(component.top, y)
    component.right = max(component.right, x1)
    component.bottom = max(component.bottom, y + 1)
    component.pixels += x1 - x0


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
def most_pixels(forest, among, n, best):  # type: ignore[no-untyped-def]
    """Component with most pixels, of equals the one whose first pixel comes first.

    It is the `best` so far (−1: none) or one of those that grew.
    """
    for i in range(n):
        c = among[i]
        if (
            best < 0
            or forest[c].pixels > forest[best].pixels
            or (forest[c].pixels == forest[best].pixels and forest[c].start < forest[best].start)
        ):
            best = c
    return best


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


@jit
def grow_components(  # type: ignore[no-untyped-def]
    level, stride, found, contours, outline, room, spans, boxes, cells
):
    """Boxes [T, 4] of the largest 8-connected component at each threshold, the last threshold first.

    The largest has most pixels or, with `contours`, the largest contour area. Where there is room,
    `spans` is filled (step s is threshold T − 1 − s), and `cells` [T, h, w] with the cells under the
    largest component's outline or the sides of its box. Returns the number of spans and, with
    `contours`, below which threshold components have holes.
    """
    before, run_of, start, row, change, meeting, runs, meets, first_run, first_meet = found
    forest, (of, changed) = room
    steps_to = steps_of(stride)
    thresholds, width, height = boxes.shape[0], stride - 2, level.size // stride - 2
    # The benchmark's corners are inclusive, its boxes one pixel larger but kept inside the map.
    right, bottom = width - contours, height - contours
    born, count, best, holes = 0, 0, -1, 0
    best_start, best_most = -1, -1
    for step in range(thresholds):
        k = thresholds - step
        n = 0
        for i in range(first_run[k + 1], first_run[k + 2]):
            r = runs[i]
            first, after = start[r], start[r + 1]
            way = BEFORE[before[first]]
            if way < 0:
                c = born
                bear(forest, c)
                born += 1
            else:
                c = find(forest, of[run_of[first + steps_to[way]]])
            of[r] = c
            component = forest[c]
            y = row[r]
            x0 = first - y * stride - 1
            add_run(component, y - 1, x0, x0 + after - first)
            component.start = min(component.start, first)
            done = change[r + 1] - change[r]
            component.area += done & 0xFFFFFFFF
            component.euler += done >> 32
            n = note(forest, changed, n, c, step)
        for i in range(first_meet[k + 1], first_meet[k + 2]):
            pixel = meeting[meets[i]]
            root = find(forest, of[run_of[pixel]])
            ways = ARCS[before[pixel]]
            while ways:
                c = find(forest, of[run_of[pixel + steps_to[ways & 7]]])
                root = join(forest, spans, root, c, step)
                ways >>= 4
            n = note(forest, changed, n, root, step)
        box = boxes[k - 1]
        if n:
            n = keep_living(forest, changed, n)
            if spans.size:
                for i in range(n):
                    count = renew_span(forest, spans, count, changed[i], 0, right, bottom, step)
            if best >= 0:
                best = find(forest, best)
            if not contours:
                best = most_pixels(forest, changed, n, best)
            else:
                for i in range(n):
                    if forest[changed[i]].euler != 1:
                        holes = max(holes, k)
                # What did not change can overtake the largest only if that kept its area but lost rank.
                if (
                    best >= 0
                    and forest[best].start != best_start
                    and least_area(forest[best]) <= best_most
                ):
                    for c in range(born):
                        changed[c] = c
                    n = keep_living(forest, changed, born)
                elif best >= 0 and forest[best].changed != step:
                    changed[n] = best
                    n += 1
                best, best_most = largest_contour(level, k, stride, forest, changed, n)
                best_start = forest[best].start
        if best >= 0:
            largest = forest[best]
            box[0], box[1] = largest.left, largest.top
            box[2], box[3] = min(largest.right, right), min(largest.bottom, bottom)
            if cells.size:
                mark_seeds(level, k, stride, run_of, of, forest, best, outline, cells[k - 1])
        elif contours:
            box[:] = 0
        else:
            box[0], box[1], box[2], box[3] = 0, 0, width, height
    close_all(spans, count, thresholds)
    return count, holes


@jit
def grow_holes(level, stride, found, steps, room, spans):  # type: ignore[no-untyped-def]
    """Spans of the holes' contours: what is off, 4-connected and apart from the frame, grown by one.

    Step s is threshold s, of the first `steps`. Returns the number of spans.
    """
    before, run_of, start, row, _, meeting, runs, meets, first_run, first_meet = found
    forest, (of, changed) = room
    steps_to = steps_of(stride)
    width, height = stride - 2, level.size // stride - 2
    # Component 0 is the outside, and stays itself.
    bear(forest, 0)
    forest[0].pixels = 2**30
    for i in range(first_run[0], first_run[1]):
        of[runs[i]] = 0
    born, count = 1, 0
    for step in range(steps):
        n = 0
        for i in range(first_run[step + 2] - 1, first_run[step + 1] - 1, -1):
            r = runs[i]
            first, after = start[r], start[r + 1]
            way = AFTER[before[after - 1]]
            if way < 0:
                c = born
                bear(forest, c)
                born += 1
            else:
                c = find(forest, of[run_of[after - 1 + steps_to[way]]])
            of[r] = c
            if c:
                y = row[r]
                x0 = first - y * stride - 1
                add_run(forest[c], y - 1, x0, x0 + after - first)
                n = note(forest, changed, n, c, step)
        for i in range(first_meet[step + 1], first_meet[step + 2]):
            pixel = meeting[meets[i]]
            root = find(forest, of[run_of[pixel]])
            ways = GAPS[before[pixel]]
            while ways:
                c = find(forest, of[run_of[pixel + steps_to[ways & 7]]])
                root = join(forest, spans, root, c, step)
                ways >>= 4
            if root:
                n = note(forest, changed, n, root, step)
        for i in range(keep_living(forest, changed, n)):
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
def mark_seeds(level, on, stride, run_of, of, forest, best, outline, cells):  # type: ignore[no-untyped-def]
    """Mark the cells [h, w] under the component's pixels on the sides of its box, or on its outline.

    The outline is every pixel with a 4-neighbour that is off or outside the map.
    """
    width, height = stride - 2, level.size // stride - 2
    box = forest[best]
    for y in range(box.top, box.bottom):
        whole_row = outline or y == box.top or y == box.bottom - 1
        for x in range(box.left, box.right, 1 if whole_row else max(1, box.right - 1 - box.left)):
            i = (y + 1) * stride + x + 1
            if level[i] < on or find(forest, of[run_of[i]]) != best:
                continue
            around = min(level[i - stride], level[i - 1], level[i + 1], level[i + stride])
            if not (outline and around >= on):
                cells[y * cells.shape[0] // height, x * cells.shape[1] // width] = True
