"""What passes between a run's process and its supervisor: orders in, events out, and errors as exit codes."""

from __future__ import annotations

import json
import os
import select
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NoReturn

from plugins.errors import DeviceNotFound
from sut.errors import ExitCode, RunError, SutError, broken_import, one_line
from sut.process.child import die_with_parent
from sut.process.clock import Steps, look

_BEAT_S = 0.5
_TRACEBACK_CHARACTERS = 20_000


@dataclass(frozen=True, slots=True)
class Orders:
    """What the supervisor wants done. The descriptor is inherited.

    ``config`` is a dumped ``RunConfig``, ``prepared`` the dumped ``Prepared`` model, ``started_s`` a time of the
    monotonic clock.
    """

    config: dict[str, Any]
    prepared: dict[str, Any] | None
    directory: str
    memory_fd: int
    started_s: float


class Events:
    """The pipe to the supervisor. Threads share it; a line is one write."""

    def __init__(self, descriptor: int) -> None:
        self._pipe = os.fdopen(descriptor, "w", encoding="utf-8")
        self._lock = threading.Lock()
        self._last_beat = 0.0
        self._loaded = 0
        self._clock_steps = Steps()

    def send(self, event: str, **fields: Any) -> None:
        """Tell the supervisor something. A supervisor that is gone is not told."""
        with self._lock, suppress(OSError):
            self._pipe.write(json.dumps({"event": event, **fields}) + "\n")
            self._pipe.flush()

    def beat(self, _: int = 0) -> None:
        """Tell that there is progress, twice a second at the most."""
        now = time.monotonic()
        if now - self._last_beat > _BEAT_S:
            self._last_beat = now
            self.send("beat", loaded=self._loaded)

    def loaded(self, count: int) -> None:
        """Tell that so many more samples are loaded."""
        self._loaded += count
        self.beat()

    def look_at_clock(self) -> int | None:
        """The largest change of the system clock so far in ns; one that only setting it makes is told."""
        if self._clock_steps.see(look()):
            self.send("clock", change_ns=self._clock_steps.change_ns)
        return self._clock_steps.change_ns

    def watch(self) -> None:
        """Look at the clock twice a second, and end this process when nobody reads the pipe any more."""
        pipe = select.poll()
        pipe.register(self._pipe, 0)
        self.look_at_clock()
        while not pipe.poll(1000 * _BEAT_S):
            self.look_at_clock()
        os._exit(ExitCode.INTERRUPTED)


def give_up(events: Events, error: BaseException) -> NoReturn:
    """Tell the supervisor of an error, and end this process with its exit code."""
    broken = broken_import(error)
    code = code_of(error) if broken is None else ExitCode.SETUP
    text = broken or one_line(error)
    if code == ExitCode.FAILED and not isinstance(error, SutError):
        text = f"{type(error).__name__}: {text}"
    events.send(
        "error",
        code=int(code),
        message=text,
        traceback="".join(traceback.format_exception(error))[-_TRACEBACK_CHARACTERS:],
    )
    os._exit(code)


def carry_out(work: Callable[[dict[str, Any], Callable[..., None]], object]) -> NoReturn:
    """For a process that ``sut.process.child`` has started: do ``work`` and end.

    ``work`` gets the orders of the command line, and what tells its keywords as a line of JSON on the pipe; what it
    raises is told as ``error``, with its exit ``code``.
    """
    die_with_parent()
    orders, pipe = json.loads(sys.argv[1]), int(sys.argv[2])

    def tell(**fields: object) -> None:
        os.write(pipe, json.dumps(fields).encode() + b"\n")

    try:
        work(orders, tell)
    except Exception as error:
        tell(error=one_line(error), code=code_of(error))
    # Not a normal exit: runtimes with threads of their own have been seen to crash in their destructors.
    os._exit(0)


def code_of(error: BaseException) -> ExitCode:
    """What an error of our own, of a backend or of a preprocessor means for the exit code."""
    if isinstance(error, SutError):
        return error.exit_code
    if isinstance(error, (ModuleNotFoundError, DeviceNotFound)):
        return ExitCode.SETUP
    return ExitCode.USAGE if isinstance(error, ValueError) else ExitCode.FAILED


def never_raising(callback: Callable[..., None], events: Events) -> Callable[..., None]:
    """An exception that reached LoadGen would crash the process a moment later, without a word."""

    def guarded(*arguments: Sequence[int]) -> None:
        try:
            callback(*arguments)
        except BaseException as error:
            give_up(events, in_the_run(error))

    return guarded


def in_the_run(error: BaseException) -> SutError:
    """What a backend calls wrong input is none any more once it was asked."""
    if isinstance(error, SutError):
        return error
    failed = RunError(f"{type(error).__name__}: {one_line(error)}")
    return failed.with_traceback(error.__traceback__)
