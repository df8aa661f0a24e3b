"""OpenCV's contour area, for a sweep: the polygon through the centres of a component's outer pixels.

It is kept up to date from 2 × 2 blocks of pixels: a full block adds one square, a block of three
half of one. What is summed so is the area without holes; whether there are holes is told by the
Euler number (Gray's bit quads). A component with holes has its border traced, and only if its
bounds leave open which component is the largest.
"""

import numpy as np

from pipeline.sweep_forest import AREA, BOTTOM, EULER, LEFT, RIGHT, START, TOP
from pipeline.sweep_levels import inlined, jit

# What a pixel that goes on changes in a block, by its neighbours there: 4 if the one diagonal to it is
# on, 2 if the one above or below it, 1 if the one beside it. First twice the block's area, then its
# share of four times the Euler number (8-connected; one pixel on counts 1, three −1, a diagonal −2).
AREA_CHANGE = np.array([0, 0, 0, 1, 0, 1, 1, 1], np.int32)
EULER_CHANGE = np.array([1, -1, -1, 1, -3, -1, -1, 1], np.int32)


@inlined
def block_changes(label, y, x0, x1):  # type: ignore[no-untyped-def]
    """Change of (twice the area, four times the Euler number) when columns x0 … x1 − 1 of row y go on."""
    area, euler = 0, 0
    for other in (y - 1, y + 1):
        left = 4 * (label[other, x0 - 1] >= 0) + 2 * (label[other, x0] >= 0)
        right = 4 * (label[other, x1] >= 0) + 2 * (label[other, x1 - 1] >= 0)
        left += label[y, x0 - 1] >= 0
        right += label[y, x1] >= 0
        area += AREA_CHANGE[left] + AREA_CHANGE[right]
        euler += EULER_CHANGE[left] + EULER_CHANGE[right]
        for x in range(x0, x1 - 1):  # blocks of which the run takes the whole row
            here, following = label[other, x] >= 0, label[other, x + 1] >= 0
            area += here + following
            euler -= 2 * (here != following)
    return area, euler


DY = np.array([0, -1, -1, -1, 0, 1, 1, 1], np.int32)  # clockwise from the left neighbour
DX = np.array([-1, -1, 0, 1, 1, 1, 0, -1], np.int32)


@jit
def traced_area(label, y, x):  # type: ignore[no-untyped-def]
    """Twice the polygon area of the outer border that starts at its first pixel in raster order.

    Border following after Suzuki & Abe (1985); `label` ≥ 0 is on, with a frame that is off.
    """
    first = 0
    while first < 8 and label[y + DY[first], x + DX[first]] < 0:
        first += 1
    if first == 8:
        return 0
    last_y, last_x = y + DY[first], x + DX[first]  # the border ends by coming from there
    here_y, here_x, back, twice = y, x, first, 0
    while True:
        turn = (back + 7) % 8  # counter-clockwise, from the pixel after the one come from
        while label[here_y + DY[turn], here_x + DX[turn]] < 0:
            turn = (turn + 7) % 8
        next_y, next_x = here_y + DY[turn], here_x + DX[turn]
        twice += here_x * next_y - next_x * here_y
        if next_y == y and next_x == x and here_y == last_y and here_x == last_x:
            return abs(twice)
        here_y, here_x, back = next_y, next_x, (turn + 4) % 8


@inlined
def least_area(forest, c):  # type: ignore[no-untyped-def]
    """Lower bound of twice the contour area, exact without holes: a hole is no smaller than 2."""
    return forest[c, AREA] + 4 * (1 - forest[c, EULER] // 4)


@inlined
def most_area(forest, c):  # type: ignore[no-untyped-def]
    """Upper bound of twice the contour area, exact without holes; else that of the box."""
    if forest[c, EULER] == 4:
        return forest[c, AREA]
    return 2 * (forest[c, RIGHT] - forest[c, LEFT] - 1) * (forest[c, BOTTOM] - forest[c, TOP] - 1)


@inlined
def contour_area(label, forest, c):  # type: ignore[no-untyped-def]
    """Twice the contour area."""
    if forest[c, EULER] == 4:
        return forest[c, AREA]
    width = label.shape[1] - 2
    return traced_area(label, forest[c, START] // width + 1, forest[c, START] % width + 1)


@jit
def largest_contour(label, forest, among, n):  # type: ignore[no-untyped-def]
    """Component of largest contour area among[:n], of equals the one whose first pixel comes last.

    Returns it and an upper bound of its area, doubled.
    """
    least = 0
    for i in range(n):
        least = max(least, least_area(forest, among[i]))
    contenders = 0
    for i in range(n):
        if most_area(forest, among[i]) >= least:
            contenders += 1
            best = among[i]
    if contenders == 1:
        return best, most_area(forest, best)
    best, largest = -1, -1
    for i in range(n):
        c = among[i]
        if most_area(forest, c) >= least:
            area = contour_area(label, forest, c)
            if area > largest or (area == largest and forest[c, START] > forest[best, START]):
                best, largest = c, area
    return best, largest
