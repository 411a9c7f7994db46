"""YOLO11's network with random weights, as an ONNX file: for measuring speed where the trained export is not at hand.

Written from what is published: Khanam and Hussain 2024, "YOLOv11: An Overview of the Key Architectural Enhancements"
(arXiv 2410.17725), for the blocks; the public model configuration for widths and repeats; Li et al. 2020, "Generalized
Focal Loss" (arXiv 2006.04388), for boxes as distributions over distances. At 640 pixels and 80 classes the published
sizes are, in millions of parameters and 10^9 operations: n 2.6 and 6.5, s 9.4 and 21.5, m 20.1 and 68.0, l 25.3 and
86.9, x 56.9 and 194.9.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from backends.base import TensorSpec
from sut.models.base import Build
from sut.models.onnx_graph import OnnxGraph
from sut.models.sources.random_network import Array, Draws, Layer, on_grid, random_builder, random_conv, windows

BUILDER = 1
"""To be raised with every change of the file made here: it is part of the cache key."""
SEED = 11
SIZE = 640
CLASSES = 80
"""COCO's."""
LARGE = (1.0, 1.0)
"""Depth and width of YOLO11-L, MLPerf's. n has 0.5 and 0.25, s 0.5 and 0.5, m 0.5 and 1, x 1 and 1.5."""
STRIDES = (8, 16, 32)
"""Pixels of the input between the anchors of each level."""
BINS = 16
"""Distances, in strides, that each side of a box is a distribution over."""

_REPEATS = 2
_HEAD_WIDTH = 64
_MOST_CLASS_CHANNELS = 100

# Smaller than the input, as all of a large network at 640 pixels takes too long: at 256 the last level has 8 x 8 cells.
_PICTURES, _PICTURE_SIZE = 2, 256
_CELLS = (1, 2, 4, 8, 16, 32, 64)

_MEAN, _DEVIATION = 2.4, 1.0
"""Of what goes into SiLU, which is steepest at 2.4 and bends down on both sides: a picture of more contrast than those
of the calibration stays finite through a hundred layers, and one of less does not fade. Around 0 either would grow."""
_BIN_DEVIATION = 2.0
"""Of the logits of the bins, so that boxes differ in size."""
_CLASS_MEAN, _CLASS_DEVIATION = -11.3, 1.5
"""Of the classes' logits, so that some hundreds of the 8,400 anchors of YOLO11-L have a score above 0.001: 210 to 367
on the demo photos."""


def builder(model: str) -> Build:
    """The ``ModelSpec.build`` of YOLO11-L under the name of a ``model``."""
    make = partial(build_yolo11, depth=LARGE[0], width=LARGE[1], size=SIZE, classes=CLASSES, seed=SEED)
    key = f"seed {SEED} builder {BUILDER}"
    return random_builder(model, make, key, trained="yolo11l.onnx", made="yolo11l-random.onnx")


def build_yolo11(path: Path, depth: float, width: float, size: int, classes: int, seed: int) -> None:
    """Write YOLO11 of this depth and width with seeded random weights that tell pictures apart.

    The input is ``images``, float32 [batch, 3, size, size], ``size`` a multiple of 32; the output ``output0``, float32
    [batch, 4 + classes, anchors]: centre and size of each box in pixels of the input, then its scores from 0 to 1.
    """
    network = _Network(depth, width, size, classes, seed)
    pictures = np.rint(network.draws.pictures(_PICTURES, _PICTURE_SIZE, _CELLS)) / np.float32(256)
    levels = network.neck(*network.backbone(Layer("images", pictures)))
    heads = [network.head(f"head{stride}", level) for stride, level in zip(STRIDES, levels, strict=True)]
    _decode(network.graph, heads, size, classes)
    anchors = sum((size // stride) ** 2 for stride in STRIDES)
    network.graph.save(
        path,
        [TensorSpec("images", "float32", (None, 3, size, size))],
        [TensorSpec("output0", "float32", (None, 4 + classes, anchors))],
    )


class _Network:
    """The layers up to the heads, each of which runs the calibration batch through itself.

    Models as wide as m have 512 channels at most, before scaling, and the deeper kind of inner block everywhere.
    """

    def __init__(self, depth: float, width: float, size: int, classes: int, seed: int) -> None:
        self.draws = Draws(seed)
        self.graph = OnnxGraph("yolo11")
        self._repeats = max(1, round(_REPEATS * depth))
        self._side = size // STRIDES[-1]
        self._width = width
        self._is_wide = width >= 1
        self._classes = classes

    def backbone(self, images: Layer) -> tuple[Layer, Layer, Layer]:
        """What pictures come to at 1/8, 1/16 and 1/32 of their size."""
        x = self._conv("stem1", images, self._channels(64), kernel=3, stride=2)
        x = self._conv("stem2", x, self._channels(128), kernel=3, stride=2)
        x = self._stage("stage4", x, 256, is_deep=self._is_wide, share=0.25)
        x = self._conv("down8", x, self._channels(256), kernel=3, stride=2)
        at_8 = self._stage("stage8", x, 512, is_deep=self._is_wide, share=0.25)
        x = self._conv("down16", at_8, self._channels(512), kernel=3, stride=2)
        at_16 = self._stage("stage16", x, 512, is_deep=True)
        x = self._conv("down32", at_16, self._channels(1024), kernel=3, stride=2)
        x = self._stage("stage32", x, 1024, is_deep=True)
        return at_8, at_16, self._attentive("attentive", self._pyramid("pyramid", x))

    def neck(self, at_8: Layer, at_16: Layer, at_32: Layer) -> tuple[Layer, Layer, Layer]:
        """The same three sizes, each having seen the others: coarse to fine, then back."""
        x = self._concat("join.up16", [self._doubled("up16", at_32), at_16])
        up_16 = self._stage("up16.stage", x, 512, is_deep=self._is_wide)
        x = self._concat("join.up8", [self._doubled("up8", up_16), at_8])
        out_8 = self._stage("out8", x, 256, is_deep=self._is_wide)
        x = self._concat("join16", [self._conv("down.out16", out_8, out_8.channels, kernel=3, stride=2), up_16])
        out_16 = self._stage("out16", x, 512, is_deep=self._is_wide)
        x = self._concat("join32", [self._conv("down.out32", out_16, out_16.channels, kernel=3, stride=2), at_32])
        return out_8, out_16, self._stage("out32", x, 1024, is_deep=True)

    def head(self, name: str, level: Layer) -> tuple[str, str]:
        """Logits of the bins of each side, [n, 4 * BINS, h, w], and of the classes, [n, classes, h, w]: the nodes."""
        finest = self._channels(256)
        x = level
        for step in (1, 2):
            x = self._conv(f"{name}.box{step}", x, max(BINS, finest // 4, _HEAD_WIDTH), kernel=3)
        box = self._linear(f"{name}.box", x, 4 * BINS, deviation=_BIN_DEVIATION)
        x = level
        for step in (1, 2):
            x = self._conv(f"{name}.class{step}.depthwise", x, x.channels, kernel=3, is_depthwise=True)
            x = self._conv(f"{name}.class{step}", x, max(finest, min(self._classes, _MOST_CLASS_CHANNELS)))
        named = self._linear(f"{name}.class", x, self._classes, mean=_CLASS_MEAN, deviation=_CLASS_DEVIATION)
        return box.name, named.name

    def _channels(self, published: int) -> int:
        return math.ceil(min(published, 512 if self._is_wide else 1024) * self._width / 8) * 8

    def _stage(self, name: str, x: Layer, published: int, *, is_deep: bool, share: float = 0.5) -> Layer:
        """C3k2: one half passes, the other goes through blocks one after another, and all of what they made counts."""
        out = self._channels(published)
        inner = int(share * out)
        parts = self._split(f"{name}.split", self._conv(f"{name}.in", x, 2 * inner), (inner, inner))
        for number in range(self._repeats):
            block = self._deep if is_deep else self._bottleneck
            parts.append(block(f"{name}.block{number + 1}", parts[-1]))
        return self._conv(f"{name}.out", self._concat(f"{name}.concat", parts), out)

    def _deep(self, name: str, source: Layer) -> Layer:
        """C3k: two bottlenecks, of which the layers between are as wide, beside a way around them."""
        half = source.channels // 2
        x = self._conv(f"{name}.in", source, half)
        for number in (1, 2):
            x = self._bottleneck(f"{name}.{number}", x, share=1)
        around = self._conv(f"{name}.around", source, half)
        return self._conv(f"{name}.out", self._concat(f"{name}.concat", [x, around]), source.channels)

    def _bottleneck(self, name: str, source: Layer, share: float = 0.5) -> Layer:
        x = self._conv(f"{name}.conv1", source, int(share * source.channels), kernel=3)
        return self._sum(f"{name}.sum", source, self._conv(f"{name}.conv2", x, source.channels, kernel=3))

    def _pyramid(self, name: str, source: Layer) -> Layer:
        """SPPF: what is largest within 5, 9 and 13 cells, beside the cell itself."""
        found = [self._conv(f"{name}.in", source, source.channels // 2)]
        window = {"kernel_shape": [5, 5], "strides": [1, 1], "pads": [2, 2, 2, 2]}
        for number in (1, 2, 3):
            node = self.graph.node("MaxPool", [found[-1].name], f"{name}.pool{number}", **window)
            found.append(Layer(node, windows(found[-1].values, 5, 1, (2, 2), fill=-np.inf).max((4, 5))))
        return self._conv(f"{name}.out", self._concat(f"{name}.concat", found), source.channels)

    def _attentive(self, name: str, source: Layer) -> Layer:
        """C2PSA: one half passes, the other goes through blocks of attention and two layers on each cell."""
        half = source.channels // 2
        passed, x = self._split(f"{name}.split", self._conv(f"{name}.in", source, 2 * half), (half, half))
        for number in range(self._repeats):
            block = f"{name}.block{number + 1}"
            x = self._sum(f"{block}.sum1", x, self._attention(f"{block}.attention", x))
            inner = self._conv(f"{block}.wide", x, 2 * half)
            x = self._sum(f"{block}.sum2", x, self._linear(f"{block}.narrow", inner, half))
        return self._conv(f"{name}.out", self._concat(f"{name}.concat", [passed, x]), source.channels)

    def _attention(self, name: str, x: Layer) -> Layer:
        """Each cell looks at all others, by heads of 64 channels with keys half as wide; a depthwise layer says where.

        Vaswani et al. 2017, arXiv 1706.03762, section 3.2.
        """
        graph, channels = self.graph, x.channels
        heads = max(1, channels // _HEAD_WIDTH)
        value = channels // heads
        key = value // 2
        mixed = self._linear(f"{name}.mix", x, heads * (2 * key + value))
        cells = self._reshaped(f"{name}.cells", mixed.name, (-1, heads, 2 * key + value, self._side**2))
        asked, known, told = graph.split(f"{name}.split", cells, (key, key, value), axis=2)
        asking = graph.node("Transpose", [asked], f"{name}.asking", perm=[0, 1, 3, 2])
        scale = graph.weight(f"{name}.scale", np.array(key**-0.5, np.float32))
        likeness = graph.node("MatMul", [asking, known], f"{name}.likeness")
        likeness = graph.node("Mul", [likeness, scale], f"{name}.scaled")
        shares = graph.node("Softmax", [likeness], f"{name}.shares", axis=-1)
        turned = graph.node("Transpose", [shares], f"{name}.turned", perm=[0, 1, 3, 2])
        seen = graph.node("MatMul", [told, turned], f"{name}.seen")
        values, told_values = _attended(mixed.values, heads, key)
        shape = (-1, channels, self._side, self._side)
        place = Layer(self._reshaped(f"{name}.told", told, shape), told_values)
        place = self._linear(f"{name}.place", place, channels, kernel=3, is_depthwise=True)
        x = self._sum(f"{name}.sum", Layer(self._reshaped(f"{name}.where", seen, shape), values), place)
        return self._linear(f"{name}.out", x, channels)

    def _linear(self, name: str, source: Layer, out: int, **how: Any) -> Layer:
        return random_conv(self.graph, self.draws, name, source, out, **how)

    def _conv(self, name: str, source: Layer, out: int, **how: Any) -> Layer:
        """A convolution and SiLU (Elfwing et al. 2017, arXiv 1702.03118)."""
        x = self._linear(name, source, out, mean=_MEAN, deviation=_DEVIATION, **how)
        gate = self.graph.node("Sigmoid", [x.name], f"{name}.gate")
        values = x.values.astype(np.float64)
        return Layer(self.graph.node("Mul", [x.name, gate], f"{name}.silu"), on_grid(values / (1 + np.exp(-values))))

    def _sum(self, name: str, one: Layer, other: Layer) -> Layer:
        return Layer(self.graph.node("Add", [one.name, other.name], name), one.values + other.values)

    def _concat(self, name: str, layers: Sequence[Layer]) -> Layer:
        node = self.graph.node("Concat", [layer.name for layer in layers], name, axis=1)
        return Layer(node, np.concatenate([layer.values for layer in layers], axis=3))

    def _split(self, name: str, source: Layer, sizes: tuple[int, int]) -> list[Layer]:
        nodes = self.graph.split(name, source.name, sizes, axis=1)
        values = np.split(source.values, [sizes[0]], axis=3)
        return [Layer(*each) for each in zip(nodes, values, strict=True)]

    def _doubled(self, name: str, source: Layer) -> Layer:
        scales = self.graph.weight(f"{name}.scales", np.array([1, 1, 2, 2], np.float32))
        how = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
        node = self.graph.node("Resize", [source.name, "", scales], name, **how)
        return Layer(node, source.values.repeat(2, axis=1).repeat(2, axis=2))

    def _reshaped(self, name: str, source: str, shape: tuple[int, ...]) -> str:
        return self.graph.node("Reshape", [source, self.graph.weight(f"{name}.shape", np.array(shape))], name)


def _attended(mixed: Array, heads: int, key: int) -> tuple[Array, Array]:
    """What each cell has seen of the others, and what it told them itself: both [n, h, w, channels]."""
    n, high, wide, _ = mixed.shape
    rows = mixed.astype(np.float64).reshape(n, high * wide, heads, -1).transpose(0, 2, 1, 3)
    asked, known, told = np.split(rows, [key, 2 * key], axis=3)
    likeness = np.exp(asked @ known.swapaxes(2, 3) * key**-0.5)
    seen = likeness / likeness.sum(axis=3, keepdims=True) @ told
    first, second = (x.transpose(0, 2, 1, 3).reshape(n, high, wide, -1) for x in (seen, told))
    return on_grid(first), on_grid(second)


def _decode(graph: OnnxGraph, heads: Sequence[tuple[str, str]], size: int, classes: int) -> None:
    """From the heads' logits to boxes and scores.

    Each side of a box is the mean of its distribution, in strides from the anchor in the middle of its cell.
    """
    flat, anchors, strides = [], [], []
    for stride, head in zip(STRIDES, heads, strict=True):
        joined = graph.node("Concat", head, f"decode{stride}.concat", axis=1)
        side = size // stride
        shape = graph.weight(f"decode{stride}.shape", np.array([-1, 4 * BINS + classes, side**2]))
        flat.append(graph.node("Reshape", [joined, shape], f"decode{stride}"))
        anchors.append(np.indices((side, side), np.float32)[::-1].reshape(2, -1) + np.float32(0.5))
        strides.append(np.full((1, side**2), stride, np.float32))
    logits = graph.node("Concat", flat, "decode.concat", axis=2)
    bins, named = graph.split("decode.split", logits, (4 * BINS, classes), axis=1)
    shape = graph.weight("decode.sides.shape", np.array([-1, 4, BINS, sum(each.shape[1] for each in strides)]))
    shares = graph.node("Softmax", [graph.node("Reshape", [bins, shape], "decode.sides")], "decode.shares", axis=2)
    distances = graph.weight("decode.distances", np.arange(BINS, dtype=np.float32).reshape(1, 1, BINS, 1))
    means = graph.node("Mul", [shares, distances], "decode.products")
    means = graph.node("ReduceSum", [means, graph.weight("decode.axis", np.array([2]))], "decode.means", keepdims=0)
    before, behind = graph.split("decode.corners", means, (2, 2), axis=1)
    shift = graph.node("Sub", [behind, before], "decode.shift")
    shift = graph.node("Mul", [shift, graph.weight("decode.half", np.array(0.5, np.float32))], "decode.shift.half")
    centre = graph.node(
        "Add", [shift, graph.weight("decode.anchors", np.concatenate(anchors, 1)[None])], "decode.centre"
    )
    extent = graph.node("Add", [before, behind], "decode.extent")
    boxes = graph.node("Concat", [centre, extent], "decode.boxes", axis=1)
    pixels = graph.weight("decode.strides", np.concatenate(strides, 1)[None])
    boxes = graph.node("Mul", [boxes, pixels], "decode.boxes.pixels")
    graph.node("Concat", [boxes, graph.node("Sigmoid", [named], "decode.scores")], "output0", axis=1)
