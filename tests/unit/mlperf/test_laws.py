"""Laws over a log's figures: each is broken by one figure, and each by what it says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sut.mlperf.early import left_out, satisfied
from sut.mlperf.finding import Rule
from sut.mlperf.laws import Law, laws
from sut.mlperf.metrics import METRICS
from tests.unit.loadgen_logs import entry, figures, performance, write, write_detail

LATENCY_NS = [1_000_000 + 1000 * (number * 7 % 1000) for number in range(1000)]
"""1 to 1.999 ms, each once: a mean of 1.4995 ms."""
MEAN_NS = 1_499_500


def served(**changes: Any) -> dict[str, Any]:
    """Server, 1000 queries of which the slowest two are late, as many as early stopping allows."""
    return performance("Server", LATENCY_NS) | {
        "effective_target_latency_ns": 1_997_000,
        "early_stopping_result": " * Run successful.",
        "result_overlatency_query_count": 2,
        **changes,
    }


def single(**changes: Any) -> dict[str, Any]:
    """SingleStream, 1000 queries in 1.5 s: its estimates are the 78th and the second from the top."""
    told = (
        " * Processed at least 64 queries (1000).  * Would discard 77 highest latency queries.  "
        "* Early stopping 90.0th percentile estimate: 1922000"
    )
    return performance("SingleStream", LATENCY_NS) | {
        "early_stopping_latency_ss": 1_922_000,
        "early_stopping_latency_ms": 1_998_000,
        "early_stopping_result": told,
        "result_mean_latency_ns": MEAN_NS,
        "result_qps_with_loadgen_overhead": 666.0,
        "result_qps_without_loadgen_overhead": 666.889,
        **changes,
    }


def broken(folder: Path, entries: dict[str, Any]) -> list[tuple[Rule, str]]:
    return [(each.rule, each.field) for each in laws(write(folder, entries))]


def test_what_is_sound_breaks_none(tmp_path: Path) -> None:
    assert broken(tmp_path, single()) == []
    assert broken(tmp_path, served()) == []


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        # 999 queries take 1498 ms at the least, in which they follow each other.
        ({"result_qps_with_loadgen_overhead": 668.0}, (Law.LITTLE, "result_qps_with_loadgen_overhead")),
        ({"result_qps_without_loadgen_overhead": 667.0}, (Law.COUNTS, "result_qps_without_loadgen_overhead")),
        # By the percentiles it is 1.25 to 1.75 ms, nearly.
        ({"result_mean_latency_ns": 1_200_000, "result_qps_without_loadgen_overhead": 833.333},
         (Law.MEAN, "result_mean_latency_ns")),
        ({"result_min_duration_met": False}, (Law.TIME, "result_min_duration_met")),
        ({"effective_min_duration_ms": 1501}, (Law.TIME, "result_min_duration_met")),
        ({"early_stopping_met": False}, (Law.EARLY, "early_stopping_met")),
        ({"early_stopping_latency_ms": 1_989_000}, (Law.EARLY, "early_stopping_latency_ms")),
        ({"early_stopping_result": single()["early_stopping_result"].replace("77", "79")},
         (Law.EARLY, "early_stopping_result")),
        ({"generated_samples_per_query": 2, "effective_samples_per_query": 1},
         (Law.COUNTS, "generated_samples_per_query")),
        ({"generated_query_count": 999}, (Law.COUNTS, "result_query_count")),
        ({"effective_min_sample_count": 1000, "result_min_queries_met": False},
         (Law.COUNTS, "result_min_queries_met")),
    ],
)  # fmt: skip
def test_in_single_stream_each_is_broken_by_its_own_figure(
    tmp_path: Path, changes: dict[str, Any], found: tuple[Rule, str]
) -> None:
    assert found in broken(tmp_path, single(**changes))


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        # The 99.9th percentile, the last but none, is late: one at the least. p99, the tenth from the top, is not.
        ({"result_overlatency_query_count": 0}, [(Law.LATE, "result_overlatency_query_count")]),
        ({"result_overlatency_query_count": 1}, []),
        ({"result_overlatency_query_count": 10, "early_stopping_met": False},
         [(Law.LATE, "result_overlatency_query_count")]),
        ({"result_overlatency_query_count": 3}, [(Law.EARLY, "early_stopping_met")]),
        ({"early_stopping_met": False}, [(Law.EARLY, "early_stopping_met")]),
        ({"result_scheduled_samples_per_sec": 1000.0, "effective_min_duration_ms": 1000},
         [(Law.TIME, "result_min_duration_met")]),
    ],
)  # fmt: skip
def test_late_queries_are_as_many_as_the_percentiles_have_and_early_stopping_allows(
    tmp_path: Path, changes: dict[str, Any], found: list[tuple[Rule, str]]
) -> None:
    assert broken(tmp_path, served(**changes)) == found


def test_early_stopping_has_mlperfs_counts() -> None:
    fewest = {p: next(n for n in range(1, 1000) if left_out(n, p)) for p in (0.9, 0.99)}

    assert fewest == {0.9: 64, 0.99: 662}
    assert next(n for n in range(1, 1000) if satisfied(n, 0, 0.99)) == 459


def test_a_mean_whose_sum_passed_64_bits_is_what_loadgen_writes(tmp_path: Path) -> None:
    samples, step = 58_590_140, 11_370
    ranks = {"50.00": 0.5, "90.00": 0.9, "95.00": 0.95, "97.00": 0.97, "99.00": 0.99, "99.90": 0.999}
    total = step * samples * (samples - 1) // 2
    entries = performance("Offline", [1, 2]) | {
        "generated_samples_per_query": samples,
        "effective_samples_per_query": samples,
        "result_min_latency_ns": 0,
        "result_max_latency_ns": step * (samples - 1),
        **{f"result_{name}_percentile_latency_ns": step * int(samples * share) for name, share in ranks.items()},
        "result_mean_latency_ns": total % 2**64 // samples,
    }

    assert total > 2**64
    assert broken(tmp_path, entries) == []
    # Neither with nor without what was cut off it is a sum that the percentiles allow.
    other = entries | {"result_mean_latency_ns": 6 * 2**64 // 10 // samples}
    assert broken(tmp_path, other) == [(Law.MEAN, "result_mean_latency_ns")]


def test_in_multi_stream_queries_follow_each_other_in_the_time_that_the_log_is_of(tmp_path: Path) -> None:
    entries = performance("MultiStream", LATENCY_NS) | {"result_mean_query_latency_ns": MEAN_NS}

    def found(end_ms: float) -> list[tuple[Rule, str]]:
        lines = [entry(key, value) for key, value in entries.items()]
        begin = entry("generated_query_duration", 7, time_ms=50.0)
        detail = write_detail(tmp_path, *lines, begin, entry("power_end", "x", time_ms=end_ms))
        return [(each.rule, each.field) for each in laws(detail)]

    assert found(1550.0) == []
    assert found(1545.0) == [(Law.TIME, "result_mean_query_latency_ns")]


@pytest.mark.parametrize("scenario", METRICS)
def test_min_duration_is_met_by_no_run_whose_log_is_of_less_time(tmp_path: Path, scenario: str) -> None:
    def found(end_ms: float, met: bool = True) -> list[tuple[Rule, str]]:
        entries = performance(scenario, LATENCY_NS) | {"effective_min_duration_ms": 600_000}
        lines = [entry(key, value) for key, value in (entries | {"result_min_duration_met": met}).items()]
        begin = entry("generated_query_duration", 7, time_ms=50.0)
        return [
            (each.rule, each.field)
            for each in laws(write_detail(tmp_path, *lines, begin, entry("power_end", "x", time_ms=end_ms)))
        ]

    short = (Law.TIME, "effective_min_duration_ms")

    assert short in found(600_000)
    assert short not in found(600_050)
    assert short not in found(600_000, met=False)


def test_the_longest_latency_is_no_longer_than_the_time_that_the_log_is_of(tmp_path: Path) -> None:
    lines = [entry(key, value) for key, value in performance("Offline", LATENCY_NS).items()]
    begin, end = entry("generated_query_duration", 7, time_ms=50.0), entry("power_end", "x", time_ms=50.9)

    found = [(each.rule, each.field) for each in laws(write_detail(tmp_path, *lines, begin, end))]

    assert found == [(Law.TIME, "result_max_latency_ns")]


def test_what_is_not_there_or_no_number_is_passed_over(tmp_path: Path) -> None:
    whole = served() | single() | figures(LATENCY_NS)
    for key in whole:
        for value in (None, "x", [], 10**400, -1.5, True):
            laws(write(tmp_path, whole | {key: value}))
