"""ViT-B/16 with random weights, as an ONNX file, for measuring speed.

Dosovitskiy et al. 2020, "An Image is Worth 16x16 Words" (arXiv 2010.11929), table 1: 12 blocks of 768 channels with 12
heads. At 224 pixels and 1000 classes it is published as 86.6 million parameters and 17.6 * 10^9 multiply-accumulates
(torchvision's table of ``vit_b_16``).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from sut.models.onnx_graph import OnnxGraph
from sut.models.sources.random_network import IMAGENET_CLASSES, Draws, random_builder, save_classifier
from sut.models.sources.transformer import Transformer

BUILDER = 1
"""To be raised with every change of the file made here: it is part of the cache key."""
SEED = 16
SIZE = 224
"""Height and width of the input in pixels."""

_PATCH, _BLOCKS, _CHANNELS, _HEADS = 16, 12, 768, 12
_PLACE_SCALE = 1 / 8
"""Of the position embeddings, below what the patches bring: a picture is told by those."""


def write_random(path: Path) -> None:
    """Write the network with seeded random weights that tell pictures apart, as in ``transformer.py``.

    The input is ``images``, float32 [batch, 3, 224, 224], the output ``logits``, float32 [batch, 1000].
    """
    draws, graph = Draws(SEED), OnnxGraph("vit-b")
    layers = Transformer(graph, draws)
    x = embedded(graph, layers, draws, SIZE, _PATCH, _CHANNELS)
    for number in range(_BLOCKS):
        x = layers.block(f"block{number + 1}", x, (SIZE // _PATCH) ** 2 + 1, _CHANNELS, _HEADS)
    x = layers.norm("norm", x, _CHANNELS)
    x = graph.node(
        "Flatten", [graph.node("Gather", [x, graph.weight("first", np.array([0]))], "class", axis=1)], "flat"
    )
    layers.linear("logits", x, _CHANNELS, IMAGENET_CLASSES)
    save_classifier(graph, path, SIZE)


def embedded(graph: OnnxGraph, layers: Transformer, draws: Draws, size: int, patch: int, channels: int) -> str:
    """Tokens of the ``images``: one for the picture as a whole, then one a patch, row by row, each with its place.

    The first begins as zeros: what is published as its own learnt value is part of its place here.
    """
    patches = (size // patch) ** 2
    x = layers.conv("patches", "images", 3, channels, patch, stride=patch)
    x = layers.turned(layers.reshaped(x, (-1, channels, patches)), (0, 2, 1))
    before = graph.weight("before", np.array([0, 1, 0, 0, 0, 0]))
    x = graph.node("Pad", [x, before], "tokens")
    places = draws.weights(1, patches + 1, channels) * np.float32(_PLACE_SCALE)
    return layers.add("embedded", x, graph.weight("places", places))


build = random_builder("vit-b", write_random, f"seed {SEED} builder {BUILDER}")
