"""TinyViT-5M with random weights, as an ONNX file, for measuring speed.

Wu et al. 2022, "TinyViT: Fast Pretraining Distillation for Small Vision Transformers" (arXiv 2207.10666), section 3.2.
At 224 pixels it is published as 5.4 million parameters and 1.3 * 10^9 multiply-accumulates.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from sut.models.sources.random_network import (
    GRID_STEPS,
    IMAGENET_CLASSES,
    Array,
    Calibrated,
    Layer,
    normalised,
    on_grid,
    random_builder,
    save_classifier,
)
from sut.models.sources.transformer import Transformer

BUILDER = 1
"""To be raised with every change of the file made here: it is part of the cache key."""
SEED = 5
SIZE = 224
"""Height and width of the input in pixels."""

_CHANNELS = (64, 128, 160, 320)
_STAGES = ((2, 4, 7), (6, 5, 14), (2, 10, 7))
"""Blocks, heads and the side of a window, in tokens, of the stages with attention: all but the first."""
_EXPANSION = 4
_PICTURES = 2
_CELLS = (1, 2, 4, 8, 16, 32, 56)


def write_random(path: Path) -> None:
    """Write the network with seeded random weights that tell pictures apart.

    The input is ``images``, float32 [batch, 3, 224, 224], the output ``logits``, float32 [batch, 1000]. Layers on
    tokens are those of ``transformer.py``; convolutions take mean and variance from a batch, as in
    ``random_network.py``, which gives the same file on every machine.
    """
    _Network().save(path)


class _Network:
    """Maps are [batch, channels, h, w] in the graph, tokens [batch, h * w, channels]; values [n, h, w, channels]."""

    def __init__(self) -> None:
        self._convs = Calibrated("tinyvit", SEED)
        self._graph = self._convs.graph
        self._layers = Transformer(self._graph, self._convs.draws)

    def save(self, path: Path) -> None:
        first, images = _CHANNELS[0], self._convs.draws.pictures(_PICTURES, SIZE, _CELLS)
        x = self._gelu(self._convs.conv("stem1", Layer("images", normalised(images)), first // 2, kernel=3, stride=2))
        x = self._convs.conv("stem2", x, first, kernel=3, stride=2)
        for number in (1, 2):
            inner = self._inverted(f"stage1.block{number}", x, first * _EXPANSION, first)
            x = self._gelu(self._convs.sum(f"stage1.block{number}.sum", x, inner))
        for stage, (blocks, heads, window) in enumerate(_STAGES):
            name, channels = f"stage{stage + 2}", _CHANNELS[stage + 1]
            x = self._inverted(f"{name}.merge", x, channels, channels, stride=2)
            for number in range(blocks):
                x = self._block(f"{name}.block{number + 1}", x, heads, window)
        pooled = self._graph.node("GlobalAveragePool", [x.name], "pool")
        features = self._layers.norm("norm", self._graph.node("Flatten", [pooled], "features"), x.channels)
        self._layers.linear("logits", features, x.channels, IMAGENET_CLASSES)
        save_classifier(self._graph, path, SIZE)

    def _inverted(self, name: str, x: Layer, wide: int, out: int, stride: int = 1) -> Layer:
        """Each pixel, each channel by itself, each pixel again."""
        x = self._gelu(self._convs.conv(f"{name}.conv1", x, wide))
        x = self._gelu(self._convs.conv(f"{name}.conv2", x, wide, kernel=3, stride=stride, is_depthwise=True))
        return self._convs.conv(f"{name}.conv3", x, out)

    def _gelu(self, x: Layer) -> Layer:
        return Layer(self._layers.gelu(x.name), _gelu(x.values))

    def _block(self, name: str, x: Layer, heads: int, window: int) -> Layer:
        """Attention within windows, each channel by itself, two layers on each token."""
        layers, channels = self._layers, x.channels
        seen = self._seen(f"{name}.attention", x, heads, window)
        x = self._joined(f"{name}.sum1", x, *seen)
        x = self._convs.conv(f"{name}.local", x, channels, kernel=3, is_depthwise=True)
        tokens = layers.mlp(f"{name}.mlp", self._tokens(x), channels)
        wide = self._computed(f"{name}.mlp.wide", _normed(x.values))
        return self._joined(f"{name}.sum2", x, tokens, self._computed(f"{name}.mlp.narrow", _gelu(on_grid(wide))))

    def _tokens(self, x: Layer) -> str:
        side = x.values.shape[1]
        return self._layers.turned(self._layers.reshaped(x.name, (-1, x.channels, side * side)), (0, 2, 1))

    def _joined(self, name: str, x: Layer, tokens: str, values: Array) -> Layer:
        """A map and what was made of its tokens, added."""
        side, turned = x.values.shape[1], self._layers.turned(tokens, (0, 2, 1))
        node = self._layers.add(name, x.name, self._layers.reshaped(turned, (-1, x.channels, side, side)))
        return Layer(node, on_grid(x.values + values))

    def _seen(self, name: str, x: Layer, heads: int, window: int) -> tuple[str, Array]:
        """What attention within windows makes of a map: tokens in the graph, and the values."""
        layers, graph, channels, side = self._layers, self._graph, x.channels, x.values.shape[1]
        down, across = np.indices((window, window)).reshape(2, -1)
        pairs = abs(down[:, None] - down) * window + abs(across[:, None] - across)
        distances = graph.weight(f"{name}.distances", self._convs.draws.weights(heads, window * window))
        places = graph.node("Gather", [distances, graph.weight(f"{name}.pairs", pairs)], f"{name}.places", axis=1)
        count, order, width = side // window, (0, 1, 3, 2, 4, 5), channels // heads
        tokens = layers.reshaped(self._tokens(x), (-1, count, window, count, window, channels))
        tokens = layers.reshaped(layers.turned(tokens, order), (-1, window * window, channels))
        tokens = layers.attention(name, tokens, window * window, channels, heads, places)
        tokens = layers.reshaped(tokens, (-1, count, count, window, window, channels))
        tokens = layers.reshaped(layers.turned(tokens, order), (-1, side * side, channels))

        mixed = self._computed(f"{name}.mix", _normed(x.values))
        mixed = mixed.reshape(-1, count, window, count, window, 3, heads, width).transpose(5, 0, 1, 3, 6, 2, 4, 7)
        asked, known, told = mixed.reshape(3, -1, count, count, heads, window * window, width)
        likeness = np.exp(asked @ known.swapaxes(-1, -2) * width**-0.5 + graph.value(distances)[:, pairs])
        values = likeness / likeness.sum(axis=-1, keepdims=True) @ told
        values = values.reshape(-1, count, count, heads, window, window, width).transpose(0, 1, 4, 2, 5, 3, 6)
        return tokens, self._computed(name, values.reshape(x.values.shape))

    def _computed(self, name: str, values: Array) -> Array:
        """What a layer on tokens that is in the graph makes of values."""
        weight, bias = (self._graph.value(f"{name}.{part}").astype(np.float64) for part in ("weight", "bias"))
        return np.asarray(values @ weight + bias)


def _gelu(values: Array) -> Array:
    """GELU of values on the grid."""
    steps = np.rint(values * GRID_STEPS).astype(np.int32)
    low, high = int(steps.min()), int(steps.max())
    levels = [step / GRID_STEPS for step in range(low, high + 1)]
    table = on_grid(np.array([each * (1 + math.erf(each * math.sqrt(0.5))) / 2 for each in levels]))
    return np.asarray(table[steps - low])


def _normed(values: Array) -> Array:
    """Layer norm over the last axis."""
    centred = values - values.mean(axis=-1, dtype=np.float64, keepdims=True)
    return np.asarray(centred / np.sqrt(np.square(centred).mean(axis=-1, keepdims=True) + 1e-6))


build = random_builder("tinyvit", write_random, f"seed {SEED} builder {BUILDER}")
