"""PyTorch whose ``cuda:0`` is the GPU of ``fake_gpu``: real operators, on memory and streams that keep CUDA's rules.

Within ``torch.cuda.stream`` an operator computes nothing yet: its result is NaN until the stream has worked up to it.
A graph repeats what was started while it was captured, from whatever lies at the same addresses then.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from backends import pytorch
from backends.pytorch import PyTorch
from tests.fake_gpu import FakeDriver

Operation = tuple[str, Callable[[], float]]
OPERATION_NS = 100.0
"""By this the clock of the GPU goes on with each operator."""


class FakeTorch:
    """The module, as far as ``cuda`` is concerned; the CPU stands for the device."""

    def __init__(self, driver: FakeDriver) -> None:
        self.cuda = FakeCuda(driver)
        self.version = SimpleNamespace(cuda="13.0")

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)

    def device(self, name: str) -> torch.device:
        assert name == f"cuda:{self.cuda.driver.index}"
        return torch.device("cpu")

    def as_tensor(self, array: Any, device: torch.device) -> torch.Tensor:
        """A tensor over memory of the GPU."""
        told = array.__cuda_array_interface__
        assert told["strides"] is None
        memory = self.cuda.driver.array(told["data"][0], told["shape"], told["typestr"])
        tensor = torch.from_numpy(memory)
        self.cuda.addresses[tensor.data_ptr()] = told["data"][0], memory.nbytes
        return tensor


@dataclass(eq=False)
class Stream:
    """``torch.cuda.ExternalStream``."""

    driver: FakeDriver
    handle: int

    def synchronize(self) -> None:
        with self.driver.current():
            self.driver.synchronize(self.handle)


@dataclass(eq=False)
class Graph:
    """``torch.cuda.CUDAGraph``."""

    cuda: FakeCuda
    operations: list[Operation] = field(default_factory=list)

    def pool(self) -> tuple[int, int]:
        return (0, 1)

    def replay(self) -> None:
        assert self.operations, "a graph that was not captured"
        assert self.cuda.here() is not None, "on the default stream, which waits for nobody's"
        self.cuda.started.append("replay")
        for operation in self.operations:
            self.cuda.enqueue(operation)


@dataclass(eq=False)
class FakeCuda:
    """``torch.cuda``. ``refuse`` is asked before each operator, and may raise."""

    driver: FakeDriver
    refuse: Callable[[], None] = lambda: None
    addresses: dict[int, tuple[int, int]] = field(default_factory=dict)
    started: list[str] = field(default_factory=list)
    captures: list[dict[str, Any]] = field(default_factory=list)
    _here: threading.local = field(default_factory=threading.local)
    _capturing: threading.Lock = field(default_factory=threading.Lock)

    def ExternalStream(self, handle: int, device: torch.device) -> Stream:
        assert handle in self.driver.streams and device is not None, "on whichever GPU is the current one"
        return Stream(self.driver, handle)

    def CUDAGraph(self) -> Graph:
        return Graph(self)

    def device_count(self) -> int:
        return 1

    def get_device_name(self, index: int) -> str:
        assert index == self.driver.index
        return self.driver.name

    def empty_cache(self) -> None: ...

    def synchronize(self, device: torch.device) -> None:
        self.started.append("synchronize")
        with self.driver.current():
            self.driver.synchronize(None)

    def here(self) -> int | None:
        """This thread's stream."""
        stream: int | None = getattr(self._here, "stream", None)
        return stream

    def enqueue(self, operation: Operation) -> None:
        """On this thread's stream."""
        self.driver.enqueue(self.here(), *operation)

    @contextmanager
    def stream(self, stream: Stream) -> Iterator[None]:
        before, self._here.stream = self.here(), stream.handle
        try:
            with Deferring(self, self.enqueue):
                yield
        finally:
            self._here.stream = before

    @contextmanager
    def graph(self, graph: Graph, *, pool: Any, stream: Stream, capture_error_mode: str) -> Iterator[None]:
        assert self._capturing.acquire(blocking=False), "two captures at once"
        assert not self.driver.streams[stream.handle], "something is still to be done on the stream that is captured"
        self.captures.append({"pool": pool, "stream": stream.handle, "capture_error_mode": capture_error_mode})
        try:
            with Deferring(self, graph.operations.append):
                yield
        finally:
            self._capturing.release()

    def checked(self, tensors: list[torch.Tensor]) -> None:
        """Lose the context where one of them lies in memory that was freed."""
        for each in tensors:
            if (found := self.addresses.get(each.untyped_storage().data_ptr())) is not None:
                self.driver.part(*found)


class Deferring(TorchDispatchMode):
    """What is started here is handed to ``put``."""

    def __init__(self, cuda: FakeCuda, put: Callable[[Operation], None]) -> None:
        super().__init__()
        self.cuda, self.put = cuda, put

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.cuda.refuse()
        kwargs = kwargs or {}
        given = [each for each in args if isinstance(each, torch.Tensor)]
        in_place = func._schema.is_mutable
        result = args[0] if in_place else func(*args, **kwargs)
        storages = {each.untyped_storage().data_ptr() for each in given}
        if not in_place:
            if result.untyped_storage().data_ptr() in storages:
                return result  # a view: nothing is computed
            result.fill_(float("nan") if result.dtype.is_floating_point else 99)

        def work() -> float:
            self.cuda.checked(given)
            with torch.inference_mode():
                found = func(*args, **kwargs)
                if not in_place:
                    result.copy_(found)
            return OPERATION_NS

        self.put((str(func), work))
        return result


def on_gpu(driver: FakeDriver) -> type[PyTorch]:
    """The backend on a GPU that is plugged in, in this process."""
    made = FakeTorch(driver)
    pytorch._import = lambda: made

    class OnGpu(PyTorch):
        name = "pytorch-on-gpu"
        torch = made

        @classmethod
        def check_device(cls, device: str) -> None:
            assert device in ("cuda", f"cuda:{driver.index}")

    return OnGpu
