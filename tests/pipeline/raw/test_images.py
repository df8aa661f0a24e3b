"""Every kind of image file becomes the RGB image people expect, or a reason they understand."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

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


UNDONE = {  # how a camera held differently stores what is shown
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a, -1),
}
KINDS: dict[str, dict[str, object]] = {
    "JPEG": {"quality": 100, "subsampling": 0},
    "MPO": {"quality": 100, "subsampling": 0, "save_all": True, "append_images": [noise(20, 30)]},
    "PNG": {},
    "WEBP": {"lossless": True},
    "TIFF": {},
    "TIFF LZW": {"compression": "tiff_lzw"},
    "TIFF JPEG": {"compression": "jpeg", "quality": 100},
    "AVIF": {"quality": 100, "subsampling": "4:4:4"},
}


def turned(kind: str, orientation: int, tag: str = "exif") -> tuple[bytes, np.ndarray, np.ndarray]:
    """An encoded image that an EXIF or XMP tag turns, its pixels as shown, and as stored."""
    shown = np.zeros((20, 30, 3), np.uint8)
    shown[:6, :10] = RED
    shown[-6:, :10] = GREEN
    stored = np.ascontiguousarray(UNDONE[orientation](shown))
    exif = Image.Exif()
    exif[images.ORIENTATION] = orientation
    xmp = f'<x:xmpmeta xmlns:x="adobe:ns:meta/" tiff:Orientation="{orientation}"/>'.encode()
    told: dict[str, object] = {"exif": exif} if tag == "exif" else {"xmp": xmp}
    if tag == "xmp" and kind.startswith("TIFF"):
        told = {"tiffinfo": {700: xmp}}
    if tag == "xmp" and kind == "PNG":
        info = PngImagePlugin.PngInfo()
        info.add_itxt("XML:com.adobe.xmp", xmp.decode())
        told = {"pnginfo": info}
    return encode(Image.fromarray(stored), kind.split()[0], **told, **KINDS[kind]), shown, stored


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", KINDS)
def test_the_size_and_pixels_are_those_of_the_image_as_shown(kind: str, orientation: int) -> None:
    encoded, shown, stored = turned(kind, orientation)
    lossy = 30 if kind in ("JPEG", "MPO", "TIFF JPEG", "AVIF") else 0
    for short_side in (None, 20, 40):
        image, size = images.decode(encoded, short_side=short_side)
        assert size == (20, 30)
        assert image.size == (30, 20)
        assert np.abs(np.asarray(image).astype(int) - shown).max() <= lossy
    small, size = images.decode(encoded, short_side=10)
    assert (size, small.size) == ((20, 30), (15, 10))
    assert np.abs(np.asarray(small)[1, 2].astype(int) - RED).max() <= 10 + lossy
    if kind == "AVIF":  # its container turns the pixels, so that nothing says how they are stored
        return
    image, size = images.decode(encoded, upright=False)
    assert size == stored.shape[:2]
    assert np.abs(np.asarray(image).astype(int) - stored).max() <= lossy


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "TIFF LZW"])
def test_an_orientation_in_xmp_counts_too(kind: str) -> None:
    encoded, shown, _ = turned(kind, 6, "xmp")
    image, size = images.decode(encoded)
    assert size == (20, 30)
    assert np.abs(np.asarray(image).astype(int) - shown).max() <= 30


def png_chunk(kind: bytes, content: bytes, crc: int | None = None) -> bytes:
    crc = zlib.crc32(kind + content) if crc is None else crc
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", crc)


def with_png_chunk(chunk: bytes, *, last: bool = False) -> bytes:
    plain = encode(noise(20, 30), "PNG")
    at = plain.index(b"IEND") - 4 if last else plain.index(b"IDAT") - 4
    return plain[:at] + chunk + plain[at:]


def with_jpeg_segment(marker: int, content: bytes) -> bytes:
    plain = encode(noise(20, 30))
    return plain[:2] + struct.pack(">BBH", 255, marker, len(content) + 2) + content + plain[2:]


BIG = zlib.compress(b" " * 2**22)
EXIF = b"Exif\0\0"
BAD_METADATA = {
    "exif of zeros": with_jpeg_segment(0xE1, EXIF + b"\0" * 40),
    "exif of junk": with_jpeg_segment(0xE1, EXIF + bytes(range(200))),
    "exif cut after its header": with_jpeg_segment(0xE1, EXIF + b"MM\0*\0\0\0\x08\0\x05\x01"),
    "exif whose directory lies outside": with_jpeg_segment(0xE1, EXIF + b"II*\0\xff\xff\xff\x7f"),
    "exif without content": with_jpeg_segment(0xE1, EXIF),
    "xmp with a letter for an orientation": with_jpeg_segment(
        0xE1, b"http://ns.adobe.com/xap/1.0/\0" + b'tiff:Orientation="x"'
    ),
    "mpf of junk": with_jpeg_segment(0xE2, b"MPF\0" + bytes(range(200))),
    "photoshop of junk": with_jpeg_segment(0xED, b"Photoshop 3.0\0" + b"8BIM" + b"\xff" * 30),
    "icc of junk": with_jpeg_segment(0xE2, b"ICC_PROFILE\0" + b"\1\1" + b"\xff" * 30),
    "icc cut": with_jpeg_segment(0xE2, b"ICC_PROFILE\0"),
    "png icc of 4 MiB": with_png_chunk(png_chunk(b"iCCP", b"x\0\0" + BIG)),
    "png icc of junk": with_png_chunk(png_chunk(b"iCCP", b"x\0\0junk")),
    "png icc of another compression": with_png_chunk(png_chunk(b"iCCP", b"x\0\7junk")),
    "png text of 4 MiB": with_png_chunk(png_chunk(b"zTXt", b"x\0\0" + BIG)),
    "png text of 4 MiB at the end": with_png_chunk(png_chunk(b"zTXt", b"x\0\0" + BIG), last=True),
    "png text of 70 MiB": with_png_chunk(png_chunk(b"tEXt", b"x\0" + b" " * 70 * 2**20)),
    "png international text": with_png_chunk(png_chunk(b"iTXt", b"x\0\1\0\0\0" + BIG)),
    "png text with a wrong checksum": with_png_chunk(png_chunk(b"tEXt", b"x\0y", crc=1)),
    "png exif of junk": with_png_chunk(png_chunk(b"eXIf", bytes(range(60)))),
    "png exif as hexadecimal junk": with_png_chunk(
        png_chunk(b"tEXt", b"Raw profile type exif\0\nexif\n9\nnot hex")
    ),
    "png resolution of nothing": with_png_chunk(png_chunk(b"pHYs", b"")),
    "png time of junk": with_png_chunk(png_chunk(b"tIME", b"\xff" * 3)),
}


@pytest.mark.parametrize("name", BAD_METADATA)
def test_metadata_never_stops_a_picture_that_decodes(name: str) -> None:
    encoded = BAD_METADATA[name]
    plain = noise(20, 30)
    expected = opened(encode(plain, "PNG" if name.startswith("png") else "JPEG"))
    assert (opened(encoded) == expected).all()


@pytest.mark.parametrize("order", ["<", ">"])
def test_a_tiff_with_junk_behind_its_tags_decodes(order: str) -> None:
    pixels = np.asarray(noise(4, 6))
    tags = [(256, 3, 1, 6), (257, 3, 1, 4), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 2)]
    tags += [(273, 4, 1, 300), (274, 3, 1, 3), (277, 3, 1, 3), (278, 3, 1, 4), (279, 4, 1, 72)]
    tags += [
        (34665, 4, 1, 2**31),
        (34853, 4, 1, 5),
        (33723, 7, 2**30, 9),
    ]  # EXIF, GPS, IPTC nowhere
    tags.sort()
    entries = b"".join(
        struct.pack(f"{order}HHI", *tag[:3])
        + (
            struct.pack(f"{order}HH", tag[3], 0)
            if tag[1] == 3
            else struct.pack(f"{order}I", tag[3])
        )
        for tag in tags
    )
    mark = b"II*\0" if order == "<" else b"MM\0*"
    head = mark + struct.pack(f"{order}IH", 8, len(tags)) + entries + b"\0" * 4
    found = opened(head.ljust(300, b"\0") + pixels.tobytes())
    assert (found == pixels[::-1, ::-1]).all()


def test_pixels_that_are_damaged_are_told_also_where_metadata_is() -> None:
    encoded = with_png_chunk(png_chunk(b"zTXt", b"x\0\0" + BIG))
    with pytest.raises(images.UnreadableImageError, match="damaged or truncated"):
        images.open_upright(encoded[:-300])


@pytest.mark.parametrize(("bits", "kind"), [(8, "PNG"), (10, "PNG"), (12, "TIFF"), (16, "TIFF")])
def test_grey_that_does_not_fill_16_bits_is_scaled_from_its_own(bits: int, kind: str) -> None:
    white = 2**bits - 1
    samples = np.array([[0, white // 2, white]], np.uint16)
    assert opened(encode(Image.fromarray(samples), kind))[0, :, 0].tolist() == [0, 127, 255]


def test_grey_of_16_bits_whose_zero_is_white() -> None:
    samples = Image.fromarray(np.array([[0, 257, 65535]], np.uint16))
    encoded = encode(samples, "TIFF", tiffinfo={262: 0})
    assert opened(encoded)[0, :, 0].tolist() == [255, 254, 0]


@pytest.mark.parametrize(
    ("kind", "lossless"), [("GIF", {}), ("PNG", {}), ("WEBP", {"lossless": True})]
)
def test_the_first_frame_of_an_animation_is_taken(kind: str, lossless: dict[str, bool]) -> None:
    red, green = (Image.new("RGB", (6, 5), colour) for colour in (RED, GREEN))
    encoded = encode(red, kind, save_all=True, append_images=[green, red], **lossless)
    assert np.abs(opened(encoded) - RED).max() <= 3


@pytest.mark.parametrize("size", [(1, 1), (1, 400), (400, 1)])
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF"])
def test_lines_of_one_pixel_are_images(size: tuple[int, int], kind: str) -> None:
    jpeg, original = images.prepare(encode(Image.new("RGB", size, RED), kind), 64, 95, upright=True)
    assert original == size[::-1]
    assert np.abs(opened(jpeg) - RED).max() <= 10


def test_what_runs_other_programs_is_not_opened() -> None:
    with pytest.raises(images.UnreadableImageError, match="not an image of a known format"):
        images.open_upright(encode(noise(8, 8), "EPS"))


def test_colours_that_cannot_be_converted_are_named() -> None:
    with pytest.raises(images.UnreadableImageError, match="its colours are LAB; save it as RGB"):
        images.open_upright(encode(Image.new("LAB", (4, 4)), "TIFF"))


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
        (b"<html>not found</html>", "it is not an image of a known format"),
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
