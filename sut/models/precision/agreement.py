"""Whether a model in lower precision still gives the labels of its FP32 form, where there are no labelled pictures.

Both get the same crops of some pictures, each by its own recipe, and answer with a label per crop. How many agree is a
share with an interval around it: nothing is called kept that a few hundred crops cannot tell from lost. Where both
answer with scores, it is also told how far these are apart at the most.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plugins.files import SMALL_BYTES, read_file
from preprocess.base import Recipe
from sut.datasets.base import DataSet
from sut.errors import InputError, RunError, reason_of
from sut.files import cached
from sut.models.content import content_digest
from sut.models.precision.calibration import Picture, preprocessed, random_crops, read_picture
from sut.tasks.classification import best_of
from sut.text import Progress, Say, share_in_percent

NOT_COMPARED = "the labels are not compared with fp32"

COMPARISON = 2
"""To be raised with every change of the crops, of how answers are compared or of what is kept: it is part of the cache
key."""
KEPT = 0.99
"""The share of equal labels above which accuracy counts as kept: MLPerf's 99 % of the FP32 model's."""

_SEED = 20_200_714
_BATCH = 20
_SUM_TOLERANCE = 1e-3
"""How far the sum of a softmax may be from 1: a thousand shares, each rounded, are not exact."""
_Z95 = 1.959964
"""The 97.5 % point of the normal distribution: 95 % lie within as many standard deviations."""

Scores = Callable[[NDArray[Any]], NDArray[Any]]
"""Runs a model on samples (n, *recipe.sample_shape): float scores (n, classes), or integer labels (n,) or (n, 1)."""


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two models: what runs, and how. ``scores`` is called only where the answer is not kept yet."""

    model: Path
    recipe: Recipe
    backend: str
    version: str
    """Of the backend's runtime."""
    precision: str
    """As executed: ``fp32``, ``bf16``, ``int8``."""
    scores: Scores
    outputs: tuple[str, ...] | None = None
    """Those among which the one that answers was chosen; None for all of them."""

    def facts(self) -> dict[str, Any]:
        """What the labels depend on."""
        return {
            "model": content_digest(self.model),
            "recipe": asdict(self.recipe),
            "backend": [self.backend, self.version, self.precision],
            **({"outputs": self.outputs} if self.outputs else {}),
        }


@dataclass(frozen=True, slots=True)
class LabelAgreement:
    """The share of samples with equal labels, 0 to 1, and its 95 % interval.

    The interval takes the samples as independent. Crops of few pictures are less than that: it is then too narrow, and
    says nothing of pictures of other kinds.
    """

    value: float
    low: float
    high: float
    count: int
    source: str
    """What was compared on: ``2000 crops of 11 pictures``."""
    ties: int = 0
    """Samples for which the reduced model has several best scores; its label is the first of them, as in a run."""
    not_finite: int = 0
    """Samples for which the reduced model's best score is NaN or infinite: they count as different."""
    score_difference: float | None = None
    """The largest absolute difference of two scores that are finite; None unless both models answer with scores."""
    scores: str | None = None
    """What these scores are: ``softmax`` where the reference's add up to 1 for each sample, ``logits`` elsewhere."""

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
class Tally:
    """Two models' answers to the same samples, counted batch by batch: no scores are kept."""

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


def measure(
    reference: Side,
    reduced: Side,
    dataset: DataSet,
    progress: Progress,
    *,
    crops: int,
    seed: int = _SEED,
    say: Say = lambda text: None,
) -> LabelAgreement:
    """Compare two models on crops of a data set's pictures, drawn at random from ``seed``: the same ones each time.

    The answer is kept by the content of both files and of the pictures, how they were run, and the crops' number and
    seed; ``say`` is told where a kept one was damaged. Raises ``InputError`` for a picture that does not do, and as
    ``Tally`` and ``cached`` do.
    """
    indices = range(dataset.count)
    if not indices or crops < 1:
        raise InputError(f"{crops} crops of {dataset.count} pictures to compare on, expected one or more of both")
    if dataset.count > crops:
        indices = range(0, dataset.count, -(-dataset.count // crops))
    pictures = hashlib.sha256()
    try:
        for index in indices:
            pictures.update(hashlib.sha256(dataset.read(index)).digest())
    except OSError as error:
        raise InputError(f"{error.filename}, which is to compare on: {reason_of(error)}") from error
    key = {
        "comparison": COMPARISON,
        "reference": reference.facts(),
        "reduced": reduced.facts(),
        "crops": [crops, seed, pictures.hexdigest()],
    }

    def make(path: Path) -> None:
        decoded = (read_picture(dataset, index, "compare on") for index in indices)
        source = f"{crops:,} crops of {len(indices):,} picture{'s' * (len(indices) > 1)}"
        found = agree(reference, reduced, random_crops(decoded, len(indices), crops, seed), crops, progress, source)
        path.write_text(json.dumps(asdict(found)) + "\n", encoding="utf-8")

    name = f"{reduced.model.stem}-{reduced.backend}-{reduced.precision}-agreement.json"
    path = cached(name, json.dumps(key, sort_keys=True), make, say, quietly=True)
    return LabelAgreement(**json.loads(read_file(path, SMALL_BYTES)))


def agree(
    reference: Side, reduced: Side, crops: Iterable[Picture], count: int, progress: Progress, source: str
) -> LabelAgreement:
    """Compare two models on ``count`` pictures, which ``source`` names, here and now. Raises as ``Tally`` does."""
    found = Tally()
    left = iter(crops)
    done = 0
    while batch := list(islice(left, _BATCH)):
        same = reference.recipe == reduced.recipe
        tensors = preprocessed(batch, len(batch), reference.recipe)
        others = tensors if same else preprocessed(batch, len(batch), reduced.recipe)
        # A copy: a runner's outputs last until its next call.
        found.add(np.array(reference.scores(tensors)), np.asarray(reduced.scores(others)))
        done += len(batch)
        progress(done, count)
    return found.agreement(source)


def _labels(answers: NDArray[Any]) -> tuple[NDArray[np.intp], NDArray[np.bool_], NDArray[np.bool_]]:
    """Label of each sample; whether others score as high; whether the best score is not finite."""
    if answers.dtype.kind in "iu" and answers.size == len(answers):
        nothing = np.zeros(len(answers), bool)
        return answers.reshape(-1).astype(np.intp), nothing, nothing
    if answers.dtype.kind != "f" or answers.ndim != 2 or not answers.shape[1]:
        raise RunError(f"answers are {answers.dtype} {answers.shape}, expected scores (n, classes) or labels (n,)")
    best, highest = best_of(answers)
    return best, (answers == highest[:, None]).sum(axis=1) > 1, ~np.isfinite(highest)


def reduced_name(precision: str, fold: bool) -> str:
    """What a model in a reduced precision is called where its labels are compared."""
    return f"{precision}, folded," if fold else precision
