"""The side of a process that ``sut.process.child`` has started: it carries out its orders and tells what happens."""

from __future__ import annotations

import ctypes
import os
import select
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn

from plugins.errors import DeviceNotFound
from sut.errors import ExitCode, SutError, broken_import, one_line
from sut.process.messages import Failed, Step, to_line

_PR_SET_PDEATHSIG = 1
_TRACEBACK_CHARACTERS = 20_000


class Teller:
    """The pipe to the process that started this one. Threads share it; a line is one write."""

    def __init__(self, descriptor: int) -> None:
        self._pipe = os.fdopen(descriptor, "wb")
        self._lock = threading.Lock()

    def tell(self, event: object) -> None:
        """Write an event to the pipe. Who is gone is not told."""
        line = to_line(event)
        with self._lock, suppress(OSError):
            self._pipe.write(line)
            self._pipe.flush()

    def step(self, done: int, total: int) -> None:
        """Tell how far something is that takes long."""
        self.tell(Step(done, total))

    def give_up(self, error: BaseException) -> NoReturn:
        """Tell of an error, and end this process with its exit code."""
        failed = _failed(error)
        self.tell(failed)
        os._exit(failed.code)

    def is_unheard(self, within_s: float) -> bool:
        """Whether nobody reads the pipe any more; waits so long for that."""
        pipe = select.poll()
        pipe.register(self._pipe, 0)
        return bool(pipe.poll(1000 * within_s))


def carry_out(work: Callable[[str, Teller], object]) -> NoReturn:
    """Do ``work`` and end: it gets the orders of the command line, and what tells events.

    What it raises is told, and decides the exit code.
    """
    die_with_parent()
    teller = Teller(int(sys.argv[2]))
    try:
        work(sys.argv[1], teller)
    except BaseException as error:
        teller.give_up(error)
    with suppress(OSError):  # a full disk: what was printed is not worth the work
        sys.stdout.flush()
    # Not a normal exit: runtimes with threads of their own have been seen to crash in their destructors.
    os._exit(ExitCode.OK)


def _failed(error: BaseException) -> Failed:
    broken = broken_import(error)
    return Failed(
        code=code_of(error) if broken is None else ExitCode.SETUP,
        message=broken or one_line(error),
        kind=None if broken or isinstance(error, SutError) else type(error).__name__,
        traceback="".join(traceback.format_exception(error))[-_TRACEBACK_CHARACTERS:],
        errno=error.errno if isinstance(error, OSError) else None,
    )


def code_of(error: BaseException) -> ExitCode:
    """What an error of our own, of a backend or of a preprocessor means for the exit code."""
    if isinstance(error, SutError):
        return error.exit_code
    if isinstance(error, (ModuleNotFoundError, DeviceNotFound)):
        return ExitCode.SETUP
    return ExitCode.USAGE if isinstance(error, ValueError) else ExitCode.FAILED


def die_with_parent() -> None:
    """For the process itself: have the kernel kill it when the one that made it is gone (Linux only)."""
    parent = os.getppid()
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
