"""Classification: one label per picture, answered as MLPerf does, in one float32."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from backends.base import TensorSpec
from backends.kserve_tensors import ANSWER as READY
from preprocess.base import Geometry, Mark, unmarked
from sut.tasks.agreement import LabelTally, best_of
from sut.tasks.base import FLOATS, INTEGERS, Info, Payloads, Score, Spec, Task, Told
from sut.tasks.chance import near_chance
from sut.tasks.detection.kinds import told as form_told
from sut.tasks.likeness import LabelLook
from sut.tasks.top1 import DTYPES, Top1, sample_indices, top1

ANSWER = DTYPES["float32"]
BACKGROUND_CLASSES = 1001
"""So many classes are ImageNet's thousand after a class 0, "background": their labels are off by one."""

_IMAGENET_CLASSES = (1000, BACKGROUND_CLASSES)


def scores_among(outputs: Iterable[TensorSpec]) -> list[TensorSpec]:
    """Float outputs of shape (n, classes); axes of length 1 may follow, as a pooling without a reshape leaves them."""
    return [spec for spec in outputs if spec.dtype in FLOATS and len(spec.shape) >= 2 and set(spec.shape[2:]) <= {1}]


def class_scores(outputs: Iterable[TensorSpec]) -> list[TensorSpec]:
    """Of ``scores_among`` those of several classes: what a file has of one, or none, are no scores."""
    return [spec for spec in scores_among(outputs) if spec.shape[1] not in (0, 1)]


def labels_among(outputs: Iterable[TensorSpec]) -> list[TensorSpec]:
    """Outputs that are labels already: integers (n,) or (n, 1)."""
    return [spec for spec in outputs if spec.dtype in INTEGERS and spec.shape and spec.shape[1:] in ((), (1,))]


def _labels_in(truth: object) -> NDArray[np.int32]:
    """A data set's truth as labels. Raises ``ValueError`` where it is another task's."""
    if not isinstance(truth, np.ndarray):
        raise ValueError(
            "it has no labels to score against, but another task's truth; expected a label for each picture"
        )
    return truth


class Classification(Task):
    """Top-1 classification from the model's scores, or from its labels where it computes them itself.

    Answers are float32, little endian: the index of the best score plus ``label_offset``. With MLPerf's offset of -1,
    scores that are best for "background" give -1: a wrong answer, but a legal one, as in MLPerf's reference. A label
    that the model computes must not become negative: index 0 is also what an ArgMax answers for scores that are NaN.
    """

    name = "classification"
    output: TensorSpec
    tally = LabelTally
    exact_behind = False

    def __init__(self, output: TensorSpec, classes: int, label_offset: int) -> None:
        """Answer from ``output``; its scores are ``classes`` wide, its labels below ``classes``."""
        self.output = output
        self.classes = classes
        self.label_offset = label_offset
        self._lowest = max(0, -label_offset)
        self._indices: Callable[[NDArray[Any], int], NDArray[Any]]
        self._indices = self._labels if self.answers_labels else self._best
        if self.output == READY:
            self._range = (label_offset, classes + label_offset)
            self.label_offset, self._indices = 0, self._ready

    @property
    def answers_labels(self) -> bool:
        """Whether the model computes the labels itself, or a server, so that no score is seen."""
        return self.output.dtype not in FLOATS or self.output == READY

    @classmethod
    def of(cls, spec: Spec, outputs: Sequence[TensorSpec]) -> Self:
        """The task for a model with these outputs.

        Takes the answers of a server that gives them ready, else the scores of shape (n, classes), else those of shape
        (n, dynamic), else the integer output of shape (n,) or (n, 1). Raises ``ValueError`` if there is none, and where
        several fit equally well.
        """
        cls.read_options(spec.task_options)
        classes, floats = spec.classes, scores_among(outputs)
        by_rank = (
            [spec for spec in outputs if spec == READY],
            [spec for spec in floats if spec.shape[1] == classes],
            [spec for spec in floats if spec.shape[1] is None],
            labels_among(outputs),
        )
        fitting = next(filter(None, by_rank), [])
        if not fitting:
            got = ", ".join(f"{spec.name} {spec.dtype}{list(spec.shape)}" for spec in outputs) or "none"
            raise ValueError(
                f"no output fits classification: got {got}; expected float scores [n, {classes}] or integer labels [n]"
            )
        if len(fitting) > 1:
            names = ", ".join(spec.name for spec in fitting)
            raise ValueError(f"the outputs {names} fit equally well; name the one to use with --outputs")
        return cls(fitting[0], classes, spec.label_offset)

    @classmethod
    def recognises(cls, outputs: Sequence[TensorSpec]) -> bool:
        """Whether there are scores of several classes, or labels."""
        return bool(class_scores(outputs) or labels_among(outputs))

    @classmethod
    def classes_of(cls, recipe: Told, outputs: Sequence[TensorSpec]) -> int:
        """The width of the scores; where the file does not tell it, what the recipe says."""
        scores = class_scores(outputs)
        if form_told(outputs) == ("boxes", None) or not (scores or labels_among(outputs)):
            raise ValueError("expected scores [batch, classes] or integer labels [batch]")
        widths = {output.shape[1] for output in scores}
        if recipe.classes:
            if scores and not widths & {recipe.classes, None}:
                raise ValueError(
                    f"expected scores [batch, {recipe.classes}]: the recipe {recipe.name} has classes {recipe.classes}"
                )
            return recipe.classes
        imagenet = widths.intersection(_IMAGENET_CLASSES)
        likely = imagenet if len(widths) > 1 else widths  # beside the scores there may be features
        if len(likely) == 1 and (classes := next(iter(likely))) is not None:
            return classes
        if widths <= {None} and recipe.usual_classes:
            return recipe.usual_classes
        raise ValueError(f"which leave the number of classes open; set classes in the recipe {recipe.name}")

    @classmethod
    def outline(cls, spec: Spec, outputs: Sequence[TensorSpec]) -> str:
        """The classes, and what makes labels of them."""
        return f"{spec.classes} classes, label_offset {spec.label_offset}"

    @classmethod
    def check(cls, spec: Spec, info: Info) -> None:
        """Raise ``ValueError`` unless an output fits the classes: ``of``, but for scores of another width than asked.

        Boxes may come with scores, too: those are not the picture's.
        """
        scores = class_scores(info.outputs)
        if form_told(info.outputs) == ("boxes", None):
            raise ValueError(
                f"boxes with scores and labels, not the scores of a picture: expected [batch, {spec.classes}] for "
                f"{spec.name}"
            )
        wide = any(output.shape[1] in (None, spec.classes) for output in scores)
        if not wide and (scores or not labels_among(info.outputs)):
            raise ValueError(
                f"expected scores [batch, {spec.classes}] for {spec.name}; is it another model (--model-name), or one"
                " of your own (--recipe)?"
            )
        cls.of(spec, info.outputs)

    @classmethod
    def check_truth(cls, spec: Spec, truth: object, files: Sequence[str]) -> None:
        """Raise ``ValueError`` for what are no labels, and for one that the model can never answer with."""
        lowest, highest = spec.label_offset, spec.classes + spec.label_offset - 1
        for name, label in zip(files, _labels_in(truth).tolist(), strict=True):
            if not lowest <= label <= highest:
                raise ValueError(
                    f"{name} has the label {label}, but {spec.name} answers {lowest} to {highest} "
                    f"({spec.classes} classes, label_offset {spec.label_offset}); is it another model's data set?"
                )

    def decode(
        self,
        outputs: Mapping[str, Any],
        indices: Sequence[int],
        geometries: Sequence[Geometry],
        rows: int,
        mark: Mark = unmarked,
    ) -> NDArray[np.float32]:
        """Labels of the first rows, one for each of the n ``indices``: a freshly made array, float32 of shape (n,).

        Raises ``ValueError`` for a missing output, fewer or more than ``rows`` rows, another width than the classes, a
        score that is not finite, and a label outside the classes or below 0 after the offset. The values in rows after
        ``n`` (padding) are not looked at.
        """
        name = self.output.name
        if name not in outputs:
            raise ValueError(f"the model returned no output {name!r}; got {', '.join(outputs) or 'none'}")
        values = np.asarray(outputs[name])
        got = values.shape[0] if values.ndim else 0
        if got != rows:
            raise ValueError(f"output {name!r} returned {got} rows for a batch of {rows}")
        labels: NDArray[np.float32] = self._indices(values, len(indices)).astype(ANSWER)
        if self.label_offset:
            labels += self.label_offset
        return labels

    @property
    def hides_scores(self) -> str | None:
        """The output, where it has labels."""
        return self.output.name if self.answers_labels else None

    def looks(self, payloads: Payloads, outputs: Mapping[str, Any]) -> list[LabelLook]:
        """Labels, with their scores where there are any."""
        labels = np.asarray(payloads).tolist()
        if self.answers_labels:
            return [LabelLook(label) for label in labels]
        values = np.asarray(outputs[self.output.name])[: len(labels)]
        # A copy: the outputs last until the lane's next batch.
        scores = values.reshape(len(labels), -1).astype(np.float64)
        return [LabelLook(label, row) for label, row in zip(labels, scores, strict=True)]

    def judged(self, outputs: Mapping[str, Any], geometries: Sequence[Geometry], rows: int) -> NDArray[Any]:
        """The scores (n, classes), or labels (n,) or (n, 1)."""
        found = np.asarray(outputs[self.output.name])[: len(geometries)]
        # A copy: a runner's outputs last until its next call.
        return np.array(found.reshape(len(found), -1) if found.ndim > 2 else found)

    @classmethod
    def score(cls, answers: Mapping[int, bytes], truth: Any, whole: bool = True) -> Top1:
        """Top-1: the part of the samples whose answer is their label.

        Each answer is one float32, little endian. Raises ``ValueError`` for an answer of another length, an index
        outside the data set, samples without an answer, and a ``truth`` that is no int32 array of labels.
        """
        labels = _labels_in(truth)
        for index, answer in answers.items():
            if len(answer) != ANSWER.itemsize:
                raise ValueError(f"the answer of sample {index} has {len(answer)} bytes; expected {ANSWER.itemsize}")
        indices = sample_indices(answers, len(labels), whole)
        return top1(np.frombuffer(b"".join(answers.values()), dtype=ANSWER), labels[indices])

    @classmethod
    def doubts(cls, score: Score, spec: Spec, trained: bool) -> list[str]:
        """One answer to everything, and of a trained model also what looks like guessing."""
        assert isinstance(score, Top1)
        classes = spec.classes
        found = [] if score.always is None else [f"all {score.count} answers are the label {score.always:g}"]
        if trained and near_chance(score, classes):
            found.append(
                f"top-1 of {score.good} in {score.count} is near chance for {classes} classes: check label_offset "
                f"({spec.label_offset}), colour_order ({spec.recipe.colour_order}) or recipe ({spec.recipe.name}), and "
                "the data set's labels; see docs/own_model.md"
            )
        return found

    def _best(self, values: NDArray[Any], n: int) -> NDArray[np.intp]:
        if values.ndim < 2 or values.shape[1] != self.classes or values.size != values.shape[0] * self.classes:
            raise ValueError(f"output {self.output.name!r} has shape {values.shape}; expected (n, {self.classes})")
        scores = values[:n] if values.ndim == 2 else values[:n].reshape(n, self.classes)
        if n == 1:
            only = int(scores[0].argmax())
            if not math.isfinite(scores[0, only]):
                raise self._not_finite(0)
            return np.array([only])
        best, highest = best_of(scores)
        finite = np.isfinite(highest)
        if not finite.all():
            raise self._not_finite(int(finite.argmin()))
        return best

    def _ready(self, values: NDArray[Any], n: int) -> NDArray[Any]:
        """Labels with the offset in them."""
        if values.dtype != ANSWER or values.ndim != 1:
            raise ValueError(
                f"output {self.output.name!r} has shape {values.shape} and dtype {values.dtype}; expected float32 (n,)"
            )
        labels, (lowest, end) = values[:n], self._range
        wrong = ~((labels >= lowest) & (labels < end) & (labels == np.floor(labels)))
        if wrong.any():
            row = int(wrong.argmax())
            raise ValueError(
                f"output {self.output.name!r} has {labels[row]:g} in row {row}; expected a label, {lowest} to {end - 1}"
            )
        return labels

    def _not_finite(self, row: int) -> ValueError:
        return ValueError(f"output {self.output.name!r} has scores that are not finite (NaN or inf) in row {row}")

    def _labels(self, values: NDArray[Any], n: int) -> NDArray[np.integer[Any]]:
        if values.dtype.kind not in "iu" or values.size != values.shape[0]:
            raise ValueError(
                f"output {self.output.name!r} has shape {values.shape} and dtype {values.dtype}; expected integers (n,)"
            )
        labels: NDArray[np.integer[Any]] = values.reshape(-1)[:n]
        # For one label NumPy's reductions would take longer than all else here.
        least, most = (labels[0], labels[0]) if n == 1 else (labels.min(), labels.max())
        if least < self._lowest or most >= self.classes:
            row = int(np.argmax((labels < self._lowest) | (labels >= self.classes)))
            why = f" (label_offset is {self.label_offset})" if self._lowest else ""
            raise ValueError(
                f"output {self.output.name!r} has label {labels[row]} in row {row}; expected {self._lowest} to "
                f"{self.classes - 1}{why}"
            )
        return labels
