"""Processes that run one of this project's modules, and tell how far they are in lines of JSON on a pipe.

The one place that knows how they are started, heard, kept from filling the disk, and ended with all that they started.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Generic

from pydantic import TypeAdapter

from plugins.packages import CHECKOUT
from sut.errors import RunError
from sut.process.messages import Failed, Step, T, from_line, to_text
from sut.process.signals import undisturbed

SILENCE_S = 300.0
"""How long a process may tell nothing, or take to end, in seconds."""

POLL_S = 0.2
_GONE_S = 5.0
"""How long the kernel may take to end what was killed; what it is stuck with is not ours to wait for."""
_SHOWN_BYTES = 500
_LINE_BYTES = 2**24
_LOG_BYTES = 2**20
_HEAD_BYTES = _TAIL_BYTES = 2**18
_MARK = "SUT_CHILD"
_PR_SET_CHILD_SUBREAPER = 36
_PR_GET_CHILD_SUBREAPER = 37


def environment() -> dict[str, str]:
    """This process's variables, with the checkout first on the path: ``-P`` keeps the working folder off it."""
    checkout = str(CHECKOUT)
    paths = [checkout, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(dict.fromkeys(paths))}


class Log:
    """What a process prints, in ``file``: its beginning and its end, so that printing for ever fills no disk.

    The process writes to the file itself, so whatever becomes of us, printing never makes it wait.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self._left_out = 0
        # Else what is written after a cut would leave a hole in front of it.
        fcntl.fcntl(file, fcntl.F_SETFL, fcntl.fcntl(file, fcntl.F_GETFL) | os.O_APPEND)

    def cut(self) -> None:
        """Leave the middle out where there is too much of it."""
        descriptor = self.file.fileno()
        size = os.fstat(descriptor).st_size
        if size <= _LOG_BYTES:
            return
        tail = os.pread(descriptor, _TAIL_BYTES, size - _TAIL_BYTES)
        os.ftruncate(descriptor, _HEAD_BYTES)
        self._left_out += size - _HEAD_BYTES - len(tail)
        with suppress(OSError):  # a full disk: what was printed is not worth the run
            os.write(descriptor, f"\n[... about {self._left_out / 2**20:.1f} MiB left out ...]\n".encode() + tail)

    def end(self) -> str:
        """The last it printed, in one line."""
        size = os.fstat(self.file.fileno()).st_size
        last = os.pread(self.file.fileno(), _SHOWN_BYTES, max(0, size - _SHOWN_BYTES))
        return " ".join(last.decode(errors="replace").split())


@dataclass(frozen=True, slots=True)
class Child:
    """A process, the end of the pipe that it tells to, and what it prints."""

    process: subprocess.Popen[bytes]
    pipe: int
    log: Log

    def chunks(self) -> Iterator[bytes]:
        """What it writes to the pipe, and nothing (``b""``) as often as every 0.2 s, until it has closed the pipe
        or ended.
        """
        with selectors.DefaultSelector() as selector:
            selector.register(self.pipe, selectors.EVENT_READ)
            while True:
                # Asked first, so that nothing it wrote is missed. What it forked may hold the pipe open for ever.
                ended = self.process.poll() is not None
                chunk = b""
                if selector.select(0 if ended else POLL_S):
                    chunk = os.read(self.pipe, 65536)
                    if not chunk:
                        return
                elif ended:
                    return
                self.log.cut()
                yield chunk

    def wait(self, limit_s: float, given_up: Callable[[], bool] = lambda: False) -> int | None:
        """Its exit code; None where it has not ended within ``limit_s``, or waiting was ``given_up``."""
        deadline = time.monotonic() + limit_s
        while (code := self.process.poll()) is None and time.monotonic() < deadline and not given_up():
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(POLL_S)
            self.log.cut()
        return code

    def rest(self) -> bytes:
        """What it has written to the pipe by now and nobody has read."""
        found = b""
        with selectors.DefaultSelector() as selector:
            selector.register(self.pipe, selectors.EVENT_READ)
            while len(found) < _LINE_BYTES and selector.select(0) and (chunk := os.read(self.pipe, 65536)):
                found += chunk
        return found


class Lines(Generic[T]):
    """Puts lines together that arrive in pieces, each an event of some ``kinds``; ``rest`` is what has no end yet."""

    def __init__(self, kinds: TypeAdapter[T]) -> None:
        self.rest = b""
        self._kinds = kinds

    def of(self, chunk: bytes) -> Iterator[T]:
        """The events whose lines end in ``chunk``. Raises ``ValueError`` for anything else."""
        *lines, self.rest = (self.rest + chunk).split(b"\n")
        if len(self.rest) > _LINE_BYTES:
            lines.append(self.rest)
        for line in lines:
            yield from_line(self._kinds, line)


@contextmanager
def spawn(
    module: str, orders: object, log: Log, fds: Sequence[int] = (), variables: Mapping[str, str] | None = None
) -> Iterator[Child]:
    """Run ``module`` for as long as the ``with`` lasts.

    The module's arguments are its ``orders`` and the descriptor of the pipe's other end, as ``carry_out`` takes them.
    What it prints goes to ``log``. It inherits ``fds`` beside the pipe. However the ``with`` is left, Ctrl-C included,
    the process and all it started, in whatever session, are gone then.
    """
    mark = uuid.uuid4().hex
    with _adopting() as strangers:
        try:
            with spawn_alone(module, orders, log, fds, {**(variables or {}), _MARK: mark}) as child:
                yield child
        finally:
            with undisturbed():
                _end_adopted(strangers, mark)
                log.cut()


@contextmanager
def spawn_alone(
    module: str, orders: object, log: Log, fds: Sequence[int] = (), variables: Mapping[str, str] | None = None
) -> Iterator[Child]:
    """``spawn``, but what the process left behind outside its session is left to whoever supervises this one."""
    ours, theirs = os.pipe()
    try:
        try:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", module, to_text(orders), str(theirs)],
                stdin=subprocess.DEVNULL,
                stdout=log.file,
                stderr=log.file,
                pass_fds=(theirs, *fds),
                start_new_session=True,  # Ctrl-C is for us to hear
                env={**environment(), **(variables or {})},
            )
        finally:
            os.close(theirs)
        try:
            yield Child(process, ours, log)
        finally:
            with undisturbed():
                _end(process)
    finally:
        os.close(ours)


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:  # else its group's number may be another's by now
        os.killpg(process.pid, signal.SIGKILL)
        with suppress(subprocess.TimeoutExpired):
            process.wait(_GONE_S)


@contextmanager
def _adopting() -> Iterator[set[int]]:
    """Be the parent of whatever loses its own below us; gives the children that we have before."""
    libc = ctypes.CDLL(None)
    before = ctypes.c_int()
    libc.prctl(_PR_GET_CHILD_SUBREAPER, ctypes.byref(before))
    libc.prctl(_PR_SET_CHILD_SUBREAPER, 1)
    try:
        yield _children()
    finally:
        libc.prctl(_PR_SET_CHILD_SUBREAPER, before.value)


def _children() -> set[int]:
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # ended meanwhile
            if int(stat.read_bytes().rpartition(b")")[2].split()[1]) == os.getpid():
                found.add(int(stat.parent.name))
    return found


def _end_adopted(strangers: set[int], mark: str) -> None:
    """End what a process left behind, whose parent died and made it ours; ending that makes its own children ours.

    Where we had other children before, what those leave behind is ours as well: then only what carries ``mark`` in its
    environment is ended.
    """
    deadline = time.monotonic() + _GONE_S
    while left := {pid for pid in _children() - strangers if not strangers or _carries(pid, mark)}:
        for pid in left:
            os.kill(pid, signal.SIGKILL)
        for pid in left:
            while os.waitpid(pid, os.WNOHANG)[0] == 0:
                if time.monotonic() > deadline:
                    return
                time.sleep(0.001)


def _carries(pid: int, mark: str) -> bool:
    try:
        return f"{_MARK}={mark}".encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return False


def events(chunks: Iterable[bytes], kinds: TypeAdapter[T], silence_s: float, doing: str) -> Iterator[T]:
    """What a process tells, from the ``chunks`` of it.

    Raises ``RunError`` where it says nothing for ``silence_s``, or what is no event of these ``kinds``.
    """
    lines = Lines(kinds)
    heard = time.monotonic()
    for chunk in chunks:
        if chunk:
            heard = time.monotonic()
        elif time.monotonic() - heard > silence_s:
            raise RunError(f"{doing} made no progress for {silence_s:.0f} s and was stopped")
        try:
            told = list(lines.of(chunk))
        except ValueError as error:
            raise RunError(f"{doing} failed: its process told what is {error}") from error
        yield from told


def follow(
    module: str,
    orders: object,
    kinds: TypeAdapter[T],
    doing: str,
    progress: Callable[[int, int], None] = lambda done, total: None,
    *,
    fds: Sequence[int] = (),
    variables: Mapping[str, str] | None = None,
    silence_s: float | None = None,
    heard: Callable[[T], None] = lambda event: None,
) -> T | None:
    """Run ``module`` to its end, and pass on the steps that it tells of, and to ``heard`` each other event.

    Returns the last other event: what came of it, or that it ``Failed``; None where it told of none. Raises
    ``RunError`` in one line where the process falls silent (for 300 s unless ``silence_s`` says else), does not end,
    or ends badly without a word; ``doing`` is what it was to do: ``comparing``.
    """
    last: T | None = None
    with tempfile.TemporaryFile() as file:
        log = Log(file)
        with spawn(module, orders, log, fds, variables) as child:
            for event in events(child.chunks(), kinds, silence_s or SILENCE_S, doing):
                if isinstance(event, Step):
                    progress(event.done, event.total)
                else:
                    last = event
                    heard(event)
            code = child.wait(SILENCE_S)
        if code is None:
            raise RunError(f"{doing} did not end and was stopped")
        if code and not isinstance(last, Failed):
            raise RunError(f"{doing} failed: {end_of(code, log)}")
    return last


def end_of(code: int, log: Log) -> str:
    """How a process ended that should not have, and the last it printed, in one line."""
    how = f"was killed by {signal_name(-code)}" if code < 0 else f"ended with exit code {code}"
    return f"its process {how}; it said: {log.end() or 'nothing'}"


def signal_name(number: int) -> str:
    """``SIGSEGV``, or ``signal 35`` for one without a name."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
