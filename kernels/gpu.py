"""A GPU as a ``Device``: cubins from ``kernels/compile.py``, run through PyCUDA, or CuPy where PyCUDA is not installed.

One thread per GPU, its *owner*, holds the primary context and makes and frees everything in it: memory, streams,
events, modules. Launches, copies and waits, the calls of the hot path, are made in the caller's own thread with that
context current for the call: a change of threads costs more than a launch, and a lane that waits for its stream inside
the one owner would hold up all others. CUDA takes calls from any thread; that PyCUDA does too is said in
``kernels/gpu_pycuda.py``.
"""

from __future__ import annotations

import ctypes
import math
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from kernels.compile import cubin
from kernels.compilers import WHEELS, Compiler, architecture_for, find_compiler
from kernels.device import Buffer, Device, DeviceError, Dim3
from kernels.gpu_driver import Driver, OwnerThread
from kernels.gpu_library import find_library, one_line
from kernels.gpu_stopwatch import Stopwatch
from plugins.driver import Installed, installed_driver, no_such_gpu
from plugins.errors import DeviceNotFound

_T = TypeVar("_T")


@dataclass
class Gpu:
    """What all ``GpuDevice`` of one GPU in this process share: the owner, the driver and the loaded kernels."""

    owner: OwnerThread
    driver: Driver
    library: str
    """Name and version of what reaches it."""
    cuda: Installed
    compiler: Compiler | None = None
    """For kernels; found when somebody opens it who has some."""
    functions: dict[tuple[str, str], Any] = field(default_factory=dict)
    modules: dict[str, Any] = field(default_factory=dict)
    users: int = 0
    starting: threading.RLock = field(default_factory=threading.RLock)
    """Held while a graph is captured, and by whoever waits for all streams: CUDA forbids that meanwhile, and would end
    the capture. Never taken in the owner's thread, for which its holder may be waiting."""

    @property
    def target(self) -> str:
        """The architecture that its kernels are compiled for."""
        return architecture_for(self.driver.architecture, self.compiler) if self.compiler else ""

    @property
    def details(self) -> str:
        """See ``GpuDevice.details``."""
        said = (
            f"{self.driver.name} ({self.driver.architecture}) through {self.library}, driver with CUDA "
            f"{self.cuda.major}.{self.cuda.minor}"
        )
        return f"{said}, kernels for {self.target} by {self.compiler.label}" if self.compiler else said


_open: dict[int, Gpu] = {}
_opening = threading.Lock()


class GpuDevice(Device):
    """One GPU. Threads may share it, each with a stream of its own; one that only waits holds up nobody.

    Its streams are those of ``new_stream``; no other library's handle can be used, since PyCUDA has no way to take one.
    They do not wait for the default stream, where other libraries work unless told otherwise, nor does that for them.
    So a copy or a fill without a stream comes behind all that was started before, and has ended when it returns.
    """

    def __init__(self, gpu: Gpu, index: int) -> None:
        """Made by ``open_device``."""
        self._gpu = gpu
        self.index = index
        """CUDA's number of the GPU in this process."""
        self._owner, self._driver = gpu.owner, gpu.driver
        self.name, self.architecture = gpu.driver.name, gpu.driver.architecture
        self.starting = gpu.starting
        """See ``Gpu``."""
        self.details = gpu.details
        """One line: GPU, library, driver's CUDA and compiler in use."""
        self._addresses: set[int] = set()
        self._pinned: list[NDArray[np.uint8]] = []
        self._events: list[Any] = []
        """All of them: they are destroyed in the owner's thread, so nobody's may be the last reference."""
        self._signals: dict[int, Any] = {}
        self._graphs: list[Any] = []
        self._streams: dict[int, list[NDArray[Any]]] = {}
        """By stream, the arrays that copies which nobody has waited for yet may still read."""
        self._stopwatch: Stopwatch | None = None
        self._last = "nothing launched yet"
        self._lost = self._closed = False

    def allocate(self, nbytes: int) -> int:
        self._check_open()
        try:
            address = self._owner(lambda: self._driver.allocate(nbytes))
        except self._driver.errors as error:
            raise DeviceError(
                f"{self.name} cannot give {nbytes} bytes ({self._free()}): {one_line(error)};"
                " use a smaller batch, or end what else uses the GPU"
            ) from error
        self._addresses.add(address)
        return address

    def release(self, address: int) -> None:
        def free() -> None:
            # Raises where a kernel has failed; PyCUDA's freeing would not, but print that it was refused.
            self._driver.synchronize(None)
            self._driver.release(address)

        if self._closed:
            return  # all memory was freed then
        self._addresses.discard(address)
        if not self._lost:
            with self.starting:
                self._translated("freeing memory", lambda: self._owner(free))
            return
        # Where the context is lost its memory is too, and a second error would hide the first.
        with suppress(*self._driver.errors):
            self._owner(free)

    def write(self, address: int, array: NDArray[Any], stream: int | None) -> None:
        """Start a copy to the GPU. The array is kept, and must not change, until the stream has been waited for."""
        self._move("a copy to the GPU", stream, lambda: self._driver.write(address, array, stream))
        if stream is not None:
            self._streams[stream].append(array)

    def read(self, address: int, array: NDArray[Any], stream: int | None) -> None:
        def read() -> None:
            self._driver.read(address, array, stream)
            self._driver.synchronize(stream)

        self._move("a copy from the GPU", stream, read)
        if stream is not None:
            self._streams[stream].clear()

    def clear(self, address: int, nbytes: int, byte: int, stream: int | None) -> None:
        self._move("a fill", stream, lambda: self._driver.clear(address, nbytes, byte, stream))

    def gather(self, target: Buffer, sources: Sequence[Buffer], stream: int | None = None) -> None:
        """Start copying all of ``sources``, one behind the other, to the start of ``target``, all of this device."""
        for source in sources:
            self._check(source, source.nbytes)
        self._check(target, sum(source.nbytes for source in sources))

        def gather() -> None:
            address = target.address
            for source in sources:
                self._driver.copy(address, source.address, source.nbytes, stream)
                address += source.nbytes

        self._move("a copy", stream, gather)

    def start(
        self, module: str, function: str, grid: Dim3, block: Dim3, args: Sequence[np.generic], stream: int | None
    ) -> None:
        kernel = self._gpu.functions.get((module, function))
        if kernel is None:
            types = "".join(arg.dtype.char for arg in args)
            kernel = self._translated(
                f"loading {function}", lambda: self._owner(partial(self._load, module, function, types))
            )
        self._call(f"the launch of {function}", stream, lambda: self._driver.start(kernel, grid, block, args, stream))
        self._last = f"last launched was {function}"

    def new_stream(self) -> int:
        stream = self._in_owner("a new stream", self._driver.new_stream)
        self._streams[stream] = []
        return stream

    def synchronize(self, stream: int | None = None) -> None:
        # Of the others, too, where all are waited for; but not what another thread sends meanwhile.
        sent = [(kept, len(kept)) for each, kept in list(self._streams.items()) if stream in (None, each)]
        with self.starting if stream is None else nullcontext():
            self._call("waiting", stream, lambda: self._driver.synchronize(stream))
        for kept, count in sent:
            del kept[:count]

    def pinned(self, shape: Sequence[int], dtype: str) -> NDArray[Any]:
        """Page-locked memory of the host, until ``unpin`` or ``close``. Raises ``DeviceError`` where there is none."""
        nbytes = math.prod(shape) * np.dtype(dtype).itemsize
        doing = f"{nbytes} bytes of page-locked memory"
        memory = self._in_owner(doing, lambda: self._driver.pinned(max(1, nbytes)))
        self._pinned.append(memory)
        return memory[:nbytes].view(dtype).reshape(shape)

    def unpin(self, array: NDArray[Any]) -> None:
        """Free what ``pinned`` gave, which nobody may look at any more; no copy of it may be under way."""
        address = array.ctypes.data
        memory = next(each for each in self._pinned if each.ctypes.data == address)
        self._pinned = [each for each in self._pinned if each is not memory]
        self._in_owner("freeing page-locked memory", lambda: self._driver.unpin(memory))

    def event(self) -> Any:
        """One of the library's events, to be used within ``call``."""
        event = self._in_owner("a new event", self._driver.event)
        self._events.append(event)
        return event

    def signal(self, stream: int) -> Any:
        event = self._signals.get(stream) or self._signals.setdefault(stream, self.event())
        self.call("an event", stream, lambda driver: driver.record(event, stream))
        return event

    def call(self, doing: str, stream: int, work: Callable[[Driver], _T]) -> _T:
        """Do several things on a stream at once: ``work`` calls the driver itself, in this thread.

        What it copies it has to keep until the stream has been waited for. Raises as all of this class's methods.
        """
        return self._call(doing, stream, lambda: work(self._driver))

    def capture(self, stream: int, work: Callable[[], None]) -> Any:
        """A graph of what ``work`` starts on the stream, to be started by ``replay``; none of it runs meanwhile.

        Only what this thread does can spoil it: devices of this GPU that would wait for all streams wait for its end.
        It holds the addresses that were given then.
        """
        with self.starting:
            graph = self._call("capturing a graph", stream, lambda: self._driver.capture(stream, work))
        self._graphs.append(graph)
        return graph

    def replay(self, graph: Any, stream: int) -> None:
        """Start all that a graph has."""
        self._call("a graph", stream, lambda: self._driver.replay(graph, stream))

    def drop_graph(self, graph: Any) -> None:
        """Free a graph, which may not be under way."""
        self._graphs.remove(graph)
        self._call("freeing a graph", None, lambda: self._driver.drop_graph(graph))

    def free_bytes(self) -> int:
        """Memory that nobody uses."""
        return self._in_owner("asking for its memory", self._driver.free_bytes)

    @contextmanager
    def current(self) -> Iterator[None]:
        with ExitStack() as stack:
            self._translated("making it current", lambda: stack.enter_context(self._driver.current()))
            yield

    def timed_ms(self, work: Callable[[int], None]) -> float | None:
        """See ``Stopwatch.timed_ms``."""
        if self._stopwatch is None:
            self._stopwatch = Stopwatch(self)
        return self._stopwatch.timed_ms(work)

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        with _opening:
            with self.starting:
                freed = self._owner(self._free_all)
            self._gpu.users -= 1
            if not self._gpu.users:
                del _open[self.index]
                # In a lost context the owner stays, too: PyCUDA ends the process where a thread cannot pop its context.
                if freed:
                    self._owner(self._unload)
                    self._owner.close()

    def _load(self, module: str, function: str, types: str) -> Any:
        """In the owner's thread."""
        if module not in self._gpu.modules:
            assert self._gpu.compiler is not None, "opened without kernels"
            code = cubin(module, self._gpu.target, self._gpu.compiler)
            self._gpu.modules[module] = self._driver.load(code)
        kernel = self._driver.function(self._gpu.modules[module], function, types)
        self._gpu.functions[module, function] = kernel
        return kernel

    def _free_all(self) -> bool:
        """In the owner's thread: free what this device holds. False where the context is lost: all is kept then."""
        try:
            self._driver.synchronize(None)
            for address in self._addresses:
                self._driver.release(address)
        except self._driver.errors:
            _never_destroy((self._gpu, self._events, self._pinned, self._graphs))
            return False
        for memory in self._pinned:
            self._driver.unpin(memory)
        for graph in self._graphs:
            self._driver.drop_graph(graph)
        self._stopwatch = None
        self._graphs.clear()
        self._pinned.clear()
        self._signals.clear()
        self._events.clear()
        for stream in self._streams:
            self._driver.drop_stream(stream)
        self._addresses.clear()
        self._streams.clear()
        return True

    def _unload(self) -> None:
        """In the owner's thread: what the last device of a GPU leaves."""
        self._gpu.functions.clear()
        self._gpu.modules.clear()
        self._driver.close()

    def _free(self) -> str:
        try:
            return f"{self._owner(self._driver.free_bytes)} are free"
        except self._driver.errors:
            return "how many are free cannot be told"

    def _move(self, doing: str, stream: int | None, work: Callable[[], None]) -> None:
        """Run ``work`` on a stream; without one between all that was started before and all that comes."""

        def alone() -> None:
            with self.starting:
                self._driver.synchronize(None)
                work()
                self._driver.synchronize(None)

        self._call(doing, stream, alone if stream is None else work)

    def _call(self, doing: str, stream: int | None, work: Callable[[], _T]) -> _T:
        """Run ``work`` in this thread with the context current, on a stream that must be one of this device."""
        self._check_open()
        if stream is not None and stream not in self._streams:
            raise ValueError(f"stream {stream} is not one of {self.name}; make one with new_stream()")

        def within() -> _T:
            with self._driver.current():
                return work()

        return self._translated(doing, within)

    def _check_open(self) -> None:
        if self._closed:
            raise DeviceError(f"{self.name} has been closed")

    def _in_owner(self, doing: str, work: Callable[[], _T]) -> _T:
        """Make something, in the owner's thread; there is none any more behind a device that was closed."""
        self._check_open()
        return self._translated(doing, lambda: self._owner(work))

    def _translated(self, doing: str, work: Callable[[], _T]) -> _T:
        """Run ``work``; what the driver says becomes a ``DeviceError`` in one line."""
        try:
            return work()
        except self._driver.errors as error:
            # Kernels fail after their launch: what the driver refuses now may be an earlier one's doing.
            self._lost |= self._driver.ends_context(error)
            # Without its traceback, whose frames hold PyCUDA's streams: those must not outlive this device.
            told = error.with_traceback(None)
            raise DeviceError(f"{self.name}, {doing}: {one_line(error)} ({self._last})") from told


def open_device(name: str, *, with_kernels: bool = True) -> GpuDevice:
    """Open a GPU by its name: ``cuda:0``, or ``cuda`` or ``gpu`` for the first. PyCUDA where installed, else CuPy.

    ``details`` of what is returned says which; the environment variable ``SUT_CUDA_LIBRARY`` insists on one. Opening a
    GPU again in the same process gives a device with memory and streams of its own on the same context. No compiler has
    to be there for one that is opened not ``with_kernels``. Raises
    ``ValueError`` for another name or library, ``DeviceNotFound`` where there is no driver, no such GPU or one that
    cannot be used, and ``ModuleNotFoundError`` where a package is missing.
    """
    match = re.fullmatch(r"(?:cuda|gpu)(?::(\d+))?", name)
    if not match:
        raise ValueError(f"unknown device '{name}', expected cuda, or cuda:N for another GPU than the first")
    index = int(match[1] or 0)
    with _opening:
        gpu = _open.get(index) or _opened(index)
        try:
            if with_kernels and gpu.compiler is None:
                gpu.compiler = find_compiler(gpu.cuda.major, gpu.driver.architecture)
        except (DeviceNotFound, ModuleNotFoundError):
            if not gpu.users:
                gpu.owner(gpu.driver.close)
                gpu.owner.close()
            raise
        device = GpuDevice(gpu, index)
        _open[index] = gpu
        gpu.users += 1
    return device


def _opened(index: int) -> Gpu:
    installed = installed_driver()
    if missing := no_such_gpu(installed, index):
        raise DeviceNotFound(missing)
    if installed.major < min(WHEELS):
        raise DeviceNotFound(
            f"the NVIDIA driver has CUDA {installed.major}.{installed.minor}, at least {min(WHEELS)} is needed:"
            " update the driver"
        )
    make, label = find_library(installed.major)
    owner = OwnerThread(f"owner of cuda:{index}")
    try:
        driver = owner(lambda: make(index))
    except Exception as error:
        owner.close()
        if isinstance(error, DeviceNotFound):
            raise
        raise DeviceNotFound(f"cuda:{index} cannot be opened through {label}: {one_line(error)}") from error
    return Gpu(owner, driver, label, installed)


def _never_destroy(thing: object) -> None:
    """Keep what was made in a context that has been lost since.

    Nothing of it can be freed, and the destructors of both libraries would print that the driver refused: PyCUDA's as
    warnings, CuPy's as errors that Python ignores. CuPy's modules do so even when Python ends and clears its variables,
    so a reference is counted that nobody gives back.
    """
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))
