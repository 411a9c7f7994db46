"""OpenCV on the CPU: the reference way, and the one every other is measured against."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from kernels.placement import SUPPORTS
from plugins.packages import is_installed
from preprocess.base import BadPicture, Geometry, Mark, Preprocessor, Recipe, Target, only_buffer
from preprocess.oracle import Fit, check_recipe, fit, resize_fit
from preprocess.parts.decode import decode

# Lanes and workers are the parallelism; OpenCV's own threads would compete with them.
cv2.setNumThreads(1)

INTERPOLATIONS = {"area": cv2.INTER_AREA, "linear": cv2.INTER_LINEAR, "cubic": cv2.INTER_CUBIC}

MAX_ASPECT = 16
"""Above this ratio of the resized picture's sides only what the crop keeps is computed, in NumPy. What is not cropped
is computed as it is, whatever its aspect.
"""


BY_NUMPY = (
    "pictures were resized by NumPy, which is slow: OpenCV has none of Pillow's filters, and Numba is not installed"
)
"""What ``OpenCV.counts`` calls them."""


def decode_at(position: int, data: bytes) -> NDArray[np.uint8]:
    """Decode the picture at ``position`` of a batch: uint8 (height, width, 3), BGR. Raises ``BadPicture``."""
    try:
        return decode(data)
    except ValueError as error:
        raise BadPicture(position, error) from error


class OpenCV(Preprocessor):
    """Decode, resize and crop with OpenCV, normalise by table.

    Bit for bit what OpenCV's calls in a row give (``imread``, ``resize``, ``astype(float32) - mean``), except for
    pictures more than ``MAX_ASPECT`` times as long as wide, which are equal to that within rounding. OpenCV has none of
    Pillow's filters: they are computed by the kernel of ``fused`` where Numba is installed, else by NumPy, and equal to
    Pillow to the bit either way.
    """

    name = "opencv"
    stages = ("decode", "resize", "normalize")

    def __init__(self, recipe: Recipe) -> None:
        """Raises ``ValueError`` for a recipe that contradicts itself, such as uint8 with a mean."""
        super().__init__(recipe)
        check_recipe(recipe)
        size = recipe.size
        self._nchw = recipe.layout == "NCHW"
        self._rgb = recipe.colour_order == "RGB"
        self._is_pillow = recipe.interpolation in SUPPORTS
        self._filtered: Callable[[NDArray[np.uint8], Fit], NDArray[np.uint8]] | None = None
        if self._is_pillow and is_installed("numba"):
            from preprocess.parts.pillow_compiled import Filtered

            self._filtered = Filtered(recipe.interpolation, size)
        self._by_numpy = 0
        self._squares = np.empty((0, size, size, 3), np.uint8)
        self._ordered = np.empty(recipe.sample_shape, np.uint8)
        # A pixel has 256 values, so the formula is worked out once for each of them: exact by construction, one pass
        # over memory instead of three, and as fast for float16.
        values = np.arange(256, dtype=np.float32)[:, None]
        mean, std = np.asarray(recipe.mean, np.float32), np.asarray(recipe.std, np.float32)
        table = ((values - mean) / std).astype(recipe.dtype)
        self._tables = np.ascontiguousarray(table.T if self._nchw else table[None])

    @classmethod
    def version(cls) -> str:
        """OpenCV's version."""
        return cv2.__version__

    def counts(self) -> Mapping[str, int]:
        """Pictures so far for which nothing quicker than NumPy was there."""
        return {BY_NUMPY: self._by_numpy}

    def run(self, encoded: Sequence[bytes], target: Target, mark: Mark) -> list[Geometry]:
        """Turn ``encoded`` (whole files) into the first ``len(encoded)`` rows of the target's only buffer.

        Raises ``BadPicture`` for one that cannot be decoded and ``ValueError`` for a buffer that does not fit.
        """
        # OpenCV writes elsewhere, without a word, if the buffer does not fit.
        only_buffer(self.recipe, target, len(encoded))
        pictures = [decode_at(position, data) for position, data in enumerate(encoded)]
        mark("decode")
        return self.run_pixels(pictures, target, mark)

    def run_pixels(self, pictures: Sequence[NDArray[np.uint8]], target: Target, mark: Mark) -> list[Geometry]:
        """Resize, crop and normalise decoded pictures, uint8 (height, width, 3) in BGR."""
        buffer = only_buffer(self.recipe, target, len(pictures))
        if len(self._squares) < len(pictures):
            self._squares = np.empty((len(pictures), *self._squares.shape[1:]), np.uint8)
        fits = [fit(self.recipe, picture.shape[1], picture.shape[0]) for picture in pictures]
        for picture, where, square in zip(pictures, fits, self._squares, strict=False):
            self._resize(picture, where, square)
        mark("resize")
        for square, row in zip(self._squares[: len(pictures)], buffer, strict=False):
            self._normalize(square, row)
        mark("normalize")
        return [where.geometry for where in fits]

    def _resize(self, picture: NDArray[np.uint8], where: Fit, square: NDArray[np.uint8]) -> None:
        """The recipe's geometric part of one picture, into ``square``: uint8 (size, size, 3), BGR.

        The square is contiguous, which the crop is not: splitting the channels of rows that are not aligned is several
        times slower than the copy.
        """
        size = (where.resized_width, where.resized_height)
        is_long = max(size) > MAX_ASPECT * max(min(size), where.size)
        if not self._filtered and (self._is_pillow or is_long):
            square[...] = resize_fit(picture, where, self.recipe.interpolation, self.recipe.pad_level)
            self._by_numpy += self._is_pillow
            return
        if where.is_padded:
            square[...] = self.recipe.pad_level
        if self._filtered:
            kept = self._filtered(picture, where)[..., :3]
        else:
            method = INTERPOLATIONS[self.recipe.interpolation]
            kept = where.crop(cv2.resize(where.cut(picture), size, interpolation=method))
        square[where.rows, where.columns] = kept

    def _normalize(self, square: NDArray[np.uint8], row: NDArray[Any]) -> None:
        """Colour order, layout, mean and std of one picture, into ``row`` of the target."""
        ordered = row if row.dtype == np.uint8 else self._ordered
        if self._nchw:
            planes = [ordered[2], ordered[1], ordered[0]] if self._rgb else [ordered[0], ordered[1], ordered[2]]
            cv2.split(square, planes)
        elif self._rgb:
            cv2.cvtColor(square, cv2.COLOR_BGR2RGB, dst=ordered)
        else:
            np.copyto(ordered, square)
        if ordered is row:
            return
        if self._nchw:
            for plane, table, output in zip(ordered, self._tables, row, strict=True):
                cv2.LUT(plane, table, dst=output)
        else:
            cv2.LUT(ordered, self._tables, dst=row)
