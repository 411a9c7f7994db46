"""What backends on a GPU share: buffers, streams, copies to the GPU and back, and their times.

A subclass of ``GpuRunner`` brings two things: ``_bind``, once per batch size, and ``_start``, which starts the model on
the runner's stream. Its input and output lie at the same addresses in every batch of that size, so that graphs can be
captured. Nothing of this file has run on a GPU yet; tests run it over ``tests/fake_gpu.py``.
"""

from __future__ import annotations

import re
import threading
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backends.base import Runner, Slot, TensorSpec, fixed_batch
from kernels.device import HOST_PLACES, Buffer, DeviceArray, DeviceError
from kernels.gpu import GpuDevice, open_device
from kernels.gpu_driver import Driver
from plugins.options import option

TOO_LITTLE_MEMORY = re.compile(
    "out of memory|Failed to allocate memory|_STATUS_ALLOC_FAILED|OutOfMemory", re.IGNORECASE
)
"""In what runtimes say: of CUDA, of their own memory, of cuBLAS and cuDNN, TensorRT."""


@dataclass(frozen=True, slots=True)
class GpuOptions:
    """What may be set of every backend on a GPU."""

    overlap: bool = option(
        True, "on a GPU, lanes copy and compute at the same time; no: one after the other, all on one stream"
    )


def gpu_places(index: int) -> tuple[str, ...]:
    """``Backend.places`` on a GPU."""
    return (f"cuda:{index}", "pinned", "host")


@dataclass
class SharedGpu:
    """One GPU as the runners of a backend share it.

    The copy of one lane's batch overlaps with another lane's model, since each lane has a stream of its own; where
    ``overlap`` is off all have the same one.
    """

    device: GpuDevice
    overlap: bool = True
    _stream: int | None = None

    @classmethod
    def open(cls, device: str, overlap: bool) -> SharedGpu:
        """``device`` is ``cuda`` or ``cuda:N``. Raises as ``kernels.gpu.open_device``."""
        return cls(open_device(device, with_kernels=False), overlap)

    @property
    def starting(self) -> threading.RLock:
        """The GPU's own, held while memory is given or a batch size bound: what captures a graph must be alone. Where
        lanes have one stream, also while a batch is queued: what others queue between its events would count as its
        copies."""
        return self.device.starting

    @property
    def place(self) -> str:
        """What slots in its memory call it."""
        return f"cuda:{self.device.index}"

    def stream(self) -> int:
        """The stream of a new runner."""
        if self.overlap:
            return self.device.new_stream()
        if self._stream is None:
            self._stream = self.device.new_stream()
        return self._stream

    def close(self) -> None:
        """Free all that was made there. The runners must not be used any more."""
        self.device.close()


class GpuRunner(Runner):
    """One lane on a GPU, at ``place``: slots in the GPU's memory, or in the host's, from where they are copied.

    ``infer`` queues copy, model and copy on one stream, and waits once. Outputs lie in page-locked memory until the
    next batch.
    """

    def __init__(
        self,
        gpu: SharedGpu,
        place: str,
        inputs: Sequence[TensorSpec],
        outputs: Sequence[TensorSpec],
        stream: int | None = None,
    ) -> None:
        """On a stream that ``gpu`` has made, or a new one.

        Raises ``ValueError`` for an unknown ``place``, and an output whose size only the model itself knows.
        """
        if place not in (gpu.place, *HOST_PLACES):
            raise ValueError(f"slots at '{place}' were asked for, expected {gpu.place} or {', '.join(HOST_PLACES)}")
        self._gpu, self._device, self._place = gpu, gpu.device, place
        self._specs, self._output_specs = tuple(inputs), tuple(outputs)
        self._sizes: Sequence[int] | None = fixed_batch(inputs)
        """Of batches, all that can be bound; None: any."""
        for each in outputs:
            each.sample_shape  # noqa: B018 - raises where it is not known
        self.stream = gpu.stream() if stream is None else stream
        """CUDA's handle of its stream."""
        self._events = [self._device.event() for _ in range(4)]
        self._memory: dict[str, Buffer] = {}
        self._host: dict[str, NDArray[Any]] = {}
        self._rows = 0
        self._bound: set[int] = set()

    def slot(self, n: int) -> Slot:
        """Buffers grow to the largest batch so far; a smaller one is their first rows.

        Raises ``ValueError`` where the GPU's memory does not take the batch, with one that it takes.
        """
        if n > self._rows:
            with self._gpu.starting:
                self._grow(n)
        names = [spec.name for spec in self._specs]
        if self._place in HOST_PLACES:
            return Slot(n, {name: self._host[name][:n] for name in names}, self._place, self.stream)
        return Slot(n, {spec.name: self.array(spec, n) for spec in self._specs}, self._place, self.stream)

    def infer(self, slot: Slot) -> Mapping[str, NDArray[Any]]:
        """Run the model on the slot; the outputs are views of page-locked memory."""
        n = slot.n
        if n not in self._bound:
            self._prepare(n)
        device, stream = self._device, self.stream
        spans = device.call(f"a batch of {n}", stream, lambda driver: self._queue(driver, slot))
        self.transfers_ns = spans
        return {spec.name: self._host[spec.name][:n] for spec in self._output_specs}

    def array(self, spec: TensorSpec, n: int) -> DeviceArray:
        """The first ``n`` rows of an input or output in the GPU's memory."""
        return DeviceArray(self._memory[spec.name].address, (n, *spec.sample_shape), spec.dtype)

    @abstractmethod
    def _bind(self, n: int) -> None:
        """Get ready for batches of ``n``, whose inputs and outputs lie where ``array`` says. Alone on the GPU.

        Raises ``MemoryError``, or ``DeviceError``, where there is too little memory. What is raised may not hold any:
        less is tried next.
        """

    @abstractmethod
    def _unbind(self) -> None:
        """Forget what was bound: the addresses are about to change."""

    @abstractmethod
    def _start(self, n: int) -> None:
        """Start the model on ``stream``, for a batch that was bound; do not wait. The GPU is current in this thread."""

    def _queue(self, driver: Driver, slot: Slot) -> tuple[int, int]:
        """One batch, to its end. Returns ns of both copies."""
        stream, n = self.stream, slot.n
        begin, sent, computed, fetched = self._events
        with nullcontext() if self._gpu.overlap else self._gpu.starting:
            if slot.ready is not None:
                driver.wait(slot.ready, stream)
            driver.record(begin, stream)
            if slot.place in HOST_PLACES:
                for name, array in slot.buffers.items():
                    driver.write(self._memory[name].address, array, stream)
            driver.record(sent, stream)
            self._start(n)
            driver.record(computed, stream)
            for spec in self._output_specs:
                driver.read(self._memory[spec.name].address, self._host[spec.name][:n], stream)
            driver.record(fetched, stream)
        down_ms = driver.elapsed_ms(computed, fetched)  # waits for all of it
        return round(1e6 * driver.elapsed_ms(begin, sent)), round(1e6 * down_ms)

    def _grow(self, n: int) -> None:
        self._release()
        self._allocate(n)

    def _allocate(self, n: int) -> None:
        device = self._device
        on_host = () if self._place == self._gpu.place else self._specs
        try:
            self._allocate_there(n)
            for spec in (*on_host, *self._output_specs):
                shape = (n, *spec.sample_shape)
                plain = spec in on_host and self._place == "host"
                self._host[spec.name] = np.empty(shape, spec.dtype) if plain else device.pinned(shape, spec.dtype)
                self._host[spec.name].fill(0)  # rows that a batch is padded with are read, too
        except DeviceError as error:
            raise self._too_large(n, error) from error
        for spec in self._specs:
            device.fill(self._memory[spec.name], 0)
        self._rows = n

    def _allocate_there(self, n: int) -> None:
        for spec in (*self._specs, *self._output_specs):
            self._memory[spec.name] = self._device.alloc(max(1, n * row_bytes(spec)))

    def _prepare(self, n: int) -> None:
        """Bind a batch size, and run it once. Raises ``ValueError`` where there is too little memory for it."""
        with self._gpu.starting:
            try:
                self._bind(n)
            except (MemoryError, DeviceError) as error:
                if isinstance(error, DeviceError) and not TOO_LITTLE_MEMORY.search(str(error)):
                    raise
                raise self._too_large(n, error) from error
            self._bound.add(n)

    def _too_large(self, n: int, error: Exception) -> ValueError:
        """What to say of a batch that memory does not suffice for; all of it is given back, smaller ones are tried."""
        said, rows = " ".join(str(error).split()), sum(map(row_bytes, (*self._specs, *self._output_specs)))
        smaller = [n >> by for by in range(1, n.bit_length())]
        if self._sizes is not None:
            smaller = sorted((size for size in self._sizes if size < n), reverse=True)
        fits = self._first_that_fits(smaller)
        none = "not even one sample fits" if smaller or n == 1 else "it takes no smaller batch"
        return ValueError(
            f"a batch of {n} does not fit into the memory of {self._device.name}: inputs and outputs take "
            f"{n * rows:,} bytes, and the model its own; {said}; "
            + (f"{fits} fits: --max-batchsize {fits}" if fits else none)
        )

    def _first_that_fits(self, sizes: Iterable[int]) -> int:
        """0 where none does. Nothing is bound then."""
        for n in sizes:
            self._release()
            try:
                self._allocate_there(n)
                self._bind(n)
            except (MemoryError, DeviceError):
                continue
            self._release()
            return n
        self._release()
        return 0

    def _release(self) -> None:
        self._unbind()
        self._bound.clear()
        for buffer in self._memory.values():
            buffer.free()
        for spec in self._output_specs if self._place == "host" else (*self._specs, *self._output_specs):
            if spec.name in self._host:
                self._device.unpin(self._host.pop(spec.name))
        self._memory.clear()
        self._host.clear()
        self._rows = 0

    def close(self) -> None:
        """Give back its memory; where the GPU has failed, its device does so when that is closed."""
        with suppress(DeviceError):
            self._release()
        self._events.clear()


def row_bytes(spec: TensorSpec) -> int:
    """Of one row."""
    return prod(spec.sample_shape) * np.dtype(spec.dtype).itemsize
