"""The CPU time of other processes, by the kernel's own count."""

from __future__ import annotations

import os
import time

from sut.process.cpu import cpu_ns_of


def test_the_cpu_time_of_a_process_is_known_as_long_as_it_is_there() -> None:
    begin = time.process_time_ns()
    while time.process_time_ns() < begin + 20_000_000:
        pass

    found = cpu_ns_of(os.getpid())

    assert begin + 20_000_000 <= found <= time.process_time_ns()
    assert cpu_ns_of(2**22 + 1) == 0
