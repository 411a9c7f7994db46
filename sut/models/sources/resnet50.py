"""ResNet-50 v1.5 in MLPerf's form: the trained file if the user has it, or the same network with random weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from backends.base import TensorSpec
from sut.models.onnx_graph import OnnxGraph
from sut.models.sources.random_network import Draws, Layer, random_builder, random_conv, windows

BUILDER = 1
"""To be raised with every change of the file made here: it is part of the cache key."""
SEED = 50
SIZE = 224
"""Height and width of the input in pixels."""
CLASSES = 1001
"""The ImageNet classes after class 0, "background"."""
MEAN = (123.68, 116.78, 103.94)
"""Subtracted from the pixels, R, G, B, by the recipe."""
TRAINED_FILE = "resnet50_v1.onnx"
"""MLPerf's name for the trained model."""

# Blocks, channels and first stride of each stage: table 1 of He et al. 2015, arXiv 1512.03385.
_STAGES = ((3, 64, 1), (4, 128, 2), (6, 256, 2), (3, 512, 2))
_EXPANSION = 4

_PICTURES = 4
_CELLS = (1, 2, 4, 8, 16, 32, 56)

_FEATURE_STEPS = 1024
_LOGIT_SCALE = 1 / 8
"""Brings a class's logits over photos to a standard deviation near 1, so that no class has all the probability."""


def write_random(path: Path) -> None:
    """Write the network with seeded random weights that tell pictures apart.

    The file has the input ``input_tensor:0``, float32 [batch, 3, 224, 224], and the outputs ``ArgMax:0``, int64
    [batch], and ``softmax_tensor:0``, float32 [batch, 1001].

    As in ``random_network.py``, where responses are at most 239. The last layer sees its features less their mean over
    the batch: without that one class wins everywhere.
    """
    _Network().save(path)


class _Network:
    """Builds the graph and runs the calibration batch through it, layer by layer."""

    def __init__(self) -> None:
        self._draws = Draws(SEED)
        self._graph = OnnxGraph("resnet50")

    def save(self, path: Path) -> None:
        graph = self._graph
        pictures = np.rint(self._draws.pictures(_PICTURES, SIZE, _CELLS) - np.array(MEAN, np.float32))
        layer = self._relu(self._conv("conv1", Layer("input_tensor:0", pictures), 64, kernel=7, stride=2))
        layer = self._pool(layer)
        for stage, (blocks, channels, stride) in enumerate(_STAGES):
            for block in range(blocks):
                layer = self._block(f"stage{stage + 1}.block{block + 1}", layer, channels, stride if block == 0 else 1)
        name, values = layer
        mean = np.rint(values.mean((0, 1, 2), dtype=np.float64) * _FEATURE_STEPS) / _FEATURE_STEPS
        weight = self._draws.weights(mean.size, CLASSES)
        bias = -(mean @ weight.astype(np.float64))
        x = graph.node("Flatten", [graph.node("GlobalAveragePool", [name], "pool")], "features")
        dense = graph.weight("dense.weight", weight * np.float32(_LOGIT_SCALE))
        shift = graph.weight("dense.bias", (bias * _LOGIT_SCALE).astype(np.float32))
        logits = graph.node("Gemm", [x, dense, shift], "dense")
        graph.node("ArgMax", [logits], "ArgMax:0", axis=1, keepdims=0)
        graph.node("Softmax", [logits], "softmax_tensor:0", axis=1)
        graph.save(
            path,
            [TensorSpec("input_tensor:0", "float32", (None, 3, SIZE, SIZE))],
            [TensorSpec("ArgMax:0", "int64", (None,)), TensorSpec("softmax_tensor:0", "float32", (None, CLASSES))],
        )

    def _block(self, name: str, source: Layer, channels: int, stride: int) -> Layer:
        shortcut = source
        if source.values.shape[3] != channels * _EXPANSION:
            shortcut = self._conv(f"{name}.shortcut", source, channels * _EXPANSION, stride=stride)
        layer = self._relu(self._conv(f"{name}.conv1", source, channels))
        # Version 1.5 strides here, where version 1 did in the 1x1 before it.
        layer = self._relu(self._conv(f"{name}.conv2", layer, channels, kernel=3, stride=stride))
        layer = self._conv(f"{name}.conv3", layer, channels * _EXPANSION)
        total = self._graph.node("Add", [layer.name, shortcut.name], f"{name}.sum")
        return self._relu(Layer(total, layer.values + shortcut.values))

    def _conv(self, name: str, source: Layer, out: int, *, kernel: int = 1, stride: int = 1) -> Layer:
        return random_conv(self._graph, self._draws, name, source, out, kernel=kernel, stride=stride)

    def _relu(self, source: Layer) -> Layer:
        return Layer(self._graph.node("Relu", [source.name], f"{source.name}.relu"), np.maximum(source.values, 0))

    def _pool(self, source: Layer) -> Layer:
        # TensorFlow's SAME padding of an even size: the odd pixel goes after.
        values = windows(source.values, 3, 2, (0, 1)).max((4, 5))
        attributes = {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [0, 0, 1, 1]}
        return Layer(self._graph.node("MaxPool", [source.name], "pool1", **attributes), values)


build = random_builder("resnet50", write_random, f"seed {SEED} builder {BUILDER}", trained=TRAINED_FILE)
