"""Figures of result.json: percentiles by LoadGen's rank rule, latencies per query, the file itself."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sut.mlperf.metrics import PERCENTILES, percentile_stats
from sut.results.schema import Accuracy, Metric, Result, Scaling, per_query, reference_results, stage_stats
from sut.results.stages import Stages

PERMILLE = {"p50": 500, "p80": 800, "p90": 900, "p95": 950, "p97": 970, "p99": 990, "p99_9": 999}
LATENCIES = st.lists(st.integers(0, 2**53), min_size=1, max_size=300)


@given(LATENCIES)
def test_a_percentile_is_the_value_at_rank_n_times_p(values: list[int]) -> None:
    found = percentile_stats(np.array(values))

    ordered = sorted(values)
    for name, permille in PERMILLE.items():
        assert found[name] == ordered[len(values) * permille // 1000]
    assert (found["min"], found["max"]) == (ordered[0], ordered[-1])


@pytest.mark.parametrize(
    ("count", "p50", "p90", "p99", "p99_9"),
    [(1, 0, 0, 0, 0), (2, 1, 1, 1, 1), (10, 5, 9, 9, 9), (100, 50, 90, 99, 99), (1000, 500, 900, 990, 999)],
)
def test_percentiles_of_a_ramp(count: int, p50: int, p90: int, p99: int, p99_9: int) -> None:
    found = percentile_stats(np.random.default_rng(1).permutation(count))

    assert [found[name] for name in ("p50", "p90", "p99", "p99_9")] == [p50, p90, p99, p99_9]


def test_nothing_measured_is_none_not_zero() -> None:
    found = percentile_stats(np.array([], np.int64))

    assert list(found) == ["mean", "min", *PERCENTILES, "max"]
    assert set(found.values()) == {None}


@given(st.lists(st.lists(st.integers(0, 2**53), min_size=1, max_size=9), max_size=30))
def test_a_query_takes_as_long_as_its_slowest_sample(queries: list[list[int]]) -> None:
    latency = np.array([value for query in queries for value in query], np.int64)
    numbers = np.array([3 * number for number, query in enumerate(queries) for _ in query], np.int64)

    assert per_query(latency, numbers).tolist() == [max(query) for query in queries]


def test_stages_keep_their_order_and_an_empty_one_is_left_out() -> None:
    ramp = np.arange(1, 102)
    stages = Stages(ramp, {"queue": ramp, "infer": 2 * ramp, "never": ramp[:0], "residual": -ramp}, {}, {})

    assert stage_stats(stages) == {
        "queue": {"mean": 51, "p50": 51, "p99": 100, "middle": 50, "tail": 100},
        "infer": {"mean": 102, "p50": 102, "p99": 200, "middle": 101, "tail": 201},
        "residual": {"mean": -51, "p50": -51, "p99": -2, "middle": -50, "tail": -100},
    }


@given(st.lists(st.integers(0, 2**40), min_size=1, max_size=500), st.randoms())
def test_around_the_median_and_in_the_tail_the_stages_add_up(latency: list[int], random: Any) -> None:
    infer = [random.randint(0, each) for each in latency]
    whole = np.array(latency)
    stages = Stages(whole, {"infer": np.array(infer), "residual": whole - np.array(infer)}, {}, {})

    found = stage_stats(stages)

    ordered, n = sorted(latency), len(latency)
    for key, ranks in {"middle": (int(n * 0.45), int(n * 0.55)), "tail": (int(n * 0.99), n)}.items():
        chosen = ordered[slice(*ranks)] or ordered[ranks[0] : ranks[0] + 1]
        assert found["infer"][key] + found["residual"][key] == pytest.approx(sum(chosen) / len(chosen), abs=1.01)


def a_result(**changes: Any) -> Result:
    fields: dict[str, Any] = {
        "schema": 1, "model": "resnet50", "model_sha256": None, "weights": "random", "backend": "null",
        "backend_version": "none", "device": "cpu", "device_name": None, "attested": {}, "preprocess": "opencv",
        "recipe": {"name": "resnet50"},
        "precision": "fp32", "boundary": "tensor", "scenario": "Server", "mode": "performance", "valid": True,
        "invalid_reasons": [], "failed_samples": 0, "first_error": None,
        "metric": Metric(name="completed_samples_per_second", value=12.5, higher_is_better=True),
        "queries_per_second": 12.0, "samples_per_second": 12.0, "samples": 24, "queries": 24, "duration_s": 2.0,
        "latency_ns": {"mean": 2_000_000, "p50": 1_000_000, "p80": 2_000_000, "p90": 3_000_000, "p95": None,
                       "p99": 4_000_000, "p99_9": 5_000_000},
        "accuracy": None, "stages_ns": {}, "cost_ns": {}, "batch_sizes": {}, "padded_samples": 0,
        "rules_compliant": False, "rules_broken": [], "notes": [], "plan": None, "calibration": None, "config": {},
        "system": {}, "versions": {}, "started": "2026-01-01T00:00:00+00:00",
    }  # fmt: skip
    return Result(**fields | changes)


def test_lists_and_texts_without_an_end_are_cut() -> None:
    many = [f"LoadGen logged an error: {number}" for number in range(10**5)]

    result = a_result(invalid_reasons=many, notes=many, rules_broken=many, first_error="x" * 10**6)

    for found in (result.invalid_reasons, result.notes, result.rules_broken):
        assert found == [*many[:19], "and 99,981 more"]
    assert len(result.to_json()) < 10_000


def test_the_file_is_the_result() -> None:
    result = a_result()

    content = json.loads(result.to_json())

    assert content["schema"] == 1
    assert content["parity"] is None
    assert content["metric"] == {"name": "completed_samples_per_second", "value": 12.5, "higher_is_better": True}
    assert Result.model_validate(content) == result


@pytest.mark.parametrize("how", ["as it is", "before there were meters", "left out"])
def test_results_without_energy_are_read(how: str) -> None:
    """Also those of versions whose fields were there, and null."""
    written = json.loads(a_result().to_json())
    assert written["energy"] == {"cpu": {"source": "none"}, "gpu": {"source": "none"}}
    if how == "before there were meters":
        nulls = {"source": "none", "gross_joules_per_sample": None, "net_joules_per_sample": None}
        written["energy"] = {"cpu": nulls, "gpu": nulls}
    elif how == "left out":
        del written["energy"]

    assert Result.model_validate(written) == a_result()


@pytest.mark.parametrize(
    ("changes", "failed"),
    [({}, False), ({"failed_samples": 1}, True), ({"first_error": "x"}, True), ({"valid": False}, False)],
)
def test_failed_is_another_thing_than_invalid(changes: dict[str, Any], failed: bool) -> None:
    assert a_result(**changes).failed is failed


def test_the_reference_harness_keys_in_seconds() -> None:
    found = reference_results(a_result(), "sut run --scenario Server", took_s=2.5)

    entry = found["TestScenario.Server"]
    assert entry["mean"] == 0.002
    assert entry["percentiles"] == {
        "50.0": 0.001, "80.0": 0.002, "90.0": 0.003, "95.0": None, "99.0": 0.004, "99.9": 0.005,
    }  # fmt: skip
    assert (entry["took"], entry["qps"], entry["count"]) == (2.5, 9.6, 24)
    assert "accuracy" not in entry
    assert found["cmdline"] == "sut run --scenario Server"


def test_the_reference_harness_counts_good_items_and_percent() -> None:
    score = Accuracy(name="top1", value=38228 / 50000, count=50000)

    entry = reference_results(a_result(accuracy=score), "", took_s=1.0)["TestScenario.Server"]

    assert (entry["good_items"], entry["total_items"]) == (38228, 50000)
    assert entry["accuracy"] == pytest.approx(76.456)


def test_a_run_of_no_time_has_no_rate() -> None:
    assert reference_results(a_result(), "", took_s=0.0)["TestScenario.Server"]["qps"] is None


@pytest.mark.parametrize(
    ("units", "words"),
    [
        (
            ["cuda:0", "cuda:1"],
            "2 devices did 75 samples/s, one 50: 75.0 % of 2 times as much, median of pairs; decode limits",
        ),
        (["cpu cores 0-3", "cpu cores 4-7"], "2 core sets did 75 samples/s, one 50: "),
        (["sim:0 cores 0", "sim:1 cores 0"], "2 devices did 75 samples/s, one 50: "),
    ],
)
def test_scaling_is_told_of_devices_or_core_sets(units: list[str], words: str) -> None:
    found = Scaling(
        units=units, one_samples_per_second=50, all_samples_per_second=75, efficiency=0.75, limited_by="decode"
    )

    assert found.line().startswith(words)
