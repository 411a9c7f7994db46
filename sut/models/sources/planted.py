"""Detectors that find what was drawn exactly: nobody trained them, so what their boxes lose is lost around them.

One reads pictures as ``sut/datasets/rectangles.py`` draws them: rectangles of ``COLOURS``, whose channels are all fully
on or off, on a grey that is neither. A pixel that is half rectangle and half background is half-way between, in every
channel: a threshold there finds each edge within half a pixel of the input, however the picture was resized.

The other reads frames as ``sut/datasets/albums.py`` draws them: photos on ``BACKGROUND``, which none of their pixels is
near. How far a pixel at an edge is from it depends on the photo's there: edges are found within a pixel.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from backends.base import TensorSpec
from sut.datasets.albums import BACKGROUND
from sut.datasets.rectangles import COLOURS
from sut.files import cached
from sut.models.base import Weights
from sut.models.onnx_graph import OnnxGraph
from sut.tasks.detection.categories import COCO80
from sut.text import Say

BUILDER = 1
"""To be raised with every change of the file made here: it is part of the cache key."""
SIZE = 640
"""Height and width of the input in pixels."""
RETINANET_SIZE, RETINANET_CLASSES = 800, 264
"""The same of MLPerf's RetinaNet, and the classes of its OpenImages."""
STRIDE = 16
"""Pixels from one anchor to the next, down and across."""
DEPTH = 4
"""How far inside a rectangle an anchor must lie to count: at its corners the resized edges are blurred twice."""

_MIDDLE, _MARGIN = 127.5 / 255, 63.75 / 255
"""A channel is on or off where it is further from the middle than half of the way."""
_NEAR = 50 / 255
"""A pixel is background where each channel is within it: twice the most that JPEG's noise around photos is, and half of
what the photos' pixels have in the furthest one, so that an edge lies about where half of a pixel is photo."""
_FLOAT = 1
"""What ONNX calls float32."""

Array = NDArray[Any]


def build(weights: Weights, say: Say) -> Path:
    """The ``ModelSpec.build`` of the planted detector, which has no weights to choose from.

    The file has the input ``images``, float32 [batch, 3, 640, 640] of RGB from 0 to 1, and the output ``output0``,
    float32 [batch, 84, 1600]: of each anchor centre x, centre y, width and height of the rectangle around it in pixels
    of the input, and the scores of 80 classes: 1 for the rectangle's, if there is one, and 0.
    """
    return cached("planted.onnx", f"builder {BUILDER}", write_yolo, say)


def build_photos(weights: Weights, say: Say) -> Path:
    """The ``ModelSpec.build`` of the planted detector of photos, which has no weights to choose from.

    As ``build`` has it, with one class: the output is float32 [batch, 5, 1600].
    """
    return cached("planted-photos.onnx", f"builder {BUILDER}", write_photos, say)


def write_photos(path: Path, size: int = SIZE) -> None:
    """Write the detector of photos on a plain background: ``write_yolo`` with one class."""
    _write(path, _PhotoFinder(size, range(1)), size, 1)


def write_yolo(path: Path, size: int = SIZE) -> None:
    """Write the detector with the output of a YOLO export: [batch, 4 + classes, anchors], boxes as centre and size."""
    _write(path, _Finder(size, COCO80), size, len(COCO80))


def _write(path: Path, finder: _Finder, size: int, classes: int) -> None:
    graph = finder.graph
    half = graph.weight("half", np.array(0.5, np.float32))
    centres = [graph.node("Mul", [graph.node("Add", ends, f"{axis}.sum"), half], axis) for axis, ends in finder.ends]
    sides = [graph.node("Sub", [end, begin], f"{axis}.side") for axis, (begin, end) in finder.ends]
    whole = graph.node("Concat", [*centres, *sides, finder.scores], "whole", axis=1)
    graph.node("Reshape", [whole, graph.weight("flat", np.array([0, 4 + classes, -1]))], "output0")
    output = TensorSpec("output0", "float32", (None, 4 + classes, finder.anchors**2))
    graph.save(path, [TensorSpec("images", "float32", (None, 3, size, size))], [output])


def write_retinanet(path: Path) -> None:
    """Write the detector in the form of MLPerf's RetinaNet, whose classes are its categories.

    The input is ``images``, float32 [1, 3, 800, 800] of RGB from 0 to 1; the outputs, of k boxes, ``boxes``, float32
    [k, 4] of x1, y1, x2, y2 in pixels of the input, ``labels``, int64 [k], and ``scores``, float32 [k]. Suppression is
    inside.
    """
    finder = _Finder(RETINANET_SIZE, range(RETINANET_CLASSES))
    graph = finder.graph
    (_, (left, right)), (_, (top, bottom)) = finder.ends
    parts = {"corners": graph.node("Concat", [left, top, right, bottom], "around", axis=1), "certain": finder.scores}
    for name, count in (("corners", 4), ("certain", RETINANET_CLASSES)):
        parts[name] = graph.node("Reshape", [parts[name], graph.weight(f"{name}.flat", np.array([1, count, -1]))], name)
    boxes = graph.node("Transpose", [parts["corners"]], "each", perm=[0, 2, 1])
    bounds = (("most", np.array(300)), ("overlap", np.array(0.5, np.float32)), ("least", np.array(0.05, np.float32)))
    limits = [graph.weight(name, value) for name, value in bounds]
    chosen = graph.node("NonMaxSuppression", [boxes, parts["certain"], *limits], "chosen")
    labels = graph.node("Gather", [chosen, graph.weight("class", np.array([1]))], "column", axis=1)
    graph.node("Reshape", [labels, graph.weight("one.axis", np.array([-1]))], "labels")
    rows = graph.node("Gather", [chosen, graph.weight("of.box", np.array([0, 2]))], "rows", axis=1)
    graph.node("GatherND", [boxes, rows], "boxes")
    graph.node("GatherND", [parts["certain"], chosen], "scores")
    outputs = [
        TensorSpec(*each)
        for each in (("boxes", "float32", (None, 4)), ("labels", "int64", (None,)), ("scores", "float32", (None,)))
    ]
    graph.save(path, [TensorSpec("images", "float32", (1, 3, RETINANET_SIZE, RETINANET_SIZE))], outputs)


class _Finder:
    """The graph up to what is known at each anchor: ``ends`` of the rectangle along x and y, and class ``scores``.

    Anchor (i, j) is the pixel (STRIDE i, STRIDE j). Only the rows and columns with anchors are looked at. All is
    [batch, channels, anchors down, anchors across].
    """

    margin: ClassVar[float] = _MARGIN
    """How far a level is from what tells background from the rest: the middle, or its level in the background."""

    def __init__(self, size: int, categories: Sequence[int]) -> None:
        """``categories`` has that of each class."""
        if size % STRIDE:
            raise ValueError(f"size is {size}, expected a multiple of {STRIDE}")
        self.graph = graph = OnnxGraph("planted")
        self.anchors = size // STRIDE
        self._size = size
        shift = graph.weight("middle", np.array(_MIDDLE, np.float32))
        self._margin = graph.weight("margin", np.array(self.margin, np.float32))
        rows, columns = (
            graph.node("Sub", [self._every_stride("images", axis, f"images.{axis}"), shift], f"levels.{axis}")
            for axis in (2, 3)
        )
        begin_x, end_x = self._ends("x", self._outside(rows), axis=3)
        begin_y, end_y = self._ends("y", self._outside(columns), axis=2)
        self.ends = (("x", (begin_x, end_x)), ("y", (begin_y, end_y)))
        self.scores = graph.node("Mul", [self._colours(rows, categories), self._within()], "likely")

    def _every_stride(self, source: str, axis: int, name: str) -> str:
        """Every ``STRIDE``-th row (axis 2) or column (axis 3)."""
        bounds = ((word, [value]) for word, value in (("from", 0), ("to", self._size), ("on", axis), ("by", STRIDE)))
        weights = [self.graph.weight(f"{name}.{word}", np.array(value)) for word, value in bounds]
        return self.graph.node("Slice", [source, *weights], name)

    def _outside(self, levels: str) -> str:
        """1 where a channel is neither on nor off, so that the pixel is background; else 0."""
        graph = self.graph
        least = graph.node("ReduceMin", [graph.node("Abs", [levels], f"{levels}.far")], f"{levels}.least", axes=[1])
        return self._is("Less", least, self._margin, f"{levels}.outside")

    def _is(self, operator: str, left: str, right: str, name: str) -> str:
        """A comparison as the number 0 or 1."""
        return self.graph.node("Cast", [self.graph.node(operator, [left, right], f"{name}.is")], name, to=_FLOAT)

    def _ends(self, name: str, outside: str, axis: int) -> tuple[str, str]:
        """Where the run of pixels around each anchor begins and ends along an axis: pixel i lies from i to i + 1.

        That is behind the last pixel ``outside`` before the anchor, and before the first one from it on: the largest
        of numbers that grow towards the anchor, first in each block of ``STRIDE`` pixels, then over the blocks on the
        anchor's side of it.
        """
        graph, size = self.graph, self._size
        pixels = np.arange(size, dtype=np.float32)
        before = np.tri(self.anchors, k=-1, dtype=np.float32)
        begin = self._nearest(f"{name}.begin", outside, axis, pixels + 1, before)
        end = self._nearest(f"{name}.end", outside, axis, size - pixels, 1 - before)
        return begin, graph.node("Sub", [graph.weight(f"{name}.size", np.array(size, np.float32)), end], f"{name}.far")

    def _nearest(self, name: str, outside: str, axis: int, nearness: Array, blocks: Array) -> str:
        """The largest ``nearness`` [size] of what is ``outside`` in the ``blocks`` [anchors, blocks] of each anchor."""
        graph, count = self.graph, self.anchors
        across = axis == 3
        weighed = graph.weight(f"{name}.nearness", nearness if across else nearness[:, None])
        weighed = graph.node("Mul", [outside, weighed], f"{name}.weighed")
        window = [1, STRIDE] if across else [STRIDE, 1]
        pooled = graph.node("MaxPool", [weighed], f"{name}.pooled", kernel_shape=window, strides=window)
        shape = [0, 1, count, 1, count] if across else [0, 1, 1, count, count]
        each = graph.node("Reshape", [pooled, graph.weight(f"{name}.shape", np.array(shape))], f"{name}.each")
        sides = graph.weight(f"{name}.blocks", blocks if across else blocks[:, :, None])
        each = graph.node("Mul", [each, sides], f"{name}.sided")
        return graph.node("ReduceMax", [each], name, axes=[axis + 1], keepdims=0)

    def _within(self) -> str:
        """1 where each of ``_depths`` is at least ``DEPTH``, else 0."""
        graph = self.graph
        least = graph.node("Min", self._depths(), "depth")
        return self._is("Greater", least, graph.weight("depth.least", np.array(DEPTH - 0.5, np.float32)), "within")

    def _depths(self) -> list[str]:
        """How many pixels of its rectangle an anchor has on each side."""
        graph = self.graph
        at = np.arange(self.anchors, dtype=np.float32) * STRIDE
        depths = []
        for (name, (begin, end)), places in zip(self.ends, (at, at[:, None]), strict=True):
            pixel = graph.weight(f"{name}.at", places)
            depths += [
                graph.node("Sub", [pixel, begin], f"{name}.behind"),
                graph.node("Sub", [end, pixel], f"{name}.left"),
            ]
        return depths

    def _colours(self, rows: str, categories: Sequence[int]) -> str:
        """1 for the class whose colour an anchor has, else 0: all three channels on or off as they must be."""
        graph = self.graph
        points = self._every_stride(rows, 3, "points")
        on = self._is("Greater", points, self._margin, "on")
        off = self._is("Less", points, graph.weight("other.margin", np.array(-_MARGIN, np.float32)), "off")
        sides = graph.node("Sub", [on, off], "sides")
        weight = np.zeros((len(categories), 3, 1, 1), np.float32)
        for category, colour in COLOURS.items():
            weight[categories.index(category), :, 0, 0] = np.sign(np.array(colour) - 127.5)
        return graph.node(
            "Relu", [graph.conv("colours", sides, weight, np.full(len(categories), -2, np.float32))], "classes"
        )


class _PhotoFinder(_Finder):
    """The same for photos, of one class, on ``BACKGROUND``. What reaches the input's edge is a letterbox's padding."""

    margin = _NEAR

    def _outside(self, levels: str) -> str:
        """1 where each channel is near the background's; else 0."""
        graph = self.graph
        background = np.array(BACKGROUND, np.float32).reshape(1, 3, 1, 1) / 255 - _MIDDLE
        away = graph.node("Sub", [levels, graph.weight(f"{levels}.background", background)], f"{levels}.away")
        most = graph.node("ReduceMax", [graph.node("Abs", [away], f"{levels}.far")], f"{levels}.most", axes=[1])
        return self._is("Less", most, self._margin, f"{levels}.outside")

    def _depths(self) -> list[str]:
        """Those within the photo, and how many pixels lie between it and the input's edges."""
        graph = self.graph
        size = graph.weight("size", np.array(self._size, np.float32))
        beside = [[begin, graph.node("Sub", [size, end], f"{name}.beyond")] for name, (begin, end) in self.ends]
        return [*super()._depths(), *beside[0], *beside[1]]

    def _colours(self, rows: str, categories: Sequence[int]) -> str:
        """1 for the one class: whatever lies on the background is a photo."""
        return self.graph.weight("any", np.ones((1, 1, 1, 1), np.float32))
