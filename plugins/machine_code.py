"""Functions that Numba compiles, kept on disk between processes."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import llvmlite.binding
import numba


def compile_for(
    function: Callable[..., Any],
    signature: tuple[Any, ...],
    folder: Path | None,
    nogil: bool = False,
    options: Mapping[str, Any] = {},
) -> Callable[..., Any]:
    """``function`` compiled for one signature, with ``options`` of Numba's.

    The cache in ``folder`` may fail in many ways, none of which is the user's affair. What takes only a microsecond or
    two keeps the GIL (``nogil`` False): giving it up and waiting for it again takes longer.
    """
    if folder is not None:
        try:
            dispatcher = numba.njit(nogil=nogil, **options)(function)
            _keep_in(dispatcher, folder)
            dispatcher.compile(signature)
            dispatcher.disable_compile()
            return dispatcher  # type: ignore[no-any-return]
        except Exception:  # full disk, no rights, a file cut short: any error of the code itself comes again below
            pass
    return numba.njit(signature, nogil=nogil, **options)(function)  # type: ignore[no-any-return]


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


def code_folder(kind: str, text: str = "") -> Path | None:
    """A folder in ``$NUMBA_CACHE_DIR`` for each processor, Numba and ``kind`` of signature; None where that is not set.

    ``text`` is that of modules which functions are compiled from, but for their own: Numba does not look at it.

    Numba keeps one index per function. Two processes that add different entries to it at the same time can leave one
    that names the other's code; with one entry to an index, both write the same.
    """
    cpu = llvmlite.binding.get_host_cpu_name()
    features = llvmlite.binding.get_host_cpu_features().flatten()
    digest = hashlib.sha256(f"{numba.__version__} {cpu} {features} {text}".encode()).hexdigest()[:12]
    root = os.environ.get("NUMBA_CACHE_DIR")  # Numba's own copy is of the moment when it was imported
    if not root:
        return None
    return Path(root).absolute() / f"{cpu}-{digest}-{kind}"
