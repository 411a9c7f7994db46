"""From what happened in a run to its result: join the ledger, check the log, score, judge."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, entry_points, version
from pathlib import Path
from typing import Any

import numpy as np

from plugins.extras import TABLE
from plugins.packages import SUBSTITUTES
from sut.config import RunConfig
from sut.errors import one_line, reason_of
from sut.mlperf import official
from sut.mlperf.accuracy import logged_sum, read_accuracy_log
from sut.mlperf.check_log import check_log
from sut.mlperf.logs import ACCURACY, OFFICIAL_SEEDS, Detail, Int64Array, read_detail, read_summary, read_trace
from sut.mlperf.metrics import METRICS, percentile_stats
from sut.mlperf.rules import broken_rules, dataset_broken, dataset_note, explain_invalid, is_official_model, unexplained
from sut.pipeline.assembly import Assembly
from sut.pipeline.ledger import Counter, Ledger
from sut.results.energy import UNMEASURED, Energy, NotMeasured
from sut.results.gpus import peak_bytes
from sut.results.machine import system_facts
from sut.results.prices import limiting_stage, pipeline
from sut.results.samples import FILE as SAMPLES
from sut.results.samples import Samples
from sut.results.schema import (
    CONFIGURED,
    Accuracy,
    Agreement,
    Metric,
    Result,
    Scaling,
    per_query,
    stage_stats,
)
from sut.results.stages import LedgerError, Stages, answered, join, latency_bounds, own_latency_ns, record_of
from sut.results.trace import write_trace
from sut.run.events import Planned
from sut.run.supervisor import Outcome
from sut.tasks.base import Score
from sut.version import NAME

_TAKE_PART = ("project", "backend", "preprocess", "precision", "runtime", "instead", "gpu")
"""The kinds of plug-ins of whose packages a result always has the versions."""


@dataclass(slots=True)
class _Findings:
    """What is put together step by step. ``problems`` fail the run, ``flaws`` make it INVALID."""

    detail: Detail
    stages: Stages | None = None
    latency: Int64Array | None = None
    fastest: Int64Array | None = None
    """Of LoadGen's trace; in MultiStream each query's fastest sample, where ``latency`` is the slowest's."""
    problems: list[str] = field(default_factory=list)
    flaws: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def make_result(parts: Assembly, agreement: Agreement | None, outcome: Outcome, directory: Path) -> Result:
    """The result of a run, however it ended. Reads the logs in ``directory``; writes there what is kept beside it."""
    config, found = parts.config, _read(parts.config, outcome, directory)
    score = _scored(parts, outcome, found, directory)
    if config.keep_samples and outcome.ledger is not None and found.stages is not None:
        Samples.of(outcome.ledger, found.stages).save(directory / SAMPLES)
    if config.trace is not None:
        found.notes.append(_traced(config, config.trace, outcome, found))
    failed_samples, samples = outcome.counter(Counter.FAILED), outcome.counter(Counter.DONE)
    reasons = _reasons(config, outcome, found, failed_samples)
    audit = outcome.plan.audit if outcome.plan else None
    attested = outcome.loaded.attested if outcome.loaded else {}
    broken = broken_rules(config, parts.spec, parts.model, parts.dataset, found.detail, audit, attested)
    if told := outcome.finished or outcome.plan:
        broken += told.rules_broken
    data_broken = outcome.finished is not None and outcome.finished.data_broken
    return Result(
        **_asked_for(parts, outcome),
        model_sha256=parts.model.sha256 if parts.model else None,
        valid=None if config.mode == "accuracy" and not reasons else not reasons,
        invalid_reasons=reasons,
        failed_samples=failed_samples,
        first_error=_first_error(outcome, found),
        samples=samples,
        accuracy=_accuracy(parts, score, data_broken),
        agreement=agreement,
        energy=_energy(outcome, found, samples),
        rules_compliant=not broken,
        rules_broken=broken,
        notes=_notes(outcome, found),
        system={**system_facts(), "load_average": outcome.load_average},
        versions={NAME: outcome.version, **versions(config, parts.spec.name)},
        scaling=_scaling(config, outcome, found),
        identified=outcome.finished.identified if outcome.finished else None,
        traffic=outcome.finished.traffic if outcome.finished else None,
        **_told(outcome, samples),
        **_figures(config, outcome, found, samples),
    )


def _energy(outcome: Outcome, found: _Findings, samples: int) -> Mapping[str, Energy | NotMeasured]:
    """What the meters say of a run that came to its end and answered all; what they do not is a note."""
    window = found.detail.power_window
    spoilt = found.problems or outcome.error or outcome.interrupted or outcome.counter(Counter.FAILED)
    if outcome.metering is None or window is None or window[0] == window[1] or spoilt or not samples:
        return UNMEASURED
    energy, notes = outcome.metering.energy(window, samples)
    found.notes += notes
    return {**UNMEASURED, **(energy or {})}


def _scaling(config: RunConfig, outcome: Outcome, found: _Findings) -> Scaling | None:
    """How the devices scaled, with the stage that limits them, as the run has it."""
    plan, stages = outcome.plan, found.stages
    if plan is None:
        return None
    if plan.scaling is None or stages is None or config.scenario != "Offline":
        return plan.scaling
    how = pipeline(stages.cost_ns, config.scenario, plan.settled.choice.lanes, config.preprocess_workers)
    return plan.scaling.model_copy(update={"limited_by": limiting_stage(stages.cost_ns, how)})


def _traced(config: RunConfig, path: Path, outcome: Outcome, found: _Findings) -> str:
    """Write the trace of a run; what became of it is a note: the run counts all the same."""
    if outcome.ledger is None or found.stages is None:
        return f"trace: {path} was not written: there was nothing to trace yet"
    about = {name: getattr(config, name) for name in ("model", "backend", "preprocess", "scenario", "mode", "boundary")}
    try:
        return write_trace(path, about, outcome.ledger, found.stages)
    except Exception as error:  # whatever it is
        return f"trace: {path} was not written: {reason_of(error)}"


def _told(outcome: Outcome, samples: int) -> dict[str, Any]:
    """What the run's process told, by the result's fields; what it did not come to is unknown."""
    loaded, checked, plan, finished = outcome.loaded, outcome.checked, outcome.plan, outcome.finished
    attested = {**loaded.attested} if loaded else {}
    if finished and finished.cuda_library:
        attested["cuda_library"] = finished.cuda_library
    return {
        "loaded_sha256": loaded.sha256 if loaded else {},
        "backend_version": loaded and loaded.backend_version,
        "device_name": (loaded and loaded.device_name) or None,
        "attested": attested,
        "output": loaded and loaded.output,
        "parity": outcome.parity,
        "answers": checked and checked.answers,
        "cold_start_s": plan.cold_start_s if plan else {},
        "audit": plan and plan.audit,
        "plan": plan and plan.facts(),
        "calibration": plan and asdict(plan.calibration),
        "thread_cores": plan.thread_cores if plan else {},
        "memory_bytes": {"host_peak": finished and finished.host_peak_bytes, "gpu_peak": peak_bytes(outcome.gpus)},
        "gpus": outcome.gpus,
        "cpu_seconds_per_sample": finished.cpu_s / samples if finished and samples else None,
        "cpu_quota": finished and finished.cpu_quota,
        "quiet": finished and finished.quiet,
        "clock_change_ns": outcome.clock_change_ns,
    }


def _figures(config: RunConfig, outcome: Outcome, found: _Findings, samples: int) -> dict[str, Any]:
    """What LoadGen's log and the ledger say, by the result's fields."""
    believed = Detail({}, ()) if found.problems else found.detail  # figures of another run are none
    queries, duration_s, stages = believed.number("result_query_count"), _duration_s(found, outcome), found.stages
    return {
        "metric": _metric(config, believed),
        "queries_per_second": _rate(queries, duration_s),
        "samples_per_second": _rate(samples, duration_s),
        "queries": None if queries is None else int(queries),
        "duration_s": duration_s,
        "latency_ns": percentile_stats(found.latency) if found.latency is not None else {},
        "stages_ns": stage_stats(stages) if stages else {},
        "cost_ns": {name: round(cost) for name, cost in stages.cost_ns.items()} if stages else {},
        "batch_sizes": {str(size): count for size, count in stages.batch_sizes.items()} if stages else {},
        "padded_samples": outcome.counter(Counter.PADDED),
        "recorded_samples": len(stages.latency_ns) if stages else 0,
    }


def _notes(outcome: Outcome, found: _Findings) -> list[str]:
    planned = outcome.plan.plan.notes if outcome.plan else ()
    finished = outcome.finished.notes if outcome.finished else ()
    return [*planned, *outcome.notes, *finished, *found.notes]


def _scored(parts: Assembly, outcome: Outcome, found: _Findings, directory: Path) -> Score | None:
    """The score of a whole accuracy run; why there is none goes into ``found``."""
    broken = outcome.counter(Counter.FAILED) or outcome.error or outcome.interrupted or found.problems
    if parts.config.mode != "accuracy" or broken or outcome.finished is None:
        return None
    try:
        depend = outcome.checked is not None and outcome.checked.depend
        score, notes = score_log(parts, directory, outcome.finished.answers_sum, depend)
    except ValueError as error:
        found.problems.append(one_line(error))
        return None
    found.notes.extend([*notes, *_doubts(parts, score)])
    if note := dataset_note(official.benchmark_of(parts.spec.name, parts.spec.loadgen_model), parts.dataset):
        found.notes.append(note)
    return score


def _first_error(outcome: Outcome, found: _Findings) -> str | None:
    told = outcome.finished.first_error if outcome.finished else None
    first = told or outcome.failure or outcome.error
    return first or (None if outcome.interrupted else next(iter(found.problems), None))


def lost_result(parts: Assembly, outcome: Outcome, error: BaseException) -> Result:
    """The result of a run that this process could not follow or judge: that it failed, why, and no figure."""
    said = f"the result could not be made: {type(error).__name__}: {one_line(error)}; --debug shows where"
    return Result(
        **_asked_for(parts, outcome),
        valid=False,
        invalid_reasons=[said, *([outcome.error] if outcome.error else [])],
        first_error=said,
        failed_samples=outcome.counter(Counter.FAILED),
        samples=outcome.counter(Counter.DONE),
    )


def _asked_for(parts: Assembly, outcome: Outcome) -> dict[str, Any]:
    """What is known of a run before it has started, by the result's fields."""
    size = parts.model.size if parts.model else None
    return {
        "schema": 1,
        "model": parts.spec.name,
        "loadgen_model": parts.spec.loadgen_model,
        "weights": parts.model.weights if parts.model else None,
        "model_parameters": size.parameters if size else None,
        "model_flops": size.flops if size else None,
        "recipe": asdict(parts.spec.recipe),
        **{name: getattr(parts.config, name) for name in CONFIGURED},
        "config": parts.config.model_dump(mode="json"),
        "started": datetime.fromtimestamp(outcome.started, UTC).isoformat(timespec="seconds"),
    }


def _read(config: RunConfig, outcome: Outcome, directory: Path) -> _Findings:
    """The logs and the ledger, as far as they go; of a run that came to its end also whether they agree."""
    found = _Findings(Detail({}, ()))
    ended = outcome.error is None and not outcome.interrupted
    try:
        found.detail = read_detail(directory)
    except ValueError as error:
        if ended:
            found.problems.append(one_line(error))
    if outcome.ledger is None or outcome.plan is None:
        return found
    # Where the log has no end the trace has none either.
    to_join = ended and found.detail.complete and outcome.plan.plan.trace
    samples = _per_query(outcome.plan)
    traced = _join(config, outcome.ledger, samples, directory, found, to_join)
    if ended:
        _check(config, outcome.plan, outcome.ledger, directory, found, traced)
    return found


def _per_query(planned: Planned) -> int:
    """Samples of a query in MultiStream, 1 elsewhere."""
    return int(planned.asked.get("requested_multi_stream_samples_per_query", 1))


def _join(config: RunConfig, ledger: Ledger, samples: int, directory: Path, found: _Findings, traced: bool) -> bool:
    """Join the ledger with LoadGen's trace where there is one. Returns whether the latency is LoadGen's.

    ``samples`` are those of a query.
    """
    if traced:
        try:
            trace, query = read_trace(directory)
            found.stages = join(ledger, trace)
            found.latency = found.fastest = trace.latency_ns
            if config.scenario == "MultiStream":
                found.latency = per_query(trace.latency_ns, query)
                found.fastest = per_query(trace.latency_ns, query, np.minimum)
            return True
        except LedgerError as error:
            found.problems.append(one_line(error))
            return False
        except ValueError as error:  # LoadGen was told to write one
            found.problems.append(f"LoadGen's trace cannot be read: {one_line(error)}")
    found.stages, found.latency = join(ledger, None), own_latency_ns(ledger)
    if samples > 1:
        found.latency = per_query(found.latency, answered(ledger) // samples)
    return False


def _check(
    config: RunConfig, planned: Planned, ledger: Ledger, directory: Path, found: _Findings, traced: bool
) -> None:
    """LoadGen's logs against each other, and against what was asked and recorded."""
    summary = None
    try:
        summary = read_summary(directory)
    except ValueError as error:
        found.problems.append(one_line(error))
    asked = planned.asked
    if config.audit_conf is not None:  # it overrides whatever LoadGen is told
        asked = {key: value for key, value in asked.items() if not key.startswith("requested_")}
    bounds = None if traced else latency_bounds(ledger, config.scenario, _per_query(planned))
    record = record_of(ledger, asked, found.latency if traced else None, found.stages, found.fastest, bounds)
    for finding in check_log(found.detail, summary, record, [OFFICIAL_SEEDS]):
        (found.problems if finding.contradicts else found.flaws).append(str(finding))


def _reasons(config: RunConfig, outcome: Outcome, found: _Findings, failed_samples: int) -> list[str]:
    """Why the run does not count, in plain words; empty for a VALID performance run and a sound accuracy run."""
    if outcome.interrupted:
        if outcome.phase == "run" and outcome.run_s is not None:
            return [f"interrupted after {outcome.run_s:.1f} s, {outcome.counter(Counter.DONE)} samples"]
        return [f"interrupted in the phase '{outcome.phase}'"]
    reasons = [outcome.error] if outcome.error else []
    if failed_samples:
        verdict = found.detail.values.get("result_validity")
        said = f" (LoadGen, which cannot know, says {verdict})" if verdict else ""
        reasons.append(f"{failed_samples} samples failed and were answered with nothing{said}")
    if outcome.error:
        return reasons
    reasons += found.problems
    if config.mode == "performance" and not found.problems:
        plan = outcome.plan
        known = (plan.calibration.idle_query_ns, plan.overload, plan.fitting_qps) if plan else (None, None, None)
        reasons += explain_invalid(config.scenario, found.detail, *known)
        reasons += unexplained(found.detail, found.flaws)
    else:
        reasons += found.flaws
    done, issued = outcome.counter(Counter.DONE), outcome.counter(Counter.ISSUED)
    if done != issued:
        reasons.append(f"{issued - done} of {issued} samples were never answered")
    return reasons


def score_log(parts: Assembly, directory: Path, answers_sum: int | None, depend: bool) -> tuple[Score, list[str]]:
    """Score the accuracy log in ``directory`` and write ``accuracy.txt`` beside it. Returns notes too.

    Raises ``ValueError`` where it is none, or not of the answers that have this ``answers_sum``, and where a sample has
    two different ones, unless answers are known to ``depend`` on what else is asked, or the task's are inexact.
    """
    truth = parts.dataset.truth
    if truth is None:
        raise ValueError(f"data set {parts.dataset.name} has nothing to score against")
    log, task = read_accuracy_log(directory / ACCURACY), parts.scored_by
    if not (depend or task.inexact):
        log.check_consistent(directory / ACCURACY)
    score = task.score(log.answers, truth)
    if logged_sum(directory / ACCURACY) != answers_sum:
        raise ValueError(f"the answers in {directory / ACCURACY} are not those that this run gave: it is another run's")
    (directory / "accuracy.txt").write_text(score.text + "\n", encoding="utf-8")
    count = len(log.contradicted)
    return score, [f"samples with two different answers, of which the first counts: {count}"] if count else []


def _doubts(parts: Assembly, score: Score) -> list[str]:
    """What makes an accuracy hard to believe of a model."""
    if parts.model is None:
        return []
    return parts.scored_by.doubts(score, parts.spec, parts.model.weights != "random")


def _accuracy(parts: Assembly, score: Score | None, data_broken: bool) -> Accuracy | None:
    if score is None:
        return None
    # A target stands for MLPerf's own model and whole data set; nothing else can miss or meet it.
    benchmark = official.benchmark_of(parts.spec.name, parts.spec.loadgen_model)
    whole = dataset_broken(benchmark, parts.dataset) is None
    applies = is_official_model(parts.spec, parts.model) and whole and not data_broken
    target = benchmark.target if applies else None
    met = None if target is None else score.value >= target
    return Accuracy(name=score.name, value=score.value, count=score.count, target=target, met=met)


def _metric(config: RunConfig, detail: Detail) -> Metric | None:
    if config.mode == "accuracy":
        return None
    name, key, higher = METRICS[config.scenario]
    value = detail.number(key)
    return Metric(name=name, value=value if value else None, higher_is_better=higher)


def _duration_s(found: _Findings, outcome: Outcome) -> float | None:
    """From the first scheduled query to the last answer; as seen from outside where the ledger has not got them all."""
    if outcome.ledger is None or found.stages is None or len(found.stages.latency_ns) == 0:
        return outcome.run_s
    if outcome.counter(Counter.DONE) > outcome.ledger.shape.samples:
        return outcome.run_s
    ledger = outcome.ledger
    batches = min(outcome.counter(Counter.BATCHES), ledger.shape.batches)
    return float(ledger.rows[:batches, -1].max() - ledger.issued_ns[0]) / 1e9


def _rate(number: float | None, seconds: float | None) -> float | None:
    return number / seconds if number and seconds else None


def versions(config: RunConfig, model: str) -> dict[str, str | None]:
    """Python and the packages that take part or could, None for one that is not installed.

    Those that stand in for one of them, and those whose plug-ins were chosen, are told where they are there.
    """
    named = {("model", model), ("model", config.identify), ("channel", config.channel.partition(":")[0])}
    lines = (entry for entry in TABLE if entry.kind in _TAKE_PART or (entry.kind, entry.name) in named)
    packages = dict.fromkeys(each.name for entry in lines for each in entry.packages)
    found: dict[str, str | None] = {"python": platform.python_version(), **packages}
    for package in (*packages, *(other for others in SUBSTITUTES.values() for other in others)):
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    chosen = dict.fromkeys(filter(None, (config.backend, config.preprocess, model, config.dataset)))
    points = (point for name in chosen for point in entry_points(name=name) if point.group.startswith("sut."))
    return found | {point.dist.name: point.dist.version for point in points if point.dist}
