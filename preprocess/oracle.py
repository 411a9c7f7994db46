"""What a recipe means, in plain NumPy: the truth that every preprocessor is compared with.

``fit`` says which pixels go where, ``resize`` computes them by OpenCV's rules without OpenCV (those of Pillow are in
``parts/pillow.py``), ``oracle`` puts the whole recipe together. Written to be read, not to be fast; a picture takes
some tens of milliseconds.

Where the resize rules come from: OpenCV's documentation names the methods (``INTER_AREA`` is pixel area relation, and
"similar to" linear where the picture grows) but not the arithmetic. The arithmetic here is what OpenCV is observed to
do with 8-bit pictures: coordinates in double; linear in integers with 11-bit weights; area in float32 where both axes
shrink, and a linear blend of its own where either grows.

Measured against OpenCV 5.0.0 on x86-64 with AVX-512, 2,000 random sizes from 1 to 600 pixels a side, photos and noise:

======  ==================  ====================================
method  largest difference  share of values that differ
======  ==================  ====================================
area    0                   0
linear  0                   0
cubic   1 level             under 0.1 % shrinking, 0.6 % growing
======  ==================  ====================================

Cubic is the kernel itself in float32. OpenCV computes it so where it is built with Intel's IPP (the x86 wheels are);
built without, it uses 11-bit weights, and then 4 % of the values differ by one level.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.placement import SUPPORTS, Interpolation, Place, rows_first
from preprocess.base import Geometry, Recipe
from preprocess.parts import pillow

WEIGHT_BITS = 11
"""Linear weights of 8-bit pictures are integers in units of 2**-11."""

CUBIC_A = -0.75
"""OpenCV's sharpness of the cubic kernel (others use -0.5)."""

Pixels = NDArray[np.uint8]
_Taps = tuple[NDArray[np.intp], NDArray[Any]]
"""Source indices and their weights, both of shape (taps, outputs)."""


@dataclass(frozen=True, slots=True)
class Fit(Place):
    """The geometric part of a recipe for one picture."""

    @property
    def geometry(self) -> Geometry:
        """The same as a map from the model's input back to the picture."""
        scale_x = self.resized_width / self.box_width
        scale_y = self.resized_height / self.box_height
        left = self.box_left + self.crop_left / scale_x
        top = self.box_top + self.crop_top / scale_y
        return Geometry(self.width, self.height, scale_x, scale_y, left, top)


def check_recipe(recipe: Recipe) -> None:
    """Raise ``ValueError`` for a recipe that contradicts itself."""
    if recipe.size < 1:
        raise ValueError(f"recipe {recipe.name}: size is {recipe.size}, expected at least 1 pixel")
    if not 0 < recipe.crop_percent <= 100:
        raise ValueError(f"recipe {recipe.name}: crop_percent is {recipe.crop_percent}, expected over 0, at most 100")
    if recipe.fit in ("resize-crop", "stretch") and recipe.short_side is not None and recipe.short_side < recipe.size:
        raise ValueError(
            f"recipe {recipe.name}: short_side is {recipe.short_side}, less than size {recipe.size}, expected at least "
            "that: a crop that reaches beyond the resized picture is not made here (fit letterbox pads)"
        )
    if recipe.crop_padding < 0:
        raise ValueError(f"recipe {recipe.name}: crop_padding is {recipe.crop_padding}, expected 0 pixels or more")
    if not 0 <= recipe.pad_level <= 255:
        raise ValueError(f"recipe {recipe.name}: pad_level is {recipe.pad_level}, expected a level from 0 to 255")
    if 0 in recipe.std:
        raise ValueError(f"recipe {recipe.name}: std is {recipe.std}, expected no zero in it")
    if recipe.dtype == "uint8" and (any(recipe.mean) or recipe.std != (1, 1, 1)):
        raise ValueError(
            f"recipe {recipe.name}: dtype uint8 with mean {recipe.mean} and std {recipe.std}, "
            "expected mean 0 and std 1 (uint8 means the pixels themselves); use float32 or drop mean and std"
        )


def fit(recipe: Recipe, width: int, height: int) -> Fit:
    """The cuts and sizes of ``recipe`` for a picture of ``width`` x ``height`` pixels.

    The integer rounding is that of the MLPerf reference harness (``resize-crop``; offsets as ``crop_offset`` says) and
    of EfficientNet-Lite's published preprocessing (``crop-resize``). A letterbox is that of YOLO's usual
    implementation: sides rounded to the nearest, the larger half of an odd rest behind the picture.
    """
    size = recipe.size
    rounded = round if recipe.crop_offset == "round" else int
    if recipe.fit == "stretch":
        side = recipe.short_side or size
        edge = rounded((side - size) / 2)
        return Fit(width, height, 0, 0, width, height, side, side, edge, edge, size)
    if recipe.fit == "letterbox":
        scale = min(size / width, size / height)
        resized = max(1, round(width * scale)), max(1, round(height * scale))
        centred = recipe.align == "centre"
        left, top = (-((size - side) // 2) if centred else 0 for side in resized)
        return Fit(width, height, 0, 0, width, height, *resized, left, top, size)
    short = min(width, height)
    if recipe.fit == "crop-resize":
        side = max(1, int(size / (size + recipe.crop_padding) * short))
        left, top = (width - side + 1) // 2, (height - side + 1) // 2
        return Fit(width, height, left, top, side, side, size, size, 0, 0, size)
    target = recipe.short_side or int(100.0 * size / recipe.crop_percent)
    if height > width:
        resized_width, resized_height = target, int(target * height / width)
    else:
        resized_width, resized_height = int(target * width / height), target
    left, top = rounded((resized_width - size) / 2), rounded((resized_height - size) / 2)
    return Fit(width, height, 0, 0, width, height, resized_width, resized_height, left, top, size)


def oracle(pixels: Pixels, recipe: Recipe) -> tuple[NDArray[Any], Pixels]:
    """One picture through a recipe.

    Takes decoded pixels, uint8 (height, width, 3), BGR. Returns the model's input sample, of ``recipe.sample_shape``
    and ``recipe.dtype``, and the pixels before normalisation: uint8 (size, size, 3) in the recipe's colour order.

    Raises ``ValueError`` for a recipe that contradicts itself.
    """
    check_recipe(recipe)
    height, width = pixels.shape[:2]
    kept = resize_fit(pixels, fit(recipe, width, height), recipe.interpolation, recipe.pad_level)
    if recipe.colour_order == "RGB":
        kept = np.ascontiguousarray(kept[:, :, ::-1])
    sample = (kept.astype(np.float32) - np.asarray(recipe.mean, np.float32)) / np.asarray(recipe.std, np.float32)
    if recipe.layout == "NCHW":
        sample = sample.transpose(2, 0, 1)
    return np.ascontiguousarray(sample, dtype=recipe.dtype), kept


def resize_fit(pixels: Pixels, where: Place, interpolation: Interpolation, pad_level: int = 0) -> Pixels:
    """The ``size`` square of one picture, uint8 (size, size, 3), computing only what the crop keeps.

    Time and memory follow the crop, not the resized picture: 20000 x 1 pixels would become 3.9 GB in full.
    """
    square = np.full((where.size, where.size, 3), pad_level, np.uint8)
    columns = np.arange(where.columns.start, where.columns.stop) + where.crop_left
    rows = np.arange(where.rows.start, where.rows.stop) + where.crop_top
    resized = where.resized_width, where.resized_height
    square[where.rows, where.columns] = resize(where.cut(pixels), *resized, interpolation, columns, rows)
    return square


def resize(
    pixels: Pixels,
    width: int,
    height: int,
    interpolation: Interpolation,
    columns: NDArray[np.intp] | None = None,
    rows: NDArray[np.intp] | None = None,
) -> Pixels:
    """Resize to ``width`` x ``height`` as OpenCV or Pillow does; ``columns`` and ``rows`` of that (default: all).

    Takes and returns uint8 (height, width, channels).
    """
    source_height, source_width = pixels.shape[:2]
    columns = np.arange(width) if columns is None else columns
    rows = np.arange(height) if rows is None else rows
    if interpolation in SUPPORTS:
        across = pillow.taps(interpolation, source_width, width, columns)
        down = pillow.taps(interpolation, source_height, height, rows)
        if rows_first(source_width, source_height, width, height):
            return pillow.filtered(pixels.swapaxes(0, 1), down, across).swapaxes(0, 1)
        return pillow.filtered(pixels, across, down)
    scale_x, scale_y = _scale(source_width, width), _scale(source_height, height)
    # OpenCV takes the area path for linear too when both axes halve exactly.
    if (interpolation == "area" and scale_x >= 1 and scale_y >= 1) or (
        interpolation == "linear" and scale_x == 2 and scale_y == 2
    ):
        if scale_x.is_integer() and scale_y.is_integer():
            return _block_mean(pixels, int(scale_x), int(scale_y), columns, rows)
        taps, blend = _area_taps, _weighted
    elif interpolation == "cubic":
        taps, blend = _cubic_taps, _weighted
    else:
        taps, blend = _area_linear_taps if interpolation == "area" else _linear_taps, _linear
    return blend(pixels, taps(source_width, width, columns), taps(source_height, height, rows))


def _scale(source: int, target: int) -> float:
    """Source pixels per target pixel, with the rounding of OpenCV's two divisions.

    They decide the path: 1 / (1 / 49) is not 49, so OpenCV does not take that ratio for an integer one.
    """
    return 1.0 / (target / source)


def _block_mean(
    pixels: Pixels, block_width: int, block_height: int, columns: NDArray[np.intp], rows: NDArray[np.intp]
) -> Pixels:
    """Integer ratios on both axes: the mean of a block, rounded half up for 2 x 2 and half to even for others."""
    left, top = columns * block_width, rows * block_height
    total = np.zeros((len(rows), len(columns), pixels.shape[2]), np.int64)
    for y in range(block_height):
        for x in range(block_width):
            total += pixels[top + y][:, left + x]
    if block_width == block_height == 2:
        return np.asarray((total + 2) >> 2, np.uint8)
    share = np.float32(1.0 / (block_width * block_height))
    return np.asarray(np.rint(total.astype(np.float32) * share), np.uint8)


def _area_taps(source: int, target: int, outputs: NDArray[np.intp]) -> _Taps:
    """Pixel area relation on one axis: how much of each source pixel an output pixel covers, in float32.

    Parts under a thousandth of a pixel are left out, without scaling up the others, as OpenCV does.
    """
    scale = _scale(source, target)
    taps = int(scale) + 3
    indices = np.zeros((taps, len(outputs)), np.intp)
    weights = np.zeros((taps, len(outputs)), np.float32)
    for column, output in enumerate(outputs.tolist()):
        start = output * scale
        end = start + scale
        cell = min(scale, source - start)
        last = min(int(np.floor(end)), source - 1)
        first = min(int(np.ceil(start)), last)
        covered = [(index, 1.0) for index in range(first, last)]
        if first - start > 1e-3:
            covered.insert(0, (first - 1, first - start))
        if end - last > 1e-3:
            covered.append((last, min(end - last, 1.0, cell)))
        for tap, (index, share) in enumerate(covered):
            indices[tap, column] = index
            weights[tap, column] = share / cell
    return indices, weights


def _weighted(pixels: Pixels, taps_x: _Taps, taps_y: _Taps) -> Pixels:
    """Weighted sums in float32, columns first, then rows; rounded half to even."""
    rows, row_of = np.unique(taps_y[0], return_inverse=True)
    across = np.zeros((len(rows), taps_x[0].shape[1], pixels.shape[2]), np.float32)
    for indices, weights in zip(*taps_x, strict=True):
        across += pixels[rows[:, None], indices] * weights[:, None]
    total = np.zeros((taps_y[0].shape[1], *across.shape[1:]), np.float32)
    for indices, weights in zip(row_of.reshape(taps_y[0].shape), taps_y[1], strict=True):
        total += across[indices] * weights[:, None, None]
    return np.clip(np.rint(total), 0, 255).astype(np.uint8)


def _linear_taps(source: int, target: int, outputs: NDArray[np.intp]) -> _Taps:
    """Pixel centres at half-integers: output x sits at (x + 0.5) * scale - 0.5."""
    position = ((outputs + 0.5) * _scale(source, target) - 0.5).astype(np.float32)
    floor = np.floor(position)
    return _two_taps(source, floor.astype(np.intp), position - floor)


def _area_linear_taps(source: int, target: int, outputs: NDArray[np.intp]) -> _Taps:
    """Area mode where an axis grows: blend only in outputs that straddle an edge between source pixels, by area."""
    inverse = target / source
    index = np.floor(outputs * _scale(source, target)).astype(np.intp)
    share = ((outputs + 1) - (index + 1) * inverse).astype(np.float32)
    return _two_taps(source, index, np.where(share <= 0, np.float32(0), share - np.floor(share)))


def _two_taps(source: int, index: NDArray[np.intp], share: NDArray[np.float32]) -> _Taps:
    """A source pixel and the one after it, which weighs ``share``; integer weights, each rounded half to even."""
    weights = np.rint(np.stack([1 - share, share]) * np.float32(1 << WEIGHT_BITS))
    return np.stack([index, index + 1]).clip(0, source - 1), weights.astype(np.int64)


def _cubic_taps(source: int, target: int, outputs: NDArray[np.intp]) -> _Taps:
    """Four pixels around the linear position, weighed by the cubic convolution kernel; edges repeat."""
    position = ((outputs + 0.5) * _scale(source, target) - 0.5).astype(np.float32)
    floor = np.floor(position)
    x = position - floor
    a = np.float32(CUBIC_A)
    far = ((a * (x + 1) - 5 * a) * (x + 1) + 8 * a) * (x + 1) - 4 * a
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    next_ = ((a + 2) * (1 - x) - (a + 3)) * (1 - x) * (1 - x) + 1
    weights = np.stack([far, near, next_, 1 - far - near - next_])
    indices = floor.astype(np.intp) + np.arange(-1, 3)[:, None]
    return indices.clip(0, source - 1), weights


def _linear(pixels: Pixels, taps_x: _Taps, taps_y: _Taps) -> Pixels:
    """Two columns, then two rows blended in integers: four bits are dropped before a row's product and 16 after it."""
    rows, row_of = np.unique(taps_y[0], return_inverse=True)
    across = np.zeros((len(rows), taps_x[0].shape[1], pixels.shape[2]), np.int64)
    for indices, weights in zip(*taps_x, strict=True):
        across += pixels[rows[:, None], indices] * weights[:, None]
    total = np.full((taps_y[0].shape[1], *across.shape[1:]), 2, np.int64)
    for indices, weights in zip(row_of.reshape(taps_y[0].shape), taps_y[1], strict=True):
        total += ((across[indices] >> 4) * weights[:, None, None]) >> 16
    return (total >> 2).astype(np.uint8)
