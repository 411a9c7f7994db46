"""Frames on which demo photos lie side by side, drawn by a seed: the data set ``albums``, for two models in a row.

None to ``MOST_PHOTOS`` photos lie on a plain ``BACKGROUND`` that no photo comes near, each in a cell of its own, which
the planted detector of photos finds (``sut/models/sources/planted.py``) and a classifier names. They are at least
``SMALLEST`` pixels a side in frames of at most ``LONGEST``, so at least 64 in a letterbox of 640. No frame is turned.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from sut.datasets.base import DataSet
from sut.datasets.imagenet import entries_to_use
from sut.datasets.mosaics import Photo, photos
from sut.datasets.rectangles import encoded
from sut.files import cached
from sut.tasks.identification import IdentityTruth

ALBUMS = "albums"
"""The data set's name."""
DRAWER = 1
"""To be raised with every change of the frames: it is part of the cache key."""
SEED = 17
FRAMES = 24
MOST_PHOTOS = 25
SMALLEST = 128
"""Pixels of a photo's shorter side: a little below, EfficientNet-Lite0 begins to take the palace for something else."""
LONGEST = 1280
GAP = 32
"""Pixels between two photos, half of them at a frame's edge, in which what JPEG smears around photos dies away."""
BACKGROUND = (0, 255, 0)
"""R, G, B. Of the colours whose channels are all on or off, the one that the photos' pixels are furthest from: each has
a channel that is 99 levels away or more."""

UNSURE = frozenset({839})
"""Photos that are not shown, by their labels: the suspension bridge is a pier by a hair to EfficientNet-Lite0 at most
sizes that it is resized to. With the others it is right."""
_NARROWEST = GAP + 194
"""Pixels of a cell's side: room for the longer side of any photo whose shorter one is ``SMALLEST``."""
_AS_IT_IS = 1
"""EXIF's orientation of a picture that is not turned."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """One frame: pixels, uint8 [height, width, 3] in RGB, and what lies in it, as ``IdentityTruth`` has it."""

    pixels: NDArray[np.uint8]
    boxes: tuple[tuple[int, int, int, int], ...]
    labels: tuple[int, ...]


def draw(seed: int, count: int, shown: Sequence[Photo]) -> Drawn:
    """A frame with ``count`` photos, 0 to ``MOST_PHOTOS``, of any size that leaves room; all come before any twice."""
    random = np.random.default_rng((SEED, seed))
    most_cells = LONGEST // _NARROWEST
    columns = int(random.integers(max(1, -(-count // most_cells)), min(most_cells, max(1, count)) + 1))
    rows = max(1, -(-count // columns))
    wide, high = (int(random.integers(_NARROWEST, LONGEST // each + 1)) for each in (columns, rows))
    frame = np.full((rows * high, columns * wide, 3), BACKGROUND, np.uint8)
    order = random.permutation(len(shown))
    boxes, labels = [], []
    for number, cell in enumerate(random.permutation(rows * columns)[:count].tolist()):
        photo = shown[order[number % len(order)]]
        height, width = photo.pixels.shape[:2]
        scale = random.uniform(SMALLEST / min(height, width), min((wide - GAP) / width, (high - GAP) / height))
        width, height = round(width * scale), round(height * scale)
        left, top = (
            at * side + GAP // 2 + int(random.integers(side - GAP - taken + 1))
            for at, side, taken in ((cell % columns, wide, width), (cell // columns, high, height))
        )
        resized = cv2.resize(photo.pixels, (width, height), interpolation=cv2.INTER_AREA)
        frame[top : top + height, left : left + width] = resized[:, :, ::-1]
        boxes.append((left, top, width, height))
        labels.append(photo.label)
    return Drawn(frame, tuple(boxes), tuple(labels))


def shown_photos() -> list[Photo]:
    """The demo photos that frames are made of: pixels in BGR, and labels."""
    return [photo for photo in photos() if photo.label not in UNSURE]


def frames(count: int = FRAMES) -> Iterator[tuple[str, Drawn]]:
    """The first frames and the names of their files. Among ``FRAMES`` are ones with 0, 1 and ``MOST_PHOTOS`` photos."""
    shown = shown_photos()
    for number in range(count):
        yield f"{number:012d}.jpg", draw(number, (9 + 7 * number) % (MOST_PHOTOS + 1), shown)


def open_albums(count: int | None) -> DataSet:
    """The first ``count`` frames, None for all, with an ``IdentityTruth``; drawn once and cached.

    Raises ``InputError``.
    """
    table = cached("albums.json", f"seed {SEED} drawer {DRAWER}", write, lambda text: None, quietly=True)
    rows = json.loads(table.read_text(encoding="utf-8"))
    rows = rows[: entries_to_use(count, len(rows), f"the data set {ALBUMS}")]
    sizes = tuple((row["width"], row["height"]) for row in rows)
    boxes = tuple(tuple((left, top, width, height) for left, top, width, height in row["boxes"]) for row in rows)
    truth = IdentityTruth(sizes, boxes, tuple(tuple(row["labels"]) for row in rows))
    files = tuple(row["file"] for row in rows)
    return DataSet(name=ALBUMS, root=table.parent, files=files, truth=truth, sizes=sizes)


def write(table: Path) -> None:
    """Write the frames beside a table of what lies in them. Raises ``OSError`` where that is not possible."""
    rows = []
    for name, drawn in frames():
        (table.parent / name).write_bytes(encoded(drawn.pixels, _AS_IT_IS))
        height, width, _ = drawn.pixels.shape
        rows.append({"file": name, "width": width, "height": height, "boxes": drawn.boxes, "labels": drawn.labels})
    table.write_text(json.dumps(rows), encoding="utf-8")
