"""Any image file → an RGB image of eight bits: the one decoder, and the reasons it gives where it cannot.

Transparency is composited on white; of several frames the first is taken; colour profiles and other
metadata but the orientation are ignored, and never stop a picture whose pixels decode.
"""

import warnings
from io import BytesIO

import numpy as np
from PIL import Image, UnidentifiedImageError

from pipeline.raw.metadata import without_metadata

EXTENSIONS = tuple(
    ".avif .bmp .gif .jfif .jp2 .jpeg .jpg .pbm .pgm .png .ppm .tga .tif .tiff .webp".split()  # noqa: SIM905
)
# Told by content, whatever the file is called. Others (PostScript and the like) run programs or fetch.
FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP", "PPM", "JPEG2000", "AVIF", "TGA")
MAX_ASPECT = 8  # the long side is stored with at most this many short sides
GREY_BITS = (8, 10, 12, 16)  # of grey stored in 16: cameras and scanners do not fill them up

ORIENTATION = 0x0112  # EXIF tag: how the stored pixels are turned to be shown
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
INVERSES = {
    **TURNS,
    6: Image.Transpose.ROTATE_90,
    8: Image.Transpose.ROTATE_270,
}
SIDEWAYS = (5, 6, 7, 8)


class UnreadableImageError(ValueError):
    """The image cannot be read; the message says why, in words for the person who has the file."""


def prepare(
    encoded: bytes, short_side: int, quality: int, *, upright: bool
) -> tuple[bytes, tuple[int, int]]:
    """Re-encode any image file as an RGB JPEG of at most `short_side`: (JPEG, original (height, width)).

    Arguments and errors as `decode`.
    """
    image, size = decode(encoded, upright=upright, short_side=short_side)
    out = BytesIO()
    # 4:4:4: at a few hundred pixels, halved colour would cost detail and save little.
    image.save(out, "JPEG", quality=quality, subsampling=0)
    return out.getvalue(), size


def decode(
    encoded: bytes, *, upright: bool = True, short_side: int | None = None
) -> tuple[Image.Image, tuple[int, int]]:
    """Decode any image file to RGB: (image, original (height, width)); the first frame of several.

    upright: turn the image as its orientation tag says, so that the image and its size are those
    people see; False: pixels as stored. short_side: shrink to at most this, keeping the aspect
    ratio, except that a long side of more than `MAX_ASPECT` short sides is squeezed to that (every
    later step resizes to a fixed grid anyway). Images are never enlarged. Raises UnreadableImageError.
    """
    with warnings.catch_warnings():
        # PIL refuses images of more than 179 megapixels and warns above half of that.
        warnings.simplefilter("ignore")
        try:
            return _decode(encoded, upright, short_side)
        except UnreadableImageError:
            raise
        except Exception as error:  # damaged files raise all sorts of errors in PIL's decoders
            bare = without_metadata(encoded)
            if bare is not None and not isinstance(error, Image.DecompressionBombError):
                try:
                    return _decode(bare, upright, short_side, _orientation_of(encoded))
                except Exception:  # the pixels are damaged, and `error` says how
                    pass
            raise UnreadableImageError(_reason(error, encoded)) from error


def open_upright(encoded: bytes) -> Image.Image:
    """The image as people see it, RGB, in full size. Raises UnreadableImageError."""
    return decode(encoded)[0]


def _decode(
    encoded: bytes, upright: bool, short_side: int | None, orientation: int | None = None
) -> tuple[Image.Image, tuple[int, int]]:
    """As `decode`; orientation: of a file that has lost its own."""
    stored: Image.Image = Image.open(BytesIO(encoded), formats=FORMATS)
    orientation = orientation or _orientation(stored)
    turn = TURNS.get(orientation) if upright else None
    if stored.format == "TIFF":  # Pillow turns these itself as it loads them, and no others
        stored = to_rgb(stored)
        turn, back = None, INVERSES.get(orientation)
        if back is not None and not upright:
            stored = stored.transpose(back)
    width, height = stored.size
    target = (width, height) if short_side is None else _fit(width, height, short_side)
    if short_side is not None:
        # JPEG decodes at 1/2, 1/4 or 1/8 in a fraction of the time and memory; twice the
        # target is left for the antialiased resize.
        stored.draft(None, (2 * target[0], 2 * target[1]))
    image = to_rgb(stored)
    if image.size != target:
        image = image.resize(target, Image.Resampling.LANCZOS)
    if turn is None:
        return image, (height, width)
    return image.transpose(turn), (width, height) if orientation in SIDEWAYS else (height, width)


def _orientation(image: Image.Image) -> int:
    """1 … 8 as EXIF or XMP says; 1 where they are damaged."""
    try:
        value = image.getexif().get(ORIENTATION, 1)
    except Exception:  # junk raises all sorts of errors in PIL's parser
        return 1
    return value if isinstance(value, int) and value in TURNS else 1


def _orientation_of(encoded: bytes) -> int:
    try:
        return _orientation(Image.open(BytesIO(encoded), formats=FORMATS))
    except Exception:  # what stops Pillow from opening the file lies in the metadata itself
        return 1


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert any PIL mode to RGB of eight bits.

    Transparency is composited on white. Grey of more than eight bits is scaled to 255 from the least
    of `GREY_BITS` that holds its brightest sample. Raises UnreadableImageError for samples without a known
    white (32-bit integers beyond 16 bits, floats) and for colours that Pillow cannot convert (Lab).
    """
    if image.mode == "RGB" and not image.has_transparency_data:
        image.load()
        return image
    if image.mode == "F":
        raise UnreadableImageError(
            "its samples are floats, which have no defined white; save 8 or 16 bits"
        )
    if image.mode.startswith("I"):
        return _grey(image).convert("RGB")
    if image.mode in ("LAB", "HSV"):
        raise UnreadableImageError(f"its colours are {image.mode}; save it as RGB")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        paper = Image.new("RGBA", layer.size, "white")
        return Image.alpha_composite(paper, layer).convert("RGB")
    return image.convert("RGB")


def _grey(image: Image.Image) -> Image.Image:
    """Grey of up to 16 bits, as 8."""
    samples = np.asarray(image).astype(np.int64)
    top = int(samples.max(initial=0))
    if samples.min(initial=0) < 0 or top > 65535:
        raise UnreadableImageError("its samples have more than 16 bits; save 8 or 16 bits")
    white = next(2**bits - 1 for bits in GREY_BITS if top < 2**bits)
    grey = (samples * 255 + white // 2) // white
    if image.format == "TIFF" and image.tag_v2.get(262) == 0:  # type: ignore[attr-defined]
        grey = 255 - grey  # PhotometricInterpretation: 0 is white
    clear = image.info.get("transparency")
    if isinstance(clear, int):
        grey[samples == clear] = 255
    return Image.fromarray(grey.astype(np.uint8))


def _fit(width: int, height: int, short_side: int) -> tuple[int, int]:
    """(width, height) with the short side at most `short_side` and the long one at most MAX_ASPECT of it."""
    scale = min(1.0, short_side / min(width, height))
    limit = MAX_ASPECT * short_side
    return (
        min(limit, max(1, round(width * scale))),
        min(limit, max(1, round(height * scale))),
    )


def _reason(error: Exception, encoded: bytes) -> str:
    if not encoded:
        return "it is empty"
    if isinstance(error, UnidentifiedImageError):
        return "it is not an image of a known format"
    if isinstance(error, Image.DecompressionBombError):
        return f"it has too many pixels ({error}); save it smaller"
    if isinstance(error, MemoryError):
        return "it does not fit in memory; save it smaller"
    return f"it is damaged or truncated ({error or type(error).__name__})"
