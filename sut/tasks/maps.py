"""Tasks whose answer to a picture is a map, a value for each place: segmentation and depth, for their speed alone.

Nothing here is scored. Such answers are large, so the copy into memory of their own is a stage, and a result tells how
many bytes an answer has.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NoReturn, Self

import numpy as np
from numpy.typing import NDArray

from backends.base import TensorSpec
from preprocess.base import Geometry, Mark, unmarked
from sut.tasks.base import FLOATS, INTEGERS, Score, Spec, Task

MOST_CLASSES = 256
"""A map of classes has a byte for each place."""
MOST_DEPTH = float(np.finfo(np.float16).max)


class _Maps(Task):
    """What both have in common: one output, of which a row becomes a map of ``answer`` values."""

    layout = "folder"
    stages = ("postprocess", "copy")
    output: TensorSpec
    answer: ClassVar[np.dtype[Any]]
    expected: ClassVar[str]
    """The outputs that fit, for a message."""

    def __init__(self, output: TensorSpec) -> None:
        """Answer from ``output``."""
        self.output = output
        self._places: tuple[int, int] | None = None

    @classmethod
    def of(cls, spec: Spec, outputs: Sequence[TensorSpec]) -> Self:
        """The task for a model with these outputs. Raises ``ValueError`` unless exactly one of them fits."""
        cls.read_options(spec.task_options)
        fitting = [each for each in outputs if cls.fits(each)]
        if not fitting:
            got = ", ".join(f"{each.name} {each.dtype}{list(each.shape)}" for each in outputs) or "none"
            raise ValueError(f"no output fits {cls.name}: got {got}; expected {cls.expected}")
        if len(fitting) > 1:
            names = ", ".join(each.name for each in fitting)
            raise ValueError(f"the outputs {names} fit equally well; name the one to use with --outputs")
        return cls(fitting[0])

    @classmethod
    @abstractmethod
    def fits(cls, output: TensorSpec) -> bool:
        """Whether an output has maps."""

    @abstractmethod
    def computed(self, values: NDArray[Any]) -> NDArray[Any]:
        """The maps (n, height, width) in what the output's rows hold; ``answer`` takes each of their values.

        Raises ``ValueError`` for values that are none.
        """

    def decode(
        self,
        outputs: Mapping[str, Any],
        indices: Sequence[int],
        geometries: Sequence[Geometry],
        rows: int,
        mark: Mark = unmarked,
    ) -> NDArray[Any]:
        """The maps of the first rows, one for each of the n ``indices``: freshly made, ``answer`` (n, height, width).

        Raises ``ValueError`` for a missing output, fewer or more than ``rows`` rows, another shape than the task's, and
        values that ``computed`` refuses. Those in rows after n (padding) are not looked at.
        """
        name = self.output.name
        if name not in outputs:
            raise ValueError(f"the model returned no output {name!r}; got {', '.join(outputs) or 'none'}")
        values = np.asarray(outputs[name])
        if values.shape[:1] != (rows,) or not self.fits(TensorSpec(name, values.dtype.name, (None, *values.shape[1:]))):
            raise ValueError(
                f"output {name!r} returned {values.dtype}{list(values.shape)} for a batch of {rows}; expected "
                f"{self.expected}"
            )
        maps = self.computed(values[: len(indices)])
        mark("postprocess")
        self._places = maps.shape[1:]
        return maps.astype(self.answer, order="C")

    def notes(self) -> list[str]:
        """How large an answer is."""
        if self._places is None:
            return []
        height, width = self._places
        nbytes = height * width * self.answer.itemsize
        return [f"an answer is a map of {height} x {width} in {self.answer.name}: {nbytes:,} bytes"]

    @classmethod
    def check_truth(cls, spec: Spec, truth: object, files: Sequence[str]) -> None:
        """Raise ``ValueError``: there is no truth for maps."""
        cls._refuse()

    @classmethod
    def score(cls, answers: Mapping[int, bytes], truth: Any, whole: bool = True) -> Score:
        """Raise ``ValueError``: nothing is scored."""
        cls._refuse()

    @classmethod
    def _refuse(cls) -> NoReturn:
        raise ValueError(f"{cls.name} is measured for speed only: its maps are not scored; leave out --accuracy")


class Segmentation(_Maps):
    """A class for each place: uint8, from scores or from labels that the model computes itself.

    The first of the best scores wins. Scores that are NaN or inf are an error; -inf is a score like any other.
    """

    name = "segmentation"
    answer = np.dtype("u1")
    expected = f"float scores [n, 2 to {MOST_CLASSES} classes, height, width] or integer labels [n, height, width]"

    @classmethod
    def fits(cls, output: TensorSpec) -> bool:
        """Whether an output has a score for each class and place, or a label for each place."""
        if output.dtype in INTEGERS:
            return len(output.shape) == 3
        classes = output.shape[1] if output.dtype in FLOATS and len(output.shape) == 4 else 0
        return classes is None or 2 <= classes <= MOST_CLASSES

    def computed(self, values: NDArray[Any]) -> NDArray[Any]:
        """Labels, uint8 where they come from scores. Raises ``ValueError`` for scores and labels that are none."""
        if values.ndim == 3:
            if values.size and not 0 <= int(values.min()) <= int(values.max()) < MOST_CLASSES:
                raise ValueError(f"output {self.output.name!r} has labels beyond 0 to {MOST_CLASSES - 1}")
            return values
        # A plane after the other: argmax over an axis that is not the last turns the whole array around first.
        best = values[:, 0].copy()
        labels = np.zeros(best.shape, np.uint8)
        for label in range(1, values.shape[1]):
            np.copyto(labels, label, where=values[:, label] > best)
            np.maximum(best, values[:, label], out=best)
        if not np.isfinite(best).all():  # NaN wins every maximum
            raise ValueError(f"output {self.output.name!r} has scores that are not finite (NaN or inf)")
        return labels


class Depth(_Maps):
    """A distance for each place: float16, little endian."""

    name = "depth"
    answer = np.dtype("<f2")
    expected = "float maps [n, height, width] or [n, 1, height, width]"

    @classmethod
    def fits(cls, output: TensorSpec) -> bool:
        """Whether an output has one number for each place."""
        shape = output.shape
        return output.dtype in FLOATS and (len(shape) == 3 or (len(shape) == 4 and shape[1] == 1))

    def computed(self, values: NDArray[Any]) -> NDArray[Any]:
        """The output itself. Raises ``ValueError`` for what is not finite, be it in float16."""
        if values.size and not float(np.abs(values).max()) <= MOST_DEPTH:
            raise ValueError(
                f"output {self.output.name!r} has depths that are not finite in float16 (NaN, inf or beyond "
                f"{MOST_DEPTH:g})"
            )
        return values.reshape(len(values), *values.shape[-2:])
