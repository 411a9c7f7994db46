"""The compiled kernels, once per process, and kept on disk between processes."""

from __future__ import annotations

import functools
import hashlib
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import llvmlite.binding
import numba
from numba import types

from preprocess.parts import fused_kernels as source

_LOCK = threading.Lock()


@dataclass(frozen=True, slots=True)
class Kernels:
    """What ``preprocess/parts/fused_kernels.py`` defines under the same names, compiled."""

    area_window: Callable[..., source.Window]
    cubic_window: Callable[..., source.Window]
    pairs: Callable[..., source.Array]
    weigh: Callable[..., None]
    blend: Callable[..., None]


def kernels(bits: str) -> Kernels:
    """The kernels that write values of the unsigned type ``bits`` (``uint8``, ``uint16``, ``uint32``).

    Compiling takes some seconds, reading the cache a fraction of one. The cache is ``$NUMBA_CACHE_DIR``, else the
    folder for made files; where that cannot be used, everything is compiled in each process.
    """
    with _LOCK:
        return _kernels(bits)


@functools.cache
def _kernels(bits: str) -> Kernels:
    folder = _folder(bits)
    whole, values = types.int64, getattr(types, bits)
    axis = (whole, whole, whole, whole, whole)
    windows = (types.uint32[::1], types.uint32[::1], types.float32[:, ::1])
    pairs = types.int64[:, ::1]
    # A read-only argument takes writable arrays too.
    pixels = types.Array(types.uint8, 3, "C", readonly=True)
    end = (types.float32[:, ::1], values[:, ::1], types.int64[::1], values[::1], types.float32[::1])
    return Kernels(
        area_window=_compile(source.area_window, axis, folder),
        cubic_window=_compile(source.cubic_window, axis, folder),
        pairs=_compile(source.pairs, (*axis, types.boolean), folder),
        weigh=_compile(source.weigh, (pixels, *windows, *windows, types.float32, *end), folder, nogil=True),
        blend=_compile(source.blend, (pixels, pairs, pairs, *end), folder, nogil=True),
    )


def _compile(
    function: Callable[..., Any], signature: tuple[Any, ...], folder: Path | None, nogil: bool = False
) -> Callable[..., Any]:
    """``function`` compiled for one signature. The cache may fail in many ways, none of which is the user's affair.

    What takes only a microsecond or two keeps the GIL: giving it up and waiting for it again takes longer.
    """
    if folder is not None:
        try:
            dispatcher = numba.njit(nogil=nogil, **source.OPTIONS)(function)
            _keep_in(dispatcher, folder)
            dispatcher.compile(signature)
            dispatcher.disable_compile()
            return dispatcher  # type: ignore[no-any-return]
        except Exception:  # full disk, no rights, a file cut short: any error of the code itself comes again below
            pass
    return numba.njit(signature, nogil=nogil, **source.OPTIONS)(function)  # type: ignore[no-any-return]


def _keep_in(dispatcher: Any, folder: Path) -> None:
    """Let Numba keep ``dispatcher`` in ``folder``; Numba takes the place from a global that is the user's own."""
    before = numba.config.CACHE_DIR
    numba.config.CACHE_DIR = str(folder)
    try:
        dispatcher.enable_caching()
    finally:
        numba.config.CACHE_DIR = before
    if not Path(dispatcher.stats.cache_path).is_relative_to(folder):
        raise OSError(f"{folder} cannot be written")


def _folder(bits: str) -> Path | None:
    """A folder of its own for each processor, Numba and type.

    Numba keeps one index per function. Two processes that add different entries to it at the same time can leave one
    that names the other's code; with one entry to an index, both write the same.
    """
    cpu = llvmlite.binding.get_host_cpu_name()
    features = llvmlite.binding.get_host_cpu_features().flatten()
    digest = hashlib.sha256(f"{numba.__version__} {cpu} {features}".encode()).hexdigest()[:12]
    if not numba.config.CACHE_DIR:
        return None
    return Path(numba.config.CACHE_DIR).absolute() / f"{cpu}-{digest}-{bits}"
