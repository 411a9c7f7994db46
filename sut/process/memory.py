"""The most memory that this process has held."""

from __future__ import annotations

import ctypes
import gc
from contextlib import suppress
from pathlib import Path

from sut.process.cgroup import bytes_told


def forget_peak() -> bool:
    """Count the peak of this process's memory anew (proc(5): 5 in clear_refs, Linux 4.0); False where that cannot be.

    What the heap keeps of earlier work is given back first: it would be in one process's peak and not in another's.
    """
    gc.collect()
    with suppress(AttributeError):  # not every C library has it
        ctypes.CDLL(None).malloc_trim(0)
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return False
    return True


def peak_bytes() -> int | None:
    """Peak resident memory of this process. (``ru_maxrss`` would count what its parent held when it was started.)"""
    return bytes_told(Path("/proc/self/status"), "VmHWM")
