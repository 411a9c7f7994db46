"""What an ideal batcher could hold: Server queries, their queue and some servers, simulated event by event.

Nothing runs here. Queries come at random (Poisson), wait, are batched as ``pipeline/batching.py`` does it, and a batch
takes what the model is known to take. So a measured rate can be held against the one that batching alone allows, and
one way of batching against another, with no noise but what is put in. Same seed, same answer.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Callable, Sequence
from heapq import heapreplace
from math import log1p

import numpy as np
from numpy.typing import NDArray

from sut.pipeline.deadline import Deadline

Int64Array = NDArray[np.int64]
Unity = NDArray[np.float64]
"""When queries come if one a second is asked, ascending, in ns: divided by a rate, when they come at that rate."""

LATE_SHARE = 0.01
"""What may be over Server's latency bound: its percentile is the 99th."""
_CONFIDENCE = 0.99
_PRECISION = 0.002
_LOWEST_SHARE = 0.001
_NO_BOUND_NS = 2**62
"""A deadline that nothing misses: the batches are those of first in, first out."""


def line(first_ns: float, each_ns: float, max_batch: int) -> list[int]:
    """Service times of batches of 1 to ``max_batch``: ``first_ns + n each_ns``, in ns."""
    return [round(first_ns + n * each_ns) for n in range(1, max_batch + 1)]


def noise(count: int, seed: int, sigma: float) -> list[float]:
    """Factors with mean 1 on the service time of each batch, in the order in which batches begin.

    They are lognormal: exp(N(-sigma^2 / 2, sigma)).
    """
    return list(np.random.default_rng([seed, 1]).lognormal(-(sigma**2) / 2, sigma, count).tolist())


def simulate(
    arrived_ns: Int64Array,
    service_ns: Sequence[int],
    servers: int = 1,
    deadline: Deadline | None = None,
    factors: Sequence[float] = (),
) -> Int64Array:
    """Let queries through ``servers`` equal servers, batched first in, first out, or by ``deadline``.

    ``arrived_ns`` ascending; ``service_ns[n - 1]`` is the time of a batch of ``n``, whose length is the largest batch;
    ``factors`` stretch the batches one by one (empty: not at all). A batch begins when a server is free and somebody
    waits, and takes what waits then.

    Returns what each query took until it was done, in the order of their arrival: int64 (queries,), in ns.
    """
    deadline = deadline or Deadline.of(_NO_BOUND_NS, service_ns)
    ended, order, sizes = _batches(arrived_ns.tolist(), service_ns, servers, deadline, factors)
    end_ns = np.empty_like(arrived_ns)
    end_ns[order] = np.repeat(ended, sizes)
    return end_ns - arrived_ns


def _batches(
    arrived: list[int], service_ns: Sequence[int], servers: int, deadline: Deadline, factors: Sequence[float]
) -> tuple[list[int], list[int], list[int]]:
    """End of each batch in ns, the queries in the order in which they were answered, and the size of each batch."""
    count = len(arrived)
    free = [0] * servers
    ended: list[int] = []
    order: list[int] = []
    sizes: list[int] = []
    aside: deque[int] = deque()
    at = passed = 0
    while at < count or aside:
        now = free[0] if aside else max(free[0], arrived[at])
        hopeless = bisect_left(arrived, deadline.hopeless_before(now), at, count)
        aside.extend(range(at, hopeless))
        at = hopeless
        if at < count and arrived[at] <= now:
            starved = bool(aside) and deadline.takes_along(arrived[aside[0]], now, passed)
            passed = 0 if starved else passed + 1
            room = deadline.in_time(arrived[at], now) - starved
            upto = bisect_right(arrived, now, at, min(at + room, count))
            order += range(at, upto)
            size = upto - at + starved
            if starved:
                order.append(aside.popleft())
            at = upto
        else:
            size = min(deadline.at_ease, len(aside))
            passed = 0
            order += [aside.popleft() for _ in range(size)]
        took = service_ns[size - 1]
        end = now + (int(took * factors[len(ended)]) if factors else took)
        ended.append(end)
        sizes.append(size)
        heapreplace(free, end)
    return ended, order, sizes


def allowed_late(queries: int) -> int:
    """How many of ``queries`` may be late so that LoadGen's early stopping believes the 99th percentile; -1 for none.

    The largest h with P[Binomial(queries, 1 %) <= h] <= 1 %: had more than 1 % been late in the long run, so few would
    hardly have been seen. 459 queries allow 0, 662 allow 1.
    """
    log_odds = np.log(LATE_SHARE / (1 - LATE_SHARE))
    log_term = queries * log1p(-LATE_SHARE)
    below = 0.0
    late = -1
    while late < queries:
        below += float(np.exp(log_term))
        if below > 1 - _CONFIDENCE:
            return late
        late += 1
        log_term += float(np.log((queries - late) / (late + 1)) + log_odds) if late < queries else 0.0
    return late


def highest_rate(
    service_ns: Sequence[int],
    bound_ns: int,
    servers: int = 1,
    *,
    by_deadline: bool = True,
    run_queries: int | None = None,
    sigma: float = 0.0,
    queries: int = 50_000,
    seed: int = 0,
    at_unity_ns: Unity | None = None,
) -> float:
    """The highest rate in queries per second at which no more queries are over ``bound_ns`` than may be.

    That is 1 %, or what LoadGen's early stopping allows a run of ``run_queries``. Found by bisection to 0.2 %, always
    with the same random numbers; 0 where not even single queries are in time. ``sigma``: how much service times vary
    (lognormal). By deadline with the whole bound where they do not vary, else with the margin that the system keeps.
    ``at_unity_ns``: when the queries come if one a second is asked, ascending, where they are not to be drawn.
    """
    share = LATE_SHARE if run_queries is None else max(allowed_late(run_queries), 0) / run_queries
    if at_unity_ns is None:
        at_unity_ns = at_random(queries, seed)
    factors = noise(len(at_unity_ns), seed, sigma) if sigma else ()
    deadline = None
    if by_deadline:
        deadline = Deadline.worthwhile(bound_ns, service_ns) if sigma else Deadline.of(bound_ns, service_ns)
    if service_ns[0] > bound_ns:
        return 0.0
    ceiling = servers * max(1e9 * n / took for n, took in enumerate(service_ns, start=1))
    return highest_held(
        lambda arrived_ns: simulate(arrived_ns, service_ns, servers, deadline, factors),
        bound_ns,
        ceiling,
        at_unity_ns,
        share,
    )


def at_random(queries: int, seed: int) -> Unity:
    """Queries that come at random, by a Poisson process."""
    return np.cumsum(np.random.default_rng(seed).exponential(1e9, queries))


def highest_held(
    latencies: Callable[[Int64Array], Int64Array],
    bound_ns: int,
    ceiling: float,
    at_unity_ns: Unity,
    late_share: float = LATE_SHARE,
) -> float:
    """The highest rate in queries per second, to 0.2 %, at which no larger share than ``late_share`` is late.

    ``latencies`` simulates queries that arrive then, in ns; ``ceiling`` is a rate that is not held. 0 where not even a
    thousandth of it is: queries hardly ever meet then, and what makes them late is not their rate.
    """
    low, high = 0.0, ceiling
    while high - low > _PRECISION * high:
        if high < _LOWEST_SHARE * ceiling:
            return 0.0
        rate = (low + high) / 2
        late = latencies((at_unity_ns / rate).astype(np.int64)) > bound_ns
        low, high = (rate, high) if float(late.mean()) <= late_share else (low, rate)
    return low


def prepared(arrived_ns: Int64Array, took_ns: Sequence[int], workers: int) -> Int64Array:
    """When ``workers``, who take one query each, first in, first out, have each query ready.

    ``took_ns``: what each takes, in the order of arrival. Returns int64 (queries,), in ns. Workers never wait for those
    who come behind them: the channel between them is thought to be endless, which at a rate that is held it may as well
    be.
    """
    free = [0] * workers
    ready = np.empty_like(arrived_ns)
    for number, (arrived, took) in enumerate(zip(arrived_ns.tolist(), took_ns, strict=False)):
        ready[number] = end = max(free[0], arrived) + took
        heapreplace(free, end)
    return ready


def simulate_staged(
    arrived_ns: Int64Array,
    took_ns: Sequence[int],
    workers: int,
    service_ns: Sequence[int],
    servers: int = 1,
    factors: Sequence[float] = (),
) -> Int64Array:
    """As ``simulate``, behind ``workers`` that make each query ready in ``took_ns``; first in, first out."""
    ready_ns = prepared(arrived_ns, took_ns, workers)
    order = np.argsort(ready_ns, kind="stable")
    latency_ns = np.empty_like(arrived_ns)
    latency_ns[order] = simulate(ready_ns[order], service_ns, servers, None, factors)
    return latency_ns + ready_ns - arrived_ns
