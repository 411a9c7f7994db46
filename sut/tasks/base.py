"""What an answer is: from the model's outputs to the bytes LoadGen gets, and from LoadGen's log to a score."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from backends.base import TensorSpec
from plugins.base import Plugin
from preprocess.base import Geometry, Mark, Recipe, unmarked
from sut.tasks.agreement import Tally
from sut.tasks.likeness import Look, Values

FLOATS = ("float16", "bfloat16", "float32", "float64")
INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
"""Types of outputs."""

Payloads = NDArray[Any] | list[bytes]
"""The answers of one batch: a freshly made C-contiguous array whose row i is answer i, or one bytes object each.

The array form lets a batch of thousands be answered without making an object per sample."""


@dataclass(frozen=True, slots=True)
class Score:
    """Accuracy of one run over ``count`` samples. ``value`` is a fraction: 1.0 means all right.

    ``text`` is what MLPerf's script writes of it into ``accuracy.txt``: one line.
    """

    name: str
    value: float
    text: str
    count: int


class Spec(Protocol):
    """What a task is told of the model: a ``ModelSpec``."""

    @property
    def name(self) -> str: ...
    @property
    def recipe(self) -> Recipe: ...
    @property
    def classes(self) -> int: ...
    @property
    def label_offset(self) -> int: ...
    @property
    def task_options(self) -> Mapping[str, Any]: ...


class Info(Protocol):
    """What a task is told of the model's file: a ``ModelInfo``."""

    @property
    def path(self) -> Path: ...
    @property
    def inputs(self) -> tuple[TensorSpec, ...]: ...
    @property
    def outputs(self) -> tuple[TensorSpec, ...]: ...


class Told(Protocol):
    """What a task is told of a recipe for a user's own model."""

    @property
    def name(self) -> str: ...
    @property
    def classes(self) -> int | None: ...
    @property
    def usual_classes(self) -> int | None: ...
    @property
    def task_options(self) -> Mapping[str, Any]: ...


class Task(Plugin, ABC):
    """One kind of question put to a model; one object for all lanes.

    ``options`` are what a recipe's ``task_options`` may set; ``of`` reads them with ``read_options``.
    """

    layout: ClassVar[str] = "imagenet"
    """The data set that a folder is taken for whose kind is not told."""
    stages: ClassVar[tuple[str, ...]] = ("postprocess",)
    """The stages of ``decode``, in order."""
    needs_geometry: ClassVar[bool] = False
    """Whether an answer is about places in the picture as it was before preprocessing."""
    loadgen_model: ClassVar[str] = "resnet50"
    """The name whose lines in mlperf.conf apply to a user's own model."""
    inexact: ClassVar[bool] = False
    """Whether the last bits of an answer depend on what else is in the batch: of two answers the first counts."""
    output: TensorSpec | None = None
    """The one output that answers, where there is one."""
    tally: ClassVar[type[Tally] | None] = None
    """Counts how alike two models answer; None: what a reduced precision answers is not compared with FP32."""
    exact_behind: ClassVar[bool] = True
    """Whether an INT8 model computes in floats what stands behind its last layers with weights: an answer there is a
    place or an amount, no winner among scores, and 255 steps are too few for it."""

    @classmethod
    @abstractmethod
    def of(cls, spec: Spec, outputs: Sequence[TensorSpec]) -> Self:
        """The task for a model with these outputs. Raises ``ValueError`` if none of them fits, and for bad options."""

    @classmethod
    def recognises(cls, outputs: Sequence[TensorSpec]) -> bool:
        """Whether outputs of any width look like this task's; for messages where another was asked for."""
        return False

    @classmethod
    def usual_recipe(cls, outputs: Sequence[TensorSpec]) -> str | None:
        """The name of the recipe that goes with outputs that it ``recognises``; None where many are usual."""
        return None

    @classmethod
    def classes_of(cls, recipe: Told, outputs: Sequence[TensorSpec]) -> int:
        """``ModelSpec.classes`` of a user's own model: what its recipe tells, else its outputs, else what is usual.

        Raises ``ValueError`` for outputs that do not fit, that contradict the recipe, and where nothing tells it.
        """
        return recipe.classes or recipe.usual_classes or 1

    @classmethod
    def outline(cls, spec: Spec, outputs: Sequence[TensorSpec]) -> str:
        """How the outputs of a user's own model are understood: part of a line."""
        return f"task {cls.name}"

    @classmethod
    def check(cls, spec: Spec, info: Info) -> None:
        """Raise ``ValueError`` for a file that cannot be run as ``spec``; its input was looked at already."""
        cls.of(spec, info.outputs)

    @classmethod
    def check_truth(cls, spec: Spec, truth: object, files: Sequence[str]) -> None:
        """Raise ``ValueError`` for what ``spec`` cannot be scored against: ``DataSet.truth`` of these samples.

        And ``ModuleNotFoundError`` for a package that scoring needs. Called before a run in accuracy mode.
        """

    @abstractmethod
    def decode(
        self,
        outputs: Mapping[str, Any],
        indices: Sequence[int],
        geometries: Sequence[Geometry],
        rows: int,
        mark: Mark = unmarked,
    ) -> Payloads:
        """The answers to samples, by their ``indices``, from the first of the ``rows`` that were inferred.

        ``geometries`` has one for each sample; none where no input was filled. ``mark`` is called at the end of each of
        ``stages`` but the last. An answer may be empty where the task has such: no box was found.

        Raises ``ValueError`` if there are fewer or more rows, or values are not finite: an answer that was not computed
        must never look like one.
        """

    def start(self) -> None:
        """A run begins, before any lane decodes for it: what ``notes`` counts is counted from here."""
        return

    def notes(self) -> list[str]:
        """What a reader of the result must know of the answers so far, while lanes may go on decoding."""
        return []

    @property
    def hides_scores(self) -> str | None:
        """The output that has answers but not the scores they were chosen from; None where they are to be seen."""
        return None

    def looks(self, payloads: Payloads, outputs: Mapping[str, Any]) -> Sequence[Look]:
        """The answers of one batch as they are compared with others; ``outputs`` are those that they came from."""
        return Values.of(outputs, len(payloads))

    def judged(self, outputs: Mapping[str, Any], geometries: Sequence[Geometry], rows: int) -> NDArray[Any]:
        """What ``tally`` takes of a batch of ``rows``, one for each of the geometries: the answers, as objects.

        A copy: outputs last until the runner's next call.
        """
        found = np.empty(len(geometries), object)
        found[:] = self.decode(outputs, range(len(geometries)), geometries, rows)
        return found

    @classmethod
    @abstractmethod
    def score(cls, answers: Mapping[int, bytes], truth: Any, whole: bool = True) -> Score:
        """Score answers by sample index against the data set's truth, one answer per sample.

        Raises ``ValueError`` for an index outside the data set, a sample without an answer unless not the ``whole`` was
        asked (an audit logs some samples only), and for a truth of another task.
        """

    @classmethod
    def doubts(cls, score: Score, spec: Spec, trained: bool) -> list[str]:
        """What makes a score hard to believe of a model, ``trained`` or random, and where to look."""
        return []
