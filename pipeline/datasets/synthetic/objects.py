"""Beetles of bright colours on dull ground: pictures whose classes, parts and boxes are known exactly.

A species shows in its shell (colour and texture) and in its head (another colour). Shells vary in hue
from animal to animal and heads do not: a classifier can do best by the head, while the box is that of
the whole animal. Lengths are in pixels; points are (y, x); colours are RGB in 0…1.
"""

from collections.abc import Callable
from colorsys import hsv_to_rgb
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter

from pipeline.datasets.synthetic import backgrounds

Rng = np.random.Generator

HUES: dict[str, float] = {
    "crimson": 0.975,
    "amber": 0.07,
    "golden": 0.14,
    "jade": 0.40,
    "cyan": 0.51,
    "azure": 0.61,
    "violet": 0.75,
    "rose": 0.88,
}
TEXTURES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    # of shell coordinates u (forward) and v (sideways), both -1…1: 1 where it is dark, else 0
    "plain": lambda u, v: np.abs(v) < 0.06,
    "banded": lambda u, v: np.sin(11 * u) > 0.35,
    "striped": lambda u, v: np.cos(13 * v) > 0.35,
    "dotted": lambda u, v: (np.sin(8 * u) * np.sin(8 * v)) ** 2 > 0.3,
}
HUE_DEVIATION = 0.03  # of shells of one species
SHARES = (0.3, 0.6)  # longest side of the box over the image's short side
MARGIN = 2
LEGS = np.array(
    [(0.5, 0.25), (0.0, 0.0), (-0.45, -0.3)]
)  # u of a joint, and from there to the foot
THICKNESS = 0.07  # half of a leg's, in half lengths of the shell
THINNEST = 0.75  # the same in pixels: thinner legs would cover no pixel by half
DARK = np.array((0.07, 0.06, 0.09), np.float32)


@dataclass(frozen=True)
class Species:
    """What the animals of a class have in common: hues of shell and head, and the shell's texture."""

    name: str
    shell: float
    head: float
    texture: str


@dataclass(frozen=True)
class _Pose:
    """Centre [2] and heading of an animal, half of its shell's length, and width over length."""

    centre: np.ndarray
    angle: float
    size: float
    girth: float

    def axes(self) -> np.ndarray:
        """Rows: the unit vectors forward and sideways."""
        sin, cos = np.sin(self.angle), np.cos(self.angle)
        return np.array([(sin, cos), (cos, -sin)])


def species(count: int) -> list[Species]:
    """The first `count` species; at most len(HUES) · len(TEXTURES)."""
    colours, textures = list(HUES), list(TEXTURES)
    kinds = []
    for i in range(count):
        colour = colours[i % len(colours)]
        texture = textures[(i + i // 4 + i // 8) % len(textures)]
        head = colours[(i + 3 + i // 8) % len(colours)]
        kinds.append(Species(f"{colour}_{texture}", HUES[colour], HUES[head], texture))
    return kinds


def draw(kind: Species, height: int, width: int, rng: Rng) -> tuple[np.ndarray, np.ndarray]:
    """One animal on its ground: (uint8 [height, width, 3], box float32 [4]: x0, y0, x1, y1 half-open).

    The box is that of all pixels at least half covered by the animal; nothing lies over it.
    """
    canvas = backgrounds.draw(height, width, rng)
    colours, cover = _animal(kind, _pose(height, width, rng), height, width, rng)
    _lay_shadow(canvas, cover)
    canvas += cover[..., None] * (colours - canvas)
    ys, xs = np.nonzero(cover >= 0.5)
    box = np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1], np.float32)
    return (np.clip(canvas, 0, 1) * 255 + 0.5).astype(np.uint8), box


def _pose(height: int, width: int, rng: Rng) -> _Pose:
    """Any heading, a size from SHARES, anywhere in the image as long as all of it is inside."""
    unit = _Pose(np.zeros(2), rng.uniform(0, 2 * np.pi), 1.0, rng.uniform(0.6, 0.8))
    low, high = _extent(unit)
    size = rng.uniform(*SHARES) * min(height, width) / (high - low).max()
    room = np.array([height, width]) - 2 * MARGIN - size * (high - low)
    centre = MARGIN - size * low + rng.random(2) * room
    return _Pose(centre, unit.angle, size, unit.girth)


def _extent(pose: _Pose) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest (y, x) of the animal, relative to its centre."""
    axes = pose.axes()
    shell = np.hypot(*(axes * [[1.0], [pose.girth]]))
    head, radius = _head(pose)
    _, feet = _legs(pose)
    middles = np.concatenate([np.zeros((1, 2)), [head @ axes], feet @ axes])
    halves = np.concatenate([[shell], np.full((1, 2), radius), np.full((len(feet), 2), THICKNESS)])
    return pose.size * (middles - halves).min(0), pose.size * (middles + halves).max(0)


def _head(pose: _Pose) -> tuple[np.ndarray, float]:
    """Centre (u, v) and radius of the head, in half lengths of the shell."""
    radius = 0.6 * pose.girth
    return np.array([0.85 + 0.3 * radius, 0.0]), radius


def _legs(pose: _Pose) -> tuple[np.ndarray, np.ndarray]:
    """Joints and feet [6, 2] as (u, v), in half lengths of the shell."""
    side = np.array([1.0, -1.0]).repeat(len(LEGS))
    joint, swing = np.tile(LEGS, (2, 1)).T
    joints = np.stack([joint, 0.5 * pose.girth * side], 1)
    return joints, np.stack([joint + swing, (pose.girth + 0.15) * side], 1)


def _animal(
    kind: Species, pose: _Pose, height: int, width: int, rng: Rng
) -> tuple[np.ndarray, np.ndarray]:
    """Its colours [h, w, 3], and how much of each pixel it covers, 0…1 [h, w]."""
    away = np.moveaxis(np.indices((height, width), np.float32), 0, -1) + 0.5 - pose.centre
    u, v = np.moveaxis(away @ pose.axes().T / pose.size, -1, 0).astype(np.float32)

    across = v / pose.girth
    shell = (np.hypot(u, across) - 1) * pose.girth
    (ahead, _), radius = _head(pose)
    head = np.hypot(u - ahead, v) - radius
    legs = np.min([_segment(u, v, *ends) for ends in zip(*_legs(pose), strict=True)], 0)
    legs -= max(THICKNESS, THINNEST / pose.size)

    light = _light(away, u, across, pose.size)
    hue, value = kind.shell + rng.normal(0, HUE_DEVIATION), rng.uniform(0.75, 0.95)
    dark = TEXTURES[kind.texture](u, across)
    skin = np.where(dark[..., None], DARK, _colour(hue, value)) * light[..., None]
    colours = DARK + _soft(-shell * pose.size) * (skin - DARK)
    face = _face(kind, (u - ahead) / radius, v / radius)
    colours += _soft(-head * pose.size) * (face - colours)
    outline = np.minimum(np.minimum(shell, head), legs) * pose.size
    return colours.astype(np.float32), _soft(-outline)[..., 0]


def _segment(u: np.ndarray, v: np.ndarray, start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Distance of each (u, v) from a line segment."""
    along = end - start
    du, dv = u - start[0], v - start[1]
    part = np.clip((du * along[0] + dv * along[1]) / (along @ along), 0, 1)
    return np.hypot(du - part * along[0], dv - part * along[1])


def _face(kind: Species, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Colours of the head, of coordinates -1…1: always the same, with two dark eyes."""
    eyes = np.hypot(u - 0.35, np.abs(v) - 0.5) < 0.26
    return np.where(eyes[..., None], DARK, _colour(kind.head, 1.0))


def _colour(hue: float, value: float) -> np.ndarray:
    return np.array(hsv_to_rgb(hue % 1, 0.9, value), np.float32)


def _light(away: np.ndarray, u: np.ndarray, across: np.ndarray, size: float) -> np.ndarray:
    """Of a dome lit from the upper left."""
    dome = np.sqrt(np.clip(1 - u * u - across * across, 0, 1))
    return 0.75 + 0.3 * dome - np.clip(0.15 * away.sum(-1) / size, -0.2, 0.2)


def _soft(depth: np.ndarray) -> np.ndarray:
    """Cover [h, w, 1] of a pixel that lies `depth` pixels inside an edge (negative: outside)."""
    return np.clip(0.5 + depth, 0, 1)[..., None]


def _lay_shadow(canvas: np.ndarray, cover: np.ndarray) -> None:
    """Darken the ground to the lower right of the animal, softly."""
    shadow = Image.fromarray((np.roll(cover, (2, 1), (0, 1)) * 255).astype(np.uint8))
    soft = np.asarray(shadow.filter(ImageFilter.BoxBlur(2)), np.float32) / 255
    canvas *= 1 - 0.35 * soft[..., None]
