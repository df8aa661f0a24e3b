"""Every threshold's components from one pass over a heatmap: union–find on its flat runs.

Runs are switched on level by level, the highest first, each joined to the components it touches;
what is joined after a level are the components at that threshold. Work grows with the runs, not
with runs × thresholds: few thresholds make few runs, so they need no road of their own.
Grown from the lowest level upwards with 4-connectivity, the same forest holds the components' holes.
"""

import numba
import numpy as np

from pipeline.sweep_levels import jit, sort_runs

inlined = numba.njit(cache=True, nogil=True, error_model="numpy", inline="always")

# Columns of a forest, one row per component ever born; edges are half-open.
LEFT, TOP, RIGHT, BOTTOM, PIXELS, START, SPAN, PARENT = 0, 1, 2, 3, 4, 5, 6, 7
# Columns of a span: a box, and the first and last step at which it stands.
FIRST, LAST = 4, 5


@inlined
def find(forest, c):  # type: ignore[no-untyped-def]
    """Component that c has become part of; each one passed is hung one higher (path halving)."""
    while forest[c, PARENT] != c:
        forest[c, PARENT] = forest[forest[c, PARENT], PARENT]
        c = forest[c, PARENT]
    return c


@inlined
def join(forest, spans, a, b, step):  # type: ignore[no-untyped-def]
    """Make two components one and return it: the one with more pixels lives on."""
    if a == b:
        return a
    if forest[a, PIXELS] < forest[b, PIXELS]:
        a, b = b, a
    forest[b, PARENT] = a
    forest[a, LEFT] = min(forest[a, LEFT], forest[b, LEFT])
    forest[a, TOP] = min(forest[a, TOP], forest[b, TOP])
    forest[a, RIGHT] = max(forest[a, RIGHT], forest[b, RIGHT])
    forest[a, BOTTOM] = max(forest[a, BOTTOM], forest[b, BOTTOM])
    forest[a, START] = min(forest[a, START], forest[b, START])
    forest[a, PIXELS] += forest[b, PIXELS]
    if forest[b, SPAN] >= 0:
        spans[forest[b, SPAN], LAST] = step - 1
    return a


@jit
def grow(runs, bucket, falling, reach, label, forest, touched, spans, boxes):  # type: ignore[no-untyped-def]
    """Grow components over all steps; reach 1: 8-connected, 0: 4-connected."""
    steps = boxes.shape[0]
    height, width = label.shape[0] - 2, label.shape[1] - 2
    label[:] = -1
    born = 0
    count = 0
    best, most = -1, 0
    for step in range(steps):
        k = steps - step if falling else step
        n = 0
        for i in range(bucket[k], bucket[k + 1]):
            run = runs[i]
            y = (run >> 42) + 1
            x0 = ((run >> 21) & 0x1FFFFF) + 1
            x1 = (run & 0x1FFFFF) + 1
            root = -1
            seen = -1
            for other in (y - 1, y + 1):
                for x in range(x0 - reach, x1 + reach):
                    c = label[other, x]
                    if c != seen and c >= 0:
                        seen = c
                        c = find(forest, c)
                        root = c if root < 0 else join(forest, spans, root, c, step)
            for x in (x0 - 1, x1):
                c = label[y, x]
                if c != seen and c >= 0:
                    seen = c
                    c = find(forest, c)
                    root = c if root < 0 else join(forest, spans, root, c, step)
            if root < 0:
                root = born
                born += 1
                forest[root, PARENT] = root
                forest[root, LEFT] = x0 - 1
                forest[root, TOP] = y - 1
                forest[root, RIGHT] = x1 - 1
                forest[root, BOTTOM] = y
                forest[root, START] = (y - 1) * width + x0 - 1
                forest[root, PIXELS] = 0
                forest[root, SPAN] = -1
                forest[root, 8] = -1
            else:
                forest[root, LEFT] = min(forest[root, LEFT], x0 - 1)
                forest[root, TOP] = min(forest[root, TOP], y - 1)
                forest[root, RIGHT] = max(forest[root, RIGHT], x1 - 1)
                forest[root, BOTTOM] = max(forest[root, BOTTOM], y)
                forest[root, START] = min(forest[root, START], (y - 1) * width + x0 - 1)
            forest[root, PIXELS] += x1 - x0
            label[y, x0:x1] = root
            if forest[root, 8] != step:
                forest[root, 8] = step
                touched[n] = root
                n += 1
        for i in range(n):
            root = touched[i]
            if forest[root, PARENT] != root:
                continue
            pixels = forest[root, PIXELS]
            # A largest component that grew is among these and has more pixels than before.
            if pixels > most or (pixels == most and forest[root, START] < forest[best, START]):
                best, most = root, pixels
            if spans.shape[0] > 0:
                count = renew_span(forest, spans, count, root, 0, step, steps)
        if best < 0:
            boxes[k - 1, 0] = 0
            boxes[k - 1, 1] = 0
            boxes[k - 1, 2] = width
            boxes[k - 1, 3] = height
        else:
            for c in range(4):
                boxes[k - 1, c] = forest[best, c]
    return count


@inlined
def renew_span(forest, spans, count, root, margin, step, steps):  # type: ignore[no-untyped-def]
    """Close the component's open span and open one for its new box, if the box changed."""
    left, top = forest[root, LEFT] - margin, forest[root, TOP] - margin
    right, bottom = forest[root, RIGHT] + margin, forest[root, BOTTOM] + margin
    span = forest[root, SPAN]
    if span >= 0:
        if (
            spans[span, LEFT] == left
            and spans[span, TOP] == top
            and spans[span, RIGHT] == right
            and spans[span, BOTTOM] == bottom
        ):
            return count
        spans[span, LAST] = step - 1
    spans[count, LEFT] = left
    spans[count, TOP] = top
    spans[count, RIGHT] = right
    spans[count, BOTTOM] = bottom
    spans[count, FIRST] = step
    spans[count, LAST] = steps - 1
    forest[root, SPAN] = count
    return count + 1


@inlined
def best_iou(box, truth, pad):  # type: ignore[no-untyped-def]
    """Best IoU of one box with boxes [n, 4]; pad 1 counts inclusive corners, 0 edges."""
    best = 0.0
    area = (box[2] - box[0] + pad) * (box[3] - box[1] + pad)
    for j in range(truth.shape[0]):
        x0, y0, x1, y1 = truth[j, 0], truth[j, 1], truth[j, 2], truth[j, 3]
        w = min(box[2], x1) - max(box[0], x0) + pad
        h = min(box[3], y1) - max(box[1], y0) + pad
        if w > 0 and h > 0:
            both = w * h
            best = max(best, both / (area + (x1 - x0 + pad) * (y1 - y0 + pad) - both))
    return best


@jit
def raise_spans(spans, truth, pad, table):  # type: ignore[no-untyped-def]
    """Maximum over the spans' IoU at each step, into table[0]; table is [rungs, steps].

    Each span is covered by two overlapping stretches of 2ᵖ steps, noted at table[p]; then each
    table[p] is handed down to its halves: a sparse table run backwards, O(1) per span.
    """
    table[:] = 0.0
    for i in range(spans.shape[0]):
        value = best_iou(spans[i], truth, pad)
        first, last = spans[i, FIRST], spans[i, LAST]
        p = 0
        while 2 << p <= last - first + 1:
            p += 1
        table[p, first] = max(table[p, first], value)
        second = last + 1 - (1 << p)
        table[p, second] = max(table[p, second], value)
    for p in range(table.shape[0] - 1, 0, -1):
        half = 1 << (p - 1)
        for s in range(table.shape[1] - 2 * half + 1):
            value = table[p, s]
            table[p - 1, s] = max(table[p - 1, s], value)
            table[p - 1, s + half] = max(table[p - 1, s + half], value)


@jit
def curves(levels, falls, truth, offsets, boxes, largest, every):  # type: ignore[no-untyped-def]
    """Classic protocol for level maps [B, H, W]: boxes [B, T, 4], and IoU [B, T] where asked for."""
    images, height, width = levels.shape
    pixels = height * width
    thresholds = boxes.shape[1]
    runs = np.empty(pixels, np.int64)
    found = np.empty((pixels, 2), np.int64)
    bucket = np.empty(thresholds + 3, np.int32)
    label = np.empty((height + 2, width + 2), np.int32)
    forest = np.empty((pixels, 10), np.int32)
    touched = np.empty(pixels, np.int32)
    spans = np.empty((pixels if every.shape[0] else 0, 6), np.int32)
    rungs = 1
    while 1 << rungs <= thresholds:
        rungs += 1
    table = np.empty((rungs, thresholds))
    for i in range(images):
        sort_runs(levels[i], found, runs, bucket)
        count = grow(runs, bucket, True, 1, label, forest, touched, spans, boxes[i])
        if falls[i]:
            boxes[i] = boxes[i, ::-1].copy()
        if every.shape[0]:
            mine = truth[offsets[i] : offsets[i + 1]]
            raise_spans(spans[:count], mine, 0, table)
            for k in range(thresholds):
                largest[i, k] = best_iou(boxes[i, k], mine, 0)
                step = k if falls[i] else thresholds - 1 - k
                every[i, k] = max(table[0, step], largest[i, k])
