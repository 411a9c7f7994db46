"""MobileNetV2 with random weights, as an ONNX file, for measuring speed.

Sandler et al. 2018, arXiv 1801.04381, table 2. At 224 pixels it is published as 3.5 million parameters and 0.30 * 10^9
multiply-accumulates.
"""

from __future__ import annotations

from pathlib import Path

from sut.models.sources.random_network import (
    IMAGENET_CLASSES,
    Calibrated,
    Layer,
    normalised,
    random_builder,
    save_classifier,
)

BUILDER = 1
"""To be raised with every change of the file made here: it is part of the cache key."""
SEED = 2
SIZE = 224
"""Height and width of the input in pixels."""

_STEM, _HEAD = 32, 1280
_STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
"""How many times wider a block is inside, its channels, repeats and first stride."""
_PICTURES = 4
_CELLS = (1, 2, 4, 8, 16, 32, 56)
_LOGIT_SCALE = 1 / 8


def write_random(path: Path) -> None:
    """Write the network with seeded random weights that tell pictures apart, as in ``random_network.py``.

    The input is ``images``, float32 [batch, 3, 224, 224], the output ``logits``, float32 [batch, 1000].
    """
    layers = Calibrated("mobilenet-v2", SEED)
    images = Layer("images", normalised(layers.draws.pictures(_PICTURES, SIZE, _CELLS)))
    x = _conv6(layers, "stem", images, _STEM, kernel=3, stride=2)
    for stage, (expansion, channels, repeats, first_stride) in enumerate(_STAGES):
        for number in range(repeats):
            stride = first_stride if number == 0 else 1
            x = _block(layers, f"stage{stage + 1}.block{number + 1}", x, channels, stride, expansion)
    x = _conv6(layers, "head", x, _HEAD)
    layers.logits(x, IMAGENET_CLASSES, _LOGIT_SCALE, "logits")
    save_classifier(layers.graph, path, SIZE)


def _block(layers: Calibrated, name: str, source: Layer, channels: int, stride: int, expansion: int) -> Layer:
    """Wider, each channel by itself, narrower again without a bend; around it a way where its ends are alike."""
    wide = expansion * source.channels
    x = source if expansion == 1 else _conv6(layers, f"{name}.expand", source, wide)
    x = _conv6(layers, f"{name}.depthwise", x, wide, kernel=3, stride=stride, is_depthwise=True)
    x = layers.conv(f"{name}.project", x, channels)
    return layers.sum(f"{name}.sum", x, source) if stride == 1 and source.channels == channels else x


def _conv6(layers: Calibrated, name: str, source: Layer, out: int, **how: int) -> Layer:
    """A convolution and ReLU6."""
    return layers.clipped(layers.conv(name, source, out, **how), 6)


build = random_builder("mobilenet-v2", write_random, f"seed {SEED} builder {BUILDER}")
