"""Where made files are kept: compiled kernels, and all that the layers above make once."""

from __future__ import annotations

import os
from pathlib import Path


def cache_dir() -> Path:
    """The folder for made files: $SUT_CACHE_DIR, else loadgen-sut in $XDG_CACHE_HOME, else in ~/.cache.

    As the XDG base directory specification says, a relative $XDG_CACHE_HOME does not count. The folder need not exist.
    Raises ``ValueError`` where the home folder is needed and not known.
    """
    try:
        if chosen := os.environ.get("SUT_CACHE_DIR"):
            return Path(chosen).expanduser().absolute()
        shared = Path(os.environ.get("XDG_CACHE_HOME", ""))
        return (shared if shared.is_absolute() else Path.home() / ".cache") / "loadgen-sut"
    except RuntimeError as error:
        raise ValueError(f"no cache folder: {error}; set SUT_CACHE_DIR to a folder") from error
