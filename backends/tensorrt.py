"""TensorRT on an NVIDIA GPU: one engine for all lanes, an execution context for each.

The engine is made once for a file, a version, a GPU and its batch sizes, and kept (``tensorrt_kept.py``). Each lane has
contexts with memory of their own on its own stream; the weights are there once. Nothing of this file has run on a GPU
yet; tests run it over ``tests/fake_tensorrt.py``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass
from traceback import clear_frames
from typing import TYPE_CHECKING, Any, ClassVar, Self

from backends.base import DOUBLING, Attestation, Backend, ModelFile, TensorSpec, fixed_batch
from backends.on_gpu import TOO_LITTLE_MEMORY, GpuOptions, SharedGpu, gpu_places
from backends.tensorrt_engine import Build, cause, created, import_tensorrt, is_rtx, logger_of
from backends.tensorrt_kept import engine_file
from backends.tensorrt_runner import Shared, TensorRtRunner
from plugins.cache import forget
from plugins.driver import installed_driver, no_such_gpu
from plugins.errors import DeviceNotFound
from plugins.options import option

if TYPE_CHECKING:
    import tensorrt

_LARGEST = 64
"""Batch where nobody says what will be asked for: each power of two up to it has a profile, and is built for."""
_OF_GPU = re.compile(f"{TOO_LITTLE_MEMORY.pattern}|cudaError|Cuda Runtime", re.IGNORECASE)
"""What is no fault of an engine that is not loaded."""


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
        self._trt, self._gpu, self._chosen, self._logger = trt, gpu, chosen, logger_of(trt)
        sizes = _sizes(model.largest_batch or _LARGEST)
        workspace = chosen.workspace and chosen.workspace << 20
        graphs = chosen.graphs or not is_rtx(trt)  # TensorRT's engine is the same one without
        build = Build(sizes, model.sample_shape, workspace, chosen.tf32, chosen.level, graphs)
        with gpu.device.current():
            self._runtime: tensorrt.Runtime = created(trt, "Runtime", self._logger)
            engine = self._load(model, build)
            config = context_config(trt, engine)
            self.inputs, self.outputs = _specs(trt, engine, config, model.sample_shape)
        self.batch_sizes: tuple[int, ...] = fixed_batch(self.inputs) or sizes
        parts = (self.batch_sizes, self.inputs, self.outputs, self._logger, chosen.graphs)
        self._shared = Shared(engine, config, *parts)
        self.places = gpu_places(gpu.device.index)
        self._precision = model.precision

    def _load(self, model: ModelFile, build: Build) -> tensorrt.ICudaEngine:
        """The engine, on the GPU, which is current. One that was kept and that TensorRT refuses is made again, once."""
        for _ in range(2):
            path = engine_file(self._trt, self._gpu.device, model, build)
            engine: tensorrt.ICudaEngine | None = self._runtime.deserialize_cuda_engine(path.read_bytes())
            if engine is not None:
                return engine
            said, is_gpu = cause(self._logger.said(), _OF_GPU)
            if is_gpu:
                break
            forget(path)
        raise ValueError(f"{model.path}: TensorRT does not load its engine: {said}")

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
            raise DeviceNotFound(f"tensorrt has no device '{device}': it takes cuda and cuda:N; give --device gpu")
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
            try:
                backend = cls(trt, gpu, model, chosen)
            except BaseException as error:
                with gpu.device.current():
                    clear_frames(error.__traceback__)  # they hold engine and runtime, which have to go before the GPU
                raise
            stack.pop_all()
        return backend

    @classmethod
    def version(cls) -> str:
        """Version of TensorRT, or TensorRT-RTX; ``attest`` says which of them it is."""
        return str(import_tensorrt().__version__)

    def runner(self, place: str = "host") -> TensorRtRunner:
        """A new runner, with contexts of its own."""
        return TensorRtRunner(self._gpu, place, self._shared)

    def attest(self) -> Attestation:
        """What the engine tells of itself; a strongly typed one computes in what the file says."""
        details = {
            "layers": str(self._shared.engine.num_layers),
            "profiles": ", ".join(map(str, self.batch_sizes)),
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
            del self._shared, self._runtime
        self._gpu.close()


def _sizes(largest: int) -> tuple[int, ...]:
    """The batch sizes to build for, the last of which takes the ``largest`` batch.

    >>> _sizes(1), _sizes(6)
    ((1,), (1, 2, 4, 8))
    """
    return tuple(size for size in DOUBLING if size < 2 * largest)


def context_config(trt: Any, engine: tensorrt.ICudaEngine) -> tensorrt.IRuntimeConfig:
    """How contexts are made: in memory of ours.

    TensorRT-RTX compiles kernels for one context, which all then share: at once, since a graph that was captured before
    they are ready would go on with the slower ones that run until then.
    """
    config = engine.create_runtime_config()
    config.set_execution_context_allocation_strategy(trt.ExecutionContextAllocationStrategy.USER_MANAGED)
    if is_rtx(trt):
        of_rtx: Any = config
        of_rtx.set_runtime_cache(of_rtx.create_runtime_cache())
        strategy = trt.DynamicShapesKernelSpecializationStrategy.EAGER
        of_rtx.dynamic_shapes_kernel_specialization_strategy = strategy
    return config


def _specs(
    trt: Any, engine: tensorrt.ICudaEngine, config: tensorrt.IRuntimeConfig, sample: tuple[int, ...] | None
) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """Inputs, whose axes behind the batch are a sample's where they are open, and outputs. The GPU is current.

    By loops: a comprehension that fails keeps the engine in its closure, which outlives a frame that is cleared.
    """
    inputs, outputs = list[TensorSpec](), list[TensorSpec]()
    for index in range(engine.num_io_tensors):
        name = engine.get_tensor_name(index)
        if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT:
            inputs.append(_spec(trt, engine, name, engine.get_tensor_shape(name), sample))
        else:
            outputs.append(_spec(trt, engine, name, engine.get_tensor_shape(name)))
    if any(None in each.shape[1:] for each in outputs):
        # Only a context tells what follows from the inputs. Its profile is the first, of the smallest batch.
        context: Any = engine.create_execution_context(config)
        if context is None:
            raise RuntimeError("TensorRT makes no context, which alone knows how large this model's outputs are")
        for each in inputs:
            context.set_input_shape(each.name, (each.shape[0] or 1, *each.sample_shape))
        for number, each in enumerate(outputs):
            batch, axes = engine.get_tensor_shape(each.name)[0], tuple(context.get_tensor_shape(each.name))[1:]
            outputs[number] = _spec(trt, engine, each.name, (batch, *axes))
    return tuple(inputs), tuple(outputs)


def _spec(trt: Any, engine: Any, name: str, shape: Any, sample: tuple[int, ...] | None = None) -> TensorSpec:
    # Its Dims pass for tuples, which no type of it says.
    axes = tuple(None if axis == -1 else int(axis) for axis in shape)
    return TensorSpec.of(name, trt.nptype(engine.get_tensor_dtype(name)).__name__, axes, sample)
