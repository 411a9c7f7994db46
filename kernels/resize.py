"""Batches of pictures for the resize kernel: what it is told of each picture, and its launch.

The rules of the resize, and the arithmetic behind each ``Path``, are in resize.cu; Pillow's are in resample.cu.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.device import Argument, Buffer, Device, Growing
from kernels.normalize import Output, check_count, check_memory, check_target
from kernels.placement import INTERPOLATIONS, SUPPORTS, Interpolation, Place
from kernels.resample import Resample
from plugins.base import Closing

_PLACED = (
    *("width", "height", "box_left", "box_top", "box_width", "box_height"),
    *("resized_width", "resized_height", "crop_left", "crop_top"),
)
PICTURE = np.dtype(
    [
        ("pixels", np.uint64),
        ("pitch", np.int64),
        ("scale_x", np.float64),
        ("scale_y", np.float64),
        *((name, np.int32) for name in (*_PLACED, "path", "pad_level")),
    ]
)
"""One picture, as resize.cu's ``struct Picture``: ``pixels`` is the address of uint8 HWC, ``pitch`` bytes from row to
row; cut ``box_*`` out, resize that to ``resized_*`` with ``scale_*`` source pixels per target pixel, keep what begins
at ``crop_*``. What the output has beyond the resized box is ``pad_level``; ``NO_PADDING``: nothing may be."""

NO_PADDING = -1

MAX_COLUMNS = 224
MAX_ROWS = 16
"""Largest tile of a block, in output pixels: as in resize.cu."""
_ENOUGH_BLOCKS = 1024
"""Blocks that keep a large GPU busy; with fewer, tiles become lower, though more rows are then read by two of them."""
_WARP = 32


class Path(IntEnum):
    """Which arithmetic a picture takes, as in resize_taps.cuh."""

    AREA = 0
    BLOCK_MEAN = 1
    AREA_LINEAR = 2
    LINEAR = 3
    CUBIC = 4
    PILLOW_BILINEAR = 5
    PILLOW_BICUBIC = 6
    PILLOW_LANCZOS = 7


def choose_path(interpolation: Interpolation, scale_x: float, scale_y: float) -> Path:
    """OpenCV's choice: area means area only where both axes shrink, and linear is area where both halve exactly.

    Pillow's filters are paths of their own.
    """
    if interpolation in SUPPORTS:
        return Path[interpolation.upper().replace("-", "_")]
    if interpolation == "cubic":
        return Path.CUBIC
    if interpolation == "area" and not (scale_x >= 1 and scale_y >= 1):
        return Path.AREA_LINEAR
    if interpolation == "linear" and not scale_x == scale_y == 2:
        return Path.LINEAR
    return Path.BLOCK_MEAN if scale_x.is_integer() and scale_y.is_integer() else Path.AREA


def describe(
    device: Device,
    memory: Buffer,
    where: Place,
    interpolation: Interpolation,
    *,
    offset: int = 0,
    pitch: int | None = None,
    pad_level: int = NO_PADDING,
) -> NDArray[Any]:
    """One picture in ``memory``, ``offset`` bytes from its start, as an array of shape () and dtype ``PICTURE``.

    ``pitch`` is in bytes; None: rows follow each other. Raises ``ValueError`` for memory of another device or too small
    for the picture, a pitch smaller than a row, a box that is not inside, and a crop that is not, unless ``pad_level``
    (0 to 255) says what is beyond.
    """
    if interpolation not in INTERPOLATIONS:
        raise ValueError(f"interpolation is {interpolation}, expected {', '.join(INTERPOLATIONS)}")
    row = 3 * where.width
    pitch = row if pitch is None else pitch
    # The rounding of OpenCV's two divisions decides the path: 1 / (1 / 49) is not 49.
    scale_x, scale_y = (
        1.0 / (target / source) if source > 0 and target > 0 else 0.0
        for source, target in ((where.box_width, where.resized_width), (where.box_height, where.resized_height))
    )
    picture = np.zeros((), PICTURE)
    for name in _PLACED:
        picture[name] = getattr(where, name)
    picture["pixels"] = memory.address + offset
    picture["pitch"] = pitch
    picture["scale_x"], picture["scale_y"] = scale_x, scale_y
    picture["path"] = choose_path(interpolation, scale_x, scale_y)
    picture["pad_level"] = pad_level
    check_pictures(picture[None], where.size)
    if offset < 0:
        raise ValueError(f"a picture begins {-offset} bytes before its buffer")
    check_memory(device, memory, offset + (where.height - 1) * pitch + row, f"the buffer of a picture {_size(picture)}")
    return picture


def check_pictures(pictures: NDArray[Any], size: int) -> None:
    """Raise ``ValueError``, with the position of the first, for pictures that contradict themselves."""
    if pictures.dtype != PICTURE or pictures.ndim != 1:
        raise ValueError(f"pictures are {pictures.dtype} {pictures.shape}, expected a row of PICTURE")
    names = ("pitch", "width", "height", "box_left", "box_top", "box_width", "box_height")
    pitch, width, height, left, top, box_width, box_height = (pictures[name].astype(np.int64) for name in names)
    resized = pictures["resized_width"].astype(np.int64), pictures["resized_height"].astype(np.int64)
    crop_left, crop_top = pictures["crop_left"].astype(np.int64), pictures["crop_top"].astype(np.int64)
    pad_level = pictures["pad_level"]
    for wrong, what in (
        ((width < 1) | (height < 1), "no pixels, expected at least 1 x 1"),
        (pitch < 3 * width, "a pitch smaller than its row, expected at least 3 bytes a pixel"),
        (
            (left < 0)
            | (top < 0)
            | (box_width < 1)
            | (box_height < 1)
            | (left + box_width > width)
            | (top + box_height > height),
            "a box that is not inside it",
        ),
        ((resized[0] < 1) | (resized[1] < 1), "a resized size of no pixels, expected at least 1 x 1"),
        (
            (pad_level == NO_PADDING)
            & ((crop_left < 0) | (crop_top < 0) | (crop_left + size > resized[0]) | (crop_top + size > resized[1])),
            f"a crop of {size} x {size} that is not inside the resized box, and no level of padding",
        ),
        (
            (crop_left + size < 1) | (crop_top + size < 1) | (crop_left >= resized[0]) | (crop_top >= resized[1]),
            f"a crop of {size} x {size} that has nothing of the resized box",
        ),
        ((pad_level < NO_PADDING) | (pad_level > 255), "a level of padding that is none, expected 0 to 255"),
        ((pictures["path"] < 0) | (pictures["path"] >= len(Path)), "an unknown path"),
    ):
        if wrong.any():
            first = int(np.argmax(wrong))
            raise ValueError(f"picture {first} of {len(pictures)}, {_size(pictures[first])}, has {what}")


def _size(picture: Any) -> str:
    return f"{picture['width']} x {picture['height']} with a pitch of {picture['pitch']} bytes"


def tile_of(size: int, n: int) -> tuple[int, int]:
    """Columns and rows of a block's tile for ``n`` outputs of ``size`` x ``size``: equal parts, in whole warps."""
    parts = -(-size // MAX_COLUMNS)
    columns = -(-size // (parts * _WARP)) * _WARP
    rows = MAX_ROWS
    while rows > 2 and n * parts * -(-size // rows) < _ENOUGH_BLOCKS:
        rows //= 2
    return columns, rows


class Resize(Closing):
    """Pictures to the model's input in one launch, or in three by Pillow's filters.

    Holds its table and the last batch's descriptions on the device.
    """

    def __init__(self, device: Device, output: Output, tile_rows: int | None = None) -> None:
        """``tile_rows``: output rows of a block, for measuring; None: what fits the batch (``tile_of``)."""
        if tile_rows is not None and not 1 <= tile_rows <= MAX_ROWS:
            raise ValueError(f"tile_rows is {tile_rows}, expected 1 to {MAX_ROWS}")
        self._device, self._output, self._tile_rows = device, output, tile_rows
        self._table = device.upload(output.table())
        self._resample = Resample(device, output, self._table)
        self._is_pillow = False
        self._memory = Growing(device)
        self._pictures: Buffer | None = None
        self._n = 0

    def run(self, pictures: NDArray[Any], target: Buffer, stream: int | None = None) -> None:
        """Write one sample for each of ``pictures``, of dtype ``PICTURE``, into ``target``.

        One stream at a time: the next call overwrites what this one reads. Raises ``ValueError`` before anything runs.
        """
        self.load(pictures, stream)
        self.launch(target, stream)

    def load(self, pictures: NDArray[Any], stream: int | None = None) -> None:
        """Bring what describes ``pictures`` to the device: the first half of ``run``. Raises ``ValueError``."""
        check_count(len(pictures))
        check_pictures(pictures, self._output.size)
        by_pillow = pictures["path"] > Path.CUBIC
        self._is_pillow = bool(by_pillow[0])
        if (by_pillow != self._is_pillow).any():
            raise ValueError(
                "pictures are resized by OpenCV's rules and by Pillow's in one batch, expected one of them"
            )
        self._pictures = self._memory.of(pictures.nbytes, stream)
        self._device.upload(pictures, self._pictures, stream)
        if self._is_pillow:
            # A filter's support is its place behind the last of OpenCV's rules: 1, 2, 3.
            self._resample.load(pictures, (pictures["path"] - Path.CUBIC).astype(np.float64), stream)
        self._n = len(pictures)

    def launch(self, target: Buffer, stream: int | None = None) -> None:
        """Write one sample for each of the pictures last loaded into ``target``: the second half, any number of times.

        Raises ``ValueError`` where none were loaded, and for a target that does not fit.
        """
        output, n = self._output, self._n
        check_target(self._device, target, output, n)
        assert self._pictures is not None
        if self._is_pillow:
            self._resample.launch(self._pictures, n, target, stream)
            return
        columns, rows = tile_of(output.size, n)
        rows = self._tile_rows or rows
        grid = (-(-output.size // rows), -(-output.size // columns), n)
        numbers = map(np.int32, (output.size, rows, output.layout == "NCHW", output.swap))
        args: tuple[Argument, ...] = (self._pictures, target, np.int64(output.stride), self._table, *numbers)
        self._device.launch("resize", f"resize_{output.suffix}", grid, (columns, 1, 1), args, stream)

    def close(self) -> None:
        """Free what it holds on the device."""
        self._resample.close()
        self._table.free()
        self._memory.close()
