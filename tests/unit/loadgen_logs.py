"""LoadGen's logs as text, small, of runs that never were."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sut.mlperf.early import left_out
from sut.mlperf.logs import DETAIL, OFFICIAL_SEEDS, Detail, read_detail

PERCENTILES = {"50.00": 0.5, "90.00": 0.9, "95.00": 0.95, "97.00": 0.97, "99.00": 0.99, "99.90": 0.999}


def entry(key: str, value: Any, is_error: bool = False, time_ms: float = 1.5) -> str:
    facts = {"key": key, "value": value, "time_ms": time_ms, "metadata": {"is_error": is_error, "is_warning": False}}
    return f":::MLLOG {json.dumps(facts)}\n"


def write_detail(directory: Path, *lines: str) -> Detail:
    (directory / DETAIL).write_text("".join(lines))
    return read_detail(directory)


SEEDS = [entry(f"effective_{name}", seed) for name, seed in OFFICIAL_SEEDS.items()]
END = entry("num_errors", 0)


def figures(latency_ns: list[int], query: str = "") -> dict[str, int]:
    """Least, percentiles and most, by LoadGen's keys; ``query`` as in MultiStream's own keys."""
    ordered = sorted(latency_ns)
    per = f"per_{query}" if query else ""
    return {
        f"result_min_{query}latency_ns": ordered[0],
        f"result_max_{query}latency_ns": ordered[-1],
        **{
            f"result_{name}_percentile_{per}latency_ns": ordered[int(len(ordered) * share)]
            for name, share in PERCENTILES.items()
        },
    }


def performance(scenario: str, latency_ns: list[int]) -> dict[str, Any]:
    """A VALID run's entries: ``latency_ns`` of each query, in Offline of each sample."""
    count, most = len(latency_ns), max(latency_ns)
    tops = {share: left_out(count, share) for share in (0.9, 0.99)}
    own: dict[str, dict[str, Any]] = {
        "SingleStream": {"early_stopping_latency_ss": sorted(latency_ns)[-(tops[0.9] or 2)]},
        "MultiStream": {
            "early_stopping_latency_ms": sorted(latency_ns)[-(tops[0.99] or 1)],
            **figures(latency_ns, "query_"),
        },
        "Server": {
            "result_perf_constraints_met": True,
            "result_scheduled_samples_per_sec": 100.0,
            "result_completed_samples_per_sec": float(
                f"{(count - 1) / ((count - 1) / 100 + latency_ns[-1] / 1e9):.6g}"
            ),
        },
        "Offline": {"result_samples_per_second": float(f"{count * 1e9 / most:.6g}")},
    }
    samples = {"MultiStream": 8, "Offline": count}.get(scenario, 1)
    return {
        **{f"effective_{name}": seed for name, seed in OFFICIAL_SEEDS.items()},
        "test_datetime": "2026-11-28T05:30:00Z",
        "effective_scenario": scenario,
        "effective_test_mode": "PerformanceOnly",
        "effective_samples_per_query": samples,
        "effective_target_latency_ns": most if scenario == "Server" else 0,
        "effective_target_latency_percentile": 0.9 if scenario == "SingleStream" else 0.99,
        "effective_min_duration_ms": 1,
        "effective_min_query_count": 1 if scenario == "Offline" else count,
        "effective_performance_sample_count": 1024,
        "generated_query_count": 1 if scenario == "Offline" else count,
        "generated_samples_per_query": samples,
        "result_validity": "VALID",
        "result_min_duration_met": True,
        "result_min_queries_met": True,
        "early_stopping_met": True,
        "early_stopping_result": "",
        "result_query_count": 1 if scenario == "Offline" else count,
        **own[scenario],
        **figures(latency_ns),
        "num_errors": 0,
    }


def write(directory: Path, entries: Mapping[str, Any]) -> Detail:
    """The detail log of these entries; those that are ``None`` are left out."""
    return write_detail(directory, *(entry(key, value) for key, value in entries.items() if value is not None))
