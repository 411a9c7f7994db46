"""Asks a loaded system one load, in the process that has it: when what is asked, and for how long it is waited."""

from __future__ import annotations

import math
import mmap
import threading
import time
from bisect import bisect_right
from collections.abc import Callable, Sequence

import numpy as np

from plugins.sleep import sleep_until
from sut.errors import RunError
from sut.mlperf.logs import Int64Array
from sut.pipeline.ledger import Counter, Ledger
from sut.pipeline.system import SUT
from sut.process.clock import Steps, look
from sut.run.timing import Beat
from sut.studies.driving.driven import Drive
from sut.studies.driving.loads import MOST_OUTSTANDING, MOST_SAMPLES, Alone, Closed, FromFile, OpenLoad, arrivals_ns
from sut.tasks.base import Payloads

clock = time.monotonic_ns
"""What the system must be loaded with: nobody can set it."""

_LOOK_S = 0.2


class Answers:
    """Counts what was answered: its ``complete`` is the system's."""

    def __init__(self) -> None:
        self._new = 0
        self._changed = threading.Condition()

    def complete(self, ids: Sequence[int], payloads: Payloads | None) -> int:
        """See ``sut.mlperf.loadgen.Complete``."""
        now = clock()
        with self._changed:
            self._new += len(ids)
            self._changed.notify()
        return now

    def take(self, timeout_s: float) -> int:
        """How many came since the last call; waits for one."""
        with self._changed:
            if not self._new and timeout_s > 0:
                self._changed.wait(timeout_s)
            new, self._new = self._new, 0
        return new


class Window:
    """The time that is measured: its edges are where somebody looked, and so is the CPU time in it, in seconds.

    ``cpu_s`` tells that time so far.

    It ``waits`` with its begin, and with its end while it is ``short`` of samples, until it is let go.
    """

    def __init__(self, begin_ns: int, drive: Drive, cpu_s: Callable[[], float]) -> None:
        self._cpu_s = cpu_s
        self.begin_ns = begin_ns + int(1e9 * drive.warm_s)
        self._long_ns = int(1e9 * drive.seconds)
        self.end_ns = self.begin_ns + self._long_ns
        self.cpu_s = 0.0
        self.is_over = False
        self.waits = self.is_short = isinstance(drive.load, Closed)
        self._is_begun = False

    def look(self, now: int) -> None:
        """Begin or end it where it is time."""
        if not self._is_begun and now >= self.begin_ns and not self.waits:
            self._is_begun, self.begin_ns, self.cpu_s = True, now, -self._cpu_s()
            self.end_ns = now + self._long_ns
        if self._is_begun and now >= self.end_ns and not self.is_short:
            self.close(now)

    def close(self, now: int) -> None:
        """End it now, where it has not ended."""
        if not self.is_over:
            self.is_over, self.end_ns = True, max(now, self.begin_ns + 1)
            self.cpu_s = self.cpu_s + self._cpu_s() if self._is_begun else 0.0

    def left_s(self, now: int) -> float:
        """Until the next edge; endless where somebody must let it go before."""
        edge_ns = self.end_ns if self._is_begun else self.begin_ns
        held = self.waits or (self._is_begun and self.is_short and now >= edge_ns)
        return math.inf if held else (edge_ns - now) / 1e9


class Asking:
    """One load on a system whose ``complete`` is that of ``answers`` and whose clock is this module's.

    ``draws`` are the samples that are asked, round and round. ``trouble`` says why what was measured does not count.
    """

    def __init__(self, sut: SUT, answers: Answers, draws: list[int], drive: Drive, watchdog_s: float, beat: Beat):
        self._sut, self._answers, self._draws, self._drive = sut, answers, draws, drive
        self._watchdog_s, self._beat = watchdog_s, beat
        self._most = min(drive.samples or MOST_SAMPLES, MOST_SAMPLES)
        shape = sut.ledger_shape(MOST_SAMPLES, traced=True)
        self.ledger = Ledger(shape, mmap.mmap(-1, shape.nbytes))  # pages that are not touched cost nothing
        self.trouble: str | None = None
        self._issued = self._done = 0
        self._scheduled: list[tuple[int, int]] = []
        """When, and how many, of what was asked."""
        self._clocks = Steps()
        self._clocks.see(look())
        answers.take(0)
        sut.start(self.ledger)
        self.begin_ns = self._moved_ns = self._looked_ns = clock()
        self.window = Window(self.begin_ns, drive, sut.cpu_s)
        self.window.look(self.begin_ns)

    @property
    def scheduled_ns(self) -> Int64Array:
        """When each request was scheduled, in their order: int64 (n,), of the monotonic clock."""
        times = np.array([at for at, _ in self._scheduled], np.int64)
        return np.repeat(times, [count for _, count in self._scheduled])

    def go(self) -> None:
        """Ask, and wait for all answers. Raises ``RunError`` where they stay away."""
        load = self._drive.load
        match load:
            case Closed():
                self._closed(load)
            case Alone():
                self._alone(load)
            case _:
                self._open(load)
        is_all = isinstance(load, FromFile) or self._issued >= self._most
        if not is_all:
            self.window.close(clock())
        self._drain()

    def _closed(self, load: Closed) -> None:
        free, words, window, enough = load.concurrency, self.ledger.words, self.window, 0
        while self._goes_on():
            done = words[Counter.DONE]
            # Those that all came at once, and found nothing before them, are no part of a steady state.
            if window.waits and done >= load.concurrency:
                window.waits, enough = False, done + self._drive.least
            window.is_short = window.waits or done < enough
            if free:
                self._issue(clock(), min(free, self._most - self._issued))
            free = self._answers.take(self._patience_s())

    def _alone(self, load: Alone) -> None:
        gaps = np.random.default_rng(load.seed)
        at = self.begin_ns + _gap_ns(gaps, load.rate)
        while self._sleep_until(at):
            at = clock()
            self._issue(at, 1)
            while self._goes_on(waiting=True) and not self._answers.take(self._patience_s()):
                pass
            at = max(clock(), at + _gap_ns(gaps, load.rate))

    def _open(self, load: OpenLoad) -> None:
        offsets = arrivals_ns(load, self._drive.warm_s + self._drive.seconds)
        due = (self.begin_ns + offsets[: self._most]).tolist()
        while self._issued < len(due) and self._sleep_until(due[self._issued]):
            first = self._issued
            upto = bisect_right(due, clock(), first)
            self._put(upto - first)
            self._scheduled += [(each, 1) for each in due[first:upto]]
        while not isinstance(load, FromFile) and self._goes_on():
            sleep_until(clock() + int(1e9 * self._patience_s()))

    def _issue(self, scheduled_ns: int, count: int) -> None:
        self._scheduled.append((scheduled_ns, count))
        self._put(count)

    def _put(self, count: int) -> None:
        first = self._issued
        self._issued = first + count
        at = first % len(self._draws)
        indices = self._draws[at : at + count]
        while len(indices) < count:
            indices += self._draws[: count - len(indices)]
        self._sut.issue(range(first, first + count), indices)

    def _sleep_until(self, until_ns: int) -> bool:
        """False where the load is over before."""
        while self._goes_on():
            now = clock()
            if now >= until_ns:
                return True
            sleep_until(min(until_ns, now + int(1e9 * self._patience_s())))
        return False

    def _goes_on(self, waiting: bool = False) -> bool:
        """Whether more is to be asked; looks after all that must be looked after. ``waiting``: for what was asked."""
        now = clock()
        self.window.look(now)
        self._look(now)
        if self.trouble is not None or self.window.is_over:
            return False
        return waiting or self._issued < self._most

    def _patience_s(self) -> float:
        """How long to wait before the next look."""
        return max(0.0, min(_LOOK_S, self.window.left_s(clock())))

    def _look(self, now: int, force: bool = False) -> None:
        """Whether there is progress, whether the system's clock was set; five times a second."""
        if now - self._looked_ns < 1e9 * _LOOK_S and not force:
            return
        self._looked_ns = now
        self._beat()
        done = int(self.ledger.words[Counter.DONE])
        outstanding = self._issued - done
        if done != self._done or not outstanding:
            self._done, self._moved_ns = done, now
        if now - self._moved_ns > 1e9 * self._watchdog_s:
            raise RunError(
                f"{self._drive.load.words}: no answer for {self._watchdog_s:g} s with {outstanding} of {self._issued} "
                "requests outstanding; the load was stopped (--watchdog sets the time)"
            )
        if outstanding > MOST_OUTSTANDING:
            self.trouble = f"more than {MOST_OUTSTANDING:,} requests were outstanding: the load was ended"
        if self._clocks.see(look()):
            change_s = (self._clocks.change_ns or 0) / 1e9
            self.trouble = f"the system clock was set by {change_s:+.3f} s while the load went on"

    def _drain(self) -> None:
        """Wait for all answers, and for their place in the ledger."""
        while self.ledger.words[Counter.DONE] < self._issued:
            self._answers.take(_LOOK_S / 10)
            self.window.look(clock())
            self._look(clock())
        self.window.close(clock())
        self._look(clock(), force=True)


def _gap_ns(gaps: np.random.Generator, rate: float) -> int:
    return int(1e9 * gaps.exponential(1 / rate))
