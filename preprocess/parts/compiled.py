"""The compiled kernels, once per process, and kept on disk between processes."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from numba import types

from plugins.machine_code import code_folder, compile_for
from preprocess.parts import fused_kernels as source
from preprocess.parts import vectors

_LOCK = threading.Lock()
_compile = functools.partial(compile_for, options=source.OPTIONS)


@dataclass(frozen=True, slots=True)
class Kernels:
    """What ``preprocess/parts/fused_kernels.py`` defines under the same names, compiled."""

    area_window: Callable[..., source.Window]
    cubic_window: Callable[..., source.Window]
    pairs: Callable[..., source.Array]
    weigh: Callable[..., None]
    blend: Callable[..., None]
    pad: Callable[..., None]
    lay_out: Callable[..., None]


def kernels(bits: str) -> Kernels:
    """The kernels that write values of the unsigned type ``bits`` (``uint8``, ``uint16``, ``uint32``).

    Compiling takes some seconds, reading the cache a fraction of one. The cache is ``$NUMBA_CACHE_DIR``, else the
    folder for made files; where that cannot be used, everything is compiled in each process.
    """
    with _LOCK:
        return _kernels(bits)


@functools.cache
def _kernels(bits: str) -> Kernels:
    folder = code_folder(bits, Path(vectors.__file__).read_text("utf-8"))
    whole, values = types.int64, getattr(types, bits)
    axis = (whole, whole, whole, whole, whole)
    windows = (types.uint32[::1], types.uint32[::1], types.float32[:, ::1])
    pairs = types.int64[:, ::1]
    # A read-only argument takes writable arrays too.
    pixels = types.Array(types.uint8, 3, "C", readonly=True)
    out = (values[:, ::1], types.int64[::1], values[::1])
    end = (types.float32[:, ::1], *out, types.float32[::1])
    return Kernels(
        area_window=_compile(source.area_window, axis, folder),
        cubic_window=_compile(source.cubic_window, axis, folder),
        pairs=_compile(source.pairs, (*axis, types.boolean), folder),
        weigh=_compile(source.weigh, (pixels, *windows, *windows, types.float32, *end), folder, nogil=True),
        blend=_compile(source.blend, (pixels, pairs, pairs, *end), folder, nogil=True),
        pad=_compile(source.pad, (*axis, whole, *out), folder, nogil=True),
        lay_out=_compile(source.lay_out, (types.uint8[:, ::1], *end), folder, nogil=True),
    )
