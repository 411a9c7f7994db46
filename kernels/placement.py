"""Which pixels of a picture go where."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

Interpolation = Literal["area", "linear", "cubic", "pillow-bilinear", "pillow-bicubic", "pillow-lanczos"]
"""How pictures are resized: as OpenCV does it, or as Pillow does, which smooths where it shrinks."""
INTERPOLATIONS: tuple[Interpolation, ...] = get_args(Interpolation)


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

    def crop(self, resized: NDArray[Any]) -> NDArray[Any]:
        """What the square keeps of the resized box (a view): ``rows`` x ``columns`` of it."""
        top, left = max(0, self.crop_top), max(0, self.crop_left)
        return resized[top : self.crop_top + self.size, left : self.crop_left + self.size]
