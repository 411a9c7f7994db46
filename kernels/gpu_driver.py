"""Below ``GpuDevice``: what a library has to bring, and the thread that owns a GPU."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from kernels.device import Dim3

_T = TypeVar("_T")

LOST = range(700, 720)
"""CUresult, and cudaError by the same numbers, of kernels that failed: after nearly all of them a context does no more
work (CUDA Driver API, "Data types used by CUDA driver")."""


class Driver(Protocol):
    """What PyCUDA and CuPy are used for, on one GPU. Streams are the driver's handles, None is the default stream.

    The methods up to ``event`` are called in the thread that made it, the others in any thread, within ``current``.
    """

    name: str
    architecture: str
    errors: tuple[type[Exception], ...]
    """What the library raises where the driver refuses."""

    def ends_context(self, error: Exception) -> bool:
        """Whether one of ``errors`` has a code in ``LOST``."""

    def close(self) -> None: ...
    def free_bytes(self) -> int: ...
    def allocate(self, nbytes: int) -> int: ...
    def release(self, address: int) -> None: ...
    def load(self, cubin: bytes) -> Any: ...
    def function(self, module: Any, name: str, types: str) -> Any:
        """A kernel, for arguments of these NumPy type characters."""

    def new_stream(self) -> int:
        """A stream that does not wait for the default one, nor that for it."""

    def drop_stream(self, stream: int) -> None: ...
    def event(self) -> Any: ...
    def pinned(self, nbytes: int) -> NDArray[np.uint8]:
        """Page-locked memory of the host, which copies need no staging for."""

    def unpin(self, memory: NDArray[np.uint8]) -> None:
        """Free what ``pinned`` gave. Nobody may look into it any more."""

    def current(self) -> AbstractContextManager[None]:
        """Make the primary context this thread's own, at least for as long as the ``with`` lasts."""

    def write(self, address: int, array: NDArray[Any], stream: int | None) -> None:
        """Start a copy to the GPU. The array must live, unchanged, until the stream has been waited for: CUDA may stage
        pageable memory before an asynchronous copy returns, or not (CUDA Driver API, "API synchronization behavior").
        """

    def read(self, address: int, array: NDArray[Any], stream: int | None) -> None:
        """Start a copy from the GPU. It has ended once the stream has been waited for."""

    def clear(self, address: int, nbytes: int, byte: int, stream: int | None) -> None: ...
    def copy(self, target: int, source: int, nbytes: int, stream: int | None) -> None: ...
    def start(self, function: Any, grid: Dim3, block: Dim3, args: Sequence[np.generic], stream: int | None) -> None: ...
    def synchronize(self, stream: int | None) -> None: ...
    def record(self, event: Any, stream: int) -> None: ...
    def wait(self, event: Any, stream: int) -> None:
        """What is started on the stream from now on begins behind what was recorded; the host does not wait."""

    def reached(self, event: Any) -> bool:
        """Whether the stream has come to a recorded event; does not wait."""

    def elapsed_ms(self, begin: Any, end: Any) -> float:
        """Between two events; waits for the second."""

    def capture(self, stream: int, work: Callable[[], None]) -> Any:
        """A graph of what ``work`` starts on the stream, none of which runs meanwhile."""

    def replay(self, graph: Any, stream: int) -> None:
        """Start all that a graph has."""

    def drop_graph(self, graph: Any) -> None:
        """Free a graph, which may not be under way."""


class OwnerThread:
    """A thread that runs what it is given, in order. What it is asked for by itself it does at once."""

    def __init__(self, name: str) -> None:
        self._jobs: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = queue.SimpleQueue()
        # A daemon: PyCUDA would end the process if this thread ended with its context still pushed.
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def __call__(self, work: Callable[[], _T]) -> _T:
        """Run ``work`` in this thread; returns or raises what it does."""
        if threading.current_thread() is self._thread:
            return work()
        future: Future[_T] = Future()
        self._jobs.put((future, work))
        return future.result()

    def close(self) -> None:
        """End the thread once it has done what it was given."""
        self._jobs.put(None)
        self._thread.join()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            future, work = job
            try:
                future.set_result(work())
            except BaseException as error:
                future.set_exception(error)
            del job, future, work  # nothing of the caller's lives on here, while this waits
