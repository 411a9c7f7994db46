"""What LoadGen 6.0 writes into every detail log, so that nothing can be left out of one.

By official logs of 6.0.9 and 6.0.10, and by own ones of 6.0.17, of all scenarios and both modes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

_SEEDS = "qsl_rng_seed sample_index_rng_seed schedule_rng_seed accuracy_log_rng_seed"
_FLAGS = "print_timestamps performance_issue_unique performance_issue_same sample_concatenate_permutation"
_SHARED = f"""
    min_duration_ms max_duration_ms min_query_count max_query_count {_SEEDS} accuracy_log_sampling_target
    performance_issue_same_index
"""
_REQUESTED = "performance_sample_count_override accuracy_sample_count_override"
_EFFECTIVE = """
    samples_per_query target_latency_ns max_async_queries target_duration_ms min_sample_count performance_sample_count
    accuracy_sample_count
"""
_BY_SCENARIO = {
    "SingleStream": ("", "single_stream_expected_latency_ns single_stream_target_latency_percentile"),
    "MultiStream": (
        "multi_stream_samples_per_query",
        "multi_stream_expected_latency_ns multi_stream_target_latency_percentile",
    ),
    "Server": (
        "server_target_latency_ns server_max_async_queries server_num_issue_query_threads",
        "server_target_qps server_target_latency_percentile",
    ),
    "Offline": ("", "offline_expected_qps"),
}
"""What only one scenario is asked for: whole numbers, and such as it prints with six digits (``1e+07``)."""
_SHARES = ("50.00", "90.00", "95.00", "97.00", "99.00", "99.90")
_RATES = {
    "SingleStream": "result_qps_with_loadgen_overhead result_qps_without_loadgen_overhead",
    "Server": "result_scheduled_samples_per_sec result_completed_samples_per_sec",
    "Offline": "result_samples_per_second",
}
_ESTIMATES = {
    "SingleStream": "early_stopping_latency_ss early_stopping_latency_ms",
    "MultiStream": "early_stopping_latency_ms",
    "Server": "result_overlatency_query_count",
}


def missing(values: dict[str, Any], scenario: str, measured: bool) -> list[str]:
    """The entries that a log lacks, or has as something that LoadGen never writes. ``measured``: performance mode."""
    wanted: dict[str, type] = dict.fromkeys(_words("", "loadgen_version test_datetime sut_name qsl_name"), str)
    for prefix in ("requested", "effective"):
        wanted |= dict.fromkeys(_words(prefix, "scenario test_mode"), str)
        wanted |= dict.fromkeys(_words(prefix, _FLAGS), bool)
        wanted |= dict.fromkeys(_words(prefix, _SHARED), int)
        wanted |= dict.fromkeys(_words(prefix, "accuracy_log_probability"), float)
    whole, others = _BY_SCENARIO.get(scenario, ("", ""))
    if scenario == "Server":
        wanted |= {"requested_server_coalesce_queries": bool}
    wanted |= dict.fromkeys(_words("requested", f"{whole} {_REQUESTED}"), int)
    wanted |= dict.fromkeys(_words("requested", others), float)
    wanted |= dict.fromkeys(_words("effective", _EFFECTIVE), int)
    wanted |= dict.fromkeys(_words("effective", "target_qps target_latency_percentile"), float)
    counts = "qsl_reported_total_count qsl_reported_performance_count generated_query_count"
    wanted |= dict.fromkeys(_words("", f"{counts} generated_samples_per_query generated_query_duration"), int)
    wanted |= dict.fromkeys(_words("", "power_begin power_end"), str)
    if measured:
        wanted |= _results(scenario)
    # Which is empty in Offline.
    told = [] if not measured or isinstance(values.get("early_stopping_result"), str) else ["early_stopping_result"]
    return [key for key, kind in wanted.items() if not _is(values.get(key), kind)] + told


def _results(scenario: str) -> dict[str, type]:
    met = "result_min_duration_met result_min_queries_met early_stopping_met"
    latencies = [*_latencies("")] + ([*_latencies("query_")] if scenario == "MultiStream" else [])
    return {
        "result_validity": str,
        **dict.fromkeys(_words("", met + " result_perf_constraints_met" * (scenario == "Server")), bool),
        **dict.fromkeys(_words("", f"result_query_count num_errors {_ESTIMATES.get(scenario, '')}"), int),
        **dict.fromkeys(_words("", _RATES.get(scenario, "")), float),
        **dict.fromkeys(latencies, int),
    }


def _latencies(query: str) -> Iterator[str]:
    yield from (f"result_{name}_{query}latency_ns" for name in ("min", "max", "mean"))
    per = f"per_{query}" if query else ""
    yield from (f"result_{share}_percentile_{per}latency_ns" for share in _SHARES)


def _words(prefix: str, names: str) -> list[str]:
    return [f"{prefix}_{name}" if prefix else name for name in names.split()]


def _is(value: object, kind: type) -> bool:
    if kind is str:
        return isinstance(value, str) and bool(value)
    if kind is float:
        return type(value) in (int, float) and math.isfinite(value)  # type: ignore[arg-type]
    return type(value) is kind
