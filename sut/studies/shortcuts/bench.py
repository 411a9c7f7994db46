"""The work from a JPEG to its label, one picture after another, with a shortcut and without.

A process of its own (``python -m sut.studies.shortcuts.bench``) loads one way of doing it, or two that are timed in
pairs. Time is the CPU time of the whole process: other work on the machine slows both down, and is in neither.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from numpy.typing import NDArray
from pydantic import TypeAdapter

from preprocess.base import unmarked
from sut.config import RunConfig
from sut.datasets.mosaics import SIZES
from sut.errors import RunError, error_of
from sut.models.preparation import Prepared, check_unchanged
from sut.pipeline.assembly import assemble
from sut.process.child import follow
from sut.process.memory import forget_peak, peak_bytes
from sut.process.messages import Failed, Step, from_text, vocabulary
from sut.process.telling import Teller, carry_out
from sut.results.parity import compare, oracle_levels, preprocessed_levels
from sut.results.schema import Parity
from sut.studies.shortcuts.pictures import files
from sut.tasks.agreement import best_of

_PASS_S = 0.25
"""CPU time that one side of a pair takes at the least: the clock's steps are lost in that."""


@dataclass(frozen=True, slots=True)
class Way:
    """One way from a JPEG to its label; ``prepared`` is its model's file."""

    config: RunConfig
    prepared: Prepared | None


@dataclass(frozen=True, slots=True)
class ShortcutOrders:
    """The pictures, and what answers them: one way to be examined, or two to be timed in ``pairs``."""

    folder: Path
    ways: tuple[Way, ...]
    pairs: int


@dataclass(frozen=True, slots=True)
class Examined:
    """What one way answers and needs, by the pictures' size. ``peak_bytes`` is of the whole process, loaded model too;
    None where the kernel does not let it be asked anew.
    """

    labels: dict[str, tuple[int, ...]]
    parity: dict[str, Parity]
    peak_bytes: dict[str, int | None]
    event: Literal["examined"] = "examined"


@dataclass(frozen=True, slots=True)
class Timed:
    """CPU-seconds for a picture by its size, of both ways in each pair."""

    cpu_s: dict[str, tuple[tuple[float, float], ...]]
    event: Literal["timed"] = "timed"


_WORDS: TypeAdapter[Step | Failed | Examined | Timed] = vocabulary(Step | Failed | Examined | Timed)


def examine(folder: Path, way: Way, doing: str) -> Examined:
    """Labels, levels and memory of one way. Raises what a run would, and ``RunError``."""
    told = _told(ShortcutOrders(folder, (way,), 0), doing)
    assert isinstance(told, Examined)
    return told


def time_pairs(folder: Path, base: Way, other: Way, pairs: int, doing: str) -> Timed:
    """Time two ways in turn. Raises what a run would, and ``RunError``."""
    told = _told(ShortcutOrders(folder, (base, other), pairs), doing)
    assert isinstance(told, Timed)
    return told


def _told(orders: ShortcutOrders, doing: str) -> Examined | Timed:
    told = follow("sut.studies.shortcuts.bench", orders, _WORDS, doing)
    if isinstance(told, Failed):
        raise error_of(told.code, told.message)
    if not isinstance(told, (Examined, Timed)):
        raise RunError(f"{doing} failed: its process ended without a word")
    return told


def _work(text: str, teller: Teller) -> None:
    orders = from_text(ShortcutOrders, text)
    with ExitStack() as stack:
        answering = [_Answering(way, stack, teller) for way in orders.ways]
        if len(answering) == 1:
            teller.tell(answering[0].examined(orders.folder, teller))
        else:
            teller.tell(Timed({size: _pairs(orders, size, answering, teller) for size in SIZES}))


class _Answering:
    """A loaded model and a preprocessor, one picture at a time."""

    def __init__(self, way: Way, stack: ExitStack, teller: Teller) -> None:
        self._parts = parts = assemble(way.config, progress=teller.step, prepared=way.prepared)
        backend = stack.enter_context(parts.load_backend())
        check_unchanged(way.prepared)
        parts.check_attested(backend.attest())
        self._rows = next(iter(backend.batch_sizes or (1,)))
        self._task = parts.task_for(backend)
        self._runner = stack.enter_context(backend.runner(parts.place_for(backend)))
        self._preprocessor = stack.enter_context(parts.preprocessor_for(parts.spec.recipe))

    def answer(self, data: bytes) -> NDArray[Any]:
        """What the task judges of one picture, (1, classes) or (1,)."""
        slot = self._runner.slot(self._rows)
        geometries = self._preprocessor.run([data], slot, unmarked)
        return self._task.judged(self._runner.infer(slot), geometries, self._rows)

    def examined(self, folder: Path, teller: Teller) -> Examined:
        recipe, shown = self._parts.spec.recipe, {size: files(folder, size, "timed") for size in SIZES}
        # Small pictures first, and before all else: what earlier work leaves on the heap counts too.
        peaks = {size: _peak_bytes(partial(self._answer_all, shown[size])) for size in SIZES}
        labels, parity = {}, {}
        for done, size in enumerate(SIZES):
            teller.step(done, len(SIZES))
            got = preprocessed_levels(self._parts.preprocessor_for, recipe, shown[size])
            parity[size] = compare(got, *oracle_levels(recipe, shown[size]))
            found = self._answer_all(files(folder, size, "labelled"))
            labels[size] = tuple(int(each) for scores in found for each in _labels(scores))
        return Examined(labels, parity, peaks)

    def _answer_all(self, shown: Sequence[bytes]) -> list[NDArray[Any]]:
        return [self.answer(data) for data in shown]


def _labels(answers: NDArray[Any]) -> NDArray[Any]:
    return best_of(answers)[0] if answers.ndim == 2 and answers.shape[1] > 1 else answers.reshape(-1)


def _peak_bytes(work: Callable[[], object]) -> int | None:
    """The most memory that this process held during some work; None where that cannot be told."""
    if not forget_peak():
        return None
    work()
    return peak_bytes()


def _pairs(
    orders: ShortcutOrders, size: str, sides: Sequence[_Answering], teller: Teller
) -> tuple[tuple[float, float], ...]:
    """CPU-seconds a picture of both sides in each pair; who is first takes turns."""
    shown = files(orders.folder, size, "timed")
    for side in sides:
        _pass(side, shown, len(shown))
    pictures = max(1, round(_PASS_S / max(_pass(sides[0], shown, len(shown)), 1e-6)))
    found = []
    for pair in range(orders.pairs):
        teller.step(pair, orders.pairs)
        order = (0, 1) if pair % 2 == 0 else (1, 0)
        took = {side: _pass(sides[side], shown, pictures) for side in order}
        found.append((took[0], took[1]))
    return tuple(found)


def _pass(side: _Answering, shown: Sequence[bytes], pictures: int) -> float:
    """CPU-seconds a picture, over so many."""
    begin = time.process_time()
    for data in itertools.islice(itertools.cycle(shown), pictures):
        side.answer(data)
    return (time.process_time() - begin) / pictures


if __name__ == "__main__":
    carry_out(_work)
