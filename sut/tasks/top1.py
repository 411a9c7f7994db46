"""Top-1 from the bytes that LoadGen has logged: one answer per sample, each of them a label in one of three types."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sut.tasks.base import Score

DTYPES: MappingProxyType[str, np.dtype[Any]] = MappingProxyType(
    {"float32": np.dtype("<f4"), "int32": np.dtype("<i4"), "int64": np.dtype("<i8")}
)
"""What a label may be written in. MLPerf's reference harness has float32."""
BACKGROUND = -1
"""A wrong label, but a legal one: what MLPerf's models answer that have a class more, less their offset."""
MOST_CLASSES = 2**23
"""Beyond, the float32 of one label can be the int32 of another."""
_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Top1(Score):
    """The part of ``count`` answers that are their label: ``good`` of them."""

    good: int
    always: float | None = None
    """The answer that every one of several samples got; None where they differ."""


def top1_score(good: int, count: int, always: float | None = None) -> Top1:
    """``good`` of ``count`` right, which is not 0.

    >>> top1_score(38228, 50000).text
    'accuracy=76.456%, good=38228, total=50000'
    """
    text = f"accuracy={100.0 * good / count:.3f}%, good={good}, total={count}"
    return Top1("top1", good / count, text, count, good, always)


@dataclass(frozen=True, slots=True)
class Labels:
    """Answers as labels: ``values`` int64 of shape (n,), in the order of the answers; ``dtype`` they came in."""

    values: NDArray[np.int64]
    dtype: str


def sample_indices(answers: Mapping[int, object], count: int, whole: bool = True) -> NDArray[np.intp]:
    """The samples in the order of their answers: shape (count,), or fewer where not the ``whole`` is asked for.

    Raises ``ValueError`` for a sample outside 0 to ``count - 1``, one without an answer, and a ``count`` of 0.
    """
    if not count:
        raise ValueError("the data set has no labels to score against")
    beyond = [index for index in answers if not 0 <= index < count]
    if beyond:
        raise ValueError(f"an answer for sample {beyond[0]}; the data set has 0 to {count - 1}")
    if whole and len(answers) < count:
        missing = [index for index in range(count) if index not in answers]
        raise ValueError(f"{len(missing)} of {count} samples have no answer: {_first(missing)}")
    return np.fromiter(answers, dtype=np.intp, count=len(answers))


def top1(got: NDArray[Any], labels: NDArray[np.int32]) -> Top1:
    """How many of the answers ``got`` are the ``labels``: both of shape (n,), n not 0."""
    count, good = len(got), int(np.count_nonzero(got == labels))
    always = float(got[0]) if count > 1 and (got == got[0]).all() else None
    return top1_score(good, count, always)


def answers_as_labels(answers: Mapping[int, bytes], classes: int, dtype: str | None = None) -> Labels:
    """Answers, by sample, as labels from -1 ("background") to ``classes - 1``, of ``MOST_CLASSES`` at most.

    Which of ``DTYPES`` they are written in, little endian, their bytes tell. Those of eight bytes are int64. Four are a
    whole float32 or an int32, and never both but for 0: the int32 labels from 1 up are, as float32, next to 0 and not
    whole, and -1 is NaN; the float32 labels are, as int32, 2**23 and more away from 0. All 0 are taken for float32.

    Raises ``ValueError`` for empty answers, for answers of several or other lengths, for what is no label in the type
    that fits most of them, and for another ``dtype`` than theirs.
    """
    width = _width(answers)
    raw = b"".join(answers.values())
    read = {name: np.frombuffer(raw, kind) for name, kind in DTYPES.items() if kind.itemsize == width}
    legal = {name: _legal(values, classes) for name, values in read.items()}
    fits = {name: int(np.count_nonzero(each)) for name, each in legal.items()}
    found = max(fits, key=lambda name: fits[name])
    if dtype is not None and fits.get(dtype, -1) < fits[found]:
        raise ValueError(
            f"the answers are {found} ({width} bytes each), got --dtype {dtype}; give {found} or leave it out"
        )
    found = dtype or found
    if not legal[found].all():
        position = int(legal[found].argmin())
        as_each = " or ".join(f"{_shown(values[position].item())} as {name}" for name, values in read.items())
        raise ValueError(
            f"{len(answers) - fits[found]} of {len(answers)} answers are no labels from {BACKGROUND} to {classes - 1}, "
            f"such as sample {list(answers)[position]}'s, {as_each}: label offset or dtype?"
        )
    return Labels(read[found].astype(np.int64), found)


def _shown(value: float) -> str:
    return f"{value:.9g}" if isinstance(value, float) else str(value)


def _legal(values: NDArray[Any], classes: int) -> NDArray[np.bool_]:
    with np.errstate(invalid="ignore"):  # NaN is not within
        legal: NDArray[np.bool_] = (values >= BACKGROUND) & (values < classes)
        return legal & (values == np.rint(values)) if values.dtype.kind == "f" else legal


def _width(answers: Mapping[int, bytes]) -> int:
    """The length that all answers have. Raises ``ValueError`` where they have none, or one that no label has."""
    empty = [index for index, answer in answers.items() if not answer]
    if empty:
        raise ValueError(
            f"{len(empty)} of {len(answers)} answers are empty: samples {_first(empty)}; a sample that failed was "
            "answered with nothing: mend that and run it again"
        )
    first, width = next((index, len(answer)) for index, answer in answers.items())
    other = next((index for index, answer in answers.items() if len(answer) != width), None)
    if other is not None:
        raise ValueError(
            f"sample {first} has an answer of {width} bytes, sample {other} one of {len(answers[other])}; expected one "
            "label each, all of one dtype"
        )
    if width not in (kind.itemsize for kind in DTYPES.values()):
        raise ValueError(f"answers have {width} bytes each; expected a label in {', '.join(DTYPES)}: 4 or 8 bytes")
    return width


def _first(indices: list[int]) -> str:
    return ", ".join(map(str, indices[:_SHOWN])) + (", ..." if len(indices) > _SHOWN else "")
