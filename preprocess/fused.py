"""Decode into a buffer that stays, then resize, normalise and lay out in one pass of compiled code.

Named after what it does, as ``opencv`` is after what it uses: everything behind the decoder is one kernel, so those
steps have no times of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numba
import numpy as np
import simplejpeg
from numpy.typing import NDArray

from kernels.placement import SUPPORTS
from plugins.options import option
from preprocess.base import BadPicture, Geometry, Mark, Preprocessor, Recipe, Target, only_buffer
from preprocess.oracle import Fit, check_recipe, fit
from preprocess.parts.compiled import kernels
from preprocess.parts.decode import JPEG_START, check, decode
from preprocess.parts.jpeg import may_be_rotated
from preprocess.parts.pillow_compiled import Filtered
from preprocess.parts.scaled import shrunk

# What OpenCV refuses (CV_IO_MAX_IMAGE_PIXELS), so it is left to OpenCV to refuse it.
_MAX_PIXELS = 1 << 30

_HALVING_BIAS = 0.125
"""Turns half to even into the half up that OpenCV has for exact halves only: their values are multiples of 1/4."""

_NO_FLOATS = np.empty(0, np.float32)


@dataclass(frozen=True, slots=True)
class Shortcuts:
    """What decoding may leave out. Each changes pixels, so none is taken unless it is asked for."""

    scaled_decode: bool = option(
        False, "decode JPEGs no larger than the resize needs: at 1/2, 1/4 or 1/8 of the size", is_shortcut=True
    )
    fast_chroma: bool = option(
        False, "repeat the chroma of subsampled JPEGs, where libjpeg would interpolate", is_shortcut=True
    )
    fast_dct: bool = option(False, "libjpeg's fast and less exact inverse DCT", is_shortcut=True)


class _Decoded(NamedTuple):
    """Pixels, which of them go where, and the map from the model's input to the picture as its file has it."""

    pixels: NDArray[np.uint8]
    where: Fit
    geometry: Geometry


class Fused(Preprocessor):
    """JPEG by libjpeg-turbo into a reused buffer, all the rest in one kernel that computes only what the crop keeps.

    Within one level of ``preprocess/oracle.py`` on every pixel: equal for linear, for Pillow's filters, and wherever
    area mode grows; else about 0.001 % of the values are one level off, and up to 1 % where area mode shrinks by an
    even integer that is no power of two (6, 10, 12): there, exact means lie half way between two levels, and float32
    rounds them to either.

    Holds the pixels of its largest batch, 3 bytes each: fresh memory for every picture costs the kernel's page faults,
    which take as long as the resize does. With ``Shortcuts`` it is within no number of levels of the oracle.
    """

    name = "fused"
    stages = ("decode", "preprocess")
    options = Shortcuts

    def __init__(self, recipe: Recipe, **options: Any) -> None:
        """Compile the kernels, or read them from the cache.

        Raises ``ValueError`` for a bad option, and for a recipe that contradicts itself, such as uint8 with a mean.
        """
        super().__init__(recipe)
        check_recipe(recipe)
        self._taken: Shortcuts = self.read_options(options)
        self._pixels = np.empty(0, np.uint8)
        dtype = np.dtype(recipe.dtype)
        self._bits = np.dtype(f"u{dtype.itemsize}")
        self._kernels = kernels(self._bits.name)
        method = recipe.interpolation
        self._filtered = Filtered(method, recipe.size) if method in SUPPORTS else None
        # A pixel has 256 values, so the formula is worked out once for each: exact for every dtype by construction.
        channels = [2, 1, 0] if recipe.colour_order == "RGB" else [0, 1, 2]
        values = np.arange(256, dtype=np.float32)
        mean, std = np.asarray(recipe.mean, np.float32), np.asarray(recipe.std, np.float32)
        formula = [((values - mean[channel]) / std[channel]).astype(dtype) for channel in channels]
        self._tables = np.stack(formula).view(self._bits)
        # A quotient as two products, by the divisor's inverse and by what that lacks of it.
        inverse = 1 / std[channels].astype(np.float64)
        rest = inverse - inverse.astype(np.float32)
        self._affine = np.stack([mean[channels], inverse, rest]).astype(np.float32)
        size = recipe.size
        channel_step, column_step, row_step = (size * size, 1, size) if recipe.layout == "NCHW" else (1, 3, 3 * size)
        self._place = np.array([*(channel * channel_step for channel in channels), column_step, row_step], np.int64)
        self._is_affine = dtype == np.float32 and self._products_are_the_tables()

    @classmethod
    def version(cls) -> str:
        """Numba's version."""
        return str(numba.__version__)

    def run(self, encoded: Sequence[bytes], target: Target, mark: Mark) -> list[Geometry]:
        """Turn ``encoded`` (whole files) into the first ``len(encoded)`` rows of the target's only buffer.

        Raises ``BadPicture`` for one that is damaged or cannot be decoded, ``ValueError`` for an unfit buffer.
        """
        only_buffer(self.recipe, target, len(encoded))
        pictures = self._decode(encoded)
        mark("decode")
        return self._fill_rows(pictures, target, mark)

    def run_pixels(self, pictures: Sequence[NDArray[np.uint8]], target: Target, mark: Mark) -> list[Geometry]:
        """Resize, crop and normalise decoded pictures, uint8 (height, width, 3) in BGR."""
        return self._fill_rows([self._whole(pixels) for pixels in pictures], target, mark)

    def close(self) -> None:
        """Give back the pixels of the largest batch."""
        self._pixels = np.empty(0, np.uint8)

    def _fill_rows(self, pictures: Sequence[_Decoded], target: Target, mark: Mark) -> list[Geometry]:
        # The kernels check no bounds. They write bits, of whatever type.
        buffer = only_buffer(self.recipe, target, len(pictures))
        rows = buffer.reshape(len(buffer), -1).view(self._bits)
        for picture, row in zip(pictures, rows, strict=False):
            self._fill(np.ascontiguousarray(picture.pixels), picture.where, row)
        mark("preprocess")
        return [picture.geometry for picture in pictures]

    def _whole(self, pixels: NDArray[np.uint8]) -> _Decoded:
        where = fit(self.recipe, pixels.shape[1], pixels.shape[0])
        return _Decoded(pixels, where, where.geometry)

    def _decode(self, encoded: Sequence[bytes]) -> list[_Decoded]:
        """Pixels of each file; those of usual JPEGs lie one after the other in the buffer, until the next call."""
        places = [self._place_of(data) for data in encoded]
        needed = sum(3 * where.width * where.height for where, _ in filter(None, places))
        if len(self._pixels) < needed:
            self._pixels = np.empty(needed, np.uint8)
        pictures, begin = [], 0
        for position, (data, place) in enumerate(zip(encoded, places, strict=True)):
            end = begin + (3 * place[0].width * place[0].height if place else 0)
            try:
                memory = self._pixels[begin:end]
                pictures.append(self._decode_jpeg(data, place, memory) if place else self._whole(decode(data)))
            except ValueError as error:
                raise BadPicture(position, error) from error
            begin = end
        return pictures

    def _decode_jpeg(self, data: bytes, place: tuple[Fit, Geometry], memory: NDArray[np.uint8]) -> _Decoded:
        """A JPEG, in ``memory`` where libjpeg-turbo finds no fault. Raises ``ValueError`` for damage."""
        where, taken = place[0], self._taken
        least = {"min_height": where.height, "min_width": where.width} if taken.scaled_decode else {}
        fast = {"fastupsample": taken.fast_chroma, "fastdct": taken.fast_dct}
        try:
            return _Decoded(simplejpeg.decode_jpeg(data, "BGR", buffer=memory, **least, **fast), *place)
        except ValueError:  # damaged, or a kind that only OpenCV reads
            check(data)
            return self._whole(decode(data))

    def _place_of(self, data: bytes) -> tuple[Fit, Geometry] | None:
        """Which pixels of a usual JPEG go where, as it is to be decoded; None for what only OpenCV decodes."""
        shape = _plain_jpeg(data)
        if shape is None:
            return None
        where = fit(self.recipe, shape[1], shape[0])
        return shrunk(where) if self._taken.scaled_decode else (where, where.geometry)

    def _products_are_the_tables(self) -> bool:
        """Whether the kernels' arithmetic gives the formula's float32 to the bit: then it is quicker than the tables.

        What a compiler makes of it depends on the processor, so it is tried, on each of the 256 levels.
        """
        levels = np.repeat(np.arange(256, dtype=np.uint8), 3).reshape(1, 256, 3)
        across, down = self._kernels.pairs(0, 256, 256, 0, 256, False), self._kernels.pairs(0, 1, 1, 0, 1, False)
        place, row = np.array([0, 256, 512, 1, 0], np.int64), np.empty(768, self._bits)
        self._kernels.blend(levels, across, down, self._affine, self._tables, place, row, row.view(np.float32))
        return np.array_equal(row, self._tables.ravel())

    def _fill(self, pixels: NDArray[np.uint8], where: Fit, row: NDArray[Any]) -> None:
        """One picture into one flat row. The choice of the method is that of ``preprocess.oracle.resize``."""
        rows, columns = where.rows, where.columns
        if where.is_padded:
            inside = (rows.start, rows.stop, columns.start, columns.stop)
            self._kernels.pad(*inside, where.size, self.recipe.pad_level, self._tables, self._place, row)
            row = row[rows.start * self._place[4] + columns.start * self._place[3] :]
        across, down = where.axes
        scale_x = 1.0 / (where.resized_width / where.box_width)
        scale_y = 1.0 / (where.resized_height / where.box_height)
        halves = scale_x == scale_y == 2
        compiled, method = self._kernels, self.recipe.interpolation
        floats = row.view(np.float32) if self._is_affine else _NO_FLOATS
        output = (self._affine, self._tables, self._place, row, floats)
        if self._filtered:
            levels = self._filtered(pixels, where)
            compiled.lay_out(levels.reshape(len(levels), -1), *output)
        elif (method == "area" and scale_x >= 1 and scale_y >= 1) or (method == "linear" and halves):
            windows = (*compiled.area_window(*across), *compiled.area_window(*down))
            compiled.weigh(pixels, *windows, _HALVING_BIAS if halves else 0.0, *output)
        elif method == "cubic":
            windows = (*compiled.cubic_window(*across), *compiled.cubic_window(*down))
            compiled.weigh(pixels, *windows, 0.0, *output)
        else:
            pairs_x, pairs_y = (compiled.pairs(*axis, method == "area") for axis in (across, down))
            compiled.blend(pixels, pairs_x, pairs_y, *output)


def _plain_jpeg(data: bytes) -> tuple[int, int] | None:
    """Height and width of a JPEG that libjpeg-turbo decodes as OpenCV would; None for anything else."""
    if not data.startswith(JPEG_START) or may_be_rotated(data):
        return None
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError:
        return None
    return (height, width) if colours in ("YCbCr", "Gray") and height * width <= _MAX_PIXELS else None
