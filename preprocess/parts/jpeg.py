"""What a JPEG's header says, without decoding: by it a preprocessor knows which decoder can take the file.

Marker segments are walked as ITU T.81, annex B has them. What the components' colours are follows libjpeg, and so
OpenCV: a JFIF segment means YCbCr, else Adobe's segment says it, else the components' names do.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

Coding = Literal["baseline", "extended", "progressive", "other"]

_CODINGS: dict[int, Coding] = {0xC0: "baseline", 0xC1: "extended", 0xC2: "progressive"}
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_ALONE = {0x01, *range(0xD0, 0xD9)}
_APP0, _APP14 = 0xE0, 0xEE

# Start of an EXIF orientation entry in either byte order, and one that says "upright".
_ORIENTATION = {
    b"II": (re.compile(rb"\x12\x01.{0,8}", re.DOTALL), b"\x12\x01\x03\0\x01\0\0\0\x01\0"),
    b"MM": (re.compile(rb"\x01\x12.{0,8}", re.DOTALL), b"\x01\x12\0\x03\0\0\0\x01\0\x01"),
}


@dataclass(frozen=True, slots=True)
class Frame:
    """A JPEG's frame header. Width and height are as coded, before any EXIF rotation."""

    coding: Coding
    """Lossy with Huffman codes: one scan, one scan of any precision, several scans; ``other`` is everything else."""
    precision: int
    """Bits per sample."""
    width: int
    height: int
    colours: Literal["grey", "YCbCr", "RGB", "other"]
    """``other``: four components (CMYK, YCCK), or two."""


def read_frame(data: bytes) -> Frame | None:
    """The frame header of a JPEG; None for anything that is not one, or ends before it."""
    if not data.startswith(b"\xff\xd8"):
        return None
    at, is_jfif, transform = 2, False, None
    while at + 10 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
            continue
        if marker in _ALONE:
            at += 2
            continue
        if marker in _FRAMES:
            count = data[at + 9]
            names = data[at + 10 : at + 10 + 3 * count : 3]
            return Frame(
                coding=_CODINGS.get(marker, "other"),
                precision=data[at + 4],
                height=int.from_bytes(data[at + 5 : at + 7], "big"),
                width=int.from_bytes(data[at + 7 : at + 9], "big"),
                colours=_colours(count, names, is_jfif, transform),
            )
        if marker == _APP0 and data[at + 4 : at + 9] == b"JFIF\0":
            is_jfif = True
        if marker == _APP14 and data[at + 4 : at + 9] == b"Adobe" and at + 16 <= len(data):
            transform = data[at + 15]
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return None


def _colours(
    count: int, names: bytes, is_jfif: bool, transform: int | None
) -> Literal["grey", "YCbCr", "RGB", "other"]:
    if count == 1:
        return "grey"
    if count != 3:
        return "other"
    if is_jfif:
        return "YCbCr"
    is_rgb = names == b"RGB" if transform is None else transform == 0
    return "RGB" if is_rgb else "YCbCr"


def may_be_rotated(data: bytes) -> bool:
    """Whether EXIF might say that the picture is not upright: OpenCV decides. In doubt, yes."""
    at = 2
    while data[at : at + 1] == b"\xff":
        kind = data[at + 1]
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if kind == 0xE1 and data[at + 4 : at + 10] == b"Exif\0\0":
            tags = _ORIENTATION.get(data[at + 10 : at + 12])
            if tags is None or any(entry != tags[1] for entry in tags[0].findall(data[at + 12 : end])):
                return True
        if kind == 0xDA:
            return False
        at = end
    return True
