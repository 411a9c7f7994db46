"""A small classifier to convert: what takes a real one seconds takes this one none."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import onnxruntime

from backends.base import TensorSpec
from preprocess.base import Recipe
from sut.models.onnx_graph import OnnxGraph
from sut.models.precision.calibration import preprocessed

SIZE = 16
CLASSES = 10
RECIPE = Recipe(
    name="small",
    size=SIZE,
    fit="crop-resize",
    interpolation="linear",
    crop_padding=0,
    mean=(127.0, 120.0, 110.0),
    std=(128.0, 64.0, 77.0),
)


def pictures(count: int, seed: int = 3) -> Iterator[np.ndarray]:
    """Two plain colours side by side, 40 x 60 pixels: unlike each other, as noise is not."""
    draw = np.random.default_rng(seed)
    for _ in range(count):
        yield np.kron(draw.integers(0, 256, (1, 2, 3)), np.ones((40, 30, 1))).astype(np.uint8)


def scores(path: Path, samples: np.ndarray) -> np.ndarray:
    """What ONNX Runtime's CPU provider makes of samples, as many at a time as the file takes."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(["scores"], {session.get_inputs()[0].name: samples})[0])


@cache
def _centre(seed: int) -> np.ndarray:
    """Mean scores without a bias: taken off, the classes are about as likely as each other."""
    with tempfile.TemporaryDirectory() as folder:
        path = write_classifier(Path(folder) / "small.onnx", bias=np.zeros(CLASSES), seed=seed)
        return scores(path, preprocessed(pictures(50), 50, RECIPE)).mean(0)


def write_classifier(
    path: Path,
    *,
    dtype: str = "float32",
    batch: int | None = None,
    layout: str = "NCHW",
    extra_output: bool = False,
    weight_name: str = "first.weight",
    bias: np.ndarray | None = None,
    seed: int = 1,
) -> Path:
    """Three convolutions, pooling and a dense layer with seeded weights: ``images`` in, ``scores`` [batch, 10] out."""
    draw = np.random.default_rng(seed)
    graph = OnnxGraph("small")
    bias = -_centre(seed) if bias is None else bias

    def weights(*shape: int) -> np.ndarray:
        return (draw.normal(size=shape) / np.sqrt(np.prod(shape[1:]))).astype(dtype)

    x = "images"
    if layout == "NHWC":
        x = graph.node("Transpose", [x], "planes", perm=[0, 3, 1, 2])
    inputs = [x, graph.weight(weight_name, weights(8, 3, 3, 3)), graph.weight("first.bias", weights(8))]
    x = graph.node("Relu", [graph.node("Conv", inputs, "first", pads=[1, 1, 1, 1])], "first.relu")
    inputs = [x, graph.weight("depthwise.weight", weights(8, 1, 3, 3)), graph.weight("depthwise.bias", weights(8))]
    x = graph.node("Relu", [graph.node("Conv", inputs, "depthwise", pads=[1, 1, 1, 1], group=8)], "depthwise.relu")
    inputs = [x, graph.weight("second.weight", weights(16, 8, 3, 3)), graph.weight("second.bias", weights(16))]
    x = graph.node("Relu", [graph.node("Conv", inputs, "second", pads=[1, 1, 1, 1])], "second.relu")
    x = graph.node("Flatten", [graph.node("GlobalAveragePool", [x], "pool")], "features")
    dense = [x, graph.weight("dense.weight", weights(CLASSES, 16)), graph.weight("dense.bias", bias.astype(dtype))]
    graph.node("Gemm", dense, "scores", transB=1)
    shape = (SIZE, SIZE, 3) if layout == "NHWC" else (3, SIZE, SIZE)
    images = TensorSpec("images", dtype, (batch, *shape))
    outputs = [TensorSpec("scores", dtype, (batch, CLASSES))]
    graph.save(path, [images], [*outputs, images] if extra_output else outputs)
    return path
