"""A small depth net in the manner of DPT with random weights, as an ONNX file, for measuring speed.

Ranftl et al. 2021, "Vision Transformers for Dense Prediction" (arXiv 2103.13413), section 3, on ViT-S/16 (12 blocks of
384 channels with 6 heads) at 384 pixels: what four of its blocks have made becomes maps at 1/4, 1/8, 1/16 and 1/32 of
the picture, which are fused from coarse to fine. The fusion is 64 channels wide. It is nobody's published model: maps
are enlarged bilinearly where DPT has transposed convolutions.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from backends.base import TensorSpec
from sut.models.onnx_graph import OnnxGraph
from sut.models.sources.random_network import Draws, random_builder
from sut.models.sources.transformer import Transformer
from sut.models.sources.vit import embedded

BUILDER = 1
"""To be raised with every change of the file made here: it is part of the cache key."""
SEED = 13
SIZE = 384
"""Height and width of the input in pixels."""

_PATCH, _CHANNELS, _HEADS = 16, 384, 6
_SIDE = SIZE // _PATCH
_TAPS = ((3, 48, 4), (6, 96, 2), (9, 192, 1), (12, 384, 0.5))
"""The blocks that are looked at, the channels that their maps get, and how many times larger these become."""
_WIDTH, _HEAD = 64, 32


def write_random(path: Path) -> None:
    """Write the network with seeded random weights, as in ``transformer.py``, whose maps are others for each picture.

    The input is ``images``, float32 [batch, 3, 384, 384], the output ``depth``, float32 [batch, 384, 384].
    """
    _Network().save(path)


class _Network:
    def __init__(self) -> None:
        self._draws = Draws(SEED)
        self._graph = OnnxGraph("dpt")
        self._layers = Transformer(self._graph, self._draws)

    def save(self, path: Path) -> None:
        layers, taps = self._layers, {block: (channels, times) for block, channels, times in _TAPS}
        x = embedded(self._graph, layers, self._draws, SIZE, _PATCH, _CHANNELS)
        maps = []
        for number in range(1, len(taps) * 3 + 1):
            x = layers.block(f"block{number}", x, _SIDE**2 + 1, _CHANNELS, _HEADS)
            if number in taps:
                maps.append(self._map(f"map{number}", x, *taps[number]))
        self._depth(self._fused(maps))
        images = TensorSpec("images", "float32", (None, 3, SIZE, SIZE))
        self._graph.save(path, [images], [TensorSpec("depth", "float32", (None, SIZE, SIZE))])

    def _map(self, name: str, tokens: str, channels: int, times: float) -> tuple[str, int]:
        """Tokens without the first as a map of the fusion's width: its node, and its side."""
        layers, graph = self._layers, self._graph
        places = graph.node("Slice", [layers.norm(f"{name}.norm", tokens, _CHANNELS), *self._but_first(name)], name)
        x = layers.reshaped(layers.turned(places, (0, 2, 1)), (-1, _CHANNELS, _SIDE, _SIDE))
        x = layers.conv(f"{name}.project", x, _CHANNELS, channels, 1)
        side = round(_SIDE * times)
        if times > 1:
            x = graph.resized(f"{name}.enlarged", x, _SIDE, side)
        elif times < 1:
            x = layers.conv(f"{name}.reduced", x, channels, channels, 3, stride=2, pads=(1, 1))
        return layers.conv(f"{name}.fit", x, channels, _WIDTH, 3, pads=(1, 1)), side

    def _but_first(self, name: str) -> list[str]:
        ends = {"from": 1, "to": _SIDE**2 + 1, "axis": 1}
        return [self._graph.weight(f"{name}.{end}", np.array([value])) for end, value in ends.items()]

    def _fused(self, maps: list[tuple[str, int]]) -> str:
        """The maps from the coarsest on: each enlarged and joined by the next; at the end at half of the picture."""
        layers, x = self._layers, ""
        for stage, (one, side) in enumerate(reversed(maps)):
            name = f"fuse{stage + 1}"
            x = layers.add(f"{name}.join", x, self._residual(f"{name}.one", one)) if x else one
            x = self._graph.resized(f"{name}.enlarged", self._residual(f"{name}.two", x), side, 2 * side)
            x = layers.conv(f"{name}.out", x, _WIDTH, _WIDTH, 1)
        return x

    def _residual(self, name: str, source: str) -> str:
        """Two convolutions beside a way around them, each behind a ReLU."""
        layers, x = self._layers, source
        for step in (1, 2):
            x = layers.conv(f"{name}.conv{step}", self._relu(x), _WIDTH, _WIDTH, 3, behind="relu", pads=(1, 1))
        return layers.add(name, source, x)

    def _depth(self, source: str) -> None:
        layers = self._layers
        x = layers.conv("head1", source, _WIDTH, _HEAD, 3, pads=(1, 1))
        x = self._graph.resized("head1.enlarged", x, SIZE // 2, SIZE)
        x = self._relu(layers.conv("head2", x, _HEAD, _HEAD, 3, pads=(1, 1)))
        x = self._relu(layers.conv("head3", x, _HEAD, 1, 1, behind="relu"))
        self._graph.node("Reshape", [x, self._graph.weight("depth.shape", np.array([-1, SIZE, SIZE]))], "depth")

    def _relu(self, source: str) -> str:
        return self._graph.node("Relu", [source], f"{source}.relu")


build = random_builder("dpt", write_random, f"seed {SEED} builder {BUILDER}")
