"""Image files without their metadata: the parts that hold pixels, copied as they are.

A second try for files whose pixels are sound and whose EXIF, colour profile or text is not.
"""

import struct
import zlib

JPEG, PNG = b"\xff\xd8", b"\x89PNG\r\n\x1a\n"
PNG_KEPT = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
TIFF_KEPT = {  # TIFF 6.0's baseline tags, tiles, predictor, extra samples, JPEG tables, YCbCr, orientation
    *(256, 257, 258, 259, 262, 266, 273, 274, 277, 278, 279, 284, 317, 320),
    *(322, 323, 324, 325, 338, 339, 347, 529, 530, 531, 532),
}


def without_metadata(encoded: bytes) -> bytes | None:
    """The file without metadata; None where its format is not one that this can take apart.

    What is kept of a JPEG or PNG says how samples become colours (JFIF, Adobe, palette, transparency).
    """
    if encoded.startswith(JPEG):
        return _jpeg(encoded)
    if encoded.startswith(PNG):
        return _png(encoded)
    if encoded[:4] in (b"II*\0", b"MM\0*"):
        return _tiff(encoded)
    return None


def _jpeg(encoded: bytes) -> bytes:
    """Without the segments APP1 … APP13, APP15 and comments."""
    kept, at = [JPEG], 2
    while at + 4 <= len(encoded) and encoded[at] == 0xFF:
        marker, length = encoded[at + 1], 2 + int.from_bytes(encoded[at + 2 : at + 4], "big")
        if marker == 0xFF:  # a fill byte
            at += 1
            continue
        if marker == 0xDA:  # the scan: all that follows are pixels
            break
        if not (0xE1 <= marker <= 0xED or marker in (0xEF, 0xFE)):
            kept.append(encoded[at : at + length])
        at += length
    return b"".join([*kept, encoded[at:]])


def _png(encoded: bytes) -> bytes:
    """The critical chunks and tRNS."""
    kept, at = [PNG], len(PNG)
    while at + 12 <= len(encoded):
        (length,) = struct.unpack(">I", encoded[at : at + 4])
        kind = encoded[at + 4 : at + 8]
        if kind in PNG_KEPT:
            kept.append(encoded[at : at + 12 + length])
        at += 12 + length
    if kept[-1][4:8] == b"IDAT":  # the end was lost with what lay between: only pixels count
        kept.append(struct.pack(">I", 0) + b"IEND" + struct.pack(">I", zlib.crc32(b"IEND")))
    return b"".join(kept)


def _tiff(encoded: bytes) -> bytes:
    """The first image's directory, cut down in its place to `TIFF_KEPT`."""
    order = "<" if encoded[:2] == b"II" else ">"
    (at,) = struct.unpack(f"{order}I", encoded[4:8])
    (count,) = struct.unpack(f"{order}H", encoded[at : at + 2].ljust(2, b"\0"))
    entries = [encoded[i : i + 12] for i in range(at + 2, at + 2 + 12 * count, 12)]
    kept = [
        e for e in entries if len(e) == 12 and struct.unpack(f"{order}H", e[:2])[0] in TIFF_KEPT
    ]
    directory = struct.pack(f"{order}H", len(kept)) + b"".join(kept) + b"\0\0\0\0"
    return encoded[:at] + directory + encoded[at + len(directory) :]
