"""OpenCV's contour area, for a sweep: the polygon through the centres of a component's outer pixels.

It is kept up to date from 2 × 2 blocks of pixels: a full block adds one square, a block of three
half of one. What is summed so is the area without holes; whether there are holes is told by the
Euler number. A component with holes has its border traced, and only if its bounds leave open which
component is the largest.
"""

from pipeline.boxes.threshold_sweep.levels import jit
from pipeline.boxes.threshold_sweep.runs import neighbour


@jit
def traced_area(framed, on, stride, first):  # type: ignore[no-untyped-def]
    """Twice the polygon area of the outer border from its first pixel in raster order, framed[first].

    What is on is ≥ `on`. Border following after Suzuki & Abe (1985).
    """
    turn = 12  # left: first clockwise from there
    while turn > 4 and framed[first + neighbour(turn % 8, stride)] < on:
        turn -= 1
    if turn == 4:
        return 0
    last = first + neighbour(turn % 8, stride)  # the border ends by coming from there
    here, twice = first, 0
    while True:
        turn = (turn + 1) % 8  # counter-clockwise, from the pixel after the one come from
        while framed[here + neighbour(turn, stride)] < on:
            turn = (turn + 1) % 8
        following = here + neighbour(turn, stride)
        y, x = divmod(here, stride)
        next_y, next_x = divmod(following, stride)
        twice += x * next_y - next_x * y
        if following == first and here == last:
            return abs(twice)
        here, turn = following, (turn + 4) % 8


@jit
def twice_area(component):  # type: ignore[no-untyped-def]
    """Of its blocks: without holes."""
    return component.change & 0xFFFFFFFF


@jit
def least_area(component):  # type: ignore[no-untyped-def]
    """Lower bound of twice the contour area, exact without holes: a hole is no smaller than 2."""
    return twice_area(component) + 4 * (1 - (component.change >> 32))


@jit
def most_area(component):  # type: ignore[no-untyped-def]
    """Upper bound of twice the contour area, exact without holes; else that of the box."""
    if component.change >> 32 == 1:
        return twice_area(component)
    return 2 * (component.right - component.left - 1) * (component.bottom - component.top - 1)


@jit
def contour_area(framed, on, stride, component):  # type: ignore[no-untyped-def]
    """Twice the contour area; what had to be traced is kept until the component grows."""
    if component.change >> 32 == 1:
        return twice_area(component)
    if component.traced < 0:
        component.traced = traced_area(framed, on, stride, component.start)
    return component.traced


@jit
def largest_contour(framed, on, stride, forest, among, n):  # type: ignore[no-untyped-def]
    """Component of largest contour area among[:n], of equals the one whose first pixel comes last.

    `framed` is the map row by row in a frame one pixel wide; what is on there is ≥ `on`.
    Returns it and an upper bound of its area, doubled.
    """
    least = 0
    for i in range(n):
        least = max(least, least_area(forest[among[i]]))
    contenders, best = 0, -1
    for i in range(n):
        if most_area(forest[among[i]]) >= least:
            contenders += 1
            best = among[i]
    if contenders == 1:
        return best, most_area(forest[best])
    best, largest = -1, -1
    for i in range(n):
        c = among[i]
        if most_area(forest[c]) >= least:
            area = contour_area(framed, on, stride, forest[c])
            if area > largest or (area == largest and forest[c].start > forest[best].start):
                best, largest = c, area
    return best, largest
