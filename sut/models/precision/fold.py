"""Folding: the recipe's normalisation becomes the first nodes of the model, which then takes the pixels themselves.

A sample shrinks from float32 NCHW to uint8 NHWC, a quarter of the bytes, and decoding needs no pass over them behind
it. What the first nodes compute is the preprocessors' own formula in the same order, ``(float32(value) - mean) / std``:
a runtime that carries it out as written (ONNX Runtime's CPU provider) gives bit for bit the scores of the unfolded
model; one that rewrites it (OpenVINO may turn the division into a product, or draw it into the first convolution)
differs by rounding, some 1e-6 of the scores.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from preprocess.base import Recipe
from sut.errors import InputError
from sut.files import cached
from sut.models.content import content_digest, load_whole, save_whole
from sut.models.files import ModelInfo, check_onnx
from sut.models.own import fits, shown
from sut.text import Say, printable

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto

FOLDER = 1
"""To be raised with every change of the nodes made here: it is part of the cache key."""

_LEAST_OPSET = 7
"""Since operator set 7 (ONNX 1.2), Sub and Div stretch a shorter operand over the longer one's axes."""


def fold(model: Path, recipe: Recipe, say: Say) -> tuple[Path, Recipe]:
    """``model`` with the mean, scale and layout of ``recipe`` inside, cached, and the recipe that is left to do.

    The new file's only input is ``<old name>.pixels``, uint8 [N, size, size, 3] with the batch axis as it was; outputs
    and all other tensors keep their names. The recipe that is left has mean 0, std 1, uint8, NHWC; resize, crop and
    colour order are as before.

    Raises ``InputError`` for a model that cannot take it, and as ``cached`` and ``check_onnx`` do.
    """
    info = check_onnx(model)
    _check(info, recipe)
    key = json.dumps({"folder": FOLDER, "model": content_digest(model), "recipe": asdict(recipe)}, sort_keys=True)
    path = cached(
        f"{printable(model.stem)}-folded.onnx", key, lambda part: save_whole(_folded(model, recipe), part), say
    )
    return path, folded(recipe)


def folded(recipe: Recipe) -> Recipe:
    """What is left of a recipe once the model normalises: the pixels themselves, uint8 NHWC."""
    return replace(recipe, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), layout="NHWC", dtype="uint8")


def _check(info: ModelInfo, recipe: Recipe) -> None:
    where = f"model {info.path} takes {shown(info.inputs)}"
    if recipe.dtype == "uint8" or any(spec.dtype == "uint8" for spec in info.inputs):
        raise InputError(f"{where}, which are the pixels already (recipe {recipe.name}); leave --fold out")
    axes = ", ".join(map(str, recipe.sample_shape))
    one_float = len(info.inputs) == 1 and info.inputs[0].dtype == recipe.dtype == "float32"
    if not one_float or not fits(info.inputs[0].shape[1:], recipe.sample_shape):
        raise InputError(f"{where}, expected one float32 [batch, {axes}] to fold the recipe {recipe.name} into")
    if info.opset < _LEAST_OPSET:
        raise InputError(
            f"model {info.path} has ONNX operator set {info.opset}, expected {_LEAST_OPSET} or later to fold a recipe "
            "into it; export it again"
        )


def _folded(path: Path, recipe: Recipe) -> ModelProto:
    from onnx import TensorProto, helper

    model = load_whole(path)
    graph = model.graph
    weights = {tensor.name for tensor in graph.initializer}
    [image] = [value for value in graph.input if value.name not in weights]
    pixels = f"{image.name}.pixels"
    nodes = _nodes(pixels, image.name, recipe)
    new = {pixels, *(name for node in nodes for name in (node.name, *node.output))} - {image.name}
    if taken := sorted(new.intersection(_names(graph))):
        raise InputError(
            f"model {path} has a tensor or node called {taken[0]}, a name that folding needs; export it under another"
        )
    batch = image.type.tensor_type.shape.dim[0]
    first = batch.dim_value if batch.HasField("dim_value") else batch.dim_param or None
    shape = [first, recipe.size, recipe.size, 3]
    image.CopyFrom(helper.make_tensor_value_info(pixels, TensorProto.UINT8, shape))
    rest = list(graph.node)
    del graph.node[:]
    graph.node.extend([*nodes, *rest])
    return model


def _nodes(source: str, target: str, recipe: Recipe) -> list[NodeProto]:
    """The nodes from the pixels to what the model took, which keeps its name: nothing behind them has to change."""
    from onnx import TensorProto, helper, numpy_helper

    steps: list[tuple[str, tuple[float, ...], dict[str, Any]]] = []
    if recipe.layout == "NCHW":
        steps.append(("Transpose", (), {"perm": [0, 3, 1, 2]}))  # while a pixel is three bytes, not twelve
    steps.append(("Cast", (), {"to": TensorProto.FLOAT}))
    if any(recipe.mean):
        steps.append(("Sub", recipe.mean, {}))
    if recipe.std != (1.0, 1.0, 1.0):
        steps.append(("Div", recipe.std, {}))
    channels = (1, 3, 1, 1) if recipe.layout == "NCHW" else (3,)
    nodes: list[NodeProto] = []
    for number, (operator, values, attributes) in enumerate(steps, start=1):
        inputs, name = [source], f"{target}.fold{number}"
        if values:
            # A node, no initializer: old files list every initializer among their inputs, too.
            inputs.append(f"{name}.by")
            tensor = numpy_helper.from_array(np.array(values, np.float32).reshape(channels), inputs[1])
            nodes.append(helper.make_node("Constant", [], inputs[1:], name=inputs[1], value=tensor))
        source = target if number == len(steps) else name
        nodes.append(helper.make_node(operator, inputs, [source], name=name, **attributes))
    return nodes


def _names(graph: GraphProto) -> Iterator[str]:
    """Every name of a tensor or node in a graph and in the graphs within its nodes."""
    yield from (value.name for value in (*graph.input, *graph.output, *graph.value_info))
    yield from (tensor.name for tensor in graph.initializer)
    for node in graph.node:
        yield from (node.name, *node.input, *node.output)
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from _names(inner)
