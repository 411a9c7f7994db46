"""Small ONNX files for OpenVINO: quantised in part, or impossible at some batch sizes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from backends.base import TensorSpec
from sut.models.onnx_graph import OnnxGraph

SAMPLE = (3, 16, 16)


def write_model(
    path: Path, quantised: tuple[bool, bool] = (False, False), axes: tuple[Any, ...] = ("n", *SAMPLE)
) -> Path:
    """Two convolutions, of 15.8 and 84.2 % of the arithmetic, each with Q/DQ or without; the answer is 10 scores."""
    rng = np.random.default_rng(7)
    graph = OnnxGraph("convolutions")
    tensor = "images"
    for number, channels in enumerate((3, 16)):
        weights = rng.standard_normal((16, channels, 3, 3)).astype(np.float32) * 0.2
        if quantised[number]:
            steps = np.abs(weights).max(axis=(1, 2, 3)) / 127
            whole = np.round(weights / steps[:, None, None, None]).astype(np.int8)
            grid = [graph.weight(f"s{number}", np.float32(0.04)), graph.weight(f"z{number}", np.uint8(128))]
            per_channel = [graph.weight(f"ws{number}", steps), graph.weight(f"wz{number}", np.zeros(16, np.int8))]
            tensor = graph.node("QuantizeLinear", [tensor, *grid], f"q{number}")
            tensor = graph.node("DequantizeLinear", [tensor, *grid], f"d{number}")
            graph.node("DequantizeLinear", [graph.weight(f"wq{number}", whole), *per_channel], f"w{number}", axis=0)
        else:
            graph.weight(f"w{number}", weights)
        tensor = graph.node("Conv", [tensor, f"w{number}"], f"c{number}", pads=[1] * 4)
        tensor = graph.node("Relu", [tensor], f"r{number}")
    flat = graph.node("Flatten", [graph.node("GlobalAveragePool", [tensor], "pooled")], "flat")
    graph.node("Gemm", [flat, graph.weight("w", rng.standard_normal((16, 10)).astype(np.float32))], "scores")
    graph.save(path, [TensorSpec("images", "float32", axes)], [TensorSpec("scores", "float32", (axes[0], 10))])
    return path


def write_picky(path: Path, reshape: bool = False) -> Path:
    """Takes 1 row or 4 (``reshape``: an even number), which OpenVINO finds out only when it executes others."""
    rng = np.random.default_rng(7)
    graph = OnnxGraph("picky")
    weights = graph.weight("w", rng.standard_normal((3, 3, 3, 3)).astype(np.float32))
    x = graph.node("Conv", ["images", weights], "c", pads=[1] * 4)
    if reshape:
        graph.node("Reshape", [x, graph.weight("pairs", np.array([-1, 2 * 768]))], "scores")
    else:
        graph.node("Add", [x, graph.weight("four", rng.standard_normal((4, 1, 1, 1)).astype(np.float32))], "scores")
    scores = TensorSpec("scores", "float32", ("m", 1536) if reshape else ("m", *SAMPLE))
    graph.save(path, [TensorSpec("images", "float32", ("n", *SAMPLE))], [scores])
    return path
