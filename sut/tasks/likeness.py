"""How alike two answers to the same picture are: asked twice, or alone and in a batch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

NEAR_TIE = 1e-3
"""Two logits that are nearer to each other may change places by rounding: another batch size is another kernel."""
NOT_THE_SAME = 0.05
"""Scores of the same work that are further apart than this part of their range are no rounding, in any precision."""

_MOST_VALUES = 2**16
"""Of an output, so many values are looked at, spread over it: a map of depths has as many as the picture has pixels."""
_SUM_TOLERANCE = 1e-2
"""How far the sum of a softmax may be from 1, in half precision too."""


class Look(ABC):
    """The answer to one sample as it is compared with another to the same picture.

    ``answers`` and ``values`` are what it is made of, in words: answers are the same or not, values more or less so.
    """

    answers: ClassVar[str] = "answers"
    values: ClassVar[str] = "values"

    @abstractmethod
    def other_than(self, other: Self) -> str | None:
        """How the second answer differs from this, the first, in words; None where both say the same."""

    def near_tie(self, other: Self) -> bool:
        """Whether answers that differ do so by rounding: neither was clearly told from the other."""
        return False

    def apart(self, other: Self) -> float:
        """The largest difference of a value, as a part of the range of such values: 0 where there are none."""
        return 0.0

    @property
    def gist(self) -> str | None:
        """What would be odd if it were true of all samples: ``got the label 5``; None for what is not."""
        return None

    def unlike(self, other: Self) -> str | None:
        """How two answers of the same work differ, in words; None if only by what rounding explains."""
        if (how := self.other_than(other)) is not None and not self.near_tie(other):
            return how
        if (share := self.apart(other)) > NOT_THE_SAME:
            return f"{self.values} that differ by {100 * share:.2g} % of their range"
        return None


@dataclass(frozen=True, slots=True)
class Values(Look):
    """What any model answers: its outputs, flat, or a part of them."""

    outputs: tuple[NDArray[Any], ...]

    @classmethod
    def of(cls, outputs: Mapping[str, Any], rows: int) -> list[Self]:
        """A look at each of the first ``rows`` samples, for outputs with a row for each; a copy of what is there."""
        found: list[list[NDArray[Any]]] = [[] for _ in range(rows)]
        for output in map(np.asarray, outputs.values()):
            if output.ndim and len(output) >= rows and output.dtype.kind in "fiub":
                for row, kept in enumerate(found):
                    flat = output[row].reshape(-1)
                    some = flat[:: -(-flat.size // _MOST_VALUES) or 1]
                    kept.append(np.array(some, np.float64 if output.dtype.kind == "f" else output.dtype))
        return [cls(tuple(each)) for each in found]

    def other_than(self, other: Self) -> str | None:
        """Whether they are further apart than rounding explains."""
        share = self.apart(other)
        return f"values that differ by {100 * share:.2g} % of their range" if share > NOT_THE_SAME else None

    def apart(self, other: Self) -> float:
        """Of the output that differs most. What is no float is the same or not: the share that is not."""
        return max(map(_mostly_apart, self.outputs, other.outputs), default=0.0)


@dataclass(frozen=True, slots=True)
class LabelLook(Look):
    """A label, and the scores (classes,) that it is chosen from, where the model shows them."""

    label: float
    scores: NDArray[np.float64] | None = None

    answers: ClassVar[str] = "labels"
    values: ClassVar[str] = "scores"

    def other_than(self, other: Self) -> str | None:
        """Another label."""
        return None if self.label == other.label else f"label {self.label:g}, then {other.label:g}"

    def near_tie(self, other: Self) -> bool:
        """Whether the logits of both answers' labels are within ``NEAR_TIE`` of each other, in both answers."""
        if self.scores is None or other.scores is None:
            return False
        one, two = int(self.scores.argmax()), int(other.scores.argmax())
        return all(abs(each[one] - each[two]) <= NEAR_TIE for each in (_logits(self.scores), _logits(other.scores)))

    def apart(self, other: Self) -> float:
        """Of the scores; 0 without them."""
        return 0.0 if self.scores is None or other.scores is None else _apart(self.scores, other.scores)

    @property
    def gist(self) -> str:
        """Its label."""
        return f"got the label {self.label:g}"


def _mostly_apart(one: NDArray[Any], other: NDArray[Any]) -> float:
    if one.shape != other.shape:
        return 1.0
    return _apart(one, other) if one.dtype.kind == "f" else float((one != other).mean()) if one.size else 0.0


def _apart(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """The largest difference of two values, as a part of the larger range of both.

    0 where it is no more than ``NEAR_TIE``: the range of scores that are all alike is rounding. Of a single value, its
    size is the range.
    """
    finite = np.isfinite(one) & np.isfinite(other)  # -inf rules a class out
    if not finite.any():
        return 0.0
    one, other = one[finite], other[finite]
    whole = max(np.ptp(one), np.ptp(other)) or max(np.abs(one).max(), np.abs(other).max())
    most = float(np.abs(one - other).max())
    return most / float(whole) if most > NEAR_TIE else 0.0


def _logits(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Scores whose differences are those of the logits: for a softmax, the logarithms."""
    if scores.min() >= 0 and abs(scores.sum() - 1) < _SUM_TOLERANCE:
        return np.log(np.maximum(scores, np.finfo(np.float64).tiny))
    return scores
