"""The forest of a sweep: components that grow run by run, each with its box and what else is asked of it.

Boxes are half-open. `label` holds, row after row, the component each pixel was given when it was
switched on, −1 while it is off; around the map [H, W] lies a frame one pixel wide that is never on, so
a row is `stride` = W + 2 long. Components are records: numba makes of them what C makes of structs.
"""

import numpy as np

from pipeline.boxes.sweep_levels import inlined, jit

# Kept up to date for components that live; those that were joined to another know their parent.
COMPONENT = np.dtype(
    [
        (name, np.int32)
        for name in (
            *("parent", "left", "top", "right", "bottom", "pixels"),
            "start",  # first pixel in raster order
            "area",  # twice the area and four times the Euler number of its blocks: sweep_contours
            "euler",
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
OFF = 2**31 - 1  # above every component's number


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
def switch_on(label, stride, forest, spans, born, y, x0, x1, reach, step):  # type: ignore[no-untyped-def]
    """Switch columns x0 … x1 − 1 of row y on; return their component, number `born` if it is new.

    Reach 1 is 8-connected, 0 is 4-connected.
    """
    first = (y + 1) * stride + x0 + 1
    after = first + x1 - x0
    # Nearly always all that is touched is one component; finding that out needs no branches.
    lowest, highest = OFF, -1
    for i in range(first - reach, after + reach):
        lowest, highest = widen(lowest, highest, label[i - stride])
        lowest, highest = widen(lowest, highest, label[i + stride])
    lowest, highest = widen(lowest, highest, label[first - 1])
    lowest, highest = widen(lowest, highest, label[after])
    if highest < 0:
        root = born
        component = forest[root]
        component.parent = root
        component.left, component.right = x0, x1
        component.top, component.bottom = y, y + 1
        component.start = y * (stride - 2) + x0
        component.pixels, component.area, component.euler = 0, 0, 0
        component.changed, component.span = -1, -1
    else:
        root = find(forest, highest)
        if lowest < highest:
            seen = highest
            for row in range(-1, 2):
                side = reach if row else 1
                step_over = 1 if row else after - first + 1  # the run itself
                for i in range(first + row * stride - side, after + row * stride + side, step_over):
                    c = label[i]
                    if c >= 0 and c != seen:
                        seen = c
                        root = join(forest, spans, root, find(forest, c), step)
        component = forest[root]
        component.left = min(component.left, x0)
        component.top = min(component.top, y)
        component.right = max(component.right, x1)
        component.bottom = max(component.bottom, y + 1)
        component.start = min(component.start, y * (stride - 2) + x0)
    forest[root].pixels += x1 - x0
    for i in range(first, after):
        label[i] = root
    return root


@inlined
def widen(lowest, highest, c):  # type: ignore[no-untyped-def]
    """Range of component numbers, with one more label."""
    return min(lowest, c if c >= 0 else OFF), max(highest, c)


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


@jit
def close_all(spans, count, steps):  # type: ignore[no-untyped-def]
    """What still stands stands to the end."""
    for i in range(count):
        if spans[i].last < 0:
            spans[i].last = steps - 1
