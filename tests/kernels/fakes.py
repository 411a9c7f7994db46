"""Stand-ins for a compiler, a driver, PyCUDA and CuPy that keep the rules of the real ones and remember what was asked.

They stand for the libraries' side of the contract as their documentation tells it, nothing here says that a GPU works.
"""

from __future__ import annotations

import atexit
import ctypes
import hashlib
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np

from kernels.compilers import Compiled, CompileError, KernelSource

MEMORY_BYTES = 1 << 16
"""What a fake GPU has."""
ERRORS = {
    1: "invalid argument",
    2: "out of memory",
    100: "no CUDA-capable device is detected",
    201: "invalid device context",
    700: "an illegal memory access was encountered",
    719: "unspecified launch failure",
    803: "driver / library mismatch",
}
"""What the driver calls its errors, by their codes."""


@dataclass
class FakeCompiler:
    """Its cubin is a sum of what it was given; it remembers what it compiled."""

    label: str = "Fake 13.0"
    identity: str = "Fake 13.0.1"
    major: int = 13
    architectures: tuple[str, ...] = ("sm_75", "sm_80", "sm_86", "sm_90")
    compiled: list[str] = field(default_factory=list)
    before: threading.Barrier | None = None

    def compile(self, source: KernelSource, architecture: str) -> Compiled:
        self.compiled.append(f"{source.name} {architecture}")
        if self.before is not None:
            self.before.wait(30)
        if "broken" in source.text:
            raise CompileError("Fake 13.0 cannot compile it")
        text = f"{self.identity} {architecture} {source}"
        return Compiled(b"\x7fELF" + hashlib.sha512(text.encode()).digest() * 9, "")


@dataclass
class FakeLibcuda:
    """libcuda.so.1 as ctypes shows it."""

    version: int = 13000
    gpus: int = 2
    init: int = 0

    def cuInit(self, flags: int) -> int:
        return self.init

    def cuDriverGetVersion(self, version: Any) -> int:
        version._obj.value = self.version
        return 0

    def cuDeviceGetCount(self, count: Any) -> int:
        count._obj.value = self.gpus
        return 0

    def cuGetErrorString(self, code: int, text: Any) -> int:
        text._obj.value = ERRORS[code].encode() if code in ERRORS else None
        return 0 if code in ERRORS else 1


@dataclass(frozen=True)
class Launch:
    function: str
    grid: tuple[int, ...]
    block: tuple[int, ...]
    args: tuple[Any, ...]
    stream: int | None
    thread: str


class FakeError(Exception):
    """cuda.Error: PyCUDA's errors carry no code, only the driver's text."""

    def __init__(self, call: str, text: str) -> None:
        super().__init__(f"{call} failed: {text}")


class FakeCuPyError(FakeError):
    """CuPy's, which have the code."""

    def __init__(self, call: str, text: str) -> None:
        super().__init__(call, text)
        self.status = next(code for code, known in ERRORS.items() if known == " ".join(text.split()))


class Gpu:
    """One GPU's memory, streams and clock, and the context that a thread must have current."""

    def __init__(self) -> None:
        self.memory: dict[int, bytearray] = {}
        self.pinned = 0
        """Pieces of page-locked memory that have not been freed."""
        self.launches: list[Launch] = []
        self.calls: list[str] = []
        self.loaded: list[bytes] = []
        self.streams: set[int] = set()
        self.next_address, self.next_stream = 0x7000, 0x10
        self.clock_ms = self.last_ms = 0.0
        self.fail: dict[str, str] = {}
        self.blocking = 0
        """Streams that would wait for the default one."""
        self.current: Callable[[], bool] = lambda: False
        self.lost = False
        self.error: type[FakeError] = FakeError
        """What the library raises."""
        self.named: list[int] = []
        """The GPUs that were asked for, in order."""
        self.queued: list[tuple[str, int | None]] = []
        """Copies on the GPU, events and launches, each with its stream."""
        self.late = 0
        """How many more times all events but the last have been reached by the time that is asked."""

    def call(self, name: str) -> None:
        """Every call to the driver: recorded, refused without the context, or with what the test says."""
        self.calls.append(f"{name} in {threading.current_thread().name}")
        if not self.current():
            raise self.error(name, "invalid device context")
        if self.lost:
            raise self.error(name, "an illegal memory access was encountered")
        if name in self.fail:
            raise self.error(name, self.fail[name])

    def record(self, stream: int | None) -> float:
        """Milliseconds at which an event is reached."""
        self.queued.append(("event", stream))
        self.last_ms, self.clock_ms = self.clock_ms, self.clock_ms + 0.5
        return self.last_ms

    def wait(self, stream: int, event: Any) -> None:
        """A stream waits for an event that was recorded."""
        assert hasattr(event, "at")
        self.queued.append(("wait", stream))

    def reached(self, at: float) -> bool:
        self.late -= 1
        return self.late >= 0 and at < self.last_ms

    def allocate(self, nbytes: int) -> int:
        if nbytes + sum(map(len, self.memory.values())) > MEMORY_BYTES:
            raise self.error("cuMemAlloc", "out of memory")
        address, self.next_address = self.next_address, self.next_address + nbytes + 256
        self.memory[address] = bytearray(nbytes)
        return address

    def part(self, address: int, nbytes: int) -> memoryview:
        """Memory from ``address`` on; asserts that it lies in one allocation."""
        [(base, data)] = [each for each in self.memory.items() if each[0] <= address < each[0] + len(each[1])]
        assert address + nbytes <= base + len(data)
        return memoryview(data)[address - base :][:nbytes]


class HostAllocation:
    """PyCUDA's PagelockedHostAllocation: the base of an array, which frees it."""

    def __init__(self, gpu: Gpu, nbytes: int) -> None:
        self._gpu, self._memory = gpu, ctypes.create_string_buffer(nbytes)
        self.__array_interface__ = {
            "data": (ctypes.addressof(self._memory), False),
            "shape": (nbytes,),
            "typestr": "|u1",
            "version": 3,
        }
        self.array = np.asarray(self)

    def free(self) -> None:
        self._gpu.call("cuMemFreeHost")
        self._gpu.pinned -= 1


class FakePyCuda:
    """pycuda.driver. Contexts are on a stack per thread; using or freeing a thing without one on top is an error.

    Where the driver refuses to free, PyCUDA writes to stderr and goes on. A primary context is released where it is
    detached; one that is dropped is not, and cuCtxDetach takes somebody else's reference.
    """

    def __init__(self, gpu: Gpu, built: int = 13, version: int = 13000) -> None:
        self.gpu, self._built, self._version = gpu, built, version
        self.Error = FakeError
        self.stack = threading.local()
        gpu.current = lambda: bool(getattr(self.stack, "pushed", 0))
        self.retained = self.released = 0
        self.Device, self.Context = self._devices(gpu)
        self.Stream, self.Event = self._streams(gpu, self._clean_up)
        self._module, self._allocation = self._modules(gpu, self._clean_up)

    def _clean_up(self, name: str) -> None:
        if not self.gpu.current():
            raise FakeError(name, "invalid device context")
        try:
            self.gpu.call(name)
        except FakeError as error:
            print(f"PyCUDA WARNING: a clean-up operation failed (dead context maybe?)\n{error}", file=sys.stderr)

    def _devices(self, gpu: Gpu) -> tuple[type[Any], type[Any]]:
        cuda = self

        class Device:
            def __init__(self, index: int) -> None:
                gpu.named.append(index)

            def name(self) -> str:
                return "Fake H200"

            def compute_capability(self) -> tuple[int, int]:
                return (9, 0)

            def retain_primary_context(self) -> Any:
                cuda.retained += 1
                return Context()

        class Context:
            valid = True

            def __del__(self) -> None:
                if self.valid:
                    print("PyCUDA WARNING: a clean-up operation failed\ncuCtxDetach failed", file=sys.stderr)

            def detach(self) -> None:
                Context.pop()
                self.valid = False
                cuda.released += 1

            def push(self) -> None:
                cuda.stack.pushed = getattr(cuda.stack, "pushed", 0) + 1

            @staticmethod
            def pop() -> None:
                assert cuda.stack.pushed > 0
                cuda.stack.pushed -= 1

            @staticmethod
            def synchronize() -> None:
                gpu.call("cuCtxSynchronize")

        return Device, Context

    @staticmethod
    def _streams(gpu: Gpu, clean_up: Callable[[str], None]) -> tuple[type[Any], type[Any]]:
        class Stream:
            def __init__(self, flags: int = 0) -> None:
                gpu.call("cuStreamCreate")
                gpu.blocking += flags == 0
                self.handle, gpu.next_stream = gpu.next_stream, gpu.next_stream + 8
                gpu.streams.add(self.handle)
                # No method: a traceback must not keep the stream alive, as it would not keep the real one.
                self.synchronize = lambda: gpu.call("cuStreamSynchronize")
                self.wait_for_event = partial(gpu.wait, self.handle)

            def __del__(self) -> None:
                clean_up("cuStreamDestroy")
                gpu.streams.remove(self.handle)

        class Event:
            def __init__(self) -> None:
                gpu.call("cuEventCreate")

            def __del__(self) -> None:
                clean_up("cuEventDestroy")

            def record(self, stream: Stream) -> Any:
                gpu.call("cuEventRecord")
                self.at = gpu.record(stream.handle)
                return self

            def query(self) -> bool:
                gpu.call("cuEventQuery")
                return gpu.reached(self.at)

            def synchronize(self) -> Any:
                gpu.call("cuEventSynchronize")
                return self

            def time_till(self, other: Any) -> float:
                return float(other.at - self.at)

        return Stream, Event

    @staticmethod
    def _modules(gpu: Gpu, clean_up: Callable[[str], None]) -> tuple[type[Any], type[Any]]:
        class Function:
            def __init__(self, name: str) -> None:
                self.name = name

            def prepare(self, types: str) -> Any:
                self.types = types
                return self

            def prepared_async_call(self, grid: Any, block: Any, stream: Any, *args: Any) -> None:
                gpu.call("cuLaunchKernel")
                assert "".join(arg.dtype.char for arg in args) == self.types
                handle = None if stream is None else stream.handle
                gpu.queued.append(("launch", handle))
                gpu.launches.append(Launch(self.name, grid, block, args, handle, threading.current_thread().name))

        class Module:
            def __del__(self) -> None:
                clean_up("cuModuleUnload")

            def get_function(self, name: str) -> Any:
                gpu.call("cuModuleGetFunction")
                return Function(name)

        class Allocation:
            def __init__(self, nbytes: int) -> None:
                self.address = gpu.allocate(nbytes)

            def __int__(self) -> int:
                return self.address

            def free(self) -> None:
                clean_up("cuMemFree")
                del gpu.memory[self.address]

        return Module, Allocation

    def init(self) -> None: ...

    def get_version(self) -> tuple[int, int, int]:
        return (self._built, 0, 0)

    def get_driver_version(self) -> int:
        return self._version

    def mem_get_info(self) -> tuple[int, int]:
        self.gpu.call("cuMemGetInfo")
        return MEMORY_BYTES - sum(map(len, self.gpu.memory.values())), MEMORY_BYTES

    def mem_alloc(self, nbytes: int) -> Any:
        self.gpu.call("cuMemAlloc")
        return self._allocation(nbytes)

    def pagelocked_empty(self, shape: int, dtype: Any) -> Any:
        self.gpu.call("cuMemHostAlloc")
        self.gpu.pinned += 1
        return HostAllocation(self.gpu, shape).array

    def module_from_buffer(self, cubin: bytes) -> Any:
        self.gpu.call("cuModuleLoadDataEx")
        self.gpu.loaded.append(cubin)
        return self._module()

    def memcpy_htod_async(self, dest: int, src: Any, stream: Any = None) -> None:
        self.gpu.call("cuMemcpyHtoDAsync")
        self.gpu.part(dest, src.nbytes)[:] = src.tobytes()

    def memcpy_dtoh_async(self, dest: Any, src: int, stream: Any = None) -> None:
        self.gpu.call("cuMemcpyDtoHAsync")
        dest.reshape(-1).view(np.uint8)[:] = np.frombuffer(self.gpu.part(src, dest.nbytes), np.uint8)

    def memcpy_dtod_async(self, dest: int, src: int, size: int, stream: Any = None) -> None:
        self.gpu.call("cuMemcpyDtoDAsync")
        self.gpu.queued.append(("copy", None if stream is None else stream.handle))
        self.gpu.part(dest, size)[:] = bytes(self.gpu.part(src, size))

    def memset_d8_async(self, dest: int, data: int, size: int, stream: Any = None) -> None:
        self.gpu.call("cuMemsetD8Async")
        self.gpu.part(dest, size)[:] = bytes([data]) * size


def _cupy_streams(gpu: Gpu, ending: list[bool]) -> tuple[type[Any], type[Any]]:
    class Stream:
        null = SimpleNamespace(ptr=0)

        def __init__(self, non_blocking: bool = False) -> None:
            gpu.call("cudaStreamCreate")
            gpu.blocking += not non_blocking
            self.ptr, gpu.next_stream = gpu.next_stream, gpu.next_stream + 8
            gpu.streams.add(self.ptr)

        def wait_event(self, event: Any) -> None:
            gpu.call("cudaStreamWaitEvent")
            gpu.wait(self.ptr, event)

        def __del__(self) -> None:
            if not ending:
                gpu.call("cudaStreamDestroy")
                gpu.streams.remove(self.ptr)

    class Event:
        def __init__(self) -> None:
            gpu.call("cudaEventCreate")

        def __del__(self) -> None:
            if not ending:
                gpu.call("cudaEventDestroy")

        def record(self, stream: Any) -> None:
            gpu.call("cudaEventRecord")
            self.at = gpu.record(stream.ptr)

        @property
        def done(self) -> bool:
            return gpu.reached(self.at)

        def synchronize(self) -> None:
            gpu.call("cudaEventSynchronize")

    return Stream, Event


def _cupy_module(gpu: Gpu) -> type[Any]:
    class Function:
        def __init__(self, name: str) -> None:
            self.name = name

        def __call__(self, grid: Any, block: Any, args: Any, shared_mem: int = 0, stream: Any = None) -> None:
            gpu.call("cuLaunchKernel")
            handle = stream.ptr or None
            gpu.queued.append(("launch", handle))
            gpu.launches.append(Launch(self.name, grid, block, args, handle, threading.current_thread().name))

    class Module:
        def __del__(self) -> None:
            gpu.call("cuModuleUnload")

        def load(self, cubin: bytes) -> None:
            gpu.call("cuModuleLoadData")
            gpu.loaded.append(cubin)

        def get_function(self, name: str) -> Any:
            gpu.call("cuModuleGetFunction")
            return Function(name)

    return Module


def _cupy_memory(gpu: Gpu) -> dict[str, Any]:
    def malloc(nbytes: int) -> int:
        gpu.call("cudaMalloc")
        return gpu.allocate(nbytes)

    def free(address: int) -> None:
        gpu.call("cudaFree")
        del gpu.memory[address]

    def memcpy(target: int, source: int, nbytes: int, kind: int, stream: int) -> None:
        gpu.call("cudaMemcpyAsync")
        data = ctypes.string_at(source, nbytes) if kind == 1 else bytes(gpu.part(source, nbytes))
        if kind == 2:
            ctypes.memmove(target, data, nbytes)
        else:
            gpu.part(target, nbytes)[:] = data
        if kind == 3:
            gpu.queued.append(("copy", stream or None))

    def memset(address: int, byte: int, nbytes: int, stream: int) -> None:
        gpu.call("cudaMemsetAsync")
        gpu.part(address, nbytes)[:] = bytes([byte]) * nbytes

    hosts: dict[int, Any] = {}

    def host_alloc(nbytes: int, flags: int) -> int:
        gpu.call("cudaHostAlloc")
        gpu.pinned += 1
        memory = ctypes.create_string_buffer(nbytes)
        hosts[ctypes.addressof(memory)] = memory
        return ctypes.addressof(memory)

    def free_host(address: int) -> None:
        gpu.call("cudaFreeHost")
        gpu.pinned -= 1
        del hosts[address]

    calls = {"malloc": malloc, "free": free, "memcpyAsync": memcpy, "memsetAsync": memset}
    return calls | {"hostAlloc": host_alloc, "freeHost": free_host}


def fake_cupy(gpu: Gpu, built: int = 13, version: int = 13000) -> ModuleType:
    """The module cupy, of which cupy.cuda is all. A thread has no device until it has named one.

    Streams and events leave the driver alone once Python ends; modules do not.
    """
    devices = threading.local()
    gpu.current = lambda: hasattr(devices, "index")
    gpu.error = FakeCuPyError
    ending: list[bool] = []
    atexit.register(ending.append, True)

    def name_device(index: int) -> None:
        gpu.named.append(index)
        devices.index = index

    Stream, Event = _cupy_streams(gpu, ending)
    runtime = SimpleNamespace(
        CUDARuntimeError=FakeCuPyError,
        memcpyHostToDevice=1,
        memcpyDeviceToHost=2,
        memcpyDeviceToDevice=3,
        runtimeGetVersion=lambda: built * 1000,
        driverGetVersion=lambda: version,
        setDevice=name_device,
        getDeviceProperties=lambda index: {"name": b"Fake H200", "major": 9, "minor": 0},
        memGetInfo=lambda: (MEMORY_BYTES - sum(map(len, gpu.memory.values())), MEMORY_BYTES),
        **_cupy_memory(gpu),
        deviceSynchronize=lambda: gpu.call("cudaDeviceSynchronize"),
        streamSynchronize=lambda stream: gpu.call("cudaStreamSynchronize"),
    )
    cupy = ModuleType("cupy")
    cupy.__version__ = "14.2.0"  # type: ignore[attr-defined]
    cupy.cuda = SimpleNamespace(  # type: ignore[attr-defined]
        runtime=runtime,
        driver=SimpleNamespace(CUDADriverError=FakeCuPyError),
        function=SimpleNamespace(Module=_cupy_module(gpu)),
        Stream=Stream,
        Event=Event,
        get_elapsed_time=lambda begin, end: end.at - begin.at,
    )
    return cupy
