"""Logs of runs that never were, in the form that LoadGen writes them: steady systems, a little quicker in an audit."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import Any

DETAIL, SUMMARY = "mlperf_log_detail.txt", "mlperf_log_summary.txt"
ROLES = ("performance", "accuracy", "TEST01", "TEST04")
METRIC = {
    "SingleStream": "early_stopping_latency_ss",
    "MultiStream": "early_stopping_latency_ms",
    "Offline": "result_samples_per_second",
    "Server": "result_completed_samples_per_sec",
}
RATES = {
    "SingleStream": [
        ("QPS w/ loadgen overhead", "result_qps_with_loadgen_overhead", ".2f"),
        ("QPS w/o loadgen overhead", "result_qps_without_loadgen_overhead", ".2f"),
    ],
    "MultiStream": [],
    "Offline": [("Samples per second", "result_samples_per_second", "")],
    "Server": [("Completed samples per second", "result_completed_samples_per_sec", ".2f")],
}
"""What the summary calls them, by which entry, and in what form."""
SHARES = ("50.00", "90.00", "95.00", "97.00", "99.00", "99.90")
SECONDS = {"SingleStream": 600.01, "MultiStream": 600.4, "Offline": 660.0, "Server": 600.5}


REQUESTED: dict[str, dict[str, Any]] = {
    "SingleStream": {"single_stream_expected_latency_ns": 1500000, "single_stream_target_latency_percentile": 0.9},
    "MultiStream": {
        "multi_stream_expected_latency_ns": 10000000,
        "multi_stream_target_latency_percentile": 0.99,
        "multi_stream_samples_per_query": 8,
    },
    "Offline": {"offline_expected_qps": 250},
    "Server": {
        "server_target_qps": 100,
        "server_target_latency_ns": 15000000,
        "server_target_latency_percentile": 0.99,
        "server_coalesce_queries": False,
        "server_max_async_queries": 0,
        "server_num_issue_query_threads": 0,
    },
}
SAME = {
    "qsl_rng_seed": 2085463073848966840,
    "sample_index_rng_seed": 2747215439041700203,
    "schedule_rng_seed": 16159082839903944936,
    "accuracy_log_rng_seed": 0,
    "accuracy_log_probability": 0,
    "accuracy_log_sampling_target": 0,
    "print_timestamps": False,
    "performance_issue_unique": False,
    "performance_issue_same": False,
    "performance_issue_same_index": 0,
}
"""What is requested of all scenarios, and comes into effect."""
SAMPLES = {"SingleStream": 1, "MultiStream": 8, "Offline": 165000, "Server": 1}
QUERIES = {"SingleStream": 100, "MultiStream": 662, "Offline": 1, "Server": 100}
RATE = {"SingleStream": 666.667, "MultiStream": 100, "Offline": 250, "Server": 100}


def _settings(scenario: str, mode: str, began: datetime) -> dict[str, Any]:
    queries = QUERIES[scenario]
    return {
        "loadgen_version": "6.0.17 @ d6147c7eb7",
        "test_datetime": began.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "sut_name": "PyFastSUT",
        "qsl_name": "PyQSL",
        "qsl_reported_total_count": 50000,
        "qsl_reported_performance_count": 1024,
        "requested_scenario": scenario,
        "requested_test_mode": mode,
        **{f"requested_{name}": value for name, value in REQUESTED[scenario].items()},
        "requested_min_duration_ms": 600000,
        "requested_max_duration_ms": 0,
        "requested_min_query_count": 24576 if scenario == "Offline" else queries,
        "requested_max_query_count": 0,
        **{f"requested_{name}": value for name, value in SAME.items()},
        "requested_performance_sample_count_override": 1024,
        "requested_accuracy_sample_count_override": 0,
        "requested_sample_concatenate_permutation": False,
        "effective_scenario": scenario,
        "effective_test_mode": mode,
        "effective_samples_per_query": SAMPLES[scenario],
        "effective_target_qps": RATE[scenario],
        "effective_target_latency_ns": 15000000 if scenario == "Server" else 0,
        "effective_target_latency_percentile": 0.9 if scenario == "SingleStream" else 0.99,
        "effective_max_async_queries": 0 if scenario == "Server" else 1,
        "effective_target_duration_ms": 0 if scenario == "Offline" else 600000,
        "effective_min_duration_ms": 600000,
        "effective_max_duration_ms": 0,
        "effective_min_query_count": queries,
        "effective_max_query_count": 0,
        "effective_min_sample_count": queries * SAMPLES[scenario],
        **{f"effective_{name}": value for name, value in SAME.items()},
        "effective_performance_sample_count": 1024,
        "effective_accuracy_sample_count": 50000,
        "effective_sample_concatenate_permutation": False,
    }


def _power(began: datetime, seconds: float) -> dict[str, str]:
    times = {"power_begin": began, "power_end": began + timedelta(seconds=seconds)}
    return {name: time.strftime("%m-%d-%Y %H:%M:%S.%f")[:-3] for name, time in times.items()}


def as_yolo(entries: dict[str, Any]) -> dict[str, Any]:
    """The same run of MLPerf's detector: fewer pictures, fewer of them loaded, fewer answers sampled."""
    sampled = {key: 64 for key in entries if key.endswith("accuracy_log_sampling_target") and entries[key]}
    counts = {"qsl_reported_total_count": 1525, "effective_accuracy_sample_count": 1525}
    counts |= {"qsl_reported_performance_count": 64, "effective_performance_sample_count": 64}
    counts["requested_performance_sample_count_override"] = 64
    if entries["effective_test_mode"] == "AccuracyOnly":
        samples = {"MultiStream": 8, "Offline": 1525}.get(entries["effective_scenario"], 1)
        counts |= {"generated_query_count": -(-1525 // samples), "generated_samples_per_query": samples}
    elif entries["effective_scenario"] == "Offline":
        counts["requested_min_query_count"] = 1525
    return entries | counts | sampled


def accuracy(scenario: str, began: datetime) -> dict[str, Any]:
    """The entries of an accuracy run's log."""
    samples = {"MultiStream": 8, "Offline": 50000}.get(scenario, 1)
    return {
        **_settings(scenario, "AccuracyOnly", began),
        "generated_query_count": 50000 // samples,
        "generated_samples_per_query": samples,
        "generated_query_duration": 10000000,
        **_power(began, 250.5),
    }


def performance(scenario: str, role: str, began: datetime, quicker: int | None = None) -> dict[str, Any]:
    """The entries of a performance run's log, or an audit's, which was a little quicker, or by ``quicker``."""
    settings = _settings(scenario, "PerformanceOnly", began)
    audits: dict[str, dict[str, Any]] = {
        "TEST01": {"accuracy_log_rng_seed": 720381539243781796, "accuracy_log_sampling_target": 4096},
        "TEST04": {"performance_issue_same": True, "performance_issue_same_index": 3},
    }
    for name, value in audits.get(role, {}).items():
        settings |= {f"requested_{name}": value, f"effective_{name}": value}
    steps = ROLES.index(role) if quicker is None else quicker
    verdict = {"result_validity": "VALID", "result_min_duration_met": True, "result_min_queries_met": True}
    figures = {
        "SingleStream": _single_stream,
        "MultiStream": _multi_stream,
        "Offline": _offline,
        "Server": _server,
    }[scenario](steps)
    return {
        **settings,
        **figures.pop("generated"),
        **_power(began, SECONDS[scenario]),
        **verdict,
        **figures,
        "num_errors": 0,
    }


def _latencies(least: int, most: int, middle: int, query: str = "") -> dict[str, int]:
    """A steady system's: all near the middle, a few far out."""
    per = f"per_{query}" if query else ""
    near = {"50.00": 0, "90.00": 20, "95.00": 25, "97.00": 30, "99.00": 40, "99.90": 60}
    return {
        f"result_min_{query}latency_ns": least,
        f"result_max_{query}latency_ns": most,
        f"result_mean_{query}latency_ns": middle + middle // 500,
        **{f"result_{share}_percentile_{per}latency_ns": middle + middle * up // 1000 for share, up in near.items()},
    }


def _single_stream(number: int) -> dict[str, Any]:
    middle = 4_900_000 - 10_000 * number
    return {
        "generated": {
            "generated_query_count": 800001,
            "generated_samples_per_query": 1,
            "generated_query_duration": 1200001500000,
        },
        "early_stopping_met": True,
        "early_stopping_result": " * Processed at least 64 queries (121000). "
        " * Would discard 11856 highest latency queries. "
        f" * Early stopping 90.0th percentile estimate: {middle + middle * 21 // 1000}",
        "result_query_count": 121000,
        "result_qps_with_loadgen_overhead": 201.66,
        "result_qps_without_loadgen_overhead": float(f"{1e9 / (middle + middle // 500):.6g}"),
        "early_stopping_latency_ss": middle + middle * 21 // 1000,
        "early_stopping_latency_ms": middle + middle * 41 // 1000,
        **_latencies(middle - 200_000, 9_000_000, middle),
    }


def _multi_stream(number: int) -> dict[str, Any]:
    middle = 29_900_000 - 50_000 * number
    return {
        "generated": {
            "generated_query_count": 120001,
            "generated_samples_per_query": 8,
            "generated_query_duration": 1200010000000,
        },
        "early_stopping_met": True,
        "early_stopping_result": " * Processed at least 662 queries (20020). "
        " * Would discard 166 highest latency queries. "
        f" * Early stopping 99.0th percentile estimate: {middle + middle * 42 // 1000}",
        "result_query_count": 20020,
        **_latencies(28_000_000, 41_000_000, middle, "query_"),
        "early_stopping_latency_ms": middle + middle * 42 // 1000,
        **_latencies(27_900_000, 41_000_000, middle),
    }


def _offline(number: int) -> dict[str, Any]:
    longest = 660_000_000_000 - 500_000_000 * number
    shares = {"50.00": 50, "90.00": 90, "95.00": 95, "97.00": 97, "99.00": 99, "99.90": 99.9}
    return {
        "generated": {
            "generated_query_count": 1,
            "generated_samples_per_query": 165000,
            "generated_query_duration": 4000000000,
        },
        "early_stopping_met": True,
        "early_stopping_result": "",
        "result_query_count": 1,
        "result_samples_per_second": float(f"{165000e9 / longest:.6g}"),
        "result_min_latency_ns": 130_000_000,
        "result_max_latency_ns": longest,
        "result_mean_latency_ns": longest // 2,
        **{f"result_{name}_percentile_latency_ns": int(longest * share / 100) for name, share in shares.items()},
    }


def _server(number: int) -> dict[str, Any]:
    middle = 6_000_000 - 10_000 * number
    return {
        "generated": {
            "generated_query_count": 60100,
            "generated_samples_per_query": 1,
            "generated_query_duration": 600009000000,
        },
        "result_perf_constraints_met": True,
        "early_stopping_met": True,
        "early_stopping_result": " * Run successful.",
        "result_query_count": 60100,
        "result_overlatency_query_count": 12,
        "result_scheduled_samples_per_sec": 100.1,
        "result_completed_samples_per_sec": 100.099,
        **_latencies(4_700_000, 21_000_000, middle),
    }


def detail(entries: dict[str, Any]) -> str:
    """The detail log. What is told of a run's end is dated so."""
    about = {"is_error": False, "is_warning": False, "file": "loadgen.cc", "line_no": 1, "pid": 27, "tid": 27}
    point = {"namespace": "mlperf::logging", "event_type": "POINT_IN_TIME", "metadata": about}
    ended = 1000 * SECONDS[entries["effective_scenario"]] + 2600
    lines, time_ms = [], 0.02
    for key, value in entries.items():
        time_ms = {"generated_query_count": 2500.0, "power_end": ended}.get(key, time_ms)
        lines.append(f":::MLLOG {json.dumps({'key': key, 'value': value, 'time_ms': time_ms, **point})}\n")
    return "".join(lines)


def summary(entries: dict[str, Any]) -> str:
    """The summary of a detail log's entries."""
    end = "\nNo warnings encountered during test.\n\nNo errors encountered during test.\n"
    if entries["effective_test_mode"] == "AccuracyOnly":
        return end
    scenario = entries["effective_scenario"]
    query, per = ("query_", "per_query_") if scenario == "MultiStream" else ("", "")
    words = {
        **{f"{name} latency (ns)": f"result_{name.lower()}_{query}latency_ns" for name in ("Min", "Max", "Mean")},
        **{f"{share} percentile latency (ns)": f"result_{share}_percentile_{per}latency_ns" for share in SHARES},
        **{name: f"effective_{name}" for name in ("samples_per_query", "min_query_count", "performance_sample_count")},
        "target_latency (ns)": "effective_target_latency_ns",
        "min_duration (ms)": "effective_min_duration_ms",
    }
    lines = [
        "SUT name : PyFastSUT",
        f"Scenario : {scenario}",
        f"Mode     : {entries['effective_test_mode']}",
        *(f"{name} : {entries[key]:{form}}" for name, key, form in RATES[scenario] if key in entries),
        f"Result is : {entries.get('result_validity')}",
        *(f"{name} : {entries.get(key)}" for name, key in words.items()),
    ]
    return "\n".join(lines) + "\n" + end
