"""Identification: who is in a picture, as boxes that one model finds and labels that another gives their crops."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from backends.base import TensorSpec
from preprocess.base import Geometry, Mark, unmarked
from sut.tasks.base import Payloads, Score, Spec, Task
from sut.tasks.detection.answers import ANSWER_WIDTH, rows_of
from sut.tasks.detection.likeness import Boxes, overlaps
from sut.tasks.top1 import sample_indices

LEAST_OVERLAP = 0.5
"""The IoU from which an answered box is the true one."""
_TWO_MODELS = "identification takes a detector and a second model for what it finds: run it as a pipeline of both"


@dataclass(frozen=True, slots=True)
class IdentityTruth:
    """What is to be found in each sample, in their order: ``sizes`` are width and height of the picture.

    ``boxes`` has for each picture left, top, width and height in pixels of each box, ``labels`` as many ImageNet labels
    (0 to 999); both are empty where nothing is to be found.
    """

    sizes: tuple[tuple[int, int], ...]
    boxes: tuple[tuple[tuple[int, int, int, int], ...], ...]
    labels: tuple[tuple[int, ...], ...]


class Identification(Task):
    """Boxes with the label of what is in them.

    An answer is what detection's is, with the label in the place of the category. It is made by a pipeline of two
    models, from the outputs of both: one model's outputs are not decoded here.
    """

    name = "identification"
    layout = "folder"
    needs_geometry = True

    @classmethod
    def of(cls, spec: Spec, outputs: Sequence[TensorSpec]) -> Self:
        """Raise ``ValueError``: one model does not do."""
        raise ValueError(_TWO_MODELS)

    @classmethod
    def check_truth(cls, spec: Spec, truth: object, files: Sequence[str]) -> None:
        """Raise ``ValueError`` for what are no identities, and where there is nothing to find in any picture."""
        if not any(_identities_in(truth).labels):
            raise ValueError("nothing is to be found in any picture: nothing to score against")

    def decode(
        self,
        outputs: Mapping[str, Any],
        indices: Sequence[int],
        geometries: Sequence[Geometry],
        rows: int,
        mark: Mark = unmarked,
    ) -> Payloads:
        """Raise ``ValueError``: one model does not do."""
        raise ValueError(_TWO_MODELS)

    @classmethod
    def score(cls, answers: Mapping[int, bytes], truth: Any, whole: bool = True) -> Score:
        """The identities that are right, as a share of the true boxes, or of the answered ones where those are more.

        A true box is right where the answered box that is its own has its label. Boxes become each other's one to one,
        those that overlap most first, from an IoU of ``LEAST_OVERLAP``; the order of an answer's boxes does not matter.
        Where there is nothing to find, and nothing was found, all is right.

        Raises ``ValueError`` for a sample outside the data set, one without an answer unless not the ``whole`` was
        asked, for what is no such answer, and for a truth of another task.
        """
        known = _identities_in(truth)
        samples = sample_indices(answers, len(known.sizes), whole).tolist()
        rows, of = rows_of(answers)
        if (odd := rows[:, 6] != np.rint(rows[:, 6])).any():
            at = int(odd.argmax())
            raise ValueError(f"a box of sample {of[at]} has the label {rows[at, 6]:g}; expected a whole number")
        right = sum(_right(rows[of == sample], known, sample) for sample in samples)
        count = sum(len(known.labels[sample]) for sample in samples)
        most = max(count, len(rows))
        value = right / most if most else 1.0
        text = f"identities={100.0 * value:.3f}%, right={right}, boxes={len(rows)}, total={count}"
        return Score("identities", value, text, count)


def _identities_in(truth: object) -> IdentityTruth:
    if not isinstance(truth, IdentityTruth):
        raise ValueError(
            "it has no identities to score against, but another task's truth; expected one that comes with the "
            "project: --dataset albums"
        )
    return truth


def _right(rows: Boxes, truth: IdentityTruth, sample: int) -> int:
    """How many of a picture's true boxes the answered ``rows`` have found and named."""
    labels = truth.labels[sample]
    pairs = [
        # Boxes that overlap alike, such as doubled ones, are told apart by what they say: not by where they stand.
        (-shares[at], -rows[at, 5], rows[at, 6], number, at)
        for number, box in enumerate(_as_answered(truth, sample))
        for shares in [overlaps(box, rows)]
        for at in np.flatnonzero(shares >= LEAST_OVERLAP).tolist()
    ]
    found: dict[int, bool] = {}
    used: set[int] = set()
    for _, _, label, number, at in sorted(pairs):
        if number not in found and at not in used:
            found[number] = label == labels[number]
            used.add(at)
    return sum(found.values())


def _as_answered(truth: IdentityTruth, sample: int) -> NDArray[np.float64]:
    """The true boxes of a picture as an answer would have them: [n, 7]."""
    width, height = truth.sizes[sample]
    rows = np.zeros((len(truth.boxes[sample]), ANSWER_WIDTH))
    for row, (left, top, wide, high), label in zip(rows, truth.boxes[sample], truth.labels[sample], strict=True):
        row[1:] = top / height, left / width, (top + high) / height, (left + wide) / width, 1, label
    return rows
