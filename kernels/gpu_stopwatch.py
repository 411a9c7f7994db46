"""Times what a GPU does, between two events on a stream of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from kernels.gpu_driver import Driver

BALLAST_BYTES = 1 << 27
"""Of one copy that keeps the GPU busy while the host starts what is timed: 0.06 ms on an H200."""
FIRST_COPIES, MOST_COPIES = 8, 256
"""So many of them, doubled as often as the host needs it. A stream takes about 1000 launches before the host waits."""


class Timed(Protocol):
    """What is needed of a ``GpuDevice``."""

    def allocate(self, nbytes: int) -> int: ...
    def new_stream(self) -> int: ...
    def event(self) -> Any: ...
    def call(self, doing: str, stream: int, work: Callable[[Driver], Any]) -> Any: ...


class Stopwatch:
    """Two events on a stream, and memory to copy within, all of one device."""

    def __init__(self, device: Timed) -> None:
        self._call, self._stream = device.call, device.new_stream()
        self._ballast = device.allocate(2 * BALLAST_BYTES)
        self._begin, self._end = device.event(), device.event()
        self._copies = FIRST_COPIES

    def timed_ms(self, work: Callable[[int], None]) -> float | None:
        """The GPU copies before the first event until the host has started all of ``work`` and recorded the second.

        A launch takes the host longer than many a kernel runs: events on an idle stream would measure the host. Where
        the first event has been reached too early, ``work`` is timed again behind twice as many copies.
        """
        stream = self._stream
        while True:
            self._call("a copy", stream, self._set_out)
            work(stream)
            in_time = self._call("an event", stream, self._arrived)
            took_ms: float = self._call("waiting", stream, lambda driver: driver.elapsed_ms(self._begin, self._end))
            if in_time:
                return took_ms
            if self._copies >= MOST_COPIES:
                return None
            self._copies *= 2

    def _set_out(self, driver: Driver) -> None:
        for _ in range(self._copies):
            driver.copy(self._ballast, self._ballast + BALLAST_BYTES, BALLAST_BYTES, self._stream)
        driver.record(self._begin, self._stream)

    def _arrived(self, driver: Driver) -> bool:
        driver.record(self._end, self._stream)
        return not driver.reached(self._begin)
