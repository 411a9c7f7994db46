"""Small ONNX files for OpenVINO: quantised in part, or impossible at some batch sizes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

SAMPLE = (3, 16, 16)


def write_model(
    path: Path, quantised: tuple[bool, bool] = (False, False), axes: tuple[Any, ...] = ("n", *SAMPLE)
) -> Path:
    """Two convolutions, of 15.8 and 84.2 % of the arithmetic, each with Q/DQ or without; the answer is 10 scores."""
    rng = np.random.default_rng(7)
    nodes: list[onnx.NodeProto] = []
    constants: list[onnx.TensorProto] = []

    def constant(name: str, value: NDArray[Any]) -> str:
        constants.append(numpy_helper.from_array(value, name))
        return name

    tensor = "images"
    for number, channels in enumerate((3, 16)):
        weights = rng.standard_normal((16, channels, 3, 3)).astype(np.float32) * 0.2
        if quantised[number]:
            scale, zero = (
                constant(f"s{number}", np.array(0.04, np.float32)),
                constant(f"z{number}", np.array(128, np.uint8)),
            )
            steps = np.abs(weights).max(axis=(1, 2, 3)) / 127
            whole = np.round(weights / steps[:, None, None, None]).astype(np.int8)
            per_channel = [constant(f"ws{number}", steps), constant(f"wz{number}", np.zeros(16, np.int8))]
            nodes += [
                helper.make_node("QuantizeLinear", [tensor, scale, zero], [f"q{number}"]),
                helper.make_node("DequantizeLinear", [f"q{number}", scale, zero], [f"d{number}"]),
                helper.make_node(
                    "DequantizeLinear", [constant(f"wq{number}", whole), *per_channel], [f"w{number}"], axis=0
                ),
            ]
            tensor = f"d{number}"
        else:
            constant(f"w{number}", weights)
        nodes += [
            helper.make_node("Conv", [tensor, f"w{number}"], [f"c{number}"], pads=[1] * 4),
            helper.make_node("Relu", [f"c{number}"], [f"r{number}"]),
        ]
        tensor = f"r{number}"
    nodes += [
        helper.make_node("GlobalAveragePool", [tensor], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Gemm", ["flat", constant("w", rng.standard_normal((16, 10)).astype(np.float32))], ["scores"]),
    ]
    return save(path, nodes, constants, axes, [axes[0], 10])


def write_picky(path: Path, reshape: bool = False) -> Path:
    """Takes 1 row or 4 (``reshape``: an even number), which OpenVINO finds out only when it executes others."""
    rng = np.random.default_rng(7)
    constants = [
        numpy_helper.from_array(rng.standard_normal((3, 3, 3, 3)).astype(np.float32), "w"),
        numpy_helper.from_array(rng.standard_normal((4, 1, 1, 1)).astype(np.float32), "four"),
        numpy_helper.from_array(np.array([-1, 2 * 768]), "pairs"),
    ]
    nodes = [
        helper.make_node("Conv", ["images", "w"], ["c"], pads=[1] * 4),
        helper.make_node("Reshape", ["c", "pairs"], ["scores"])
        if reshape
        else helper.make_node("Add", ["c", "four"], ["scores"]),
    ]
    return save(path, nodes, constants, ("n", *SAMPLE), ["m", 1536] if reshape else ["m", *SAMPLE])


def save(
    path: Path, nodes: list[onnx.NodeProto], constants: list[onnx.TensorProto], axes: tuple[Any, ...], out: list[Any]
) -> Path:
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, list(axes))
    scores = helper.make_tensor_value_info("scores", TensorProto.FLOAT, out)
    graph = helper.make_graph(nodes, "test", [images], [scores], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    onnx.save(model, path)
    return path
