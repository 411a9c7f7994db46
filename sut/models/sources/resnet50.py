"""ResNet-50 v1.5 in MLPerf's form: the trained file if the user has it, or the same network with random weights."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backends.base import TensorSpec
from sut.files import cached
from sut.models.base import Weights
from sut.models.files import brought
from sut.models.onnx_graph import OnnxGraph
from sut.text import Say

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

Array = NDArray[Any]

# Blocks, channels and first stride of each stage: table 1 of He et al. 2015, arXiv 1512.03385.
_STAGES = ((3, 64, 1), (4, 128, 2), (6, 256, 2), (3, 512, 2))
_EXPANSION = 4

# The pictures have the model's own size: at a smaller one the last stages see mostly padding, and their mean and
# variance are then far off. Finer cells than 4 pixels make pictures rougher than photos are, with the same effect.
_PICTURES = 4
_CELLS = (1, 2, 4, 8, 16, 32, 56)

# Grids of the calibration. Weights are odd multiples of 2^-8 below 1 and activations multiples of 2^-5, so products are
# multiples of 2^-13 and their sums exact in float32 up to 2^11 (the largest is 239): every BLAS, whatever its order of
# adding, gets the same bits.
_WEIGHT_STEPS = 256
_ACTIVATION_STEPS = 32
_RESPONSE_STEPS = 16
_FEATURE_STEPS = 1024
_LOGIT_SCALE = 1 / 8
"""Brings a class's logits over photos to a standard deviation near 1, so that no class has all the probability."""


def build(weights: Weights, say: Say) -> Path:
    """The ``ModelSpec.build`` of ResNet-50.

    The file has the input ``input_tensor:0``, float32 [batch, 3, 224, 224], and the outputs ``ArgMax:0``, int64
    [batch], and ``softmax_tensor:0``, float32 [batch, 1001].

    ``trained`` is ``resnet50_v1.onnx`` in $MODEL_DIR and raises ``InputError`` where it is not there. ``random`` is
    made once and cached, the same weights on every machine.
    """
    if weights == "trained":
        return brought("resnet50", TRAINED_FILE, "or use --weights random")
    return cached("resnet50-random.onnx", f"seed {SEED} builder {BUILDER}", write_random, say)


def write_random(path: Path) -> None:
    """Write the network with seeded random weights that tell pictures apart.

    Weights are uniform, as in He et al. 2015, arXiv 1502.01852 (whose scale, by layer, batch norm divides out again).
    Each batch norm has scale 1 and shift 0, takes its mean and variance from one batch of made-up pictures and is
    folded into its convolution. The last layer sees its features less their mean over the same batch: without
    that one class wins everywhere.
    """
    _Network().save(path)


class _Draws:
    """Random numbers from the bits of PCG64, which NumPy keeps the same (NEP 19), unlike its distributions."""

    def __init__(self, seed: int) -> None:
        self._bits = np.random.PCG64(seed)

    def bytes(self, *shape: int) -> Array:
        """Uniform 0 to 255, uint8 of ``shape``."""
        count = math.prod(shape)
        words = self._bits.random_raw(-(-count // 8)).astype("<u8")
        return np.asarray(words.view(np.uint8)[:count].reshape(shape))

    def weights(self, *shape: int) -> Array:
        """Uniform between -1 and 1 on the odd multiples of 1/256, float32 of ``shape``."""
        return (2 * self.bytes(*shape).astype(np.float32) - 255) / np.float32(_WEIGHT_STEPS)


def _pictures(draws: _Draws) -> Array:
    """Pictures with equal contrast at every scale, as photos have; less the mean, whole: float32 [n, 224, 224, 3]."""
    total = np.full((_PICTURES, SIZE, SIZE, 3), 128, np.float32)
    for cells in _CELLS:
        coarse = (draws.bytes(_PICTURES, cells, cells, 3).astype(np.float32) - 127.5) / 2
        total += coarse.repeat(SIZE // cells, axis=1).repeat(SIZE // cells, axis=2)
    return np.rint(np.clip(total, 0, 255) - np.array(MEAN, np.float32))


def _windows(x: Array, kernel: int, stride: int, pads: tuple[int, int]) -> Array:
    """Views of [n, h, w, c] as [n, h', w', c, kernel, kernel], padded with zeros on both axes."""
    padded = np.pad(x, ((0, 0), pads, pads, (0, 0)))
    return np.lib.stride_tricks.sliding_window_view(padded, (kernel, kernel), (1, 2))[:, ::stride, ::stride]


class _Network:
    """Builds the graph and runs the calibration batch through it, layer by layer.

    A *layer* is the name of the graph's node with the values of the batch there, [n, h, w, c] on the grid.
    """

    def __init__(self) -> None:
        self._draws = _Draws(SEED)
        self._graph = OnnxGraph("resnet50")

    def save(self, path: Path) -> None:
        graph = self._graph
        layer = self._relu(self._conv("conv1", ("input_tensor:0", _pictures(self._draws)), 64, kernel=7, stride=2))
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

    def _block(self, name: str, source: tuple[str, Array], channels: int, stride: int) -> tuple[str, Array]:
        shortcut = source
        if source[1].shape[3] != channels * _EXPANSION:
            shortcut = self._conv(f"{name}.shortcut", source, channels * _EXPANSION, stride=stride)
        layer = self._relu(self._conv(f"{name}.conv1", source, channels))
        # Version 1.5 strides here, where version 1 did in the 1x1 before it.
        layer = self._relu(self._conv(f"{name}.conv2", layer, channels, kernel=3, stride=stride))
        layer = self._conv(f"{name}.conv3", layer, channels * _EXPANSION)
        return self._relu((self._graph.node("Add", [layer[0], shortcut[0]], f"{name}.sum"), layer[1] + shortcut[1]))

    def _conv(
        self, name: str, source: tuple[str, Array], out: int, *, kernel: int = 1, stride: int = 1
    ) -> tuple[str, Array]:
        """A convolution whose responses to the batch have mean 0 and variance 1, padded by half the kernel."""
        pads = (kernel // 2, kernel // 2)
        x = _windows(source[1], kernel, stride, pads)
        weight = self._draws.weights(x.shape[3] * kernel * kernel, out)
        rows = x.reshape(-1, weight.shape[0])
        responses = np.rint(rows @ weight * _RESPONSE_STEPS).astype(np.float64)
        mean = responses.mean(0)
        deviation = np.sqrt(np.square(responses).mean(0) - np.square(mean))
        normal = np.rint((responses - mean) / deviation * _ACTIVATION_STEPS) / _ACTIVATION_STEPS
        folded = (weight / (deviation / _RESPONSE_STEPS)).astype(np.float32).T.reshape(out, x.shape[3], kernel, kernel)
        bias = (-mean / deviation).astype(np.float32)
        node = self._graph.conv(name, source[0], folded, bias, stride=stride, pads=pads)
        return node, normal.astype(np.float32).reshape(*x.shape[:3], out)

    def _relu(self, source: tuple[str, Array]) -> tuple[str, Array]:
        return self._graph.node("Relu", [source[0]], f"{source[0]}.relu"), np.maximum(source[1], 0)

    def _pool(self, source: tuple[str, Array]) -> tuple[str, Array]:
        # TensorFlow's SAME padding of an even size: the odd pixel goes after.
        values = _windows(source[1], 3, 2, (0, 1)).max((4, 5))
        attributes = {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [0, 0, 1, 1]}
        return self._graph.node("MaxPool", [source[0]], "pool1", **attributes), values
