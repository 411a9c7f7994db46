"""Server asked for more than the system can answer: told before the run, and not worked through."""

from __future__ import annotations

import math
from collections.abc import Callable

from sut.config import RunConfig
from sut.errors import short
from sut.mlperf.loadgen import Settings
from sut.run.timing import Pace

_TOO_MUCH = 1.2
"""The calibrated capacity is not exact: only what is asked beyond so many times of it cannot be."""
_NOT_BEYOND = 2
"""So many times of it are not answered in any case."""
_LEAST_QUERY_NS = 3_000
"""What LoadGen and Python add to a query on two idle cores, where 283,000 null queries/s went through."""
_MOST_QUERY_NS = 25_000
"""The most that was seen, on two busy cores: a rate to begin with has to be borne there, too."""


def capacity_qps(settings: Settings, config: RunConfig, measured: Pace) -> float | None:
    """Queries per second that the system answers at the most, by what its batches took; None where nothing is known.

    Preprocessing workers take a part of the lanes' work on them, so each counts as another lane. LoadGen hands queries
    over one by one, in a time that comes on top, unless it may coalesce them.
    """
    if not measured.batch_ns:
        return None
    workers = config.preprocess_workers if config.stages_preprocessing else 0
    lanes = (config.lane_count + workers) * max(size * 1e9 / took for size, took in measured.batch_ns.items())
    return lanes if settings.server_coalesce_queries else _with_loadgen(lanes, _LEAST_QUERY_NS)


def fitting_qps(config: RunConfig, settings: Settings, measured: Pace) -> float | None:
    """A rate that the system should answer in time, by what its batches took; None where no batch would be in time."""
    bound_ns = settings.server_target_latency_ns
    if not any(2 * took <= bound_ns for took in measured.batch_ns.values()):
        return None
    return float(_fitting(config, settings, measured))


def stop_overload(settings: Settings, config: RunConfig, unset: Callable[[str], bool], measured: Pace) -> str | None:
    """Let LoadGen stop a Server run that is asked for too much as soon as that shows. Returns what to tell the user.

    It shows by a backlog of as many queries as may be late in the whole run, and of those that might be answered within
    the latency bound; or by the schedule's end being over. A backlog of a system that is asked too much never shrinks.
    Of a schedule that is beyond doubt no more is generated than that takes, and LoadGen's error at its end keeps the
    shortened run from being VALID.
    """
    capacity = capacity_qps(settings, config, measured)
    asked = settings.server_target_qps
    if config.mode != "performance" or capacity is None or asked <= _TOO_MUCH * capacity:
        return None
    schedule_s = max(settings.min_duration_ms / 1000, settings.min_query_count / asked)
    may_be_late = (1 - settings.server_target_latency_percentile) * schedule_s * capacity
    arriving = min(asked, _NOT_BEYOND * capacity) * settings.server_target_latency_ns / 1e9
    backlog = math.ceil(min(2**31 - 1, may_be_late + _most_of(arriving)))
    if unset("max_async_queries"):
        settings.server_max_async_queries = backlog
    if unset("max_duration"):
        settings.max_duration_ms = math.ceil(1000 * (1.1 * schedule_s + 2))
    shortened = _shorten(settings, 2 * backlog) if asked > _NOT_BEYOND * capacity else ""
    return (
        f"Server is asked at {short(asked)} queries/s, and this system answers about {short(capacity)} at the most: "
        f"the run cannot be VALID and is stopped as soon as that shows{shortened}; "
        f"--qps {_fitting(config, settings, measured)} is a rate to begin with"
    )


def _shorten(settings: Settings, enough: int) -> str:
    """Have LoadGen generate ``enough`` queries and end with an error at the last. Returns what to tell of it."""
    asked = settings.server_target_qps
    queries = max(int(settings.min_query_count), math.ceil(settings.min_duration_ms / 1000 * asked))
    if queries <= enough or settings.performance_issue_unique:
        return ""
    settings.min_query_count = enough
    settings.min_duration_ms = int(1000 * enough / asked)
    settings.max_query_count = min(int(settings.max_query_count) or enough, enough)
    return f", for which {enough:,} of its {queries:,} queries are generated"


def _with_loadgen(rate: float, query_ns: float) -> float:
    """A rate per second when each query costs LoadGen and Python so much in addition."""
    return 1e9 / (1e9 / rate + query_ns)


def _most_of(mean: float) -> float:
    """What a Poisson process of that mean does not exceed."""
    return mean + 6 * math.sqrt(mean) + 20


def _fitting(config: RunConfig, settings: Settings, measured: Pace) -> str:
    """Half of what batches allow that leave as much of the latency bound for waiting as they take themselves.

    As the flag takes it: three digits, no exponent.
    """
    in_time = [size / took for size, took in measured.batch_ns.items() if 2 * took <= settings.server_target_latency_ns]
    slowest = min(size / took for size, took in measured.batch_ns.items())
    rate = _with_loadgen(config.lane_count * 1e9 * max(in_time, default=slowest), _MOST_QUERY_NS) / 2
    return f"{float(f'{rate:.3g}'):.15g}"
