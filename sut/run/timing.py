"""Measures, before the run, what LoadGen must be told: how long a query takes, how many samples a second go through.

All of it runs the very work that will be timed (slot, fill, infer, decode), after every batch size that will be used
was run once.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import count, cycle
from typing import TypeVar

from sut.mlperf.loadgen import responses
from sut.pipeline.batching import BatchingPolicy
from sut.pipeline.lane import Lane
from sut.pipeline.system import SUT

Beat = Callable[[], None]
"""Tells the supervisor that something happened."""
_T = TypeVar("_T")

Pools = Sequence[tuple[Lane, ThreadPoolExecutor]]
"""Lanes, each with its one thread."""

_WARM_ALL_UP_TO = 16
_WINDOWS = 5
_ROUNDS = 12
"""How often each batch size is timed for Server, at the most."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast the work goes, as measured. Latencies in ns of the work alone; None where the scenario does not need it.

    ``query_ns``: one query back to back (SingleStream, MultiStream); ``idle_query_ns``: one sample after a pause
    (Server); ``samples_per_second``: all lanes busy at the full batch (Offline); ``slowest_batch_ns``: the slowest of
    all batch sizes; ``batch_ns``: one batch of each size, in Server while all lanes are busy.
    """

    first_ns: int
    slowest_batch_ns: int
    query_ns: int | None = None
    idle_query_ns: int | None = None
    samples_per_second: float | None = None
    batch_ns: dict[int, int] = field(default_factory=dict)


def sizes_to_warm(scenario: str, policy: BatchingPolicy, samples_per_query: int) -> list[int]:
    """Padded batch sizes that a run can meet, ascending.

    Server meets any size up to the largest; beyond 16 only every doubling is warmed. Offline's last batches come with
    ``warm_tail``.

    >>> sizes_to_warm("Server", BatchingPolicy(False, 4), 1)
    [1, 2, 3, 4]
    """
    top = policy.max_batch
    if scenario == "SingleStream":
        sizes = {1}
    elif scenario == "MultiStream":
        sizes = policy.query_sizes(samples_per_query)
    elif scenario == "Offline":
        sizes = {top}
    elif top <= _WARM_ALL_UP_TO:
        sizes = set(range(1, top + 1))
    else:
        sizes = {*range(1, _WARM_ALL_UP_TO + 1), *(2**n for n in range(5, top.bit_length())), top}
    return sorted({policy.padded(size) for size in sizes})


def calibrate(
    scenario: str, system: SUT, indices: Sequence[int], samples_per_query: int, budget_s: float, beat: Beat
) -> Pace:
    """Warm every lane, then measure for about ``budget_s`` seconds. ``indices`` are loaded samples to work on.

    Raises whatever the backend raises: a run that cannot do its work once is not started.
    """
    lanes, policy = system.lanes, system.policy
    first = timed(lanes[0].rehearse, some(indices, 1))
    system.rehearse(indices)
    beat()
    batch_ns: dict[int, int] = {}
    # The largest first: a GPU decoder, DALI's pipeline and buffers are made anew for each batch larger than any before.
    for size in reversed(sizes_to_warm(scenario, policy, samples_per_query)):
        batch = some(indices, size)
        for lane in lanes:
            lane.rehearse(batch)
            beat()
        batch_ns[size] = timed(lanes[0].rehearse, batch)
        beat()
    batch_ns = dict(sorted(batch_ns.items()))
    slowest = max(batch_ns.values())
    if scenario == "Offline":
        rate = _throughput(system, indices, budget_s, beat)
        return Pace(first, slowest, samples_per_second=rate, batch_ns=batch_ns)
    if scenario == "Server":
        idle = _idle_latency(system.ask, some(indices, 1), budget_s, beat)
        busy_ns = _service_times(lanes, batch_ns, indices, budget_s, beat)
        return Pace(first, max(slowest, idle, *busy_ns.values()), idle_query_ns=idle, batch_ns=busy_ns)
    each = 1 if scenario == "SingleStream" else samples_per_query
    # With two models a picture takes as long as what is in it: one of them says nothing of the others.
    queries = cycle([some(indices[at:], each) for at in range(len(indices) if system.second is not None else 1)])
    took = _median(lambda: timed(system.ask, next(queries)), budget_s, beat)
    return Pace(first, slowest, query_ns=took, batch_ns=batch_ns)


def window(
    scenario: str,
    system: SUT,
    indices: Sequence[int],
    samples_per_query: int,
    max_batch: int,
    seconds: float,
    beat: Beat,
) -> float:
    """One figure of a system, to be compared with others of the same scenario, after so many ``seconds``.

    Offline: samples per second with all lanes busy, in batches of ``max_batch`` unless preprocessing has workers of its
    own, which know the system's batch only. Elsewhere the median latency of a query in ns, asked back to back.
    """
    if scenario != "Offline":
        query = some(indices, samples_per_query if scenario == "MultiStream" else 1)
        return _median(lambda: timed(system.ask, query), seconds, beat, at_least=1)
    if system.staged:
        many = some(indices, 2 * system.policy.max_batch * len(system.lanes))
        return 1e9 * len(many) / _median(lambda: timed(system.ask, many), seconds, beat, at_least=1)
    with threads_of(system.lanes) as pools:
        return _busy_rate(pools, some(indices, min(max_batch, system.policy.max_batch)), seconds, beat)


def warm_tail(lanes: Sequence[Lane], policy: BatchingPolicy, indices: Sequence[int], samples: int) -> None:
    """Run every size of Offline's last batches once in every lane, now that it is known how many ``samples`` come.

    LoadGen may come to one sample more or less than the plan: it rounds the same product in another order.
    """
    sizes = {size for near in (-1, 0, 1) if samples + near > 0 for size in policy.query_sizes(samples + near)}
    for size in sorted({policy.padded(size) for size in sizes} - {policy.padded(policy.max_batch)}):
        for lane in lanes:
            lane.rehearse(some(indices, size))


def some(indices: Sequence[int], n: int) -> list[int]:
    """``n`` loaded samples, round and round if there are fewer."""
    return [indices[i % len(indices)] for i in range(n)]


def timed(work: Callable[[Sequence[int]], object], indices: Sequence[int]) -> int:
    """What some work on these samples takes, in ns."""
    begin = time.perf_counter_ns()
    work(indices)
    return max(1, time.perf_counter_ns() - begin)


def _median(measure: Callable[[], int], budget_s: float, beat: Beat, at_least: int = 3) -> int:
    return int(statistics.median(_timed_until(measure, budget_s, beat, at_least)))


def _idle_latency(ask: Callable[[Sequence[int]], None], indices: Sequence[int], budget_s: float, beat: Beat) -> int:
    """Median latency of one sample after a pause: caches and cores have cooled down as they do between queries."""
    pause_s = min(0.1, max(0.005, 2 * timed(ask, indices) / 1e9))

    def after_a_pause() -> int:
        time.sleep(pause_s)
        return timed(ask, indices)

    return _median(after_a_pause, budget_s, beat, at_least=5)


def _service_times(
    lanes: Sequence[Lane], warm_ns: Mapping[int, int], indices: Sequence[int], budget_s: float, beat: Beat
) -> dict[int, int]:
    """What batches take while all lanes are busy, in ns, for each size of ``warm_ns``: three of four take longer.

    Lanes share the machine: alone, a batch is faster than it will be. The lower quartile, because the batching by
    deadline bears times that are too short better than ones that are too long. Where the budget allows no more, what a
    size took when it was warmed stands.
    """
    found: dict[int, int] = {}
    with threads_of(lanes) as pools:
        for size, once_ns in warm_ns.items():
            batch = some(indices, size)
            rounds = min(_ROUNDS, int(1e9 * budget_s / len(warm_ns) / once_ns))
            times = at_once(pools, partial(_times, batch=batch, rounds=rounds, beat=beat))
            ordered = sorted(took for each in times for took in each)
            found[size] = ordered[len(ordered) // 4] if ordered else once_ns
    return found


def _times(lane: Lane, batch: Sequence[int], rounds: int, beat: Beat) -> list[int]:
    return _timed_until(lambda: timed(lane.rehearse, batch), 0.0, beat, at_least=rounds)


def _throughput(system: SUT, indices: Sequence[int], budget_s: float, beat: Beat) -> float:
    """Samples per second with all lanes busy, the best of five windows.

    The best, because LoadGen calls an Offline run too short if the true rate turns out higher than it was told.
    """
    top = system.policy.max_batch
    if system.staged:
        many = some(indices, 4 * top * len(system.lanes))
        return 1e9 * len(many) / min(_timed_until(lambda: timed(system.ask, many), budget_s, beat))
    batch = some(indices, top)
    with threads_of(system.lanes) as pools:
        return max(_busy_rate(pools, batch, budget_s / _WINDOWS, beat) for _ in range(_WINDOWS))


@contextmanager
def threads_of(lanes: Sequence[Lane]) -> Iterator[Pools]:
    """A thread for each lane that does no other's work: what a runtime starts there has that lane's cores for good."""
    with ExitStack() as stack:
        yield [(lane, stack.enter_context(ThreadPoolExecutor(1, thread_name_prefix="calibrate"))) for lane in lanes]


def at_once(pools: Pools, work: Callable[[Lane], _T]) -> list[_T]:
    """``work`` of all lanes, each in its thread; what comes of it, when all are done."""
    begun = [pool.submit(work, lane) for lane, pool in pools]
    return [each.result() for each in begun]


def _busy_rate(pools: Pools, batch: Sequence[int], seconds: float, beat: Beat) -> float:
    """Samples per second with all lanes busy for a while."""
    begin = time.perf_counter()
    batches = sum(at_once(pools, lambda lane: keep_busy(lane, batch, seconds, beat)))
    return batches * len(batch) / (time.perf_counter() - begin)


def _timed_until(measure: Callable[[], int], budget_s: float, beat: Beat, at_least: int = 1) -> list[int]:
    found: list[int] = []
    end = time.perf_counter() + budget_s
    while len(found) < at_least or (time.perf_counter() < end and len(found) < 1000):
        found.append(measure())
        beat()
    return found


def keep_busy(lane: Lane, batch: Sequence[int], seconds: float, beat: Beat) -> int:
    """Run batches for a while; how many."""
    end = time.perf_counter() + seconds
    return next(batches for batches in batches_of(lane, batch, beat) if time.perf_counter() >= end)


def batches_of(lane: Lane, batch: Sequence[int], beat: Beat) -> Iterator[int]:
    """Run batches without end; yields after each how many they are by now."""
    for number in count(1):
        payloads = lane.rehearse(batch)
        answers = None if isinstance(payloads, list) else payloads
        # Twice: LoadGen's own part takes about as long as building the responses. It matters to fast backends only.
        responses(batch, answers)
        responses(batch, answers)
        beat()
        yield number
