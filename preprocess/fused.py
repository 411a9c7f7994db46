"""Decode into a buffer that stays, then resize, normalise and lay out in one pass of compiled code.

Named after what it does, as ``opencv`` is after what it uses: everything behind the decoder is one kernel, so those
steps have no times of their own.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numba
import numpy as np
import simplejpeg
from numpy.typing import NDArray

from kernels.placement import SUPPORTS
from preprocess.base import BadPicture, Geometry, Mark, Preprocessor, Recipe, Target, only_buffer
from preprocess.oracle import Fit, check_recipe, fit
from preprocess.parts.compiled import kernels
from preprocess.parts.decode import JPEG_START, check, decode
from preprocess.parts.pillow_compiled import Filtered

# What OpenCV refuses (CV_IO_MAX_IMAGE_PIXELS), so it is left to OpenCV to refuse it.
_MAX_PIXELS = 1 << 30

_HALVING_BIAS = 0.125
"""Turns half to even into the half up that OpenCV has for exact halves only: their values are multiples of 1/4."""

_NO_FLOATS = np.empty(0, np.float32)

# Start of an EXIF orientation entry in either byte order, and one that says "upright".
_ORIENTATION = {
    b"II": (re.compile(rb"\x12\x01.{0,8}", re.DOTALL), b"\x12\x01\x03\0\x01\0\0\0\x01\0"),
    b"MM": (re.compile(rb"\x01\x12.{0,8}", re.DOTALL), b"\x01\x12\0\x03\0\0\0\x01\0\x01"),
}


class Fused(Preprocessor):
    """JPEG by libjpeg-turbo into a reused buffer, all the rest in one kernel that computes only what the crop keeps.

    Within one level of ``preprocess/oracle.py`` on every pixel: equal for linear, for Pillow's filters, and wherever
    area mode grows; else about 0.001 % of the values are one level off, and up to 1 % where area mode shrinks by an
    even integer that is no power of two (6, 10, 12): there, exact means lie half way between two levels, and float32
    rounds them to either.

    Holds the pixels of its largest batch, 3 bytes each: fresh memory for every picture costs the kernel's page faults,
    which take as long as the resize does.
    """

    name = "fused"
    stages = ("decode", "preprocess")

    def __init__(self, recipe: Recipe) -> None:
        """Compile the kernels, or read them from the cache.

        Raises ``ValueError`` for a recipe that contradicts itself, such as uint8 with a mean.
        """
        super().__init__(recipe)
        check_recipe(recipe)
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
        return self.run_pixels(pictures, target, mark)

    def run_pixels(self, pictures: Sequence[NDArray[np.uint8]], target: Target, mark: Mark) -> list[Geometry]:
        """Resize, crop and normalise decoded pictures, uint8 (height, width, 3) in BGR."""
        # The kernels check no bounds. They write bits, of whatever type.
        buffer = only_buffer(self.recipe, target, len(pictures))
        rows = buffer.reshape(len(buffer), -1).view(self._bits)
        fits = []
        for picture, row in zip(pictures, rows, strict=False):
            where = fit(self.recipe, picture.shape[1], picture.shape[0])
            self._fill(np.ascontiguousarray(picture), where, row)
            fits.append(where)
        mark("preprocess")
        return [where.geometry for where in fits]

    def close(self) -> None:
        """Give back the pixels of the largest batch."""
        self._pixels = np.empty(0, np.uint8)

    def _decode(self, encoded: Sequence[bytes]) -> list[NDArray[np.uint8]]:
        """Pixels of each file; those of usual JPEGs lie one after the other in the buffer, until the next call."""
        shapes = [_plain_jpeg(data) for data in encoded]
        needed = sum(3 * height * width for height, width in filter(None, shapes))
        if len(self._pixels) < needed:
            self._pixels = np.empty(needed, np.uint8)
        pictures, begin = [], 0
        for position, (data, shape) in enumerate(zip(encoded, shapes, strict=True)):
            end = begin + (3 * shape[0] * shape[1] if shape else 0)
            try:
                pictures.append(_decode_jpeg(data, self._pixels[begin:end]) if shape else decode(data))
            except ValueError as error:
                raise BadPicture(position, error) from error
            begin = end
        return pictures

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


def _decode_jpeg(data: bytes, memory: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Pixels of a JPEG, in ``memory`` where libjpeg-turbo finds no fault. Raises ``ValueError`` for damage."""
    try:
        pixels: NDArray[np.uint8] = simplejpeg.decode_jpeg(data, "BGR", buffer=memory)
        return pixels
    except ValueError:  # damaged, or a kind that only OpenCV reads
        check(data)
        return decode(data)


def _plain_jpeg(data: bytes) -> tuple[int, int] | None:
    """Height and width of a JPEG that libjpeg-turbo decodes as OpenCV would; None for anything else."""
    if not data.startswith(JPEG_START) or _may_be_rotated(data):
        return None
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError:
        return None
    return (height, width) if colours in ("YCbCr", "Gray") and height * width <= _MAX_PIXELS else None


def _may_be_rotated(data: bytes) -> bool:
    """Whether EXIF might say that the picture is not upright: OpenCV decides. In doubt, yes."""
    at = 2
    while data[at : at + 1] == b"\xff":
        kind = data[at + 1]
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if kind == 0xE1 and data[at + 4 : at + 10] == b"Exif\0\0":
            tags = _ORIENTATION.get(data[at + 10 : at + 12])
            if tags is None or any(entry != tags[1] for entry in tags[0].findall(data[at + 12 : end])):
                return True
        if kind == 0xDA:
            return False
        at = end
    return True
