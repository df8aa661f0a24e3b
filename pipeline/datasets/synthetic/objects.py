"""Little newts on cluttered ground: pictures whose classes, parts and boxes are known exactly.

A species shows strongly in its head (colour and mark) and only weakly in the rest (texture, tint,
build): a classifier can do well by the head alone, while the box is that of the whole animal.
Lengths are in pixels; points are (y, x); colours are RGB in 0…1.
"""

from collections.abc import Callable
from colorsys import hsv_to_rgb
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter

from pipeline.datasets.synthetic import backgrounds

Rng = np.random.Generator
Colour = tuple[float, float, float]

HEADS: dict[str, Colour] = {
    "crimson": (0.86, 0.10, 0.18),
    "azure": (0.16, 0.42, 1.00),
    "golden": (1.00, 0.80, 0.05),
    "violet": (0.55, 0.22, 0.92),
    "jade": (0.05, 0.74, 0.40),
    "rose": (1.00, 0.42, 0.70),
    "amber": (0.98, 0.50, 0.05),
    "cyan": (0.15, 0.85, 0.92),
}
MARKS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    # of head coordinates u (forward) and v (sideways), both -1…1: how deep inside the second colour
    "ring": lambda u, v: 0.19 - np.abs(np.hypot(u + 0.1, v) - 0.45),
    "bar": lambda u, v: 0.2 - np.abs(np.abs(u - 0.05) - 0.42),
    "spot": lambda u, v: (
        0.27 - np.minimum(np.hypot(u - 0.35, v), np.hypot(u + 0.4, np.abs(v) - 0.4))
    ),
    "half": lambda u, v: v,
}
TEXTURES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    # of t (0 head … 1 tail tip) and s (-1…1 across), as 0…1
    "plain": lambda t, s: np.zeros_like(t),
    "banded": lambda t, s: 0.5 + 0.5 * np.sin(58 * t),
    "striped": lambda t, s: 0.5 + 0.5 * np.cos(8 * s),
    "dotted": lambda t, s: np.clip(1.6 * np.sin(50 * t) * np.cos(5 * s), 0, 1),
}
SPINE = 24  # points
REACH = 2.4  # of head and legs beyond the spine, in body radii
SMALL = 0.15  # share of small animals
FAITHFUL = 0.5  # share of animals that wear their species' own texture; the others wear any


@dataclass(frozen=True)
class Species:
    """What the animals of a class have in common."""

    name: str
    head: Colour
    mark: str
    texture: str
    tint: float  # mean hue of the body
    girth: float  # mean thickness of the body, relative


def species(count: int) -> list[Species]:
    """The first `count` species; at most len(HEADS) · len(MARKS)."""
    heads, marks, textures = list(HEADS), list(MARKS), list(TEXTURES)
    kinds = []
    for i in range(count):
        colour, mark = heads[i % len(heads)], marks[(i + i // 4 + i // 8) % len(marks)]
        kinds.append(
            Species(
                name=f"{colour}_{mark}head",
                head=HEADS[colour],
                mark=mark,
                texture=textures[(i * 3 + i // 4) % len(textures)],
                tint=(0.04 + 0.31 * i) % 0.5,
                girth=(0.88, 1.0, 1.12)[i % 3],
            )
        )
    return kinds


def draw(kind: Species, height: int, width: int, rng: Rng) -> tuple[np.ndarray, np.ndarray]:
    """One animal on its ground: (uint8 [height, width, 3], box float32 [4]: x0, y0, x1, y1 half-open).

    The box is that of all pixels at least half covered by the animal; nothing lies over it.
    """
    canvas = backgrounds.draw(height, width, rng)
    spine, radius = _build(kind, height, width, rng)
    corner = np.maximum(np.floor(spine.min(0) - REACH * radius.max() - 2), 0)
    far = np.ceil(spine.max(0) + REACH * radius.max() + 2)
    window = slice(int(corner[0]), int(far[0])), slice(int(corner[1]), int(far[1]))
    origin = corner.astype(np.float32)
    colours, inside = _animal(kind, spine - origin, radius, canvas[window].shape[:2], rng)
    cover = np.zeros((height, width), np.float32)
    cover[window] = inside
    _lay_shadow(canvas, cover)
    canvas[window] = _over(canvas[window], colours, inside)
    ys, xs = np.nonzero(cover >= 0.5)
    box = np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1], np.float32)
    return (np.clip(canvas, 0, 1) * 255 + 0.5).astype(np.uint8), box


def _over(below: np.ndarray, above: np.ndarray, cover: np.ndarray) -> np.ndarray:
    """`above` laid on `below` where `cover` [h, w] is 1, mixed in between."""
    return below + cover[..., None] * (above - below)


def _soft(depth: np.ndarray) -> np.ndarray:
    """Cover of a pixel that lies `depth` pixels inside an edge (negative: outside)."""
    return np.clip(0.5 + depth, 0, 1)


WHITE = np.array((0.98, 0.96, 0.91), np.float32)
BLACK = np.array((0.05, 0.05, 0.07), np.float32)

# --- the animal -------------------------------------------------------------------------------


def _animal(
    kind: Species, spine: np.ndarray, radius: np.ndarray, size: tuple[int, ...], rng: Rng
) -> tuple[np.ndarray, np.ndarray]:
    """Its colours [h, w, 3] in a window of `size`, and how much of each pixel it covers [h, w]."""
    pixels = np.moveaxis(np.indices(size, np.float32), 0, -1) + 0.5
    tangent = np.gradient(spine, axis=0)
    tangent /= _length(tangent)[:, None]

    distance, t, s, along = _along_the_body(spine, tangent, radius, pixels)
    texture = kind.texture if rng.random() < FAITHFUL else rng.choice(list(TEXTURES))
    hue = (kind.tint + rng.normal(0, 0.07)) % 1
    base = np.array(hsv_to_rgb(hue, rng.uniform(0.25, 0.5), rng.uniform(0.5, 0.75)), np.float32)
    colours = base * (1 - TEXTURES[texture](t, s) * np.float32(rng.uniform(0.5, 0.7)))[..., None]
    colours *= _light(s, along)[..., None]

    colours = _over(base * 0.5, colours, _soft(-distance))
    _add_legs(distance, spine, tangent, radius, pixels, rng)
    _add_head(distance, colours, kind, spine[0], tangent[0], 1.55 * radius[0], pixels)
    return colours, _soft(-distance)


def _along_the_body(
    spine: np.ndarray, tangent: np.ndarray, radius: np.ndarray, pixels: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Of each pixel: distance to the body (negative inside), place t along (0 head … 1 tail tip) and s
    across it (-1…1), and the spine's direction there [h, w, 2]."""
    coarse = pixels[::2, ::2]  # every other pixel is enough to find the nearest point of the spine
    dy = coarse[..., 0, None] - spine[:, 0]
    dx = coarse[..., 1, None] - spine[:, 1]
    nearest = (np.sqrt(dy * dy + dx * dx) - radius).argmin(-1)
    nearest = nearest.repeat(2, 0).repeat(2, 1)[: len(pixels), : pixels.shape[1]]
    along, offset = tangent[nearest], pixels - spine[nearest]
    ahead = (offset * along).sum(-1)
    across = along[..., 0] * offset[..., 1] - along[..., 1] * offset[..., 0]
    step = np.clip(ahead / np.hypot(*(spine[1] - spine[0])), -1, 1)
    thick = radius[nearest] + step * np.gradient(radius)[nearest]
    last = len(spine) - 1
    beyond = np.where(nearest == last, np.maximum(ahead, 0), 0)  # the round ends
    beyond = np.where(nearest == 0, np.minimum(ahead, 0), beyond)
    t = (nearest.astype(np.float32) + step) / np.float32(last)
    return np.sqrt(across**2 + beyond**2) - thick, t, across / thick, along


def _build(kind: Species, height: int, width: int, rng: Rng) -> tuple[np.ndarray, np.ndarray]:
    """Spine points [SPINE, 2] from head to tail tip, placed inside the image, and the radius at each."""
    t = np.linspace(0, 1, SPINE, dtype=np.float32)
    bend = rng.uniform(0.3, 1.1) * np.sin(rng.uniform(3, 7) * t + rng.uniform(0, 6.3))
    angle = rng.uniform(0, 2 * np.pi) + bend
    spine = np.cumsum(np.stack([np.sin(angle), np.cos(angle)], 1), axis=0) / SPINE
    girth = 0.1 * kind.girth * rng.uniform(0.85, 1.15)
    profile = np.interp(t, [0, 0.1, 0.3, 0.5, 0.7, 1], [0.78, 0.7, 1.0, 0.8, 0.42, 0.14])
    radius = (girth * profile).astype(np.float32)

    reach = REACH * girth
    extent = np.ptp(spine, axis=0) + 2 * reach
    share = rng.uniform(0.35, 0.55) if rng.random() < SMALL else rng.uniform(0.7, 1.25)
    room = np.array([height - 4, width - 4])
    scale = min(share * min(height, width) / extent.max(), *(room / extent))
    corner = 2 + rng.random(2) * (room - scale * extent)
    placed = (spine - spine.min(0) + reach) * scale + corner
    return placed.astype(np.float32), np.maximum(radius * scale, 0.8).astype(np.float32)


def _around(point: np.ndarray, reach: float) -> tuple[slice, slice]:
    """The pixels up to `reach` from a point."""
    top, left = np.maximum(point - reach, 0).astype(int)
    bottom, right = (point + reach + 1).astype(int)
    return slice(top, bottom), slice(left, right)


def _add_legs(
    distance: np.ndarray,
    spine: np.ndarray,
    tangent: np.ndarray,
    radius: np.ndarray,
    pixels: np.ndarray,
    rng: Rng,
) -> None:
    """Join four legs to the `distance` from the animal [h, w]."""
    span = radius.max()
    thick = 0.24 * span + 0.3
    for joint in (len(spine) * 2 // 9, len(spine) // 2):
        near = _around(spine[joint], 2.6 * span + 2)
        away = pixels[near] - spine[joint]
        for side in (-1, 1):
            swing = rng.uniform(-0.8, 0.5)
            sideways = side * np.array([tangent[joint, 1], -tangent[joint, 0]])
            leg = np.float32(1.9 * span / np.hypot(1, swing)) * (sideways - swing * tangent[joint])
            part = np.clip(away @ (leg / (leg @ leg)), 0, 1)
            limb, foot = _length(away - part[..., None] * leg), _length(away - leg)
            limb = np.minimum(limb, foot - thick / 2) - thick
            distance[near] = np.minimum(distance[near], limb)


def _add_head(
    distance: np.ndarray,
    colours: np.ndarray,
    kind: Species,
    neck: np.ndarray,
    tangent: np.ndarray,
    size: float,
    pixels: np.ndarray,
) -> None:
    """Lay the head over `colours` [h, w, 3] and join it to `distance` [h, w]."""
    near = _around(neck, 2 * size + 2)
    face = pixels[near] - (neck - tangent * size * 0.35)
    u = -(face @ tangent) / (1.15 * size)
    v = (face @ np.array([-tangent[1], tangent[0]], np.float32)) / size
    skull = (np.sqrt(u * u + v * v) - 1) * size
    colours[near] = _over(colours[near], _face(kind, u, v, size), _soft(-skull))
    distance[near] = np.minimum(distance[near], skull)


def _face(kind: Species, u: np.ndarray, v: np.ndarray, size: float) -> np.ndarray:
    """Colours of the head: the species' own, its mark in near-white or near-black, two eyes."""
    skin = np.array(kind.head, np.float32)
    mark = BLACK if skin @ (0.3, 0.6, 0.1) > 0.45 else WHITE  # whichever stands out
    colours = _over(skin, mark, _soft(MARKS[kind.mark](u, v) * size))
    colours *= (1.08 - 0.35 * (u * u + v * v) ** 1.5)[..., None]
    eye = np.hypot(u - 0.42, np.abs(v) - 0.68)
    colours = _over(colours, WHITE, _soft((0.26 - eye) * size))
    return _over(colours, BLACK, _soft((0.15 - eye) * size))


def _length(vectors: np.ndarray) -> np.ndarray:
    """Euclidean length over the last axis, of two."""
    y, x = vectors[..., 0], vectors[..., 1]
    return np.sqrt(y * y + x * x)


def _light(s: np.ndarray, along: np.ndarray) -> np.ndarray:
    """Lambert's law on a round body lit from the upper left."""
    s = np.clip(s, -1, 1)
    sideways = s * (along[..., 0] * -0.45 - along[..., 1] * -0.55)
    return np.clip(0.42 + 0.62 * np.sqrt(1 - 0.92 * s**2) + 0.35 * sideways, 0.25, 1.15)


def _lay_shadow(canvas: np.ndarray, cover: np.ndarray) -> None:
    """Darken the ground to the lower right of the animal, softly."""
    shadow = Image.fromarray((np.roll(cover, (3, 2), (0, 1)) * 255).astype(np.uint8))
    soft = np.asarray(shadow.filter(ImageFilter.BoxBlur(2.5)), np.float32) / 255
    canvas *= 1 - 0.5 * soft[..., None]
