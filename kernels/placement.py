"""Which pixels of a picture go where."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Place:
    """The geometric part of preprocessing one picture, in whole pixels.

    Cut ``box_*`` out of the picture, resize it to ``resized_*``, keep the ``size`` square at ``crop_*`` of that.
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

    def crop(self, resized: NDArray[Any]) -> NDArray[Any]:
        """The ``size`` square of the resized box (a view)."""
        return resized[self.crop_top : self.crop_top + self.size, self.crop_left : self.crop_left + self.size]
