"""What detectors' outputs look like: four kinds, told apart by names, ranks and shapes.

| kind | outputs |
| --- | --- |
| ``yolo`` | ``[n, 4 + classes, anchors]`` or ``[n, anchors, 4 + classes]``: centre, width, height, scores by class |
| ``objectness`` | the same of 5 + classes: before the scores stands the objectness that they are multiplied by |
| ``nms`` | ``[n, boxes, 6]``: corners, score, class; suppressed already, and padded with scores of 0 |
| ``boxes`` | ``[n, boxes, 4]``, ``[n, boxes]`` twice: corners, scores, labels. Without ``n``: of one picture |
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from math import isqrt
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from backends.base import TensorSpec
from sut.tasks.base import FLOATS, INTEGERS

Kind = Literal["yolo", "objectness", "nms", "boxes"]
KINDS: tuple[Kind, ...] = get_args(Kind)

_OF_CORNERS = 6
_MOST_SUPPRESSED = 1000
"""Boxes that an export with suppression inside has at the most: 100 and 300 are usual."""
_CELLS = 21
"""Cells of the three grids, with strides of 8, 16 and 32 pixels, for each cell of the coarsest: 16 + 4 + 1."""


@dataclass(frozen=True, slots=True)
class Form:
    """The outputs that answer, and how they are read; of ``boxes`` they are the boxes, the scores and the labels."""

    kind: Kind
    outputs: tuple[TensorSpec, ...]

    def __str__(self) -> str:
        return f"{', '.join(each.name for each in self.outputs)} ({self.kind})"


@dataclass(frozen=True, slots=True)
class Found:
    """The boxes of a batch, picture by picture."""

    counts: NDArray[np.int64]
    """How many there are of each picture: shape (n,)."""
    boxes: NDArray[np.float32]
    """x1, y1, x2, y2 in the model's unit: shape (boxes of all pictures, 4)."""
    scores: NDArray[np.float32]
    classes: NDArray[np.integer]


def form_of(outputs: Sequence[TensorSpec], classes: int, wanted: Kind | None = None) -> Form:
    """How a detector of so many ``classes`` is read. What is no part of one, such as feature maps, is left alone.

    ``wanted`` says the kind, where the file leaves it open. Raises ``ValueError`` if no outputs fit, if they fit
    several kinds, and where there are two detectors.
    """
    fitting = [
        *(Form(kind, (output,)) for output in outputs for kind in _kinds(output, classes, wanted)),
        *(Form("boxes", three) for three in _triples(outputs) if wanted in (None, "boxes")),
    ]
    if len(fitting) == 1:
        return fitting[0]
    got = ", ".join(f"{each.name} {each.dtype}{list(each.shape)}".replace("None", "?") for each in outputs) or "none"
    if not fitting:
        kind = f" of the kind {wanted}" if wanted else ""
        raise ValueError(f"no output fits detection{kind}: got {got}; expected {_wide(classes)}")
    if len({form.outputs for form in fitting}) > 1:
        listed = " and ".join(map(str, fitting))
        raise ValueError(f"the outputs are those of several detectors, {listed}: name those of one with --outputs")
    kinds = " or ".join(form.kind for form in fitting)
    raise ValueError(f"the outputs {got} may be {kinds}: say which in the recipe's task_options, as outputs")


def told(outputs: Sequence[TensorSpec]) -> tuple[Kind, int | None] | None:
    """The kind that shapes alone speak for, and the number of classes, None where that is not told; None for neither.

    Predictions are known by the number of anchors, that of the cells of three grids: 8400 at 640 pixels, or 25200 with
    three anchors to a cell, which come with objectness. Those of one anchor to a cell have it in files whose last axis
    is not the anchors' and whose width is 85, COCO's 80 and 5; other widths in that order leave it open.
    """
    if any(len(boxes.shape) == 3 or _is_called(boxes, ("box",)) for boxes, *_ in _triples(outputs)):
        return "boxes", None
    for output in outputs:
        if output.dtype not in FLOATS or len(output.shape) != 3:
            continue
        _, first, last = output.shape
        if _is_suppressed(first, last):
            return "nms", None
        if first is None or last is None or min(first, last) <= 4 or not _is_grid(max(first, last)):
            continue
        width, anchors = sorted((first, last))
        by_class = width == first
        if not _is_square(anchors, _CELLS) or (width == 85 and not by_class):
            return "objectness", width - 5
        return "yolo", width - 4 if by_class or width == 84 else None
    return None


def _is_grid(anchors: int | None) -> bool:
    """Whether these are the anchors of a square picture: one, or three, for each cell of the three grids."""
    return anchors is not None and (_is_square(anchors, _CELLS) or _is_square(anchors, 3 * _CELLS))


def _is_square(number: int, times: int) -> bool:
    return number > 0 and number % times == 0 and isqrt(number // times) ** 2 == number // times


def _kinds(output: TensorSpec, classes: int, wanted: Kind | None) -> Iterator[Kind]:
    """The kinds that an output alone can be of. Where none is ``wanted``, its width must be told by the file."""
    if output.dtype not in FLOATS or len(output.shape) != 3:
        return
    _, first, last = output.shape
    if wanted is None and _is_suppressed(first, last):
        yield "nms"
        return
    widths: tuple[tuple[Kind, int], ...] = (("yolo", 4 + classes), ("objectness", 5 + classes))
    for kind, width in widths:
        fitting = (width,) if wanted is None else (width, None)
        either_way = ((first, last), (last, first))
        if wanted in (None, kind) and any(a in fitting and (b is None or b > width) for a, b in either_way):
            yield kind
    if (wanted is None and first is None and last == _OF_CORNERS) or (wanted == "nms" and last in (_OF_CORNERS, None)):
        yield "nms"


def _is_suppressed(boxes: int | None, width: int | None) -> bool:
    """Whether two axes are those of a few boxes, and not of all anchors, which one or two classes have as wide."""
    return width == _OF_CORNERS and boxes is not None and boxes <= _MOST_SUPPRESSED and not _is_grid(boxes)


def _triples(outputs: Sequence[TensorSpec]) -> Iterator[tuple[TensorSpec, ...]]:
    """Boxes, scores and labels that belong together. Where labels are floats, too, names tell them from scores."""
    for boxes in outputs:
        if boxes.dtype not in FLOATS or len(boxes.shape) not in (2, 3) or boxes.shape[-1] != 4:
            continue
        each = [one for one in outputs if _belong(one.shape, boxes.shape[:-1])]
        whole = [one for one in each if one.dtype in INTEGERS]
        labels = whole or [one for one in each if _is_called(one, ("label", "class", "cls"))]
        scores = [one for one in each if one.dtype in FLOATS and one not in labels]
        named = [one for one in scores if _is_called(one, ("score", "conf"))]
        yield from ((boxes, score, label) for score, label in product(named or scores, labels))


def _belong(shape: tuple[int | None, ...], to: tuple[int | None, ...]) -> bool:
    """Whether axes can be the same."""
    return len(shape) == len(to) and all(None in pair or pair[0] == pair[1] for pair in zip(shape, to, strict=True))


def _is_called(output: TensorSpec, words: tuple[str, ...]) -> bool:
    return any(word in output.name.lower() for word in words)


def _wide(classes: int) -> str:
    """What would fit, by kind."""
    yolo, objectness = 4 + classes, 5 + classes
    return (
        f"with {classes} classes yolo [n, {yolo}, anchors], objectness [n, anchors, {objectness}], nms [n, boxes, 6], "
        "or boxes [n, boxes, 4] with scores and labels [n, boxes]; where axes are open, outputs in the recipe's "
        "task_options says which"
    )
