"""LRASPP on MobileNetV3-Large with random weights, as an ONNX file: segmentation, for measuring speed.

Howard et al. 2019, "Searching for MobileNetV3" (arXiv 1905.02244), table 1 and section 5.4, with the last stage
dilated instead of strided, as torchvision's ``lraspp_mobilenet_v3_large`` has it: at 520 pixels and 21 classes that is
published as 3.22 million parameters and 2.09 * 10^9 multiply-accumulates.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from backends.base import TensorSpec
from sut.models.sources.efficientnet_lite import scaled_channels
from sut.models.sources.random_network import Array, Calibrated, Layer, normalised, on_grid, random_builder

BUILDER = 1
"""To be raised with every change of the file made here: it is part of the cache key."""
SEED = 3
SIZE = 520
"""Height and width of the input in pixels."""
CLASSES = 21
"""PASCAL VOC's, with the background."""

_STEM, _LAST, _HEAD = 16, 960, 128
_BLOCKS = (
    # kernel, channels inside and out, whether it weighs its channels, whether it is hard swish, stride, dilation
    (3, 16, 16, False, False, 1, 1),
    (3, 64, 24, False, False, 2, 1),
    (3, 72, 24, False, False, 1, 1),
    (5, 72, 40, True, False, 2, 1),
    (5, 120, 40, True, False, 1, 1),
    (5, 120, 40, True, False, 1, 1),
    (3, 240, 80, False, True, 2, 1),
    (3, 200, 80, False, True, 1, 1),
    (3, 184, 80, False, True, 1, 1),
    (3, 184, 80, False, True, 1, 1),
    (3, 480, 112, True, True, 1, 1),
    (3, 672, 112, True, True, 1, 1),
    (5, 672, 160, True, True, 1, 2),
    (5, 960, 160, True, True, 1, 2),
    (5, 960, 160, True, True, 1, 2),
)
_LOW = 3
"""The first block at 1/8 of the picture, whose places the head adds."""
# Smaller than the input, which takes too long: at 256 the last level has 16 x 16 cells.
_PICTURES, _PICTURE_SIZE = 2, 256
_CELLS = (1, 2, 4, 8, 16, 32, 64)
_POOL_STEPS = 1024
"""Of means over a picture, so that their sums are exact."""


def write_random(path: Path) -> None:
    """Write the network with seeded random weights that tell pictures and their places apart.

    The input is ``images``, float32 [batch, 3, 520, 520], the output ``scores``, float32 [batch, 21, 520, 520]. The
    file is the same on every machine, as in ``random_network.py``.
    """
    layers = Calibrated("lraspp", SEED)
    pictures = normalised(layers.draws.pictures(_PICTURES, _PICTURE_SIZE, _CELLS))
    x = low = _swished(layers, layers.conv("stem", Layer("images", pictures), _STEM, kernel=3, stride=2))
    for number, block in enumerate(_BLOCKS):
        x = _block(layers, f"block{number + 1}", x, *block)
        if number == _LOW:
            low = x
    high = _swished(layers, layers.conv("last", x, _LAST))
    _head(layers, low, high)
    images = TensorSpec("images", "float32", (None, 3, SIZE, SIZE))
    layers.graph.save(path, [images], [TensorSpec("scores", "float32", (None, CLASSES, SIZE, SIZE))])


def _block(
    layers: Calibrated,
    name: str,
    source: Layer,
    kernel: int,
    wide: int,
    out: int,
    is_weighing: bool,
    is_swish: bool,
    stride: int,
    dilation: int,
) -> Layer:
    """Wider, each channel by itself, weighed by what the whole picture has of each, narrower again."""
    bent = _swished if is_swish else Calibrated.relu
    x = source if wide == source.channels else bent(layers, layers.conv(f"{name}.expand", source, wide))
    how = {"kernel": kernel, "stride": stride, "dilation": dilation, "is_depthwise": True}
    x = bent(layers, layers.conv(f"{name}.depthwise", x, wide, **how))
    if is_weighing:
        x = _weighed(layers, f"{name}.weigh", x)
    x = layers.conv(f"{name}.project", x, out)
    return layers.sum(f"{name}.sum", x, source) if stride == 1 and source.channels == out else x


def _weighed(layers: Calibrated, name: str, source: Layer) -> Layer:
    """Squeeze and excitation (Hu et al. 2017, arXiv 1709.01507). Its two layers keep the variance, uncalibrated."""
    inner = scaled_channels(source.channels // 4, 1)
    gate, values = layers.graph.node("GlobalAveragePool", [source.name], f"{name}.pool"), _mean(source.values)
    gate, values = _plain(layers, f"{name}.squeeze", gate, values, inner)
    gate, values = layers.graph.node("Relu", [gate], f"{name}.relu"), np.maximum(values, 0)
    gate, values = _plain(layers, f"{name}.excite", gate, values, source.channels)
    gate = layers.graph.node("HardSigmoid", [gate], f"{name}.gate", alpha=1 / 6, beta=0.5)
    weighed = source.values * np.clip(values / 6 + 0.5, 0, 1)
    return Layer(layers.graph.node("Mul", [source.name, gate], name), on_grid(weighed))


def _plain(layers: Calibrated, name: str, source: str, values: Array, out: int) -> tuple[str, Array]:
    """A layer on the means of a picture, float64 [n, 1, 1, channels], and its responses, which are not normalised."""
    inside = values.shape[3]
    weight, scale = layers.draws.weights(inside, out), math.sqrt(3 / inside)
    shaped = (weight * np.float32(scale)).T.reshape(out, inside, 1, 1)
    node = layers.graph.conv(name, source, shaped, np.zeros(out, np.float32))
    return node, _steps(values @ weight.astype(np.float64) * scale)


def _mean(values: Array) -> Array:
    return _steps(values.mean((1, 2), dtype=np.float64, keepdims=True))


def _steps(values: Array) -> Array:
    return np.asarray(np.rint(values * _POOL_STEPS) / _POOL_STEPS)


def _swished(layers: Calibrated, source: Layer) -> Layer:
    values = source.values.astype(np.float64)
    swished = values * np.clip(values / 6 + 0.5, 0, 1)
    return Layer(layers.graph.node("HardSwish", [source.name], f"{source.name}.swish"), on_grid(swished))


def _head(layers: Calibrated, low: Layer, high: Layer) -> None:
    """Scores from what is at 1/16, weighed by the whole picture and enlarged, and from what is at 1/8."""
    graph = layers.graph
    x = layers.relu(layers.conv("head", high, _HEAD))
    gate, values = _plain(
        layers, "head.excite", graph.node("GlobalAveragePool", [high.name], "pool"), _mean(high.values), _HEAD
    )
    gate = graph.node("Sigmoid", [gate], "head.gate")
    x = Layer(graph.node("Mul", [x.name, gate], "head.weighed"), on_grid(x.values / (1 + np.exp(-values))))
    coarse = graph.resized("head.coarse", layers.conv("head.high", x, CLASSES).name, -(-SIZE // 16), SIZE // 8)
    total = graph.node("Add", [coarse, layers.conv("head.low", low, CLASSES).name], "head.sum")
    graph.resized("scores", total, SIZE // 8, SIZE)


build = random_builder("lraspp", write_random, f"seed {SEED} builder {BUILDER}")
