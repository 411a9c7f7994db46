"""The signals that ask a process to end: Ctrl-C, SIGTERM, SIGQUIT, and SIGHUP of a terminal that is closed."""

from __future__ import annotations

import signal
import sys
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

    def hush(self) -> None:
        """Raise no more: who was asked to end is on the way out."""
        self._raises = False

    def again(self, lost: sys.UnraisableHookArgs) -> None:
        """A hook for what cannot be raised (in a ``__del__``, say): the next signal is raised in this one's place."""
        if lost.exc_type is KeyboardInterrupt:
            self._raises = True
        else:
            sys.__unraisablehook__(lost)

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


def note_all() -> Noted:
    """Note such signals from now on; those that the terminal sends only where they are not ignored (``nohup``)."""
    ending = Noted()
    for which in ENDING:
        if which not in (signal.SIGINT, signal.SIGHUP) or signal.getsignal(which) != signal.SIG_IGN:
            signal.signal(which, ending)
    sys.unraisablehook = ending.again
    return ending


def ignore() -> None:
    """Ignore such signals from now on."""
    for which in ENDING:
        signal.signal(which, signal.SIG_IGN)


@contextmanager
def noted() -> Iterator[Noted]:
    """Note such signals in place of being ended by them, so that nothing is left half done."""
    note, outer = Noted(), signal.getsignal(signal.SIGTERM)
    with _handled(note):
        try:
            yield note
        finally:
            if note.came and isinstance(outer, Noted):
                outer.hush()


@contextmanager
def undisturbed() -> Iterator[None]:
    """Put such signals off while cleaning up: the waits in there are short. The first of them is raised afterwards."""
    came: list[int] = []
    with _handled(lambda number, frame: came.append(number)):
        yield
    if came:
        signal.raise_signal(came[0])


@contextmanager
def _handled(handler: Callable[[int, FrameType | None], Any]) -> Iterator[None]:
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
