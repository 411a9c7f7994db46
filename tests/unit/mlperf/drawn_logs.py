"""LoadGen's logs of runs that are drawn: all figures follow from latencies, schedules and settings, as in LoadGen."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sut.config import SCENARIOS
from sut.mlperf.logs import DETAIL, OFFICIAL_SEEDS, SUMMARY
from tests.unit.loadgen_logs import PERCENTILES, entry, figures

WRAPS = 2**64


@dataclass
class Drawn:
    """A detail log's entries, when LoadGen came to them, and the summary's lines before and after the colon."""

    entries: dict[str, Any]
    at_ms: dict[str, float]
    summary: dict[str, str] = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        lines = [entry(key, value, time_ms=self.at_ms.get(key, 1.5)) for key, value in self.entries.items()]
        (folder / DETAIL).write_text("".join(lines))
        (folder / SUMMARY).write_text("".join(f"{name} : {text}\n" for name, text in self.summary.items()))


def draw(rng: random.Random) -> Drawn:
    """A run of any scenario, VALID or not."""
    return {"SingleStream": _single, "MultiStream": _multi, "Server": _server, "Offline": _offline}[
        rng.choice(SCENARIOS)
    ](rng)


def _latencies(rng: random.Random, count: int) -> list[int]:
    typical, spread = rng.uniform(2e5, 8e8), rng.uniform(0.1, 0.6)
    return [int(typical * (1 + rng.expovariate(1 / spread))) for _ in range(count)]


def _left_out(queries: int, percentile: float) -> int:
    """The rank from the top of the latency that is the estimate; 0 for too few queries."""
    total, most = 0.0, 0
    for late in range(queries):
        ways = math.lgamma(queries + 1) - math.lgamma(late + 1) - math.lgamma(queries - late + 1)
        total += math.exp(ways + late * math.log(1 - percentile) + (queries - late) * math.log(percentile))
        if total > 0.01:
            return most
        most = late
    return most


def _estimate(latencies: list[int], percentile: float) -> int:
    top = _left_out(len(latencies), percentile)
    return sorted(latencies)[-top] if top else 0


def _words(latencies: list[int], percentile: float, fewest: int) -> str:
    count, top = len(latencies), _left_out(len(latencies), percentile)
    if not top:
        return f" * Only processed {count} queries.  * Need to process at least {fewest} queries for early stopping."
    return (
        f" * Processed at least {fewest} queries ({count}).  * Would discard {top - 1} highest latency queries.  "
        f"* Early stopping {100 * percentile:.0f}.0th percentile estimate: {_estimate(latencies, percentile)}"
    )


def _six(rate: float) -> float:
    return float(f"{rate:.6g}")


def _single(rng: random.Random) -> Drawn:
    latencies = _latencies(rng, rng.choice([rng.randint(20, 63), rng.randint(64, 661), rng.randint(662, 3000)]))
    count = len(latencies)
    issued_ns = sum(latencies[:-1]) + (count - 1) * rng.randint(100, 40_000)
    own = {
        "result_qps_with_loadgen_overhead": _six((count - 1) * 1e9 / issued_ns),
        "result_qps_without_loadgen_overhead": _six(1e9 / (sum(latencies) // count)),
        "early_stopping_latency_ss": _estimate(latencies, 0.9),
        "early_stopping_latency_ms": _estimate(latencies, 0.99),
    }
    stopping = (count >= 64, _words(latencies, 0.9, 64))
    drawn = _run(rng, "SingleStream", count, 1, issued_ns, issued_ns + latencies[-1], stopping, own)
    drawn.entries |= figures(latencies) | {"result_mean_latency_ns": sum(latencies) // count}
    return summed(drawn)


def _multi(rng: random.Random) -> Drawn:
    samples = [_latencies(rng, 8) for _ in range(rng.choice([rng.randint(100, 661), rng.randint(662, 2000)]))]
    typical = rng.uniform(1, 100)
    samples = [[int(each / typical) for each in query] for query in samples]
    queries, flat = [max(query) for query in samples], [each for query in samples for each in query]
    count = len(queries)
    issued_ns = sum(queries[:-1]) + count * rng.randint(100, 40_000)
    own = {"early_stopping_latency_ms": _estimate(queries, 0.99)}
    stopping = (count >= 662, _words(queries, 0.99, 662))
    drawn = _run(rng, "MultiStream", count, 8, issued_ns, issued_ns + queries[-1], stopping, own)
    drawn.entries |= figures(queries, "query_") | {"result_mean_query_latency_ns": sum(queries) // count}
    drawn.entries |= figures(flat) | {"result_mean_latency_ns": sum(flat) // len(flat)}
    return summed(drawn)


def _server(rng: random.Random) -> Drawn:
    """One queue, one server: queries wait for those before them."""
    count, service_ns = rng.randint(300, 2500), rng.uniform(1e5, 5e6)
    gap_ns = service_ns / rng.uniform(0.2, 0.9)
    at, free, latencies = 0.0, 0.0, []
    for number in range(count):
        at += rng.expovariate(1 / gap_ns) if number else 0.0
        free = max(at, free) + service_ns * rng.uniform(0.8, 1.2)
        latencies.append(int(free - at))
    ordered = sorted(latencies)
    bound = ordered[int(count * rng.choice([0.97, 0.985, 0.993, 0.998]))] if rng.random() < 0.7 else 2 * ordered[-1]
    late = sum(each > bound for each in latencies)
    met = _left_out(count, 0.99) >= late and _chance_of_none(count) <= 0.01
    own = {
        "result_perf_constraints_met": ordered[int(count * 0.99)] <= bound,
        "result_overlatency_query_count": late,
        "result_scheduled_samples_per_sec": _six((count - 1) * 1e9 / at),
        "result_completed_samples_per_sec": _six((count - 1) * 1e9 / (at + latencies[-1])),
    }
    words = " * Run successful." if met else f" * Run unsuccessful.  * Processed {count} queries."
    drawn = _run(rng, "Server", count, 1, at, free, (met, words), own)
    drawn.entries |= figures(latencies) | {"result_mean_latency_ns": sum(latencies) // count}
    drawn.entries["effective_target_latency_ns"] = bound
    return summed(drawn)


def _chance_of_none(count: int) -> float:
    return 0.99**count


def _offline(rng: random.Random) -> Drawn:
    """Samples are answered at an even pace; the sum of many long latencies passes LoadGen's 64 bits."""
    samples = rng.choice([rng.randint(2000, 50_000), rng.randint(20_000_000, 60_000_000)])
    first, step = rng.randint(10**6, 10**9), rng.randint(5_000, 2 * 10**13 // samples)

    def at(rank: int) -> int:
        return first + step * rank

    most = at(samples - 1)
    total = samples * first + step * samples * (samples - 1) // 2
    drawn = _run(rng, "Offline", 1, samples, most, most, (True, ""), {})
    drawn.entries |= {
        "result_samples_per_second": _six(samples * 1e9 / most),
        "result_min_latency_ns": first,
        "result_max_latency_ns": most,
        "result_mean_latency_ns": total % WRAPS // samples,
        **{f"result_{name}_percentile_latency_ns": at(int(samples * share)) for name, share in PERCENTILES.items()},
    }
    return summed(drawn)


def _run(
    rng: random.Random,
    scenario: str,
    queries: int,
    each: int,
    issued_ns: float,
    done_ns: float,
    stopping: tuple[bool, str],
    own: Mapping[str, Any],
) -> Drawn:
    """What all logs have; ``issued_ns``: when what decides about min_duration was over."""
    least_ms = int(issued_ns / 1e6 * rng.choice([0.5, 0.9, 0.99, 1.1])) or 1
    fewest = rng.choice([1, queries, queries, queries + 1])
    long_enough, enough = issued_ns >= least_ms * 1e6, queries >= fewest
    generated_ms = rng.uniform(1, 50)
    early, words = stopping
    valid = long_enough and enough and early and own.get("result_perf_constraints_met", True)
    entries = {
        **{f"effective_{name}": seed for name, seed in OFFICIAL_SEEDS.items()},
        "test_datetime": "2026-11-28T05:30:00Z",
        "qsl_reported_total_count": 50_000,
        "effective_scenario": scenario,
        "effective_test_mode": "PerformanceOnly",
        "effective_samples_per_query": each,
        "effective_target_qps": _six(queries * each * 1e9 / issued_ns),
        "effective_target_latency_ns": 0,
        "effective_target_latency_percentile": 0.9 if scenario == "SingleStream" else 0.99,
        "effective_min_duration_ms": least_ms,
        "effective_min_query_count": fewest,
        "effective_min_sample_count": fewest * each,
        "effective_performance_sample_count": 1024,
        "generated_query_count": queries + (rng.randint(0, 5000) if scenario in ("SingleStream", "MultiStream") else 0),
        "generated_samples_per_query": each,
        "generated_query_duration": int(issued_ns),
        "power_begin": "11-28-2026 05:30:01.000",
        "power_end": "11-28-2026 05:40:01.000",
        "result_validity": "VALID" if valid else "INVALID",
        "result_min_duration_met": long_enough,
        "result_min_queries_met": enough,
        "early_stopping_met": early,
        "early_stopping_result": words,
        "result_query_count": queries,
        **own,
    }
    return Drawn(entries, {"generated_query_duration": generated_ms, "power_end": generated_ms + done_ns / 1e6 + 0.1})


def summed(drawn: Drawn) -> Drawn:
    """Its summary as its entries have it, and the end."""
    entries, scenario = drawn.entries, drawn.entries["effective_scenario"]
    query, per_query = ("query_", "per_query_") if scenario == "MultiStream" else ("", "")
    named = {
        "Scenario": "effective_scenario",
        "Mode": "effective_test_mode",
        "Result is": "result_validity",
        "Min latency (ns)": f"result_min_{query}latency_ns",
        "Max latency (ns)": f"result_max_{query}latency_ns",
        "Mean latency (ns)": f"result_mean_{query}latency_ns",
        **{
            f"{name} percentile latency (ns)": f"result_{name}_percentile_{per_query}latency_ns" for name in PERCENTILES
        },
        "samples_per_query": "effective_samples_per_query",
        "target_latency (ns)": "effective_target_latency_ns",
        "min_duration (ms)": "effective_min_duration_ms",
        "min_query_count": "effective_min_query_count",
        "performance_sample_count": "effective_performance_sample_count",
    }
    drawn.summary = {name: str(entries[key]) for name, key in named.items()}
    cents = {
        "QPS w/ loadgen overhead": "result_qps_with_loadgen_overhead",
        "QPS w/o loadgen overhead": "result_qps_without_loadgen_overhead",
        "Completed samples per second": "result_completed_samples_per_sec",
    }
    drawn.summary |= {name: f"{entries[key]:.2f}" for name, key in cents.items() if key in entries}
    if scenario == "Offline":
        drawn.summary["Samples per second"] = f"{entries['result_samples_per_second']:.6g}"
    entries["num_errors"] = 0
    return drawn
