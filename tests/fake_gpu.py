"""A GPU that is not there: CUDA's rules about memory, streams, events and contexts, kept by a ``kernels`` driver.

What is started on a stream happens when somebody waits for it and no sooner, as late as CUDA allows: who does not wait
reads what was there before. Memory is poisoned when it is given and when it is freed; who touches what was freed, or
lies outside of all allocations, loses the context, as with an illegal address on a GPU. Other libraries' fakes work on
the same memory and streams through ``enqueue`` and ``part``.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels import gpu
from kernels.device import Dim3
from kernels.gpu_driver import OwnerThread
from plugins.driver import Installed

POISON, FREED = 0xCD, 0xDD
H2D_BYTES_PER_NS, D2H_BYTES_PER_NS = 25.0, 20.0
"""By these rates the clock of events goes on with each copy."""
ILLEGAL = "CUDA_ERROR_ILLEGAL_ADDRESS"


class FakeGpuError(Exception):
    """What the driver refuses."""


@dataclass(eq=False)
class Event:
    """Reached once its stream has worked up to it."""

    stream: int | None = None
    at_ns: float | None = None


@dataclass(eq=False)
class FakeDriver:
    """See the module. ``hook`` is called before each thing that a stream does, with its name: it may raise or sleep."""

    memory_bytes: int = 1 << 32
    hook: Callable[[str], None] = lambda name: None
    name: str = "Fake GPU"
    architecture: str = "sm_90"
    index: int = 0
    errors: tuple[type[Exception], ...] = (FakeGpuError,)
    memory: dict[int, NDArray[np.uint8]] = field(default_factory=dict)
    freed: dict[int, NDArray[np.uint8]] = field(default_factory=dict)
    """Kept, so that nothing of the host's comes to lie where it lay: some fakes know it by that."""
    streams: dict[int, deque[tuple[str, Callable[[], float]]]] = field(default_factory=dict)
    clock_ns: dict[int, float] = field(default_factory=dict)
    log: list[tuple[str, int | None]] = field(default_factory=list)
    """What was done on which stream, in the order in which it happened."""
    lost: bool = False
    pinned_now: list[NDArray[np.uint8]] = field(default_factory=list)
    """Page-locked memory that has not been freed."""
    graphs: list[list[tuple[str, Callable[[], float]]]] = field(default_factory=list)
    """Those that have not been freed."""
    capturing: set[int] = field(default_factory=set)
    """Streams; whoever synchronises one of them, or all, spoils what is captured."""
    stray: list[str] = field(default_factory=list)
    """What others had there and destroyed while it was not current."""
    _next: int = 0x7000_0000_0000
    _current: threading.local = field(default_factory=threading.local)
    _working: threading.RLock = field(default_factory=threading.RLock)

    def __post_init__(self) -> None:
        self._next += self.index << 40  # no address is two GPUs'

    def ends_context(self, error: Exception) -> bool:
        return ILLEGAL in str(error)

    def close(self) -> None: ...

    @contextmanager
    def current(self) -> Iterator[None]:
        before = getattr(self._current, "depth", 0)
        self._current.depth = before + 1
        try:
            yield
        finally:
            self._current.depth = before

    @property
    def is_current(self) -> bool:
        """In this thread."""
        return bool(getattr(self._current, "depth", 0))

    def free_bytes(self) -> int:
        return self.memory_bytes - sum(map(len, self.memory.values()))

    def allocate(self, nbytes: int) -> int:
        if nbytes > self.free_bytes():
            raise FakeGpuError("out of memory")
        address = self._next
        self._next += -(-nbytes // 256) * 256 + 256
        self.memory[address] = np.full(nbytes, POISON, np.uint8)
        return address

    def release(self, address: int) -> None:
        memory = self.memory.pop(address)
        memory[:] = FREED
        self.freed[address] = memory

    def part(self, address: int, nbytes: int) -> NDArray[np.uint8]:
        """Memory from ``address`` on. Loses the context where that is not, or no longer, inside one allocation."""
        for base, data in self.memory.items():
            if base <= address and address + nbytes <= base + len(data):
                return data[address - base :][:nbytes]
        self.lost = True
        was = any(base <= address < base + len(data) for base, data in self.freed.items())
        raise FakeGpuError(
            f"{ILLEGAL}: {nbytes} bytes at {address:#x}, which {'were freed' if was else 'belong to nobody'}"
        )

    def array(self, address: int, shape: Sequence[int], dtype: str) -> NDArray[Any]:
        """As ``part``, seen as an array."""
        nbytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
        return self.part(address, nbytes).view(dtype).reshape(shape)

    def load(self, cubin: bytes) -> Any:
        raise FakeGpuError("no kernels run here")

    def function(self, module: Any, name: str, types: str) -> Any:
        raise FakeGpuError("no kernels run here")

    def start(self, function: Any, grid: Dim3, block: Dim3, args: Sequence[np.generic], stream: int | None) -> None:
        raise FakeGpuError("no kernels run here")

    def new_stream(self) -> int:
        stream = 0x1000 + 0x10 * len(self.clock_ns) + (self.index << 32)
        self.streams[stream], self.clock_ns[stream] = deque(), 0.0
        return stream

    def drop_stream(self, stream: int) -> None:
        del self.streams[stream]

    def event(self) -> Event:
        return Event()

    def pinned(self, nbytes: int) -> NDArray[np.uint8]:
        self.pinned_now.append(np.full(nbytes, POISON, np.uint8))
        return self.pinned_now[-1]

    def unpin(self, memory: NDArray[np.uint8]) -> None:
        memory[:] = FREED
        self.pinned_now = [each for each in self.pinned_now if each is not memory]

    def write(self, address: int, array: NDArray[Any], stream: int | None) -> None:
        assert array.flags.c_contiguous

        def work() -> float:
            self.part(address, array.nbytes)[:] = array.reshape(-1).view(np.uint8)
            return array.nbytes / H2D_BYTES_PER_NS

        self.enqueue(stream, "h2d", work)

    def read(self, address: int, array: NDArray[Any], stream: int | None) -> None:
        assert array.flags.c_contiguous

        def work() -> float:
            array.reshape(-1).view(np.uint8)[:] = self.part(address, array.nbytes)
            return array.nbytes / D2H_BYTES_PER_NS

        self.enqueue(stream, "d2h", work)

    def clear(self, address: int, nbytes: int, byte: int, stream: int | None) -> None:
        def work() -> float:
            self.part(address, nbytes)[:] = byte
            return 0.0

        self.enqueue(stream, "fill", work)

    def copy(self, target: int, source: int, nbytes: int, stream: int | None) -> None:
        def work() -> float:
            self.part(target, nbytes)[:] = self.part(source, nbytes)
            return 0.0

        self.enqueue(stream, "copy", work)

    def record(self, event: Event, stream: int) -> None:
        event.stream, event.at_ns = stream, None

        def work() -> float:
            event.at_ns = self.clock_ns[stream]
            return 0.0

        self.enqueue(stream, "record", work)

    def wait(self, event: Event, stream: int) -> None:
        def work() -> float:
            self._work_until(event)
            self.clock_ns[stream] = max(self.clock_ns[stream], event.at_ns or 0.0)
            return 0.0

        self.enqueue(stream, "wait", work)

    def reached(self, event: Event) -> bool:
        return event.at_ns is not None

    def elapsed_ms(self, begin: Event, end: Event) -> float:
        self._work_until(end)
        assert begin.at_ns is not None and end.at_ns is not None
        return (end.at_ns - begin.at_ns) / 1e6

    def capture(self, stream: int, work: Callable[[], None]) -> list[tuple[str, Callable[[], float]]]:
        self._check_context()
        kept, self.streams[stream] = self.streams[stream], deque()
        self.capturing.add(stream)
        try:
            work()
        finally:
            graph, self.streams[stream] = [*self.streams[stream]], kept
            is_whole = stream in self.capturing
            self.capturing.discard(stream)
        if not is_whole:
            raise FakeGpuError("cuStreamEndCapture failed: the capture was invalidated")
        self.graphs.append(graph)
        return graph

    def replay(self, graph: list[tuple[str, Callable[[], float]]], stream: int) -> None:
        for name, work in graph:
            self.enqueue(stream, name, work)

    def drop_graph(self, graph: list[tuple[str, Callable[[], float]]]) -> None:
        self.graphs = [each for each in self.graphs if each is not graph]
        graph.clear()

    def synchronize(self, stream: int | None) -> None:
        self._check_context()
        if self.capturing & ({*self.streams} if stream is None else {stream}):
            self.capturing.clear()
            raise FakeGpuError("operation not permitted when stream is capturing")
        for each in list(self.streams) if stream is None else [stream]:
            while self.streams[each]:
                self._step(each)

    def enqueue(self, stream: int | None, name: str, work: Callable[[], float]) -> None:
        """Have a stream do something; ``work`` returns the nanoseconds that it takes there."""
        self._check_context()
        if stream is None:
            self.synchronize(None)
            work()
            return
        if stream not in self.streams:
            raise FakeGpuError(f"invalid resource handle: no stream {stream}")
        self.streams[stream].append((name, work))

    def _work_until(self, event: Event) -> None:
        self._check_context()
        if event.stream is None:
            raise FakeGpuError("invalid resource handle: an event that was never recorded")
        while event.at_ns is None:
            self._step(event.stream)

    def _step(self, stream: int) -> None:
        with self._working:
            if not self.streams[stream]:
                return
            name, work = self.streams[stream].popleft()
            self.hook(name)
            try:
                self.clock_ns[stream] += work()
            except FakeGpuError:
                self.lost = True
                raise
            self.log.append((name, stream))

    def _check_context(self) -> None:
        if not self.is_current and not threading.current_thread().name.startswith("owner of "):
            raise FakeGpuError("invalid device context")
        if self.lost:
            raise FakeGpuError(f"{ILLEGAL}: the context was lost before")


def plug_in(*drivers: FakeDriver) -> None:
    """From now on these are the GPUs in this process, ``cuda:0`` or that of its index each. ``unplug`` ends that."""
    unplug()
    cuda = Installed(13, 0, max(driver.index for driver in drivers) + 1)
    for driver in drivers:
        owner = OwnerThread(f"owner of cuda:{driver.index}")
        gpu._open[driver.index] = gpu.Gpu(owner, driver, "a stand-in", cuda, users=1)


def unplug() -> None:
    """No GPU is open any more; threads and memory of one that was are left to Python."""
    while gpu._open:
        gpu._open.popitem()[1].owner.close()


def never() -> None:
    """A wait that does not end."""
    while True:
        time.sleep(3600)
