"""What ``sut boundary`` finds: the same work at each timing boundary, round by round, and what each step costs."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from backends.registry import load
from sut.config import RunConfig
from sut.errors import ExitCode, InputError, worst
from sut.pipeline.identify.settings import check_one_model
from sut.results.prices import limiting_stage, pipeline_of, price_ns, step_cost_of, step_ns, step_of, time_ns
from sut.results.schema import Result, used
from sut.results.stages import whole_stages
from sut.results.statistics import Difference
from sut.results.wording import milliseconds
from sut.run.auto import fixed
from sut.run.energy.metering import AtRest
from sut.run.planning import check_effect
from sut.run.reporter import Reporter
from sut.run.runner import check_same_model, run_each

BOUNDARIES = ("tensor", "pixels", "jpeg")
"""Those that every backend has; ``device`` comes before them where a backend takes its input there."""
_ENDS = {"value": "ratio", "low": "low", "high": "high"}
_TIME_S = 2.0
"""Of a run: shorter ones say more about starting than about running, longer ones leave fewer pairs."""
_BUDGET_S = 115.0
"""After the first run, which may have a model to make: two minutes with it where it has none."""


def device_left_out(name: str, places: Sequence[str], device: str) -> str | None:
    """Why a backend with these ``places`` has no boundary ``device`` on ``device``; None where it has."""
    if not any(place.startswith("cuda:") for place in places):
        return f"boundary device left out: {name} takes its input from {', '.join(places)} memory, not from a GPU's"
    if not device.startswith("cuda"):
        return f"boundary device left out: it needs a GPU's memory, and --device is {device}; add --device cuda"
    return None


def run_rounds(configs: list[RunConfig], rounds: int | None, console: Reporter) -> tuple[list[list[Result]], ExitCode]:
    """Run one config at all its boundaries, there and back again, ``rounds`` times or as often as two minutes allow.

    The results by round and boundary, and the worst exit code. Raises ``InputError`` for a config that cannot be run
    so.
    """
    if len(configs) != 1 or configs[0].mode != "performance":
        raise InputError("sut boundary runs one scenario in performance mode; give one --scenario")
    if "boundary" in configs[0].model_fields_set:
        raise InputError("sut boundary runs all boundaries; leave the setting boundary out")
    check_one_model(configs[0], "sut boundary prices the steps of")
    base = configs[0].model_copy(update={"time_s": configs[0].time_s or _TIME_S})
    boundaries = boundaries_of(base, console)
    check_effect([base.model_copy(update={"boundary": boundary}) for boundary in boundaries])
    measured: list[list[Result]] = []
    rest, codes = AtRest(), []
    first_end = 0.0
    while True:
        begin = time.monotonic()
        order = boundaries if len(measured) % 2 == 0 else tuple(reversed(boundaries))
        results = []
        for boundary in order:
            ran = run_each([base.model_copy(update={"boundary": boundary})], console, "sut boundary", rest)
            first_end = first_end or time.monotonic()
            codes += ran.codes
            if worst(codes) not in (ExitCode.OK, ExitCode.INVALID):
                return measured, worst(codes)
            results += ran.results
            # What the first run chose: it is to be the same work at each boundary.
            base = base.model_copy(update=fixed(used(ran.results[0]), base.scenario))
            check_same_model([*(each for before in measured[:1] for each in before), *results])
        measured.append(sorted(results, key=lambda each: boundaries.index(each.boundary)))
        now = time.monotonic()
        console.note(_round_line(len(measured), measured[-1], now - begin))
        if len(measured) == rounds or (rounds is None and now - first_end + now - begin > _BUDGET_S):
            return measured, worst(codes)


def _round_line(number: int, results: Sequence[Result], took_s: float) -> str:
    times = ((each.boundary, time_ns(each.scenario, each)) for each in results)
    told = ", ".join(f"{name} {milliseconds(each)}" for name, each in times)
    return f"round {number}: {told} ms, in {took_s:.0f} s"


def boundaries_of(config: RunConfig, console: Reporter) -> tuple[str, ...]:
    """The boundaries that a config can be run at, in order; tells in one line why ``device`` is not among them."""
    try:
        backend = load(config.backend)
    except Exception:
        return BOUNDARIES  # the first run says what is wrong, as it always does
    # Before a model is loaded there is only the class; what an instance makes of its places comes too late.
    if why := device_left_out(backend.name, backend.places, config.device):
        console.note(why)
        return BOUNDARIES
    return ("device", *BOUNDARIES)


def boundary_rows(measured: Sequence[Sequence[Result]]) -> list[dict[str, Any]]:
    """A row for each boundary, of the round whose jpeg run is the median; the differences are of all rounds."""
    results = middle(measured)
    by_boundary = list(zip(*measured, strict=True))
    rows = []
    for at, (result, runs) in enumerate(zip(results, by_boundary, strict=True)):
        found, all_found = pipeline_of(result), [pipeline_of(each) for each in runs]
        rows.append(
            {
                "boundary": result.boundary,
                "valid": all(each.valid for each in runs),
                "metric": result.metric.model_dump() if result.metric else None,
                "samples_per_second": result.samples_per_second,
                "latency_ns": {"mean": result.latency_ns.get("mean"), "p99": result.latency_ns.get("p99")},
                "price_ns": price_ns(results[-1], result.boundary),
                **_step_keys(results[at - 1] if at else None, result, by_boundary[at - 1] if at else (), runs),
                "rounds": len(measured),
                "preprocessing_ns": round(found.preprocessing_ns),
                "inference_ns": round(found.inference_ns),
                "lanes": found.lanes,
                "workers": found.workers,
                "gain_without_inference": _finite(found.gain_without_inference),
                "gain_without_inference_range": _range([each.gain_without_inference for each in all_found]),
                "gain_without_preprocessing": _finite(found.gain_without_preprocessing),
                "gain_without_preprocessing_range": _range([each.gain_without_preprocessing for each in all_found]),
                "stages_ns": result.stages_ns,
                "cost_ns": result.cost_ns,
                "longest_stage": limiting_stage(result.cost_ns, found),
                "parity": result.parity.model_dump() if result.parity else None,
                "agreement": result.agreement.model_dump() if result.agreement else None,
            }
        )
    return rows


def _step_keys(
    before: Result | None, result: Result, runs_before: Sequence[Result], runs: Sequence[Result]
) -> dict[str, Any]:
    """What a row says of the step from the boundary before: in its own round, and by the pairs of all rounds."""
    found: dict[str, Any] = {"step_of": "time_per_sample" if result.scenario == "Offline" else "mean_latency"}
    if before is None:
        return found | dict.fromkeys(("step_mean_ns", "step_ns", "step", "step_cpu", "step_pairs_ns"))
    mean, earlier = result.latency_ns.get("mean"), before.latency_ns.get("mean")
    step = step_of(result.scenario, runs_before, runs)
    return found | {
        "step_mean_ns": mean - earlier if mean is not None and earlier is not None else None,
        "step_ns": step_ns(result.scenario, before, result),
        "step": asdict(step),
        "step_cpu": asdict(step_cost_of(runs_before, runs)),
        "step_pairs_ns": _in_ns(step, time_ns(result.scenario, before)),
    }


def middle(measured: Sequence[Sequence[Result]]) -> Sequence[Result]:
    """The round whose last run, that from JPEG to label, is the median."""
    ordered = sorted(measured, key=lambda results: time_ns(results[-1].scenario, results[-1]) or 0.0)
    return ordered[(len(ordered) - 1) // 2]


def _in_ns(step: Difference, before_ns: float | None) -> dict[str, float] | None:
    """What the step adds to ``before_ns``: with that as it is, the interval of the ratio is one of the difference."""
    if step.ratio is None or step.low is None or step.high is None or before_ns is None:
        return None
    return {name: before_ns * (getattr(step, ratio) - 1) for name, ratio in _ENDS.items()}


def _finite(gain: float) -> float | None:
    return None if gain == float("inf") else gain  # JSON has no infinity


def _range(gains: Sequence[float]) -> list[float | None]:
    return [_finite(min(gains)), _finite(max(gains))]


def ledger(result: Result) -> list[tuple[str, float]]:
    """The stages of a sample in their order, in ns: of its latency; in Offline, where it waits, of the busy time.

    What is left over may be less than nothing, which is no price.
    """
    if result.scenario == "Offline":
        return list(result.cost_ns.items())
    return [(name, stats["mean"]) for name, stats in whole_stages(result.stages_ns).items() if stats["mean"] >= 0]
