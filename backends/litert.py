"""LiteRT, which was TensorFlow Lite, on the CPU: a ``.tflite`` file read once, an interpreter per lane.

An interpreter serves one thread at a time and shares nothing but the file with the others. It hands the operators that
XNNPACK has kernels for to that, and runs the rest itself. Where a file takes or gives integers that stand for other
numbers, the slots and the outputs have these numbers, float32: the file's own scale and zero point turn one into the
other, within ``infer``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from backends.base import Attestation, Backend, ModelFile, Runner, Slot, TensorSpec, fixed_batch, import_runtime
from backends.executed import executed_precision, listed, shares
from plugins.errors import DeviceNotFound

_COMPUTE = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "BATCH_MATMUL")
"""Operators that multiply and accumulate: what they do it with, mostly weights, is their second input."""
_EXECUTED = {"float32": "fp32", "float16": "fp16", "int8": "int8", "uint8": "int8"}
_DELEGATE = "DELEGATE"
"""What an interpreter calls a node that stands for all that it handed over in one piece."""


class LiteRt(Backend):
    """A model whose file all lanes' interpreters read in one place in memory."""

    name = "tflite"
    precisions: ClassVar[Mapping[str, str]] = {"fp32": "fp32", "int8": "int8"}
    reads = (".tflite",)
    reads_host_arrays = True

    def __init__(self, model: ModelFile, threads: int) -> None:
        """Raises ``ValueError`` or ``RuntimeError`` for a file that it cannot run."""
        assert model.path is not None
        self._content = model.path.read_bytes()
        self._threads = threads
        first = self._interpreter()
        self._inputs = _ports(first.get_input_details(), "input", model.sample_shape)
        self._outputs = _ports(first.get_output_details(), "output")
        self.inputs = tuple(port.spec for port in self._inputs)
        self.outputs = tuple(port.spec for port in self._outputs)
        self.batch_sizes = fixed_batch(self.inputs)
        runner = LiteRtRunner(first, self._inputs, self._outputs)
        runner.resize(*self.batch_sizes or (1,))
        self._attested = _attest(first, threads)
        self._first: LiteRtRunner | None = runner

    @classmethod
    def check_device(cls, device: str) -> None:
        """Only ``cpu`` is a device."""
        if device != "cpu":
            raise DeviceNotFound(f"tflite has no device '{device}' here; it runs on cpu")

    @classmethod
    def load(cls, model: ModelFile, device: str, lanes: int, threads: int, options: Mapping[str, Any] = {}) -> Self:
        """Read the file, and have the first lane's interpreter, of ``threads`` threads like all, find its kernels."""
        cls.read_options(options)
        cls.check_device(device)
        try:
            return cls(model, threads)
        except (RuntimeError, ValueError) as error:
            # Which of the two it raises depends on the step that failed; all of them mean that it cannot run this file.
            raise ValueError(f"{model.path}: tflite cannot run it: {' '.join(str(error).split())}") from error

    @classmethod
    def version(cls) -> str:
        """Version of the installed LiteRT."""
        _import()
        import ai_edge_litert

        return str(ai_edge_litert.__version__)

    def runner(self, place: str = "host") -> LiteRtRunner:
        """A new interpreter; the first is the one that was loaded with."""
        runner, self._first = self._first, None
        return runner or LiteRtRunner(self._interpreter(), self._inputs, self._outputs)

    def attest(self) -> Attestation:
        """Which kernels run what, and in what precision, by the graph that the interpreter made of the file's."""
        return self._attested

    def close(self) -> None:
        """Drop the file, and the interpreter that no lane has taken."""
        self._content, self._first = b"", None

    def _interpreter(self) -> Any:
        return _import().Interpreter(model_content=self._content, num_threads=self._threads)


@dataclass(frozen=True, slots=True)
class _Port:
    """An input or output: what a slot or an answer has of it, and the integers (``stored``) that stand for that.

    A number is ``(integer - zero) * scale``; the scale is 0 where the file has the numbers themselves.
    """

    index: int
    spec: TensorSpec
    stored: np.dtype[Any]
    scale: np.float32
    zero: int

    def to_file(self, numbers: NDArray[Any]) -> NDArray[Any]:
        """What the interpreter takes: the nearest integers, those beyond the ends cut off."""
        if not self.scale:
            return numbers
        ends = np.iinfo(self.stored)
        scaled = numbers / self.scale
        np.rint(scaled, out=scaled)
        scaled += self.zero
        np.clip(scaled, ends.min, ends.max, out=scaled)
        return scaled.astype(self.stored)

    def from_file(self, values: NDArray[Any]) -> NDArray[Any]:
        """The numbers that the interpreter's answer stands for."""
        return (values.astype(np.float32) - self.zero) * self.scale if self.scale else values


class LiteRtRunner(Runner):
    """An interpreter, and input buffers grown to the largest batch seen, which it copies from."""

    def __init__(self, interpreter: Any, inputs: tuple[_Port, ...], outputs: tuple[_Port, ...]) -> None:
        self._interpreter = interpreter
        self._inputs = inputs
        self._outputs = outputs
        self._buffers: dict[str, NDArray[Any]] = {}
        self._rows = 0
        self._size = 0
        """The batch that the interpreter has planned its memory for; 0 for none."""

    def slot(self, n: int) -> Slot:
        """Views of the first rows: an interpreter's own memory moves whenever the batch changes."""
        if n > self._rows:
            self._rows = n
            specs = [port.spec for port in self._inputs]
            self._buffers = {spec.name: np.zeros((n, *spec.sample_shape), spec.dtype) for spec in specs}
        return Slot(n, {name: buffer[:n] for name, buffer in self._buffers.items()})

    def infer(self, slot: Slot) -> Mapping[str, Any]:
        """Run the interpreter; the outputs are new arrays."""
        if slot.n != self._size:
            self.resize(slot.n)
        for port in self._inputs:
            self._interpreter.set_tensor(port.index, port.to_file(slot.buffers[port.spec.name]))
        self._interpreter.invoke()
        return {port.spec.name: port.from_file(self._interpreter.get_tensor(port.index)) for port in self._outputs}

    def resize(self, n: int) -> None:
        """Have the interpreter plan for batches of ``n`` rows."""
        self._size = 0
        for port in self._inputs:
            if None in port.spec.shape[:1]:
                self._interpreter.resize_tensor_input(port.index, (n, *port.spec.sample_shape))
        self._interpreter.allocate_tensors()
        self._size = n

    def close(self) -> None:
        """Drop the interpreter."""
        self._interpreter = None


def _ports(details: list[dict[str, Any]], kind: str, sample_shape: tuple[int, ...] | None = None) -> tuple[_Port, ...]:
    """What an interpreter says of its inputs or outputs; ``sample_shape`` decides the axes that are open in a file.

    A tensor without a name is called after its place.
    """
    found = []
    for place, told in enumerate(details):
        shape = tuple(int(axis) if axis >= 0 else None for axis in told["shape_signature"])
        stored, (scale, zero) = np.dtype(told["dtype"]), told["quantization"]
        dtype = "float32" if scale else stored.name
        spec = TensorSpec.of(told["name"] or f"{kind}{place}", dtype, shape, sample_shape)
        found.append(_Port(told["index"], spec, stored, np.float32(scale), zero))
    return tuple(found)


def _attest(interpreter: Any, threads: int) -> Attestation:
    """What the graph has that executes. LiteRT has no public way to it: this is what its own tools take."""
    nodes = interpreter._get_ops_details()
    tensors = {each["index"]: each for each in interpreter.get_tensor_details()}
    written = [node for node in nodes if node["op_name"] != _DELEGATE]
    work: Counter[str] = Counter()
    for node in written:
        if node["op_name"] in _COMPUTE:
            dtype = np.dtype(tensors[node["inputs"][1]]["dtype"]).name
            work[_EXECUTED.get(dtype, dtype)] += _multiply_accumulates(node, tensors)
    own = _not_delegated(nodes, [each["index"] for each in interpreter.get_output_details()])
    handed = len(written) - own.total()
    return Attestation(
        device="cpu",
        device_name="",
        provider="+".join([*["XNNPACK"] * bool(handed), *["LiteRT kernels"] * bool(own)]),
        precision=executed_precision(work),
        details={
            "delegated": f"{handed} of {len(written)} operators",
            "not_delegated": listed(own) or "none",
            "multiply_accumulates": shares(work),
            "operators": listed(Counter(node["op_name"] for node in written if node["op_name"] in _COMPUTE)),
            "num_threads": str(threads),
        },
    )


def _not_delegated(nodes: list[dict[str, Any]], outputs: list[int]) -> Counter[str]:
    """The operators that the interpreter runs itself: those that it meets on the way back from the outputs.

    It lists what it handed over, too, but a delegate's node, later in the list, makes what comes out of that.
    """
    made_by = {int(tensor): node for node in nodes for tensor in node["outputs"]}
    own: Counter[str] = Counter()
    wanted = list(outputs)
    for tensor in wanted:  # grows
        if (node := made_by.get(tensor)) is None:
            continue
        for made in node["outputs"]:
            made_by.pop(int(made), None)
        own[node["op_name"]] += node["op_name"] != _DELEGATE
        wanted += [int(each) for each in node["inputs"]]
    return +own


def _multiply_accumulates(node: dict[str, Any], tensors: Mapping[int, dict[str, Any]]) -> int:
    """Of one operator. Weights are (out, ...); those of a depthwise convolution (1, height, width, out)."""
    data, weights, *_ = (tensors[each]["shape"] for each in node["inputs"])
    out = prod(tensors[node["outputs"][0]]["shape"])
    if node["op_name"] == "BATCH_MATMUL":
        return int(out * data[-1])
    return int(out * prod(weights[1:3] if node["op_name"] == "DEPTHWISE_CONV_2D" else weights[1:]))


def _import() -> Any:
    return import_runtime("tflite", "LiteRT", "ai_edge_litert.interpreter", "ai-edge-litert")
