"""The pictures that a breakdown is over: the benchmark's three sizes and their mix, made once, or a folder."""

from __future__ import annotations

import math
from dataclasses import dataclass

from plugins.files import LARGE_BYTES, read_file
from preprocess.parts.header import read_header
from sut.config import RunConfig, expanded
from sut.datasets import mosaics
from sut.datasets.base import DataSet
from sut.datasets.mosaics import SIZES, Size
from sut.errors import InputError
from sut.studies.generated import SETS, generated_pictures, in_folder, made
from sut.studies.tuning.space import with_settings
from sut.text import Say

OWN = "own"
"""The user's own data set."""

_PATH = ("dataset", "dataset_path", "dataset_list")
_LADDER = 7
"""Sizes from small to large at which preprocessors are compared."""
_LADDER_COUNT = 2
_TILE = 190
"""Pixels of a photo's side in a mosaic between the sizes: about what it is in medium and large."""


@dataclass(frozen=True, slots=True)
class Pictures:
    """A name for the table, and the settings that make a run read them."""

    name: str
    settings: dict[str, object]

    def of(self, config: RunConfig) -> RunConfig:
        """``config`` over these pictures."""
        return with_settings(config, self.settings) if self.settings else config


def picture_sets(words: str | None, config: RunConfig, say: Say) -> list[Pictures]:
    """The sets that a comma list of names and folders asks for; generated ones are made where they are not there yet.

    Without a list: the user's own data set where the config has one, else all that are generated. Raises ``InputError``
    for a word that is neither, and where both are given.
    """
    own = any(getattr(config, name) is not None for name in _PATH)
    if words is None:
        return [Pictures(OWN, {})] if own else [Pictures(name, generated_pictures(name, say)) for name in SETS]
    if own:
        raise InputError("--pictures and --dataset-path both say which pictures are taken; give one of them")
    return [_one(word.strip(), say) for word in dict.fromkeys(words.split(","))]


def _one(word: str, say: Say) -> Pictures:
    if word in SETS:
        return Pictures(word, generated_pictures(word, say))
    folder = expanded(word)
    if not word or not folder.is_dir():
        raise InputError(f"--pictures {word}: no such folder; expected {', '.join(SETS)}, or a folder of pictures")
    return Pictures(folder.name, in_folder(folder))


def ladder(say: Say) -> list[tuple[int, list[bytes]]]:
    """Files of a few sizes from small to large, in equal steps of the logarithm: pixels, and some files of each."""
    sizes = [_between(step / (_LADDER - 1)) for step in range(_LADDER)]

    def make() -> list[tuple[str, bytes, int]]:
        photos = mosaics.photos()
        return [
            (f"{size.width * size.height:08d}-{at}.jpg", _mosaic(photos[at:] + photos[:at], size), 0)
            for size in sizes
            for at in range(_LADDER_COUNT)
        ]

    folder = made("in-between", f"ladder {_LADDER} {_LADDER_COUNT} {_TILE}", make, say)
    found: dict[int, list[bytes]] = {}
    for path in sorted(folder.glob("*.jpg")):
        found.setdefault(int(path.stem.partition("-")[0]), []).append(read_file(path, LARGE_BYTES))
    return list(found.items())


def _between(share: float) -> Size:
    """A size so far on the way from small over medium to large, on straight lines of logarithms."""
    names = ("small", "medium", "large")
    pixels = [math.log(SIZES[name].width * SIZES[name].height) for name in names]
    at = pixels[0] + share * (pixels[-1] - pixels[0])
    low = 0 if at <= pixels[1] else 1
    part = (at - pixels[low]) / (pixels[low + 1] - pixels[low])
    width, height, size_bytes = (
        round(math.exp((1 - part) * math.log(before) + part * math.log(after)))
        for before, after in zip(_figures(names[low]), _figures(names[low + 1]), strict=True)
    )
    return Size(width, height, size_bytes, ((max(1, round(width / _TILE)), max(1, round(height / _TILE))),))


def _figures(name: str) -> tuple[int, int, int]:
    size = SIZES[name]
    return size.width, size.height, size.size_bytes


def _mosaic(photos: list[mosaics.Photo], size: Size) -> bytes:
    """The nearest to the size in bytes: between the sizes nobody has published how large files are."""
    return mosaics.encode(mosaics.mosaic(photos, size, size.grids[0]), size.size_bytes)


def sizes_of(dataset: DataSet) -> list[str]:
    """What size each picture of a data set is of: ``small``, ``medium`` or ``large``, whichever is nearest in pixels.

    Nearest by ratio; what has no header that can be read counts as small.
    """
    return [nearest(pixels_of(dataset.read(index))) for index in range(dataset.count)]


def pixels_of(data: bytes) -> int:
    """Pixels of a picture file by its header; 0 where that cannot be read."""
    header = read_header(data)
    return header.width * header.height if header else 0


def nearest(pixels: int) -> str:
    """The benchmark's size whose pixels are nearest by ratio.

    >>> nearest(500 * 375), nearest(1920 * 1080), nearest(3000 * 2000), nearest(0)
    ('medium', 'large', 'large', 'small')
    """
    return min(SIZES, key=lambda name: abs(math.log(SIZES[name].width * SIZES[name].height / max(pixels, 1))))
