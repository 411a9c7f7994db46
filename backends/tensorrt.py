"""TensorRT on an NVIDIA GPU: one engine for all lanes, an execution context for each.

The engine is made once for a file, a version, a GPU and its batch sizes, and kept (``tensorrt_engine.py``). Each lane
has a context with memory of its own on its own stream; the weights are there once. Nothing of this file has run on a
GPU yet; tests run it over ``tests/fake_tensorrt.py``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

from backends.base import DOUBLING, Attestation, Backend, ModelFile, TensorSpec, fixed_batch
from backends.on_gpu import TOO_LITTLE_MEMORY, GpuOptions, GpuRunner, SharedGpu, gpu_places
from backends.tensorrt_engine import Build, build_engine, import_tensorrt, is_rtx, logger_of
from plugins.cache import cache_dir, entry
from plugins.driver import installed_driver, no_such_gpu
from plugins.errors import DeviceNotFound
from plugins.files import known_digest
from plugins.options import option

_LARGEST = 64
"""Batch where nobody says what will be asked for: each power of two up to it has a profile, and is built for."""
_MAKER = 1
"""To be raised with every change of what is built: it is part of the cache's key."""


@dataclass(frozen=True, slots=True)
class TensorRtOptions(GpuOptions):
    """What may be set of TensorRT."""

    graphs: bool = option(True, "a CUDA graph for each batch size")
    tf32: bool = option(False, "let fp32 be multiplied in TF32, which has 10 bits of fraction")
    workspace: int | None = option(None, "the most memory that a layer may take beside its own", least=1, unit="MiB")
    level: int | None = option(None, "how long the builder looks for the fastest kernels", least=0, most=5)


class TensorRt(Backend):
    """An engine, which any number of contexts may run at once."""

    name = "tensorrt"
    precisions: ClassVar[Mapping[str, str]] = {"fp32": "fp32", "fp16": "fp16", "int8": "int8-signed"}
    options = TensorRtOptions
    transfers = True

    def __init__(self, trt: Any, gpu: SharedGpu, model: ModelFile, chosen: TensorRtOptions) -> None:
        """Find the engine, or make it, and load it. Raises ``ValueError`` where it cannot be had."""
        self._trt, self._gpu, self._chosen = trt, gpu, chosen
        assert model.path is not None, "it needs a model"
        sizes = _sizes(model.largest_batch or _LARGEST)
        workspace = chosen.workspace and chosen.workspace << 20
        build = Build(sizes, model.sample_shape, workspace, chosen.tf32, chosen.level)
        path = _engine(trt, gpu, model.path, build)
        self._logger = logger_of(trt)
        self._runtime = trt.Runtime(self._logger)
        with gpu.device.current():
            self._engine = self._runtime.deserialize_cuda_engine(path.read_bytes())
        if self._engine is None:
            raise ValueError(f"{path}: {_said(self._logger)}; delete {path.parent} to have it made again")
        tensors = [_spec(trt, self._engine, index) for index in range(self._engine.num_io_tensors)]
        self.inputs = tuple(spec for spec, is_input in tensors if is_input)
        self.outputs = tuple(spec for spec, is_input in tensors if not is_input)
        self.batch_sizes = fixed_batch(self.inputs) or sizes
        self.places = gpu_places(gpu.device.index)
        self._precision, self._profiles = model.precision, sizes

    @classmethod
    def devices(cls) -> list[str]:
        """The driver's GPUs; no CPU."""
        import_tensorrt()
        try:
            return [f"cuda:{index}" for index in range(installed_driver().gpus)]
        except DeviceNotFound:
            return []

    @classmethod
    def check_device(cls, device: str) -> None:
        """One GPU that the driver shows."""
        if not re.fullmatch(r"cuda(:\d+)?", device):
            raise DeviceNotFound(f"tensorrt has no device '{device}': it takes cuda and cuda:N")
        if gone := no_such_gpu(installed_driver(), int(device.partition(":")[2] or 0)):
            raise DeviceNotFound(gone)

    @classmethod
    def load(cls, model: ModelFile, device: str, lanes: int, threads: int, options: Mapping[str, Any] = {}) -> Self:
        """Load the engine on one GPU for this backend alone; the host has no threads in it."""
        chosen: TensorRtOptions = cls.read_options(options)
        cls.check_device(device)
        trt = import_tensorrt()
        with ExitStack() as stack:
            gpu = stack.enter_context(closing(SharedGpu.open(device, chosen.overlap)))
            backend = cls(trt, gpu, model, chosen)
            stack.pop_all()
        return backend

    @classmethod
    def version(cls) -> str:
        """Version of what is installed, with RTX's name."""
        trt = import_tensorrt()
        return f"{'RTX ' if is_rtx(trt) else ''}{trt.__version__}"

    def runner(self, place: str = "host") -> TensorRtRunner:
        """A new runner, with a context of its own."""
        with self._gpu.device.current():
            context = self._engine.create_execution_context()
        if context is None:
            raise ValueError(f"TensorRT makes no execution context on {self._gpu.device.name}: {_said(self._logger)}")
        profiles = self._profiles if self._engine.num_optimization_profiles > 1 else self.batch_sizes or ()
        graphs = self._chosen.graphs
        return TensorRtRunner(self._gpu, place, self.inputs, self.outputs, context, profiles, self._logger, graphs)

    def attest(self) -> Attestation:
        """What the engine tells of itself; a strongly typed one computes in what the file says."""
        details = {
            "layers": str(self._engine.num_layers),
            "profiles": ", ".join(map(str, self._profiles)),
            "tf32": "allowed" if self._chosen.tf32 else "off",
            "cuda_graphs": "one for each batch size" if self._chosen.graphs else "off",
            "typing": "strong: each layer in the types of the file",
            "gpu": self._gpu.device.details,
        }
        provider = "TensorRT-RTX" if is_rtx(self._trt) else "TensorRT"
        return Attestation(self._gpu.place, self._gpu.device.name, provider, self._precision, details)

    def close(self) -> None:
        """Drop the engine, and give back the GPU."""
        with self._gpu.device.current():
            self._engine = self._runtime = None
        self._gpu.close()


class TensorRtRunner(GpuRunner):
    """A lane's context. A batch size has the profile that was built for it, and with ``graphs`` a graph."""

    def __init__(
        self,
        gpu: SharedGpu,
        place: str,
        inputs: Sequence[TensorSpec],
        outputs: Sequence[TensorSpec],
        context: Any,
        profiles: Sequence[int],
        logger: Any,
        graphs: bool,
    ) -> None:
        super().__init__(gpu, place, inputs, outputs)
        self._context, self._profiles, self._logger, self._uses_graphs = context, profiles, logger, graphs
        self._graphs: dict[int, Any] = {}
        self._shaped = 0

    def _bind(self, n: int) -> None:
        if n not in self._profiles:
            covered = ", ".join(map(str, self._profiles))
            raise ValueError(
                f"no profile of this engine covers a batch of {n}, but {covered}: load it with --max-batchsize {n}"
            )
        with self._gpu.device.current():
            self._shape(n)
            # The first run gets what the kernels of this size need; it may not be part of a graph.
            self._enqueue()
            self._device.synchronize(self.stream)
            if self._uses_graphs:
                self._graphs[n] = self._device.capture(self.stream, self._enqueue)

    def _shape(self, n: int) -> None:
        """Make the context one for batches of ``n``. The GPU is current in this thread."""
        if n == self._shaped:
            return
        self._shaped = 0
        context, index = self._context, self._profiles.index(n)
        done = context.active_optimization_profile == index or context.set_optimization_profile_async(
            index, self.stream
        )
        for spec in self._specs:
            done = done and context.set_input_shape(spec.name, (n, *spec.sample_shape))
        for spec in (*self._specs, *self._output_specs):
            done = done and context.set_tensor_address(spec.name, self._memory[spec.name].address)
        if not done:
            self._raise(f"a batch of {n}")
        self._shaped = n

    def _enqueue(self) -> None:
        if not self._context.execute_async_v3(self.stream):
            self._raise(f"a batch of {self._shaped}")

    def _raise(self, doing: str) -> None:
        said = _said(self._logger)
        if TOO_LITTLE_MEMORY.search(said):
            raise MemoryError(said)
        raise RuntimeError(f"TensorRT refused {doing}: {said}")

    def _unbind(self) -> None:
        while self._graphs:
            self._device.drop_graph(self._graphs.popitem()[1])
        self._shaped = 0

    def _start(self, n: int) -> None:
        if n in self._graphs:
            self._device.replay(self._graphs[n], self.stream)
            return
        self._shape(n)
        self._enqueue()

    def close(self) -> None:
        """Drop the context, and what it works on."""
        super().close()
        with self._gpu.device.current():
            self._context = None


def _sizes(largest: int) -> tuple[int, ...]:
    """The batch sizes to build for, the last of which takes the ``largest`` batch.

    >>> _sizes(1), _sizes(6)
    ((1,), (1, 2, 4, 8))
    """
    return tuple(size for size in DOUBLING if size < 2 * largest)


def _engine(trt: Any, gpu: SharedGpu, model: Path, build: Build) -> Path:
    """The file of the engine, made once for all that it depends on."""
    key = {
        "maker": _MAKER,
        "module": trt.__name__,
        "version": trt.__version__,
        "gpu": gpu.device.name,
        "architecture": gpu.device.architecture,
        "model": known_digest(model),
        "build": repr(build),
    }

    def make(path: Path) -> None:
        with gpu.device.current():
            plan, _ = build_engine(trt, model, build)
        path.write_bytes(plan)

    return entry(cache_dir(), f"{model.stem}.engine", json.dumps(key, sort_keys=True), make)


def _spec(trt: Any, engine: Any, index: int) -> tuple[TensorSpec, bool]:
    """An input or output, and which of them it is."""
    name = engine.get_tensor_name(index)
    shape = tuple(None if axis == -1 else int(axis) for axis in engine.get_tensor_shape(name))
    dtype = trt.nptype(engine.get_tensor_dtype(name)).__name__
    return TensorSpec.of(name, dtype, shape), engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT


def _said(logger: Any) -> str:
    return " ".join(logger.errors[-1].split()) if logger.errors else "it says nothing about why"
