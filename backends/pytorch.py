"""PyTorch: one module for all lanes, eager or compiled, with tensors over each lane's buffers.

It runs ONNX files, which onnx2torch turns into modules, PyTorch's own graphs (torch.export), TorchScript and state
dicts (``pytorch_models.py``). Weights, and what goes between layers, are channels-last unless that is switched off:
convolutions are faster so.

Its threads are OpenMP's: each lane's own thread has a team of them, so lanes x threads work when all lanes run, but how
many a team has is one number for the whole process.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from typing import Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray

from backends.base import (
    DOUBLING,
    Attestation,
    Backend,
    ModelFile,
    Runner,
    Slot,
    TensorSpec,
    fixed_batch,
    import_runtime,
)
from backends.executed import emulated, executed_precision, listed, shares
from backends.on_gpu import GpuOptions, SharedGpu, gpu_places
from backends.pytorch_gpu import PyTorchGpuRunner
from backends.pytorch_models import Loaded, dtype_name, first_line, load_module
from backends.pytorch_network import Forward, compiled, network
from plugins.cache import code_dir, private_dir
from plugins.cpuinfo import read_cpuinfo
from plugins.driver import installed_driver, no_such_gpu
from plugins.errors import DeviceNotFound
from plugins.extras import requirements
from plugins.options import option

_DTYPES = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}
_EXECUTED = {dtype: precision for precision, dtype in _DTYPES.items()}
_MOST = 99_999
_NATIVE_BF16 = 80
"""The architecture of GPUs that multiplies bf16 first, sm_80 (CUDA Programming Guide, "Compute Capabilities")."""
_NEWEST_CUDA = 13
"""The newest that PyTorch has a build for, which runs on later drivers too."""
_TRIED_ROWS = 2
"""Rows of the first run of a model that takes any number: enough to tell the axis of the batch from the others."""


@dataclass(frozen=True, slots=True)
class PyTorchOptions(GpuOptions):
    """What may be set of PyTorch."""

    mode: Literal["eager", "compile", "graphs"] = option(
        "eager",
        "eager: layer by layer; compile: torch.compile, for each batch size once (needs g++); graphs: CUDA "
        "graphs, one for each batch size",
    )
    batches: Literal["any", "doubling"] | int | None = option(
        None,
        "the batch sizes that it is run with, up to which others are padded: any, doubling (1, 2, 4 ...; the default "
        "unless eager), or the only one",
        least=1,
        most=_MOST,
    )
    channels_last: bool = option(True, "whether weights and pictures are NHWC inside, whatever the file takes")
    tf32: bool = option(False, "on a GPU, whether fp32 may be multiplied in TF32, with 10 bits of 23")
    module: str | None = option(None, "the package.module:function that makes the module of a state dict (.pth)")


class PyTorch(Backend):
    """A module in evaluation mode, which any number of lanes may run at once."""

    name = "pytorch"
    # Weights are converted when they are loaded; slots and outputs stay as they are in the file.
    precisions: ClassVar[Mapping[str, str]] = {"fp32": "fp32", "bf16": "fp32", "fp16": "fp32"}
    reads = (".onnx", ".pt2", ".pt", ".torchscript", ".pth")
    options = PyTorchOptions
    reads_host_arrays = True

    def __init__(
        self, torch: Any, loaded: Loaded, precision: str, chosen: PyTorchOptions, gpu: SharedGpu | None
    ) -> None:
        """Raises ``ValueError`` for a module that does not run as it should, or cannot be compiled."""
        self._torch, self._chosen, self._gpu = torch, chosen, gpu
        device = torch.device(gpu.place if gpu else "cpu")
        inputs = _with_batch(loaded.inputs, chosen.batches)
        sizes = fixed_batch(inputs)
        dtype = getattr(torch, _DTYPES[precision])
        rows = sizes[0] if sizes else _TRIED_ROWS
        self._net = network(torch, loaded, inputs, dtype, chosen.channels_last, rows, device)
        self.inputs, self.outputs, self._forward = self._net.inputs, self._net.outputs, self._net.forward
        doubles = chosen.batches == "doubling" or (chosen.batches is None and chosen.mode != "eager")
        self.batch_sizes = DOUBLING if sizes is None and doubles else sizes
        if chosen.mode == "graphs" and self._net.reads_values:
            raise ValueError(
                "CUDA graphs are for models that read no tensor's value while they run, and it does (in ONNX files "
                "Reshape is such an operator): leave out --set backend_options.mode"
            )
        if chosen.mode == "compile":
            self._forward = compiled(torch, self._net, self.batch_sizes[0] if self.batch_sizes else 1, device)
        if gpu is not None:
            torch.cuda.synchronize(device)  # lanes work on streams that do not wait for this one
            self.places, self.transfers, self.reads_host_arrays = gpu_places(gpu.device.index), True, False
        self._attested = _attest(torch, loaded, chosen, self._net.work, gpu)

    @classmethod
    def devices(cls) -> list[str]:
        """``cpu``, and the GPUs that PyTorch can use, ``cuda:0`` first."""
        found = 0 if cls.version().endswith("+cpu") else _import().cuda.device_count()
        return ["cpu", *(f"cuda:{index}" for index in range(found))]

    @classmethod
    def precisions_on(cls, device: str) -> Mapping[str, str]:
        """On a CPU not fp16."""
        return {each: form for each, form in cls.precisions.items() if each != "fp16" or device != "cpu"}

    @classmethod
    def check_device(cls, device: str) -> None:
        """``cpu`` or one GPU; where that is not to be had, it says what lacks: driver, GPU or a build for it."""
        build = cls.version()
        if device == "cpu":
            return
        missing = _missing_for_gpu(_import(), build, device) if re.fullmatch(r"cuda(:\d+)?", device) else []
        found = cls.devices()
        if missing or device not in {*found, *(["cuda"] if "cuda:0" in found else [])}:
            raise DeviceNotFound(
                f"pytorch has no device '{device}' here; it has {', '.join(found)}"
                f"{''.join(f'; {each}' for each in missing)}"
            )

    @classmethod
    def load(cls, model: ModelFile, device: str, lanes: int, threads: int, options: Mapping[str, Any] = {}) -> Self:
        """Load the module, and run it once. From then on all teams of this process have ``threads`` threads."""
        chosen: PyTorchOptions = cls.read_options(options)
        cls.check_device(device)
        on_cpu = device == "cpu"
        if on_cpu and (chosen.tf32 or not chosen.overlap):
            raise ValueError("backend options tf32 and overlap are for GPUs: leave them out, or use --device cuda")
        if on_cpu and chosen.mode == "graphs":
            raise ValueError("backend option mode: graphs are for GPUs: leave it out, or use --device cuda")
        if chosen.mode == "graphs" and chosen.batches == "any":
            raise ValueError(
                "backend option batches: graphs are captured before the clock, for sizes that are known then: leave it "
                "out, or set doubling or one size"
            )
        torch = _import()
        if chosen.mode == "compile":
            _prepare_compiler()
        torch.set_num_threads(threads)
        _set_precision(torch, chosen.tf32)
        # The first run shows that the module does not write into what it is given.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        loaded = load_module(torch, model, chosen.module)
        if chosen.mode == "compile" and loaded.kind == "TorchScript":
            raise ValueError(f"{model.path}: torch.compile takes no TorchScript: leave out --set backend_options.mode")
        with ExitStack() as stack:
            gpu = None if on_cpu else stack.enter_context(closing(SharedGpu.open(device, chosen.overlap)))
            try:
                backend = cls(torch, loaded, model.precision, chosen, gpu)
            except (ValueError, torch.OutOfMemoryError) as error:
                raise ValueError(f"{model.path}: pytorch cannot run it: {first_line(error)}") from error
            stack.pop_all()
        return backend

    @classmethod
    def version(cls) -> str:
        """Version of the installed PyTorch, with its build (``2.13.0+cpu``): told without importing it."""
        if importlib.util.find_spec("torch") is not None:
            with suppress(PackageNotFoundError):
                return version("torch")
        return str(_import().__version__)

    def runner(self, place: str = "host") -> Runner:
        """A new runner; on a GPU its slots lie at ``place``."""
        if self._gpu is not None:
            graphs = self._chosen.mode == "graphs"
            return PyTorchGpuRunner(self._torch, self._gpu, place, self._net, self._forward, graphs)
        return PyTorchRunner(self._torch, self._forward, self.inputs, tuple(spec.name for spec in self.outputs))

    def attest(self) -> Attestation:
        """What the first run multiplied and accumulated in, and what PyTorch says of itself."""
        return self._attested

    def close(self) -> None:
        """Drop the module, and free the GPU."""
        del self._forward, self._net
        if self._gpu is not None:
            self._torch.cuda.empty_cache()
            self._gpu.close()


class PyTorchRunner(Runner):
    """Input buffers grown to the largest batch seen, and tensors over them, made once for each batch size."""

    def __init__(self, torch: Any, forward: Forward, inputs: Sequence[TensorSpec], outputs: Sequence[str]) -> None:
        self._torch = torch
        self._forward = forward
        self._inputs = inputs
        self._outputs = outputs
        self._rows = 0
        self._buffers: dict[str, NDArray[Any]] = {}
        self._lent: dict[int, tuple[Slot, list[Any]]] = {}

    def slot(self, n: int) -> Slot:
        """The same slot for the same ``n``."""
        if n > self._rows:
            self._rows = n
            self._buffers = {spec.name: np.zeros((n, *spec.sample_shape), spec.dtype) for spec in self._inputs}
            self._lent = {}
        if n not in self._lent:
            slot = Slot(n, {name: buffer[:n] for name, buffer in self._buffers.items()})
            self._lent[n] = slot, self._tensors(slot)
        return self._lent[n][0]

    def infer(self, slot: Slot) -> Mapping[str, Any]:
        """Run the module on the slot, or on another's arrays; the outputs are new arrays."""
        lent, tensors = self._lent.get(slot.n, (None, []))
        if lent is not slot:
            tensors = self._tensors(slot)
        with self._torch.inference_mode():
            found = self._forward(*tensors)
        return {name: each.numpy() for name, each in zip(self._outputs, found, strict=True)}

    def close(self) -> None:
        """Drop the buffers."""
        self._lent = {}

    def _tensors(self, slot: Slot) -> list[Any]:
        """Over the slot's arrays, which are read where they are."""
        return [self._torch.from_numpy(slot.buffers[spec.name]) for spec in self._inputs]


def _with_batch(inputs: tuple[TensorSpec, ...], batches: str | int | None) -> tuple[TensorSpec, ...]:
    """The inputs of a model that is to be run with one batch size only. Raises ``ValueError`` where it has another."""
    if not isinstance(batches, int):
        return inputs
    for spec in inputs:
        if spec.shape[0] not in (None, batches):
            raise ValueError(f"its batch is fixed at {spec.shape[0]}, but backend option batches is {batches}")
    return tuple(replace(spec, shape=(batches, *spec.shape[1:])) for spec in inputs)


def _missing_for_gpu(torch: Any, build: str, device: str) -> list[str]:
    """What is missing for ``cuda`` or ``cuda:N``, each with what to do."""
    missing, has = [], _NEWEST_CUDA
    try:
        driver = installed_driver()
        has = min(driver.major, _NEWEST_CUDA)
        if gone := no_such_gpu(driver, int(device.partition(":")[2] or 0)):
            missing.append(gone)
    except DeviceNotFound as error:
        missing.append(str(error))
    made_for = torch.version.cuda
    if made_for is None or int(made_for.partition(".")[0]) > has:
        wanted = " ".join(f"'{each}'" for each in requirements(f"pytorch-cu{has}") if each.startswith("torch"))
        what = "the CPU build" if made_for is None else f"built for CUDA {made_for}, and the driver has CUDA {has}"
        missing.append(
            f"torch {build} is {what}: pip uninstall -y torch, then pip install {wanted} "
            "(./run_local.sh pytorch MODEL gpu does both)"
        )
    return missing


def _attest(
    torch: Any, loaded: Loaded, chosen: PyTorchOptions, work: Mapping[str, int], gpu: SharedGpu | None
) -> Attestation:
    done = {_EXECUTED.get(dtype, dtype): count for dtype, count in work.items()}
    parameters = Counter(dtype_name(each.dtype) for each in loaded.module.parameters())
    details = {
        "file": loaded.kind,
        "mode": chosen.mode,
        "layout": "channels-last" if chosen.channels_last else "as in the file",
        "multiply_accumulates": shares(done),
        "parameters": listed(parameters) or "none",
        "fp32_precision": _precision(torch, gpu is not None),
        "deterministic": str(torch.are_deterministic_algorithms_enabled()).lower(),
    }
    if loaded.was_training:
        details["training"] = "the file was saved in training mode; it is run in evaluation mode"
    if gpu is not None:
        if "bf16" in done and int(gpu.device.architecture.removeprefix("sm_")) < _NATIVE_BF16:
            details["emulated"] = f"bf16, as {gpu.device.architecture} has no instructions for it"
        details |= {
            "cuda": str(torch.version.cuda),
            "cudnn": str(torch.backends.cudnn.version()),
            "gpu": gpu.device.details,
        }
        name = torch.cuda.get_device_name(gpu.device.index)
        return Attestation(gpu.place, name, f"PyTorch CUDA, {chosen.mode}", executed_precision(done), details)
    onednn = torch.backends.mkldnn
    details["onednn"] = "on" if onednn.is_available() and onednn.enabled else "off"
    details["num_threads"] = str(torch.get_num_threads())
    if note := emulated(done, read_cpuinfo().flags):
        details["emulated"] = note
    return Attestation("cpu", "", f"PyTorch CPU, {chosen.mode}", executed_precision(done), details)


def _set_precision(torch: Any, tf32: bool) -> None:
    """What fp32 is multiplied in: by cuDNN it would be TF32.

    By the older of PyTorch's two ways: torch.compile reads that one, which fails where the other was used.
    """
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
    for operators in (torch.backends.mkldnn.conv, torch.backends.mkldnn.matmul):
        operators.fp32_precision = "ieee"


def _precision(torch: Any, on_gpu: bool) -> str:
    """What PyTorch says that fp32 is multiplied in; ``ieee`` is fp32 itself."""
    backends = torch.backends
    if not on_gpu:
        return listed({name: getattr(backends.mkldnn, name).fp32_precision for name in ("conv", "matmul")})
    allowed = {"conv": backends.cudnn.allow_tf32, "matmul": backends.cuda.matmul.allow_tf32}
    return listed({name: "tf32" if each else "ieee" for name, each in allowed.items()})


def _prepare_compiler() -> None:
    """Let torch.compile keep its code where nobody else writes. Raises ``ModuleNotFoundError`` without a compiler."""
    compiler = os.environ.get("CXX", "g++")
    if shutil.which(compiler) is None:
        raise ModuleNotFoundError(
            f"torch.compile needs a C++ compiler, and there is no {compiler}: apt install g++ (or set CXX), or leave "
            "out --set backend_options.mode=compile"
        )
    if "TORCHINDUCTOR_CACHE_DIR" not in os.environ:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(code_dir("torch") or private_dir())


def _import() -> Any:
    return import_runtime("pytorch", "PyTorch", "torch", "torch")
