"""Whether a LoadGen log is possible and valid: pure rules over what it says.

A log can be judged alone, whoever made it; against its summary; and against a ``Record``, what this side knows of the
run. Each rule holds in every log that LoadGen 6.0 writes, by its source and by logs of all scenarios, modes and
verdicts; what follows from its figures by arithmetic is in ``laws.py``. Rates are compared to LoadGen's six digits.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sut.mlperf import official
from sut.mlperf.finding import Finding, Rule, Severity
from sut.mlperf.laws import estimate_bounds, laws, ranks
from sut.mlperf.logs import DETAIL, KNOWN_SEEDS, SUMMARY, TRACE, Detail, Int64Array
from sut.mlperf.metrics import METRICS, ROUNDED, latency_keys, percentile_stats, rounded
from sut.mlperf.summary import rates, repeated

LEAST_STAGE_NS = -50_000
"""Stamps are taken in order from one clock, so a stage below this was stamped by another one, or is another run's."""

_DATETIME = "%Y-%m-%dT%H:%M:%SZ"
_TWO_DECIMALS = 0.00501
"""The summary has only those of Server's rate."""


class LogRule(Rule):
    """What a finding about one log is about."""

    ERROR = "LoadGen logged an error", Severity.INVALID
    SEED = "the seeds are not the official ones", Severity.INVALID
    END = "LoadGen's log has no end: the run was cut short or the disk is full"
    ASKED = "LoadGen's log is not of the run that was asked for"
    STARTED = "LoadGen's log is another run's"
    COUNT = "LoadGen and the ledger do not count the same"
    METRIC = "the metric is missing or contradicts the log"
    ORDER = "the percentiles are not in order"
    LATENCY = "LoadGen's log and its trace do not agree"
    UNTRACED = "LoadGen's percentiles and the ledger do not agree"
    VERDICT = "the verdict contradicts the log"
    TWICE = "an entry that LoadGen writes once stands there twice, with two values"
    SUMMARY = "LoadGen's two logs do not agree"
    CLOCK = "the ledger and LoadGen's clock do not agree"


@dataclass(frozen=True, slots=True)
class Record:
    """What this side knows of a run that came to its end. Times are ns of the system clock.

    ``asked``: what LoadGen was told, by the detail log's keys. ``started_ns``: before LoadGen was called;
    ``first_ns``, ``last_ns``: when the first and the last sample were issued, ``last_done_ns``: when the last was
    answered, None where the ledger has not recorded so many. ``latency_ns`` int64: LoadGen's trace, per query in
    MultiStream and per sample elsewhere, None without a trace; ``fastest_ns``: of each query's fastest sample.
    ``bounds_ns``: the least and the most that each latency can be, as the ledger has it, for a run without a trace.
    """

    asked: Mapping[str, Any]
    issued: int
    started_ns: int
    first_ns: int
    last_ns: int | None
    last_done_ns: int | None
    latency_ns: Int64Array | None
    stages_ns: Mapping[str, Int64Array] | None
    fastest_ns: Int64Array | None = None
    bounds_ns: tuple[Int64Array, Int64Array] | None = None


def check_log(
    detail: Detail,
    summary: Mapping[str, str] | None = None,
    record: Record | None = None,
    seeds: Sequence[Mapping[str, int]] = KNOWN_SEEDS,
) -> list[Finding]:
    """What is wrong with a run's log, whoever made it; empty if nothing.

    ``summary`` and ``record`` are looked at where there are any; ``seeds`` are those of the rounds that it may be of.
    Of a log without an end, and of one that is another run's, nothing more is told.
    """
    found = [*_errors(detail), *_seeds(detail, seeds)]
    if not detail.complete:
        return [*found, Finding(LogRule.END, DETAIL, "num_errors", "nothing", "LoadGen's last entry")]
    clock = [] if record is None or record.stages_ns is None else list(_clock(record.stages_ns))
    if record is not None and (other := [*_asked(detail, record.asked), *_started(detail, record)]):
        return [*found, *other, *clock]
    found += _twice(detail)
    measured = detail.values.get("effective_test_mode") != "AccuracyOnly"
    if measured:
        found += [*_metric(detail), *_order(detail), *_verdict(detail), *laws(detail)]
        if summary is not None:
            found += _summary(detail, summary)
    if record is not None:
        found += _counts(detail, record)
        if measured:
            found += [*_latencies(detail, record), *_untraced(detail, record), *_served(detail, record)]
    return [*found, *clock]


def _errors(detail: Detail) -> Iterator[Finding]:
    for error in detail.errors:
        key, _, text = error.partition(": ")
        yield Finding(LogRule.ERROR, DETAIL, key, text, "none")


def _seeds(detail: Detail, rounds: Sequence[Mapping[str, int]]) -> list[Finding]:
    """Foreign seeds: those that differ from the round which the log comes closest to."""
    by_round = [
        [
            Finding(LogRule.SEED, DETAIL, name, _text(got), str(seed))
            for name, seed in seeds.items()
            if (got := detail.values.get(f"effective_{name}")) is not None and got != seed
        ]
        for seeds in rounds
    ]
    return min(by_round, key=len)


def _twice(detail: Detail) -> Iterator[Finding]:
    """A search for the peak writes its results once for each rate that it tries."""
    if detail.values.get("effective_test_mode") != "FindPeakPerformance":
        for key, value in detail.earlier.items():
            got = f"{_text(value)} and {_text(detail.values[key])}"
            yield Finding(LogRule.TWICE, DETAIL, key, got, "one value")


def _asked(detail: Detail, asked: Mapping[str, Any]) -> Iterator[Finding]:
    for key, wanted in asked.items():
        got = detail.values.get(key)
        if not _same(got, wanted):
            yield Finding(LogRule.ASKED, DETAIL, key, _text(got), _text(wanted))


def _started(detail: Detail, record: Record) -> Iterator[Finding]:
    """LoadGen tells whole seconds, cut, of the local time, whatever its Z says."""
    got = detail.values.get("test_datetime")
    earliest, latest = record.started_ns // 10**9, record.first_ns // 10**9
    try:
        local = datetime.strptime(str(got), _DATETIME)
        possible = [local.replace(fold=fold).timestamp() for fold in (0, 1)]  # an hour may come twice
    except ValueError:
        possible = []
    if not any(earliest <= seconds <= latest for seconds in possible):
        first, last = (datetime.fromtimestamp(time).strftime(_DATETIME) for time in (earliest, latest))
        expected = first if first == last else f"{first} to {last}"
        yield Finding(LogRule.STARTED, DETAIL, "test_datetime", _text(got), expected)


def _counts(detail: Detail, record: Record) -> Iterator[Finding]:
    """In performance mode LoadGen may generate more than it issues; accuracy mode and a search issue it all."""
    if detail.values.get("effective_test_mode") == "PerformanceOnly":
        key = "result_query_count"
        queries = detail.number(key) or 0
        samples = queries * (detail.number("generated_samples_per_query") or 0)
        traced = None if record.latency_ns is None else len(record.latency_ns)
        logged = samples if detail.values.get("effective_scenario") == "Offline" else queries
        if traced is not None and traced != logged:
            yield Finding(LogRule.COUNT, DETAIL, key, f"{queries:g}", f"{traced} ({TRACE})")
    else:
        key, samples = "generated_query_count", detail.generated_samples
    if samples != record.issued:
        yield Finding(LogRule.COUNT, DETAIL, key, f"{samples:.0f} samples", f"{record.issued} samples (the ledger)")


def _metric(detail: Detail) -> Iterator[Finding]:
    scenario = str(detail.values.get("effective_scenario"))
    if scenario not in METRICS:
        return
    key = METRICS[scenario][1]
    value = detail.number(key)
    # An INVALID run may have too few queries for one; then LoadGen writes 0.
    if value is None or not math.isfinite(value) or value < 0 or (value == 0 and detail.valid):
        yield Finding(LogRule.METRIC, DETAIL, key, _text(detail.values.get(key)), "a number above 0")
    elif value and (bounds := _bounds(scenario, detail)) and not bounds[0] <= value <= bounds[1]:
        yield Finding(LogRule.METRIC, DETAIL, key, _text(detail.values[key]), _range(bounds))


def _bounds(scenario: str, detail: Detail) -> tuple[float, float] | None:
    """Between what the metric must be, by the rest of the log; None where that does not say.

    The early-stopping estimates are latencies of queries, at a rank that is known where their percentile is official.
    Offline's rate is its samples by the largest latency, Server's is its queries but one by the time from the first
    one's schedule to the last one's answer.
    """
    keys = latency_keys(scenario)
    least, most = detail.number(keys["min"]), detail.number(keys["max"])
    queries = detail.number("result_query_count")
    if least is None or most is None or queries is None or least < 0:
        return None
    if scenario == "Offline":
        rate = queries * (detail.number("generated_samples_per_query") or 0) * 1e9 / most if most > 0 else 0.0
        return rounded(rate, rate) if rate else None
    if scenario == "Server":
        scheduled = detail.number("result_scheduled_samples_per_sec")
        if not scheduled or queries < 2:
            return None
        seconds = (queries - 1) / scheduled
        return rounded((queries - 1) / (seconds + most / 1e9), (queries - 1) / (seconds + least / 1e9))
    known = ranks(detail, per_query=True)
    return (least, most) if known is None else estimate_bounds(detail, scenario, known)


def _served(detail: Detail, record: Record) -> Iterator[Finding]:
    """Server's rate by the ledger: LoadGen's time begins before the first call and ends after our last answer."""
    key = METRICS["Server"][1]
    rate, most = detail.number(key), detail.number("result_max_latency_ns")
    if detail.values.get("effective_scenario") != "Server" or not rate or most is None:
        return
    if detail.values.get("effective_test_mode") != "PerformanceOnly":
        return  # a search logs its best run, the ledger has all
    if record.last_ns is None or record.last_done_ns is None:
        return
    gaps = (record.issued - 1) * 1e9
    longest, shortest = record.last_ns + most - record.started_ns, record.last_done_ns - record.first_ns
    bounds = rounded(gaps / max(longest, 1), gaps / max(shortest, 1))
    if not bounds[0] <= rate <= bounds[1]:
        yield Finding(LogRule.METRIC, DETAIL, key, _text(rate), f"{_range(bounds)} (the ledger)")


def _order(detail: Detail) -> Iterator[Finding]:
    below, least = "0", 0.0
    for key in latency_keys(str(detail.values.get("effective_scenario"))).values():
        value = detail.number(key)
        if value is None:
            continue
        if value < least:
            yield Finding(LogRule.ORDER, DETAIL, key, _text(detail.values[key]), f"no less than {below}")
        below, least = f"{key} {detail.values[key]}", value


def _latencies(detail: Detail, record: Record) -> Iterator[Finding]:
    """To the nanosecond: LoadGen takes both from the same array, by the same rule.

    Only which of several samples ends a query of MultiStream is not the trace's to say: where lanes complete them at
    once, it is whose call LoadGen comes to last, and that may have been stamped before another.
    """
    if record.latency_ns is None:
        return
    scenario = str(detail.values.get("effective_scenario"))
    slowest = record.latency_ns
    fastest = slowest if record.fastest_ns is None else record.fastest_ns
    least, most = percentile_stats(fastest), percentile_stats(slowest)
    for name, key in latency_keys(scenario).items():
        got, low, high = detail.number(key), least[name], most[name]
        if got is None or low is None or high is None or not low <= got <= high:
            expected = f"{high}" if low == high else f"{low} to {high}"
            yield Finding(LogRule.LATENCY, DETAIL, key, _text(detail.values.get(key)), f"{expected} ({TRACE})")
    name, key, higher = METRICS[scenario]
    estimate = detail.number(key)
    if not higher and estimate and not ((fastest <= estimate) & (estimate <= slowest)).any():
        yield Finding(
            LogRule.LATENCY, DETAIL, key, _text(detail.values[key]), f"the latency of one of its queries ({TRACE})"
        )


def _untraced(detail: Detail, record: Record) -> Iterator[Finding]:
    """Without a trace: each percentile lies between those of the least and of the most that the latencies can be.

    That holds whatever LoadGen adds to single ones, as its order is theirs; ``LEAST_STAGE_NS`` is for a clock that is
    slewed. In Server, where LoadGen may ask late, only the median has an upper end: half of the queries are not asked
    so late that its schedule, whose length it tells, did not end late, too.
    """
    if record.bounds_ns is None or detail.values.get("effective_test_mode") != "PerformanceOnly":
        return
    scenario = str(detail.values.get("effective_scenario"))
    least, most = (percentile_stats(bound) for bound in record.bounds_ns)
    late = 0.0
    scheduled = detail.number("result_scheduled_samples_per_sec")
    if scenario == "Server" and scheduled and record.last_ns is not None:
        late = max(0.0, record.last_ns - record.first_ns - (record.issued - 1) * 1e9 / scheduled)
    for name, key in latency_keys(scenario).items():
        got, low, high = detail.number(key), least[name], most[name]
        top = math.inf if scenario == "Server" and name != "p50" else (high or 0) + late - LEAST_STAGE_NS
        bottom = (low or 0) + LEAST_STAGE_NS
        if got is None or not bottom <= got <= top:
            expected = f"{bottom} or more" if math.isinf(top) else f"{bottom} to {top:.0f}"
            yield Finding(LogRule.UNTRACED, DETAIL, key, _text(detail.values.get(key)), f"{expected} (the ledger)")


def _verdict(detail: Detail) -> Iterator[Finding]:
    """VALID is what meets all of LoadGen's conditions; those that the log's own figures decide are as it says."""
    values = detail.values
    names = ("result_min_duration_met", "result_min_queries_met", "result_perf_constraints_met", "early_stopping_met")
    flags = [values[name] for name in names if name in values]
    right = "VALID" if flags and all(flag is True for flag in flags) else "INVALID"
    if values.get("result_validity") != right:
        yield Finding(LogRule.VERDICT, DETAIL, "result_validity", _text(values.get("result_validity")), right)
    for name, met in _shown(detail).items():
        if name in values and values[name] is not met:
            yield Finding(LogRule.VERDICT, DETAIL, name, _text(values[name]), _text(met))


def _shown(detail: Detail) -> dict[str, bool]:
    """Whether conditions are met, as far as the log's own figures decide it."""
    scenario = detail.values.get("effective_scenario")
    shown: dict[str, bool] = {}
    queries, wanted = detail.number("result_query_count"), detail.number("effective_min_query_count")
    if queries is not None and wanted is not None and queries < wanted:
        shown["result_min_queries_met"] = False
    longest, shortest = detail.number("result_max_latency_ns"), detail.number("effective_min_duration_ms")
    if scenario == "Offline" and longest is not None and shortest is not None:
        shown["result_min_duration_met"] = longest >= shortest * 1e6
    p99, bound = detail.number("result_99.00_percentile_latency_ns"), detail.number("effective_target_latency_ns")
    # Where tokens are timed LoadGen judges those, and logs no early_stopping_result.
    at_p99 = detail.number("effective_target_latency_percentile") == official.PERCENTILES["Server"]
    whole = "early_stopping_result" in detail.values
    if scenario == "Server" and at_p99 and whole and p99 is not None and bound is not None:
        shown["result_perf_constraints_met"] = p99 <= bound
    return shown


def _summary(detail: Detail, summary: Mapping[str, str]) -> Iterator[Finding]:
    scenario = str(detail.values.get("effective_scenario"))
    rounded_too = rates(scenario)
    same = repeated(scenario) | rounded_too
    for field, key in same.items():
        wanted, got = detail.values.get(key), summary.get(field)
        agree = _is_rate(got, wanted) if field in rounded_too else got == str(wanted)
        if wanted is not None and not agree:
            yield Finding(LogRule.SUMMARY, SUMMARY, field, _text(got), f"{wanted} ({DETAIL}, {key})")


def _clock(stages_ns: Mapping[str, Int64Array]) -> Iterator[Finding]:
    for name, values in stages_ns.items():
        if len(values) and (least := int(values.min())) < LEAST_STAGE_NS:
            samples = int((values < LEAST_STAGE_NS).sum())
            got = f"{least / 1000:,.0f} us at the least, in {samples:,} samples"
            yield Finding(LogRule.CLOCK, "the ledger", name, got, f"no less than {LEAST_STAGE_NS / 1000:.0f} us")


def _same(got: object, wanted: object) -> bool:
    if isinstance(wanted, float) and isinstance(got, int | float):
        return math.isclose(got, wanted, rel_tol=ROUNDED)
    return got == wanted


def _is_rate(text: str | None, rate: object) -> bool:
    """Whether the summary's text is this rate; it has six digits, or two decimals."""
    try:
        return math.isclose(float(str(text)), float(str(rate)), rel_tol=ROUNDED, abs_tol=_TWO_DECIMALS)
    except ValueError:
        return False


def _range(bounds: tuple[float, float]) -> str:
    return f"{bounds[0]:.12g} to {bounds[1]:.12g}"


def _text(value: object) -> str:
    return "nothing" if value is None else str(value)
