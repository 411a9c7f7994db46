"""How far a preprocessor's pixels are from the oracle's: the figure that no speed of a preprocessor is shown without.

Both get the same files. The oracle gives pixels, uint8; a preprocessor's are recovered from its output by undoing the
recipe's normalisation, ``round(output * std + mean)``, which is exact: it undoes what was done to one of 256 values.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from preprocess.base import Preprocessor, Recipe, unmarked
from preprocess.oracle import fit, oracle
from preprocess.parts.decode import decode
from sut.datasets.demo import open_demo
from sut.qsl.library import Rows
from sut.results.schema import Parity

_SEED = 20_200_713
_BATCH = 8
_SIDES = (8, 800)
_QUALITY = 90
_CROPS_PER_PHOTO = 9

Make = Callable[[Recipe], Preprocessor]
"""Makes the preprocessor for a recipe: its class, or what knows its options."""

Levels = NDArray[np.int32]
"""Pixels before normalisation, (n, size, size, 3) in the recipe's colour order: 0 to 255, and beyond where one errs."""

Covered = NDArray[np.bool_]
"""Which pixels of the input a picture covers, (n, size, size); the others are padding."""


def measure(make: Make, recipe: Recipe, encoded: Sequence[bytes]) -> Parity:
    """The parity of a preprocessor with the oracle on some files.

    Raises ``ValueError`` for a recipe or a picture that it does not take, and for output that is not finite.
    """
    return compare(preprocessed_levels(make, recipe, encoded), *oracle_levels(recipe, encoded))


def measure_quickly(make: Make, recipe: Recipe, with_large: bool = False) -> Parity:
    """``measure`` on a few files of each kind, within some tenths of a second: for the result of a run.

    ``with_large`` adds pictures that any resize shrinks to a part: without them a shortcut for such might not show.
    """
    return measure(make, recipe, [*photos()[:3], *noise(1), *sizes(4), *(enlarged(2, recipe) if with_large else ())])


def compare(got: Levels, expected: Levels, covered: Covered | None = None) -> Parity:
    """Two sets of pixels, each (n, height, width, 3), n at least 1; all are covered unless told.

    PSNR is ``10 log10(255^2 / mean squared difference)`` in dB, None where nothing differs. A pixel is over 1 when any
    of its channels is. Both, and the mean, are of what is covered: padding is equal, and would flatter them.
    """
    covered = np.ones(got.shape[:3], bool) if covered is None else covered
    apart = np.abs(got.astype(np.int64) - expected)
    difference, padding = apart[covered], apart[~covered]
    mean_square = float(np.square(difference, dtype=np.float64).mean())
    return Parity(
        max_levels=int(apart.max()),
        mean_levels=float(difference.mean()),
        share_over_1=float((difference.max(axis=-1) > 1).mean()),
        psnr_db=10 * math.log10(255**2 / mean_square) if mean_square else None,
        pictures=len(got),
        values=difference.size,
        padding_levels=int(padding.max()) if padding.size else None,
    )


def preprocessed_levels(make: Make, recipe: Recipe, encoded: Sequence[bytes]) -> Levels:
    """What a preprocessor makes of files, in batches of 8. Errors as ``measure``."""
    samples = np.empty((len(encoded), *recipe.sample_shape), recipe.dtype)
    with make(recipe) as working:
        for at in range(0, len(encoded), _BATCH):
            batch = encoded[at : at + _BATCH]
            working.run(batch, Rows.of(samples[at : at + len(batch)]), unmarked)
    return levels(samples, recipe)


def levels(samples: NDArray[Any], recipe: Recipe) -> Levels:
    """Undo the normalisation of samples, n of ``recipe.sample_shape``. Raises ``ValueError`` if one is not finite."""
    channels_last = samples if recipe.layout == "NHWC" else samples.transpose(0, 2, 3, 1)
    pixels = channels_last.astype(np.float64) * recipe.std + recipe.mean
    if not np.isfinite(pixels).all():
        raise ValueError(f"preprocessed values are not finite, expected numbers (recipe {recipe.name})")
    return np.rint(pixels).astype(np.int32)


def oracle_levels(recipe: Recipe, encoded: Sequence[bytes]) -> tuple[Levels, Covered]:
    """What the oracle makes of files, and which pixels of that are theirs."""
    pictures = [decode(data) for data in encoded]
    covered = np.zeros((len(pictures), recipe.size, recipe.size), bool)
    for inside, picture in zip(covered, pictures, strict=True):
        where = fit(recipe, picture.shape[1], picture.shape[0])
        inside[where.rows, where.columns] = True
    return np.stack([oracle(picture, recipe)[1] for picture in pictures]).astype(np.int32), covered


def photos() -> list[bytes]:
    """The files of the demo photos."""
    demo = open_demo()
    return [demo.read(index) for index in range(demo.count)]


def noise(count: int) -> list[bytes]:
    """Pictures of white noise in the size that most ImageNet pictures have, without chroma subsampling.

    The hardest there is for a resize: nothing of a pixel can be guessed from those around it.
    """
    generator = np.random.default_rng(_SEED)
    settings = [cv2.IMWRITE_JPEG_QUALITY, 100, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    return [_jpeg(generator.integers(0, 256, (375, 500, 3), np.uint8), settings) for _ in range(count)]


def sizes(count: int) -> list[bytes]:
    """Demo photos squeezed to sizes drawn at random: each side from 8 to 800 pixels, as many small as large ones.

    Every second has one side shorter and one longer than the 224 pixels of most models. A recipe keeps the aspect, so
    its two axes grow or shrink together, whatever the size; where a model's crop ends up in a picture differs.
    """
    generator = np.random.default_rng(_SEED)
    pictures = [decode(data) for data in photos()[:count]]
    low, high = np.log2(_SIDES)
    found = []
    for number in range(count):
        sides = np.exp2(generator.uniform(low, high, 2))
        if number % 2:
            sides = np.exp2([generator.uniform(low, np.log2(223)), generator.uniform(np.log2(257), high)])
            generator.shuffle(sides)
        width, height = (int(side) for side in sides)
        squeezed = cv2.resize(pictures[number % len(pictures)], (width, height), interpolation=cv2.INTER_AREA)
        found.append(_jpeg(squeezed, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY]))
    return found


def enlarged(count: int, recipe: Recipe) -> list[bytes]:
    """Demo photos whose short side is three times that of what ``recipe`` resizes to."""
    found = []
    for data in photos()[:count]:
        picture = decode(data)
        height, width = picture.shape[:2]
        where = fit(recipe, width, height)
        scale = 3 * max(where.resized_width / where.box_width, where.resized_height / where.box_height)
        size = (round(scale * width), round(scale * height))
        larger = cv2.resize(picture, size, interpolation=cv2.INTER_CUBIC)
        found.append(_jpeg(larger, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY]))
    return found


def crops() -> list[bytes]:
    """Nine crops of each demo photo, half to all of its short side, at random places: what a classifier can label."""
    generator = np.random.default_rng(_SEED)
    found = []
    for data in photos():
        picture = decode(data)
        height, width = picture.shape[:2]
        for _ in range(_CROPS_PER_PHOTO):
            side = int(generator.uniform(0.5, 1) * min(height, width))
            top, left = generator.integers(0, height - side + 1), generator.integers(0, width - side + 1)
            found.append(_jpeg(picture[top : top + side, left : left + side], [cv2.IMWRITE_JPEG_QUALITY, _QUALITY]))
    return found


def _jpeg(picture: Any, settings: list[int]) -> bytes:
    return cv2.imencode(".jpg", picture, settings)[1].tobytes()
