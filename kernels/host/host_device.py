"""``HostDevice``: the ``Device`` whose memory and kernels live in a child process, as a GPU's live behind a driver.

The child is killed by the first illegal access, overflow or barrier that not all threads reach; every later call then
raises the same ``DeviceError``, as a CUDA context is lost after an illegal address. Kernels run to their end inside
``launch``, so streams are numbers without a meaning.
"""

from __future__ import annotations

import os
import re
import selectors
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from kernels.device import SOURCES, Device, DeviceError, Dim3
from kernels.host import build

Order = Literal["forward", "reverse", "shuffled"]
"""In which order the threads of a block run between two barriers; ``reverse`` also runs the blocks from the last on."""

_KINDS: tuple[tuple[Literal["global", "shared"], Literal["read", "write"]], ...] = (
    ("global", "read"),
    ("global", "write"),
    ("shared", "read"),
    ("shared", "write"),
)
_ENVIRONMENT = {
    "ASAN_OPTIONS": "abort_on_error=1:detect_leaks=0:allocator_may_return_null=1:quarantine_size_mb=64",
    "UBSAN_OPTIONS": "abort_on_error=1:print_stacktrace=1",
}
_PIECE = 1 << 20
_END_S = 30.0


@dataclass(frozen=True, slots=True)
class SiteCount:
    """What one line of a kernel asked of memory, added up over all warps of the launches counted."""

    line: int
    """In the .cu file."""
    space: Literal["global", "shared"]
    direction: Literal["read", "write"]
    requests: int
    """How often a warp came to the line with at least one thread."""
    bytes: int
    """What the threads asked for, each for itself."""
    sectors: int
    """Of 32 bytes, global memory only: different ones within each request."""
    phases: int
    """Shared memory only: requests, split in half-warps for 8-byte accesses and quarter-warps for 16-byte ones."""
    wavefronts: int
    """Shared memory only: the ways of all phases added up; as many as phases where nothing conflicts."""
    max_ways: int
    """Shared memory only: the most different words that one bank had to give in a phase; 1 is no conflict."""


class HostDevice(Device):
    """The kernels of ``sources``, run by g++'s code under AddressSanitizer and UndefinedBehaviorSanitizer.

    With ``count`` it counts sectors and bank conflicts (slower by far); ``limit_s`` is how long any one call may take.
    Raises ``ModuleNotFoundError`` where g++ is missing.
    """

    name = "host"
    architecture = "host"
    poison: ClassVar[int | None] = 0xCD

    def __init__(
        self, sources: Path = SOURCES, *, order: Order = "forward", count: bool = False, limit_s: float = 300.0
    ) -> None:
        if order not in ("forward", "reverse", "shuffled"):
            raise ValueError(f"got order '{order}', expected forward, reverse or shuffled")
        server = build.server()
        self.sources = sources
        self.counts = count
        """Whether it counts; see ``take_counts``."""
        self._limit_s = limit_s
        self._lost: str | None = None
        self._streams = 0
        self._modules: dict[str, int] = {}
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close()
        self._server = subprocess.Popen(
            [server, order, str(int(count))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            env=os.environ | _ENVIRONMENT,
            bufsize=0,
        )
        self._answers = selectors.DefaultSelector()
        assert self._server.stdout is not None
        self._answers.register(self._server.stdout, selectors.EVENT_READ)
        self._unread = b""

    def allocate(self, nbytes: int) -> int:
        answer = self._ask(f"alloc {nbytes}")
        if answer[0] != "ok":
            raise DeviceError(f"out of memory: {nbytes} bytes cannot be had in host form")
        return int(answer[1])

    def release(self, address: int) -> None:
        if self._lost is None and self._server.poll() is None:
            self._ask(f"free {address}")

    def write(self, address: int, array: NDArray[Any], stream: int | None) -> None:
        self._ask(f"write {address} {array.nbytes}", array.reshape(-1).view(np.uint8).data)

    def read(self, address: int, array: NDArray[Any], stream: int | None) -> None:
        self._ask(f"read {address} {array.nbytes}")
        self._receive(array.reshape(-1).view(np.uint8).data)

    def clear(self, address: int, nbytes: int, byte: int, stream: int | None) -> None:
        self._ask(f"fill {address} {nbytes} {byte}")

    def start(
        self, module: str, function: str, grid: Dim3, block: Dim3, args: Sequence[np.generic], stream: int | None
    ) -> None:
        if module not in self._modules:
            answer = self._ask(f"load {build.module(self.sources / f'{module}.cu', self.sources)}")
            if answer[0] != "ok":
                raise DeviceError(f"cannot load {module}.cu in host form: {' '.join(answer[1:])}")
            self._modules[module] = int(answer[1])
        sizes = " ".join(map(str, (*grid, *block)))
        slots = b"".join(arg.tobytes().ljust(8, b"\0") for arg in args)
        self._ask(f"launch {self._modules[module]} {function} {sizes} {len(args)}", slots)

    def new_stream(self) -> int:
        self._streams += 1
        return self._streams

    def synchronize(self, stream: int | None = None) -> None:
        if self._lost is not None:
            raise DeviceError(self._lost)

    def timed_ms(self, work: Callable[[int], None]) -> float:
        raise DeviceError("the host form has no clock of a GPU: its times would say nothing")

    def take_counts(self) -> list[SiteCount]:
        """What has been counted since the last call, by line; empty without ``count``."""
        text = bytearray(int(self._ask("counts")[1]))
        self._receive(memoryview(text))
        found = []
        for line in text.decode().splitlines():
            site, kind, *counts = map(int, line.split())
            found.append(SiteCount(site, *_KINDS[kind], *counts))
        return found

    def close(self) -> None:
        if self._said.closed:
            return
        for pipe in (self._server.stdin, self._server.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()
        self._server.kill()
        self._server.wait()
        self._answers.close()
        self._said.close()
        self._lost = "the device has been closed"

    def _ask(self, command: str, payload: bytes | memoryview = b"") -> list[str]:
        if self._lost is not None:
            raise DeviceError(self._lost)
        assert self._server.stdin is not None
        try:
            self._server.stdin.write(command.encode() + b"\n")
            rest = memoryview(payload)
            while rest:
                rest = rest[self._server.stdin.write(rest) :]
        except OSError:
            self._fail()
        deadline = time.monotonic() + self._limit_s
        while b"\n" not in self._unread:
            self._unread += self._some(deadline, command)
        line, _, self._unread = self._unread.partition(b"\n")
        return line.decode().split(" ")

    def _receive(self, into: memoryview) -> None:
        deadline = time.monotonic() + self._limit_s
        while into:
            part = self._unread or self._some(deadline, "a copy")
            used = min(len(part), len(into))
            into[:used] = part[:used]
            into, self._unread = into[used:], part[used:]

    def _some(self, deadline: float, doing: str) -> bytes:
        assert self._server.stdout is not None
        if not self._answers.select(max(0.0, deadline - time.monotonic())):
            self._server.kill()
            self._fail(f"no answer within {self._limit_s:g} s to: {' '.join(doing.split()[:3])}")
        part = self._server.stdout.read(_PIECE)
        if not part:
            self._fail()
        return part

    def _fail(self, reason: str = "") -> None:
        """Remember why the server ended, and raise it."""
        try:
            code = self._server.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._server.kill()
            code = self._server.wait()
        self._said.seek(0)
        said = self._said.read().decode(errors="replace")
        self._lost = reason or report(said) or f"the host form's process ended with exit code {code}"
        raise DeviceError(self._lost)


_ERROR = re.compile(
    r"ERROR: AddressSanitizer:? (?P<kind>\S+)|runtime error: (?P<undefined>.*)|(?P<barrier>barrier divergence.*)"
)
_ACCESS = re.compile(r"^(READ|WRITE) of size \d+", re.MULTILINE)
_PLACE = re.compile(r"is located (.*?-byte region|.*?global variable '[^']*')")
_LINE = re.compile(r"([\w.-]+\.cu):(\d+)")
_WHERE = re.compile(r"^in kernel (\w+) (block \(.*?\) thread \(.*?\))", re.MULTILINE)


def report(said: str) -> str:
    """One line of what a sanitizer or the barriers' check wrote: kernel, source line, what was wrong and where.

    Empty where ``said`` holds no such report.
    """
    error = _ERROR.search(said)
    if error is None:
        return ""
    where = _WHERE.search(said)
    parts = [f"{where[1]}, {where[2]}" if where else "the host form"]
    if error["barrier"]:
        return f"{parts[0]}: {error['barrier']}"
    if line := _LINE.search(said):
        parts.append(f"{line[1]} line {line[2]}")
    what = [error["kind"] or error["undefined"]]
    if access := _ACCESS.search(said):
        what.append(access[0])
    if place := _PLACE.search(said):
        what.append(place[1])
    return f"{', '.join(parts)}: {', '.join(what)}"
