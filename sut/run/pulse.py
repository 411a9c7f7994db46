"""What a run's process tells beside its story: that it lives, what its clock does, and what no caller can be told."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

from sut.errors import ExitCode, RunError, SutError, one_line
from sut.process.clock import Steps, look
from sut.process.telling import Teller

_BEAT_S = 0.5
_R = TypeVar("_R")


@dataclass(frozen=True, slots=True)
class Phase:
    """The run has come to another phase."""

    phase: Literal["import", "load", "choose", "samples", "calibrate", "generate", "run", "finish"]
    event: Literal["phase"] = "phase"


@dataclass(frozen=True, slots=True)
class Clock:
    """The system clock was set by so many ns."""

    clock_change_ns: int
    event: Literal["clock"] = "clock"


class Pulse:
    """Tells of progress and of the clock. ``samples`` are those that are to be loaded."""

    def __init__(self, teller: Teller) -> None:
        self.samples = 0
        self._teller = teller
        self._last_beat = 0.0
        self._loaded = 0
        self._clock_steps = Steps()

    def beat(self, _: int = 0) -> None:
        """Tell that there is progress, twice a second at the most."""
        self.step(self._loaded, self.samples)

    def step(self, done: int, total: int) -> None:
        """Tell how far something is that takes long, as often as of any progress."""
        now = time.monotonic()
        if now - self._last_beat > _BEAT_S:
            self._last_beat = now
            self._teller.step(done, total)

    def loaded(self, count: int) -> None:
        """Tell that so many more samples are loaded."""
        self._loaded += count
        self.beat()

    def look_at_clock(self) -> int | None:
        """The largest change of the system clock so far in ns; one that only setting it makes is told."""
        was_set, change_ns = self._clock_steps.see(look()), self._clock_steps.change_ns
        if was_set and change_ns is not None:
            self._teller.tell(Clock(change_ns))
        return change_ns

    def watch(self) -> None:
        """Look at the clock twice a second, and end this process when nobody reads the pipe any more."""
        self.look_at_clock()
        while not self._teller.is_unheard(within_s=_BEAT_S):
            self.look_at_clock()
        os._exit(ExitCode.INTERRUPTED)


def never_raising(callback: Callable[..., _R], teller: Teller) -> Callable[..., _R]:
    """An exception that reached LoadGen would crash the process a moment later, without a word."""

    def guarded(*arguments: Sequence[int]) -> _R:
        try:
            return callback(*arguments)
        except BaseException as error:
            teller.give_up(in_the_run(error))

    return guarded


def in_the_run(error: BaseException) -> SutError:
    """What a backend calls wrong input is none any more once it was asked."""
    if isinstance(error, SutError):
        return error
    failed = RunError(f"{type(error).__name__}: {one_line(error)}")
    return failed.with_traceback(error.__traceback__)
