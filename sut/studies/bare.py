"""The same work without LoadGen, batching, ledger and console: what is left is the harness's cost.

A process of its own (``python -m sut.studies.bare``) loads the model as a run does, in as many lanes with as many
threads, and lets each lane go round its own loop: at the boundary ``tensor`` over ready tensors, at ``pixels`` and
``jpeg`` with the preprocessor in the loop. Answers are not decoded. Server has no such loop: there it is who asks that
sets the pace.
"""

from __future__ import annotations

import itertools
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
from pydantic import TypeAdapter

from backends.base import Loaded, Runner, Slot
from kernels.device import HOST_PLACES
from kernels.gpu import open_device
from preprocess.base import Preprocessor, unmarked
from preprocess.parts.decode import decode
from sut.config import RunConfig
from sut.errors import RunError, error_of
from sut.models.preparation import Prepared, check_unchanged
from sut.pipeline.assembly import Assembly, assemble
from sut.pipeline.batching import BatchingPolicy
from sut.process.child import follow
from sut.process.messages import Failed, Step, from_text, vocabulary
from sut.process.telling import Teller, carry_out
from sut.qsl.device_library import preprocess_to
from sut.qsl.library import Rows

_WARM_S = 0.5
_PICTURES = 64
"""Pictures that the loop goes round, at the most: enough that a batch is not the one before."""


@dataclass(frozen=True, slots=True)
class LoopOrders:
    """What the loop goes round, and for how long."""

    config: RunConfig
    prepared: Prepared | None
    samples_per_query: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Bare:
    """What the loop came to: in ``Offline`` the rate of all lanes, elsewhere queries one after another.

    ``first_s`` is what the second batch of one sample took, before anything was warm but the model.
    """

    first_s: float
    samples_per_second: float | None = None
    p50_ns: int | None = None
    p99_ns: int | None = None
    cpu_seconds_per_sample: float | None = None
    event: Literal["bare"] = "bare"


_WORDS: TypeAdapter[Step | Failed | Bare] = vocabulary(Step | Failed | Bare)


def has_loop(config: RunConfig) -> bool:
    """Whether there is a bare loop that does a run's work."""
    # The loop answers with the first model alone: of two the rest would count as the harness's cost.
    return (
        config.scenario != "Server"
        and not config.preprocess_workers
        and config.identify is None
        and config.serve == "none"
    )


def run_bare(
    parts: Assembly, samples_per_query: int, seconds: float, doing: str, silence_s: float | None = None
) -> Bare:
    """The loop of ``parts`` for so many seconds; 0: load the model and answer one sample twice.

    Raises ``InputError`` or ``SetupError`` where a run would, and ``RunError`` for whatever else goes wrong.
    """
    orders = LoopOrders(parts.config, parts.model, samples_per_query, seconds)
    told = follow("sut.studies.bare", orders, _WORDS, doing, silence_s=silence_s)
    if isinstance(told, Failed):
        raise error_of(told.code, told.message)
    if not isinstance(told, Bare):
        raise RunError(f"{doing} failed: its process ended without a word")
    return told


def _go_round(text: str, teller: Teller) -> None:
    orders = from_text(LoopOrders, text)
    parts = assemble(orders.config, progress=teller.step, prepared=orders.prepared)
    with ExitStack() as stack:
        backend = stack.enter_context(parts.load_backend())
        check_unchanged(orders.prepared)
        parts.check_attested(backend.attest())
        teller.tell(Loop(parts, backend, stack).measured(orders.samples_per_query, orders.seconds))


class Loop:
    """The lanes of a loaded backend, and the pictures that they go round."""

    def __init__(self, parts: Assembly, backend: Loaded, stack: ExitStack) -> None:
        config = parts.config
        self._parts, self._backend, self._config = parts, backend, config
        sizes, lanes = backend.batch_sizes, config.lanes or 1
        self._policy = BatchingPolicy.of(config.scenario, config.max_batchsize or 1, 0, sizes, lanes)
        self._lanes = 1 if config.scenario == "SingleStream" else lanes
        place = parts.place_for(backend)
        self._runners = [stack.enter_context(backend.runner(place)) for _ in range(self._lanes)]
        self._preprocessors = [
            stack.enter_context(parts.preprocessor_for(parts.spec.recipe, lane))
            for lane in range(self._lanes if backend.inputs else 0)
        ]
        self._files = [parts.dataset.read(index) for index in range(min(_PICTURES, parts.dataset.count))]

    def measured(self, samples_per_query: int, seconds: float) -> Bare:
        """What the loop comes to."""
        once = self._step(0, 1)
        once()
        begin = time.monotonic()
        once()
        first_s = time.monotonic() - begin
        if not seconds:
            return Bare(first_s)
        if self._config.scenario == "Offline":
            return self._offline(first_s, seconds)
        samples = samples_per_query if self._config.scenario == "MultiStream" else 1
        return self._queries(first_s, samples, seconds)

    def _offline(self, first_s: float, seconds: float) -> Bare:
        size, steps = self.largest_batch, self.steps()
        _all(steps)
        cpu = time.process_time()
        spans = busy(steps, seconds)
        cpu = time.process_time() - cpu
        rate = size * sum(span.per_second for span in spans)
        batches = [value for span in spans for value in span.taken_ns]
        begin, end = min(span.begin_ns for span in spans), max(span.end_ns for span in spans)
        # Warming up is the same work: the whole time's CPU over the whole time's samples.
        samples = rate * (end - begin) / 1e9 + rate * _WARM_S
        return Bare(first_s, rate, *_p50_and_p99(batches), cpu / samples)

    @property
    def largest_batch(self) -> int:
        """Samples in a batch at most."""
        return self._policy.max_batch

    def steps(self) -> list[Callable[[], object]]:
        """What answers a full batch, on each lane."""
        return [self._step(lane, self.largest_batch) for lane in range(self._lanes)]

    def fills(self) -> list[Callable[[], object]]:
        """What preprocesses a full batch from JPEG into the slot of each lane, and goes no farther."""
        return [self._fill(lane, self.largest_batch) for lane in range(self._lanes)]

    def _queries(self, first_s: float, samples: int, seconds: float) -> Bare:
        shares = [[self._step(lane, size) for size in own] for lane, own in enumerate(self._sizes(samples))]
        with ThreadPoolExecutor(max(1, len(shares) - 1)) as pool:

            def query() -> None:
                others = [pool.submit(_all, share) for share in shares[1:]]
                _all(shares[0])
                for other in others:
                    other.result()

            _round(query, _WARM_S)
            cpu = time.process_time()
            begin = time.monotonic_ns()
            taken = _round(query, seconds)
            took = time.monotonic_ns() - begin
            cpu = time.process_time() - cpu
        count = samples * len(taken)
        return Bare(first_s, count / took * 1e9, *_p50_and_p99(taken), cpu / count)

    def _sizes(self, samples: int) -> list[list[int]]:
        """The batch sizes of each lane that has any, for a query of so many samples."""
        batches, at = [], 0
        while at < samples:
            batches.append(self._policy.share(samples, at))
            at += batches[-1]
        return [batches[lane :: self._lanes] for lane in range(min(self._lanes, len(batches)))]

    def _step(self, lane: int, size: int) -> Callable[[], object]:
        """What answers a batch of ``size`` on a lane."""
        runner, padded = self._runners[lane], self._policy.padded(size)
        if not self._preprocessors:
            slot = runner.slot(padded)
            return lambda: runner.infer(slot)
        if not self._config.times_preprocessing:
            return self._over_tensors(runner, self._preprocessors[lane], size, padded)
        fill = self._fill(lane, size)
        return lambda: runner.infer(fill())

    def _fill(self, lane: int, size: int) -> Callable[[], Slot]:
        """What preprocesses a batch of ``size`` into a lane's slot."""
        runner, padded, preprocessor = self._runners[lane], self._policy.padded(size), self._preprocessors[lane]
        decoded = self._config.boundary == "pixels"
        held: Sequence[Any] = [decode(file) for file in self._files] if decoded else self._files
        run = preprocessor.run_pixels if decoded else preprocessor.run
        batches = _turns(held, size)

        def fill() -> Slot:
            slot = runner.slot(padded)
            run(next(batches), slot, unmarked)
            return slot

        return fill

    def _over_tensors(self, runner: Runner, preprocessor: Preprocessor, size: int, padded: int) -> Callable[[], object]:
        """Over batches that lie ready where the backend reads any array; else over the one in its own slot."""
        if self._config.boundary == "device" or not self._backend.reads_host_arrays:
            slot, encoded = runner.slot(padded), next(_turns(self._files, size))
            if slot.place in HOST_PLACES:
                preprocessor.run(encoded, slot, unmarked)
            else:
                with open_device(slot.place, with_kernels=False) as gpu:
                    preprocess_to(preprocessor, encoded, slot, partial(gpu.write, stream=None))
            return lambda: runner.infer(slot)
        recipe, turns = self._parts.spec.recipe, _turns(self._files, size)
        name = self._backend.inputs[0].name
        ready = []
        for _ in range(4):
            rows = np.zeros((padded, *recipe.sample_shape), recipe.dtype)
            preprocessor.run(next(turns), Rows.of(rows), unmarked)
            ready.append(Slot(padded, {name: rows}))
        slots = itertools.cycle(ready)
        return lambda: runner.infer(next(slots))


def _turns(held: Sequence[Any], size: int) -> Iterator[list[Any]]:
    """Batches of ``size`` out of what is held, round and round."""
    endless = itertools.cycle(held)
    while True:
        yield list(itertools.islice(endless, size))


def _all(steps: Sequence[Callable[[], object]]) -> None:
    for step in steps:
        step()


@dataclass(frozen=True, slots=True)
class Span:
    """What a thread did over and over: how long each time took, and when it all began and ended, in ns."""

    taken_ns: list[int]
    begin_ns: int
    end_ns: int

    @property
    def per_second(self) -> float:
        """How often it was done in a second."""
        return 1e9 * len(self.taken_ns) / (self.end_ns - self.begin_ns)


def busy(steps: Sequence[Callable[[], object]], seconds: float) -> list[Span]:
    """All steps at the same time, each over and over in a thread of its own for so many seconds, warm before that."""
    warm = threading.Barrier(len(steps))

    def go(step: Callable[[], object]) -> Span:
        _round(step, _WARM_S)
        warm.wait()
        begin = time.monotonic_ns()
        return Span(_round(step, seconds), begin, time.monotonic_ns())

    with ThreadPoolExecutor(len(steps)) as pool:
        return list(pool.map(go, steps))


def _round(step: Callable[[], object], seconds: float) -> list[int]:
    """What each step took, in ns, for so many seconds and once at least."""
    clock = time.monotonic_ns
    taken: list[int] = []
    begin = clock()
    end = begin + int(seconds * 1e9)
    while begin < end or not taken:
        step()
        now = clock()
        taken.append(now - begin)
        begin = now
    return taken


def _p50_and_p99(taken: Sequence[int]) -> tuple[int, int]:
    ordered = sorted(taken)
    return int(statistics.median(ordered)), ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))]


if __name__ == "__main__":
    carry_out(_go_round)
