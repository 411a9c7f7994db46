"""What preprocessors take for pictures of several sizes, one at a time and in turns: a process that does only that."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from preprocess.base import Preprocessor, unmarked
from sut.config import RunConfig
from sut.errors import RunError, error_of
from sut.models.preparation import Prepared
from sut.pipeline.assembly import assemble
from sut.process.child import follow
from sut.process.messages import Failed, Step, from_text, vocabulary
from sut.process.telling import Teller, carry_out
from sut.qsl.library import Rows
from sut.studies.breakdown.pictures import ladder

_LEAST_S = 0.005
"""Of a measurement: shorter ones are of the clock and the first miss of a cache."""
_FEWEST_ROUNDS, _MOST_ROUNDS = 5, 20


@dataclass(frozen=True, slots=True)
class TimingOrders:
    """A config for each preprocessor, and for how many seconds they take turns."""

    configs: tuple[RunConfig, ...]
    prepared: Prepared | None
    seconds: float


@dataclass(frozen=True, slots=True)
class Timings:
    """``pixels`` of each size, ascending, and by preprocessor the ns that a picture took: of each size, each round."""

    pixels: list[int]
    taken_ns: dict[str, list[list[float]]]
    event: Literal["timings"] = "timings"


_WORDS: TypeAdapter[Step | Failed | Timings] = vocabulary(Step | Failed | Timings)


def time_preprocessors(configs: Sequence[RunConfig], prepared: Prepared | None, seconds: float) -> Timings:
    """What the preprocessors of these configs take; they differ in nothing else.

    Raises what a run would where one cannot be made, and ``RunError`` for whatever else goes wrong.
    """
    doing = "timing preprocessors"
    told = follow("sut.studies.breakdown.timed", TimingOrders(tuple(configs), prepared, seconds), _WORDS, doing)
    if isinstance(told, Failed):
        raise error_of(told.code, told.message)
    if not isinstance(told, Timings):
        raise RunError(f"{doing} failed: its process ended without a word")
    return told


def _take_turns(text: str, teller: Teller) -> None:
    orders = from_text(TimingOrders, text)
    made: dict[str, Preprocessor] = {}
    for config in orders.configs:
        parts = assemble(config, progress=teller.step, prepared=orders.prepared)
        made[config.preprocess] = parts.preprocessor_for(parts.spec.recipe)
        recipe = parts.spec.recipe
    row = np.zeros((1, *recipe.sample_shape), recipe.dtype)
    sizes = ladder(lambda text: None)
    taken: dict[str, list[list[float]]] = {name: [[] for _ in sizes] for name in made}
    for name in made:  # what the first picture of a size makes is made before the clock
        for _, files in sizes:
            _nanoseconds(made[name], files, row)
    end = time.monotonic() + orders.seconds
    for number in range(_MOST_ROUNDS):
        if number >= _FEWEST_ROUNDS and time.monotonic() > end:
            break
        for at, (_, files) in enumerate(sizes):
            for name in made if number % 2 == 0 else reversed(made):
                taken[name][at].append(_nanoseconds(made[name], files, row))
        teller.step(number + 1, _MOST_ROUNDS)
    teller.tell(Timings([pixels for pixels, _ in sizes], taken))


def _nanoseconds(preprocessor: Preprocessor, files: Sequence[bytes], row: NDArray[np.generic]) -> float:
    """What a picture takes by itself, from the file's bytes to the tensor in host memory: the mean of some."""
    target, done = Rows.of(row), 0
    begin = now = time.perf_counter_ns()
    while now - begin < _LEAST_S * 1e9:
        for data in files:
            preprocessor.run([data], target, unmarked)
        done += len(files)
        now = time.perf_counter_ns()
    return (now - begin) / done


if __name__ == "__main__":
    carry_out(_take_turns)
