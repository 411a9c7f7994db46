"""From a picture file's bytes to pixels, as OpenCV decodes them, and a cheaper check that a file is whole.

OpenCV's decode is the reference: whatever it makes of a file is what every preprocessor answers to.
"""

from __future__ import annotations

from typing import Any, cast

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray

from preprocess.parts.header import read_header

# What is wrong with a file is said in the exception, so OpenCV's own lines on stderr would only repeat it. libjpeg and
# libpng write theirs past OpenCV's log; there is no switch for those.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)

JPEG_START = b"\xff\xd8\xff"
JPEG_END = b"\xff\xd9"

MOST_BYTES = 10**9
"""A picture that unfolds to more is refused: a file of a few bytes can claim any size."""

# libjpeg's warnings that mean lost picture data. Its others (unknown JFIF revision, odd SOS parameters) are about
# headers that every decoder reads past.
_DAMAGE = ("Corrupt JPEG data", "Premature end of JPEG file", "Inconsistent progression sequence")
_HARMLESS = "bad ICC marker"


def decode(data: bytes) -> NDArray[np.uint8]:
    """Pixels of a whole picture file, exactly as ``cv2.imread(path, cv2.IMREAD_COLOR)`` gives them.

    EXIF rotation is applied, grey becomes three equal channels, 16 bits become 8, CMYK becomes BGR, alpha is dropped.

    Returns uint8 of shape (height, width, 3), BGR.
    Raises ``ValueError`` saying what was got when that is not a picture OpenCV can decode, or a truncated one.
    """
    if not data:
        raise ValueError("cannot decode: got 0 bytes, expected a picture file")
    try:
        # The stub leaves out that imdecode answers None for what it cannot read.
        pixels = cast("NDArray[Any] | None", cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR))
    except cv2.error as error:
        raise ValueError(f"cannot decode: got {_kind(data)}, which OpenCV refuses ({error.err})") from error
    if pixels is None:
        raise ValueError(f"cannot decode: got {_kind(data)}, expected a whole picture file of a kind OpenCV knows")
    return cast("NDArray[np.uint8]", pixels)


def check(data: bytes, most_bytes: int = MOST_BYTES) -> None:
    """Raise ``ValueError`` for a file that is not a whole picture, though OpenCV might decode it without an error.

    A picture that would take more than ``most_bytes`` while it is decoded is refused by its header, undecoded.

    A JPEG is decoded at an eighth of its size, which reads every coded bit but costs about half a decode; a warning of
    libjpeg about its data counts as damage. That finds what libjpeg can know: a JPEG has no checksums, so about a third
    of the random damage to its data leaves a valid stream, with other pixels, that nothing can tell from a good one.
    JPEGs of kinds that simplejpeg does not read, and all other formats, are decoded in full: OpenCV answers nothing
    for a file that ends early or whose checksums fail (PNG), and formats without checksums (BMP) hide the rest.
    """
    header = read_header(data)
    if header is not None and header.unfolded_bytes > most_bytes:
        raise ValueError(
            f"too large to decode: got {_kind(data)} that says {header.width} x {header.height} pixels, which take "
            f"{header.unfolded_bytes:,} bytes; expected {most_bytes:,} at the most"
            + (" by the memory that is free" if most_bytes < MOST_BYTES else "")
        )
    if not data.startswith(JPEG_START):
        decode(data)
        return
    try:
        simplejpeg.decode_jpeg(data, "GRAY", fastdct=True, min_height=1, min_width=1, min_factor=8, strict=True)
    except ValueError as error:
        text = str(error)
        if text.startswith(_DAMAGE) and _HARMLESS not in text:
            raise ValueError(f"damaged picture: got {_kind(data)} ({text})") from error
        decode(data)


def turns_dark(data: bytes) -> bool:
    """Whether this is a PNG or TIFF of 16 bits, known to be whole, whose values are of 12 bits or fewer.

    ``decode`` keeps the upper 8 of the 16 bits, as OpenCV does, so 16 of 255 is the brightest that is left of it.
    """
    header = read_header(data)
    if header is None or header.bits != 16:
        return False
    deep = cast("NDArray[Any]", cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH))
    return bool(deep.dtype == np.uint16 and deep.max() < 1 << 12)


def _kind(data: bytes) -> str:
    """What the bytes look like, for an error message: ``a PNG of 1234 bytes``."""
    size = f"{len(data)} bytes"
    if data.startswith(JPEG_START):
        return f"a JPEG of {size}" + ("" if JPEG_END in data[-64:] else " that ends without an end-of-image marker")
    if data.startswith(b"\x89PNG"):
        return f"a PNG of {size}" + ("" if b"IEND" in data[-64:] else " that ends without an end chunk")
    start = bytes(data[:32])
    if start.isascii() and (text := start.decode("ascii")).replace("\n", " ").replace("\r", " ").isprintable():
        return f"text of {size} that starts with {text!r}"
    return f"{size} that start with {start[:8].hex(' ')}"
