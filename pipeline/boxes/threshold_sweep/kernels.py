"""A sweep's boxes against the true ones: the best IoU at every threshold, of batches of maps."""

import numpy as np

from pipeline.boxes.threshold_sweep.basins import basins_room
from pipeline.boxes.threshold_sweep.forest import SPAN, forest_room, grow
from pipeline.boxes.threshold_sweep.levels import jit
from pipeline.boxes.threshold_sweep.runs import find_runs, runs_room


@jit
def best_iou(left, top, right, bottom, truth, pad):  # type: ignore[no-untyped-def]
    """Best IoU of one box with boxes [n, 4]; pad 1 for inclusive corners, 0 for half-open edges."""
    best = 0.0
    area = (right - left + pad) * (bottom - top + pad)
    for j in range(truth.shape[0]):
        x0, y0, x1, y1 = truth[j, 0], truth[j, 1], truth[j, 2], truth[j, 3]
        w = max(0.0, min(right, x1) - max(left, x0) + pad)
        h = max(0.0, min(bottom, y1) - max(top, y0) + pad)
        best = max(best, w * h / (area + (x1 - x0 + pad) * (y1 - y0 + pad) - w * h))
    return best


@jit
def ladder(thresholds):  # type: ignore[no-untyped-def]
    """For each stretch of n + 1 thresholds, the greatest p of which 2ᵖ fit."""
    rungs = np.zeros(thresholds, np.uint32)
    for n in range(1, thresholds):
        rungs[n] = rungs[(n - 1) // 2] + 1
    return rungs


@jit
def raise_to(spans, count, falling, truth, pad, rungs, table):  # type: ignore[no-untyped-def]
    """Raise table [rungs, T] to the spans' IoU over the thresholds at which they stand.

    table[p, k] stands for 2ᵖ thresholds from k on: two overlapping stretches cover any span, with p of
    `ladder`.
    """
    thresholds = table.shape[1]
    for i in range(count):
        span = spans[i]
        first, last = span.first, span.last
        if falling:
            first, last = thresholds - 1 - last, thresholds - 1 - first
        p = rungs[last - first]
        second = last + 1 - (1 << p)
        value = best_iou(span.left, span.top, span.right, span.bottom, truth, pad)
        table[p, first] = max(table[p, first], value)
        table[p, second] = max(table[p, second], value)


@jit
def settle(table):  # type: ignore[no-untyped-def]
    """Hand each rung of the table down to its halves: table[0] is then the maximum per threshold."""
    for p in range(table.shape[0] - 1, 0, -1):
        half = 1 << (p - 1)
        for k in range(table.shape[1] - 2 * half + 1):
            table[p - 1, k] = max(table[p - 1, k], table[p, k])
            table[p - 1, k + half] = max(table[p - 1, k + half], table[p, k])


@jit
def curves(levels, contours, outline, truth, offsets, boxes, largest, every, cells):  # type: ignore[no-untyped-def]
    """Largest boxes [B, T, 4] of framed level maps [B, H + 2, W + 2]; with T of `every` not 0, IoU [B, T]
    as well; with T of `cells` [B, T, h, w] not 0, the cells.
    """
    images, rows, stride = levels.shape
    # More than all the rooms take: the C library then keeps what was freed for the next call, where
    # asking the system for it page by page would cost as much as a sweep.
    np.empty(256 * rows * stride, np.uint8)
    thresholds = boxes.shape[1]
    runs, forest = runs_room(rows, stride), forest_room(rows, stride)
    basins = basins_room(rows, stride, thresholds)
    scored = every.shape[1] > 0
    spans = np.empty(rows * stride if scored else 0, SPAN)
    rungs = ladder(thresholds)
    table = np.empty((rungs[-1] + 1, thresholds))
    pad = 1 if contours else 0
    for i in range(images):
        level = levels[i].ravel()
        found = find_runs(level, stride, contours, runs)
        n, holes = grow(
            *(level, stride, found, basins, True, contours, outline, thresholds),
            *(forest, spans, boxes[i], cells[i]),
        )
        if scored:
            real = truth[offsets[i] : offsets[i + 1]]
            table[:] = 0.0
            raise_to(spans, n, True, real, pad, rungs, table)
            if holes:
                n, _ = grow(
                    *(level, stride, found, basins, False, contours, outline, holes),
                    *(forest, spans, boxes[i], cells[i]),
                )
                raise_to(spans, n, False, real, pad, rungs, table)
            settle(table)
            value = 0.0
            for k in range(thresholds):
                box, last = boxes[i, k], boxes[i, max(0, k - 1)]
                changed = k == 0
                for j in range(4):
                    changed |= box[j] != last[j]
                if changed:
                    value = best_iou(box[0], box[1], box[2], box[3], real, pad)
                largest[i, k] = value
                every[i, k] = max(table[0, k], value)


@jit
def every_span(levels, contours, boxes, cells):  # type: ignore[no-untyped-def]
    """Spans of one framed level map [1, H + 2, W + 2] by threshold: boxes of components, with `contours`
    of holes too.
    """
    rows, stride = levels.shape[1:]
    thresholds = boxes.shape[1]
    forest, basins = forest_room(rows, stride), basins_room(rows, stride, thresholds)
    spans = np.empty(rows * stride, SPAN)
    level = levels[0].ravel()
    found = find_runs(level, stride, contours, runs_room(rows, stride))
    n, holes = grow(
        *(level, stride, found, basins, True, contours, False, thresholds),
        *(forest, spans, boxes[0], cells[0]),
    )
    components = spans[:n].copy()
    for i in range(n):
        span = components[i]
        span.first, span.last = thresholds - 1 - span.last, thresholds - 1 - span.first
    n, _ = grow(
        *(level, stride, found, basins, False, contours, False, holes),
        *(forest, spans, boxes[0], cells[0]),
    )
    return components, spans[:n].copy()
