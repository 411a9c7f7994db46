"""Whether a model in lower precision still answers as its FP32 form does, where nobody knows what is right.

Both get the same pictures, or crops of them, each by its own recipe. What is counted is the task's: equal labels, a
share with an interval around it, so that nothing is called kept that a few hundred crops cannot tell from lost; where
both answer with scores, it is also told how far these are apart at the most. Boxes: ``detection/likeness.py``.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from sut.errors import RunError
from sut.text import share_in_percent

KEPT = 0.99
"""The share of equal labels above which accuracy counts as kept: MLPerf's 99 % of the FP32 model's."""

_SUM_TOLERANCE = 1e-3
"""How far the sum of a softmax may be from 1: a thousand shares, each rounded, are not exact."""
_Z95 = 1.959964
"""The 97.5 % point of the normal distribution: 95 % lie within as many standard deviations."""


def best_of(scores: NDArray[Any]) -> tuple[NDArray[np.intp], NDArray[Any]]:
    """The first of the best of each row of scores (n, classes), and how high it is.

    NaN and inf win every argmax, so looking at the winners finds them all; -inf is a score like any other.
    """
    best: NDArray[np.intp] = scores.argmax(axis=1)
    return best, scores[np.arange(len(scores)), best]


@dataclass(frozen=True, slots=True)
class Agreement(ABC):
    """How far two models agree, 0 to 1, and its 95 % interval where there is one."""

    kind: ClassVar[str]
    """What agrees: ``labels``, ``boxes``."""

    value: float
    low: float | None
    high: float | None
    count: int
    """Samples that were compared."""
    source: str
    """What was compared on: ``2000 crops of 11 pictures``."""
    score_difference: float | None = None
    """The largest absolute difference of two scores that are finite; None unless both models answer with scores."""
    scores: str | None = None
    """What these scores are."""

    @property
    @abstractmethod
    def words(self) -> str:
        """The verdict in words."""


class Tally(ABC):
    """Two models' answers to the same samples, counted batch by batch."""

    result: ClassVar[type[Agreement]]
    whole: ClassVar[bool]
    """Whether the samples are whole pictures, and not crops of them."""
    default: ClassVar[int]
    """Samples to compare on where nobody says how many."""

    @classmethod
    def check(cls) -> None:
        """Raise ``ModuleNotFoundError`` where a package is missing that it needs."""

    @abstractmethod
    def add(self, reference: NDArray[Any], reduced: NDArray[Any]) -> None:
        """Count answers to the same n samples, n at least 1: what ``Task.judged`` makes of outputs."""

    @abstractmethod
    def agreement(self, source: str) -> Agreement:
        """What was found on ``source``. Raises ``RunError`` where the reference has no answer to agree with."""


@dataclass(frozen=True, slots=True)
class LabelAgreement(Agreement):
    """The share of samples with equal labels, 0 to 1, and its 95 % interval.

    The interval takes the samples as independent. Crops of few pictures are less than that: it is then too narrow, and
    says nothing of pictures of other kinds. ``scores`` are ``softmax`` where the reference's add up to 1 for each
    sample, ``logits`` elsewhere.
    """

    kind = "labels"

    low: float
    high: float
    ties: int = 0
    """Samples for which the reduced model has several best scores; its label is the first of them, as in a run."""
    not_finite: int = 0
    """Samples for which the reduced model's best score is NaN or infinite: they count as different."""

    @property
    def kept(self) -> bool:
        """Whether even the interval's lower end is above ``KEPT``."""
        return self.low > KEPT

    @property
    def words(self) -> str:
        """The verdict in words."""
        value, low, high = map(share_in_percent, (self.value, self.low, self.high))
        share = f"{value} % same labels (95 % interval {low} to {high} %)"
        more = [f"{self.not_finite} without a finite score"] * (self.not_finite > 0)
        more += [f"{self.ties} with a tie"] * (self.ties > 0)
        difference = self.score_difference
        apart = "" if difference is None else f"; largest difference in {self.scores} {difference:.2g}"
        return f"{'accuracy kept: ' if self.kept else ''}{share} on {', '.join([self.source, *more])}{apart}"


def wilson(good: int, count: int) -> tuple[float, float]:
    """The 95 % interval of a share of which ``good`` of ``count`` were seen, within 0 to 1; ``count`` is at least 1.

    With p = good / count, n = count and z = 1.96: ``(p + z^2/2n -+ z sqrt(p (1 - p) / n + z^2/4n^2)) / (1 + z^2/n)``
    (Wilson 1927, Probable Inference, JASA 22, 209-212). Unlike p -+ z sqrt(p (1 - p) / n) it does not shrink to a point
    at 0 and 1.

    >>> [round(end, 4) for end in wilson(197, 200)]
    [0.9568, 0.9949]
    """
    share, z2 = good / count, _Z95**2
    centre = share + z2 / (2 * count)
    half = _Z95 * math.sqrt(share * (1 - share) / count + z2 / (4 * count**2))
    low, high = ((centre + sign * half) / (1 + z2 / count) for sign in (-1, 1))
    return (0.0 if good == 0 else low), (1.0 if good == count else high)


@dataclass(slots=True)
class LabelTally(Tally):
    """Counts equal labels: no scores are kept.

    Answers are float scores (n, classes), or integer labels (n,) or (n, 1).
    """

    result = LabelAgreement
    whole = False
    default = 1000  # crops: an interval of 1.4 percentage points around 95 %

    _good: int = 0
    _count: int = 0
    _ties: int = 0
    _not_finite: int = 0
    _lost: int = 0
    _difference: float | None = None
    _softmax: bool = True

    def add(self, reference: NDArray[Any], reduced: NDArray[Any]) -> None:
        """Count answers to the same n samples, n at least 1: float scores (n, classes) or integer labels.

        A label is the first of the best scores, as a run answers it. Raises ``RunError`` for answers of other shapes.
        """
        expected, _, lost = _labels(reference)
        got, tied, bad = _labels(reduced)
        if len(expected) != len(got) or not len(got):
            raise RunError(
                f"{len(got)} answers of the reduced model for {len(expected)} of the reference, expected as many"
            )
        self._good += int(((expected == got) & ~bad).sum())
        self._count += len(got)
        self._ties += int((tied & ~bad).sum())
        self._not_finite += int(bad.sum())
        self._lost += int(lost.sum())
        if reference.dtype.kind == reduced.dtype.kind == "f" and reference.shape == reduced.shape:
            self._add_scores(reference, reduced)

    def agreement(self, source: str) -> LabelAgreement:
        """What was found on ``source``.

        Raises ``RunError`` for a reference without a finite best score: there is nothing to agree with.
        """
        if self._lost:
            raise RunError(f"the FP32 model has no finite best score for {self._lost} of {self._count} samples")
        return LabelAgreement(
            self._good / self._count,
            *wilson(self._good, self._count),
            self._count,
            source,
            ties=self._ties,
            not_finite=self._not_finite,
            score_difference=self._difference,
            scores=None if self._difference is None else "softmax" if self._softmax else "logits",
        )

    def _add_scores(self, reference: NDArray[Any], reduced: NDArray[Any]) -> None:
        finite = np.isfinite(reference) & np.isfinite(reduced)
        if finite.any():
            # As float64: float16 would round the difference of two of its numbers.
            apart = np.abs(np.subtract(reference[finite], reduced[finite], dtype=np.float64))
            self._difference = max(self._difference or 0.0, float(apart.max()))
        sums = reference.sum(axis=1, dtype=np.float64)
        self._softmax &= bool((reference >= 0).all() and (np.abs(sums - 1) < _SUM_TOLERANCE).all())


def _labels(answers: NDArray[Any]) -> tuple[NDArray[np.intp], NDArray[np.bool_], NDArray[np.bool_]]:
    """Label of each sample; whether others score as high; whether the best score is not finite."""
    if answers.dtype.kind in "iu" and answers.size == len(answers):
        nothing = np.zeros(len(answers), bool)
        return answers.reshape(-1).astype(np.intp), nothing, nothing
    if answers.dtype.kind != "f" or answers.ndim != 2 or not answers.shape[1]:
        raise RunError(f"answers are {answers.dtype} {answers.shape}, expected scores (n, classes) or labels (n,)")
    best, highest = best_of(answers)
    return best, (answers == highest[:, None]).sum(axis=1) > 1, ~np.isfinite(highest)
