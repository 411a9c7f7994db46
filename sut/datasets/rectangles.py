"""Pictures of coloured rectangles, drawn by a seed, that the planted detector finds: the data set ``rectangles``.

One to ``MOST_BOXES`` rectangles lie on a plain grey, each in a cell of its own, two or more of each category where
there are two. They are at least ``SMALLEST`` pixels a side in pictures of at most ``LONGEST``, so at least 48 in a
letterbox of 640: edges that are wrong by half a pixel, as those found between two pixels can be, leave an IoU of
(47 / 48)^2, more than the 0.95 that is the most mAP asks for. Seven of eight pictures are turned or mirrored, as their
EXIF headers say.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

import cv2
import numpy as np
from numpy.typing import NDArray

from sut.datasets.base import DataSet
from sut.datasets.coco import open_coco
from sut.files import cached
from sut.tasks.detection.categories import COCO80

RECTANGLES = "rectangles"
"""The data set's name."""
DRAWER = 1
"""To be raised with every change of the pictures: it is part of the cache key."""
SEED = 11
PICTURES = 64
"""As many as MLPerf has loaded at a time for a detector."""
MOST_BOXES = 40
SMALLEST = 96
LONGEST = 1280
GAP = 32
"""Pixels between two rectangles, in which what JPEG smears around their edges dies away."""
COLOURS = MappingProxyType(
    {
        1: (255, 0, 0),
        13: (0, 255, 0),
        27: (0, 0, 255),
        44: (255, 255, 0),
        52: (0, 255, 255),
        64: (255, 0, 255),
        80: (255, 255, 255),
        90: (0, 0, 0),
    }
)
"""R, G, B by category, each channel fully on or off; those of COCO's, between whose ids there are gaps, that are drawn.
"""

_GREYS = range(124, 140)
"""Levels of the background: all channels far from on and off, and no letterbox's padding has them."""
_QUALITY = 95
_FLIPS = ((), (1,), (0, 1), (0,), (), (0,), (0, 1), (1,))
"""The axes to mirror, by EXIF orientation from 1, behind the transposition that 5 to 8 begin with."""

Pixels = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Drawn:
    """One picture: pixels as they are to be seen, uint8 [height, width, 3] in RGB, and what lies in them.

    ``boxes`` are int64 [n, 4]: left, top, width and height in pixels; ``categories`` n keys of ``COLOURS``.
    """

    pixels: Pixels
    boxes: NDArray[np.int64]
    categories: tuple[int, ...]


def draw(seed: int, boxes: int) -> Drawn:
    """A picture of so many rectangles, 1 to ``MOST_BOXES``, of any size that leaves room for them."""
    random = np.random.default_rng((SEED, seed))
    most_cells = LONGEST // (SMALLEST + GAP)
    columns = int(random.integers(max(1, -(-boxes // most_cells)), min(most_cells, boxes) + 1))
    rows = -(-boxes // columns)
    cells = [int(random.integers(SMALLEST + GAP, LONGEST // count + 1)) for count in (columns, rows)]
    picture = np.full((rows * cells[1], columns * cells[0], 3), random.choice(_GREYS), np.uint8)
    kinds = random.permutation(list(COLOURS))[: max(1, boxes // 2)]
    found = []
    for number, cell in enumerate(random.permutation(rows * columns)[:boxes].tolist()):
        width, height = (int(random.integers(SMALLEST, side - GAP + 1)) for side in cells)
        left = cell % columns * cells[0] + int(random.integers(cells[0] - GAP - width + 1))
        top = cell // columns * cells[1] + int(random.integers(cells[1] - GAP - height + 1))
        picture[top : top + height, left : left + width] = COLOURS[int(kinds[number % len(kinds)])]
        found.append((left, top, width, height))
    return Drawn(picture, np.array(found), tuple(int(kinds[number % len(kinds)]) for number in range(boxes)))


def encoded(picture: Pixels, orientation: int) -> bytes:
    """A JPEG that shows the picture where a reader obeys its EXIF ``orientation``, 1 to 8. Colours keep every pixel."""
    stored = np.flip(picture.transpose(1, 0, 2) if orientation > 4 else picture, _FLIPS[orientation - 1])
    options = [cv2.IMWRITE_JPEG_QUALITY, _QUALITY]
    options += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    data = cv2.imencode(".jpg", np.ascontiguousarray(stored[:, :, ::-1]), options)[1].tobytes()
    # A TIFF header and one entry: tag 0x0112, a SHORT, one of it.
    exif = b"Exif\0\0MM\0*" + struct.pack(">IHHHIHHI", 8, 1, 0x0112, 3, 1, orientation, 0, 0)
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + data[2:]


def pictures(count: int = PICTURES) -> Iterator[tuple[str, Drawn, bytes]]:
    """The first pictures: file name, what was drawn, the file. Two have one rectangle and ``MOST_BOXES``."""
    for number in range(count):
        drawn = draw(number, 1 + number * 27 % MOST_BOXES)
        yield f"{number:012d}.jpg", drawn, encoded(drawn.pixels, 1 + number % len(_FLIPS))


def open_rectangles(count: int | None) -> DataSet:
    """The first ``count`` pictures, None for all, with a ``BoxTruth``; drawn once and cached. Raises ``InputError``."""
    annotations = cached("rectangles.json", f"seed {SEED} drawer {DRAWER}", write, lambda text: None, quietly=True)
    return replace(open_coco("coco", annotations.parent, annotations, count), name=RECTANGLES)


def write(annotations: Path, folder: Path | None = None) -> None:
    """Write annotations as COCO has them, sizes as they are to be seen, and the pictures: into ``folder``, or beside.

    Raises ``OSError`` where that is not possible.
    """
    folder = folder or annotations.parent
    images: list[dict[str, object]] = []
    boxes: list[dict[str, object]] = []
    for number, (name, drawn, data) in enumerate(pictures(), 1):
        (folder / name).write_bytes(data)
        height, width, _ = drawn.pixels.shape
        images.append({"id": number, "file_name": name, "width": width, "height": height})
        for box, category in zip(drawn.boxes.tolist(), drawn.categories, strict=True):
            whole = {"id": len(boxes) + 1, "image_id": number, "category_id": category, "bbox": box}
            boxes.append({**whole, "area": box[2] * box[3], "iscrowd": 0})
    told = {"images": images, "annotations": boxes, "categories": [{"id": each} for each in COCO80]}
    annotations.write_text(json.dumps(told), encoding="utf-8")
