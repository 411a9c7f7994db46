"""Scaling by a virtual clock: what is planted is found within 2 %, on any machine."""

from __future__ import annotations

import itertools
import random
import threading
from collections.abc import Collection, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from sut.pipeline.batching import BatchingPolicy
from sut.pipeline.devices import Unit
from sut.run import scaling as scaling_module
from sut.run import timing
from sut.run.scaling import batches_per_second, scaling

BATCH = 4


class Clock(threading.local):
    """The seconds of each thread, which begin with it: they go by with the work that it does."""

    now = 0.0

    def perf_counter(self) -> float:
        return self.now

    def perf_counter_ns(self) -> int:
        return round(1e9 * self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    virtual = Clock()
    for module in (scaling_module, timing):
        monkeypatch.setattr(module, "time", virtual)
    return virtual


class Lane:
    """One on a device that takes so long for a batch, give or take 1 %."""

    def __init__(self, clock: Clock, number: int, seconds: float) -> None:
        self.number, self._clock, self._seconds = number, clock, seconds
        self._noise = random.Random(number)

    def rehearse(self, indices: Sequence[int]) -> list[bytes]:
        self._clock.now += self._seconds * self._noise.uniform(0.99, 1.01)
        return [b""] * len(indices)


class System:
    """Lanes on devices in turn; ``preprocessed``: the samples per second that workers feed them with, if they do."""

    config = SimpleNamespace(scenario="Offline")
    policy = BatchingPolicy(False, BATCH)

    def __init__(self, clock: Clock, devices: int, seconds: Sequence[float], preprocessed: float | None) -> None:
        self.lanes = [Lane(clock, number, each) for number, each in enumerate(seconds)]
        self.parts = SimpleNamespace(units=[Unit(f"sim:{number}") for number in range(devices)])
        self.staged = preprocessed is not None
        self._clock, self._rates, self._preprocessed = clock, [BATCH / each for each in seconds], preprocessed
        self._resting: Collection[int] = ()
        self._noise = random.Random(7)

    def rest(self, lanes: Collection[int]) -> None:
        self._resting = lanes

    def ask(self, indices: Sequence[int]) -> None:
        """Half a second until the first are there, then as fast as what is slower: workers, or the lanes that work."""
        lanes = sum(rate for number, rate in enumerate(self._rates) if number not in self._resting)
        rate = min(lanes, self._preprocessed or lanes)
        self._clock.now += 0.5 + len(indices) / rate * self._noise.uniform(0.999, 1.001)


@pytest.mark.parametrize("budget_s", [0.0, 10.0])
@pytest.mark.parametrize(
    ("devices", "seconds", "preprocessed", "one", "together"),
    [
        (4, [0.1] * 4, None, 40.0, 160.0),
        (2, [0.1, 0.2], None, 40.0, 60.0),  # the second is half as fast
        (4, [0.1] * 4, 1000.0, 40.0, 160.0),
        (4, [0.1] * 4, 80.0, 40.0, 80.0),  # what all lanes share is enough for two
        (2, [0.1] * 2, 30.0, 30.0, 30.0),
    ],
)
def test_what_is_planted_is_found_within_2_percent(
    clock: Clock,
    budget_s: float,
    devices: int,
    seconds: list[float],
    preprocessed: float | None,
    one: float,
    together: float,
) -> None:
    system: Any = System(clock, devices, seconds, preprocessed)
    beats = itertools.count()

    found = scaling(system, range(3), 1, budget_s, lambda: next(beats) and None)

    assert found is not None and found.units == [f"sim:{number}" for number in range(devices)]
    assert found.one_samples_per_second == pytest.approx(one, rel=0.02)
    assert found.all_samples_per_second == pytest.approx(together, rel=0.02)
    assert found.efficiency == pytest.approx(together / (devices * one), rel=0.02)
    assert next(beats) >= 6, "the supervisor hears of it"


@pytest.mark.parametrize("lanes", [1, 2, 3])
@pytest.mark.parametrize("at_a_time", [1, "all"])
def test_lanes_of_a_device_are_as_fast_as_it_is(lanes: int, at_a_time: int | str) -> None:
    """By when batches end on a device that lets in one at a time, in whatever order, or all lanes'."""
    together = lanes if at_a_time == "all" else 1
    ends = [10**8 * together * (number // together + 1) for number in range(4 * lanes)]

    assert batches_per_second(ends, lanes) == pytest.approx(10.0)


@pytest.mark.parametrize(("long_s", "known"), [(0.99, False), (1.19, False), (1.5, True)])
def test_a_busy_machine_leaves_no_rate_that_nothing_has(
    clock: Clock, monkeypatch: pytest.MonkeyPatch, long_s: float, known: bool
) -> None:
    """Twice as much work that takes hardly longer, or less long."""
    system: Any = System(clock, 2, [0.1] * 2, 40.0)
    asked = itertools.count()

    def ask(indices: Sequence[int]) -> None:
        clock.now += long_s if next(asked) % 2 else 1.0

    monkeypatch.setattr(system, "ask", ask)

    found = scaling(system, range(3), 1, 10.0, lambda: None)

    assert (found is not None) is known
    if found is not None:
        assert found.all_samples_per_second == pytest.approx(2 * BATCH * 4 / 0.5)


def test_workers_are_given_enough_to_last_a_window(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    system: Any = System(clock, 2, [0.1] * 2, None)
    asked: list[int] = []

    def ask(indices: Sequence[int]) -> None:
        asked.append(len(indices))
        clock.now += len(indices) / 1000

    monkeypatch.setattr(system, "ask", ask)
    monkeypatch.setattr(system, "staged", True)

    found = scaling(system, range(3), 1, 10.0, lambda: None)

    assert found is not None and found.all_samples_per_second == pytest.approx(1000)
    assert asked[:7] == [16, 32, 64, 128, 256, 512, 32]
