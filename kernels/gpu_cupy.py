"""CuPy behind ``kernels.gpu_driver.Driver``: the same cubins where PyCUDA, which has to be compiled, is not installed.

Of CuPy only its thin layer over the CUDA runtime and driver is used (``cupy.cuda``): no arrays and no memory pool. The
runtime works in the primary context, which each thread makes its own by naming the device.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.device import Dim3
from kernels.gpu_driver import LOST
from kernels.gpu_graph import CapturesGraphs, GraphError
from plugins.errors import DeviceNotFound


class CuPyDriver(CapturesGraphs):
    """One GPU through CuPy; see ``kernels.gpu_driver.Driver``."""

    def __init__(self, cupy: ModuleType, index: int) -> None:
        """Make GPU ``index`` this thread's current one.

        Raises ``DeviceNotFound`` where CuPy was built for a newer CUDA than the driver's.
        """
        runtime = cupy.cuda.runtime
        built, driver = runtime.runtimeGetVersion() // 1000, runtime.driverGetVersion()
        if built > driver // 1000:
            raise DeviceNotFound(
                f"CuPy was built for CUDA {built}, the driver has CUDA {driver // 1000}.{driver % 1000 // 10}: "
                f"update the driver, or pip install cupy-cuda{driver // 1000}x in its place"
            )
        self._cuda, self._runtime, self._index = cupy.cuda, runtime, index
        driver_error = cupy.cuda.driver.CUDADriverError
        self.errors: tuple[type[Exception], ...] = (runtime.CUDARuntimeError, driver_error, GraphError)
        runtime.setDevice(index)
        facts = runtime.getDeviceProperties(index)
        self.name: str = facts["name"].decode()
        self.architecture = f"sm_{facts['major']}{facts['minor']}"
        self._streams: dict[int, Any] = {}

    def ends_context(self, error: Exception) -> bool:
        return getattr(error, "status", None) in LOST

    def close(self) -> None:
        """The primary context stays: it is not ours alone."""

    @contextmanager
    def current(self) -> Iterator[None]:
        # Stays named: since CUDA 12 naming a GPU makes its primary context, so going back would make one on GPU 0.
        self._runtime.setDevice(self._index)
        yield

    def free_bytes(self) -> int:
        return int(self._runtime.memGetInfo()[0])

    def allocate(self, nbytes: int) -> int:
        return int(self._runtime.malloc(nbytes))

    def release(self, address: int) -> None:
        self._runtime.free(address)

    def load(self, cubin: bytes) -> Any:
        module = self._cuda.function.Module()
        module.load(cubin)
        return module

    def function(self, module: Any, name: str, types: str) -> Any:
        return module.get_function(name)

    def new_stream(self) -> int:
        stream = self._cuda.Stream(non_blocking=True)
        self._streams[int(stream.ptr)] = stream
        return int(stream.ptr)

    def drop_stream(self, stream: int) -> None:
        del self._streams[stream]

    def event(self) -> Any:
        return self._cuda.Event()

    def pinned(self, nbytes: int) -> NDArray[np.uint8]:
        address = self._runtime.hostAlloc(nbytes, 0)
        return np.ctypeslib.as_array((ctypes.c_uint8 * nbytes).from_address(address))

    def unpin(self, memory: NDArray[np.uint8]) -> None:
        self._runtime.freeHost(memory.ctypes.data)

    def write(self, address: int, array: NDArray[Any], stream: int | None) -> None:
        self._copy(address, array.ctypes.data, array.nbytes, self._runtime.memcpyHostToDevice, stream)

    def read(self, address: int, array: NDArray[Any], stream: int | None) -> None:
        self._copy(array.ctypes.data, address, array.nbytes, self._runtime.memcpyDeviceToHost, stream)

    def clear(self, address: int, nbytes: int, byte: int, stream: int | None) -> None:
        self._runtime.memsetAsync(address, byte, nbytes, stream or 0)

    def copy(self, target: int, source: int, nbytes: int, stream: int | None) -> None:
        self._copy(target, source, nbytes, self._runtime.memcpyDeviceToDevice, stream)

    def start(self, function: Any, grid: Dim3, block: Dim3, args: Sequence[np.generic], stream: int | None) -> None:
        function(grid, block, tuple(args), stream=self._cuda.Stream.null if stream is None else self._streams[stream])

    def synchronize(self, stream: int | None) -> None:
        if stream is None:
            self._runtime.deviceSynchronize()
        else:
            self._runtime.streamSynchronize(stream)

    def record(self, event: Any, stream: int) -> None:
        event.record(self._streams[stream])

    def wait(self, event: Any, stream: int) -> None:
        self._streams[stream].wait_event(event)

    def reached(self, event: Any) -> bool:
        return bool(event.done)

    def elapsed_ms(self, begin: Any, end: Any) -> float:
        end.synchronize()
        return float(self._cuda.get_elapsed_time(begin, end))

    def _copy(self, target: int, source: int, nbytes: int, kind: int, stream: int | None) -> None:
        self._runtime.memcpyAsync(target, source, nbytes, kind, stream or 0)
