"""PyCUDA behind ``kernels.gpu_driver.Driver``: the primary context, which ONNX Runtime, DALI and CuPy share.

PyCUDA frees what it made (memory, streams, events, modules) only where its context is current: in the thread that made
the context, or in one that has pushed it. A thread that ends with a context pushed ends the process. So the owner's
thread makes and frees everything, and other threads push the context for one call and pop it again.
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
from plugins.driver import error_text
from plugins.errors import DeviceNotFound

NON_BLOCKING = 1
"""CU_STREAM_NON_BLOCKING of cuda.h, which PyCUDA has no name for."""


class PyCudaDriver(CapturesGraphs):
    """One GPU through PyCUDA; see ``kernels.gpu_driver.Driver``."""

    def __init__(self, cuda: ModuleType, index: int) -> None:
        """Make the primary context of GPU ``index`` current in this thread. ``cuda`` is the module pycuda.driver.

        Raises ``DeviceNotFound`` where PyCUDA was built with a newer CUDA than the driver's.
        """
        cuda.init()
        built, driver = cuda.get_version()[0], cuda.get_driver_version()
        if built > driver // 1000:
            raise DeviceNotFound(
                f"PyCUDA was built with CUDA {built}, the driver has CUDA {driver // 1000}.{driver % 1000 // 10}: "
                f"update the driver, or install PyCUDA anew with a CUDA {driver // 1000} toolkit on the path"
            )
        self._cuda = cuda
        self.errors: tuple[type[Exception], ...] = (cuda.Error, GraphError)
        library = ctypes.CDLL("libcuda.so.1")
        self._lost_texts = tuple(text for code in LOST if (text := error_text(library, code)))
        device = cuda.Device(index)
        self.name: str = device.name()
        self.architecture = "sm_{}{}".format(*device.compute_capability())
        self._context = device.retain_primary_context()
        self._context.push()
        self._memory: dict[int, Any] = {}
        self._streams: dict[int, Any] = {}

    def ends_context(self, error: Exception) -> bool:
        # PyCUDA's errors have no code, but the driver's own text: "cuLaunchKernel failed: TEXT", or "... TEXT - more".
        text = str(error).partition(" failed: ")[2]
        return any(text == lost or text.startswith(f"{lost} - ") for lost in self._lost_texts)

    def close(self) -> None:
        # Releases the primary context, and pops it. Dropped without that, PyCUDA's object would call cuCtxDetach: a
        # warning, and at worst a reference less for those who share the context.
        self._context.detach()
        del self._context

    @contextmanager
    def current(self) -> Iterator[None]:
        self._context.push()
        try:
            yield
        finally:
            self._cuda.Context.pop()

    def free_bytes(self) -> int:
        return int(self._cuda.mem_get_info()[0])

    def allocate(self, nbytes: int) -> int:
        allocation = self._cuda.mem_alloc(nbytes)
        self._memory[int(allocation)] = allocation
        return int(allocation)

    def release(self, address: int) -> None:
        self._memory.pop(address).free()

    def load(self, cubin: bytes) -> Any:
        return self._cuda.module_from_buffer(cubin)

    def function(self, module: Any, name: str, types: str) -> Any:
        # Prepared: PyCUDA's plain call works out the types of its arguments each time.
        return module.get_function(name).prepare(types)

    def new_stream(self) -> int:
        stream = self._cuda.Stream(NON_BLOCKING)
        self._streams[int(stream.handle)] = stream
        return int(stream.handle)

    def drop_stream(self, stream: int) -> None:
        del self._streams[stream]

    def event(self) -> Any:
        return self._cuda.Event()

    def pinned(self, nbytes: int) -> NDArray[np.uint8]:
        memory: NDArray[np.uint8] = self._cuda.pagelocked_empty(nbytes, np.uint8)
        return memory

    def unpin(self, memory: NDArray[np.uint8]) -> None:
        # Its base is PyCUDA's PagelockedHostAllocation, whose destructor would want a context current.
        memory.base.free()  # type: ignore[union-attr]

    def write(self, address: int, array: NDArray[Any], stream: int | None) -> None:
        self._cuda.memcpy_htod_async(address, array, self._stream(stream))

    def read(self, address: int, array: NDArray[Any], stream: int | None) -> None:
        self._cuda.memcpy_dtoh_async(array, address, self._stream(stream))

    def clear(self, address: int, nbytes: int, byte: int, stream: int | None) -> None:
        self._cuda.memset_d8_async(address, byte, nbytes, self._stream(stream))

    def copy(self, target: int, source: int, nbytes: int, stream: int | None) -> None:
        self._cuda.memcpy_dtod_async(target, source, nbytes, self._stream(stream))

    def start(self, function: Any, grid: Dim3, block: Dim3, args: Sequence[np.generic], stream: int | None) -> None:
        function.prepared_async_call(grid, block, self._stream(stream), *args)

    def synchronize(self, stream: int | None) -> None:
        if stream is None:
            self._cuda.Context.synchronize()
        else:
            self._streams[stream].synchronize()

    def record(self, event: Any, stream: int) -> None:
        event.record(self._streams[stream])

    def wait(self, event: Any, stream: int) -> None:
        self._streams[stream].wait_for_event(event)

    def reached(self, event: Any) -> bool:
        return bool(event.query())

    def elapsed_ms(self, begin: Any, end: Any) -> float:
        end.synchronize()
        return float(begin.time_till(end))

    def _stream(self, stream: int | None) -> Any:
        """PyCUDA's object; None is the default stream."""
        return None if stream is None else self._streams[stream]
