"""What a picture file's header says, without decoding: how large the picture unfolds, and how deep it is.

All kinds that OpenCV reads are known. What its decoders take was measured as the growth of the process's peak memory:
up to ``COPIES`` times the bytes that are told here, and three times for a progressive JPEG without subsampling.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from dataclasses import dataclass

from preprocess.parts.jpeg import read_frame

COPIES = 2
"""How many times over OpenCV holds a picture while it decodes."""

_SEARCHED = 65536
"""Bytes in which headers that are found by searching must lie."""
_GAP = rb"(?:\s|#[^\n]*\n)+"
_PNM = re.compile(rb"P[1-6]%b(\d{1,9})%b(\d{1,9})\s" % (_GAP, _GAP))
_PFM = re.compile(rb"P[Ff]\s+(\d{1,9})\s+(\d{1,9})\s")
_PAM = re.compile(rb"P7(?=.*?\sWIDTH\s+(\d{1,9})\s)(?=.*?\sHEIGHT\s+(\d{1,9})\s)", re.DOTALL)
_RADIANCE = re.compile(rb"[-+]Y\s+(\d{1,9})\s+[-+]X\s+(\d{1,9})\s")
_ISPE = re.compile(rb"ispe.{4}(.{4})(.{4})", re.DOTALL)
_SIZ = b"\xff\x4f\xff\x51"


@dataclass(frozen=True, slots=True)
class Header:
    """Size in pixels as coded, before any EXIF rotation."""

    width: int
    height: int
    bits: int = 8
    """Per channel: 16 is told of PNG and TIFF only, where OpenCV throws the lower 8 away."""
    pixel_bytes: int = 3
    """What a pixel takes while it is decoded: 3, or 6 with 16 bits; more where a decoder works in wider numbers."""

    @property
    def unfolded_bytes(self) -> int:
        """What the whole picture takes while it is decoded."""
        return self.width * self.height * self.pixel_bytes


def read_header(data: bytes) -> Header | None:
    """The header of a picture file; None for a kind that OpenCV does not read, or a file that ends before its size."""
    for pattern, read in _READERS:
        if pattern.match(data):
            try:
                return read(data)
            except (struct.error, OverflowError):  # a place behind the file's end, or behind all that a number can say
                return None
    return None


def _deep(width: int, height: int, bits: int) -> Header:
    return Header(width, height, 16, 6) if bits == 16 else Header(width, height)


def _jpeg(data: bytes) -> Header | None:
    frame = read_frame(data)
    return Header(frame.width, frame.height) if frame else None


def _png(data: bytes) -> Header:
    return _deep(*struct.unpack_from(">IIB", data, 16))


def _bmp(data: bytes) -> Header:
    [size] = struct.unpack_from("<I", data, 14)
    width, height = struct.unpack_from("<HH" if size == 12 else "<ii", data, 18)
    return Header(abs(width), abs(height))


def _webp(data: bytes) -> Header | None:
    kind = data[12:16]
    if kind == b"VP8X":
        width, width_high, height, height_high = struct.unpack_from("<HBHB", data, 24)
        return Header((width_high << 16) + width + 1, (height_high << 16) + height + 1)
    if kind == b"VP8L":
        [packed] = struct.unpack_from("<I", data, 21)
        return Header((packed & 0x3FFF) + 1, (packed >> 14 & 0x3FFF) + 1)
    width, height = struct.unpack_from("<HH", data, 26)
    return Header(width & 0x3FFF, height & 0x3FFF) if kind == b"VP8 " else None


def _tiff(data: bytes) -> Header | None:
    """The first directory: tags 256 to 258 are width, height and bits per sample."""
    end = "<" if data.startswith(b"II") else ">"
    big = struct.unpack_from(end + "H", data, 2) == (43,)
    [at] = struct.unpack_from(end + ("Q" if big else "I"), data, 8 if big else 4)
    [entries] = struct.unpack_from(end + ("Q" if big else "H"), data, at)
    at += 8 if big else 2
    step, value_at, fits = (20, 12, 8) if big else (12, 8, 4)
    found = {}
    for entry in range(at, at + min(entries, 4096) * step, step):
        tag, kind = struct.unpack_from(end + "HH", data, entry)
        if not 256 <= tag <= 258:
            continue
        [count] = struct.unpack_from(end + ("Q" if big else "I"), data, entry + 4)
        unit, size = {1: ("B", 1), 3: ("H", 2), 4: ("I", 4), 16: ("Q", 8)}.get(kind, ("I", 4))
        place = entry + value_at
        if count * size > fits:
            [place] = struct.unpack_from(end + ("Q" if big else "I"), data, place)
        [found[tag]] = struct.unpack_from(end + unit, data, place)
    return _deep(found[256], found[257], found.get(258, 1)) if {256, 257} <= set(found) else None


def _avif(data: bytes) -> Header | None:
    """The largest of the items: others are thumbnails, alpha planes and tiles."""
    sizes = [
        tuple(int.from_bytes(side, "big") for side in match.groups()) for match in _ISPE.finditer(data, 0, _SEARCHED)
    ]
    width, height = max(sizes, key=lambda size: size[0] * size[1], default=(0, 0))
    return Header(width, height, pixel_bytes=9) if sizes else None


def _jpeg2000(data: bytes) -> Header | None:
    """The codestream's SIZ segment; OpenJPEG holds each channel in 32 bits."""
    at = data.find(_SIZ, 0, _SEARCHED)
    if at < 0:
        return None
    right, bottom, left, top = struct.unpack_from(">IIII", data, at + 8)
    return Header(max(0, right - left), max(0, bottom - top), pixel_bytes=12)


def _gif(data: bytes) -> Header:
    width, height = struct.unpack_from("<HH", data, 6)
    return Header(width, height, pixel_bytes=6)


def _sun(data: bytes) -> Header:
    return Header(*struct.unpack_from(">II", data, 4))


def _radiance(data: bytes) -> Header | None:
    match = _RADIANCE.search(data, 0, _SEARCHED)
    return Header(int(match[2]), int(match[1]), pixel_bytes=12) if match else None


def _text(pattern: re.Pattern[bytes], pixel_bytes: int = 3) -> Callable[[bytes], Header | None]:
    """The reader of a header in words."""

    def read(data: bytes) -> Header | None:
        match = pattern.match(data, 0, _SEARCHED)
        return Header(int(match[1]), int(match[2]), pixel_bytes=pixel_bytes) if match else None

    return read


_READERS: tuple[tuple[re.Pattern[bytes], Callable[[bytes], Header | None]], ...] = tuple(
    (re.compile(start, re.DOTALL), read)
    for start, read in (
        (rb"\xff\xd8\xff", _jpeg),
        (rb"\x89PNG\r\n\x1a\n.{4}IHDR", _png),
        (rb"BM", _bmp),
        (rb"RIFF.{4}WEBP", _webp),
        (rb"II[*+]\0|MM\0[*+]", _tiff),
        (rb".{4}ftyp", _avif),
        (rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51", _jpeg2000),
        (rb"GIF8[79]a", _gif),
        (rb"\x59\xa6\x6a\x95", _sun),
        (rb"#\?RADIANCE|#\?RGBE", _radiance),
        (rb"P[1-6]", _text(_PNM)),
        (rb"P7", _text(_PAM)),
        (rb"P[Ff]", _text(_PFM, pixel_bytes=12)),
    )
)
