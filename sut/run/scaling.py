"""How much more several devices, or core sets, do together than the first of them alone, measured before the run.

By the very work that will be timed, preprocessing included, in short windows by turns: what slows the machine down for
a while slows down both sides of a pair.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from functools import partial

import numpy as np

from sut.pipeline.lane import Lane
from sut.pipeline.system import SUT
from sut.results.schema import Scaling
from sut.run.timing import Beat, at_once, batches_of, sizes_to_warm, some, threads_of, timed

_FEWEST_PAIRS, _MOST_PAIRS = 3, 20
_TRIES = 3 * _FEWEST_PAIRS
"""For so many pairs, where a busy machine spoils some."""
_BATCHES = 3
"""Of each lane in a window, at the least."""
_FED_BATCHES = 4
"""For each lane that workers feed, the first time that they are asked."""
_LONGER = 1.2
"""Twice the work takes twice as long, less what the first samples are on their way. Where it hardly takes longer, the
machine was busy meanwhile."""


def scaling(system: SUT, indices: Sequence[int], samples_per_query: int, budget_s: float, beat: Beat) -> Scaling | None:
    """What one and all come to within about ``budget_s`` seconds, three pairs at the least; every lane is warm.

    None where the machine was too busy to tell. Raises whatever the backend raises.
    """
    units, scenario = system.parts.units, system.config.scenario
    top = max(sizes_to_warm(scenario, system.policy, samples_per_query))
    batch = some(indices, min(top, system.policy.max_batch))
    first = system.lanes[:: len(units)]
    rate = partial(_fed_rate if system.staged else _busy_rate, system, batch, budget_s / _MOST_PAIRS, beat)
    pairs: list[tuple[float, float]] = []
    end, tried = time.perf_counter() + budget_s, 0
    while tried < (_MOST_PAIRS if time.perf_counter() < end else _TRIES if len(pairs) < _FEWEST_PAIRS else 0):
        tried += 1
        alone, together = rate(first), rate(system.lanes)
        if alone is not None and together is not None:
            pairs.append((alone, together))
    if len(pairs) < _FEWEST_PAIRS:
        return None
    one, all_ = (statistics.median(side) for side in zip(*pairs, strict=True))
    return Scaling(
        units=[unit.name for unit in units],
        one_samples_per_second=one,
        all_samples_per_second=all_,
        efficiency=statistics.median(together / (len(units) * alone) for alone, together in pairs),
    )


def _busy_rate(system: SUT, batch: Sequence[int], seconds: float, beat: Beat, lanes: Sequence[Lane]) -> float:
    """Samples per second of lanes that do all the work by themselves, until each has done some batches."""
    ends: dict[int, list[int]] = {lane.number: [] for lane in lanes}

    def of_lane(lane: Lane) -> None:
        until = time.perf_counter() + seconds
        for _ in batches_of(lane, batch, beat):
            ends[lane.number].append(time.perf_counter_ns())
            if time.perf_counter() >= until and min(map(len, ends.values())) >= _BATCHES:
                return

    with threads_of(lanes) as pools:
        at_once(pools, of_lane)
    units = len(system.parts.units)
    devices = {number % units for number in ends}
    return len(batch) * batches_per_second(
        [[each for number, each in ends.items() if number % units == device] for device in devices]
    )


def batches_per_second(ends_ns: Sequence[Sequence[Sequence[int]]]) -> float:
    """What devices came to, by when each batch of each of their lanes ended, two or more of each lane.

    While all lanes were at work: from when the last of them had done its first batch to when the first ended.

    >>> batches_per_second([[[100_000_000, 300_000_000, 500_000_000], [200_000_000, 400_000_000, 600_000_000]]])
    10.0
    """
    every = [lane for device in ends_ns for lane in device]
    between = max(lane[0] for lane in every), min(lane[-1] for lane in every)
    done = sum(_batches(device, between) for device in ends_ns)
    return 1e9 * done / max(1, between[1] - between[0])


def _batches(ends_ns: Sequence[Sequence[int]], between: tuple[int, int]) -> float:
    """How many batches, and parts of one, a device's lanes did between two times.

    A batch is done evenly over the least time between two of a lane, up to its end. What is longer it waited before:
    a device that does one at a time need not take its lanes by turns, and who waits does nothing.
    """
    least = min(int(np.diff(lane).min()) for lane in ends_ns)
    done = 0.0
    for lane in ends_ns:
        times = np.repeat(lane, 2)[1:]
        times[1::2] -= least  # the first's end, then begin and end of each
        before, after = np.interp(between, times, np.arange(len(times)) // 2)
        done += float(after - before)
    return done


def _fed_rate(system: SUT, batch: Sequence[int], seconds: float, beat: Beat, lanes: Sequence[Lane]) -> float | None:
    """Samples per second of lanes that workers feed, while the others rest; None where it cannot be told.

    By how much longer twice as many samples take: that leaves out how long the first are on their way.
    """
    few = some(batch, _FED_BATCHES * len(batch) * len(lanes))
    system.rest({lane.number for lane in system.lanes} - {lane.number for lane in lanes})
    try:
        short_ns = timed(system.ask, few)
        beat()
        while (long_ns := timed(system.ask, few * 2)) < 1e9 * seconds:
            beat()
            few, short_ns = few * 2, long_ns
        beat()
    finally:
        system.rest(())
    return 1e9 * len(few) / (long_ns - short_ns) if long_ns > _LONGER * short_ns else None
