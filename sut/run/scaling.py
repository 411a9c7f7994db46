"""How much more several devices, or core sets, do together than the first of them alone, measured before the run.

By the very work that will be timed, preprocessing included, in short windows by turns: what slows the machine down for
a while slows down both sides of a pair.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from functools import partial

from sut.pipeline.lane import Lane
from sut.pipeline.system import SUT
from sut.results.schema import Scaling
from sut.run.timing import Beat, at_once, keep_busy, sizes_to_warm, some, threads_of, timed

_FEWEST_PAIRS, _MOST_PAIRS = 3, 20
_BATCHES = 4
"""For each lane that workers feed."""


def scaling(system: SUT, indices: Sequence[int], samples_per_query: int, budget_s: float, beat: Beat) -> Scaling | None:
    """What one and all come to within about ``budget_s`` seconds, three pairs at the least; every lane is warm.

    None where there is one only, and in SingleStream, which has one query at a time for the first. Raises whatever the
    backend raises.
    """
    units, scenario = system.parts.units, system.config.scenario
    if len(units) == 1 or scenario == "SingleStream":
        return None
    top = max(sizes_to_warm(scenario, system.policy, samples_per_query))
    batch = some(indices, min(top, system.policy.max_batch))
    first = system.lanes[:: len(units)]
    rate = partial(_fed_rate if system.staged else _busy_rate, system, batch, budget_s / _MOST_PAIRS, beat)
    pairs: list[tuple[float, float]] = []
    end = time.perf_counter() + budget_s
    while len(pairs) < _FEWEST_PAIRS or (time.perf_counter() < end and len(pairs) < _MOST_PAIRS):
        pairs.append((rate(first), rate(system.lanes)))
    one, all_ = (statistics.median(side) for side in zip(*pairs, strict=True))
    return Scaling(
        units=[unit.name for unit in units],
        one_samples_per_second=one,
        all_samples_per_second=all_,
        efficiency=statistics.median(together / (len(units) * alone) for alone, together in pairs),
    )


def _busy_rate(system: SUT, batch: Sequence[int], seconds: float, beat: Beat, lanes: Sequence[Lane]) -> float:
    """Samples per second of lanes that do all the work by themselves: each by its own time, so that no end counts."""

    def of_lane(lane: Lane) -> float:
        begin = time.perf_counter()
        batches = keep_busy(lane, batch, seconds, beat)
        return batches * len(batch) / (time.perf_counter() - begin)

    with threads_of(lanes) as pools:
        return sum(at_once(pools, of_lane))


def _fed_rate(system: SUT, batch: Sequence[int], seconds: float, beat: Beat, lanes: Sequence[Lane]) -> float:
    """Samples per second of lanes that workers feed, while the others rest.

    By how much longer twice as many samples take: that leaves out how long the first are on their way.
    """
    system.rest({lane.number for lane in system.lanes} - {lane.number for lane in lanes})
    try:
        few = some(batch, _BATCHES * len(batch) * len(lanes))
        short_ns = timed(system.ask, few)
        beat()
        long_ns = timed(system.ask, few * 2)
        beat()
    finally:
        system.rest(())
    return 1e9 * len(few) / max(1, long_ns - short_ns)
