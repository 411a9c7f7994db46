"""Which pixels of a picture go where."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

Interpolation = Literal["area", "linear", "cubic", "pillow-bilinear", "pillow-bicubic", "pillow-lanczos"]
"""How pictures are resized: as OpenCV does it, or as Pillow does, which smooths where it shrinks."""
INTERPOLATIONS: tuple[Interpolation, ...] = get_args(Interpolation)
SUPPORTS: dict[Interpolation, float] = {"pillow-bilinear": 1.0, "pillow-bicubic": 2.0, "pillow-lanczos": 3.0}
"""Pillow's filters, and how far from its centre each of them weighs anything, in output pixels where it shrinks."""


def rows_first(width: Any, height: Any, to_width: Any, to_height: Any) -> Any:
    """Whether Pillow's resize works out rows before columns: that rounds to bytes in between, so the order shows.

    It does so since version 13, where the height shrinks, and by more than twice as many pixels as the width. Takes
    whole numbers, or arrays of them.
    """
    return (height > to_height) & (height - to_height > 2 * (width - to_width))


@dataclass(frozen=True, slots=True)
class Place:
    """The geometric part of preprocessing one picture, in whole pixels.

    Cut ``box_*`` out of the picture, resize it to ``resized_*``, keep the ``size`` square at ``crop_*`` of that. Where
    the square reaches beyond what was resized (``crop_*`` below 0, or too little behind), it is padding.
    """

    width: int
    height: int
    box_left: int
    box_top: int
    box_width: int
    box_height: int
    resized_width: int
    resized_height: int
    crop_left: int
    crop_top: int
    size: int

    def cut(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The box of the picture that is resized (a view)."""
        return pixels[self.box_top : self.box_top + self.box_height, self.box_left : self.box_left + self.box_width]

    @property
    def rows(self) -> slice:
        """Rows of the square that the picture covers; the others are padding."""
        return slice(max(0, -self.crop_top), min(self.size, self.resized_height - self.crop_top))

    @property
    def columns(self) -> slice:
        """Columns of the square that the picture covers."""
        return slice(max(0, -self.crop_left), min(self.size, self.resized_width - self.crop_left))

    @property
    def is_padded(self) -> bool:
        """Whether the square reaches beyond the picture."""
        whole = slice(0, self.size)
        return (self.rows, self.columns) != (whole, whole)

    @property
    def axes(self) -> tuple[tuple[int, int, int, int, int], tuple[int, int, int, int, int]]:
        """What is asked for across and down: where the box begins, how many pixels it has and what they become, how
        many of these the square leaves out before the first one it keeps, and how many it keeps.
        """
        columns, rows = self.columns, self.rows
        left, top = max(0, self.crop_left), max(0, self.crop_top)
        across = (self.box_left, self.box_width, self.resized_width, left, columns.stop - columns.start)
        return across, (self.box_top, self.box_height, self.resized_height, top, rows.stop - rows.start)

    def crop(self, resized: NDArray[Any]) -> NDArray[Any]:
        """What the square keeps of the resized box (a view): ``rows`` x ``columns`` of it."""
        top, left = max(0, self.crop_top), max(0, self.crop_left)
        return resized[top : self.crop_top + self.size, left : self.crop_left + self.size]
