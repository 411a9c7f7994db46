"""Picture headers: the size that is decoded is known without decoding, and no bytes make the reader stumble."""

from __future__ import annotations

import struct

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from preprocess.parts.header import Header, read_header

WIDTH, HEIGHT = 71, 40
PIXELS = np.random.default_rng(2).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
DEEP = PIXELS.astype(np.uint16) * 257
ALPHA = np.dstack([PIXELS, PIXELS[:, :, :1]])


def encoded(kind: str, pixels: np.ndarray = PIXELS, *parameters: int) -> bytes:
    return cv2.imencode(kind, pixels, parameters)[1].tobytes()


def tiff(end: str, big: bool) -> bytes:
    """A TIFF header with a directory of width (long), height (short) and three bits per sample, which lie elsewhere."""
    mark, word = (b"II" if end == "<" else b"MM"), "Q" if big else "I"
    head = mark + (struct.pack(end + "HHHQ", 43, 8, 0, 16) if big else struct.pack(end + "HI", 42, 8))
    step = 20 if big else 12
    away = len(head) + (8 if big else 2) + 3 * step

    def entry(tag: int, kind: int, count: int, value: bytes) -> bytes:
        return struct.pack(end + "HH" + word, tag, kind, count) + value.ljust(8 if big else 4, b"\0")

    # Three shorts fit into a BigTIFF's entry.
    bits = struct.pack(end + "HHH", 16, 16, 16)
    entries = [  # not in the order of their tags, which readers put up with
        entry(258, 3, 3, bits if big else struct.pack(end + "I", away)),
        entry(256, 4, 1, struct.pack(end + "I", WIDTH)),
        entry(257, 3, 1, struct.pack(end + "H", HEIGHT)),
    ]
    return head + struct.pack(end + ("Q" if big else "H"), 3) + b"".join(entries) + bits


def siz(left: int, top: int) -> bytes:
    """The start of a JPEG 2000 codestream whose picture begins at an offset."""
    return b"\xff\x4f\xff\x51" + struct.pack(">HHIIII", 47, 0, WIDTH + left, HEIGHT + top, left, top)


WHOLE = {
    "jpeg": (encoded(".jpg"), 8, 3),
    "progressive jpeg": (encoded(".jpg", PIXELS, cv2.IMWRITE_JPEG_PROGRESSIVE, 1), 8, 3),
    "png": (encoded(".png"), 8, 3),
    "png with alpha": (encoded(".png", ALPHA), 8, 3),
    "16-bit png": (encoded(".png", DEEP), 16, 6),
    "bmp": (encoded(".bmp"), 8, 3),
    "lossy webp": (encoded(".webp", PIXELS, cv2.IMWRITE_WEBP_QUALITY, 80), 8, 3),
    "lossy webp with alpha": (encoded(".webp", ALPHA, cv2.IMWRITE_WEBP_QUALITY, 80), 8, 3),
    "lossless webp": (encoded(".webp"), 8, 3),
    "tiff": (encoded(".tiff"), 8, 3),
    "16-bit tiff": (encoded(".tiff", DEEP), 16, 6),
    "avif": (encoded(".avif"), 8, 9),
    "avif with alpha": (encoded(".avif", ALPHA), 8, 9),
    "jpeg 2000": (encoded(".jp2"), 8, 12),
    "gif": (encoded(".gif"), 8, 6),
    "sun raster": (encoded(".sr"), 8, 3),
    "pixmap": (encoded(".ppm"), 8, 3),
    "16-bit pixmap": (encoded(".ppm", DEEP), 8, 3),
    "pam": (encoded(".pam"), 8, 3),
    "pfm": (encoded(".pfm", PIXELS.astype(np.float32)), 8, 12),
    "radiance": (encoded(".hdr", PIXELS.astype(np.float32)), 8, 12),
}
HEADERS = {
    "os/2 bmp": (b"BM" + bytes(12) + struct.pack("<IHH", 12, WIDTH, HEIGHT), 8, 3),
    "bmp from its top": (b"BM" + bytes(12) + struct.pack("<Iii", 40, WIDTH, -HEIGHT), 8, 3),
    "pixmap with comments": (f"P3 # by hand\n# again\n\t{WIDTH}#x\n {HEIGHT}\n".encode(), 8, 3),
    "pam with its height first": (f"P7\nHEIGHT {HEIGHT}\nWIDTH {WIDTH}\nDEPTH 3\n".encode(), 8, 3),
    "tiff, little end first": (tiff("<", big=False), 16, 6),
    "tiff, big end first": (tiff(">", big=False), 16, 6),
    "bigtiff, little end first": (tiff("<", big=True), 16, 6),
    "bigtiff, big end first": (tiff(">", big=True), 16, 6),
    "jpeg 2000 codestream": (siz(5, 9), 8, 12),
}


@pytest.mark.parametrize("kind", WHOLE | HEADERS)
def test_the_size_is_read(kind: str) -> None:
    data, bits, pixel_bytes = (WHOLE | HEADERS)[kind]

    header = read_header(data)

    assert header == Header(WIDTH, HEIGHT, bits, pixel_bytes)
    assert header.unfolded_bytes == WIDTH * HEIGHT * pixel_bytes


@pytest.mark.parametrize("kind", WHOLE)
def test_opencv_finds_the_same_size(kind: str) -> None:
    pixels = cv2.imdecode(np.frombuffer(WHOLE[kind][0], np.uint8), cv2.IMREAD_COLOR)

    assert pixels is not None
    assert pixels.shape == (HEIGHT, WIDTH, 3)


@pytest.mark.parametrize("kind", WHOLE | HEADERS)
def test_a_header_that_ends_early_is_none_or_the_same(kind: str) -> None:
    data, bits, pixel_bytes = (WHOLE | HEADERS)[kind]
    whole = Header(WIDTH, HEIGHT, bits, pixel_bytes)

    for length in range(min(len(data), 300)):
        header = read_header(data[:length])
        assert header in (None, whole), length


STARTS = sorted({data[:length] for data, *_ in (WHOLE | HEADERS).values() for length in (2, 4, 8, 12, 16)})


@given(st.sampled_from(STARTS), st.binary(max_size=80))
def test_no_bytes_make_it_stumble(start: bytes, rest: bytes) -> None:
    header = read_header(start + rest)

    assert header is None or header.unfolded_bytes >= 0


@pytest.mark.parametrize("data", [b"", b"<html>", b"hello" * 50])
def test_what_is_no_picture_has_none(data: bytes) -> None:
    assert read_header(data) is None


def test_a_place_beyond_all_files_is_none() -> None:
    big_tiff = b"II+\x00\x08\x00\x00\x00" + (2**63).to_bytes(8, "little")
    assert read_header(big_tiff) is None
