"""The signals that ask a process to end: Ctrl-C, SIGTERM, SIGQUIT, and SIGHUP of a terminal that is closed."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


class Noted:
    """Whether such a signal came. It is an exception where ``raising`` says so, and nowhere else."""

    def __init__(self) -> None:
        self.came = False
        self._raises = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.came = True
        if self._raises:
            self._raises = False  # once: the way out is not disturbed
            raise KeyboardInterrupt

    @contextmanager
    def raising(self) -> Iterator[None]:
        """Raise ``KeyboardInterrupt`` where a signal comes, or has come already."""
        self._raises = True
        try:
            if self.came:
                raise KeyboardInterrupt
            yield
        finally:
            self._raises = False


@contextmanager
def noted() -> Iterator[Noted]:
    """Note such signals in place of being ended by them, so that nothing is left half done."""
    note = Noted()
    with _handled(note):
        yield note


@contextmanager
def undisturbed() -> Iterator[None]:
    """Put such signals off while cleaning up: the waits in there are short."""
    with _handled(signal.SIG_IGN):
        yield


@contextmanager
def _handled(handler: Callable[[int, FrameType | None], Any] | signal.Handlers) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():  # it hears none
        yield
        return
    heard = [which for which in ENDING if signal.getsignal(which) not in (signal.SIG_IGN, None)]
    before = {which: signal.signal(which, handler) for which in heard}
    try:
        yield
    finally:
        for which, was in before.items():
            signal.signal(which, was)
