"""Leaves preprocessing to a server: pictures are handed on as they are, their files or their pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from kernels.device import SENT_PLACES
from preprocess.base import BadPicture, Geometry, Mark, Preprocessor, Target
from preprocess.oracle import fit
from preprocess.parts.decode import decode
from preprocess.parts.header import read_header
from preprocess.parts.jpeg import may_be_rotated


class Server(Preprocessor):
    """Puts each picture into the target's only buffer, which has one object a row: a file's bytes, or RGB pixels.

    The geometry is the recipe's for the picture's size, as the server is taken to preprocess by the same.
    """

    name = "server"
    places = SENT_PLACES
    computes_pixels = False

    @classmethod
    def version(cls) -> str:
        """There is no library to have a version: what the server has, it attests."""
        return "none"

    def run(self, encoded: Sequence[bytes], target: Target, mark: Mark) -> list[Geometry]:
        """Hand on files; where the server takes pixels, decode here. Raises ``BadPicture`` for one that is none."""
        if target.place == "pixels":
            return self.run_pixels([_pixels(position, data) for position, data in enumerate(encoded)], target, mark)
        buffer = _buffer(target, "files")
        buffer[: len(encoded)] = encoded
        sizes = [_size(position, data) for position, data in enumerate(encoded)]
        mark("preprocess")
        return [fit(self.recipe, *size).geometry for size in sizes]

    def run_pixels(self, pictures: Sequence[NDArray[np.uint8]], target: Target, mark: Mark) -> list[Geometry]:
        """Hand on pixels. Raises ``ValueError`` where the server takes files."""
        buffer = _buffer(target, "pixels")
        for row, picture in enumerate(pictures):
            buffer[row] = cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)
        mark("preprocess")
        return [fit(self.recipe, each.shape[1], each.shape[0]).geometry for each in pictures]


def _buffer(target: Target, place: str) -> NDArray[Any]:
    """The target's only buffer, of objects. Raises ``ValueError`` for one that takes something else than is there."""
    if target.place != place:
        raise ValueError(f"the server takes {target.place}, and there are {place}: choose another --boundary")
    [buffer] = target.buffers.values()
    found: NDArray[Any] = buffer
    return found


def _pixels(position: int, data: bytes) -> NDArray[np.uint8]:
    try:
        return decode(data)
    except ValueError as error:
        raise BadPicture(position, error) from error


def _size(position: int, data: bytes) -> tuple[int, int]:
    """Width and height of a picture as it is shown: by its header, unless that may say that it lies on its side."""
    header = read_header(data)
    if header is None or may_be_rotated(data):
        pixels = _pixels(position, data)
        return pixels.shape[1], pixels.shape[0]
    return header.width, header.height
