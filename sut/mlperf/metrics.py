"""What MLPerf compares by in each scenario, and percentiles as LoadGen counts them."""

from __future__ import annotations

import numpy as np

from sut.mlperf.logs import Int64Array

METRICS = {
    "SingleStream": ("early_stopping_p90_latency_ns", "early_stopping_latency_ss", False),
    "MultiStream": ("early_stopping_p99_query_latency_ns", "early_stopping_latency_ms", False),
    "Server": ("completed_samples_per_second", "result_completed_samples_per_sec", True),
    "Offline": ("samples_per_second", "result_samples_per_second", True),
}
"""Per scenario: the metric's name, LoadGen's key for it in the detail log, and whether higher is better."""
PERCENTILES = {"p50": 0.5, "p80": 0.8, "p90": 0.9, "p95": 0.95, "p97": 0.97, "p99": 0.99, "p99_9": 0.999}


def percentile_stats(values: Int64Array) -> dict[str, int | None]:
    """``latency_ns`` of result.json. Percentile p is the value at rank n x p, as LoadGen counts."""
    if len(values) == 0:
        return dict.fromkeys(("mean", "min", *PERCENTILES, "max"))
    ordered = np.sort(values)
    ranks = {name: min(int(len(ordered) * share), len(ordered) - 1) for name, share in PERCENTILES.items()}
    at = {name: int(ordered[rank]) for name, rank in {"min": 0, **ranks, "max": -1}.items()}
    return {"mean": int(ordered.mean()), **at}


ROUNDED = 1e-5
"""LoadGen prints rates with six digits."""


def latency_keys(scenario: str) -> dict[str, str]:
    """LoadGen's keys by our names of the latency figures, ascending: per query in MultiStream, else per sample.

    >>> latency_keys("MultiStream")["p99"]
    'result_99.00_percentile_per_query_latency_ns'
    """
    query, per_query = ("query_", "per_query_") if scenario == "MultiStream" else ("", "")
    shares = {name: share for name, share in PERCENTILES.items() if name != "p80"}
    return {
        "min": f"result_min_{query}latency_ns",
        **{name: f"result_{100 * share:.2f}_percentile_{per_query}latency_ns" for name, share in shares.items()},
        "max": f"result_max_{query}latency_ns",
    }


def rounded(low: float, high: float) -> tuple[float, float]:
    """Bounds of a rate that LoadGen has rounded."""
    return low * (1 - ROUNDED), high * (1 + ROUNDED)
