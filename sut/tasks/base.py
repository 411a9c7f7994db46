"""What an answer is: from the model's outputs to the bytes LoadGen gets, and from LoadGen's log to a score."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from backends.base import TensorSpec
from preprocess.base import Geometry

Payloads = NDArray[Any] | list[bytes]
"""The answers of one batch: a freshly made C-contiguous array whose row i is answer i, or one bytes object each.

The array form lets a batch of thousands be answered without making an object per sample."""


@dataclass(frozen=True, slots=True)
class Score:
    """Accuracy of one run. ``value`` is a fraction: 1.0 means all right."""

    name: str
    value: float
    good: int
    count: int
    always: float | None = None
    """The answer that every one of several samples got; None where they differ."""


class Task(ABC):
    """One kind of question put to a model."""

    name: ClassVar[str]
    output: TensorSpec | None = None
    """The one output that answers, where there is one."""

    @classmethod
    @abstractmethod
    def for_outputs(cls, outputs: Sequence[TensorSpec], classes: int, label_offset: int) -> Self:
        """The task for a model with these outputs. Raises ``ValueError`` if none of them fits."""

    @abstractmethod
    def decode(self, outputs: Mapping[str, Any], n: int, geometries: Sequence[Geometry], rows: int) -> Payloads:
        """The answers of the first ``n`` of the ``rows`` that were inferred; the rest is padding.

        Raises ``ValueError`` if there are fewer or more rows, or values are not finite: an answer that was not computed
        must never look like one.
        """

    @classmethod
    @abstractmethod
    def score(cls, answers: Mapping[int, bytes], labels: NDArray[np.int32]) -> Score:
        """Score answers by sample index against the data set's labels, one answer per sample.

        Raises ``ValueError`` for an index outside the data set or a sample without an answer.
        """

    @classmethod
    def doubts(cls, score: Score, classes: int, trained: bool, to_check: str) -> list[str]:
        """What makes a score hard to believe of a model, ``trained`` or random; ``to_check`` says where to look."""
        return []
