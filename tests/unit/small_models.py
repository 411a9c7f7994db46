"""Small classifiers: what takes a real one seconds takes these none."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
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
RECIPE_FILE = """\
fit: crop-resize
interpolation: linear
crop_padding: 0
mean: [127, 120, 110]
std: [128, 64, 77]
"""
"""The same as a user writes it; the size is the model's."""


def quiet(_line: str) -> None:
    """Hears what is said while a model is made."""


def unheard(_done: int, _total: int) -> None:
    """Hears how far it is."""


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


_BEHIND = {
    "softmax": ("Softmax", {"axis": 1}),
    "labels": ("ArgMax", {"axis": 1, "keepdims": 0}),
    "column": ("ArgMax", {"axis": 1, "keepdims": 1}),
}


def write_means(
    path: Path,
    *,
    axes: Sequence[int | str | None] = ("n", 3, 32, 32),
    dtype: str = "float32",
    classes: int | str = 1000,
    outputs: Sequence[str] = ("scores",),
    inputs: int = 1,
    pool: str = "GlobalAveragePool",
) -> Path:
    """A classifier whose class is the channel with the largest mean: ``images``, of any layout and dtype, in.

    ``outputs`` are any of scores, softmax, labels (int64 [n]), column (int64 [n, 1]), features (float [n, 7]), map
    (float [n, 3, 1, 1]) and ordered (float [n, 3, 32, 32]).
    """
    graph = OnnxGraph("means")
    order = [0, 3, 1, 2] if axes[-1] == 3 and axes[1] != 3 else [0, 1, 2, 3]
    floats = graph.node("Cast", ["images"], "floats", to=onnx.TensorProto.FLOAT)
    ordered = graph.node("Transpose", [floats], "ordered", perm=order)
    flat = graph.node("Flatten", [graph.node(pool, [ordered], "map")], "flat")
    weight = np.eye(3, classes if isinstance(classes, int) else 1000, dtype=np.float32)
    graph.node("MatMul", [flat, graph.weight("weight", weight)], "scores")
    for name in outputs:
        if name in _BEHIND:
            operator, attributes = _BEHIND[name]
            graph.node(operator, ["scores"], name, **attributes)
        elif name == "features":
            graph.node("MatMul", [flat, graph.weight("wide", np.ones((3, 7), np.float32))], name)
    rows = {"scores": [classes], "softmax": [classes], "labels": [], "column": [1], "features": [7]}
    rows |= {"map": [3, 1, 1], "ordered": [3, 32, 32]}
    graph.save(
        path,
        [TensorSpec(name, dtype, axes) for name in ("images", *(f"more{number}" for number in range(1, inputs)))],
        [
            TensorSpec(name, "int64" if name in ("labels", "column") else "float32", (axes[0], *rows[name]))
            for name in outputs
        ],
    )
    return path


def write_own(path: Path, axes: Sequence[int | None] = (None, 3, 224, 224), **more: Any) -> Path:
    """The same for the pictures that the known models take; ``more`` is as above."""
    return write_means(path, axes=axes, **more)


def with_weights_outside(path: Path, location: str = "weights.bin") -> Path:
    """Move the weights of a model to a file beside it."""
    onnx.save_model(onnx.load(path), path, save_as_external_data=True, location=location, size_threshold=0)
    return path
