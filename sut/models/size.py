"""How large a model is, counted from its ONNX graph: its parameters, and what one picture takes.

FLOPs are two for each multiply-accumulate of a convolution or a matrix product, of those within attention too. All else
(norms, activations, sums, resizing) counts as nothing, as in published tables, which give the multiply-accumulates.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from sut.models.files import import_onnx

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto, TensorProto

_WEIGHT_AT = {"Conv": 1, "ConvInteger": 1, "ConvTranspose": 1, "QLinearConv": 3}
"""Which input of a convolution is its weight."""
_PRODUCTS = ("Gemm", "MatMul", "MatMulInteger", "QLinearMatMul")
_NOT_COUNTED = frozenset(("Attention", "DeformConv", "Einsum", "GRU", "If", "LSTM", "Loop", "RNN", "Scan"))
"""Operators that multiply and accumulate, or hold others that may."""
_NO_PARAMETERS = ("UNDEFINED", "INT16", "INT32", "INT64", "UINT16", "UINT32", "UINT64", "BOOL", "STRING")
"""Constants of these types are shapes, indices and words; quantised weights have eight bits or less."""
_STATISTICS = slice(3, 5)
"""Inputs of a batch norm that are no parameters: the mean and variance of what was seen in training."""
_FEW = 64
"""Values of a constant that can be a shape, from which others follow."""

Shapes = Mapping[str, Sequence[int]]


class ModelSize(NamedTuple):
    """``flops`` is None where the graph does not tell all shapes, or has operators that are not counted."""

    parameters: int
    flops: int | None


@cache
def size_of_file(path: Path, sample_shape: tuple[int, ...], sha256: str) -> ModelSize:
    """The size of an .onnx file whose content has this digest: it is read once in a process.

    ``sample_shape`` is that of a picture, without the batch. Raises what ``onnx`` does.
    """
    return size_of(import_onnx().load(path, load_external_data=False), sample_shape)


def size_of(model: ModelProto, sample_shape: Sequence[int]) -> ModelSize:
    """The size of a model for one picture. The model is used up: its weights go, its shapes become known."""
    graph = model.graph
    tensors = dict(_constants(graph))
    parameters = _parameters(graph, tensors)
    for tensor in tensors.values():
        if math.prod(tensor.dims) > _FEW:  # or else inference would copy all of them, twice
            tensor.ClearField("raw_data")
            tensor.ClearField("float_data")
    batch = _fix_inputs(graph, set(tensors), sample_shape)
    try:
        inferred = import_onnx().shape_inference.infer_shapes(model, data_prop=True).graph
    except Exception:  # what it raises for a graph that does not add up is many things
        return ModelSize(parameters, None)
    shapes: dict[str, Sequence[int]] = {name: tuple(tensor.dims) for name, tensor in tensors.items()}
    for value in (*inferred.input, *inferred.value_info, *inferred.output):
        axes = value.type.tensor_type.shape.dim
        if value.type.tensor_type.HasField("shape") and all(axis.HasField("dim_value") for axis in axes):
            shapes[value.name] = [axis.dim_value for axis in axes]
    return ModelSize(parameters, _flops(inferred, shapes, batch))


def _constants(graph: GraphProto) -> Iterator[tuple[str, TensorProto]]:
    yield from ((tensor.name, tensor) for tensor in graph.initializer)
    for node in graph.node:
        if node.op_type == "Constant":
            yield from ((node.output[0], each.t) for each in node.attribute if each.name == "value")


def _parameters(graph: GraphProto, tensors: Mapping[str, TensorProto]) -> int:
    kinds = import_onnx().TensorProto.DataType
    others = {kinds.Value(name) for name in _NO_PARAMETERS}
    norms = (node for node in graph.node if node.op_type == "BatchNormalization")
    statistics = {name for node in norms for name in node.input[_STATISTICS]}
    counted = (each for name, each in tensors.items() if name not in statistics and each.data_type not in others)
    return sum(math.prod(each.dims) for each in counted)


def _fix_inputs(graph: GraphProto, constants: set[str], sample_shape: Sequence[int]) -> int:
    """Give the pictures that go in their shape; returns how many they are: one, if the graph does not say otherwise."""
    batch = 1
    for value in graph.input:
        if value.name not in constants:
            shape = value.type.tensor_type.shape
            batch = shape.dim[0].dim_value if shape.dim and shape.dim[0].dim_value > 0 else 1
            shape.ClearField("dim")
            for size in (batch, *sample_shape):
                shape.dim.add().dim_value = size
    # What was told of the others may say "batch" where there is a number now.
    graph.ClearField("value_info")
    for value in graph.output:
        value.type.tensor_type.ClearField("shape")
    return batch


def _flops(graph: GraphProto, shapes: Shapes, batch: int) -> int | None:
    total = 0
    for node in graph.node:
        if node.op_type in _NOT_COUNTED or node.domain not in ("", "ai.onnx"):
            return None
        if node.op_type in _WEIGHT_AT or node.op_type in _PRODUCTS:
            try:
                total += _multiplied(node, shapes)
            except KeyError:
                return None
    return 2 * total // batch


def _multiplied(node: NodeProto, shapes: Shapes) -> int:
    """The multiply-accumulates of a node. Raises ``KeyError`` where a shape is not known."""
    out = math.prod(shapes[node.output[0]])
    if node.op_type in _WEIGHT_AT:
        # Each output sees a window of its group's channels; of a transposed one each input is seen so.
        seen = math.prod(shapes[node.input[0]]) if node.op_type == "ConvTranspose" else out
        return seen * math.prod(shapes[node.input[_WEIGHT_AT[node.op_type]]][1:])
    turned = any(each.name == "transA" and each.i for each in node.attribute)
    return out * shapes[node.input[0]][0 if turned else -1]
