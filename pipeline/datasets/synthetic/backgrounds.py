"""Dull ground for the beetles to lie on: soil, grass, sand, stone or water, with leaves, blades and pebbles.

No colour here is as saturated as a beetle's, and nothing is banded, striped or dotted.
Lengths are in pixels; colours are RGB in 0…1 until they are drawn.
"""

from colorsys import hsv_to_rgb

import numpy as np
from PIL import Image, ImageDraw

Rng = np.random.Generator
Colour = tuple[float, float, float]

HABITATS: tuple[tuple[Colour, Colour, float], ...] = (
    # two ground colours, hue of what grows there
    ((0.26, 0.23, 0.19), (0.46, 0.40, 0.33), 0.09),
    ((0.26, 0.31, 0.22), (0.47, 0.53, 0.40), 0.27),
    ((0.60, 0.55, 0.46), (0.80, 0.75, 0.66), 0.13),
    ((0.30, 0.31, 0.33), (0.55, 0.57, 0.56), 0.33),
    ((0.20, 0.26, 0.28), (0.36, 0.44, 0.43), 0.42),
)

STEPS = np.linspace(0, 1, 12)
LEAF = np.sin(np.pi * STEPS) ** 0.8
BLADE = 1 - STEPS


def draw(height: int, width: int, rng: Rng) -> np.ndarray:
    """The ground and what lies on it: float32 [height, width, 3] in 0…1."""
    low, high, hue = HABITATS[rng.integers(len(HABITATS))]
    dark, light = np.array((low, high), np.float32)
    soil = dark + _noise(height, width, rng)[..., None] * (light - dark)
    ground = Image.fromarray((soil * 255).astype(np.uint8))
    sheet = ground.resize((2 * width, 2 * height), Image.Resampling.NEAREST)
    pen, scale = ImageDraw.Draw(sheet), 2 * min(height, width)
    corner = np.array((2 * width, 2 * height))
    for kind in rng.integers(len(LITTER), size=rng.integers(8, 30)):
        LITTER[kind](pen, rng.random(2) * corner, scale, hue, rng)
    return np.asarray(sheet.reduce(2), np.float32) / 255


def _noise(height: int, width: int, rng: Rng) -> np.ndarray:
    """Smooth noise in 0…1, of bumps a quarter to a fiftieth of the image wide."""
    noise = np.zeros((4, 4), np.float32)
    for cells, weight in ((4, 0.5), (14, 0.3), (48, 0.3)):
        coarse = Image.fromarray(noise).resize((cells, cells), Image.Resampling.BICUBIC)
        noise = np.asarray(coarse) + weight * rng.random((cells, cells), np.float32)
    fine = Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)
    return np.clip(np.asarray(fine), 0, 1)


def _shade(hue: float, rng: Rng, saturation: float = 0.3) -> tuple[int, int, int]:
    h, s, v = rng.normal(hue, 0.05) % 1, saturation * rng.uniform(0.6, 1.2), rng.uniform(0.25, 0.75)
    return _dim(hsv_to_rgb(h, s, v), 255)


def _dim(colour: Colour, factor: float) -> tuple[int, int, int]:
    r, g, b = colour
    return min(255, int(r * factor)), min(255, int(g * factor)), min(255, int(b * factor))


def _strip(
    at: np.ndarray, length: float, widths: np.ndarray, bend: float, rng: Rng
) -> tuple[np.ndarray, np.ndarray]:
    """A bent strip that starts at `at`: outline [2N, 2] and midline [N, 2], as (x, y)."""
    angle = rng.uniform(0, 2 * np.pi) + STEPS * (bend * rng.uniform(-1, 1))
    forward = np.stack([np.cos(angle), np.sin(angle)], 1)
    line = at + np.cumsum(forward, 0) * (length / len(STEPS))
    side = forward[:, ::-1] * (1, -1) * widths[:, None]
    return np.concatenate([line + side, (line - side)[::-1]]), line


def _leaf(pen: ImageDraw.ImageDraw, at: np.ndarray, scale: int, hue: float, rng: Rng) -> None:
    length = scale * rng.uniform(0.07, 0.2)
    outline, line = _strip(at, length, LEAF * length * rng.uniform(0.16, 0.3), 0.9, rng)
    colour = _shade(hue, rng)
    pen.polygon((outline + scale * 0.006).ravel().tolist(), fill=_dim(colour, 0.4))
    pen.polygon(outline.ravel().tolist(), fill=colour)
    pen.line(line.ravel().tolist(), fill=_dim(colour, 1.35), width=2)


def _blade(pen: ImageDraw.ImageDraw, at: np.ndarray, scale: int, hue: float, rng: Rng) -> None:
    outline, _ = _strip(at, scale * rng.uniform(0.15, 0.4), BLADE * scale * 0.009 + 0.5, 1.5, rng)
    pen.polygon(outline.ravel().tolist(), fill=_shade(hue, rng, 0.35))


def _pebble(pen: ImageDraw.ImageDraw, at: np.ndarray, scale: int, hue: float, rng: Rng) -> None:
    _bead(pen, at, scale * rng.uniform(0.02, 0.06, 2), _shade(hue, rng, 0.12))


def _bead(pen: ImageDraw.ImageDraw, at: np.ndarray, radii: np.ndarray, colour: Colour) -> None:
    """An ellipse with its shadow and a highlight."""
    for shift, size, factor in ((0.3, 1.0, 0.4), (0.0, 1.0, 1.0), (-0.3, 0.4, 1.25)):
        middle = at + shift * radii
        pen.ellipse([*(middle - size * radii), *(middle + size * radii)], fill=_dim(colour, factor))


LITTER = (_leaf, _leaf, _blade, _blade, _pebble)
