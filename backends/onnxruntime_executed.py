"""What ONNX Runtime executes of a model: which operators, on which provider, in which precision."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from backends.base import ModelFile, TensorSpec, import_runtime
from backends.executed import executed_precision, listed, shares
from kernels.gpu_library import one_line

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
_COMPUTE = ("Conv", "MatMul", "Gemm")
"""What the names of operators have in them that multiply and accumulate."""
_INTEGER = ("QLinear", "QGemm", "Integer", "DynamicQuantize")
"""The same for those of them that do it in 8 bits; the others do it in the type of their first input."""
_EXECUTED = {"float": "fp32", "float16": "fp16", "bfloat16": "bf16"}
CPU_PROVIDER = "CPUExecutionProvider"
_KERNEL = "_kernel_time"
"""How the names of a profile's events end that are of a node's kernel."""

Providers = Sequence[tuple[str, dict[str, str]]]
"""Execution providers, the first choice first, each with its options."""


def import_ort() -> Any:
    """The module. Raises ``ModuleNotFoundError`` with the command that installs it."""
    return import_runtime("onnxruntime", "ONNX Runtime", "onnxruntime", "onnxruntime")


@dataclass(frozen=True, slots=True)
class Node:
    """A node of the graph that executes, after ONNX Runtime has fused and rewritten the file's."""

    name: str
    operator: str
    provider: str
    precision: str = ""
    """Of one that multiplies and accumulates."""
    work: int = 0
    """How often it does so."""

    @property
    def computes(self) -> bool:
        """Whether it multiplies and accumulates."""
        return bool(self.precision)


@dataclass(frozen=True, slots=True)
class Executed:
    """What a session has executed, and what it says of itself; axes that the file leaves open are as they came out."""

    nodes: tuple[Node, ...]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    providers: tuple[str, ...]

    @property
    def precision(self) -> str:
        """One word, see ``executed_precision``."""
        return executed_precision(self._work())

    @property
    def details(self) -> dict[str, str]:
        """For an attestation."""
        kernels = Counter(node.operator for node in self.nodes if node.computes)
        return {"multiply_accumulates": shares(self._work()), "kernels": listed(kernels)}

    def not_on(self, provider: str) -> list[Node]:
        """The nodes that another one executes."""
        return [node for node in self.nodes if node.provider != provider]

    def _work(self) -> Counter[str]:
        work: Counter[str] = Counter()
        for node in self.nodes:
            if node.computes:
                work[node.precision] += node.work
        return work


def executed(ort: Any, model: ModelFile, providers: Providers) -> Executed:
    """Run the model once on zeros, and read the profile. ONNX Runtime's own errors come out as they are.

    In a session of its own: those that are measured have no profile. And without weights in a form of the kernels' own,
    which the profile has no shapes of; which kernels are taken does not depend on that.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    options.enable_profiling = True
    options.add_session_config_entry("session.disable_prepacking", "1")
    with TemporaryDirectory(prefix="sut-profile-") as folder:
        options.profile_file_prefix = f"{folder}/run"
        session = ort.InferenceSession(str(model.path), sess_options=options, providers=providers, enable_fallback=0)
        inputs = tuple(spec_of(each, model.sample_shape) for each in session.get_inputs())
        zeros = {spec.name: np.zeros((spec.shape[0] or 1, *spec.sample_shape), spec.dtype) for spec in inputs}
        arrays = session.run(None, zeros)
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    nodes = tuple(_node(event) for event in events if event["name"].endswith(_KERNEL))
    ports = zip(session.get_outputs(), arrays, strict=True)
    outputs = tuple(spec_of(port, array.shape[1:]) for port, array in ports)
    return Executed(nodes, inputs, outputs, tuple(session.get_providers()))


def spec_of(port: Any, sample_shape: tuple[int, ...] | None = None) -> TensorSpec:
    """What a session says of a tensor; ``sample_shape`` decides the axes that are open in it."""
    shape = tuple(axis if isinstance(axis, int) and axis > 0 else None for axis in port.shape)
    return TensorSpec.of(port.name, _DTYPES.get(port.type, port.type), shape, sample_shape)


def _node(event: Mapping[str, Any]) -> Node:
    arguments = event["args"]
    operator = arguments["op_name"]
    node = Node(event["name"].removesuffix(_KERNEL), operator, arguments["provider"])
    if not any(word in operator for word in _COMPUTE):
        return node
    inputs = [next(iter(tensor.items())) for tensor in arguments["input_type_shape"]]
    [[(_, out)]] = [tensor.items() for tensor in arguments["output_type_shape"]]
    dtype, data = inputs[0]
    integer = any(word in operator for word in _INTEGER)
    if "Conv" not in operator:
        done = prod(out) * data[-1]
    else:
        # (out, in, ...): one output takes those of its channel; transposed, (in, out, ...), it is one input.
        weights = inputs[3 if "QLinear" in operator else 1][1]
        done = prod(data if "Transpose" in operator else out) * prod(weights[1:])
    return Node(node.name, operator, node.provider, "int8" if integer else _EXECUTED.get(dtype, dtype), done)


def loading_failed(model: ModelFile, error: Exception) -> ValueError:
    """ONNX Runtime has a class of its own per failure of loading; all of them mean that this file cannot be run."""
    return ValueError(f"{model.path}: onnxruntime cannot load it: {one_line(error)}")
