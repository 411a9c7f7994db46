"""ResNets with random weights: ResNet-50 v1.5 in MLPerf's form, or its trained file, and 18 and 101 in torchvision's.

At 224 pixels ResNet-18, -50 and -101 are published as 11.7, 25.6 and 44.5 million parameters and 1.81, 4.09 and 7.80 *
10^9 multiply-accumulates (torchvision's table of models).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from backends.base import TensorSpec
from sut.models.base import Build
from sut.models.sources.random_network import (
    IMAGENET_CLASSES,
    Calibrated,
    Layer,
    normalised,
    random_builder,
    save_classifier,
    windows,
)

BUILDER = 1
"""To be raised with every change of the files made here: it is part of the cache key."""
SEED = 50
SIZE = 224
"""Height and width of the input in pixels."""
CLASSES = 1001
"""Of MLPerf's ResNet-50: the ImageNet classes after class 0, "background"."""
MEAN = (123.68, 116.78, 103.94)
"""Subtracted from the pixels, R, G, B, by the recipe of MLPerf's ResNet-50."""
TRAINED_FILE = "resnet50_v1.onnx"
"""MLPerf's name for the trained model."""

# Channels and first stride of each stage: table 1 of He et al. 2015, arXiv 1512.03385; so are the numbers of blocks.
_STAGES = ((64, 1), (128, 2), (256, 2), (512, 2))
_BLOCKS = {18: (2, 2, 2, 2), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
_EXPANSION = 4

_PICTURES = 4
_CELLS = (1, 2, 4, 8, 16, 32, 56)
_LOGIT_SCALE = 1 / 8


def builder(depth: int) -> Build:
    """The ``ModelSpec.build`` of ResNet-18 or -101."""
    name = f"resnet-{depth}"
    return random_builder(name, partial(write_plain, depth=depth), f"seed {SEED} builder {BUILDER}")


def write_random(path: Path) -> None:
    """Write ResNet-50 with seeded random weights that tell pictures apart.

    The file has the input ``input_tensor:0``, float32 [batch, 3, 224, 224], and the outputs ``ArgMax:0``, int64
    [batch], and ``softmax_tensor:0``, float32 [batch, 1001].

    As in ``random_network.py``, where responses are at most 239.
    """
    layers = Calibrated("resnet50", SEED)
    pictures = np.rint(layers.draws.pictures(_PICTURES, SIZE, _CELLS) - np.array(MEAN, np.float32))
    # TensorFlow's SAME padding of an even size: the odd pixel goes after.
    x = _features(layers, Layer("input_tensor:0", pictures), _BLOCKS[50], pool_pads=(0, 1))
    logits = layers.logits(x, CLASSES, _LOGIT_SCALE, "dense")
    layers.graph.node("ArgMax", [logits], "ArgMax:0", axis=1, keepdims=0)
    layers.graph.node("Softmax", [logits], "softmax_tensor:0", axis=1)
    layers.graph.save(
        path,
        [TensorSpec("input_tensor:0", "float32", (None, 3, SIZE, SIZE))],
        [TensorSpec("ArgMax:0", "int64", (None,)), TensorSpec("softmax_tensor:0", "float32", (None, CLASSES))],
    )


def write_plain(path: Path, depth: int) -> None:
    """Write the ResNet of a ``depth`` as ``write_random`` does, for pictures by the recipe ``pytorch``.

    The input is ``images``, float32 [batch, 3, 224, 224], the output ``logits``, float32 [batch, 1000].
    """
    layers = Calibrated(f"resnet-{depth}", SEED)
    pictures = normalised(layers.draws.pictures(_PICTURES, SIZE, _CELLS))
    x = _features(layers, Layer("images", pictures), _BLOCKS[depth], pool_pads=(1, 1), is_deep=depth >= 50)
    layers.logits(x, IMAGENET_CLASSES, _LOGIT_SCALE, "logits")
    save_classifier(layers.graph, path, SIZE)


def _features(
    layers: Calibrated, images: Layer, blocks: Sequence[int], pool_pads: tuple[int, int], is_deep: bool = True
) -> Layer:
    """What pictures come to at 1/32 of their size; ``is_deep`` from 50 layers on, where blocks have three of them."""
    x = _pooled(layers, layers.relu(layers.conv("conv1", images, 64, kernel=7, stride=2)), pool_pads)
    block = _bottleneck if is_deep else _basic
    for stage, (count, (channels, stride)) in enumerate(zip(blocks, _STAGES, strict=True)):
        for number in range(count):
            x = block(layers, f"stage{stage + 1}.block{number + 1}", x, channels, stride if number == 0 else 1)
    return x


def _bottleneck(layers: Calibrated, name: str, source: Layer, channels: int, stride: int) -> Layer:
    shortcut = source
    if source.channels != channels * _EXPANSION:
        shortcut = layers.conv(f"{name}.shortcut", source, channels * _EXPANSION, stride=stride)
    x = layers.relu(layers.conv(f"{name}.conv1", source, channels))
    # Version 1.5 strides here, where version 1 did in the 1x1 before it.
    x = layers.relu(layers.conv(f"{name}.conv2", x, channels, kernel=3, stride=stride))
    x = layers.conv(f"{name}.conv3", x, channels * _EXPANSION)
    return layers.relu(layers.sum(f"{name}.sum", x, shortcut))


def _basic(layers: Calibrated, name: str, source: Layer, channels: int, stride: int) -> Layer:
    shortcut = source
    if source.channels != channels:
        shortcut = layers.conv(f"{name}.shortcut", source, channels, stride=stride)
    x = layers.relu(layers.conv(f"{name}.conv1", source, channels, kernel=3, stride=stride))
    x = layers.conv(f"{name}.conv2", x, channels, kernel=3)
    return layers.relu(layers.sum(f"{name}.sum", x, shortcut))


def _pooled(layers: Calibrated, source: Layer, pads: tuple[int, int]) -> Layer:
    values = windows(source.values, 3, 2, pads).max((4, 5))  # zeros are no more than what a ReLU gives
    before, after = pads
    window = {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [before, before, after, after]}
    return Layer(layers.graph.node("MaxPool", [source.name], "pool1", **window), values)


build = random_builder("resnet50", write_random, f"seed {SEED} builder {BUILDER}", trained=TRAINED_FILE)
