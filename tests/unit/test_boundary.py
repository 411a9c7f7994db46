"""``sut boundary``: what bounds a pipeline, what a step is worth, which boundaries there are."""

from __future__ import annotations

import json
from typing import Any, cast

import pytest

from sut.commands import boundary
from sut.commands.boundary import Pipeline, device_left_out, limiting_stage, pipeline, step_ns
from sut.config import make_config
from sut.console import Console
from sut.errors import ExitCode
from sut.results import Agreement, Result
from sut.runner import Ran

INF = float("inf")


class Measured:
    """As much of a result as a step is told from."""

    def __init__(self, mean_ns: float | None, samples_per_second: float | None) -> None:
        self.latency_ns = {} if mean_ns is None else {"mean": mean_ns}
        self.samples_per_second = samples_per_second


def result(mean_ns: float | None = None, samples_per_second: float | None = None) -> Result:
    return cast(Result, Measured(mean_ns, samples_per_second))


@pytest.mark.parametrize(
    ("cost", "without_inference", "without_preprocessing"),
    [
        ({"decode": 3, "resize": 1, "infer": 2}, 0.5, 2.0),
        ({"preprocess": 4, "infer": 2, "postprocess": 9}, 0.5, 2.0),
        ({"infer": 2}, INF, 0.0),
        ({"decode": 2}, 0.0, INF),
    ],
)
@pytest.mark.parametrize("lanes", [1, 3])
def test_fused_lanes_follow_amdahl_however_many(
    cost: dict[str, int], lanes: int, without_inference: float, without_preprocessing: float
) -> None:
    found = pipeline(cost, "Offline", lanes, workers=0)

    assert found.gain_without_inference == without_inference
    assert found.gain_without_preprocessing == without_preprocessing


@pytest.mark.parametrize(
    ("preprocessing", "inference", "workers", "lanes", "without_inference", "without_preprocessing"),
    [
        (6, 2, 1, 1, 0.0, 2.0),  # throughput min(1/6, 1/2): the workers decide
        (6, 2, 6, 1, 1.0, 0.0),  # min(6/6, 1/2): the lane decides
        (6, 2, 6, 2, 0.0, 0.0),  # min(6/6, 2/2): balanced, so neither is worth anything alone
        (2, 9, 1, 3, 0.5, 0.0),  # min(1/2, 3/9)
        (0, 2, 2, 1, INF, 0.0),
        (2, 0, 2, 1, 0.0, INF),
    ],
)
def test_the_slower_side_of_a_staged_pipeline_decides(
    preprocessing: int, inference: int, workers: int, lanes: int, without_inference: float, without_preprocessing: float
) -> None:
    found = pipeline({"decode": preprocessing, "gather": 1, "infer": inference}, "Offline", lanes, workers)

    assert found == Pipeline(preprocessing, inference, lanes, workers)
    assert found.gain_without_inference == pytest.approx(without_inference)
    assert found.gain_without_preprocessing == pytest.approx(without_preprocessing)


def test_workers_that_were_asked_for_but_had_nothing_to_do_are_none() -> None:
    assert pipeline({"preprocess": 1, "infer": 4}, "Offline", 2, workers=8) == Pipeline(1, 4, lanes=2)


def test_in_single_stream_one_sample_is_under_way() -> None:
    found = pipeline({"decode": 6, "gather": 1, "infer": 2}, "SingleStream", 4, workers=8)

    assert found == Pipeline(6, 2)
    assert found.gain_without_preprocessing == 3.0


@pytest.mark.parametrize(
    ("lanes", "workers", "stage"),
    [(1, 0, "decode"), (4, 0, "decode"), (1, 1, "decode"), (1, 2, "infer"), (2, 2, "decode"), (2, 4, "infer")],
)
def test_the_limiting_stage_is_that_with_the_most_time_per_thread(lanes: int, workers: int, stage: str) -> None:
    cost = {"decode": 5, "resize": 3, "normalize": 1, "gather": 20, "infer": 4, "postprocess": 20}

    assert limiting_stage(cost, Pipeline(9, 4, lanes, workers)) == stage


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
    ("places", "device", "why"),
    [
        (("cuda:0", "host"), "cuda", None),
        (("host", "cuda:1"), "cuda:1", None),
        (("host",), "cuda", "mine takes its input from host memory, not from a GPU's"),
        (("host", "pinned"), "cpu", "mine takes its input from host, pinned memory, not from a GPU's"),
        (("cuda:0", "host"), "cpu", "it needs a GPU's memory, and --device is cpu; add --device cuda"),
    ],
)
def test_why_the_boundary_device_is_left_out(places: tuple[str, ...], device: str, why: str | None) -> None:
    expected = None if why is None else f"boundary device left out: {why}"

    assert device_left_out("mine", places, device) == expected


def test_the_boundary_device_comes_first(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    class OnGpu:
        name, places = "mine", ("cuda:0", "host")

    monkeypatch.setattr(boundary, "load", lambda name: OnGpu)

    assert boundary.boundaries_of(make_config({"device": "cuda"}), Console()) == ("device", "tensor", "pixels", "jpeg")
    assert capsys.readouterr().err == ""
    assert boundary.boundaries_of(make_config({"device": "cpu"}), Console()) == ("tensor", "pixels", "jpeg")
    assert capsys.readouterr().err.count("\n") == 1


def test_a_backend_that_does_not_load_is_left_for_the_run_to_refuse(capsys: pytest.CaptureFixture[str]) -> None:
    assert boundary.boundaries_of(make_config({"backend": "nobody"}), Console()) == ("tensor", "pixels", "jpeg")
    assert capsys.readouterr().err == ""


def test_a_reduced_precision_is_not_shown_without_its_agreement(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = "97.4 % same labels (95 % interval 96.2 to 98.2 %) on 1,000 crops of 11 pictures"
    agreement = Agreement(value=0.974, low=0.962, high=0.982, count=1000, source="", words=words)
    config = make_config({"precision": "int8"})

    def run_each(configs: list[Any], console: Console, command: str) -> Ran:
        return Ran([ran(each.boundary, agreement if each.precision == "int8" else None) for each in configs])

    monkeypatch.setattr(boundary, "run_each", run_each)

    assert boundary._boundary([config], as_json=False) == ExitCode.OK
    assert capsys.readouterr().out.splitlines().count(f"int8 against fp32: {words}") == 1
    assert boundary._boundary([config], as_json=True) == ExitCode.OK
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [row["agreement"] for row in rows] == 3 * [agreement.model_dump()]
    assert boundary._boundary([make_config({})], as_json=True) == ExitCode.OK
    assert [row["agreement"] for row in json.loads(capsys.readouterr().out)["rows"]] == [None, None, None]


def ran(where: str, agreement: Agreement | None) -> Result:
    """A result of a run that went well, as far as it is shown."""
    stages = {"decode": 5, "infer": 4} if where == "jpeg" else {"infer": 4}
    return Result.model_construct(
        boundary=where,
        scenario="SingleStream",
        valid=True,
        failed_samples=0,
        first_error=None,
        metric=None,
        samples_per_second=100.0,
        latency_ns={"mean": 9_000_000, "p99": 9_500_000},
        stages_ns={name: {"mean": 1_000_000 * ms} for name, ms in stages.items()},
        cost_ns={name: 1_000_000 * ms for name, ms in stages.items()},
        parity=None,
        agreement=agreement,
        precision="int8" if agreement else "fp32",
        config={"lanes": 1, "preprocess_workers": 0, "fold": False},
    )
