"""Pillow's filters, compiled when they are first wanted: once per process, and kept on disk between processes."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numba import types
from numpy.typing import NDArray

from kernels.placement import SUPPORTS, Interpolation, Place, rows_first
from plugins.machine_code import code_folder, compile_for
from preprocess.parts import fused_kernels, pillow, pillow_kernels, vectors

_LOCK = threading.Lock()


class Filtered:
    """The resize of pictures by one of Pillow's filters, equal to it to the bit. Used by one thread at a time."""

    def __init__(self, interpolation: Interpolation, size: int) -> None:
        """For squares of ``size`` pixels a side, whose levels it holds, with a fourth byte to each pixel."""
        self._support = SUPPORTS[interpolation]
        self._memory = np.empty(4 * size * size, np.uint8)
        with _LOCK:
            self._window, self._resample = _compiled()

    def __call__(self, pixels: NDArray[np.uint8], where: Place) -> NDArray[np.uint8]:
        """What the picture, uint8 (height, width, 3), covers of its square: uint8 (rows, columns, 4), of which the last
        is nobody's. Valid until the next call.
        """
        across, down = where.axes
        columns, rows = across[-1], down[-1]
        windows = [part for axis in (across, down) for part in self._window(*axis, self._support)]
        order = rows_first(where.box_width, where.box_height, where.resized_width, where.resized_height)
        levels = self._memory[: 4 * rows * columns].reshape(rows, 4 * columns)
        self._resample(np.ascontiguousarray(pixels), *windows, order, levels)
        return levels.reshape(rows, columns, 4)


@functools.cache
def _compiled() -> tuple[Callable[..., fused_kernels.Window], Callable[..., None]]:
    others = (vectors, fused_kernels, pillow)
    folder = code_folder("pillow", "".join(Path(str(each.__file__)).read_text("utf-8") for each in others))
    axis, whole = (types.int64,) * 5, types.uint32[::1]
    windows = (whole, whole, types.int32[:, ::1])
    # A read-only argument takes writable arrays too.
    pixels = types.Array(types.uint8, 3, "C", readonly=True)
    resample = (pixels, *windows, *windows, types.boolean, types.uint8[:, ::1])
    return (
        compile_for(pillow_kernels.filter_window, (*axis, types.float64), folder, options=pillow_kernels.EXACTLY),
        compile_for(pillow_kernels.resample, resample, folder, nogil=True, options=fused_kernels.OPTIONS),
    )
