"""The forest of a sweep: components that grow run by run, each with its box and what else is asked of it.

Boxes are half-open. `label` [H + 2, W + 2] holds the component each pixel was given when it was
switched on, −1 while it is off, and has a frame that is never on. `spans` holds the boxes
components had, each with the first and the last step at which it stood.
"""

from pipeline.sweep_levels import inlined

# Columns of a forest: one row per component ever born, kept up to date for those that live.
LEFT, TOP, RIGHT, BOTTOM, PARENT, PIXELS, START, CHANGED, SPAN = range(9)
AREA, EULER = 9, 10  # twice its area and four times its Euler number: see sweep_contours
COLUMNS = 11
# Columns of a span: the time, in thresholds, over which a component has one box.
FIRST, LAST = 4, 5
UNKNOWN = -1
OFF = 2**31 - 1  # above every component's number


@inlined
def find(forest, c):  # type: ignore[no-untyped-def]
    """Component that c has become part of; those passed are hung one higher (path halving)."""
    while forest[c, PARENT] != c:
        forest[c, PARENT] = forest[forest[c, PARENT], PARENT]
        c = forest[c, PARENT]
    return c


@inlined
def join(forest, spans, a, b, step):  # type: ignore[no-untyped-def]
    """Make two components one and return it: the one with more pixels lives on."""
    if a != b:
        if forest[a, PIXELS] < forest[b, PIXELS]:
            a, b = b, a
        forest[b, PARENT] = a
        forest[a, LEFT] = min(forest[a, LEFT], forest[b, LEFT])
        forest[a, TOP] = min(forest[a, TOP], forest[b, TOP])
        forest[a, RIGHT] = max(forest[a, RIGHT], forest[b, RIGHT])
        forest[a, BOTTOM] = max(forest[a, BOTTOM], forest[b, BOTTOM])
        forest[a, START] = min(forest[a, START], forest[b, START])
        forest[a, PIXELS] += forest[b, PIXELS]
        forest[a, AREA] += forest[b, AREA]
        forest[a, EULER] += forest[b, EULER]
        if forest[b, SPAN] >= 0:
            spans[forest[b, SPAN], LAST] = step - 1
    return a


@inlined
def touching(y, x0, x1, reach, other):  # type: ignore[no-untyped-def]
    """First and last column, and the stride, of what a run touches in row y − 1, y or y + 1."""
    if other == y:
        return x0 - 1, x1, x1 - x0 + 1
    return x0 - reach, x1 - 1 + reach, 1


@inlined
def switch_on(label, forest, spans, born, y, x0, x1, reach, step):  # type: ignore[no-untyped-def]
    """Switch columns x0 … x1 − 1 of row y on; return their component, number `born` if it is new.

    `label` has a frame of one pixel that is never on. Reach 1 is 8-connected, 0 is 4-connected.
    """
    # Nearly always all that is touched is one component; finding that out needs no branches.
    lowest, highest = OFF, -1
    for other in range(y - 1, y + 2):
        first, last, stride = touching(y, x0, x1, reach, other)
        for x in range(first, last + 1, stride):
            c = label[other, x]
            lowest = min(lowest, c if c >= 0 else OFF)
            highest = max(highest, c)
    root = find(forest, highest) if highest >= 0 else -1
    if lowest < highest:
        for other in range(y - 1, y + 2):
            first, last, stride = touching(y, x0, x1, reach, other)
            for x in range(first, last + 1, stride):
                c = label[other, x]
                if c >= 0 and c != highest:
                    root = join(forest, spans, root, find(forest, c), step)
    start = (y - 1) * (label.shape[1] - 2) + x0 - 1
    if root < 0:
        root = born
        forest[root, PARENT] = root
        forest[root, LEFT] = x0 - 1
        forest[root, TOP] = y - 1
        forest[root, RIGHT] = x1 - 1
        forest[root, BOTTOM] = y
        forest[root, START] = start
        forest[root, PIXELS] = 0
        forest[root, AREA] = 0
        forest[root, EULER] = 0
        forest[root, CHANGED] = -1
        forest[root, SPAN] = -1
    else:
        forest[root, LEFT] = min(forest[root, LEFT], x0 - 1)
        forest[root, TOP] = min(forest[root, TOP], y - 1)
        forest[root, RIGHT] = max(forest[root, RIGHT], x1 - 1)
        forest[root, BOTTOM] = max(forest[root, BOTTOM], y)
        forest[root, START] = min(forest[root, START], start)
    forest[root, PIXELS] += x1 - x0
    for x in range(x0, x1):
        label[y, x] = root
    return root


@inlined
def close_span(forest, spans, root, step):  # type: ignore[no-untyped-def]
    """The component's box no longer stands."""
    if forest[root, SPAN] >= 0:
        spans[forest[root, SPAN], LAST] = step - 1
        forest[root, SPAN] = -1


@inlined
def renew_span(forest, spans, n, root, margin, width, height, step):  # type: ignore[no-untyped-def]
    """Unless the component's box is as before, close its span and open the n-th; return how many."""
    left, top = forest[root, LEFT] - margin, forest[root, TOP] - margin
    right = min(forest[root, RIGHT] + margin, width)
    bottom = min(forest[root, BOTTOM] + margin, height)
    span = forest[root, SPAN]
    if (
        span >= 0
        and spans[span, LEFT] == left
        and spans[span, TOP] == top
        and spans[span, RIGHT] == right
        and spans[span, BOTTOM] == bottom
    ):
        return n
    close_span(forest, spans, root, step)
    spans[n, LEFT] = left
    spans[n, TOP] = top
    spans[n, RIGHT] = right
    spans[n, BOTTOM] = bottom
    spans[n, FIRST] = step
    spans[n, LAST] = UNKNOWN
    forest[root, SPAN] = n
    return n + 1
