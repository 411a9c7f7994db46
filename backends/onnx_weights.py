"""Which tensors of an ONNX file have their values in other files."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onnx import AttributeProto, FunctionProto, GraphProto, ModelProto, TensorProto


def tensors_outside(model: ModelProto) -> Iterator[TensorProto]:
    """Those of all its graphs and functions, also of graphs within their nodes."""
    return (each for part in (model.graph, *model.functions) for each in _tensors(part) if each.external_data)


def _tensors(graph: GraphProto | FunctionProto) -> Iterator[TensorProto]:
    yield from getattr(graph, "initializer", ())
    attributes: Iterator[AttributeProto] = (attribute for node in graph.node for attribute in node.attribute)
    for attribute in attributes:
        yield from (attribute.t, *attribute.tensors)
        for inner in (attribute.g, *attribute.graphs):
            yield from _tensors(inner)
