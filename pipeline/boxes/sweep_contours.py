"""OpenCV's contour area, for a sweep: the polygon through the centres of a component's outer pixels.

It is kept up to date from 2 × 2 blocks of pixels: a full block adds one square, a block of three
half of one. What is summed so is the area without holes; whether there are holes is told by the
Euler number (Gray's bit quads). A component with holes has its border traced, and only if its
bounds leave open which component is the largest.
"""

import numpy as np

from pipeline.boxes.sweep_levels import inlined, jit

# What a pixel that goes on changes in a block, by its neighbours there: 4 if the one diagonal to it is
# on, 2 if the one above or below it, 1 if the one beside it. First twice the block's area, then its
# share of four times the Euler number (8-connected; one pixel on counts 1, three −1, a diagonal −2).
AREA_CHANGE = np.array([0, 0, 0, 1, 0, 1, 1, 1], np.int32)
EULER_CHANGE = np.array([1, -1, -1, 1, -3, -1, -1, 1], np.int32)


@inlined
def block_changes(label, stride, y, x0, x1):  # type: ignore[no-untyped-def]
    """Change of (twice the area, four times the Euler number) when columns x0 … x1 − 1 of row y go on."""
    area, euler = 0, 0
    first = (y + 1) * stride + x0 + 1
    last = first + x1 - x0 - 1
    for row in (-stride, stride):
        left = 4 * (label[first + row - 1] >= 0) + 2 * (label[first + row] >= 0)
        right = 4 * (label[last + row + 1] >= 0) + 2 * (label[last + row] >= 0)
        left += label[first - 1] >= 0
        right += label[last + 1] >= 0
        area += AREA_CHANGE[left] + AREA_CHANGE[right]
        euler += EULER_CHANGE[left] + EULER_CHANGE[right]
    for i in range(first, last):  # blocks of which the run takes the whole row
        for row in (-stride, stride):
            here, following = label[i + row] >= 0, label[i + row + 1] >= 0
            area += here + following
            euler -= 2 * (here != following)
    return area, euler


@jit
def traced_area(framed, on, stride, first):  # type: ignore[no-untyped-def]
    """Twice the polygon area of the outer border from its first pixel in raster order, framed[first].

    What is on is ≥ `on`. Border following after Suzuki & Abe (1985).
    """
    # Clockwise from the left neighbour.
    steps = (-1, -stride - 1, -stride, -stride + 1, 1, stride + 1, stride, stride - 1)
    turn = 0
    while turn < 8 and framed[first + steps[turn]] < on:
        turn += 1
    if turn == 8:
        return 0
    last = first + steps[turn]  # the border ends by coming from there
    here, twice = first, 0
    while True:
        turn = (turn + 7) % 8  # counter-clockwise, from the pixel after the one come from
        while framed[here + steps[turn]] < on:
            turn = (turn + 7) % 8
        following = here + steps[turn]
        y, x = divmod(here, stride)
        next_y, next_x = divmod(following, stride)
        twice += x * next_y - next_x * y
        if following == first and here == last:
            return abs(twice)
        here, turn = following, (turn + 4) % 8


@inlined
def least_area(component):  # type: ignore[no-untyped-def]
    """Lower bound of twice the contour area, exact without holes: a hole is no smaller than 2."""
    return component.area + 4 * (1 - component.euler // 4)


@inlined
def most_area(component):  # type: ignore[no-untyped-def]
    """Upper bound of twice the contour area, exact without holes; else that of the box."""
    if component.euler == 4:
        return component.area
    return 2 * (component.right - component.left - 1) * (component.bottom - component.top - 1)


@inlined
def contour_area(framed, on, stride, component):  # type: ignore[no-untyped-def]
    """Twice the contour area; what had to be traced is kept until the component grows."""
    if component.euler == 4:
        return component.area
    if component.traced < 0:
        y, x = divmod(component.start, stride - 2)
        component.traced = traced_area(framed, on, stride, (y + 1) * stride + x + 1)
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
