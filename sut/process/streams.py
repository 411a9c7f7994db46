"""Standard output and error: whose readers may leave or stop reading, and what is told on them in a line."""

from __future__ import annotations

import io
import os
import select
import sys
from typing import Any, TextIO

from sut.text import printable


def tell(text: str) -> None:
    """One line to standard error, never wrapped."""
    print(printable(text), file=sys.stderr, flush=True)


def tell_error(text: str) -> None:
    """One line about what went wrong, never wrapped: scripts read it."""
    tell(f"error: {text}")


def guard_streams() -> None:
    """Have this process write to its standard output and error as ``_Output`` does."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass  # started with one of the three closed: a pipe of ours must not take its place
    os.close(descriptor)
    if sys.stdout is not None:
        sys.stdout = _guarded(sys.stdout, sys.stdout.isatty(), told=False)
    if sys.stderr is not None:
        sys.stderr = _guarded(sys.stderr, True, told=True)


class _Output(io.FileIO):
    """A stream whose reader may leave (``2>&1 | head -1``): the work goes on, and its exit code is what counts.

    What is only ``told`` may also be lost in other ways: on a full disk, or to a reader that has stopped reading.
    """

    def __init__(self, descriptor: int, told: bool) -> None:
        super().__init__(descriptor, "w", closefd=False)
        self._told = told
        self._patience_s: float | None = 1.0 if told else None

    def write(self, data: Any, /) -> Any:
        try:
            while select.select([], [self], [], self._patience_s)[1]:
                if (written := super().write(data)) is not None:  # None: a pipe that does not block has no room yet
                    return written
        except OSError as error:
            # Python writes what is left once more while it shuts down, and would complain.
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.fileno())
            if not self._told and not isinstance(error, BrokenPipeError):
                raise
        else:
            self._patience_s = 0.0
        return len(data)


def _guarded(stream: TextIO, line_buffering: bool, told: bool) -> TextIO:
    raw = _Output(stream.fileno(), told)
    return io.TextIOWrapper(io.BufferedWriter(raw), stream.encoding, "backslashreplace", line_buffering=line_buffering)
