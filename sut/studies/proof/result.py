"""One run's result against the logs that LoadGen left beside it, and against what this project makes of its config.

Nothing is taken from result.json that can be had from elsewhere: figures are LoadGen's, accuracy is scored again, the
folder is named by the config's hash, the model is built again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError
from pydantic_core import from_json

from plugins.extras import TABLE
from plugins.files import LARGE_BYTES, read_file
from plugins.packages import SUBSTITUTES
from sut.config import RunConfig, make_config
from sut.datasets.base import DataSet
from sut.datasets.demo import DEMO
from sut.datasets.registry import open_dataset
from sut.errors import InputError, SetupError, one_line
from sut.mlperf import official
from sut.mlperf.accuracy import SCORE_FILE, read_accuracy_log
from sut.mlperf.check_log import Record, check_log
from sut.mlperf.doubts import DIFFERS_BY_RIGHT
from sut.mlperf.logs import ACCURACY, DETAIL, OFFICIAL_SEEDS, SUMMARY, Detail, read_detail, read_summary
from sut.mlperf.metrics import METRICS, latency_keys
from sut.mlperf.rules import broken_rules
from sut.mlperf.summary import MET
from sut.models.base import ModelSpec
from sut.models.content import content_digest
from sut.models.identity import Known
from sut.models.preparation import Prepared, spec_to_run
from sut.models.registry import MODELS
from sut.results.consistency import contradictions
from sut.results.schema import FILE, Result
from sut.run.folders import result_home, run_folder
from sut.studies.proof.finding import Finding, differing, found_by, named, told
from sut.tasks.registry import find_task

_PLANNED = ("scenario", "mode")
_MODES = {"performance": "PerformanceOnly", "accuracy": "AccuracyOnly"}
_PREFIX = b":::MLLOG "
_ENTRY = {"key", "value", "time_ms", "namespace", "event_type", "metadata"}
_REPEATED = (
    *("target_qps", "max_async_queries", "max_query_count", "print_timestamps", "accuracy_sample_count"),
    *("qsl_rng_seed", "sample_index_rng_seed", "schedule_rng_seed"),
    *("accuracy_log_rng_seed", "accuracy_log_probability", "accuracy_log_sampling_target"),
    *("performance_issue_unique", "performance_issue_same", "performance_issue_same_index"),
)
_AROUND_S = 1.0
_LEAST_SHARE = 0.9
"""``duration_s`` against the time that LoadGen logs around it, in which it makes the queries, too."""
_EXACT_SUM = 2**63
"""LoadGen adds latencies in 64 bits."""


def judge(folder: Path, name: str, notes: list[str]) -> tuple[Result | None, list[Finding]]:
    """The result in ``folder``, None where it is none, and what is wrong with it and the logs beside it.

    ``name`` is the folder's, as findings tell it; ``notes`` is told what could not be checked here.
    """
    result, found = _parsed(folder / FILE, f"{name}/{FILE}")
    if result is None:
        return None, found
    file = f"{name}/{FILE}"
    return result, found_by(
        file,
        lambda: (Finding(file, "figures", text, "figures that agree") for text in contradictions(result)),
        lambda: _of_logs(result, folder, name),
        lambda: _of_config(result, folder, file, notes),
        lambda: _of_answers(result, folder, name),
    )


def _parsed(path: Path, name: str) -> tuple[Result | None, list[Finding]]:
    try:
        text = read_file(path, LARGE_BYTES)
        from_json(text, allow_inf_nan=False)
        return Result.model_validate_json(text, strict=True), []
    except ValidationError as error:
        return None, [
            Finding(name, ".".join(map(str, each["loc"])), told(each["input"]), each["msg"]) for each in error.errors()
        ]
    except (OSError, ValueError) as error:
        return None, [Finding(name, "content", one_line(error), "a JSON file")]


def _of_logs(result: Result, folder: Path, name: str) -> Iterator[Finding]:
    """LoadGen's logs by themselves, and what result.json says of them."""
    try:
        detail, summary = read_detail(folder), read_summary(folder)
    except ValueError as error:
        if result.metric is not None or result.accuracy is not None:
            yield Finding(f"{name}/{DETAIL}", "content", one_line(error).rpartition(": ")[2], "LoadGen's log")
        return
    if result.valid is not False:
        yield from _lines(read_file(folder / DETAIL, LARGE_BYTES), f"{name}/{DETAIL}")
    whole = result.valid is not False or (result.metric is not None and result.metric.value is not None)
    if not whole or result.mode not in _MODES:
        return
    for each in check_log(detail, summary, _record(result), [OFFICIAL_SEEDS]):
        if result.valid is not False or each.contradicts:
            yield Finding(f"{name}/{each.file}", each.field, told(each.got), told(each.expected))
    if result.audit is None:
        yield from _twice(detail, f"{name}/{DETAIL}")
        if result.mode == "performance":
            yield from _summary(detail, summary, f"{name}/{SUMMARY}")
        yield from _no_answers(result, folder, f"{name}/{ACCURACY}")
    yield from _figures(result, detail, f"{name}/{FILE}")
    yield from _duration(result, detail, name)


def _photos(result: Result) -> DataSet | None:
    """The data set of a run where that is the demo photos, which are here, too."""
    config, known = result.config, MODELS.get(result.model)
    name = config.get("dataset") or (known.dataset if known else DEMO)
    if name != DEMO or config.get("dataset_path") or config.get("dataset_list"):
        return None
    try:
        return open_dataset(DEMO, None, None, config.get("count"))
    except (InputError, TypeError):
        return None


def _lines(text: bytes, name: str) -> Iterator[Finding]:
    """Entries that a reader of the log would pass over."""
    for number, line in enumerate(text.splitlines(), 1):
        try:
            entry = from_json(line.removeprefix(_PREFIX))
            sound = line.startswith(_PREFIX) and isinstance(entry, dict) and set(entry) == _ENTRY
        except ValueError:
            sound = False
        if not sound:
            yield Finding(name, f"line {number}", told(line.decode(errors="replace")), "an entry of LoadGen's")


def _record(result: Result) -> Record:
    """What a result says of its run, for ``check_log``: LoadGen began between ``started`` and the making of the result.

    Of when single samples were issued it says nothing.
    """
    asked: dict[str, Any] = {
        "effective_scenario": result.scenario,
        "effective_test_mode": _MODES[result.mode],
    }
    seconds = result.config.get("time_s")
    if seconds is not None and result.mode == "performance" and result.audit is None:
        asked["effective_min_duration_ms"] = round(float(seconds) * 1000)
    if (photos := _photos(result)) is not None:
        asked["qsl_reported_total_count"] = photos.count
    return Record(
        asked=asked,
        issued=result.samples,
        started_ns=_ns(result.started),
        first_ns=_ns(result.system.get("utc")),
        last_ns=None,
        last_done_ns=None,
        latency_ns=None,
        stages_ns=None,
    )


def _ns(text: object) -> int:
    """A time in ns; 0 where it is none."""
    try:
        return int(datetime.fromisoformat(str(text)).astimezone(UTC).timestamp()) * 10**9
    except ValueError:
        return 0


def _twice(detail: Detail, name: str) -> Iterator[Finding]:
    """LoadGen logs every setting as it was requested, and as it came into effect."""
    for key, value in detail.values.items():
        stem = key.removeprefix("requested_")
        if stem in (key, DIFFERS_BY_RIGHT):
            continue
        effective = detail.values.get(f"effective_{stem}", value)
        if effective != value:
            yield Finding(name, key, told(value), f"{told(effective)} (effective_{stem})")


def _summary(detail: Detail, summary: Mapping[str, str], name: str) -> Iterator[Finding]:
    """What the summary repeats of the log, beyond what decides a verdict."""
    values = detail.values
    right = {"SUT name": values.get("sut_name")} | {key: values.get(f"effective_{key}") for key in _REPEATED}
    right |= {words: "Yes" if values[key] else "NO" for words, key in MET.items() if key in values}
    yield from differing(name, summary, {key: _printed(value) for key, value in right.items()})


def _printed(value: object) -> str:
    """As LoadGen's summary has it: of a rate six digits, of a flag a number."""
    return f"{value:g}" if isinstance(value, float) else str(int(value) if isinstance(value, bool) else value)


def _no_answers(result: Result, folder: Path, name: str) -> Iterator[Finding]:
    """Without an audit LoadGen logs no answers in performance mode."""
    text = read_file(folder / ACCURACY, LARGE_BYTES) if (folder / ACCURACY).is_file() else b""
    if result.mode == "performance" and text != b"[\n]\n":
        yield Finding(name, "answers", told(text.decode(errors="replace")), "none in performance mode")


def _figures(result: Result, detail: Detail, name: str) -> Iterator[Finding]:
    """Figures of result.json that are LoadGen's, by its log."""
    if result.mode != "performance":
        return
    queries = detail.number("result_query_count")
    metric = result.metric
    got: dict[str, Any] = {"queries": result.queries, "metric.value": metric and metric.value}
    yield from differing(
        name,
        got,
        {"queries": queries and int(queries), "metric.value": detail.number(METRICS[result.scenario][1]) or None},
    )
    if result.valid and not detail.valid:
        yield Finding(name, "valid", "true", f"false (LoadGen says {detail.values.get('result_validity')})")
    if result.plan and result.plan.get("trace") and not result.failed:
        yield from _latency(result, detail, name)


def _latency(result: Result, detail: Detail, name: str) -> Iterator[Finding]:
    """``latency_ns`` of a run with a trace: LoadGen's own, to the nanosecond.

    In MultiStream on several lanes it is that of each query's slowest sample, which may not be the one that LoadGen
    saw last: no less than LoadGen's.
    """
    keys = latency_keys(result.scenario)
    mean = f"result_mean_{'query_' if result.scenario == 'MultiStream' else ''}latency_ns"
    if (detail.number(mean) or 0) * (detail.number("result_query_count") or 0) < _EXACT_SUM:
        keys["mean"] = mean
    exact = result.scenario != "MultiStream" or (result.plan or {}).get("lanes") == 1
    for ours, key in keys.items():
        got, logged = result.latency_ns.get(ours), detail.number(key)
        if logged is None or got is None or got < logged or (exact and got != logged):
            bound = told(logged and int(logged)) + ("" if exact else " or more")
            yield Finding(name, f"latency_ns.{ours}", told(got), f"{bound} ({DETAIL}, {key})")


def _duration(result: Result, detail: Detail, name: str) -> Iterator[Finding]:
    """``duration_s`` between the times that LoadGen logged before its first query and after the last answer."""
    if detail.power_window is None:
        begin, end = (told(detail.values.get(key)) for key in ("power_begin", "power_end"))
        yield Finding(f"{name}/{DETAIL}", "power_end", f"{begin} to {end}", "two times, the second no earlier")
        return
    (begin_s, end_s), seconds = detail.power_window, result.duration_s
    most = end_s - begin_s
    if seconds is None or not _LEAST_SHARE * most - _AROUND_S <= seconds <= most + _AROUND_S:
        yield Finding(f"{name}/{FILE}", "duration_s", told(seconds), f"about {most:.3f} ({DETAIL}, power_end)")


def _of_config(result: Result, folder: Path, name: str, notes: list[str]) -> Iterator[Finding]:
    """What this project makes of the config: the folder's name, the recipe, the model, what executes."""
    try:
        config = make_config(result.config)
    except InputError as error:
        yield Finding(name, "config", one_line(error), "settings of a run")
        return
    attested = {key: result.attested.get(key) for key in ("precision", "device_name")}
    # Of a file that was quantised already more than one may execute; "none": there is no model.
    if result.attested and str(attested["precision"]).partition("+")[0] not in (result.precision, "none"):
        yield Finding(name, "attested.precision", told(attested["precision"]), result.precision)
    if result.attested and (attested["device_name"] or None) != result.device_name:
        yield Finding(name, "device_name", told(result.device_name), f"{told(attested['device_name'])} (attested)")
    yield from _versions(result, name)
    if result.plan is not None:
        yield from differing(
            name, named("plan", result.plan), {f"plan.{key}": getattr(result, key) for key in _PLANNED}
        )
    if not config.is_file and config.model.lower().replace("_", "-") != result.model:
        yield Finding(name, "model", told(result.model), f"{told(config.model)} (config.model)")
    known = MODELS.get(result.model)
    if known is None or config.is_file:
        notes.append(f"{name}: {result.model} is no model of this project, which cannot make it again")
        return
    spec = spec_to_run(_as_read(known, result.backend), config)
    recipe = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(spec.recipe).items()}
    yield from differing(name, named("recipe", result.recipe), named("recipe", recipe))
    yield from _place(result, config, spec, folder, name)
    yield from _rules(result, config, spec, folder, name)
    yield from _model(result, config, known, name, notes)


def _as_read(spec: ModelSpec, backend: str) -> ModelSpec:
    """A known model as a backend's kind of file: TFLite's convolutions know NHWC only."""
    return replace(spec, recipe=replace(spec.recipe, layout="NHWC")) if backend == "tflite" else spec


def _versions(result: Result, name: str) -> Iterator[Finding]:
    """The backend's word for its version is that of a package, but for the build behind a plus."""
    lines = (entry for entry in TABLE if entry.use.startswith(f"backend {result.backend}"))
    packages = [each.name for entry in lines for each in entry.packages]
    packages += [other for each in packages for other in SUBSTITUTES.get(each, ())]
    installed = [version for each in packages if (version := result.versions.get(each))]
    told_by = result.backend_version  # None of a run that ended before it was loaded
    if (
        installed
        and told_by
        and str(result.backend_version).partition("+")[0] not in [each.partition("+")[0] for each in installed]
    ):
        yield Finding(name, "backend_version", told(result.backend_version), f"{' or '.join(installed)} (versions)")


def _place(result: Result, config: RunConfig, spec: ModelSpec, folder: Path, name: str) -> Iterator[Finding]:
    """A result lies where its config puts it, whose hash is part of that."""
    right = run_folder(result_home(config, spec), config.scenario, config.mode, result.audit).parts[-4:]
    got = (*folder.absolute().parts[-4:-1], folder.name.partition(".")[0])  # an earlier one has its time behind it
    if got != right:
        yield Finding(name, "config", "/".join(right), f"{'/'.join(got)}, where it lies")


def _rules(result: Result, config: RunConfig, spec: ModelSpec, folder: Path, name: str) -> Iterator[Finding]:
    """All rules that are broken by config, model and log are told; what only the run's process saw may stand behind."""
    photos, weights = _photos(result), result.weights
    if photos is None or weights == "unknown":  # of such a file the rules tell the name, which is not told here
        return
    path = Path(next(iter(result.loaded_sha256), spec.name))
    known: Known = "trained" if weights == "trained" else "planted" if weights == "planted" else "random"
    model = None if weights is None else Prepared(path, path, path, sha256=result.model_sha256, weights=known)
    detail = read_detail(folder)
    for rule in broken_rules(config, spec, model, photos, detail, result.audit, result.attested):
        if rule not in result.rules_broken:
            yield Finding(name, "rules_broken", told("; ".join(result.rules_broken)), rule)


def _model(result: Result, config: RunConfig, spec: ModelSpec, name: str, notes: list[str]) -> Iterator[Finding]:
    """The model's SHA-256 is that of the file which this project makes, and the one that was loaded."""
    if result.model_sha256 is None:
        return
    weights = result.weights
    if weights in spec.makes:
        made, why = made_sha256(spec.name, "random" if weights == "random" else "trained")
        if made is None:
            notes.append(f"{name}: model_sha256 was not checked: {why}")
        elif made != result.model_sha256:
            yield Finding(name, "model_sha256", result.model_sha256, f"{made}, as it is made here")
    else:
        notes.append(f"{name}: model_sha256 is of a file that this project does not make")
    if config.precision == "fp32" and not config.fold and len(result.loaded_sha256) == 1:
        [(file, loaded)] = result.loaded_sha256.items()
        if loaded != result.model_sha256:
            yield Finding(name, f"loaded_sha256.{file}", loaded, f"{result.model_sha256} (model_sha256)")


@cache
def made_sha256(model: str, weights: Literal["trained", "random"]) -> tuple[str | None, str]:
    """SHA-256 of a model as this project makes it; None and why where it cannot be made here."""
    try:
        return content_digest(MODELS[model].build(weights, lambda text: None)), ""
    except (InputError, SetupError, ImportError) as error:
        return None, one_line(error)


def _of_answers(result: Result, folder: Path, name: str) -> Iterator[Finding]:
    """Accuracy on the demo photos, whose labels are known, scored again from LoadGen's accuracy log."""
    photos = _photos(result)
    if result.accuracy is None or photos is None or photos.truth is None:
        return
    try:
        log = read_accuracy_log(folder / ACCURACY)
        score = find_task(official.benchmark_of(result.model, result.loadgen_model).task).score(
            log.answers, photos.truth
        )
        text = (folder / SCORE_FILE).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        yield Finding(f"{name}/{ACCURACY}", "answers", one_line(error).replace(f"{folder}/", ""), "one a picture")
        return
    right = {"accuracy.value": score.value, "accuracy.count": score.count, "accuracy.name": score.name}
    got = named("accuracy", result.accuracy.model_dump())
    for each in differing(f"{name}/{FILE}", got, right):
        yield replace(each, expected=f"{each.expected} ({ACCURACY})")
    if text != score.text + "\n":
        yield Finding(f"{name}/{SCORE_FILE}", "accuracy", told(text.strip()), score.text)
