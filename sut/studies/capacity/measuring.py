"""Times batches and preprocessing as a system does them, alone and all at once, in a process of its own.

``python -m sut.studies.capacity.measuring`` loads the system once for each number of lanes, as a run does. All that is
timed is gone through in rounds, so that each round is a measurement by itself, and what the machine does meanwhile
shows as the difference between them.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from preprocess.base import unmarked
from sut.config import RunConfig
from sut.errors import RunError, error_of
from sut.models.preparation import Prepared, check_unchanged
from sut.pipeline.assembly import Assembly, assemble
from sut.pipeline.lane import Lane, lane_stages
from sut.pipeline.system import SUT
from sut.process.child import follow
from sut.process.messages import Failed, Step, from_text, vocabulary
from sut.process.telling import Teller, carry_out
from sut.qsl.library import Rows
from sut.results.quiet import look
from sut.run.timing import threads_of
from sut.run.trial import is_undisturbed
from sut.text import Progress

ROUNDS = 5
_PICTURES = 64
"""Pictures that are gone round, at the most: enough that a batch is not the one before."""
_MOST_TIMES = 200
"""Of one window that are told: enough for how times vary, and few enough to be told in a line."""

Doing = Literal["fused", "alone", "lanes", "workers", "both"]
"""What is at work in a window: all lanes with all that is timed; one of them alone; all lanes on samples that workers
would have made ready; workers alone; workers, and all lanes on ready samples."""


@dataclass(frozen=True, slots=True)
class Window:
    """One window of measuring. ``batch_ns`` are what batches of ``batch`` took in lanes, ``picture_ns`` what pictures
    took in workers, each by itself; empty where nobody did that. ``lanes`` and ``workers`` are how many there were.
    """

    doing: Doing
    lanes: int
    workers: int
    batch: int
    round: int
    batch_ns: tuple[int, ...] = ()
    picture_ns: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Orders:
    """What to measure: how many lanes and workers, batches up to ``max_batch``, in about ``seconds``.

    ``bound_ns``: batches that take longer are of no use, and left out.
    """

    config: RunConfig
    prepared: Prepared | None
    lanes: tuple[int, ...]
    workers: tuple[int, ...]
    max_batch: int
    bound_ns: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Timed:
    """What was measured. ``stages_ns`` are what each stage took a picture with all lanes busy; ``picture_bytes`` is the
    mean of the data set's files, None where none is read inside the clock; ``tensor_bytes`` is what one is for the
    model; ``threads`` are those of each lane, by the number of lanes; ``quiet``: whether the machine had no other work,
    None where that is not known.
    """

    windows: tuple[Window, ...]
    stages_ns: dict[str, int]
    picture_bytes: int | None
    tensor_bytes: int
    threads: dict[int, int]
    quiet: bool | None
    event: Literal["timed"] = "timed"


_WORDS = vocabulary(Step | Failed | Timed)


def measure(parts: Assembly, orders: Orders, progress: Progress) -> Timed:
    """Measure ``parts`` as ``orders`` say. Raises what a run would, and ``RunError`` for whatever else goes wrong."""
    told = follow("sut.studies.capacity.measuring", orders, _WORDS, f"measuring {parts.spec.name}", progress)
    if isinstance(told, Failed):
        raise error_of(told.code, told.message)
    if not isinstance(told, Timed):
        raise RunError("measuring failed: its process ended without a word")
    return told


def _carry_out(text: str, teller: Teller) -> None:
    orders, began = from_text(Orders, text), look(os.getppid())
    windows: list[Window] = []
    stages: dict[str, int] = {}
    threads: dict[int, int] = {}
    total = len(orders.lanes) * ROUNDS
    for lanes in orders.lanes:
        more = {"lanes": lanes, "max_batchsize": orders.max_batch, "preprocess_workers": 0}
        config = orders.config.model_copy(update=more)
        parts = replace(assemble(config, progress=teller.step, prepared=orders.prepared), config=config)
        with SUT(config, assembly=parts, performance_samples=_PICTURES) as system:
            check_unchanged(orders.prepared)
            system.library.load(range(min(_PICTURES, system.library.count)))
            bench = _Bench(system, orders, is_first=not windows)
            for number in range(ROUNDS):
                windows += bench.round(number)
                teller.step(len(threads) * ROUNDS + number + 1, total)
            bench.close()
            threads[lanes] = system.config.threads_per_lane
            stages = stages or bench.stages_ns()
            tensor_bytes, picture_bytes = bench.tensor_bytes, bench.picture_bytes
    teller.tell(Timed(tuple(windows), stages, picture_bytes, tensor_bytes, threads, is_undisturbed(began)))


class _Bench:
    """What is timed of one loaded system: a list of cells, gone through once a round."""

    def __init__(self, system: SUT, orders: Orders, is_first: bool) -> None:
        self._system, self._bound_ns = system, orders.bound_ns
        self._indices = range(min(_PICTURES, system.library.count))
        self._on_device = system.parts.model is None or system.config.device != "cpu"
        self._spent: dict[str, int] = {}
        self._pictures = 0
        recipe = system.parts.spec.recipe
        self._ready = np.zeros((system.policy.max_batch, *recipe.sample_shape), recipe.dtype)
        self.tensor_bytes = self._ready.nbytes // len(self._ready)
        files = [system.parts.dataset.read(index) for index in self._indices] if self._times_preprocessing else []
        self.picture_bytes = sum(map(len, files)) // len(files) if files else None
        self._sizes = self._sizes_in_time()
        self._cells = self._what_is_timed(orders.workers if self._times_preprocessing else (), is_first)
        self._window_s = orders.seconds / (len(orders.lanes) * ROUNDS * len(self._cells))
        self._workers = [system.library.source() for _ in range(max(orders.workers, default=0))]
        self._filler = system.library.source()
        self._ending = ExitStack()
        self._pools = self._ending.enter_context(threads_of(system.lanes))
        self._pool_of_workers = self._ending.enter_context(ThreadPoolExecutor(max(1, len(self._workers))))

    def close(self) -> None:
        """End its threads, give back what its sources hold."""
        self._ending.close()
        for source in (*self._workers, self._filler):
            source.close()

    @property
    def _times_preprocessing(self) -> bool:
        return self._system.config.times_preprocessing and bool(self._system.backend.inputs)

    def _sizes_in_time(self) -> list[int]:
        """The batch sizes that are of use, after each lane has run each: the smallest, and what is within the bound."""
        policy, lanes = self._system.policy, self._system.lanes
        doubled = (2**n for n in range(policy.max_batch.bit_length()))
        kept: list[int] = []
        for size in policy.sizes or sorted({*doubled, policy.max_batch}):
            for lane in lanes:
                lane.rehearse(self._some(size))
            begin = time.perf_counter_ns()
            lanes[0].rehearse(self._some(size))
            if kept and time.perf_counter_ns() - begin > self._bound_ns:
                break
            kept.append(size)
        return kept

    def _what_is_timed(self, workers: Sequence[int], is_first: bool) -> list[tuple[Doing, int, int]]:
        """What is at work, how many workers, and the batch; workers alone do not depend on the lanes."""
        cells: list[tuple[Doing, int, int]] = [("fused", 0, size) for size in self._sizes]
        if len(self._system.lanes) > 1:
            cells += [("alone", 0, size) for size in self._sizes]
        if workers:
            cells += [("lanes", 0, size) for size in self._sizes]
            cells += [("workers", count, 0) for count in workers if is_first]
            cells += [("both", count, self._sizes[-1]) for count in workers]
        return cells

    def round(self, number: int) -> list[Window]:
        """Each cell once."""
        return [self._window(*cell, number) for cell in self._cells]

    def stages_ns(self) -> dict[str, int]:
        """What each stage took a picture, while all lanes were busy."""
        return {name: spent // self._pictures for name, spent in self._spent.items()}

    def _window(self, doing: Doing, workers: int, size: int, number: int) -> Window:
        work = self._answer if doing in ("lanes", "both") else self._work
        pools = [] if doing == "workers" else self._pools[:1] if doing == "alone" else self._pools
        of_lanes = [(pool, work(lane, size)) for lane, pool in pools]
        of_workers = [(self._pool_of_workers, self._prepare(each)) for each in range(workers)]
        end_ns = time.perf_counter_ns() + int(1e9 * self._window_s)
        begun = [[pool.submit(_again, step, end_ns) for pool, step in those] for those in (of_lanes, of_workers)]
        in_lanes, in_workers = ([each.result() for each in those] for those in begun)
        if in_lanes and self._on_device:
            in_lanes = as_shared(in_lanes)
        batches, pictures = (
            tuple(took for each in those for took in _thinned(each, len(those))) for those in (in_lanes, in_workers)
        )
        return Window(doing, len(self._pools), workers, size, number, batches, pictures)

    def _some(self, size: int, at: int = 0) -> list[int]:
        return [self._indices[(at + n) % len(self._indices)] for n in range(size)]

    def _work(self, lane: Lane, size: int) -> Callable[[int], object]:
        """All that is timed of a batch, in a lane; its stages are added up of the first lane."""

        def step(at: int) -> None:
            _, stamps = lane.work(self._some(size, at * size))
            if lane.number == 0:
                system = self._system
                names = (*system.library.stages, *lane_stages(system.backend.transfers, system.task.stages))
                for name, begin, end in zip(names, stamps[::2], stamps[1::2], strict=False):
                    self._spent[name] = self._spent.get(name, 0) + end - begin
                self._pictures += size

        return step

    def _answer(self, lane: Lane, size: int) -> Callable[[int], object]:
        """What a lane does with samples that workers have made ready: copy, infer, decode."""
        indices = self._some(size)
        slot = lane.slot(size)
        geometries = self._filler.fill(indices, slot, unmarked)

        def step(at: int) -> None:
            slot = lane.slot(size)
            [buffer] = slot.buffers.values()
            np.copyto(buffer[:size], self._ready[:size])
            lane.answer(slot, indices, geometries, [])

        return step

    def _prepare(self, worker: int) -> Callable[[int], object]:
        """What a worker does with one picture."""
        target = Rows.of(np.zeros((1, *self._ready.shape[1:]), self._ready.dtype))
        source = self._workers[worker]
        return lambda at: source.fill(self._some(1, worker + at), target, unmarked)


def as_shared(taken: Sequence[Sequence[int]]) -> list[list[int]]:
    """What batches took in each of the lanes of a device, as if none had found it idle.

    The first batch of a window does, and of the last ones some; where a window has few, all would seem faster than the
    device is. It made all of them in what the longest lane took, so that much time each lane is made to have taken.

    >>> as_shared([[50], [100]]), as_shared([[50, 50], [50, 50]])
    ([[67], [133]], [[50, 50], [50, 50]])
    """
    spans = [sum(each) for each in taken]
    factor = max(spans) * len(spans) / sum(spans)
    return [[round(factor * took) for took in each] for each in taken]


def _again(step: Callable[[int], object], end_ns: int) -> list[int]:
    """What a step took each time, in ns, until then and once at least."""
    taken: list[int] = []
    begin = time.perf_counter_ns()
    while begin < end_ns or not taken:
        step(len(taken))
        now = time.perf_counter_ns()
        taken.append(now - begin)
        begin = now
    return taken


def _thinned(taken: list[int], sharers: int) -> list[int]:
    """As many of them as can be told, evenly out of all."""
    return taken[:: max(1, len(taken) * sharers // _MOST_TIMES)]


if __name__ == "__main__":
    carry_out(_carry_out)
