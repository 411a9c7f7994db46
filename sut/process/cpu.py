"""CPU time of other processes."""

from __future__ import annotations

import time


def cpu_ns_of(process: int) -> int:
    """CPU time of another process in ns, all of its threads together; 0 where it has ended.

    Its clock is numbered as clock_getcpuclockid(3) has it.
    """
    try:
        return time.clock_gettime_ns((~process << 3) | 2)
    except OSError:
        return 0
