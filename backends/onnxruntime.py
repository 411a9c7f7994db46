"""ONNX Runtime on the CPU: one session for all lanes, a set of input buffers per lane."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from math import prod
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar, Self

import numpy as np

from backends.base import Attestation, Backend, ModelFile, Runner, Slot, TensorSpec, fixed_batch, import_runtime
from backends.executed import executed_precision, listed, shares
from plugins.driver import installed_driver
from plugins.errors import DeviceNotFound

# It sends telemetry unless it finds this when it is imported. The package sut says so too, for all its processes.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

_DTYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(double)": "float64",
    "tensor(uint8)": "uint8",
    "tensor(int8)": "int8",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(bool)": "bool",
}
_PROVIDERS = {"cpu": "CPUExecutionProvider"}
_COMPUTE = ("Conv", "MatMul", "Gemm")
"""What the names of operators have in them that multiply and accumulate."""
_INTEGER = ("QLinear", "QGemm", "Integer", "DynamicQuantize")
"""The same for those of them that do it in 8 bits; the others do it in the type of their first input."""
_EXECUTED = {"float": "fp32", "float16": "fp16", "bfloat16": "bf16"}


class OnnxRuntime(Backend):
    """A model in one ``InferenceSession``, which any number of lanes may run at once."""

    name = "onnxruntime"
    precisions: ClassVar[Mapping[str, str]] = {"fp32": "fp32", "int8": "int8"}
    reads_host_arrays = True

    def __init__(self, session: Any, model: ModelFile, executed: Mapping[str, str]) -> None:
        """``executed`` are details of what executes, its ``precision`` among them."""
        self._session = session
        self._executed = executed
        self.inputs = tuple(_spec(each, model.sample_shape) for each in session.get_inputs())
        self.outputs = tuple(_spec(each) for each in session.get_outputs())
        self.batch_sizes = fixed_batch(self.inputs)

    @classmethod
    def check_device(cls, device: str) -> None:
        """Only ``cpu`` is a device; for a GPU it says what is missing: the driver, or ONNX Runtime's GPU build."""
        ort = _import()
        if device in _PROVIDERS:
            return
        found = ort.get_available_providers()
        missing = []
        if device.startswith("cuda"):
            try:
                installed_driver()
            except DeviceNotFound as error:
                missing.append(str(error))
            if "CUDAExecutionProvider" not in found:
                missing.append(
                    f"onnxruntime {ort.__version__} is the CPU build: pip uninstall onnxruntime, then "
                    "pip install 'onnxruntime-gpu[cuda,cudnn]'"
                )
        raise DeviceNotFound(
            f"onnxruntime has no device '{device}' here; it has {', '.join(cls.devices())} "
            f"(providers: {', '.join(found)}){''.join(f'; {each}' for each in missing)}"
        )

    @classmethod
    def load(cls, model: ModelFile, device: str, lanes: int, threads: int, options: Mapping[str, Any] = {}) -> Self:
        """Open the session on ``device`` with ``threads`` intra-op threads; lanes share its thread pool."""
        cls.read_options(options)
        cls.check_device(device)
        ort = _import()
        provider = _PROVIDERS[device]
        session_options = ort.SessionOptions()
        # The session's pool serves all lanes. Each lane's own thread works too, and the pool counts one of them as its
        # own, so this keeps lanes x threads threads busy when all lanes run.
        session_options.intra_op_num_threads = lanes * (threads - 1) + 1
        session_options.inter_op_num_threads = 1
        session_options.log_severity_level = 3
        executed = {"precision": model.precision}
        try:
            if model.quantised:
                executed = _executed(ort, model, provider)
            session = ort.InferenceSession(str(model.path), sess_options=session_options, providers=[provider])
        except Exception as error:
            # The runtime has a class of its own per failure; all of them mean that this file cannot be run.
            raise ValueError(f"{model.path}: onnxruntime cannot load it: {' '.join(str(error).split())}") from error
        if session.get_providers()[0] != provider:
            raise DeviceNotFound(f"asked onnxruntime for {provider}, got {', '.join(session.get_providers())}")
        return cls(session, model, executed)

    @classmethod
    def version(cls) -> str:
        """Version of the installed ONNX Runtime."""
        return str(_import().__version__)

    def runner(self, place: str = "host") -> OnnxRuntimeRunner:
        """A new runner."""
        return OnnxRuntimeRunner(self._session, self.inputs, tuple(spec.name for spec in self.outputs))

    def attest(self) -> Attestation:
        """Provider as the session reports it. ORT's CPU provider executes a graph in the precision it is written in,
        but of a quantised one those parts in floats for which it has no integer kernels: they were looked at.
        """
        providers = self._session.get_providers()
        options = self._session.get_session_options()
        return Attestation(
            device="cpu",
            device_name="",
            provider=providers[0],
            precision=self._executed["precision"],
            details={
                **{name: text for name, text in self._executed.items() if name != "precision"},
                "providers": ",".join(providers),
                "intra_op_num_threads": str(options.intra_op_num_threads),
                "graph_optimization": str(options.graph_optimization_level).rpartition(".")[2],
            },
        )

    def close(self) -> None:
        """Drop the session."""
        self._session = None


class OnnxRuntimeRunner(Runner):
    """Input buffers grown to the largest batch seen; a smaller batch is a view of their first rows."""

    def __init__(self, session: Any, inputs: tuple[TensorSpec, ...], outputs: tuple[str, ...]) -> None:
        self._session = session
        self._inputs = inputs
        self._outputs = list(outputs)
        self._buffers: dict[str, Any] = {}
        self._rows = 0

    def slot(self, n: int) -> Slot:
        """Rows are contiguous, so ONNX Runtime reads them where they are."""
        if n > self._rows:
            self._rows = n
            self._buffers = {spec.name: np.zeros((n, *spec.sample_shape), spec.dtype) for spec in self._inputs}
        return Slot(n, {name: buffer[:n] for name, buffer in self._buffers.items()})

    def infer(self, slot: Slot) -> Mapping[str, Any]:
        """Run the session; the outputs are new arrays."""
        return dict(zip(self._outputs, self._session.run(self._outputs, slot.buffers), strict=True))


def _executed(ort: Any, model: ModelFile, provider: str) -> dict[str, str]:
    """What executes of a quantised file, as the profile of one run on zeros has it.

    In a session of its own: the one that is measured has no profile. And without weights in a form of the kernels' own,
    which the profile has no shapes of; which kernels are taken does not depend on that.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    options.enable_profiling = True
    options.add_session_config_entry("session.disable_prepacking", "1")
    with TemporaryDirectory(prefix="sut-profile-") as folder:
        options.profile_file_prefix = f"{folder}/run"
        session = ort.InferenceSession(str(model.path), sess_options=options, providers=[provider])
        inputs = (_spec(each, model.sample_shape) for each in session.get_inputs())
        session.run(
            None, {spec.name: np.zeros((spec.shape[0] or 1, *spec.sample_shape), spec.dtype) for spec in inputs}
        )
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    kernels: Counter[str] = Counter()
    work: Counter[str] = Counter()
    for operator, precision, done in _computing(events):
        kernels[operator] += 1
        work[precision] += done
    return {
        "precision": executed_precision(work),
        "multiply_accumulates": shares(work),
        "kernels": listed(kernels),
    }


def _computing(events: list[dict[str, Any]]) -> Iterator[tuple[str, str, int]]:
    """The operators of a profile that multiply and accumulate, with their precision and how often they do it."""
    for event in events:
        operator = event.get("args", {}).get("op_name", "")
        if not event["name"].endswith("_kernel_time") or not any(word in operator for word in _COMPUTE):
            continue
        inputs = [next(iter(tensor.items())) for tensor in event["args"]["input_type_shape"]]
        [[(_, out)]] = [tensor.items() for tensor in event["args"]["output_type_shape"]]
        dtype, data = inputs[0]
        integer = any(word in operator for word in _INTEGER)
        if "Conv" not in operator:
            done = prod(out) * data[-1]
        else:
            # (out, in, ...): one output takes those of its channel; transposed, (in, out, ...), it is one input.
            weights = inputs[3 if "QLinear" in operator else 1][1]
            done = prod(data if "Transpose" in operator else out) * prod(weights[1:])
        yield operator, "int8" if integer else _EXECUTED.get(dtype, dtype), done


def _spec(node: Any, sample_shape: tuple[int, ...] | None = None) -> TensorSpec:
    """What a session says of a tensor; ``sample_shape`` decides the axes that are open in it."""
    shape = tuple(axis if isinstance(axis, int) and axis > 0 else None for axis in node.shape)
    return TensorSpec.of(node.name, _DTYPES.get(node.type, node.type), shape, sample_shape)


def _import() -> Any:
    return import_runtime("onnxruntime", "ONNX Runtime", "onnxruntime", "onnxruntime")
