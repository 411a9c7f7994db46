"""MLPerf's rules against what a run really did, and LoadGen's verdict in plain words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from backends.registry import BACKENDS, load
from preprocess.registry import PREPROCESSORS
from sut.config import RunConfig
from sut.datasets.base import DataSet
from sut.mlperf import official
from sut.mlperf.audit import Audit
from sut.mlperf.logs import Detail
from sut.mlperf.network import broken_by_server, broken_by_settings
from sut.mlperf.official import Benchmark
from sut.models.base import ModelSpec
from sut.models.preparation import Prepared


def is_official_model(spec: ModelSpec, model: Prepared | None) -> bool:
    """Whether a model is MLPerf's, by the content of its file.

    Where every submitter exports a file of his own no content tells: it is one if it was not made here, at random, and
    the accuracy run of the same file is the judge.
    """
    benchmark = official.BENCHMARKS.get(spec.name)
    if benchmark is None or model is None:
        return False
    return model.weights != "random" if benchmark.exports_differ else model.weights == "trained"


def dataset_broken(benchmark: Benchmark, dataset: DataSet) -> str | None:
    """What keeps a data set from being a benchmark's; None where it is that, as far as its list tells.

    Of ImageNet every line is known, of the others in which form they are annotated and how many pictures they have.
    """
    name, count, wanted = dataset.name, dataset.count, benchmark.pictures
    whose = "ImageNet's" if benchmark.dataset == "imagenet" else "MLPerf's"
    if count > wanted and benchmark.dataset != "imagenet":
        return f"data set {name} has {count} pictures, more than {whose} {wanted}"
    if count != wanted:
        return f"data set {name} has {count} pictures, not {whose} {wanted}"
    if not dataset.whole:
        return f"data set {name} has {count} pictures of a longer list, not {whose} {wanted}"
    if benchmark.dataset == "imagenet" and not dataset.is_imagenet():
        return f"the list of data set {name} is not ImageNet's: names, labels or their order differ"
    if benchmark.dataset not in ("imagenet", name):
        return f"the list of data set {name} is not one of {benchmark.dataset}'s annotations"
    return None


def dataset_note(benchmark: Benchmark, dataset: DataSet) -> str | None:
    """What is not known of a data set that breaks no rule."""
    if benchmark.dataset == "imagenet" or dataset_broken(benchmark, dataset) is not None:
        return None
    return (
        f"data set {dataset.name} has as many pictures as MLPerf's, {benchmark.pictures:,}; whether they are the same "
        "is not known here: whoever made the list vouches for it"
    )


def foretold(settings: Any, dataset: DataSet) -> Detail:
    """What the log of a performance run will say, as far as LoadGen's ``settings`` tell it; of counts the least.

    What Server is asked follows from its rate, which is not among them.
    """
    scenario = settings.scenario.name
    offline = scenario == "Offline"
    values = {
        "effective_min_duration_ms": settings.min_duration_ms,
        "effective_max_duration_ms": settings.max_duration_ms,
        "effective_max_query_count": settings.max_query_count,
        "requested_server_max_async_queries": settings.server_max_async_queries,
        "effective_performance_sample_count": settings.performance_sample_count_override or dataset.count,
        "effective_performance_issue_same": settings.performance_issue_same,
        "effective_performance_issue_unique": settings.performance_issue_unique,
        "effective_target_latency_ns": settings.server_target_latency_ns,
        "effective_samples_per_query": settings.min_query_count if offline else settings.multi_stream_samples_per_query,
    }
    if scenario in ("SingleStream", "MultiStream"):
        values["result_query_count"] = settings.min_query_count
    percentiles = {
        "SingleStream": settings.single_stream_target_latency_percentile,
        "MultiStream": settings.multi_stream_target_latency_percentile,
        "Server": settings.server_target_latency_percentile,
    }
    return Detail(values | {"effective_target_latency_percentile": percentiles.get(scenario)}, ())


def broken_before(
    config: RunConfig,
    spec: ModelSpec,
    model: Prepared | None,
    dataset: DataSet,
    told: Detail,
    audit: Audit | None,
    attested: Mapping[str, Any] | None = None,
) -> list[str]:
    """What keeps a run from being one by the rules of round v6.1, each with the figure found and the one required.

    As far as config, parts and settings tell it: ``told`` is the run's log, or what is ``foretold`` of it, ``attested``
    what a server says of itself, None where it was not asked. What one of MLPerf's audits sets for itself breaks
    nothing. Where a server has the model, the rules are those of the network division.
    """
    benchmark = official.benchmark_of(spec.name, spec.loadgen_model)
    found = _not_official(config, spec, benchmark, model)
    found += _of_network(config, spec, benchmark, model, attested)
    # With it, every list but MLCommons' was refused, and every file that was quantised already; but a server's.
    quantised = config.precision == "int8" or (model is not None and model.quantised)
    if quantised and (config.rules is None or model is None):
        found.append("int8 is not known to be calibrated on MLCommons' list (--rules closed)")
    if config.identify is not None:
        found.append(f"two models: what {spec.name} finds, {config.identify} identifies; MLPerf's benchmarks have one")
    if config.serve != "none":
        found.append("the system is behind a server on LoadGen's own host")
    if config.slowdown:
        stretched = ", ".join(f"{stage} x {factor:.4g}" for stage, factor in config.slowdown.items())
        found.append(f"slowdown stretches stages on purpose: {stretched}")
    if config.boundary == "device":
        found.append("at the boundary device the input has already arrived where MLPerf's clock starts")
    if config.mode == "find_peak":
        found.append("FindPeakPerformance is a search, not a result")
    if audit is not None and audit.test is None:
        found.append(audit_rule(audit))
    if (broken := dataset_broken(benchmark, dataset)) is not None:
        found.append(broken)
    if config.scenario not in benchmark.scenarios:
        found.append(f"MLPerf's {benchmark.name} has no scenario {config.scenario}")
    if config.mode != "accuracy" and "effective_min_duration_ms" in told.values:
        found += _performance(config, benchmark, dataset, told, audit)
    return found


def broken_rules(
    config: RunConfig,
    spec: ModelSpec,
    model: Prepared | None,
    dataset: DataSet,
    detail: Detail,
    audit: Audit | None = None,
    attested: Mapping[str, Any] = {},
) -> list[str]:
    """``broken_before`` of a run's log, and what only that tells; ``audit`` is what was obeyed.

    What only the run's own process sees, such as parity, is not among them.
    """
    found = broken_before(config, spec, model, dataset, detail, audit, attested)
    if audit is not None and audit.test is not None:
        found.append(audit_rule(audit))
    if config.mode == "accuracy":
        return found
    if "effective_min_duration_ms" not in detail.values:
        found.append("LoadGen left no log to check")
    elif "result_validity" not in detail.values:
        found.append("the run did not come to its end")
    return found


def audit_rule(audit: Audit) -> str:
    """What an audit's run breaks by being one; of one of MLPerf's, that is part of a closed submission, only this."""
    return f"an audit ({audit.test or audit.file}) is no result"


def _not_official(config: RunConfig, spec: ModelSpec, benchmark: Benchmark, model: Prepared | None) -> list[str]:
    """What is not MLPerf's, or not this project's, of the parts that ran."""
    found: list[str] = []
    if spec.name != benchmark.name:
        found.append(f"model {spec.name} is not MLPerf's {benchmark.name}")
    if benchmark.retired:
        found.append(f"MLPerf's {benchmark.name} is retired: no round takes it any more")
    if model is None:
        if not is_far(config, model):
            found.append(f"the {config.backend} backend runs no model")
    elif model.weights in ("random", "planted"):
        found.append(f"{model.weights} weights")
    elif spec.name == benchmark.name and not is_official_model(spec, model):
        found.append(
            f"model {spec.name} is {model.source.name} with the SHA-256 {model.sha256:.16}..., not MLPerf's file"
        )
    for kind, name, ours in (("backend", config.backend, BACKENDS), ("preprocessor", config.preprocess, PREPROCESSORS)):
        if name not in ours:
            found.append(f"the {kind} {name} is not this project's own")
    return found


def is_far(config: RunConfig, model: Prepared | None) -> bool:
    """Whether a server has the model, so that no file of it is here."""
    return model is None and load(config.backend).model_elsewhere


def _of_network(
    config: RunConfig,
    spec: ModelSpec,
    benchmark: Benchmark,
    model: Prepared | None,
    attested: Mapping[str, Any] | None,
) -> Iterator[str]:
    """What is of the network division, and what of it is broken."""
    if not is_far(config, model):
        if config.rules == "network":
            yield f"the backend {config.backend} is on LoadGen's own machine: no network lies between"
        return
    if config.rules == "closed":
        yield "the model is on a server, which is of the network division: --rules network"
        return
    yield from broken_by_settings(config, benchmark)
    if attested is not None:
        yield from broken_by_server(config, spec, benchmark, attested)


def _performance(
    config: RunConfig, benchmark: Benchmark, dataset: DataSet, detail: Detail, audit: Audit | None
) -> list[str]:
    found: list[str] = []
    scenario = config.scenario
    duration_ms = detail.number("effective_min_duration_ms") or 0
    if duration_ms < official.MIN_DURATION_S * 1000:
        found.append(f"min_duration {duration_ms / 1000:g} s < {official.MIN_DURATION_S} s")
    samples = min(int(detail.number("effective_performance_sample_count") or 0), dataset.count)
    if samples < benchmark.performance_samples:
        found.append(f"performance_sample_count {samples} < {benchmark.performance_samples}")
    asked_by_audit = audit.settings if audit is not None and audit.test is not None else {}
    for name in ("performance_issue_same", "performance_issue_unique"):
        if detail.values.get(f"effective_{name}") and not asked_by_audit.get(name):
            found.append(f"{name} is on: the samples are not drawn at random")
    if scenario == "Offline":
        asked = detail.number("effective_samples_per_query")
        if asked is not None and asked < benchmark.offline_samples:
            found.append(f"{asked:.0f} samples < {benchmark.offline_samples}")
        return found
    for name, key, scale, unit in _CUT_BY.values():
        if value := detail.number(key):
            found.append(f"{name} {scale * value:g}{unit} is set, which may end the run early")
    # What was asked, not min_query_count: for Server MLPerf sets that to 100 and leaves the rest to early stopping.
    queries = detail.number("result_query_count")
    if queries is not None and queries < official.QUERIES[scenario]:
        found.append(f"{queries:g} queries < {official.QUERIES[scenario]}")
    percentile = detail.number("effective_target_latency_percentile")
    if percentile is not None and abs(percentile - official.PERCENTILES[scenario]) > 1e-9:
        found.append(f"target_latency_percentile {100 * percentile:g} is not {100 * official.PERCENTILES[scenario]:g}")
    if scenario == "Server":
        bound_ms = (detail.number("effective_target_latency_ns") or 0) / 1e6
        if benchmark.server_bound_ms is not None and bound_ms > benchmark.server_bound_ms:
            found.append(f"Server latency bound {bound_ms:.4g} ms > {benchmark.server_bound_ms} ms")
        if config.relax_server and config.qps is None:
            rate = detail.number("effective_target_qps")
            which = f"{rate:.4g} queries/s " if rate else ""
            found.append(f"Server rate {which}is a quarter of the calibrated one, not the highest")
    per_query = detail.number("effective_samples_per_query")
    if scenario == "MultiStream" and per_query is not None and per_query != official.MULTISTREAM_SAMPLES:
        found.append(f"samples_per_query {per_query:g} is not {official.MULTISTREAM_SAMPLES}")
    return found


_CUT_BY = {
    "Max test duration reached": ("max_duration", "effective_max_duration_ms", 1e-3, " s"),
    "Max query count reached": ("max_query_count", "effective_max_query_count", 1, ""),
    "Too many outstanding queries": ("max_async_queries", "requested_server_max_async_queries", 1, ""),
}
"""What LoadGen says when it ends a run early, the setting that makes it do so, and how the log has its value."""


def explain_invalid(
    scenario: str, detail: Detail, single_ns: int | None, overload: str | None = None, fitting_qps: float | None = None
) -> list[str]:
    """Why LoadGen judged a performance run INVALID, and what to change. Empty if it is VALID.

    ``single_ns`` is the calibrated latency of one sample, for saying when no rate at all could meet the bound;
    ``overload`` says of a Server run that it was asked for too much, and so was to be stopped; ``fitting_qps`` is a
    rate that it should hold by its calibration.
    """
    if (setting := _cut_by(detail)) is not None:
        # All else that LoadGen says of the run follows from its early end.
        return [
            overload or f"{setting} ended the run early, which LoadGen counts as an error: raise it or leave it out"
        ]
    if detail.valid:
        return []
    if detail.values.get("effective_performance_issue_unique") and scenario != "Offline":
        return ["performance_issue_unique asks for each loaded sample once, whatever min_duration says: leave it out"]
    values = detail.values
    found: list[str] = []
    if values.get("result_perf_constraints_met") is False or (
        scenario == "Server" and values.get("early_stopping_met") is False
    ):
        found.append(_server_reason(detail, single_ns, fitting_qps))
    if values.get("result_min_duration_met") is False:
        found.append(_duration_reason(scenario, detail))
    if values.get("result_min_queries_met") is False:
        found.append("too few queries were issued for min_query_count")
    if scenario in ("SingleStream", "MultiStream") and values.get("early_stopping_met") is False:
        issued = detail.number("result_query_count") or 0
        needed = official.QUERIES[scenario]
        found.append(f"{issued:g} queries are too few for early stopping, which needs {needed}: raise --time")
    return found or [f"LoadGen's verdict is {values.get('result_validity', 'missing')}"]


def unexplained(detail: Detail, flaws: Sequence[str]) -> list[str]:
    """Flaws of a log without LoadGen's word that it ended early, where ``explain_invalid`` says why it did.

    LoadGen says of each such run that the expected latency or rate is to be mended, which is seldom the cause.
    """
    early = ("result_min_duration_met", "result_min_queries_met")
    if _cut_by(detail) is None and all(detail.values.get(met) is not False for met in early):
        return list(flaws)
    return [flaw for flaw in flaws if "Ending early: " not in flaw]


def _cut_by(detail: Detail) -> str | None:
    """The setting, with its value, by which LoadGen ended a run early."""
    for words, (name, key, scale, unit) in _CUT_BY.items():
        if any(words in error for error in detail.errors):
            value = detail.number(key)
            return name if value is None else f"{name} {scale * value:g}{unit}"
    return None


def _server_reason(detail: Detail, single_ns: int | None, fitting_qps: float | None) -> str:
    bound_ns = detail.number("effective_target_latency_ns") or 0
    p99_ns = detail.number("result_99.00_percentile_latency_ns") or 0
    late = detail.number("result_overlatency_query_count") or 0
    issued = detail.number("result_query_count") or 0
    if single_ns is not None and single_ns > bound_ns:
        return (
            f"one picture alone takes {single_ns / 1e6:.4g} ms, longer than Server's latency bound of "
            f"{bound_ns / 1e6:.4g} ms: no rate is valid on this system; --max-latency relaxes the bound"
        )
    rate = detail.number("effective_target_qps") or 0
    if p99_ns > bound_ns:
        return (
            f"p99 latency {p99_ns / 1e6:.4g} ms is over the bound of {bound_ns / 1e6:.4g} ms at {rate:.4g} queries/s: "
            f"{_lower_rate(detail, fitting_qps)}; or relax the bound with --max-latency"
        )
    if issued < official.QUERIES["Server"]:
        return (
            f"{issued:g} queries are too few for early stopping, which needs {official.QUERIES['Server']}: raise --time"
        )
    return (
        f"{late:g} of {issued:g} queries were over the bound of {bound_ns / 1e6:.4g} ms, too many for early stopping: "
        f"{_lower_rate(detail, fitting_qps)}; or raise --time"
    )


_FELL_BEHIND = 0.95
"""Of the rate that was asked: who answers less has a backlog that grows, and shows what can be answered."""
_LOWER = 0.9
"""A rate that is less than so much lower than one that failed has no ground to be called better."""


def _lower_rate(detail: Detail, fitting_qps: float | None) -> str:
    """What to try instead of a Server rate that was too much: one that should pass, where anything tells it."""
    asked = detail.number("effective_target_qps") or 0
    completed = detail.number("result_completed_samples_per_sec")
    known = [] if fitting_qps is None else [fitting_qps]
    if completed and completed < _FELL_BEHIND * asked:
        known.append(completed / 2)
    search = "and ./run_local.sh tune with the same options finds the highest that does"
    if not known or min(known) > _LOWER * asked:
        return f"a lower --qps may pass, {search}"
    return f"--qps {float(f'{min(known):.3g}'):.15g} should pass on a quiet machine, {search}"


def _duration_reason(scenario: str, detail: Detail) -> str:
    wanted_s = (detail.number("effective_min_duration_ms") or 0) / 1000
    if scenario == "Offline":
        told = detail.number("effective_target_qps") or 0
        rate = detail.number("result_samples_per_second") or 0
        return (
            f"the samples were done before {wanted_s:g} s were over: LoadGen was told {told:.4g} samples/s, the true "
            f"rate is {rate:.4g}; raise --qps"
        )
    if scenario == "Server":
        return f"the last query was scheduled before {wanted_s:g} s were over; raise --qps or --time"
    return (
        f"LoadGen ran out of queries before {wanted_s:g} s were over, because answers came more than twice as fast as "
        "target_latency says; lower it in user.conf, or leave it out to have it measured"
    )
