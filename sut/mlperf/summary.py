"""LoadGen's summary: what it repeats of the detail log, and what can be judged where it is all that is left."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sut.mlperf import official
from sut.mlperf.logs import SUMMARY, Detail, read_lines, summary_fields
from sut.mlperf.metrics import METRICS, PERCENTILES, latency_keys

_PARAMETERS = re.compile(r"(\w+)(?: \(n?m?s\))?")
_SETTINGS = frozenset(
    (
        *("samples_per_query", "target_qps", "target_latency", "max_async_queries", "min_duration", "max_duration"),
        *("min_query_count", "max_query_count", "qsl_rng_seed", "sample_index_rng_seed", "schedule_rng_seed"),
        *("accuracy_log_rng_seed", "accuracy_log_probability", "accuracy_log_sampling_target"),
        *("performance_issue_unique", "performance_issue_same", "performance_issue_same_index"),
        *("performance_sample_count", "accuracy_sample_count"),
    )
)
_UNITS = {"target_latency": "target_latency_ns", "min_duration": "min_duration_ms", "max_duration": "max_duration_ms"}
MET = {
    "Performance constraints satisfied": "result_perf_constraints_met",
    "Min duration satisfied": "result_min_duration_met",
    "Min queries satisfied": "result_min_queries_met",
    "Early stopping satisfied": "early_stopping_met",
}
_PROCESSED = re.compile(r"[Pp]rocessed (?:at least \d+ queries \()?(\d+)")
_CENT = 0.005
"""Rates of SingleStream have two decimals."""


def repeated(scenario: str) -> dict[str, str]:
    """The detail log's keys by the summary's words, for what both have to the last digit."""
    keys = latency_keys(scenario)
    return {
        "Scenario": "effective_scenario",
        "Mode": "effective_test_mode",
        "Result is": "result_validity",
        "samples_per_query": "effective_samples_per_query",
        "target_latency (ns)": "effective_target_latency_ns",
        "min_duration (ms)": "effective_min_duration_ms",
        "min_query_count": "effective_min_query_count",
        "performance_sample_count": "effective_performance_sample_count",
        "Min latency (ns)": keys["min"],
        "Max latency (ns)": keys["max"],
        "Mean latency (ns)": keys["min"].replace("_min_", "_mean_"),
        **{f"{100 * PERCENTILES[p]:.2f} percentile latency (ns)": key for p, key in keys.items() if p in PERCENTILES},
    }


def rates(scenario: str) -> dict[str, str]:
    """The same for rates, which it rounds."""
    known = {
        "Offline": {"Samples per second": METRICS["Offline"][1]},
        "Server": {"Completed samples per second": METRICS["Server"][1]},
        "SingleStream": {
            "QPS w/ loadgen overhead": "result_qps_with_loadgen_overhead",
            "QPS w/o loadgen overhead": "result_qps_without_loadgen_overhead",
        },
    }
    return known.get(scenario, {})


def detail_of_summary(directory: Path) -> tuple[Detail, dict[str, str]]:
    """What a summary says, by the detail log's keys, and its own words by those. Raises ``ValueError``.

    What the summary rounds is left out, or so that no rounding makes a finding.
    """
    lines = read_lines(directory / SUMMARY)
    summary = summary_fields(lines)
    scenario, mode = summary.get("Scenario", ""), summary.get("Mode", "")
    if scenario not in METRICS:
        raise ValueError(f"{directory / SUMMARY}: no scenario that is known, got '{scenario[:80]}'")
    words = {key: field for field, key in (repeated(scenario) | MET).items()}
    for field in summary:
        named = _PARAMETERS.fullmatch(field)
        if named and named[1] in _SETTINGS:
            words.setdefault(f"effective_{_UNITS.get(named[1], named[1])}", field)
    values: dict[str, Any] = {key: _value(summary.get(field)) for key, field in words.items()}
    values |= {"effective_scenario": scenario, "effective_test_mode": mode}
    if values.get("result_min_queries_met") == "Skipped":
        values["result_min_queries_met"] = True
    values |= _counts(lines, scenario, values["effective_samples_per_query"])
    for field, text in summary.items():
        if found := re.fullmatch(r"\* Early stopping (90|99)(?:\.0)?th percentile estimate", field):
            key = METRICS["SingleStream" if found[1] == "90" else "MultiStream"][1]
            values[key], words[key] = _value(text), field
    for field, key in rates(scenario).items():
        rate = _value(summary.get(field))
        if scenario != "SingleStream":
            values[key], words[key] = rate, field
        elif "w/ " in field and isinstance(rate, int | float) and values.get("result_min_duration_met") is True:
            values[key], words[key] = rate - _CENT, field
    errors = tuple(line for line in lines if "ERROR" in line)
    if any("errors encountered" in line.lower() for line in lines):
        values["num_errors"] = len(errors)
    return Detail({key: value for key, value in values.items() if value is not None}, errors), words


def _counts(lines: Sequence[str], scenario: str, each: Any) -> dict[str, Any]:
    """Queries, which only early stopping tells of; and the percentile, where it is the official one."""
    if scenario == "Offline":
        return {"result_query_count": 1, "generated_samples_per_query": each}
    found: dict[str, Any] = {}
    told = " ".join(line.strip() for line in lines if line.startswith(" * "))
    if (processed := _PROCESSED.search(told)) and scenario != "Server":
        found = {"result_query_count": int(processed[1]), "early_stopping_result": told}
        found["generated_samples_per_query"] = each
    percentile = official.PERCENTILES[scenario]
    if any(line.startswith(f"{100 * percentile:.1f}th percentile latency") for line in lines):
        found["effective_target_latency_percentile"] = percentile
    return found


def _value(text: str | None) -> str | int | float | bool | None:
    if text is None or text in ("Yes", "NO"):
        return None if text is None else text == "Yes"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
