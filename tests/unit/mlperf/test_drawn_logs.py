"""Of 200 logs that are drawn, half with one field that no run of LoadGen's can have: none is missed, none accused."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

from sut.mlperf.judge_log import JudgeRule, judge_log
from tests.unit.mlperf.drawn_logs import WRAPS, Drawn, draw, summed

LOGS = 200
SEED = 13
P90, P99 = (f"result_{each}.00_percentile_latency_ns" for each in (90, 99))


def impossible(drawn: Drawn, rng: random.Random) -> Iterator[tuple[str, Any]]:
    """Fields with values that contradict the others, by what LoadGen defines them to be."""
    entries = drawn.entries
    scenario, count = entries["effective_scenario"], entries["result_query_count"]
    query, per = ("query_", "per_query_") if scenario == "MultiStream" else ("", "")
    least, most, mean = (f"result_{each}_{query}latency_ns" for each in ("min", "max", "mean"))
    ranked = [f"result_{share}_percentile_{per}latency_ns" for share in ("50.00", "90.00", "95.00", "97.00", "99.00")]
    # In order: each is a latency at a higher rank.
    yield least, entries[ranked[0]] + 1
    yield least, -1
    yield most, entries[ranked[-1]] - 1
    for lower, higher in pairwise(ranked):
        yield lower, entries[higher] + rng.randint(1, 1000)
        if entries[lower] > 1:
            yield higher, entries[lower] - 1
    # A mean of values between two that differ is neither of them; but a sum beyond 64 bits may leave any.
    whole = count * entries["generated_samples_per_query"] * entries[most] < WRAPS
    if whole and entries[least] + 2 < entries[ranked[0]] and entries[ranked[-1]] + count < entries[most]:
        yield mean, entries[least] - 1
        yield mean, entries[most] + 1
    # Verdicts.
    yield "result_validity", "INVALID" if entries["result_validity"] == "VALID" else "VALID"
    if scenario != "MultiStream":  # of its duration only LoadGen knows
        yield "result_min_duration_met", not entries["result_min_duration_met"]
    yield "result_min_queries_met", not entries["result_min_queries_met"]
    if scenario != "Offline":
        yield "early_stopping_met", not entries["early_stopping_met"]
    # Each sample was generated.
    yield "generated_samples_per_query", entries["generated_samples_per_query"] + 1
    yield "result_query_count", entries["generated_query_count"] + 1
    yield from OWN[scenario](entries, count)


def _single(entries: dict[str, Any], count: int) -> Iterator[tuple[str, Any]]:
    busy_ns = count * entries["result_mean_latency_ns"] - entries["result_max_latency_ns"]
    yield "result_qps_with_loadgen_overhead", 1.01 * count * 1e9 / busy_ns
    yield "result_qps_without_loadgen_overhead", entries["result_qps_without_loadgen_overhead"] * 1.001
    yield "result_qps_without_loadgen_overhead", entries["result_qps_without_loadgen_overhead"] * 0.999
    yield "early_stopping_latency_ss", entries["result_max_latency_ns"] + 1
    if count >= 64:
        yield "early_stopping_latency_ss", entries[P90] - 1
        yield "early_stopping_result", entries["early_stopping_result"].replace(f"({count})", f"({count + 1})")
        yield "result_query_count", count - 1
    # No estimate from fewer than 662 queries.
    yield "early_stopping_latency_ms", entries[P99] - 1 if count >= 662 else entries[P99]


def _multi(entries: dict[str, Any], count: int) -> Iterator[tuple[str, Any]]:
    yield "early_stopping_latency_ms", entries["result_max_query_latency_ns"] + 1
    if count >= 662:
        yield "early_stopping_latency_ms", entries["result_99.00_percentile_per_query_latency_ns"] - 1
        yield "result_query_count", count - 1
    yield "result_mean_latency_ns", entries["result_max_latency_ns"] + 1


def _server(entries: dict[str, Any], count: int) -> Iterator[tuple[str, Any]]:
    yield "result_perf_constraints_met", not entries["result_perf_constraints_met"]
    yield "result_overlatency_query_count", count + 1
    late, bound = entries["result_overlatency_query_count"], entries["effective_target_latency_ns"]
    over = [count - int(count * share) for key, share in ((P90, 0.9), (P99, 0.99)) if entries[key] <= bound]
    # So many late ones that the latency at that rank would be one of them; or none, where the longest is.
    yield from (("result_overlatency_query_count", each) for each in over)
    if late:
        yield "result_overlatency_query_count", 0
    span = (count - 1) / entries["result_scheduled_samples_per_sec"]
    yield "result_completed_samples_per_sec", 1.001 * (count - 1) / span
    yield "result_completed_samples_per_sec", 0.999 * (count - 1) / (span + entries["result_max_latency_ns"] / 1e9)


def _offline(entries: dict[str, Any], count: int) -> Iterator[tuple[str, Any]]:
    yield "result_samples_per_second", entries["result_samples_per_second"] * 1.001
    yield "result_samples_per_second", entries["result_samples_per_second"] * 0.999
    yield "result_max_latency_ns", math.ceil(entries["result_max_latency_ns"] * 1.001)
    yield "result_samples_per_second", -1.0


OWN: dict[str, Callable[[dict[str, Any], int], Iterator[tuple[str, Any]]]] = {
    "SingleStream": _single,
    "MultiStream": _multi,
    "Server": _server,
    "Offline": _offline,
}


def test_of_200_logs_half_of_them_impossible_in_one_field_none_is_missed_and_none_accused(tmp_path: Path) -> None:
    rng = random.Random(SEED)
    missed, accused, verdicts = [], [], set()
    for number in range(LOGS):
        drawn, folder = draw(rng), tmp_path / str(number)
        verdicts.add((drawn.entries["effective_scenario"], drawn.entries["result_validity"]))
        altered = number % 2 == 1
        said: object = "nothing altered"
        if altered and rng.random() < 0.1:
            drawn.at_ms["power_end"] = drawn.at_ms["generated_query_duration"] + 0.2 * (
                drawn.at_ms["power_end"] - drawn.at_ms["generated_query_duration"]
            )
            said = "no time to have run in"
        elif altered and rng.random() < 0.2:
            name = rng.choice(list(drawn.summary))
            text = drawn.summary[name]
            drawn.summary[name] = said = f"{float(text) * 1.02 + 0.01:.2f}" if "." in text else f"{text}7"
        elif altered:
            key, value = rng.choice(list(impossible(drawn, rng)))
            said = (key, drawn.entries[key], value)
            drawn.entries[key] = value
            summed(drawn)  # who edits a log edits its summary, too
        drawn.write(folder)

        found = judge_log(folder)
        if altered and not any(each.contradicts for each in found):
            missed.append((number, drawn.entries["effective_scenario"], said))
        wrong = [each for each in found if each.rule is not JudgeRule.VERDICT]
        wrong += [each for each in found if drawn.entries["result_validity"] == "VALID"]
        if not altered and wrong:
            accused.append((number, [str(each) for each in wrong]))

    assert len(verdicts) == 8
    assert missed == []
    assert accused == []
