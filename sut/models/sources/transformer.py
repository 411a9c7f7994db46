"""Layers of vision transformers with seeded random weights: the same file on every machine, made without a picture.

Nothing is calibrated. A transformer normalises each token itself, so it is enough that every layer keeps the variance
of what goes in: weights are uniform with the variance 1 / inputs (LeCun et al. 1998, "Efficient BackProp", section
4.6). The mean of what GELU or ReLU lets through, which is the same for every picture, is taken away again by the bias
of the layer behind it: without that it adds up from layer to layer until one class wins everywhere.

What is guaranteed is the file, byte by byte: weights are odd multiples of 2^-8 times a constant that IEEE 754 rounds in
one way only, and the sums in the biases are exact. Answers differ between runtimes by rounding, as those of any model.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np

from sut.models.onnx_graph import OnnxGraph
from sut.models.sources.random_network import Array, Draws

Behind = Literal["gelu", "relu"] | None
"""What the input of a layer comes from, None for anything that has mean 0 and variance 1."""
_MEANS = {"gelu": 1 / math.sqrt(4 * math.pi), "relu": 1 / math.sqrt(2 * math.pi)}
"""E[f(x)] of a standard normal x."""
_SQUARES = {"gelu": 1 / 3 + 1 / (math.sqrt(12) * math.pi), "relu": 0.5}
"""E[f(x)^2] of the same."""
_EPSILON = 1e-6
_MLP = 4
"""Width of a block's middle by that of its tokens."""


class Transformer:
    """Adds layers to a graph. Tokens are float32 [batch, tokens, channels], pictures [batch, channels, h, w]."""

    def __init__(self, graph: OnnxGraph, draws: Draws) -> None:
        """The layers go into ``graph``, their weights come from ``draws``."""
        self._graph = graph
        self._draws = draws

    def linear(self, name: str, source: str, inside: int, out: int, *, behind: Behind = None) -> str:
        """A layer on each token, from ``inside`` channels to ``out``; returns its node's name."""
        weight, bias = self._weights(inside, out, behind)
        product = self._graph.node("MatMul", [source, self._graph.weight(f"{name}.weight", weight)], f"{name}.product")
        return self._graph.node("Add", [product, self._graph.weight(f"{name}.bias", bias)], name)

    def conv(
        self, name: str, source: str, inside: int, out: int, kernel: int, *, behind: Behind = None, **how: Any
    ) -> str:
        """A square convolution, as ``OnnxGraph.conv`` with ``how``, but of ``inside`` channels a group."""
        weight, bias = self._weights(inside * kernel * kernel, out, behind)
        return self._graph.conv(name, source, weight.T.reshape(out, inside, kernel, kernel), bias, **how)

    def norm(self, name: str, source: str, channels: int) -> str:
        """Layer norm over each token's channels, scale 1 and shift 0 (Ba et al. 2016, arXiv 1607.06450)."""
        scale = self._graph.weight(f"{name}.scale", np.ones(channels, np.float32))
        shift = self._graph.weight(f"{name}.shift", np.zeros(channels, np.float32))
        return self._graph.node("LayerNormalization", [source, scale, shift], name, axis=-1, epsilon=_EPSILON)

    def gelu(self, source: str) -> str:
        """x (1 + erf(x / sqrt 2)) / 2, as exporters write it (Hendrycks and Gimpel 2016, arXiv 1606.08415)."""
        name = f"{source}.gelu"
        scaled = self._graph.node("Mul", [source, self._constant(f"{name}.scale", math.sqrt(0.5))], f"{name}.scaled")
        error = self._graph.node("Erf", [scaled], f"{name}.erf")
        gate = self._graph.node("Add", [error, self._constant(f"{name}.one", 1)], f"{name}.gate")
        product = self._graph.node("Mul", [source, gate], f"{name}.product")
        return self._graph.node("Mul", [product, self._constant(f"{name}.half", 0.5)], name)

    def block(self, name: str, x: str, tokens: int, channels: int, heads: int) -> str:
        """Attention, then two layers on each token, both beside a way around them (ViT, arXiv 2010.11929, eq. 2-3)."""
        x = self.add(f"{name}.sum1", x, self.attention(f"{name}.attention", x, tokens, channels, heads))
        return self.add(f"{name}.sum2", x, self.mlp(f"{name}.mlp", x, channels))

    def mlp(self, name: str, x: str, channels: int) -> str:
        """A norm and two layers on each token."""
        x = self.norm(f"{name}.norm", x, channels)
        x = self.gelu(self.linear(f"{name}.wide", x, channels, _MLP * channels))
        return self.linear(f"{name}.narrow", x, _MLP * channels, channels, behind="gelu")

    def attention(self, name: str, x: str, tokens: int, channels: int, heads: int, places: str | None = None) -> str:
        """A norm, and each token looks at all others; ``places`` [heads, tokens, tokens] is added to the likenesses.

        Vaswani et al. 2017, arXiv 1706.03762, section 3.2.
        """
        graph, width = self._graph, channels // heads
        mixed = self.linear(f"{name}.mix", self.norm(f"{name}.norm", x, channels), channels, 3 * channels)
        parts = graph.split(f"{name}.split", mixed, (channels,) * 3, axis=2)
        turned = ((0, 2, 1, 3), (0, 2, 3, 1), (0, 2, 1, 3))
        asked, known, told = (
            self.turned(self.reshaped(part, (-1, tokens, heads, width)), order)
            for part, order in zip(parts, turned, strict=True)
        )
        likeness = graph.node("MatMul", [asked, known], f"{name}.likeness")
        likeness = graph.node("Mul", [likeness, self._constant(f"{name}.scale", width**-0.5)], f"{name}.scaled")
        if places is not None:
            likeness = self.add(f"{name}.placed", likeness, places)
        seen = graph.node(
            "MatMul", [graph.node("Softmax", [likeness], f"{name}.shares", axis=-1), told], f"{name}.seen"
        )
        seen = self.reshaped(self.turned(seen, (0, 2, 1, 3)), (-1, tokens, channels))
        return self.linear(name, seen, channels, channels)

    def add(self, name: str, one: str, other: str) -> str:
        """The sum of two nodes."""
        return self._graph.node("Add", [one, other], name)

    def reshaped(self, source: str, shape: tuple[int, ...]) -> str:
        """The same values in another shape, of which one axis may be -1."""
        name = f"{source}.reshaped"
        return self._graph.node("Reshape", [source, self._graph.weight(f"{name}.shape", np.array(shape))], name)

    def turned(self, source: str, order: tuple[int, ...]) -> str:
        """The same values with their axes in another order."""
        return self._graph.node("Transpose", [source], f"{source}.turned", perm=order)

    def _weights(self, inside: int, out: int, behind: Behind) -> tuple[Array, Array]:
        """Weight [inside, out] and bias [out], both float32, whose responses have mean 0 and variance 1."""
        weight, scale, mean = self._draws.weights(inside, out), math.sqrt(3 / inside), 0.0
        if behind is not None:
            mean = _MEANS[behind]
            scale /= math.sqrt(_SQUARES[behind] - mean**2)
        bias = weight.sum(0, np.float64) * (0 - mean * scale)
        return weight * np.float32(scale), bias.astype(np.float32)

    def _constant(self, name: str, value: float) -> str:
        return self._graph.weight(name, np.array(value, np.float32))
