"""From the boxes that were found in a frame to crops of it: how many, and which pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, sqrt
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from sut.config import FAN_OUT
from sut.tasks.detection.answers import ANSWER_WIDTH

Rows = NDArray[np.float32]
"""Boxes as a detector answers: n x 7, index, ymin, xmin, ymax, xmax as shares of the frame, score, category."""
Crop = NDArray[np.uint8]
"""Height x width x 3, BGR."""

_SPREAD = 2654435761
"""Knuth's multiplicative hash: numbers that follow each other are spread evenly over 32 bits."""


@dataclass(frozen=True, slots=True)
class FanOut:
    """How many crops a frame has: ``least`` to ``most``, each as often as the others, by the frame's index."""

    least: int
    most: int

    @classmethod
    def of(cls, text: str) -> Self:
        """As ``RunConfig.fan_out`` has it.

        >>> FanOut.of("1..25"), FanOut.of("3")
        (FanOut(least=1, most=25), FanOut(least=3, most=3))
        """
        found = FAN_OUT.fullmatch(text)
        if found is None:
            raise ValueError(f"got the fan-out {text!r}, expected N or A..B")
        return cls(int(found[1]), int(found[2] or found[1]))

    def crops(self, index: int) -> int:
        """Of the frame with this index in the data set."""
        return self.least + ((index * _SPREAD % 2**32) * (self.most - self.least + 1) >> 32)


def boxes_of(index: int, answer: bytes | None, fan_out: FanOut | None) -> Rows:
    """The boxes to identify in a frame: those of the detector's ``answer``; with a ``fan_out`` so many.

    Those that were found come again then, in turn; where there are none, or no detector (None), the frame is cut into
    equal parts.
    """
    found = np.frombuffer(answer or b"", "<f4").reshape(-1, ANSWER_WIDTH)
    if fan_out is None:
        return found.copy()
    count = fan_out.crops(index)
    if not len(found) and count:
        found = _parts(index, count)
    rows: Rows = found[np.arange(count) % max(1, len(found))] if count else np.empty((0, ANSWER_WIDTH), "<f4")
    return rows


def _parts(index: int, count: int) -> Rows:
    """``count`` parts of a frame, row by row."""
    across = ceil(sqrt(count))
    down = ceil(count / across)
    row, column = np.divmod(np.arange(count), across)
    found = np.ones((count, ANSWER_WIDTH), "<f4")
    found[:, 0] = index
    found[:, 1], found[:, 3] = row / down, (row + 1) / down
    found[:, 2], found[:, 4] = column / across, (column + 1) / across
    return found


def cut(frame: Crop, rows: Rows) -> list[Crop]:
    """The pixels of each box, copied: all that it touches, and one at the least."""
    height, width = frame.shape[:2]
    spans = [_span(rows[:, begin], rows[:, begin + 2], side) for begin, side in ((1, height), (2, width))]
    (tops, bottoms), (lefts, rights) = spans
    places = zip(tops, bottoms, lefts, rights, strict=True)
    return [np.ascontiguousarray(frame[top:bottom, left:right]) for top, bottom, left, right in places]


def _span(begins: NDArray[Any], ends: NDArray[Any], side: int) -> tuple[list[int], list[int]]:
    first = np.clip(np.floor(begins.astype(np.float64) * side + _ROUNDING), 0, side - 1)
    last = np.clip(np.ceil(ends.astype(np.float64) * side - _ROUNDING), first + 1, side)
    return first.astype(int).tolist(), last.astype(int).tolist()


_ROUNDING = 1e-3
"""Pixels by which a share in float32 may miss the edge that it stands for."""


def answers(rows: Sequence[Rows], labels: NDArray[np.float32]) -> list[bytes]:
    """Answers of frames: their boxes, with the labels of all, in order, where a detector has the category."""
    whole = np.concatenate(rows) if rows else np.empty((0, ANSWER_WIDTH), "<f4")
    whole[:, -1] = labels
    raw = whole.astype("<f4").tobytes()
    ends = np.cumsum([each.nbytes for each in rows]).tolist()
    return [raw[begin:end] for begin, end in zip([0, *ends], ends, strict=False)]
