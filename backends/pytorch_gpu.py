"""PyTorch on a GPU: a lane's tensors lie in the runner's own memory, and its work goes to the runner's own stream.

Nothing of this file has run on a GPU yet; tests run it over ``tests/fake_torch.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from backends.on_gpu import TOO_LITTLE_MEMORY, GpuRunner, SharedGpu
from backends.pytorch_models import first_line
from backends.pytorch_network import Forward, Network

_WARM_RUNS = 3
"""Before a graph is captured: libraries choose their kernels and get their memory in the first runs."""


class PyTorchGpuRunner(GpuRunner):
    """One lane. With ``graphs`` each batch size is captured once, and replayed."""

    def __init__(self, torch: Any, gpu: SharedGpu, place: str, net: Network, forward: Forward, graphs: bool) -> None:
        super().__init__(gpu, place, net.inputs, net.outputs)
        self._torch, self._forward, self._graphs = torch, forward, graphs
        self._on = torch.device(gpu.place)
        # PyTorch's own streams wait for nobody's, and its default stream would hold up all lanes.
        self._torch_stream = torch.cuda.ExternalStream(self.stream, device=self._on)
        self._starts: dict[int, Callable[[], None]] = {}
        self._pool: Any = None

    def _bind(self, n: int) -> None:
        given = [self._torch.as_tensor(self.array(spec, n), device=self._on) for spec in self._specs]
        found = [self._torch.as_tensor(self.array(spec, n), device=self._on) for spec in self._output_specs]

        def run() -> None:
            for target, tensor in zip(found, self._forward(*given), strict=True):
                target.copy_(tensor, non_blocking=True)

        lacks = ""
        try:
            with self._gpu.device.current():
                for _ in range(_WARM_RUNS):
                    self._within(run)
                self._torch_stream.synchronize()
                self._starts[n] = self._captured(run) if self._graphs else run
        except RuntimeError as error:  # cuDNN's and cuBLAS's want of memory has no class of its own
            if not TOO_LITTLE_MEMORY.search(str(error)):
                raise
            lacks = first_line(error)
        if lacks:
            # Out here, where what was raised is gone: its frames hold the tensors that the module had by then.
            raise MemoryError(lacks)

    def _captured(self, run: Callable[[], None]) -> Callable[[], None]:
        """``run`` as a graph.

        The graphs of a runner share their memory: one at a time is replayed, and nothing of it is left but what was
        copied to the outputs. Only what this thread does may end a capture: other lanes may be waiting for theirs.
        """
        graph = self._torch.cuda.CUDAGraph()
        with ExitStack() as stack:
            stack.enter_context(self._torch.inference_mode())
            stack.enter_context(
                self._torch.cuda.graph(
                    graph, pool=self._pool, stream=self._torch_stream, capture_error_mode="thread_local"
                )
            )
            run()
        self._pool = graph.pool()
        replay: Callable[[], None] = graph.replay
        return replay

    def _unbind(self) -> None:
        self._starts.clear()
        self._pool = None
        self._torch.cuda.empty_cache()  # what PyTorch keeps for itself, nobody else is given

    def _start(self, n: int) -> None:
        self._within(self._starts[n])

    def _within(self, work: Callable[[], None]) -> None:
        with self._torch.inference_mode(), self._torch.cuda.stream(self._torch_stream):
            work()
