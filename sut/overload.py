"""Server asked for more than the system can answer: told before the run, and not worked through."""

from __future__ import annotations

import math
from collections.abc import Callable

from sut.calibrate import Calibration
from sut.config import RunConfig
from sut.errors import short
from sut.generation import LOADGEN_QUERY_NS
from sut.loadgen import Settings

_TOO_MUCH = 1.2
"""The calibrated capacity is not exact: only what is asked beyond so many times of it cannot be."""
_NOT_BEYOND = 2
"""So many times of it are not answered in any case."""


def capacity_qps(settings: Settings, config: RunConfig, measured: Calibration) -> float | None:
    """Queries per second that the system answers at the most, by what its batches took; None where nothing is known.

    Preprocessing workers take a part of the lanes' work on them, so each counts as another lane. LoadGen hands queries
    over one by one, in a time of its own, unless it may coalesce them.
    """
    if not measured.batch_ns:
        return None
    workers = config.preprocess_workers if config.times_preprocessing else 0
    lanes = (config.lanes + workers) * max(size * 1e9 / took for size, took in measured.batch_ns.items())
    return lanes if settings.server_coalesce_queries else min(lanes, 1e9 / LOADGEN_QUERY_NS)


def stop_overload(
    settings: Settings, config: RunConfig, unset: Callable[[str], bool], measured: Calibration
) -> str | None:
    """Let LoadGen stop a Server run that is asked for too much as soon as that shows. Returns what to tell the user.

    It shows by a backlog of as many queries as may be late in the whole run, and of those that might be answered within
    the latency bound; or by the schedule's end being over. A backlog of a system that is asked too much never shrinks.
    """
    capacity = capacity_qps(settings, config, measured)
    asked = settings.server_target_qps
    if config.mode != "performance" or capacity is None or asked <= _TOO_MUCH * capacity:
        return None
    schedule_s = max(settings.min_duration_ms / 1000, settings.min_query_count / asked)
    may_be_late = (1 - settings.server_target_latency_percentile) * schedule_s * capacity
    arriving = min(asked, _NOT_BEYOND * capacity) * settings.server_target_latency_ns / 1e9
    if unset("max_async_queries"):
        settings.server_max_async_queries = math.ceil(min(2**31 - 1, may_be_late + _most_of(arriving)))
    if unset("max_duration"):
        settings.max_duration_ms = math.ceil(1000 * (1.1 * schedule_s + 2))
    fitting = _fitting(config, settings, measured, capacity)
    return (
        f"Server is asked at {short(asked)} queries/s, and this system answers about {short(capacity)} at the most: "
        f"the run cannot be VALID and is stopped as soon as that shows; --qps {fitting:.3g} is a rate to begin with"
    )


def _most_of(mean: float) -> float:
    """What a Poisson process of that mean does not exceed."""
    return mean + 6 * math.sqrt(mean) + 20


def _fitting(config: RunConfig, settings: Settings, measured: Calibration, capacity: float) -> float:
    """Half of what batches allow that leave as much of the latency bound for waiting as they take themselves."""
    in_time = [size / took for size, took in measured.batch_ns.items() if 2 * took <= settings.server_target_latency_ns]
    slowest = min(size / took for size, took in measured.batch_ns.items())
    return min(capacity, config.lanes * 1e9 * max(in_time, default=slowest)) / 2
