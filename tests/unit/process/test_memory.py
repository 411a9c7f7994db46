"""The most memory that a process held, counted anew."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sut.process.cgroup import bytes_told
from sut.process.memory import forget_peak, peak_bytes


@pytest.fixture(autouse=True)
def _peak_begins_here() -> None:
    if not forget_peak():
        pytest.skip("this kernel does not forget peaks")


def test_what_is_gone_is_not_in_the_next_peak() -> None:
    before = peak_bytes() or 0
    np.ones(2**25)  # 256 MiB, gone at once
    with_it = peak_bytes() or 0

    forget_peak()

    assert with_it > before + 2**27
    assert (peak_bytes() or 0) < with_it - 2**27


def test_what_the_heap_keeps_of_earlier_work_is_given_back() -> None:
    small = [np.ones(7_000) for _ in range(2_000)]  # 112 MB of pieces too small to be mapped one by one
    last = small[-1]  # nothing below it goes back unasked
    small.clear()
    kept = bytes_told(Path("/proc/self/status"), "VmRSS") or 0

    forget_peak()

    assert last.size
    assert (peak_bytes() or 0) < kept - 2**25
