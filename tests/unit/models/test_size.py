"""Parameters and FLOPs, counted from graphs: exactly in small ones, as published in known ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from sut.models import registry
from sut.models.size import ModelSize, size_of, size_of_file
from tests.unit.small_models import quiet

PICTURE = (3, 8, 8)


def model(
    *nodes: onnx.NodeProto, weights: Mapping[str, Any] | None = None, shape: Sequence[Any] = ("n", *PICTURE)
) -> onnx.ModelProto:
    """From ``x`` to ``y``; a weight is an array, or the shape of one in float32."""
    arrays = {
        name: each if isinstance(each, np.ndarray) else np.ones(each, np.float32)
        for name, each in (weights or {}).items()
    }
    ends = [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)]
    answers = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    tensors = [numpy_helper.from_array(array, name) for name, array in arrays.items()]
    graph = helper.make_graph(list(nodes), "small", ends, answers, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


def node(operator: str, *inputs: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(operator, list(inputs), ["y"], **attributes)


@pytest.mark.parametrize(
    ("made", "parameters", "multiplied"),
    [
        (model(node("Relu", "x")), 0, 0),
        (model(node("Conv", "x", "w", "b"), weights={"w": (5, 3, 3, 3), "b": (5,)}), 140, 5 * 6 * 6 * 27),
        (
            model(node("Conv", "x", "w", strides=[2, 2], pads=[1] * 4), weights={"w": (5, 3, 3, 3)}),
            135,
            5 * 4 * 4 * 27,
        ),
        (model(node("Conv", "x", "w", group=3), weights={"w": (3, 1, 3, 3)}), 27, 3 * 6 * 6 * 9),
        (model(node("ConvTranspose", "x", "w", strides=[2, 2]), weights={"w": (3, 5, 2, 2)}), 60, 3 * 8 * 8 * 20),
        (model(node("MatMul", "x", "w"), weights={"w": (8, 4)}), 32, 3 * 8 * 8 * 4),
        (model(node("MatMul", "x", "x")), 0, 3 * 8 * 8 * 8),
        (
            model(
                helper.make_node("Flatten", ["x"], ["f"]),
                node("Gemm", "f", "w", "b"),
                weights={"w": (192, 7), "b": (7,)},
            ),
            193 * 7,
            192 * 7,
        ),
        (
            model(helper.make_node("Flatten", ["x"], ["f"]), node("Gemm", "f", "w", transB=1), weights={"w": (7, 192)}),
            192 * 7,
            192 * 7,
        ),
        (
            model(
                helper.make_node("Flatten", ["x"], ["f"]),
                helper.make_node("Transpose", ["f"], ["t"], perm=[1, 0]),
                node("Gemm", "t", "w", transA=1),
                weights={"w": (192, 7)},
            ),
            192 * 7,
            192 * 7,
        ),
        # Shapes are no parameters, and what follows from them is known: 12 windows of 16 pixels, each against each.
        (
            model(
                helper.make_node("Reshape", ["x", "s"], ["r"]),
                helper.make_node("Transpose", ["r"], ["t"], perm=[0, 2, 1]),
                node("MatMul", "r", "t"),
                weights={"s": np.array([-1, 16, 1])},
            ),
            0,
            12 * 16 * 16,
        ),
        # Of a batch norm only scale and shift are.
        (
            model(
                node("BatchNormalization", "x", "g", "b", "m", "v"), weights=dict.fromkeys(("g", "b", "m", "v"), (3,))
            ),
            6,
            0,
        ),
        # A graph for four pictures: what it says is for all of them.
        (
            model(node("Conv", "x", "w"), weights={"w": (5, 3, 3, 3)}, shape=(4, *PICTURE)),
            135,
            5 * 6 * 6 * 27,
        ),
        # A size that the file leaves open is that of the pictures.
        (model(node("Conv", "x", "w"), weights={"w": (5, 3, 3, 3)}, shape=("n", 3, "h", "w")), 135, 5 * 6 * 6 * 27),
    ],
)
def test_small_graphs_are_counted_exactly(made: onnx.ModelProto, parameters: int, multiplied: int) -> None:
    assert size_of(made, PICTURE) == ModelSize(parameters, 2 * multiplied)


def test_weights_in_constant_nodes_count_too() -> None:
    weight = numpy_helper.from_array(np.ones((5, 3, 3, 3), np.float32))
    made = model(helper.make_node("Constant", [], ["w"], value=weight), node("Conv", "x", "w"))

    assert size_of(made, PICTURE) == ModelSize(135, 2 * 5 * 6 * 6 * 27)


def test_weights_in_eight_bits_are_parameters_and_multiplied() -> None:
    weights = {"w": np.ones((5, 3, 3, 3), np.int8), "s": np.array(1, np.float32), "z": np.array(0, np.int8)}
    made = model(helper.make_node("DequantizeLinear", ["w", "s", "z"], ["f"]), node("Conv", "x", "f"), weights=weights)

    assert size_of(made, PICTURE) == ModelSize(135 + 2, 2 * 5 * 6 * 6 * 27)


@pytest.mark.parametrize(
    "made",
    [
        model(node("Einsum", "x", "x", equation="nchw,nchv->nwv")),
        model(node("Conv", "x", "w", domain="com.somebody"), weights={"w": (5, 3, 3, 3)}),
        model(
            helper.make_node("NonZero", ["x"], ["z"]),
            helper.make_node("Cast", ["z"], ["f"], to=TensorProto.FLOAT),
            node("MatMul", "f", "w"),
            weights={"w": (7, 3)},
        ),
    ],
    ids=["operator", "domain", "shape"],
)
def test_what_a_graph_does_not_tell_is_null(made: onnx.ModelProto) -> None:
    assert size_of(made, PICTURE).flops is None


PUBLISHED = {
    "mobilenet-v2": (3.50, 0.3008),
    "resnet-18": (11.69, 1.814),
    "resnet50": (25.56, 4.089),
    "resnet-101": (44.55, 7.801),
    "tinyvit": (5.39, 1.27),
    "vit-b": (86.57, 17.56),
    "lraspp": (3.22, 2.086),
}
"""Millions of parameters, and 10^9 multiply-accumulates: torchvision's table, of TinyViT-5M that of timm."""


@pytest.mark.parametrize(
    "name", [pytest.param(each, marks=pytest.mark.slow if each != "mobilenet-v2" else ()) for each in PUBLISHED]
)
def test_known_networks_are_as_large_as_published(name: str, cache: Path) -> None:
    spec = registry.MODELS[name]

    found = size_of_file(spec.build("random", quiet), spec.recipe.sample_shape, name)

    millions, billions = PUBLISHED[name]
    assert found.flops is not None
    assert found.parameters / 1e6 == pytest.approx(millions, rel=0.02)
    assert found.flops / 2e9 == pytest.approx(billions, rel=0.02)
