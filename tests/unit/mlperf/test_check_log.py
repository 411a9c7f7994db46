"""The rules for LoadGen's logs: what is sound has no finding, and each disagreement has its own."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sut.config import SCENARIOS
from sut.mlperf.check_log import LogRule, Record, check_log
from sut.mlperf.finding import Finding, Rule
from sut.mlperf.logs import OFFICIAL_SEEDS, SEEDS_V6_0, SUMMARY, Detail, Int64Array, read_summary
from sut.mlperf.metrics import latency_keys
from sut.pipeline.ledger import Counter, Ledger, LedgerShape
from sut.results.stages import record_of
from tests.unit.loadgen_logs import entry, performance, write, write_detail

STARTED_NS = 1_795_843_800_300_000_000  # 2026-11-28T05:30:00.3Z
LATENCY_NS = [1_000_000 + 1000 * (number * 7 % 100) for number in range(100)]


def record(scenario: str, **changes: Any) -> Record:
    """What this side knows of the run that ``performance(scenario, LATENCY_NS)`` is the log of."""
    took_ns = 990_000_000 + LATENCY_NS[-1]
    known = Record(
        asked={"effective_scenario": scenario, "effective_test_mode": "PerformanceOnly"},
        issued=800 if scenario == "MultiStream" else 100,
        started_ns=STARTED_NS,
        first_ns=STARTED_NS + 1_000_000,
        last_ns=STARTED_NS + 1_000_000 + 990_000_000,
        last_done_ns=STARTED_NS + took_ns,
        latency_ns=np.array(LATENCY_NS),
        stages_ns=stages(0),
    )
    return replace(known, **changes)


def stages(least_ns: int, name: str = "residual") -> dict[str, Int64Array]:
    return {"queue": np.array([0, 5]), name: np.array([7, least_ns])}


def rules(found: list[Finding]) -> list[tuple[Rule, str]]:
    return [(finding.rule, finding.field) for finding in found]


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_sound_log_has_no_finding_alone_or_with_its_record(tmp_path: Path, scenario: str) -> None:
    detail = write(tmp_path, performance(scenario, LATENCY_NS))

    assert check_log(detail) == []
    assert check_log(detail, record=record(scenario)) == []


def test_a_finding_says_what_was_got_and_expected_in_one_line(tmp_path: Path) -> None:
    [finding] = check_log(write(tmp_path, performance("Offline", LATENCY_NS)), record=record("Server"))

    assert str(finding) == (
        "LoadGen's log is not of the run that was asked for "
        "(mlperf_log_detail.txt, effective_scenario: got Offline, expected Server)"
    )


SERVED = "result_completed_samples_per_sec"
P90, P99 = (f"result_{share}.00_percentile_latency_ns" for share in (90, 99))


@pytest.mark.parametrize(
    ("scenario", "changes", "found"),
    [
        ("SingleStream", {"early_stopping_latency_ss": None}, (LogRule.METRIC, "early_stopping_latency_ss")),
        ("SingleStream", {"early_stopping_latency_ss": 0}, (LogRule.METRIC, "early_stopping_latency_ss")),
        ("SingleStream", {"early_stopping_latency_ss": 1_094_999}, (LogRule.METRIC, "early_stopping_latency_ss")),
        ("SingleStream", {"early_stopping_latency_ss": 1_099_100}, (LogRule.METRIC, "early_stopping_latency_ss")),
        ("MultiStream", {"early_stopping_latency_ms": "1098000"}, (LogRule.METRIC, "early_stopping_latency_ms")),
        ("Server", {SERVED: float("nan")}, (LogRule.METRIC, SERVED)),
        ("Server", {SERVED: 99.901}, (LogRule.METRIC, SERVED)),
        ("Server", {SERVED: 99.888}, (LogRule.METRIC, SERVED)),
        ("Offline", {"result_samples_per_second": 90992.9}, (LogRule.METRIC, "result_samples_per_second")),
        ("Offline", {"result_min_latency_ns": -1}, (LogRule.ORDER, "result_min_latency_ns")),
        ("SingleStream", {"result_50.00_percentile_latency_ns": 1_090_001}, (LogRule.ORDER, P90)),
        ("Offline", {"result_validity": "INVALID"}, (LogRule.VERDICT, "result_validity")),
        ("Server", {"early_stopping_met": False}, (LogRule.VERDICT, "result_validity")),
        ("Server", {"effective_target_latency_ns": 1_098_999}, (LogRule.VERDICT, "result_perf_constraints_met")),
        ("Offline", {"effective_min_duration_ms": 2}, (LogRule.VERDICT, "result_min_duration_met")),
        ("Server", {"effective_min_query_count": 101}, (LogRule.VERDICT, "result_min_queries_met")),
    ],
)  # fmt: skip
def test_what_contradicts_the_rest_of_the_log_is_found(
    tmp_path: Path, scenario: str, changes: dict[str, Any], found: tuple[Rule, str]
) -> None:
    [finding] = check_log(write(tmp_path, performance(scenario, LATENCY_NS) | changes))

    assert (finding.rule, finding.field) == found
    assert finding.contradicts


@pytest.mark.parametrize(
    ("scenario", "changes"),
    [
        # LoadGen's estimate is the third of 100 from the top; its sum may be a rank off.
        ("SingleStream", {"early_stopping_latency_ss": 1_096_000}),
        ("SingleStream", {"early_stopping_latency_ss": 1_099_000}),
        # Below the median: seen where the percentile was set to 80.
        ("SingleStream", {"early_stopping_latency_ss": 1_040_000, "effective_target_latency_percentile": 0.8}),
        ("SingleStream", {"early_stopping_latency_ss": 1_040_000, "effective_target_latency_percentile": 0.95}),
        # Too few queries for an estimate.
        ("SingleStream", {"early_stopping_latency_ss": 0, "early_stopping_met": False, "result_validity": "INVALID"}),
        ("Offline", {"result_samples_per_second": 90991.8}),
        ("Server", {SERVED: 99.9}),
        ("Server", {"effective_target_latency_ns": 1_099_000}),
        # A rate of one query is 0 by 0, which is no JSON.
        ("Server", {"result_scheduled_samples_per_sec": None}),
        ("Server", {"early_stopping_result": None, "effective_target_latency_ns": 1}),
        ("Server", {"effective_min_query_count": 100}),
    ],
)
def test_what_loadgen_may_write_is_no_finding(tmp_path: Path, scenario: str, changes: dict[str, Any]) -> None:
    assert check_log(write(tmp_path, performance(scenario, LATENCY_NS) | changes)) == []


@pytest.mark.parametrize(
    ("scenario", "changes", "found"),
    [
        ("Server", {"effective_test_mode": "AccuracyOnly"}, [(LogRule.ASKED, "effective_test_mode")]),
        ("Offline", {"test_datetime": "2026-11-28T05:29:59Z"}, [(LogRule.STARTED, "test_datetime")]),
        ("Offline", {"test_datetime": "2026-11-28T05:30:01Z"}, [(LogRule.STARTED, "test_datetime")]),
        ("Offline", {"test_datetime": None}, [(LogRule.STARTED, "test_datetime")]),
        # One query less than were issued, by the trace and by the ledger.
        ("SingleStream", {"result_query_count": 99, "effective_min_query_count": 64},
         [(LogRule.COUNT, "result_query_count")] * 2),
        ("SingleStream", {P99: 1_098_000}, [(LogRule.LATENCY, P99)]),
        ("SingleStream", {"result_max_latency_ns": 1_099_001},
         [(LogRule.LATENCY, "result_max_latency_ns")]),
        ("MultiStream", {"early_stopping_latency_ms": 1_099_001, "result_max_query_latency_ns": 1_099_002},
         [(LogRule.LATENCY, "result_max_query_latency_ns"), (LogRule.LATENCY, "early_stopping_latency_ms")]),
        # Sound by itself: both rates are twice what they were.
        ("Server", {SERVED: 199.58, "result_scheduled_samples_per_sec": 200}, [(LogRule.METRIC, SERVED)]),
        ("Server", {SERVED: 49.9735, "result_scheduled_samples_per_sec": 50}, [(LogRule.METRIC, SERVED)]),
    ],
)  # fmt: skip
def test_what_contradicts_the_record_is_found(
    tmp_path: Path, scenario: str, changes: dict[str, Any], found: list[tuple[Rule, str]]
) -> None:
    detail = write(tmp_path, performance(scenario, LATENCY_NS) | changes)

    assert rules(check_log(detail, record=record(scenario))) == found


@pytest.mark.parametrize(
    ("logged", "found"), [(1_098_500, []), (1_097_999, [LogRule.LATENCY]), (1_099_001, [LogRule.LATENCY])]
)
def test_where_lanes_complete_a_query_at_once_any_of_its_samples_may_end_it(
    tmp_path: Path, logged: int, found: list[Rule]
) -> None:
    key = latency_keys("MultiStream")["p99"]
    detail = write(tmp_path, performance("MultiStream", LATENCY_NS) | {key: logged})
    slowest = np.array(LATENCY_NS)

    told = check_log(detail, record=record("MultiStream", latency_ns=slowest, fastest_ns=slowest - 1000))

    assert [each.rule for each in told if each.rule == LogRule.LATENCY] == found


@pytest.mark.parametrize(
    ("asked", "logged", "same"),
    [
        (600, 600, True), (600, 601, False), (3480116.4, 3.48012e06, True), (3480116.4, 3.4802e06, False),
        (100.0, 100, True), (600, None, False), (600, "600", False),
    ],
)  # fmt: skip
def test_what_was_asked_is_compared_to_loadgens_six_digits(tmp_path: Path, asked: Any, logged: Any, same: bool) -> None:
    detail = write(tmp_path, performance("Offline", LATENCY_NS) | {"requested_x": logged})

    found = check_log(detail, record=record("Offline", asked={"requested_x": asked}))

    assert rules(found) == ([] if same else [(LogRule.ASKED, "requested_x")])


def test_the_start_may_be_up_to_the_first_query(tmp_path: Path) -> None:
    detail = write(tmp_path, performance("Offline", LATENCY_NS) | {"test_datetime": "2026-11-28T05:30:01Z"})

    assert check_log(detail, record=record("Offline", first_ns=STARTED_NS + 700_000_000)) == []


@pytest.fixture
def in_berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "Europe/Berlin")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.parametrize(
    ("utc_s", "told", "found"),
    [
        (1_795_843_800, "2026-11-28T06:30:00Z", []),
        (1_795_843_800, "2026-11-28T05:30:00Z", [(LogRule.STARTED, "test_datetime")]),
        # The hour that comes twice as summer time ends, the first and the second time.
        (1_792_888_200, "2026-10-25T02:30:00Z", []),
        (1_792_891_800, "2026-10-25T02:30:00Z", []),
        (1_792_895_400, "2026-10-25T02:30:00Z", [(LogRule.STARTED, "test_datetime")]),
    ],
)
@pytest.mark.usefixtures("in_berlin")
def test_loadgen_tells_local_time(tmp_path: Path, utc_s: int, told: str, found: list[tuple[Rule, str]]) -> None:
    begin = utc_s * 10**9
    detail = write(tmp_path, performance("Offline", LATENCY_NS) | {"test_datetime": told})
    known = record("Offline", started_ns=begin, first_ns=begin, last_ns=begin + 990_000_000)

    assert rules([each for each in check_log(detail, record=known) if each.rule == LogRule.STARTED]) == found


def test_a_run_without_a_trace_or_a_whole_ledger_is_checked_by_the_rest(tmp_path: Path) -> None:
    detail = write(tmp_path, performance("Server", LATENCY_NS))
    less = record("Server", latency_ns=None, last_ns=None, last_done_ns=None, stages_ns=None)

    assert check_log(detail, record=less) == []
    assert rules(check_log(detail, record=replace(less, issued=101))) == [(LogRule.COUNT, "result_query_count")]


@pytest.mark.parametrize(("issued", "found"), [(27, []), (26, [(LogRule.COUNT, "generated_query_count")])])
@pytest.mark.parametrize("mode", ["AccuracyOnly", "FindPeakPerformance"])
def test_all_sets_of_an_accuracy_run_and_all_probes_of_a_search_count(
    tmp_path: Path, mode: str, issued: int, found: list[tuple[Rule, str]]
) -> None:
    last = performance("Server", LATENCY_NS) | {"effective_test_mode": mode}
    del last["generated_query_count"], last["generated_samples_per_query"]
    made = [("generated_query_count", 2), ("generated_samples_per_query", 8)]
    made += [("generated_query_count", 11), ("generated_samples_per_query", 1)]
    lines = [entry(key, value) for key, value in (*made, *last.items())]
    known = record("Server", asked={}, issued=issued, latency_ns=None)

    assert rules(check_log(write_detail(tmp_path, *lines), record=known)) == found


@pytest.mark.parametrize(
    ("key", "value", "twice"),
    [(P90, 1, True), ("effective_min_duration_ms", 2, True), (P90, None, False), ("generic_message", "on", False)],
)
def test_what_loadgen_writes_once_has_one_value(tmp_path: Path, key: str, value: Any, twice: bool) -> None:
    last = performance("SingleStream", LATENCY_NS) | {"generic_message": "done"}
    lines = [entry(key, last[key] if value is None else value), *(entry(*each) for each in last.items())]

    assert rules(check_log(write_detail(tmp_path, *lines))) == [(LogRule.TWICE, key)] * twice

    lines.append(entry("effective_test_mode", "FindPeakPerformance"))
    assert LogRule.TWICE not in dict(rules(check_log(write_detail(tmp_path, *lines))))


@pytest.mark.parametrize("name", ["queue", "infer", "residual"])
@pytest.mark.parametrize(("least_ns", "agree"), [(-50_000, True), (-50_001, False)])
def test_a_stage_below_50_us_in_one_sample_is_of_another_clock(
    tmp_path: Path, name: str, least_ns: int, agree: bool
) -> None:
    detail = write(tmp_path, performance("Offline", LATENCY_NS))

    found = check_log(detail, record=record("Offline", stages_ns=stages(least_ns, name)))

    assert rules(found) == ([] if agree else [(LogRule.CLOCK, name)])


def bounded(scenario: str, below_ns: int, above_ns: int, **changes: Any) -> Record:
    """A record without a trace, whose ledger has each latency between so much less and so much more than the log."""
    least, most = np.array(LATENCY_NS) - below_ns, np.array(LATENCY_NS) + above_ns
    return record(scenario, latency_ns=None, bounds_ns=(least, most), **changes)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_an_untraced_log_within_the_ledgers_bounds_is_sound(tmp_path: Path, scenario: str) -> None:
    detail = write(tmp_path, performance(scenario, LATENCY_NS))

    assert check_log(detail, record=bounded(scenario, 0, 0)) == []
    assert check_log(detail, record=bounded(scenario, -50_000, -50_000)) == [], "a clock that is slewed"


@pytest.mark.parametrize("scenario", SCENARIOS)
@pytest.mark.parametrize(("below_ns", "above_ns"), [(-50_001, 1_000_000), (0, -50_001)], ids=["faster", "slower"])
def test_a_log_without_a_trace_and_a_ledger_that_is_off_do_not_agree(
    tmp_path: Path, scenario: str, below_ns: int, above_ns: int
) -> None:
    detail = write(tmp_path, performance(scenario, LATENCY_NS))

    found = check_log(detail, record=bounded(scenario, below_ns, above_ns))

    told = [finding.field for finding in found if finding.rule == LogRule.UNTRACED]
    keys = latency_keys(scenario)
    # Server's queries may be asked late, but hardly half of them.
    assert told == ([keys["p50"]] if scenario == "Server" and below_ns == 0 else [*keys.values()])
    assert len(told) == len(found)


def test_where_server_asks_ever_later_its_median_may_be_as_late_as_its_schedule_ends(tmp_path: Path) -> None:
    detail = write(tmp_path, performance("Server", LATENCY_NS))
    median = latency_keys("Server")["p50"]

    def found(late_ns: int) -> list[tuple[Rule, str]]:
        last = STARTED_NS + 1_000_000 + 990_000_000 + late_ns
        known = bounded("Server", 300_000, -250_000, last_ns=last, last_done_ns=last + LATENCY_NS[-1])
        return [each for each in rules(check_log(detail, record=known)) if each[0] == LogRule.UNTRACED]

    assert found(200_001) == []
    assert found(199_999) == [(LogRule.UNTRACED, median)]


def test_the_log_of_a_faster_run_is_not_that_of_the_ledger(tmp_path: Path) -> None:
    detail = write(tmp_path, performance("SingleStream", [each // 2 for each in LATENCY_NS]))

    found = check_log(detail, record=bounded("SingleStream", 10_000, 10_000))

    assert {finding.rule for finding in found} == {LogRule.UNTRACED}
    assert found[0].contradicts
    assert str(found[0]) == (
        "LoadGen's percentiles and the ledger do not agree (mlperf_log_detail.txt, result_min_latency_ns: got 500000, "
        "expected 940000 to 1060000 (the ledger))"
    )


def test_of_a_search_only_the_last_run_is_in_the_log_and_bounds_say_nothing(tmp_path: Path) -> None:
    detail = write(tmp_path, performance("Server", LATENCY_NS) | {"effective_test_mode": "FindPeakPerformance"})

    found = check_log(detail, record=bounded("Server", -(10**9), 10**9, asked={}))

    assert LogRule.UNTRACED not in {finding.rule for finding in found}


def test_a_record_is_what_the_ledger_has() -> None:
    ledger = Ledger(LedgerShape.of(3, stages=("infer", "complete")))
    ledger.words[Counter.RUN_START_SYSTEM_NS], ledger.words[Counter.ISSUED] = 5, 3
    for number in range(3):
        ledger.issue(number, [0], 10 + number)
        ledger.batch(2 - number, [(number, 1)], 0, [0, 0, 0, 20 + number], 0)

    known = record_of(ledger, {}, None, None)

    assert (known.issued, known.started_ns, known.first_ns, known.last_ns, known.last_done_ns) == (3, 5, 10, 12, 22)
    ledger.words[Counter.ISSUED] = 4
    assert (record_of(ledger, {}, None, None).last_ns, record_of(ledger, {}, None, None).last_done_ns) == (None, None)


def test_every_error_is_told_and_no_contradiction(tmp_path: Path) -> None:
    detail = write_detail(
        tmp_path,
        *[entry(key, value) for key, value in performance("Offline", LATENCY_NS).items()],
        entry("error_runtime", "Ending early: too late", is_error=True),
        entry("other", "x", True),
    )

    found = check_log(detail)

    assert [(finding.field, finding.got, finding.contradicts) for finding in found] == [
        ("error_runtime", "Ending early: too late", False),
        ("other", "x", False),
    ]


def test_a_log_without_an_end_is_told_and_nothing_more(tmp_path: Path) -> None:
    detail = write(tmp_path, performance("Offline", LATENCY_NS) | {"num_errors": None, "result_query_count": 5})

    [finding] = check_log(detail, record=record("Server"))

    assert finding.contradicts
    assert "has no end: the run was cut short or the disk is full" in str(finding)


@pytest.mark.parametrize("name", OFFICIAL_SEEDS)
@pytest.mark.parametrize("off_by", [1, -1])
def test_a_foreign_seed_is_told_with_both_values(tmp_path: Path, name: str, off_by: int) -> None:
    seed = OFFICIAL_SEEDS[name] + off_by
    detail = write(tmp_path, performance("Offline", LATENCY_NS) | {f"effective_{name}": seed})

    [finding] = check_log(detail)

    assert (finding.rule, finding.field, finding.contradicts) == (LogRule.SEED, name, False)
    assert (finding.got, finding.expected) == (str(seed), str(OFFICIAL_SEEDS[name]))


def test_seeds_are_those_of_one_round_and_of_ours_where_it_matters(tmp_path: Path) -> None:
    earlier = {f"effective_{name}": seed for name, seed in SEEDS_V6_0.items()}
    detail = write(tmp_path, performance("Offline", LATENCY_NS) | earlier)
    mixed = write(tmp_path, performance("Offline", LATENCY_NS) | dict(list(earlier.items())[:1]))

    assert check_log(detail) == []
    assert len(check_log(detail, seeds=[OFFICIAL_SEEDS])) == 3
    assert len(check_log(mixed)) == 1


def summary_of(entries: dict[str, Any], rate: str) -> dict[str, str]:
    """What LoadGen's summary says of the same run; ``rate`` as it prints it."""
    query, per_query = ("query_", "per_query_") if entries["effective_scenario"] == "MultiStream" else ("", "")
    names = {
        "Scenario": "effective_scenario", "Mode": "effective_test_mode", "Result is": "result_validity",
        "samples_per_query": "effective_samples_per_query", "target_latency (ns)": "effective_target_latency_ns",
        "min_duration (ms)": "effective_min_duration_ms", "min_query_count": "effective_min_query_count",
        "performance_sample_count": "effective_performance_sample_count",
        "Min latency (ns)": f"result_min_{query}latency_ns", "Max latency (ns)": f"result_max_{query}latency_ns",
        **{f"{share} percentile latency (ns)": f"result_{share}_percentile_{per_query}latency_ns"
           for share in ("50.00", "90.00", "95.00", "97.00", "99.00", "99.90")},
    }  # fmt: skip
    found = {name: str(entries[key]) for name, key in names.items()}
    return found | {"Offline": {"Samples per second": rate}, "Server": {"Completed samples per second": rate}}.get(
        entries["effective_scenario"], {}
    )


RATES = {"Offline": "90991.8", "Server": "99.89"}


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_summary_is_the_detail_log_in_every_field(tmp_path: Path, scenario: str) -> None:
    entries = performance(scenario, LATENCY_NS)
    detail = write(tmp_path, entries)
    summary = summary_of(entries, RATES.get(scenario, ""))

    assert check_log(detail, summary) == []
    for field in summary:
        changed = f"{float(summary[field]) * 1.001:.6g}" if "per second" in field else f"{summary[field]}1"
        for other in ({**summary, field: changed}, {name: text for name, text in summary.items() if name != field}):
            assert rules(check_log(detail, other)) == [(LogRule.SUMMARY, field)]


def test_an_accuracy_runs_logs_have_no_results_to_compare() -> None:
    values = {"effective_test_mode": "AccuracyOnly", "power_end": "11-28-2026 05:30:11.581"}

    assert check_log(Detail(values, ()), {}) == []


def test_a_summary_is_read_by_what_stands_before_the_colon(tmp_path: Path) -> None:
    (tmp_path / SUMMARY).write_text("====\nScenario : Server\nmin_duration (ms): 500\n * Run successful.\n")

    assert read_summary(tmp_path) == {"Scenario": "Server", "min_duration (ms)": "500"}
    with pytest.raises(ValueError, match=SUMMARY):
        read_summary(tmp_path / "nowhere")
