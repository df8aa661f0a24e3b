"""Cluttered ground for the creatures to lie on: soil, grass, sand, stone or water, and what lies about.

Lengths are in pixels; colours are RGB in 0…1 until they are drawn.
"""

from colorsys import hsv_to_rgb

import numpy as np
from PIL import Image, ImageDraw

Rng = np.random.Generator
Colour = tuple[float, float, float]

HABITATS: tuple[tuple[Colour, Colour, float], ...] = (
    # two ground colours, hue of what grows there
    ((0.25, 0.20, 0.13), (0.48, 0.37, 0.24), 0.09),
    ((0.20, 0.32, 0.12), (0.46, 0.55, 0.24), 0.27),
    ((0.62, 0.52, 0.36), (0.82, 0.73, 0.55), 0.13),
    ((0.28, 0.31, 0.33), (0.55, 0.57, 0.56), 0.33),
    ((0.12, 0.25, 0.27), (0.30, 0.46, 0.43), 0.42),
)

STEPS = np.linspace(0, 1, 12)
LEAF = np.sin(np.pi * STEPS) ** 0.8
BLADE = 1 - STEPS
TWIG = np.interp(STEPS, [0, 0.4, 1], [0.6, 1, 0.3])


def draw(height: int, width: int, rng: Rng) -> np.ndarray:
    """Soil or grass or stone with leaves, blades, twigs, pebbles and berries: float32 [height, width, 3] in 0…1."""
    low, high, hue = HABITATS[rng.integers(len(HABITATS))]
    dark, light = np.array((low, high), np.float32)
    soil = dark + _noise(height, width, rng)[..., None] * (light - dark)
    ground = Image.fromarray((soil * 255).astype(np.uint8))
    sheet = ground.resize((2 * width, 2 * height), Image.Resampling.NEAREST)
    pen, scale = ImageDraw.Draw(sheet), 2 * min(height, width)
    corner = np.array((2 * width, 2 * height))
    for kind in rng.integers(len(LITTER), size=rng.integers(14, 46)):
        LITTER[kind](pen, rng.random(2) * corner, scale, hue, rng)
    for _ in range(int(rng.integers(-3, 3))):
        _berry(pen, rng.random(2) * corner, scale, rng)
    return np.asarray(sheet.reduce(2), np.float32) / 255


def _noise(height: int, width: int, rng: Rng) -> np.ndarray:
    """Smooth noise in 0…1, of bumps a quarter to a fiftieth of the image wide."""
    noise = np.zeros((4, 4), np.float32)
    for cells, weight in ((4, 0.5), (14, 0.3), (48, 0.3)):
        coarse = Image.fromarray(noise).resize((cells, cells), Image.Resampling.BICUBIC)
        noise = np.asarray(coarse) + weight * rng.random((cells, cells), np.float32)
    fine = Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)
    return np.clip(np.asarray(fine), 0, 1)


def _shade(hue: float, rng: Rng, saturation: float = 0.45) -> tuple[int, int, int]:
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
    pen.polygon(outline.ravel().tolist(), fill=_shade(hue, rng, 0.55))


def _twig(pen: ImageDraw.ImageDraw, at: np.ndarray, scale: int, hue: float, rng: Rng) -> None:
    """A distractor: about as long and thick as an animal's body."""
    outline, line = _strip(at, scale * rng.uniform(0.25, 0.6), TWIG * scale * 0.02, 1.2, rng)
    colour = _shade(0.07, rng)
    pen.polygon((outline + scale * 0.008).ravel().tolist(), fill=_dim(colour, 0.4))
    pen.polygon(outline.ravel().tolist(), fill=colour)
    pen.line((line - scale * 0.005).ravel().tolist(), fill=_dim(colour, 1.3), width=2)


def _pebble(pen: ImageDraw.ImageDraw, at: np.ndarray, scale: int, hue: float, rng: Rng) -> None:
    _bead(pen, at, scale * rng.uniform(0.02, 0.06, 2), _shade(hue, rng, 0.12))


def _berry(pen: ImageDraw.ImageDraw, at: np.ndarray, scale: int, rng: Rng) -> None:
    """A distractor: about the colour and size of a head, without its mark."""
    colour = hsv_to_rgb(rng.random(), rng.uniform(0.6, 0.85), rng.uniform(0.65, 0.9))
    _bead(pen, at, scale * rng.uniform(0.02, 0.045) * np.ones(2), _dim(colour, 255))


def _bead(pen: ImageDraw.ImageDraw, at: np.ndarray, radii: np.ndarray, colour: Colour) -> None:
    """An ellipse with its shadow and a highlight."""
    for shift, size, factor in ((0.3, 1.0, 0.4), (0.0, 1.0, 1.0), (-0.3, 0.4, 1.25)):
        middle = at + shift * radii
        pen.ellipse([*(middle - size * radii), *(middle + size * radii)], fill=_dim(colour, factor))


LITTER = (_leaf, _leaf, _blade, _blade, _twig, _pebble)
