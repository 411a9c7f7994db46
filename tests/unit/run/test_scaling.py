"""Scaling by a virtual clock: what is planted is found within 2 %, on any machine."""

from __future__ import annotations

import itertools
import random
import threading
from collections.abc import Callable, Collection, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from sut.pipeline.batching import BatchingPolicy
from sut.pipeline.devices import Unit
from sut.run import scaling as scaling_module
from sut.run import timing
from sut.run.scaling import batches_per_second, scaling
from sut.run.timing import Pools

BATCH = 4


class Machine:
    """A clock for all threads: it goes on when each lane waits for a batch to end, to where the first of them does."""

    def __init__(self) -> None:
        self.now, self._lanes = 0.0, 0
        self._ends: dict[Lane, float] = {}
        self._changed = threading.Condition()

    def perf_counter(self) -> float:
        return self.now

    def perf_counter_ns(self) -> int:
        return round(1e9 * self.now)

    def at_once(self, pools: Pools, work: Callable[[Any], None]) -> list[None]:
        """As ``at_once``, with a word of each lane that has ended."""
        self._lanes = len(pools)

        def whole(lane: Any) -> None:
            work(lane)
            with self._changed:
                self._lanes -= 1
                self._go_on()

        return timing.at_once(pools, whole)

    def wait(self, lane: Lane, end: float) -> None:
        with self._changed:
            self._ends[lane] = end
            self._go_on()
            assert self._changed.wait_for(lambda: lane not in self._ends, timeout=60)

    def _go_on(self) -> None:
        if self._ends and len(self._ends) == self._lanes:
            first = min(self._ends, key=lambda lane: (self._ends[lane], lane.number))
            self.now = self._ends.pop(first)
            self._changed.notify_all()


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine()
    for module in (scaling_module, timing):
        monkeypatch.setattr(module, "time", made)
    monkeypatch.setattr(scaling_module, "at_once", made.at_once)
    return made


class Lane:
    """One that takes so long for a batch, give or take 1 %; ``queue`` is when its device is free, where all wait."""

    def __init__(self, machine: Machine, number: int, seconds: float, queue: list[float] | None) -> None:
        self.number, self.batches, self._machine, self._seconds, self._queue = number, 0, machine, seconds, queue
        self._noise = random.Random(number)

    def rehearse(self, indices: Sequence[int]) -> list[bytes]:
        begin = self._machine.now if self._queue is None else max(self._machine.now, self._queue[0])
        end = begin + self._seconds * self._noise.uniform(0.99, 1.01)
        if self._queue is not None:
            self._queue[0] = end
        self._machine.wait(self, end)
        self.batches += 1
        return [b""] * len(indices)


class System:
    """Lanes on devices in turn; ``preprocessed``: the samples per second that workers feed them with, if they do.

    A device whose lanes ``queue`` does one batch at a time.
    """

    config = SimpleNamespace(scenario="Offline")
    policy = BatchingPolicy(False, BATCH)

    def __init__(
        self,
        machine: Machine,
        devices: int,
        seconds: Sequence[float],
        preprocessed: float | None = None,
        queue: bool = False,
    ) -> None:
        queues = [[0.0] for _ in range(devices)]
        self.lanes = [
            Lane(machine, number, each, queues[number % devices] if queue else None)
            for number, each in enumerate(seconds)
        ]
        self.parts = SimpleNamespace(units=[Unit(f"sim:{number}") for number in range(devices)])
        self.staged = preprocessed is not None
        self._machine, self._rates, self._preprocessed = machine, [BATCH / each for each in seconds], preprocessed
        self._resting: Collection[int] = ()
        self._noise = random.Random(7)

    def rest(self, lanes: Collection[int]) -> None:
        self._resting = lanes

    def ask(self, indices: Sequence[int]) -> None:
        """Half a second until the first are there, then as fast as what is slower: workers, or the lanes that work."""
        lanes = sum(rate for number, rate in enumerate(self._rates) if number not in self._resting)
        rate = min(lanes, self._preprocessed or lanes)
        self._machine.now += 0.5 + len(indices) / rate * self._noise.uniform(0.999, 1.001)


@pytest.mark.parametrize("budget_s", [0.0, 10.0])
@pytest.mark.parametrize(
    ("devices", "seconds", "more", "one", "together"),
    [
        (4, [0.1] * 4, {}, 40.0, 160.0),
        (2, [0.1] * 6, {}, 120.0, 240.0),  # three lanes on each, side by side
        (2, [0.1] * 3, {}, 80.0, 120.0),
        (2, [0.1] * 6, {"queue": True}, 40.0, 80.0),
        (2, [0.1] * 3, {"queue": True}, 40.0, 80.0),
        (2, [0.1, 0.2], {}, 40.0, 60.0),  # the second is half as fast
        (4, [0.1] * 4, {"preprocessed": 1000.0}, 40.0, 160.0),
        (4, [0.1] * 4, {"preprocessed": 80.0}, 40.0, 80.0),  # what all lanes share is enough for two
        (2, [0.1] * 2, {"preprocessed": 30.0}, 30.0, 30.0),
    ],
)
def test_what_is_planted_is_found_within_2_percent(
    machine: Machine,
    budget_s: float,
    devices: int,
    seconds: list[float],
    more: dict[str, Any],
    one: float,
    together: float,
) -> None:
    system: Any = System(machine, devices, seconds, **more)
    beats = itertools.count()

    found = scaling(system, range(3), 1, budget_s, lambda: next(beats) and None)

    assert found is not None and found.units == [f"sim:{number}" for number in range(devices)]
    assert found.one_samples_per_second == pytest.approx(one, rel=0.02)
    assert found.all_samples_per_second == pytest.approx(together, rel=0.02)
    assert found.efficiency == pytest.approx(together / (devices * one), rel=0.02)
    assert next(beats) >= 6, "the supervisor hears of it"


def test_a_window_lasts_as_long_as_it_may(machine: Machine) -> None:
    """A twentieth of the budget for each side of a pair."""
    system: Any = System(machine, 2, [0.01] * 2)

    scaling(system, range(3), 1, 10.0, lambda: None)

    assert system.lanes[0].batches >= 2 * 10 * 0.5 / 0.0101


@pytest.mark.parametrize(
    ("pairs", "efficiency"),
    [
        ([(10, 20), (20, 60), (40, 60)], 1.0),  # 1, 1.5 and 0.75; of the medians it would be 1.5
        ([(10, 20), (None, 60), (20, 60), (20, None), (40, 60)], 1.0),  # what was spoiled is tried again
        ([(10, 20), (40, 60), *[(None, 60)] * 7], None),  # but not for ever
    ],
)
def test_the_efficiency_is_the_median_of_pairs(
    machine: Machine,
    monkeypatch: pytest.MonkeyPatch,
    pairs: list[tuple[float | None, float | None]],
    efficiency: float | None,
) -> None:
    rates = iter(itertools.chain.from_iterable(pairs))
    monkeypatch.setattr(scaling_module, "_busy_rate", lambda *_: next(rates))

    found = scaling(System(machine, 2, [0.1] * 2), range(3), 1, 0.0, lambda: None)  # type: ignore[arg-type]

    assert (found and found.efficiency) == efficiency
    assert next(rates, None) is None


@pytest.mark.parametrize(
    "ends",
    [
        [[1, 2, 3]],
        [[1, 3, 5, 7], [2, 4, 6]],  # in turns
        [[2, 4, 6, 8], [2, 4, 6]],  # side by side
        [[3, 6, 9], [3, 6, 9], [3, 6]],
        [[1, 4, 7, 10, 13], [2, 5, 8, 11], [3, 6, 9, 12]],
        [[1, 2, 3, 6, 7, 9], [4, 5, 8]],  # one of them again and again before the other
        [[1, 2, 5, 6], [3, 8, 9], [4, 7, 10]],
    ],
)
def test_lanes_of_a_device_are_as_fast_as_it_is(ends: list[list[int]]) -> None:
    """A batch every 0.1 s, by whichever of them."""
    device = [[10**8 * end for end in each] for each in ends]

    assert batches_per_second([device]) == pytest.approx(10.0)
    assert batches_per_second([device, device]) == pytest.approx(20.0)


def test_a_slow_device_is_timed_by_its_own_batches() -> None:
    """A batch every 0.1 s on one, every 0.3 s on the other."""
    ends = [range(1, 12), range(3, 16, 3)]

    assert batches_per_second([[[10**8 * end for end in lane]] for lane in ends]) == pytest.approx(10 + 10 / 3)


@pytest.mark.parametrize(("long_s", "known"), [(0.99, False), (1.19, False), (1.21, True), (1.5, True)])
def test_a_busy_machine_leaves_no_rate_that_nothing_has(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, long_s: float, known: bool
) -> None:
    """Twice as much work that takes hardly longer, or less long."""
    system: Any = System(machine, 2, [0.1] * 2, 40.0)
    asked = itertools.count()

    def ask(indices: Sequence[int]) -> None:
        machine.now += long_s if next(asked) % 2 else 1.0

    monkeypatch.setattr(system, "ask", ask)

    found = scaling(system, range(3), 1, 10.0, lambda: None)

    assert (found is not None) is known
    if found is not None:
        assert found.all_samples_per_second == pytest.approx(2 * BATCH * 4 / (long_s - 1))


def test_workers_are_given_enough_to_last_a_window(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    system: Any = System(machine, 2, [0.1] * 2, None)
    asked: list[int] = []

    def ask(indices: Sequence[int]) -> None:
        asked.append(len(indices))
        machine.now += len(indices) / 1000

    monkeypatch.setattr(system, "ask", ask)
    monkeypatch.setattr(system, "staged", True)

    found = scaling(system, range(3), 1, 10.0, lambda: None)

    assert found is not None and found.all_samples_per_second == pytest.approx(1000)
    assert asked[:7] == [16, 32, 64, 128, 256, 512, 32]
