"""JPEGs of the sizes that inference benchmarks are measured with, as mosaics of the demo photos.

``small`` is 60 x 70 pixels and 4 kB, ``medium`` 500 x 375 and 121 kB (an average picture of ImageNet), ``large``
3564 x 2880 and 9.5 MB: the sizes of "Beyond Inference: Performance Analysis of DNN Server Overheads for Computer
Vision". ``mix`` has as many of each, in turn. Pixels are exact, bytes within 15 %; the same call makes the same files.

Small pictures show one photo and carry its class; the others show several, so their label is 0 and means nothing: they
are for speed, not for accuracy.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

from sut.datasets.demo import open_demo

TOLERANCE = 0.15

Pixels = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Size:
    """Width and height in pixels, size of the file, and the mosaics to try, coarse first: (columns, rows) of photos.

    A finer mosaic has more detail to the pixel, so its file is larger at the same quality.
    """

    width: int
    height: int
    size_bytes: int
    grids: tuple[tuple[int, int], ...]


SIZES = {
    "small": Size(60, 70, 4_000, ((1, 1),)),
    "medium": Size(500, 375, 121_000, ((2, 2), (3, 3), (2, 1))),
    "large": Size(3564, 2880, 9_500_000, ((20, 18), (28, 26), (14, 12))),
}


@dataclass(frozen=True, slots=True)
class Photo:
    """Decoded pixels, uint8 (height, width, 3) in BGR, and the ImageNet class."""

    pixels: Pixels
    label: int


def photos() -> list[Photo]:
    """The demo photos, in the order of their list."""
    demo = open_demo()
    assert demo.truth is not None
    shown = zip(demo.files, demo.truth, strict=True)
    return [Photo(np.asarray(cv2.imread(str(demo.root / file)), np.uint8), int(label)) for file, label in shown]


def mosaic(chosen: list[Photo], size: Size, grid: tuple[int, int]) -> Pixels:
    """The photos side by side, each cut to its tile's shape and resized, over and over until the picture is full."""
    picture = np.empty((size.height, size.width, 3), np.uint8)
    columns, rows = grid
    edges_x = [round(size.width * column / columns) for column in range(columns + 1)]
    edges_y = [round(size.height * row / rows) for row in range(rows + 1)]
    tile = 0
    for top, bottom in pairwise(edges_y):
        for left, right in pairwise(edges_x):
            pixels = chosen[tile % len(chosen)].pixels
            picture[top:bottom, left:right] = _fill(pixels, right - left, bottom - top)
            tile += 1
    return picture


def _fill(pixels: Pixels, width: int, height: int) -> Pixels:
    """The largest centred part of the photo that has the tile's shape, as large as the tile."""
    have_height, have_width = pixels.shape[:2]
    scale = min(have_width / width, have_height / height)
    keep_width, keep_height = max(1, int(width * scale)), max(1, int(height * scale))
    left, top = (have_width - keep_width) // 2, (have_height - keep_height) // 2
    part = pixels[top : top + keep_height, left : left + keep_width]
    method = cv2.INTER_AREA if scale >= 1 else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(part, (width, height), interpolation=method), np.uint8)


def encode(picture: Pixels, size_bytes: int) -> bytes:
    """The JPEG whose size is nearest to what is wanted, over all qualities."""
    low, high = 1, 100
    found: dict[int, bytes] = {}
    while low <= high:
        quality = (low + high) // 2
        found[quality] = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()
        if len(found[quality]) < size_bytes:
            low = quality + 1
        else:
            high = quality - 1
    return min(found.values(), key=lambda data: abs(len(data) - size_bytes))


def make(chosen: list[Photo], size: Size) -> bytes:
    """One file of the right size. Raises ``ValueError`` if no mosaic and quality give it."""
    nearest = b""
    for grid in size.grids:
        data = encode(mosaic(chosen, size, grid), size.size_bytes)
        if abs(len(data) - size.size_bytes) < abs(len(nearest) - size.size_bytes):
            nearest = data
        if abs(len(nearest) - size.size_bytes) <= TOLERANCE * size.size_bytes:
            return nearest
    raise ValueError(f"the nearest is {len(nearest)} bytes, expected {size.size_bytes} within {TOLERANCE:.0%}")


def pictures(name: str, count: int) -> list[tuple[str, bytes, int]]:
    """``count`` pictures of one of ``SIZES``, or of ``mix``: file name, bytes and label of each."""
    sizes = list(SIZES) if name == "mix" else [name]
    all_photos = photos()
    made = []
    for number in range(count):
        kind = sizes[number % len(sizes)]
        order = np.random.default_rng(number).permutation(len(all_photos))
        chosen = [all_photos[index] for index in order]
        if kind == "small":
            chosen = [all_photos[number % len(all_photos)]]
        label = chosen[0].label if kind == "small" else 0
        made.append((f"{kind}-{number:05d}.jpg", make(chosen, SIZES[kind]), label))
    return made
