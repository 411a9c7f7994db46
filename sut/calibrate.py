"""Measures, before the run, what LoadGen must be told: how long a query takes, how many samples a second go through.

All of it runs the very work that will be timed (slot, fill, infer, decode), after every batch size that will be used
was run once.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from sut.batching import BatchingPolicy
from sut.loadgen import responses
from sut.pipeline import Lane

Beat = Callable[[], None]
"""Tells the supervisor that something happened."""

_WARM_ALL_UP_TO = 16


@dataclass(frozen=True, slots=True)
class Calibration:
    """What was measured. Latencies in ns of the work alone; None where the scenario does not need it.

    ``query_ns``: one query back to back (SingleStream, MultiStream); ``idle_query_ns``: one sample after a pause
    (Server); ``samples_per_second``: all lanes busy at the full batch (Offline); ``slowest_batch_ns``: the slowest of
    all batch sizes; ``batch_ns``: one batch of each size.
    """

    first_ns: int
    slowest_batch_ns: int
    query_ns: int | None = None
    idle_query_ns: int | None = None
    samples_per_second: float | None = None
    batch_ns: dict[int, int] = field(default_factory=dict)


def sizes_to_warm(scenario: str, policy: BatchingPolicy, samples_per_query: int) -> list[int]:
    """Padded batch sizes that a run can meet, ascending.

    Server meets any size up to the largest; beyond 16 only every doubling is warmed.

    >>> sizes_to_warm("Server", BatchingPolicy(False, 4), 1)
    [1, 2, 3, 4]
    """
    top = policy.max_batch
    if scenario == "SingleStream":
        sizes = {1}
    elif scenario == "MultiStream":
        sizes = {min(top, samples_per_query), samples_per_query % top or min(top, samples_per_query)}
    elif scenario == "Offline":
        sizes = {top}
    elif top <= _WARM_ALL_UP_TO:
        sizes = set(range(1, top + 1))
    else:
        sizes = {*range(1, _WARM_ALL_UP_TO + 1), *(2**n for n in range(5, top.bit_length())), top}
    return sorted({policy.padded(size) for size in sizes})


def calibrate(
    scenario: str,
    lanes: Sequence[Lane],
    policy: BatchingPolicy,
    indices: Sequence[int],
    samples_per_query: int,
    budget_s: float,
    beat: Beat,
) -> Calibration:
    """Warm every lane, then measure for about ``budget_s`` seconds. ``indices`` are loaded samples to work on.

    Raises whatever the backend raises: a run that cannot do its work once is not started.
    """
    begin = time.perf_counter_ns()
    lanes[0].work(_some(indices, 1))
    first = time.perf_counter_ns() - begin
    batch_ns: dict[int, int] = {}
    for size in sizes_to_warm(scenario, policy, samples_per_query):
        for lane in lanes:
            lane.work(_some(indices, size))
            beat()
        batch_ns[size] = _timed(lanes[0], _some(indices, size))
        beat()
    slowest = max(batch_ns.values())
    if scenario == "Offline":
        rate = _throughput(lanes, _some(indices, policy.max_batch), budget_s, beat)
        return Calibration(first, slowest, samples_per_second=rate, batch_ns=batch_ns)
    if scenario == "Server":
        idle = _idle_latency(lanes[0], _some(indices, 1), budget_s, beat)
        return Calibration(first, max(slowest, idle), idle_query_ns=idle, batch_ns=batch_ns)
    samples = 1 if scenario == "SingleStream" else samples_per_query
    pieces = [_some(indices, min(policy.max_batch, samples - at)) for at in range(0, samples, policy.max_batch)]
    query = _median(lambda: sum(_timed(lanes[0], piece) for piece in pieces), budget_s, beat)
    return Calibration(first, slowest, query_ns=query, batch_ns=batch_ns)


def warm_tail(lanes: Sequence[Lane], policy: BatchingPolicy, indices: Sequence[int], samples: int) -> None:
    """Run the size of the last batch of ``samples`` once in every lane, now that it is known how many they are."""
    if tail := samples % policy.max_batch:
        for lane in lanes:
            lane.work(_some(indices, tail))


def _some(indices: Sequence[int], n: int) -> list[int]:
    """``n`` loaded samples, round and round if there are fewer."""
    return [indices[i % len(indices)] for i in range(n)]


def _timed(lane: Lane, indices: Sequence[int]) -> int:
    begin = time.perf_counter_ns()
    lane.work(indices)
    return max(1, time.perf_counter_ns() - begin)


def _median(measure: Callable[[], int], budget_s: float, beat: Beat, at_least: int = 3) -> int:
    found: list[int] = []
    end = time.perf_counter() + budget_s
    while len(found) < at_least or (time.perf_counter() < end and len(found) < 1000):
        found.append(measure())
        beat()
    return int(statistics.median(found))


def _idle_latency(lane: Lane, indices: Sequence[int], budget_s: float, beat: Beat) -> int:
    """Median latency of one sample after a pause: caches and cores have cooled down as they do between queries."""
    pause_s = min(0.1, max(0.005, 2 * _timed(lane, indices) / 1e9))

    def after_a_pause() -> int:
        time.sleep(pause_s)
        return _timed(lane, indices)

    return _median(after_a_pause, budget_s, beat, at_least=5)


def _throughput(lanes: Sequence[Lane], indices: Sequence[int], budget_s: float, beat: Beat) -> float:
    """Samples per second with all lanes busy, the best of five windows.

    The best, because LoadGen calls an Offline run too short if the true rate turns out higher than it was told.
    """

    def window(lane: Lane) -> int:
        end = time.perf_counter() + budget_s / 5
        batches = 0
        while batches == 0 or time.perf_counter() < end:
            payloads, _ = lane.work(indices)
            answers = None if isinstance(payloads, list) else payloads
            # Twice: LoadGen's own part takes about as long as building the responses. It matters to fast backends only.
            responses(indices, answers)
            responses(indices, answers)
            batches += 1
            beat()
        return batches

    best = 0.0
    with ThreadPoolExecutor(len(lanes), thread_name_prefix="calibrate") as pool:
        for _ in range(5):
            begin = time.perf_counter()
            batches = sum(pool.map(window, lanes))
            best = max(best, batches * len(indices) / (time.perf_counter() - begin))
    return best
