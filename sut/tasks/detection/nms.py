"""From raw predictions to the boxes that stay: candidates, their order, non-maximum suppression; a batch in one call.

What MLPerf's reference for YOLO does, by the documentation of the library that it calls (``predict`` with a confidence
of 0.001 and nothing else set): each anchor is a candidate for its best class alone; candidates go by falling score, at
most 30,000 of them; one is dropped whose IoU with a better one of its class is more than 0.7 (of any class where
``agnostic``); at most 300 stay. An IoU equal to the threshold stays, as in ``torchvision.ops.nms``, whose arithmetic in
float32 is this one's: a box without area overlaps nothing, itself included (0 / 0 is more than no threshold).

Everything here is compiled without bounds checks and without liberties of arithmetic, so that it equals its oracle to
the bit. Scalars are annotated ``Any``: what Numba makes of them is said in ``_kernel``.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
import numpy as np
from numba import types
from numpy.typing import NDArray

from plugins.machine_code import code_folder, compile_for
from sut.tasks.detection.kinds import Found

MOST_CANDIDATES = 30_000
"""So many enter suppression, the best of them."""
MOST_BOXES = 300
"""So many boxes of a picture stay."""

Floats = NDArray[np.float32]
_Function = TypeVar("_Function", bound=Callable[..., Any])

_OPTIONS = {"error_model": "numpy"}
_LOCK = threading.Lock()
_BLOCK = 1024
"""Anchors that are looked at together: what is remembered of them fits into the first cache."""
_NOT_FINITE = np.int32(0x7F800000)
"""The bits of inf; those of NaN are more, and of all other float32 less, but for the sign."""
_MAGNITUDE = np.int32(0x7FFFFFFF)
"""All bits but the sign."""


def _helper(function: _Function) -> _Function:
    """Compiled as part of what calls it."""
    return cast(_Function, numba.njit(**_OPTIONS)(function))


def best_boxes(
    predictions: Floats, width: int, objectness: bool, score_threshold: float, iou_threshold: float, agnostic: bool
) -> Found:
    """The boxes that stay of predictions (n, ``width``, anchors) or (n, anchors, ``width``), C-contiguous.

    An anchor is centre x, centre y, width, height, then with ``objectness`` that, which its scores are multiplied by,
    then a score for each class. Candidates have more than ``score_threshold`` (0 or more). Raises ``ValueError`` where
    a value is not finite. Computes without the GIL.
    """
    n, by_anchor = len(predictions), predictions.shape[1] != width
    boxes, scores = np.empty((n, MOST_BOXES, 4), np.float32), np.empty((n, MOST_BOXES), np.float32)
    classes, counts = np.empty((n, MOST_BOXES), np.int32), np.empty(n, np.int64)
    how = by_anchor, 4 + objectness, np.float32(score_threshold), np.float32(iou_threshold), agnostic
    bad = kernel()(predictions, *how, boxes, scores, classes, counts)
    if bad >= 0:
        raise ValueError(f"values that are not finite (NaN or inf) in row {bad}")
    stay = np.arange(MOST_BOXES) < counts[:, None]
    return Found(counts, boxes[stay], scores[stay], classes[stay])


def kernel() -> Callable[..., int]:
    """``_suppressed``, compiled once per process. That takes some seconds, reading the cache a fraction of one."""
    with _LOCK:
        return _kernel()


@functools.cache
def _kernel() -> Callable[..., int]:
    predictions = types.Array(types.float32, 3, "C", readonly=True)  # which takes writable ones, too
    how = (types.boolean, types.int64, types.float32, types.float32, types.boolean)
    out = (types.float32[:, :, ::1], types.float32[:, ::1], types.int32[:, ::1], types.int64[::1])
    return compile_for(_suppressed, (predictions, *how, *out), code_folder("nms"), nogil=True, options=_OPTIONS)


def _suppressed(
    predictions: Any,
    by_anchor: Any,
    first: Any,
    least: Any,
    iou: Any,
    agnostic: Any,
    boxes: Any,
    scores: Any,
    classes: Any,
    counts: Any,
) -> int:
    """Fill the rows of the last four from predictions (n, width, anchors), or (n, anchors, width) if ``by_anchor``.

    ``first`` is the index of the first class's score. Returns the first row with a value that is not finite, or -1.
    """
    _, width, anchors = predictions.shape
    if by_anchor:
        width, anchors = anchors, width
    best, which = np.empty(anchors, np.float32), np.empty(anchors, np.int32)
    for row in range(len(predictions)):
        values = predictions[row]
        finite = (
            _best_of_rows(values, first, least, best, which)
            if by_anchor
            else _best_in_columns(values, first, best, which)
        )
        if not finite:
            return row
        order = _order(best, least)
        taken = np.empty((len(order), 4), np.float32)
        for place in range(len(order)):
            for axis in range(4):
                taken[place, axis] = values[order[place], axis] if by_anchor else values[axis, order[place]]
        counts[row] = _suppress(order, taken, best, which, width, iou, agnostic, boxes[row], scores[row], classes[row])
    return -1


@_helper
def _best_in_columns(values: Any, first: Any, best: Any, which: Any) -> bool:
    """Score and class of each anchor (column), block by block; False where a value is not finite."""
    width, anchors = values.shape
    wrong = np.empty(_BLOCK, np.float32)
    for begin in range(0, anchors, _BLOCK):
        size = min(_BLOCK, anchors - begin)
        top, where = best[begin : begin + size], which[begin : begin + size]
        top[:] = values[first, begin : begin + size]
        where[:] = 0
        wrong[:] = 0
        for line in range(first):
            read = values[line, begin : begin + size]
            for at in range(size):
                wrong[at] += read[at] - read[at]
        for line in range(first, width):
            read = values[line, begin : begin + size]
            for at in range(size):
                value = read[at]
                better = value > top[at]
                wrong[at] += value - value  # 0, or NaN for what is not finite
                top[at] = value if better else top[at]
                where[at] = line - first if better else where[at]
        if first == 5:
            top *= values[4, begin : begin + size]
        for at in range(size):
            if wrong[at] != 0:
                return False
    return True


@_helper
def _best_of_rows(values: Any, first: Any, least: Any, best: Any, which: Any) -> bool:
    """``_best_in_columns`` for anchors in rows; a score of 0 stands for all that are not more than ``least``.

    The first look at a row is at its bits, for the processor takes many of them at once: of floats that are 0 or more,
    the largest has the largest bits as an integer, too, and those below 0 are negative.
    """
    anchors, width = values.shape
    bits, highest = values.view(np.int32), np.zeros(1, np.int32)
    top = highest.view(np.float32)
    for anchor in range(anchors):
        most = largest = np.int32(0)
        for at in range(first):
            largest = max(largest, bits[anchor, at] & _MAGNITUDE)
        for at in range(first, width):
            largest = max(largest, bits[anchor, at] & _MAGNITUDE)
            most = max(most, bits[anchor, at])
        if largest >= _NOT_FINITE:
            return False
        highest[0] = most
        score = top[0] * values[anchor, 4] if first == 5 else top[0]
        best[anchor], which[anchor] = 0, 0
        if score > least:
            best[anchor] = score
            while bits[anchor, first + which[anchor]] != most:
                which[anchor] += 1
    return True


@_helper
def _order(best: Any, least: Any) -> Any:
    """The anchors of the candidates by falling score, equal ones by their index."""
    keys = np.empty(len(best), np.int64)
    bits = best.view(np.int32)
    found = 0
    for anchor in range(len(best)):
        if best[anchor] > least:  # so it is positive, and its bits are ordered as it is
            keys[found] = (np.int64(_NOT_FINITE - bits[anchor]) << 32) | anchor
            found += 1
    keys = np.sort(keys[:found])[:MOST_CANDIDATES]
    return keys & 0xFFFFFFFF


@_helper
def _suppress(
    order: Any,
    taken: Any,
    best: Any,
    which: Any,
    width: Any,
    iou: Any,
    agnostic: Any,
    boxes: Any,
    scores: Any,
    classes: Any,
) -> int:
    """Keep what no better box covers, of the candidates in their order; ``taken`` is xywh. Returns how many."""
    newest = np.full(width, -1, np.int64)  # the last box of a class that was kept, and the one before each
    before, areas = np.empty(MOST_BOXES, np.int64), np.empty(MOST_BOXES, np.float32)
    half = np.float32(0.5)
    kept = 0
    for place in range(len(order)):
        x, y, w, h = taken[place, 0], taken[place, 1], taken[place, 2] * half, taken[place, 3] * half
        x1, y1, x2, y2 = x - w, y - h, x + w, y + h
        area = (x2 - x1) * (y2 - y1)
        group = 0 if agnostic else which[order[place]]
        other = newest[group]
        while other >= 0:
            wide = min(x2, boxes[other, 2]) - max(x1, boxes[other, 0])
            high = min(y2, boxes[other, 3]) - max(y1, boxes[other, 1])
            if wide > 0 and high > 0:
                both = wide * high
                if both / (areas[other] + area - both) > iou:
                    break
            other = before[other]
        if other >= 0:
            continue
        boxes[kept, 0], boxes[kept, 1], boxes[kept, 2], boxes[kept, 3] = x1, y1, x2, y2
        scores[kept], classes[kept], areas[kept] = best[order[place]], which[order[place]], area
        before[kept], newest[group] = newest[group], kept
        kept += 1
        if kept == MOST_BOXES:
            break
    return kept
