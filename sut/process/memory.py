"""The most memory that this process has held."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from sut.process.cgroup import bytes_told


def forget_peak() -> None:
    """Count the peak of this process's memory anew (proc(5): 5 in clear_refs, Linux 4.0)."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def peak_bytes() -> int | None:
    """Peak resident memory of this process. (``ru_maxrss`` would count what its parent held when it was started.)"""
    return bytes_told(Path("/proc/self/status"), "VmHWM")
