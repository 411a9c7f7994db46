"""The pictures that shortcuts are priced on, as files in a folder: of each size some to be timed, some to be labelled.

Timed are mosaics of the demo photos, with as much detail and as many bytes as such pictures have. Labelled are crops of
the photos, drawn at random from a seed and resized to the same size: they show one thing each, and less detail than a
camera's, where they are larger than the photos.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from sut.datasets.mosaics import SIZES, photos, pictures
from sut.models.precision.calibration import random_crops

TIMED = {"small": 32, "medium": 16, "large": 2}
LABELLED = {"small": 160, "medium": 160, "large": 32}
_SEED = 20_240_325
_QUALITY = 90


def write_pictures(folder: Path, timed: dict[str, int], labelled: dict[str, int]) -> None:
    """Write so many of each size. Raises ``OSError``."""
    for size in SIZES:
        for kind in ("timed", "labelled"):
            (folder / size / kind).mkdir(parents=True)
        for name, data, _ in pictures(size, timed[size]):
            (folder / size / "timed" / name).write_bytes(data)
        for number, data in enumerate(_crops(size, labelled[size])):
            (folder / size / "labelled" / f"{number:05d}.jpg").write_bytes(data)


def files(folder: Path, size: str, kind: str) -> list[bytes]:
    """The files of one kind, in their order."""
    return [path.read_bytes() for path in sorted((folder / size / kind).iterdir())]


def _crops(size: str, count: int) -> list[bytes]:
    shown = [photo.pixels for photo in photos()]
    wanted, found = SIZES[size], []
    for crop in random_crops(shown, len(shown), count, _SEED):
        method = cv2.INTER_AREA if crop.shape[0] > wanted.height else cv2.INTER_CUBIC
        picture = np.asarray(cv2.resize(crop, (wanted.width, wanted.height), interpolation=method), np.uint8)
        found.append(cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1].tobytes())
    return found
