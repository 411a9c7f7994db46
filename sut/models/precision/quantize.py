"""The process that converts one model, ``python -m sut.models.precision.quantize ORDERS EVENTS_FD``, and ends.

What it prints is the tools' own noise and goes to a log; what it has to say are events on the pipe EVENTS_FD: a step
for each batch of samples that has calibrated, and why a model does not do.
"""

from __future__ import annotations

import heapq
import os
from collections.abc import Iterator
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from plugins.files import utf8_path
from sut.models.precision.behind import behind_last_layers
from sut.process.messages import from_text
from sut.process.telling import Teller, carry_out

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto

_LEAST_OPSET = 13
"""Since operator set 13, QuantizeLinear takes a scale per channel; with an older one NNCF has one scale per layer."""


@dataclass(frozen=True, slots=True)
class ConversionOrders:
    """What to convert.

    ``samples`` is the descriptor of an .npy file, (n, ...) as the model takes them; None where none are needed.
    """

    model: Path
    form: str
    to: Path
    samples: int | None
    exact_behind: bool = False
    """Whether what stands behind the last layers with weights stays in floats."""


class Samples:
    """The calibration samples as NNCF takes them: items of one batch each, by the name of the model's input."""

    def __init__(self, tensors: NDArray[Any], name: str, batch: int, teller: Teller) -> None:
        self._tensors, self._name, self._batch, self._teller = tensors, name, batch, teller

    def __len__(self) -> int:
        return len(self._tensors) // self._batch

    def __getitem__(self, index: int) -> dict[str, NDArray[Any]]:
        if index >= len(self):
            raise IndexError(index)
        self._teller.step((index + 1) * self._batch, len(self) * self._batch)
        return {self._name: np.array(self._tensors[index * self._batch : (index + 1) * self._batch])}


def _convert(text: str, teller: Teller) -> None:
    from sut.models.content import load_whole, save_whole

    orders = from_text(ConversionOrders, text)
    path, to = orders.model, orders.to
    if orders.form == "fp16":
        save_whole(_float16(load_whole(path)), to)
        return
    assert orders.samples is not None
    with os.fdopen(orders.samples, "rb") as file:
        tensors = np.load(file)
    if orders.form == "int8-openvino":
        _to_ir(orders, tensors, teller)
        return
    model = _modern(load_whole(path))
    image = model.graph.input[0]
    batch = image.type.tensor_type.shape.dim[0].dim_value or 1
    samples = Samples(tensors, image.name, batch, teller)
    quantised = _quantised(model, samples, _names_behind(model.graph) if orders.exact_behind else [])
    if not any(node.op_type == "QuantizeLinear" for node in quantised.graph.node):
        raise ValueError("it has no layer that can be quantised")
    if orders.form == "int8-signed":
        _sign(quantised.graph)
    save_whole(quantised, to)


def _float16(model: ModelProto) -> ModelProto:
    from onnxruntime.transformers.float16 import convert_float_to_float16

    converted: ModelProto = convert_float_to_float16(model, keep_io_types=True)
    _sort(converted.graph)  # its casts are at the end
    return converted


def _sort(graph: GraphProto) -> None:
    """Put each node behind those it reads from, as ONNX asks, and otherwise leave the order as it is."""
    nodes = list(graph.node)
    made_by = {name: number for number, node in enumerate(nodes) for name in node.output}
    sorter = TopologicalSorter[int]()
    for number, node in enumerate(nodes):
        sorter.add(number, *(made_by[name] for name in _reads(node) if name in made_by))
    sorter.prepare()
    ready: list[int] = []
    del graph.node[:]
    while sorter.is_active():
        for number in sorter.get_ready():
            heapq.heappush(ready, number)
        number = heapq.heappop(ready)
        graph.node.append(nodes[number])
        sorter.done(number)


def _reads(node: NodeProto) -> Iterator[str]:
    """The tensors that a node and the graphs within it read."""
    yield from node.input
    for attribute in node.attribute:
        for inner in (attribute.g, *attribute.graphs):
            for each in inner.node:
                yield from _reads(each)


def _modern(model: ModelProto) -> ModelProto:
    """The model as NNCF takes it: initializers are no inputs, and the operator set has scales per channel."""
    import onnx

    weights = {tensor.name for tensor in model.graph.initializer}
    images = [value for value in model.graph.input if value.name not in weights]
    del model.graph.input[:]
    model.graph.input.extend(images)
    model.ir_version = max(model.ir_version, 4)  # the first whose initializers need not be inputs
    opset = max(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    return model if opset >= _LEAST_OPSET else onnx.version_converter.convert_version(model, _LEAST_OPSET)


def _names_behind(graph: GraphProto) -> list[str]:
    """The nodes behind the last layers; those of the graph that have no name get one."""
    made_by = {name: number for number, node in enumerate(graph.node) for name in node.output}

    def sources(number: int) -> list[int]:
        read = (made_by[name] for name in _reads(graph.node[number]) if name in made_by)
        return [each for each in read if graph.node[each].op_type != "Constant"]

    ends = [made_by[output.name] for output in graph.output if output.name in made_by]
    numbers = behind_last_layers(ends, sources, lambda number: graph.node[number].op_type)
    for number in numbers:
        node = graph.node[number]
        node.name = node.name or f"behind.{number}"
    return [graph.node[number].name for number in numbers]


def _quantised(model: Any, samples: Samples, in_floats: list[str]) -> Any:
    """NNCF's answer for a model of ONNX or OpenVINO. It leaves biases in float32, as TensorRT wants them.

    The nodes ``in_floats`` are left alone.

    Activations have one scale per tensor. Left to itself NNCF has one per channel in front of depthwise convolutions,
    and a channel that the calibration pictures hardly excite is then cut off on others: on EfficientNet-Lite0,
    calibrated on six photos, that costs 14 of 100 labels on crops of five others. TensorRT takes no others anyway.
    """
    import nncf
    from nncf.quantization.advanced_parameters import AdvancedQuantizationParameters, QuantizationParameters

    per_tensor = QuantizationParameters(per_channel=False)
    return nncf.quantize(
        model,
        nncf.Dataset(samples),
        preset=nncf.QuantizationPreset.PERFORMANCE,
        subset_size=len(samples),
        # Not all that is named is a node of NNCF's own graph: constants are not.
        ignored_scope=nncf.IgnoredScope(names=in_floats, validate=False) if in_floats else None,
        advanced_parameters=AdvancedQuantizationParameters(activations_quantization_params=per_tensor),
    )


def _sign(graph: GraphProto) -> None:
    """Make unsigned activations signed: 0 to 255 steps of s become 0 to 127 steps of s 255/127.

    NNCF can force the sign for no device that it knows. Its preset PERFORMANCE has all zero points at 0, and for
    signed activations the same rule: the scale is the highest value seen / 127. Raises ``ValueError`` for another.
    """
    from onnx import TensorProto, numpy_helper

    tensors = {tensor.name: tensor for tensor in graph.initializer}
    pairs = [node for node in graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    points = {node.input[2]: tensors[node.input[2]] for node in pairs}
    unsigned = {name for name, point in points.items() if point.data_type == TensorProto.UINT8}
    scales = {node.input[1] for node in pairs if node.input[2] in unsigned}
    for name, point in points.items():
        values = numpy_helper.to_array(point)
        if values.any():
            raise ValueError(f"its quantised tensor {name} is not symmetric")
        if name in unsigned:
            point.CopyFrom(numpy_helper.from_array(values.astype(np.int8), name))
    del graph.value_info[:]  # which has the types as they were
    for name in scales:
        scale = numpy_helper.to_array(tensors[name]).astype(np.float64) * 255 / 127
        tensors[name].CopyFrom(numpy_helper.from_array(np.asarray(scale, np.float32), name))


def _to_ir(orders: ConversionOrders, tensors: NDArray[Any], teller: Teller) -> None:
    import openvino
    from openvino._offline_transformations import apply_moc_transformations

    from sut.models.content import load_whole
    from sut.models.ir import SUFFIX

    core, path = openvino.Core(), orders.model
    if path.suffix == SUFFIX:
        with utf8_path(path) as named:
            graph = core.read_model(named)
    else:
        graph = core.read_model(_modern(load_whole(path)).SerializeToString(), b"")
    image = graph.inputs[0]
    if not image.get_names():
        image.set_names({"input0"})
    batch = image.get_partial_shape()[0]
    samples = Samples(tensors, image.get_any_name(), batch.get_length() if batch.is_static else 1, teller)
    # Folds the reshapes in front of biases: NNCF does not correct a bias that it cannot see.
    apply_moc_transformations(graph, True)
    quantised = _quantised(graph, samples, _operations_behind(graph) if orders.exact_behind else [])
    if not any(node.get_type_name() == "FakeQuantize" for node in quantised.get_ops()):
        raise ValueError("it has no layer that can be quantised")
    with utf8_path(orders.to) as named:
        openvino.save_model(quantised, str(named), compress_to_fp16=False)


def _operations_behind(graph: Any) -> list[str]:
    """OpenVINO's operations behind the last layers. Those that are made from constants alone are never quantised."""
    operations = {each.get_friendly_name(): each for each in graph.get_ops()}

    def sources(name: str) -> list[str]:
        read = (each.get_source_output().get_node() for each in operations[name].inputs())
        return [each.get_friendly_name() for each in read if each.get_type_name() not in ("Constant", "Parameter")]

    ends = [name for result in graph.get_results() for name in sources(result.get_friendly_name())]
    return behind_last_layers(ends, sources, lambda name: operations[name].get_type_name())


if __name__ == "__main__":
    carry_out(_convert)
