"""Whether a result agrees with itself: rules that hold in every result.json that a run writes, however it ended."""

from __future__ import annotations

import math
from collections.abc import Iterator

from sut.mlperf import official
from sut.mlperf.metrics import METRICS, PERCENTILES, rounded
from sut.process.clock import is_step
from sut.results.schema import CONFIGURED, Result
from sut.results.stages import whole_stages
from sut.text import shortened

_NEARLY = 0.99
"""``duration_s`` begins with LoadGen's first call, and LoadGen's own minimum before: issuing takes a moment."""


def contradictions(result: Result) -> Iterator[str]:
    """What of a result cannot be together, each in words: somebody has edited it."""
    yield from _identity(result)
    yield from _verdict(result)
    yield from _rates(result)
    yield from _latencies(result)
    yield from _tails(result)
    yield from _counts(result)
    score = result.accuracy
    if score is not None and score.name == "top1" and not _is_share(score.value, score.count):
        yield f"accuracy {score.value} is no share of {score.count}"
    elif score is not None and not 0 <= score.value <= 1:
        yield f"accuracy {score.value} is not between 0 and 1"


def _identity(result: Result) -> Iterator[str]:
    for name in CONFIGURED:
        got, asked = getattr(result, name), result.config.get(name)
        if asked is not None and got != asked:
            yield f"{name} is '{shortened(str(got))}', but '{shortened(str(asked))}' in its config"
    if result.scenario not in METRICS:
        yield f"there is no scenario '{shortened(result.scenario)}'"
    elif (metric := result.metric) and (metric.name, metric.higher_is_better) != METRICS[result.scenario][::2]:
        yield f"'{shortened(metric.name)}' is not the metric of {result.scenario}"


def _verdict(result: Result) -> Iterator[str]:
    if (result.valid is False) != bool(result.invalid_reasons):
        yield f"valid is {result.valid}, with {len(result.invalid_reasons)} invalid_reasons"
    if result.valid is None and result.mode != "accuracy":
        yield f"valid is None in mode {result.mode}"
    if result.valid is not False and result.failed:
        yield f"valid is {result.valid}, although it failed"
    if result.rules_compliant and result.rules_broken:
        yield "rules_compliant is true, with rules_broken"
    seconds = result.duration_s
    if result.rules_compliant and result.valid and result.mode == "performance" and seconds is not None:
        seconds += abs(result.clock_change_ns or 0) / 1e9  # it is by the system clock
        if seconds < _NEARLY * official.MIN_DURATION_S:
            yield f"rules_compliant is true, with duration_s {result.duration_s} of {official.MIN_DURATION_S}"


def _rates(result: Result) -> Iterator[str]:
    seconds = result.duration_s
    for figure in (seconds, result.metric.value if result.metric else None):
        if figure is not None and not math.isfinite(figure):
            yield f"{figure} is no figure"
    for name, count in (("samples", result.samples), ("queries", result.queries)):
        got = getattr(result, f"{name}_per_second")
        right = count / seconds if count and seconds else None
        if (got is None) != (right is None) or (got and right and not math.isclose(got, right)):
            yield f"{name}_per_second is {got}, but {name} {count} by duration_s {seconds} are {right or 'nothing'}"


def _latencies(result: Result) -> Iterator[str]:
    latency = result.latency_ns
    ordered = [time for name in ("min", *PERCENTILES, "max") if (time := latency.get(name)) is not None]
    if ordered != sorted(ordered):
        yield "the percentiles of latency_ns are not in order"
    mean = latency.get("mean")
    if mean is not None and ordered and not ordered[0] <= mean <= ordered[-1]:
        yield f"the mean of latency_ns is {mean}, outside min and max"
    stages = [times["mean"] for times in whole_stages(result.stages_ns).values() if "mean" in times]
    # In MultiStream latency_ns is per query, and the stages are per sample; without a residual they do not add up.
    whole = "residual" in result.stages_ns and result.scenario != "MultiStream"
    if mean is not None and whole and abs(sum(stages) - mean) > 1 + len(stages) / 2:
        yield f"stages_ns have the mean {sum(stages)} together, latency_ns {mean}"
    bounds = _metric_bounds(result)
    value = result.metric.value if result.metric else None
    if bounds and value is not None and not bounds[0] <= value <= bounds[1]:
        yield f"the metric is {value:.10g}, but {bounds[0]:.10g} to {bounds[1]:.10g} by its other figures"


def _tails(result: Result) -> Iterator[str]:
    """The means over samples around p50 and from p99 up, whose stages add up to latencies that are known."""
    stages, latency = whole_stages(result.stages_ns), result.latency_ns
    if "residual" not in stages or result.scenario == "MultiStream" or result.recorded_samples != result.samples:
        return
    for name, ends in (("middle", ("min", "p80")), ("tail", ("p99", "max"))):
        parts = [times[name] for times in stages.values() if name in times]
        low, high = (latency.get(end) for end in ends)
        if len(parts) < len(stages) or low is None or high is None:
            continue
        if not low - len(parts) <= sum(parts) <= high + len(parts):
            yield f"stages_ns have {name} {sum(parts)} together, outside {ends[0]} and {ends[1]} of latency_ns"


def _counts(result: Result) -> Iterator[str]:
    """Of what there can be no less than none, or no other number."""
    told = {"failed_samples": result.failed_samples, "samples": result.samples}
    told |= {f"batch_sizes.{size}": count for size, count in result.batch_sizes.items()}
    if not is_step(result.clock_change_ns):  # a clock that was set within a stage makes it as long as it likes
        told |= {f"cost_ns.{stage}": cost for stage, cost in result.cost_ns.items()}
    for name, value in (*told.items(), ("cpu_seconds_per_sample", result.cpu_seconds_per_sample or 0)):
        if value < 0:
            yield f"{name} is {value}"
    sizes = result.batch_sizes
    answered = sum(int(size) * count for size, count in sizes.items() if size.isdecimal() and len(size) < 10)
    # Where the ledger was too small, or the run was stopped, a batch may be counted without its samples.
    if sizes and result.valid and result.samples == result.recorded_samples:
        if result.samples != answered:
            yield f"batch_sizes are of {answered} samples, recorded_samples are {result.recorded_samples}"
        else:
            yield from _costs(result, max(map(int, sizes)))
    same = result.agreement
    if same is None:
        return
    if same.low is None or same.high is None:
        if not 0 <= same.value <= 1:
            yield f"agreement {same.value} is no mAP"
    elif not (_is_share(same.value, same.count) and same.low <= same.value <= same.high):
        yield f"agreement {same.value} is no share of {same.count} in its own interval"


def _costs(result: Result, largest_batch: int) -> Iterator[str]:
    """A sample waits for its whole batch and costs its share of it: with batches of one both means are the same."""
    for stage, cost in result.cost_ns.items():
        mean = result.stages_ns.get(stage, {}).get("mean")
        if mean is not None and not mean / largest_batch - 1 <= cost <= mean + 1:
            yield (
                f"cost_ns.{stage} is {cost}, but {mean / largest_batch:.10g} to {mean} by the mean of its stage and "
                f"batches of up to {largest_batch}"
            )


def _metric_bounds(result: Result) -> tuple[float, float] | None:
    """Between what the metric of a VALID run must be where ``latency_ns`` is LoadGen's own: as in ``check_log``."""
    least, most = result.latency_ns.get("min"), result.latency_ns.get("max")
    traced = bool(result.plan and result.plan.get("trace"))
    if not (result.valid and traced and least and most and result.duration_s) or result.mode != "performance":
        return None
    if result.scenario in ("SingleStream", "MultiStream"):
        return least, most
    if result.scenario == "Offline":
        return rounded(result.samples * 1e9 / most, result.samples * 1e9 / most)
    # LoadGen's time ends with the last query's answer, and others may come after it.
    shortest = result.duration_s - most / 1e9
    return rounded(0.0, (result.samples - 1) / shortest if shortest > 0 else math.inf)


def _is_share(value: float, count: int) -> bool:
    return 0 <= value <= 1 and count > 0 and abs(value * count - round(value * count)) < 1e-6
