"""What the parts of a system do by themselves, and beside each other: a process that goes round them.

``python -m sut.studies.breakdown.alone`` loads the model once and lets every part in turn take all it can get: only
preprocessing, only inference over ready tensors in host memory, and on the device where the backend takes them there,
each lane one after the other, and the first two at the same time on pictures that have nothing to do with each other.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Literal

from pydantic import TypeAdapter

from backends.base import Loaded
from sut.config import RunConfig
from sut.errors import RunError, error_of
from sut.models.preparation import Prepared, check_unchanged
from sut.pipeline.assembly import Assembly, assemble
from sut.process.child import follow
from sut.process.messages import Failed, Step, from_text, vocabulary
from sut.process.telling import Teller, carry_out
from sut.studies.bare import Loop, Span, busy

PREPROCESS, INFER, INFER_ON_DEVICE, IN_TURN = "preprocess", "infer", "infer_on_device", "in_turn"
PREPROCESS_BESIDE, INFER_BESIDE = "preprocess_beside", "infer_beside"
"""While the other of the two goes on."""

Rates = dict[str, list[float]]
"""Samples per second of each part, an entry for each round."""


@dataclass(frozen=True, slots=True)
class PartsOrders:
    """What is loaded, how often each part has its turn, and for how many seconds."""

    config: RunConfig
    prepared: Prepared | None
    rounds: int
    seconds: float


@dataclass(frozen=True, slots=True)
class PartsRates:
    """What the parts came to."""

    rates: Rates
    event: Literal["rates"] = "rates"


_WORDS: TypeAdapter[Step | Failed | PartsRates] = vocabulary(Step | Failed | PartsRates)


def run_parts(parts: Assembly, rounds: int, seconds: float, doing: str) -> Rates:
    """The rates of the parts of a system at the boundary ``jpeg`` whose lanes, threads and batch are set.

    Raises what a run would where it cannot be loaded, and ``RunError`` for whatever else goes wrong.
    """
    orders = PartsOrders(parts.config, parts.model, rounds, seconds)
    told = follow("sut.studies.breakdown.alone", orders, _WORDS, doing)
    if isinstance(told, Failed):
        raise error_of(told.code, told.message)
    if not isinstance(told, PartsRates):
        raise RunError(f"{doing} failed: its process ended without a word")
    return told.rates


def _go_round(text: str, teller: Teller) -> None:
    orders = from_text(PartsOrders, text)
    parts = assemble(orders.config, progress=teller.step, prepared=orders.prepared)
    with ExitStack() as stack:
        backend = stack.enter_context(parts.load_backend())
        check_unchanged(orders.prepared)
        parts.check_attested(backend.attest())
        turns = _turns(parts, backend, stack, orders.seconds)
        rates: Rates = {}
        for number in range(orders.rounds):
            # There and back again: what slows down in the course of a round slows down none more than another.
            for turn in turns if number % 2 == 0 else reversed(turns):
                for name, rate in turn().items():
                    rates.setdefault(name, []).append(rate)
            teller.step(number + 1, orders.rounds)
        teller.tell(PartsRates(rates))


def _turns(
    parts: Assembly, backend: Loaded, stack: ExitStack, seconds: float
) -> Sequence[Callable[[], dict[str, float]]]:
    """What has its turn in each round."""

    def loop(boundary: str, lanes: int | None = None) -> Loop:
        config = parts.config
        changes = {"boundary": boundary, "lanes": lanes or config.lanes, "preprocess_workers": 0}
        return Loop(replace(parts, config=config.model_copy(update=changes)), backend, stack)

    whole, inference = loop("jpeg"), loop("tensor")
    workers = parts.config.preprocess_workers
    fills = (loop("jpeg", workers) if workers else whole).fills()
    infers, size = inference.steps(), whole.largest_batch

    on_device = is_on_device(parts)

    def alone(
        name: str, steps: Sequence[Callable[[], object]], shared: bool = on_device
    ) -> Callable[[], dict[str, float]]:
        for step in steps:  # one after another: what the first batch makes is not made by all lanes at once
            step()
        return lambda: {name: size * per_second(busy(steps, seconds), shared)}

    def beside() -> dict[str, float]:
        spans = busy([*fills, *infers], seconds)
        filling, inferring = spans[: len(fills)], spans[len(fills) :]
        return {
            PREPROCESS_BESIDE: size * per_second(filling, shared=False),
            INFER_BESIDE: size * per_second(inferring, on_device),
        }

    turns = [alone(PREPROCESS, fills, shared=False), alone(INFER, infers), alone(IN_TURN, whole.steps())]
    if any(place.startswith("cuda:") for place in backend.places):
        turns.append(alone(INFER_ON_DEVICE, loop("device").steps()))
    return [*turns, beside]


def is_on_device(parts: Assembly) -> bool:
    """Whether inference takes no core, so that lanes share the device instead: a GPU, or one that only passes time."""
    return parts.model is None or parts.config.device != "cpu"


def per_second(spans: Sequence[Span], shared: bool) -> float:
    """How often all threads together did it in a second.

    ``shared``: they take turns at a device. Then it did all of it in the time of all spans; a first batch that finds it
    idle would make its thread look faster than the device is.
    """
    if not shared:
        return math.fsum(span.per_second for span in spans)
    took_ns = max(span.end_ns for span in spans) - min(span.begin_ns for span in spans)
    return 1e9 * sum(len(span.taken_ns) for span in spans) / took_ns


if __name__ == "__main__":
    carry_out(_go_round)
