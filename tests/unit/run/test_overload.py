"""Server asked for more than can be: what is known before the run, and how far LoadGen may go."""

from __future__ import annotations

from typing import Any

import pytest

from sut.config import RunConfig
from sut.mlperf import loadgen
from sut.run.generation import generated
from sut.run.overload import capacity_qps, fitting_qps, stop_overload
from sut.run.timing import Pace

MS = 1_000_000
BATCHES = {1: 3 * MS, 4: 6 * MS, 8: 10 * MS}
"""800 samples/s, 798 with what LoadGen takes at the least."""


def server(qps: float, seconds: float = 10.0) -> Any:
    settings = loadgen.settings_for("resnet50", "Server", "performance", [])
    settings.server_target_qps = qps
    settings.min_duration_ms = int(1000 * seconds)
    return settings


def stopped(settings: Any, batch_ns: dict[int, int] | None = None, *set_by_user: str, **config: Any) -> str | None:
    measured = Pace(MS, MS, idle_query_ns=3 * MS, batch_ns=BATCHES if batch_ns is None else batch_ns)
    return stop_overload(settings, RunConfig(scenario="Server", **config), lambda key: key not in set_by_user, measured)


@pytest.mark.parametrize(
    ("config", "batch_ns", "capacity"),
    [
        ({}, BATCHES, 798.1),
        ({"lanes": 2}, BATCHES, 1592.4),
        ({"preprocess_workers": 3, "boundary": "jpeg"}, BATCHES, 3169.6),
        ({"preprocess_workers": 3, "boundary": "tensor"}, BATCHES, 798.1),
        ({}, {1: 5000}, 125_000.0),
        ({}, {}, None),
    ],
)
def test_the_capacity_is_that_of_the_best_batch_with_loadgens_time_on_top(
    config: dict[str, Any], batch_ns: dict[int, int], capacity: float | None
) -> None:
    measured = Pace(MS, MS, batch_ns=batch_ns)

    known = capacity_qps(server(1), RunConfig(scenario="Server", **config), measured)

    assert known == (capacity and pytest.approx(capacity, 1e-4))


@pytest.mark.parametrize(
    ("batch_ns", "qps"), [(BATCHES, 328.0), ({1: 7 * MS}, 71.2), ({1: 8 * MS, 8: 20 * MS}, None), ({}, None)]
)
def test_a_rate_fits_by_batches_that_leave_half_of_the_bound(batch_ns: dict[int, int], qps: float | None) -> None:
    config = RunConfig(scenario="Server")

    assert fitting_qps(config, server(1000), Pace(MS, MS, batch_ns=batch_ns)) == qps


def test_queries_that_come_together_are_not_bound_by_loadgen() -> None:
    settings = server(1)
    settings.server_coalesce_queries = True

    assert capacity_qps(settings, RunConfig(scenario="Server"), Pace(MS, MS, batch_ns={8: 8})) == 1e9


@pytest.mark.parametrize(("qps", "told"), [(700, False), (957, False), (958, True), (100_000, True)])
def test_beyond_1_2_times_the_capacity_it_is_told_and_stopped(qps: float, told: bool) -> None:
    settings = server(qps)

    words = stopped(settings)

    assert (words is not None, settings.server_max_async_queries > 0, settings.max_duration_ms > 0) == (told,) * 3
    if words:
        assert "about 798.1 at the most" in words
        assert "--qps 328 is a rate to begin with" in words  # half of 4 in 6.1 ms, which fit into 15 ms twice


def test_it_goes_on_until_more_are_late_than_may_be() -> None:
    settings = server(10_000, seconds=600)

    stopped(settings)

    late = 0.01 * 600 * 797
    within_the_bound = 2 * 800 * 0.015
    assert late + within_the_bound < settings.server_max_async_queries < late + 4 * within_the_bound
    assert 600 < settings.max_duration_ms / 1000 < 720


@pytest.mark.parametrize(("batch_ns", "advised"), [(28_000, "9430"), (2_000, "18500"), (20, "20000")])
def test_a_rate_to_begin_with_is_half_of_what_busy_cores_bear_and_a_plain_number(batch_ns: int, advised: str) -> None:
    words = stopped(server(10**6), {1: batch_ns})

    assert words is not None
    assert f"; --qps {advised} is a rate" in words
    assert float(advised) <= 0.51 * 1e9 / (batch_ns + 25_000)


@pytest.mark.parametrize("least", [64, 50_000_000])
def test_far_beyond_the_capacity_no_more_is_generated_than_shows_it(least: int) -> None:
    settings = server(10**6, seconds=20)
    settings.min_query_count = least

    words = stopped(settings)

    made = generated(settings, "Server", settings.min_duration_ms / 1000, 11)
    assert made.queries == settings.max_query_count == 2 * settings.server_max_async_queries < 1000
    assert f"{made.queries:,} of its {max(20_000_000, least):,} queries are generated" in str(words)


@pytest.mark.parametrize(("qps", "changes"), [(1500, {}), (2000, {"performance_issue_unique": True})])
def test_where_it_may_be_answered_or_is_short_anyway_all_is_generated(qps: float, changes: dict[str, Any]) -> None:
    settings = server(qps)
    for name, value in changes.items():
        setattr(settings, name, value)

    assert "generated" not in str(stopped(settings))
    assert (settings.min_duration_ms, settings.max_query_count) == (10_000, 0)


def test_a_lower_max_query_count_of_the_user_stays() -> None:
    settings = server(10**6)
    settings.max_query_count = 7

    assert stopped(settings, None, "max_query_count")
    assert settings.max_query_count == 7


def test_what_the_user_has_set_and_other_modes_are_left_alone() -> None:
    settings = server(10_000)

    assert stopped(settings, None, "max_async_queries", "max_duration")
    assert (settings.server_max_async_queries, settings.max_duration_ms) == (0, 0)
    for mode in ("accuracy", "find_peak"):
        assert stopped(settings, mode=mode) is None


def test_where_no_batch_is_in_time_the_slowest_rate_is_a_rate_to_begin_with() -> None:
    words = stopped(server(1000), {1: 100 * MS, 8: 400 * MS})

    assert words is not None
    assert "about 20 at the most" in words
    assert "--qps 5 is a rate" in words
