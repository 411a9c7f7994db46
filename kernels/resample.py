"""Pillow's resize of batches of pictures: how much memory its two passes need, and the launches.

The arithmetic is in resample.cu.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.device import Argument, Buffer, Device, Growing
from kernels.normalize import Output
from kernels.placement import rows_first
from plugins.base import Closing

THREADS = 128
"""Threads of a block: as in resample.cu."""

PLAN = np.dtype(
    [
        ("windows", np.int64),
        ("between", np.int64),
        *((name, np.int32) for name in ("columns_taps", "rows_taps", "low", "extent", "rows_first", "reserved")),
    ]
)
"""Where a picture has its windows and its pixels between the passes, as resample.cu's ``struct Plan``."""


def plan(pictures: NDArray[Any], supports: NDArray[np.float64], size: int) -> tuple[NDArray[Any], int, NDArray[Any]]:
    """Plans of dtype ``PLAN`` for ``pictures``, of filters with these ``supports``; how many ints all windows have; and
    how many pixels each picture has between the passes.
    """
    plans = np.zeros(len(pictures), PLAN)
    wide, high = (_Axis(pictures, supports, size, *names) for names in (_COLUMNS, _ROWS))
    turned = rows_first(wide.source, high.source, wide.target, high.target)
    plans["columns_taps"], plans["rows_taps"], plans["rows_first"] = wide.taps, high.taps, turned
    plans["low"] = np.where(turned, wide.low, high.low)
    plans["extent"] = np.where(turned, wide.end - wide.low, high.end - high.low)
    pixels = plans["extent"].astype(np.int64) * np.where(turned, high.count, wide.count)
    ints = wide.count * (2 + wide.taps) + high.count * (2 + high.taps)
    plans["windows"], plans["between"] = np.cumsum(ints) - ints, 3 * (np.cumsum(pixels) - pixels)
    return plans, int(ints.sum()), pixels


_COLUMNS = ("box_width", "resized_width", "crop_left")
_ROWS = ("box_height", "resized_height", "crop_top")


class _Axis:
    """One axis of each picture, int64: its box's pixels, what they become, how many of these the output keeps; taps of
    the longest window; the source pixels that all windows together have.
    """

    def __init__(
        self, pictures: NDArray[Any], supports: NDArray[np.float64], size: int, source: str, target: str, crop: str
    ) -> None:
        self.source, self.target = pictures[source].astype(np.int64), pictures[target].astype(np.int64)
        skipped = pictures[crop].astype(np.int64)
        first, last = np.maximum(skipped, 0), np.minimum(skipped + size, self.target) - 1
        self.count = last - first + 1
        scale = self.source / self.target
        reach = supports * np.maximum(scale, 1.0)
        self.taps = np.ceil(reach).astype(np.int64) * 2 + 1
        self.low = np.maximum(((first + 0.5) * scale - reach + 0.5).astype(np.int64), 0)
        self.end = np.minimum(((last + 0.5) * scale + reach + 0.5).astype(np.int64), self.source)


class Resample(Closing):
    """Pictures to the model's input in three launches; holds the last batch's plans, windows and first pass there."""

    def __init__(self, device: Device, output: Output, table: Buffer) -> None:
        """``table`` is that of ``output``, on the device, and the caller's."""
        self._device, self._output, self._table = device, output, table
        self._memory = Growing(device), Growing(device), Growing(device)
        """For plans, windows, and what is between the passes."""
        self._loaded: tuple[Buffer, ...] = ()
        self._most = 0

    def load(self, pictures: NDArray[Any], supports: NDArray[np.float64], stream: int | None = None) -> None:
        """Bring to the device how ``pictures``, which have been checked, are resized by filters of ``supports``."""
        plans, ints, pixels = plan(pictures, supports, self._output.size)
        sizes = (plans.nbytes, 4 * ints, 3 * int(pixels.sum()))
        self._loaded = tuple(memory.of(nbytes, stream) for memory, nbytes in zip(self._memory, sizes, strict=True))
        self._device.upload(plans, self._loaded[0], stream)
        self._most = int(pixels.max())

    def launch(self, pictures: Buffer, n: int, target: Buffer, stream: int | None = None) -> None:
        """Write one sample for each of the ``n`` pictures last loaded, which ``pictures`` has, into ``target``."""
        output, size = self._output, np.int32(self._output.size)
        plans, windows, between = self._loaded
        told: tuple[Argument, ...] = (pictures, plans, windows)
        for entry, across, axes, args in (
            ("windows", output.size, 2, (*told, size)),
            ("first", self._most, 1, (*told, between, size)),
            (f"second_{output.suffix}", output.size**2, 1, (*told, between, target, *self._end())),
        ):
            grid = (-(-across // THREADS), axes, n)
            self._device.launch("resample", f"resample_{entry}", grid, (THREADS, 1, 1), args, stream)

    def _end(self) -> tuple[Argument, ...]:
        output = self._output
        numbers = (np.int32(each) for each in (output.size, output.layout == "NCHW", output.swap))
        return np.int64(output.stride), self._table, *numbers

    def close(self) -> None:
        """Free what it holds on the device, but for the table."""
        for memory in self._memory:
            memory.close()
