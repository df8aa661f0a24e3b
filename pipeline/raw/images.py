"""Any image file → an RGB image of eight bits: what the pipeline accepts, and what it says otherwise."""

import warnings
from io import BytesIO

import numpy as np
from PIL import Image, UnidentifiedImageError

EXTENSIONS = tuple(
    ".avif .bmp .gif .jfif .jp2 .jpeg .jpg .pbm .pgm .png .ppm .tga .tif .tiff .webp".split()  # noqa: SIM905
)
MAX_ASPECT = 8  # the long side is stored with at most this many short sides

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

    upright: turn the image as its EXIF orientation says, so that the image and its size are those
    people see; False: pixels as stored. short_side: shrink to at most this, keeping the aspect
    ratio, except that a long side of more than `MAX_ASPECT` short sides is squeezed to that (every
    later step resizes to a fixed grid anyway). Images are never enlarged. Raises UnreadableImageError.
    """
    try:
        with warnings.catch_warnings():
            # PIL refuses images of more than 179 megapixels and warns above half of that.
            warnings.simplefilter("ignore")
            stored = Image.open(BytesIO(encoded))
            orientation = stored.getexif().get(ORIENTATION, 1) if upright else 1
            width, height = stored.size
            if short_side is not None:
                target = _fit(width, height, short_side)
                # JPEG decodes at 1/2, 1/4 or 1/8 in a fraction of the time and memory; twice the
                # target is left for the antialiased resize.
                stored.draft(None, (2 * target[0], 2 * target[1]))
            image = to_rgb(stored)
            if short_side is not None:
                image = image.resize(target, Image.Resampling.LANCZOS)
            if orientation in TURNS:
                image = image.transpose(TURNS[orientation])
    except UnreadableImageError:
        raise
    except Exception as error:  # damaged files raise all sorts of errors in PIL's decoders
        raise UnreadableImageError(_reason(error, encoded)) from error
    return image, (width, height) if orientation in SIDEWAYS else (height, width)


def open_upright(encoded: bytes) -> Image.Image:
    """The image as people see it, RGB, in full size. Raises UnreadableImageError."""
    return decode(encoded)[0]


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert any PIL mode to RGB of eight bits.

    Transparency is laid on white; 16-bit grey is divided by 257. Raises UnreadableImageError for samples
    without a known white (32-bit integers beyond 16 bits, floats).
    """
    if image.mode == "RGB" and not image.has_transparency_data:
        image.load()
        return image
    if image.mode == "F":
        raise UnreadableImageError(
            "its samples are floats, which have no defined white; save 8 or 16 bits"
        )
    if image.mode.startswith("I"):
        samples = np.asarray(image).astype(np.int64)
        if samples.size and (samples.min() < 0 or samples.max() > 65535):
            raise UnreadableImageError("its samples have more than 16 bits; save 8 or 16 bits")
        return Image.fromarray(((samples + 128) // 257).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        paper = Image.new("RGBA", layer.size, "white")
        return Image.alpha_composite(paper, layer).convert("RGB")
    return image.convert("RGB")


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
        return "it is no image of a known format"
    if isinstance(error, Image.DecompressionBombError):
        return f"it has too many pixels ({error}); save it smaller"
    return f"it is damaged or truncated ({error or type(error).__name__})"
