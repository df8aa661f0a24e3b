"""Every kind of image file becomes the RGB image people expect, or a reason they understand."""

import io

import numpy as np
import pytest
from PIL import Image

from pipeline.raw import images
from tests.made import encode, noise

RED, GREEN = (200, 30, 40), (20, 180, 60)


def opened(encoded: bytes) -> np.ndarray:
    return np.asarray(images.open_upright(encoded)).astype(int)


def test_grey_16_bit_is_divided_by_257() -> None:
    samples = np.array([[0, 257, 65535], [128, 129, 32896]], np.uint16)
    found = opened(encode(Image.fromarray(samples), "PNG"))
    assert found[..., 0].tolist() == [[0, 1, 255], [0, 1, 128]]
    assert (found == found[..., :1]).all()


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "LA", "RGBA", "CMYK", "YCbCr"])
def test_every_mode_becomes_rgb_of_the_same_colours(mode: str, kind: str) -> None:
    image = Image.new("RGB", (7, 5), "white")
    image.paste("black", (0, 0, 3, 5))
    if (mode, kind) in (("CMYK", "PNG"), ("YCbCr", "PNG")):
        pytest.skip("PNG has no such mode")
    found = images.open_upright(encode(image.convert(mode), kind))
    assert found.mode == "RGB"
    assert np.abs(np.asarray(found).astype(int) - np.asarray(image)).max() <= 1


def test_cmyk_jpeg_becomes_rgb() -> None:
    image = Image.new("CMYK", (16, 8), (0, 255, 255, 0))
    red, green, blue = opened(encode(image, quality=95))[4, 8]
    assert (red > 240, green < 15, blue < 15) == (True, True, True)


def test_transparency_is_laid_on_white() -> None:
    image = Image.new("RGBA", (3, 1))
    image.putdata([(*RED, 255), (*RED, 0), (0, 0, 0, 51)])
    assert opened(encode(image, "PNG"))[0].tolist() == [[*RED], [255] * 3, [204] * 3]
    palette = Image.new("P", (2, 1))
    palette.putpalette([*RED, *GREEN])
    palette.putdata([0, 1])
    assert opened(encode(palette, "PNG", transparency=0))[0].tolist() == [[255] * 3, [*GREEN]]
    keyed = encode(Image.new("RGB", (1, 1), RED), "PNG", transparency=RED)
    assert opened(keyed)[0, 0].tolist() == [255] * 3


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_size_and_pixels_are_those_of_the_image_as_shown(orientation: int) -> None:
    shown = np.zeros((20, 30, 3), np.uint8)
    shown[:6, :10] = RED
    shown[-6:, :10] = GREEN
    undo = {  # how a camera held differently stores what is shown
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a),
        7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
        8: lambda a: np.rot90(a, -1),
    }
    stored = Image.fromarray(np.ascontiguousarray(undo[orientation](shown)))
    exif = Image.Exif()
    exif[images.ORIENTATION] = orientation
    encoded = encode(stored, "PNG", exif=exif)
    image, size = images.decode(encoded)
    assert size == (20, 30)
    assert (np.asarray(image) == shown).all()
    image, size = images.decode(encoded, upright=False)
    assert size == (stored.height, stored.width)
    assert (np.asarray(image) == np.asarray(stored)).all()


@pytest.mark.parametrize(
    ("size", "stored"),
    [
        ((500, 375), (171, 128)),  # (width, height)
        ((375, 500), (128, 171)),
        ((100, 60), (100, 60)),  # never enlarged
        ((4000, 30), (1024, 30)),  # squeezed to 8 short sides
        ((3, 2000), (3, 1024)),
        ((4000, 200), (1024, 128)),
    ],
)
def test_the_short_side_shrinks_and_the_long_one_is_bounded(
    size: tuple[int, int], stored: tuple[int, int]
) -> None:
    width, height = size
    jpeg, original = images.prepare(encode(noise(height, width)), 128, 95, upright=True)
    assert original == (height, width)
    small = Image.open(io.BytesIO(jpeg))
    assert (small.format, small.mode, small.size) == ("JPEG", "RGB", stored)


def test_draft_mode_changes_nothing_to_be_seen() -> None:
    image = noise(1200, 1600)
    jpeg, _ = images.prepare(encode(image, quality=95), 100, 95, upright=True)
    plain = image.resize((133, 100), Image.Resampling.LANCZOS)
    difference = np.asarray(Image.open(io.BytesIO(jpeg))).astype(int) - np.asarray(plain)
    assert np.abs(difference).max() <= 6


@pytest.mark.parametrize(
    ("encoded", "reason"),
    [
        (b"", "it is empty"),
        (b"<html>not found</html>", "it is no image of a known format"),
        (encode(noise(60, 80))[:700], "it is damaged or truncated"),
        (encode(noise(60, 80), "PNG")[:700], "it is damaged or truncated"),
        (encode(Image.new("F", (4, 4)), "TIFF"), "its samples are floats"),
        (encode(Image.new("I", (4, 4), 70_000), "TIFF"), "more than 16 bits"),
    ],
)
def test_what_cannot_be_read_says_why(encoded: bytes, reason: str) -> None:
    with pytest.raises(images.UnreadableImageError, match=reason):
        images.prepare(encoded, 64, 95, upright=True)


def test_a_decompression_bomb_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(images.UnreadableImageError, match="too many pixels"):
        images.open_upright(encode(noise(60, 80)))
    assert images.open_upright(encode(noise(30, 50))).size == (50, 30)  # PIL only warns
