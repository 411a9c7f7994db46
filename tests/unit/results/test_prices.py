"""What bounds a pipeline, and what a step and a stage are worth."""

from __future__ import annotations

from typing import Any, cast

import pytest

from sut.results.prices import Pipeline, limiting_stage, pipeline, price_ns, step_ns
from sut.results.schema import Result

INF = float("inf")


class Timed:
    """As much of a result as a step is told from."""

    def __init__(self, mean_ns: float | None, samples_per_second: float | None) -> None:
        self.latency_ns = {} if mean_ns is None else {"mean": mean_ns}
        self.samples_per_second = samples_per_second


def result(mean_ns: float | None = None, samples_per_second: float | None = None) -> Result:
    return cast(Result, Timed(mean_ns, samples_per_second))


def measured(where: str, cost_ms: dict[str, int], **changes: Any) -> Result:
    """A result of a run that went well, as far as it is shown; preprocessing is timed only where it is."""
    timed = {"tensor": ("gather", "infer"), "pixels": ("resize", "normalize", "preprocess", "gather", "infer")}
    cost = {name: ms for name, ms in cost_ms.items() if name in timed.get(where, cost_ms)}
    fields: dict[str, Any] = {
        "boundary": where,
        "scenario": "SingleStream",
        "valid": True,
        "failed_samples": 0,
        "first_error": None,
        "metric": None,
        "samples_per_second": 100.0,
        "latency_ns": {"mean": 9_000_000, "p99": 9_500_000},
        "stages_ns": {name: {"mean": 1_000_000 * ms} for name, ms in cost.items()},
        "cost_ns": {name: 1_000_000 * ms for name, ms in cost.items()},
        "cpu_seconds_per_sample": None,
        "parity": None,
        "agreement": None,
        "precision": "fp32",
        "plan": None,
        "model_sha256": None,
        "config": {"lanes": 1, "preprocess_workers": 0, "fold": False},
    }
    return Result.model_construct(**fields | changes)


@pytest.mark.parametrize(
    ("cost", "without_inference", "without_preprocessing"),
    [
        ({"decode": 3, "resize": 1, "infer": 2}, 0.5, 2.0),
        ({"preprocess": 4, "infer": 2, "postprocess": 1, "complete": 1}, 1 / 3, 1.0),
        ({"infer": 2}, INF, 0.0),
        ({"infer": 2, "complete": 2}, 1.0, 0.0),
        ({"decode": 2}, 0.0, INF),
    ],
)
@pytest.mark.parametrize("lanes", [1, 3])
def test_fused_lanes_follow_amdahl_however_many(
    cost: dict[str, int], lanes: int, without_inference: float, without_preprocessing: float
) -> None:
    found = pipeline(cost, "Offline", lanes, workers=0)

    assert found.gain_without_inference == pytest.approx(without_inference)
    assert found.gain_without_preprocessing == pytest.approx(without_preprocessing)


@pytest.mark.parametrize(
    ("preprocessing", "inference", "workers", "lanes", "without_inference", "without_preprocessing"),
    [
        (9, 2, 1, 1, 0.0, 2.0),  # throughput min(1/9, 1/(2 + 1)): the workers decide
        (6, 2, 6, 1, 2.0, 0.0),  # min(6/6, 1/3): the lane decides, until only its own rest of 1 is left
        (9, 2, 6, 2, 0.0, 0.0),  # min(6/9, 2/3): balanced, so neither is worth anything alone
        (2, 8, 1, 3, 0.5, 0.0),  # min(1/2, 3/9)
        (0, 2, 2, 1, 2.0, 0.0),
        (2, 0, 2, 1, 0.0, 0.0),
    ],
)
def test_the_slower_side_of_a_staged_pipeline_decides(
    preprocessing: int, inference: int, workers: int, lanes: int, without_inference: float, without_preprocessing: float
) -> None:
    found = pipeline({"decode": preprocessing, "gather": 1, "infer": inference}, "Offline", lanes, workers)

    assert found == Pipeline(preprocessing, inference, lanes, workers, rest_ns=1)
    assert found.gain_without_inference == pytest.approx(without_inference)
    assert found.gain_without_preprocessing == pytest.approx(without_preprocessing)


def test_workers_that_were_asked_for_but_had_nothing_to_do_are_none() -> None:
    assert pipeline({"preprocess": 1, "infer": 4}, "Offline", 2, workers=8) == Pipeline(1, 4, lanes=2)


def test_in_single_stream_one_sample_is_under_way() -> None:
    found = pipeline({"decode": 6, "gather": 1, "infer": 2}, "SingleStream", 4, workers=8)

    assert found == Pipeline(6, 2, rest_ns=1)
    assert found.gain_without_preprocessing == 2.0


@pytest.mark.parametrize(
    ("lanes", "workers", "stage"),
    [(1, 0, "decode"), (4, 0, "decode"), (1, 1, "decode"), (1, 2, "infer"), (2, 2, "decode"), (2, 4, "infer")],
)
def test_the_limiting_stage_is_that_with_the_most_time_per_thread(lanes: int, workers: int, stage: str) -> None:
    cost = {"decode": 5, "resize": 3, "normalize": 1, "gather": 2, "infer": 4, "postprocess": 2}

    assert limiting_stage(cost, Pipeline(9, 4, lanes, workers)) == stage


@pytest.mark.parametrize("copy", ["gather", "h2d", "d2h", "postprocess"])
def test_what_lanes_do_beside_inference_may_limit_too(copy: str) -> None:
    cost = {"decode": 5, "infer": 4, copy: 6}

    assert limiting_stage(cost, Pipeline(5, 4, lanes=2, workers=2, rest_ns=6)) == copy


@pytest.mark.parametrize("scenario", ["SingleStream", "MultiStream", "Server"])
def test_a_step_is_a_difference_of_latencies(scenario: str) -> None:
    assert step_ns(scenario, result(2e6, 100), result(5e6, 400)) == 3e6


def test_in_offline_a_step_is_time_per_sample() -> None:
    assert step_ns("Offline", result(2e9, 500), result(1e9, 100)) == pytest.approx(8e6)


@pytest.mark.parametrize("scenario", ["SingleStream", "Offline"])
def test_what_was_not_measured_is_no_step(scenario: str) -> None:
    assert step_ns(scenario, None, result(5e6, 400)) is None
    assert step_ns(scenario, result(), result(5e6, 400)) is None
    assert step_ns(scenario, result(5e6, 400), result()) is None


@pytest.mark.parametrize(
    ("scenario", "workers", "cost", "pixels", "jpeg"),
    [
        ("SingleStream", 0, {"decode": 5, "resize": 2, "normalize": 1, "infer": 4}, 3e6, 5e6),
        ("Server", 0, {"decode": 5, "preprocess": 2, "infer": 4}, 2e6, 5e6),
        ("Server", 0, {"preprocess": 7, "infer": 4}, None, None),  # decoding is not told from the rest
        ("Offline", 0, {"decode": 5, "preprocess": 2, "infer": 4}, 1e6, 2.5e6),  # two lanes share it
        ("Offline", 5, {"decode": 5, "preprocess": 2, "gather": 1, "infer": 4}, 0.4e6, 1e6),
    ],
)
def test_a_price_is_the_time_of_its_stages_in_one_run(
    scenario: str, workers: int, cost: dict[str, int], pixels: float | None, jpeg: float | None
) -> None:
    run = measured("jpeg", cost, scenario=scenario, config={"lanes": 2, "preprocess_workers": workers})

    assert price_ns(run, "tensor") is None
    assert (price_ns(run, "pixels"), price_ns(run, "jpeg")) == (pixels, jpeg)
