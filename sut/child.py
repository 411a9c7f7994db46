"""Processes that run one of this project's modules, and tell how far they are in lines of JSON on a pipe."""

from __future__ import annotations

import ctypes
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import sut
from sut.errors import RunError

SILENCE_S = 300.0
"""How long a process may tell nothing, or take to end, in seconds."""

_SHOWN_BYTES = 500
_PR_SET_PDEATHSIG = 1


def environment() -> dict[str, str]:
    """This process's variables, with the checkout first on the path: ``-P`` keeps the working folder off it."""
    checkout = str(Path(sut.__file__).parent.parent)
    paths = [checkout, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(dict.fromkeys(paths))}


@contextmanager
def spawn(
    module: str,
    arguments: Sequence[str],
    log: IO[bytes],
    fds: Sequence[int] = (),
    variables: Mapping[str, str] | None = None,
) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """Run ``module`` for as long as the ``with`` lasts; gives the process and the end of the pipe to read from.

    The module's arguments are ``arguments`` and the descriptor of the pipe's other end. What it prints goes to ``log``,
    an empty file. It inherits ``fds`` beside the pipe. However the ``with`` is left, Ctrl-C included, the process and
    all it started are gone then.
    """
    ours, theirs = os.pipe()
    try:
        try:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", module, *arguments, str(theirs)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(theirs, *fds),
                start_new_session=True,  # Ctrl-C is for us to hear
                env={**environment(), **(variables or {})},
            )
        finally:
            os.close(theirs)
        try:
            yield process, ours
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    finally:
        os.close(ours)


def json_lines(pipe: int, silence_s: float, doing: str) -> Iterator[dict[str, Any]]:
    """What a process tells until it closes the pipe. Raises ``RunError`` where it says nothing for ``silence_s``."""
    rest = b""
    with selectors.DefaultSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)
        while True:
            if not selector.select(silence_s):
                raise RunError(f"{doing} made no progress for {silence_s:.0f} s and was stopped")
            data = os.read(pipe, 65536)
            if not data:
                return
            *lines, rest = (rest + data).split(b"\n")
            yield from map(json.loads, lines)


def follow(
    module: str,
    arguments: Sequence[str],
    doing: str,
    progress: Callable[[int, int], None],
    fds: Sequence[int] = (),
    variables: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Run ``module`` to its end, and pass on the ``done`` and ``total`` that it tells.

    Returns the event that tells of an ``error``; empty where all went well. Raises ``RunError`` in one line where the
    process falls silent, does not end, or ends badly without a word; ``doing`` is what it was to do: ``comparing``.
    """
    failed: dict[str, Any] = {}
    with tempfile.TemporaryFile() as log:
        with spawn(module, arguments, log, fds, variables) as (process, pipe):
            for event in json_lines(pipe, SILENCE_S, doing):
                if "error" in event:
                    failed = event
                else:
                    progress(event["done"], event["total"])
            with suppress(subprocess.TimeoutExpired):
                process.wait(SILENCE_S)
            code = process.poll()
        if code is None:
            raise RunError(f"{doing} did not end and was stopped")
        if code and not failed:
            raise RunError(f"{doing} failed: {end_of(code, log)}")
    return failed


def end_of(code: int, log: IO[bytes]) -> str:
    """How a process ended that should not have, and the last it printed, in one line."""
    log.seek(0)
    said = " ".join(log.read()[-_SHOWN_BYTES:].decode(errors="replace").split())
    how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    return f"its process {how}; it said: {said or 'nothing'}"


def die_with_parent() -> None:
    """For the process itself: have the kernel kill it when the one that made it is gone (Linux only)."""
    parent = os.getppid()
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
