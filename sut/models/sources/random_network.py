"""Networks with seeded random weights that tell pictures apart: the same file on every machine, made without a runtime.

Weights are uniform, as in He et al. 2015, arXiv 1502.01852 (whose scale, by layer, batch norm divides out again). Each
batch norm has scale 1 and shift 0, takes its mean and variance from one batch of made-up pictures and is folded into
its convolution.

Weights are odd multiples of 2^-8 below 1 and activations multiples of 2^-5, so products are multiples of 2^-13 and
their sums exact in float32 up to 2^11: every BLAS, whatever its order of adding, gets the same bits. Responses to the
batch are at most 463 in ResNet-18 and -101, MobileNetV2, LRASPP and TinyViT.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from backends.base import TensorSpec
from sut.files import cached
from sut.models.base import Build, Weights
from sut.models.files import brought
from sut.models.onnx_graph import OnnxGraph
from sut.text import Say

Array = NDArray[Any]

_WEIGHT_STEPS = 256
GRID_STEPS = 32
"""Of activations, between 0 and 1."""
_RESPONSE_STEPS = 16
_FEATURE_STEPS = 1024


IMAGENET_CLASSES = 1000
IMAGENET_MEAN, IMAGENET_STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
"""Of the channels R, G, B, in levels: (0.485, 0.456, 0.406) and (0.229, 0.224, 0.225), by which most models are fed."""


class Layer(NamedTuple):
    """The name of a graph's node, with the values of the batch there: float32 [n, h, w, c] on the grid."""

    name: str
    values: Array

    @property
    def channels(self) -> int:
        return int(self.values.shape[3])


class Draws:
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

    def pictures(self, count: int, size: int, cells: Sequence[int]) -> Array:
        """Levels with equal contrast at every scale, as photos have: float32 [count, size, size, 3], not rounded.

        ``cells`` are how many cells a side each scale has. The pictures should have the model's own size, or nearly: at
        a smaller one the last layers see mostly padding, and their mean and variance are then far off. Finer cells than
        4 pixels make pictures rougher than photos are, with the same effect.
        """
        total = np.full((count, size, size, 3), 128, np.float32)
        for side in cells:
            coarse = (self.bytes(count, side, side, 3).astype(np.float32) - 127.5) / 2
            total += coarse.repeat(size // side, axis=1).repeat(size // side, axis=2)
        return np.asarray(np.clip(total, 0, 255))


def save_classifier(graph: OnnxGraph, path: Path, size: int) -> None:
    """Write a graph from ``images``, float32 [batch, 3, size, size], to ``logits``, float32 [batch, 1000]."""
    images = TensorSpec("images", "float32", (None, 3, size, size))
    graph.save(path, [images], [TensorSpec("logits", "float32", (None, IMAGENET_CLASSES))])


def random_builder(
    model: str, write: Callable[[Path], None], key: str, *, trained: str | None = None, made: str | None = None
) -> Build:
    """The ``ModelSpec.build`` of a ``model`` whose trained weights only the user can bring.

    ``trained`` (default: MODEL.onnx) is looked for in $MODEL_DIR and raises ``InputError`` where it is not there. The
    random one is made by ``write`` once and cached as ``made`` (default: MODEL-random.onnx) under ``key``, which tells
    seed and builder.
    """

    def build(weights: Weights, say: Say) -> Path:
        if weights == "trained":
            return brought(model, trained or f"{model}.onnx", "or use --weights random")
        return cached(made or f"{model}-random.onnx", key, write, say)

    return build


def normalised(pictures: Array) -> Array:
    """Levels less ImageNet's mean, by its deviation, on the grid of activations."""
    return on_grid((pictures.astype(np.float64) - np.array(IMAGENET_MEAN)) / np.array(IMAGENET_STD))


def on_grid(values: Array) -> Array:
    """``values``, computed in float64, as activations in float32: its last bits, where machines differ, are gone."""
    return np.asarray(np.rint(values * GRID_STEPS) / GRID_STEPS, np.float32)


def windows(x: Array, kernel: int, stride: int, pads: tuple[int, int], fill: float = 0, dilation: int = 1) -> Array:
    """Views of [n, h, w, c] as [n, h', w', c, kernel, kernel], padded with ``fill`` on both axes."""
    padded = np.pad(x, ((0, 0), pads, pads, (0, 0)), constant_values=fill)
    reach = (kernel - 1) * dilation + 1
    views = np.lib.stride_tricks.sliding_window_view(padded, (reach, reach), (1, 2))
    return views[:, ::stride, ::stride, :, ::dilation, ::dilation]


def random_conv(
    graph: OnnxGraph,
    draws: Draws,
    name: str,
    source: Layer,
    out: int,
    *,
    kernel: int = 1,
    stride: int = 1,
    is_depthwise: bool = False,
    dilation: int = 1,
    mean: float = 0,
    deviation: float = 1,
) -> Layer:
    """A convolution padded by half of its window, whose responses to the batch have this mean and deviation.

    One that is depthwise has a filter for each channel of the source, and ``out`` is their number.
    """
    pads = (kernel // 2 * dilation, kernel // 2 * dilation)
    x = windows(source.values, kernel, stride, pads, dilation=dilation)
    channels = 1 if is_depthwise else x.shape[3]
    weight = draws.weights(channels * kernel * kernel, out)
    if is_depthwise:
        shaped = weight.reshape(kernel, kernel, out)
        sums = sum(x[..., i, j] * shaped[i, j] for i in range(kernel) for j in range(kernel))
    else:
        sums = x.reshape(-1, weight.shape[0]) @ weight
    responses = np.rint(sums * np.float32(_RESPONSE_STEPS)).astype(np.float64).reshape(-1, out)
    found = responses.mean(0)
    spread = np.sqrt(np.square(responses).mean(0) - np.square(found)) / deviation
    normal = on_grid((responses - found) / spread + mean)
    folded = (weight / (spread / _RESPONSE_STEPS)).astype(np.float32).T.reshape(out, channels, kernel, kernel)
    bias = (mean - found / spread).astype(np.float32)
    groups = out if is_depthwise else 1
    node = graph.conv(name, source.name, folded, bias, stride=stride, pads=pads, groups=groups, dilation=dilation)
    return Layer(node, normal.reshape(*x.shape[:3], out))


class Calibrated:
    """Adds layers to a graph, each of which runs the calibration batch through itself."""

    def __init__(self, name: str, seed: int) -> None:
        """A graph called ``name``, whose weights are drawn from ``seed``."""
        self.draws = Draws(seed)
        self.graph = OnnxGraph(name)

    def conv(self, name: str, source: Layer, out: int, **how: Any) -> Layer:
        """``random_conv`` with ``how``."""
        return random_conv(self.graph, self.draws, name, source, out, **how)

    def relu(self, source: Layer) -> Layer:
        """What is above 0."""
        return Layer(self.graph.node("Relu", [source.name], f"{source.name}.relu"), np.maximum(source.values, 0))

    def clipped(self, source: Layer, high: float) -> Layer:
        """What is between 0 and ``high``; the rest becomes these."""
        name = f"{source.name}.clip"
        ends = [self.graph.weight(f"{name}.{end}", np.array(end, np.float32)) for end in (0, high)]
        return Layer(self.graph.node("Clip", [source.name, *ends], name), np.clip(source.values, 0, high))

    def sum(self, name: str, one: Layer, other: Layer) -> Layer:
        """Both added."""
        return Layer(self.graph.node("Add", [one.name, other.name], name), one.values + other.values)

    def logits(self, source: Layer, classes: int, scale: float, name: str) -> str:
        """The mean over each picture, and a layer that sees it less its mean over the batch; returns its node's name.

        Without that one class wins everywhere. ``scale`` brings a class's logits over photos to a deviation near 1, so
        that no class has all the probability.
        """
        graph = self.graph
        mean = np.rint(source.values.mean((0, 1, 2), dtype=np.float64) * _FEATURE_STEPS) / _FEATURE_STEPS
        weight = self.draws.weights(mean.size, classes)
        bias = -(mean @ weight.astype(np.float64))
        x = graph.node("Flatten", [graph.node("GlobalAveragePool", [source.name], "pool")], "features")
        dense = graph.weight("dense.weight", weight * np.float32(scale))
        shift = graph.weight("dense.bias", (bias * scale).astype(np.float32))
        return graph.node("Gemm", [x, dense, shift], name)
