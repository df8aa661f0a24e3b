"""Every threshold's components from one pass over a heatmap: union–find on its flat runs.

Runs are switched on level by level, the highest first, each joined to the components it touches;
what is joined after a level are the components at that threshold. Work grows with the runs, not
with runs × thresholds: few thresholds make few runs, so they need no road of their own.
Grown from the lowest level upwards with 4-connectivity, the same forest holds the components' holes.
"""

import numpy as np

from pipeline.boxes.sweep_contours import block_changes, largest_contour, least_area
from pipeline.boxes.sweep_forest import (
    COMPONENT,
    SPAN,
    close_all,
    close_span,
    find,
    most_pixels,
    renew_span,
    switch_on,
)
from pipeline.boxes.sweep_humps import (
    BASIN,
    EDGE,
    ENTRY,
    HUMP,
    count_blocks,
    count_runs,
    find_humps,
    grow_basins,
    join_humps,
    touch_rows,
)
from pipeline.boxes.sweep_levels import inlined, jit, sort_runs, unpack


@jit
def grow_components(  # type: ignore[no-untyped-def]
    runs, bucket, contours, outline, label, width, forest, changed, spans, boxes, cells
):
    """Boxes [T, 4] of the largest 8-connected component at each threshold, the last threshold first.

    The largest has most pixels or, with `contours`, the largest contour area. Where there is room,
    `spans` is filled (step s is threshold T − 1 − s), and `cells` [T, h, w] with the cells under the
    largest component's outline or the sides of its box. Returns the number of spans and, with `contours`,
    whether any component has holes.
    """
    steps, stride = boxes.shape[0], width + 2
    height = label.size // stride - 2
    # The benchmark's corners are inclusive, its boxes one pixel larger but kept inside the map.
    right, bottom = width - contours, height - contours
    label[:] = -1
    born, count, best = 0, 0, -1
    best_start, best_most = -1, -1
    holes = False
    for step in range(steps):
        k = steps - 1 - step
        n = 0
        for i in range(bucket[k + 1], bucket[k + 2]):
            y, x0, x1 = unpack(runs[i])
            area, euler = 0, 0
            if contours:
                area, euler = block_changes(label, stride, y, x0, x1)
            c = switch_on(label, stride, forest, spans, born, y, x0, x1, 1, step)
            born += c == born
            component = forest[c]
            component.area += area
            component.euler += euler
            if component.changed != step:
                component.changed, component.traced = step, -1
                changed[n] = c
                n += 1
        n = keep_living(forest, changed, n)
        if spans.size:
            for i in range(n):
                count = renew_span(forest, spans, count, changed[i], 0, right, bottom, step)
        if best >= 0:
            best = find(forest, best)
        if not contours:
            best = most_pixels(forest, changed, n, best)
        elif n:
            for i in range(n):
                holes |= forest[changed[i]].euler != 4
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
            best, best_most = largest_contour(label, 0, stride, forest, changed, n)
            best_start = forest[best].start
        box = boxes[k]
        if best >= 0:
            largest = forest[best]
            box[0], box[1] = largest.left, largest.top
            box[2], box[3] = min(largest.right, right), min(largest.bottom, bottom)
            if cells.size:
                mark_seeds(label, stride, forest, best, outline, cells[k])
        elif contours:
            box[:] = 0
        else:
            box[0], box[1], box[2], box[3] = 0, 0, width, height
    close_all(spans, count, steps)
    return count, holes


@jit
def grow_holes(runs, bucket, steps, label, width, forest, changed, spans):  # type: ignore[no-untyped-def]
    """Spans of the holes' contours: what is off, 4-connected and apart from the map's edge, grown by one.

    Step s is threshold s. Returns the number of spans.
    """
    stride = width + 2
    height = label.size // stride - 2
    label[:] = -1
    born, count = 0, 0
    for step in range(steps):
        n = 0
        for i in range(bucket[step], bucket[step + 1]):
            y, x0, x1 = unpack(runs[i])
            c = switch_on(label, stride, forest, spans, born, y, x0, x1, 0, step)
            born += c == born
            if forest[c].changed != step:
                forest[c].changed = step
                changed[n] = c
                n += 1
        for i in range(keep_living(forest, changed, n)):
            c = changed[i]
            hole = forest[c]
            if hole.left > 0 and hole.top > 0 and hole.right < width and hole.bottom < height:
                count = renew_span(forest, spans, count, c, 1, width - 1, height - 1, step)
            else:
                close_span(forest, spans, c, step)
    close_all(spans, count, steps)
    return count


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
def mark_seeds(label, stride, forest, best, outline, cells):  # type: ignore[no-untyped-def]
    """Mark the cells [h, w] under the component's pixels on the sides of its box, or on its outline.

    The outline is every pixel with a 4-neighbour that is off or outside the map.
    """
    width, height = stride - 2, label.size // stride - 2
    box = forest[best]
    for y in range(box.top, box.bottom):
        whole_row = outline or y == box.top or y == box.bottom - 1
        for x in range(box.left, box.right, 1 if whole_row else max(1, box.right - 1 - box.left)):
            i = (y + 1) * stride + x + 1
            if label[i] < 0 or find(forest, label[i]) != best:
                continue
            inside = min(label[i - stride], label[i - 1], label[i + 1], label[i + stride]) >= 0
            if not (outline and inside):
                cells[y * cells.shape[0] // height, x * cells.shape[1] // width] = True


@inlined
def best_iou(left, top, right, bottom, truth, pad):  # type: ignore[no-untyped-def]
    """Best IoU of one box with boxes [n, 4]; pad 1 for inclusive corners, 0 for half-open edges."""
    best = 0.0
    area = (right - left + pad) * (bottom - top + pad)
    for j in range(truth.shape[0]):
        x0, y0, x1, y1 = truth[j, 0], truth[j, 1], truth[j, 2], truth[j, 3]
        w = min(right, x1) - max(left, x0) + pad
        h = min(bottom, y1) - max(top, y0) + pad
        if w > 0 and h > 0:
            both = w * h
            best = max(best, both / (area + (x1 - x0 + pad) * (y1 - y0 + pad) - both))
    return best


@jit
def raise_to(spans, count, falling, truth, pad, table):  # type: ignore[no-untyped-def]
    """Raise table [rungs, T] to the spans' IoU over the thresholds at which they stand.

    table[p, k] stands for 2ᵖ thresholds from k on: two overlapping stretches cover any span.
    """
    thresholds = table.shape[1]
    for i in range(count):
        span = spans[i]
        first, last = span.first, span.last
        if falling:
            first, last = thresholds - 1 - last, thresholds - 1 - first
        p = 0
        while 2 << p <= last - first + 1:
            p += 1
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
def forest_room(height, width, thresholds):  # type: ignore[no-untyped-def]
    """What a forest grows in: runs, and components with their labels; every map of a batch uses it again."""
    pixels = height * width
    return (
        np.empty((pixels, 2), np.int64),
        np.empty(pixels, np.int64),
        np.empty(thresholds + 3, np.int32),
        np.empty((height + 2) * (width + 2), np.int32),
        np.empty(pixels, COMPONENT),
        np.empty(pixels + 1, np.int32),
    )


@jit
def hump_room(height, width, share):  # type: ignore[no-untyped-def]
    """What basins grow in: room for as many humps as a share of the pixels, and two rows."""
    pixels = height * width
    most = int(share * pixels) + 2 * width if share > 0 else 0
    return (
        np.empty((pixels, 2), np.int32),
        np.empty(most, HUMP),
        np.empty(5 * most, EDGE),
        np.empty((3, 5 * most), np.int32),
        np.empty(most, BASIN),
        np.empty(pixels, ENTRY),
        np.empty((2, (height + 2) * (width + 2)), np.int32),
    )


@jit
def grow(level, contours, outline, hump_room, forest_room, spans, boxes, cells):  # type: ignore[no-untyped-def]
    """As grow_components; over the humps of a smooth map where no cells are asked for."""
    thresholds = boxes.shape[0]
    height, width = level.shape
    if cells.size == 0:
        runs, humps, edges, ranks, basins, entries, framed = hump_room
        m, e = find_humps(level, runs, humps, edges)
        if m >= 0:
            e = touch_rows(level, humps, m, edges, e)
            count, merged, total = join_humps(humps, m, edges, e, thresholds, ranks, basins)
            if total <= entries.size:
                count_runs(runs, humps, m, basins, entries, total, width)
                if contours:
                    count_blocks(level, humps, m, basins, entries, framed[0], framed[1])
                return grow_basins(
                    *(framed[0], contours, basins, count, ranks[2], merged, entries, ranks[0]),
                    *(width, height, spans, boxes),
                )
    found, runs_, bucket, label, forest, changed = forest_room
    sort_runs(level, found, runs_, bucket)
    return grow_components(
        runs_, bucket, contours, outline, label, width, forest, changed, spans, boxes, cells
    )


@jit
def grow_hole_spans(level, forest_room, thresholds, spans):  # type: ignore[no-untyped-def]
    """As grow_holes, from a level map [H, W]."""
    found, runs, bucket, label, forest, changed = forest_room
    sort_runs(level, found, runs, bucket)
    return grow_holes(runs, bucket, thresholds, label, level.shape[1], forest, changed, spans)


@jit
def curves(  # type: ignore[no-untyped-def]
    levels, contours, outline, share, truth, offsets, boxes, largest, every, cells
):
    """Largest boxes [B, T, 4] of level maps [B, H, W]; with T of `every` not 0, IoU [B, T] as well;
    with T of `cells` [B, T, h, w] not 0, the cells.
    """
    images, height, width = levels.shape
    thresholds = boxes.shape[1]
    humps, forest = hump_room(height, width, share), forest_room(height, width, thresholds)
    scored = every.shape[1] > 0
    spans = np.empty(height * width if scored else 0, SPAN)
    rungs = 1
    while 1 << rungs <= thresholds:
        rungs += 1
    table = np.empty((rungs, thresholds))
    pad = 1 if contours else 0
    for i in range(images):
        n, holes = grow(levels[i], contours, outline, humps, forest, spans, boxes[i], cells[i])
        if scored:
            real = truth[offsets[i] : offsets[i + 1]]
            table[:] = 0.0
            raise_to(spans, n, True, real, pad, table)
            if holes:
                n = grow_hole_spans(levels[i], forest, thresholds, spans)
                raise_to(spans, n, False, real, pad, table)
            settle(table)
            for k in range(thresholds):
                box = boxes[i, k]
                largest[i, k] = best_iou(box[0], box[1], box[2], box[3], real, pad)
                every[i, k] = max(table[0, k], largest[i, k])


@jit
def every_span(levels, contours, share, boxes, cells):  # type: ignore[no-untyped-def]
    """Spans of one level map [1, H, W] by threshold: boxes of components, with `contours` of holes too."""
    height, width = levels.shape[1:]
    thresholds = boxes.shape[1]
    humps, forest = hump_room(height, width, share), forest_room(height, width, thresholds)
    spans = np.empty(height * width, SPAN)
    n, holes = grow(levels[0], contours, False, humps, forest, spans, boxes[0], cells[0])
    components = spans[:n].copy()
    for i in range(n):
        span = components[i]
        span.first, span.last = thresholds - 1 - span.last, thresholds - 1 - span.first
    n = grow_hole_spans(levels[0], forest, thresholds, spans) if holes else 0
    return components, spans[:n].copy()
