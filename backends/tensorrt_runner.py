"""One lane of TensorRT: contexts of an engine that all lanes share, on the lane's own stream.

Nothing of this file has run on a GPU yet; tests run it over ``tests/fake_tensorrt.py``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from backends.base import TensorSpec
from backends.on_gpu import TOO_LITTLE_MEMORY, GpuRunner, SharedGpu
from backends.tensorrt_engine import cause

if TYPE_CHECKING:
    import tensorrt

_SCRATCH = ""
"""What the layers of a context work in, among a runner's memory by the names of tensors, none of which is empty."""


@dataclass(frozen=True, slots=True)
class Shared:
    """What all lanes have of one engine. ``config`` says how contexts are made, ``profiles`` for which batch sizes."""

    engine: tensorrt.ICudaEngine
    config: tensorrt.IRuntimeConfig
    profiles: tuple[int, ...]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    logger: Any
    """That of ``logger_of``, which both tell their errors."""
    graphs: bool
    """Whether each batch size has a CUDA graph."""


class TensorRtRunner(GpuRunner):
    """One lane: for each batch size a context, with the profile that was built for it, and with ``graphs`` a graph.

    A graph holds for the shapes that its context had when it was captured, so that no context has two of them. They
    never run at once, and share what their layers work in, which is as large as the largest of them asks for.
    """

    def __init__(self, gpu: SharedGpu, place: str, shared: Shared) -> None:
        super().__init__(gpu, place, shared.inputs, shared.outputs)
        self._shared, self._sizes = shared, shared.profiles
        self._contexts: dict[int, tensorrt.IExecutionContext] = {}
        self._graphs: dict[int, Any] = {}

    def _allocate_there(self, n: int) -> None:
        super()._allocate_there(n)
        sizes = (
            self._shared.engine.get_device_memory_size_for_profile_v2(index)
            for index, size in enumerate(self._shared.profiles)
            if size <= n
        )
        self._memory[_SCRATCH] = self._device.alloc(max((1, *sizes)))

    def _bind(self, n: int) -> None:
        if n not in self._shared.profiles:
            covered = ", ".join(map(str, self._shared.profiles))
            raise ValueError(
                f"no profile of this engine covers a batch of {n}, but {covered}: load it with --max-batchsize {n}"
            )
        with self._gpu.device.current():
            if not self._opened(n):
                raise self._refused(f"a context for batches of {n}")
            # The first run gets what the kernels of this size need; it may not be part of a graph.
            self._enqueue(n)
            self._device.synchronize(self.stream)
            if self._shared.graphs:
                self._graphs[n] = self._captured(n)

    def _captured(self, n: int) -> Any:
        """A batch as a graph. Raises ``ValueError`` where it cannot be one, whichever of both says so."""
        try:
            # TensorRT-RTX knows beforehand; TensorRT has no such call.
            if not getattr(self._contexts[n], "is_stream_capturable", lambda stream: True)(self.stream):
                raise self._refused("to be captured")
            return self._device.capture(self.stream, lambda: self._enqueue(n))
        except RuntimeError as error:  # the driver's, too
            if TOO_LITTLE_MEMORY.search(str(error)):
                raise
            raise ValueError(
                f"a batch of {n} cannot be captured in a CUDA graph: {error}; leave graphs out: "
                "--set backend_options.graphs=false"
            ) from error

    def _opened(self, n: int) -> bool:
        """Open a context for batches of ``n`` and nothing else; False where TensorRT refuses. The GPU is current.

        It raises nothing: what is raised would hold the context, which has to go while the GPU is current.
        """
        context: tensorrt.IExecutionContext | None = self._shared.engine.create_execution_context(self._shared.config)
        if context is None:
            return False
        self._contexts[n] = context
        done: bool = context.set_optimization_profile_async(self._shared.profiles.index(n), self.stream)
        scratch = self._memory[_SCRATCH]
        context.set_device_memory(scratch.address, scratch.nbytes)
        for spec in self._specs:
            done = done and context.set_input_shape(spec.name, (n, *spec.sample_shape))
        for spec in (*self._specs, *self._output_specs):
            done = done and context.set_tensor_address(spec.name, self._memory[spec.name].address)
        return done

    def _enqueue(self, n: int) -> None:
        if not self._contexts[n].execute_async_v3(self.stream):
            raise self._refused(f"a batch of {n}")

    def _refused(self, doing: str) -> Exception:
        said, is_memory = cause(self._shared.logger.said(), TOO_LITTLE_MEMORY)
        if is_memory:
            return MemoryError(said)
        return RuntimeError(f"TensorRT refused {doing}: {said}")

    def _unbind(self) -> None:
        try:
            while self._graphs:
                self._device.drop_graph(self._graphs.popitem()[1])
        finally:  # a GPU that is lost frees no graph; the contexts have to go while it is current all the same
            with self._device.current():
                self._contexts.clear()

    def _start(self, n: int) -> None:
        if n in self._graphs:
            self._device.replay(self._graphs[n], self.stream)
        else:
            self._enqueue(n)

    def close(self) -> None:
        """Drop the contexts, and what they work on."""
        super().close()
        with self._device.current():
            del self._shared
