"""Any image file → an upright RGB image of eight bits: what the pipeline accepts, and what it says otherwise."""

import warnings
from io import BytesIO

import numpy as np
from PIL import Image, UnidentifiedImageError

EXTENSIONS = frozenset(
    ".avif .bmp .gif .jfif .jp2 .jpeg .jpg .pbm .pgm .png .ppm .tga .tif .tiff .webp".split()
)
MAX_ASPECT = 8  # the long side is stored with at most this many short sides

# EXIF tag 0x0112: how the stored pixels are turned to be shown.
ORIENTATION = 0x0112
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class UnreadableImage(Exception):
    """The image cannot be read; the message says why, in words for the person who has the file."""


def prepare(
    encoded: bytes, short_side: int, quality: int, *, upright: bool
) -> tuple[bytes, tuple[int, int]]:
    """Re-encode an image file as an RGB JPEG of at most `short_side`: (JPEG, original (height, width)).

    The aspect ratio is kept, except that a long side of more than `MAX_ASPECT` short sides is
    squeezed to that: every later step resizes to a fixed grid anyway. Images are never enlarged.
    upright: turn the image as its EXIF orientation says; the size given back is that of the image
    as shown. False: pixels as stored. Raises UnreadableImage.
    """
    stored, turn = _open(encoded)
    size = stored.size
    width, height = target = _fit(size, short_side)
    try:
        # JPEG decodes at 1/2, 1/4 or 1/8 in a fraction of the time and memory; twice the target
        # is left for the antialiased resize.
        stored.draft(None, (2 * width, 2 * height))
        image = to_rgb(stored).resize(target, Image.Resampling.LANCZOS)
    except UnreadableImage:
        raise
    except Exception as error:  # damaged files raise all sorts in PIL's decoders
        raise UnreadableImage(_reason(error)) from error
    if upright and turn is not None:
        image = image.transpose(turn)
        if turn in (5, 6, 7, 8):
            raise AssertionError
    out = BytesIO()
    # 4:4:4: at a few hundred pixels, halved colour would cost detail and save little.
    image.save(out, "JPEG", quality=quality, subsampling=0)
    return out.getvalue(), size
