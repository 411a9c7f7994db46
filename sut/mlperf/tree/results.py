"""What a submission has of one scenario: its files, and the rules over the logs of its runs."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

from sut.mlperf import official
from sut.mlperf.judge_log import judge_log
from sut.mlperf.logs import DETAIL, OFFICIAL_SEEDS, SUMMARY, Detail, read_detail
from sut.mlperf.official import Benchmark
from sut.mlperf.tree.entries import missing
from sut.mlperf.tree.layout import Tree
from sut.mlperf.tree.place import Place
from sut.mlperf.tree.rules import TreeRule
from sut.mlperf.tree.systems import check_fields
from sut.text import printable

Broken = tuple[TreeRule, str, object, str]
"""A rule of a log, its field, what was got, what was expected."""

_LEAST_S = official.MIN_DURATION_S
_ABOUT = 0.5
"""Lengths that are told by latencies or rates alone lack what LoadGen does between queries: of 20 us a third."""
_ROUNDED = 1e-5
"""LoadGen prints rates with six digits."""

_MOST_TEXT = 500
"""Of a finding about a log: why a run is not VALID is told in sentences."""
_SHARED = ("performance_issue_unique", "sample_concatenate_permutation")
_PLAIN = (
    "accuracy_log_rng_seed",
    "accuracy_log_probability",
    "accuracy_log_sampling_target",
    "performance_issue_same",
    "performance_issue_same_index",
    *_SHARED,
)
"""What no run has set but an audit's, and some not even that."""


@dataclass(frozen=True, slots=True)
class Log:
    """A run's log in a tree: what it says, and by what another one would be known to be the same run's."""

    place: Place
    role: str
    path: str
    detail: Detail
    digest: str
    inferred: bool

    @property
    def scenario(self) -> str:
        """The scenario that was run."""
        return str(self.detail.values.get("effective_scenario"))


def judge_files(tree: Tree, place: Place) -> None:
    """Judges what stands beside the runs' folders."""
    tree.text(f"{place.path}/user.conf")
    readme = f"{place.path}/README.md"
    tree.said.append((readme, "text", tree.text(readme) or ""))
    path = f"{place.path}/measurements.json"
    if (fields := tree.json(path)) is not None:
        check_fields(tree, path, fields, official.MEASUREMENTS)
    audits = place.benchmark.audits if place.closed else ()
    tree.only(place.path, ("README.md", "measurements.json", "user.conf", "performance", "accuracy", *audits))


def judge_performance(tree: Tree, place: Place, role: str, folder: str) -> Log | None:
    """Judges the performance run below ``folder``, or an audit's. Returns its log, None where none can be judged."""
    runs, run = f"{folder}/performance", f"{folder}/performance/run_1"
    if not tree.has_folder(runs, "a folder with run_1"):
        return None
    tree.only(runs, ("run_1",))
    if not tree.has_folder(run, "a folder with LoadGen's logs"):
        return None
    tree.only(run, (DETAIL, SUMMARY), TreeRule.STRAY if role in official.AUDITS else TreeRule.EXTRA)
    return judge_run(tree, place, role, run)


def judge_run(tree: Tree, place: Place, role: str, folder: str) -> Log | None:
    """Judges one run's logs. ``role``: performance, accuracy or the name of an audit."""
    path, summary = f"{folder}/{DETAIL}", f"{folder}/{SUMMARY}"
    told, summarised = tree.text(path), tree.text(summary)
    content = tree.read(path)
    if told is None or content is None:
        return None
    if summarised is not None or tree.kind(summary) is None:
        try:
            found = judge_log(tree.root / folder, [OFFICIAL_SEEDS], Path(role))
        except ValueError as error:
            tree.add(TreeRule.FORM, path, "file", tree.why(path, error), "LoadGen's log")
            return None
        tree.found += [
            replace(each, file=printable(f"{folder}/{each.file}"), got=printable(each.got)[:_MOST_TEXT])
            for each in found
        ]
    detail = read_detail(tree.root / folder)
    mode = "AccuracyOnly" if role == "accuracy" else "PerformanceOnly"
    if not detail.complete or detail.values.get("effective_test_mode") != mode:
        return None  # which has been named
    if lacking := missing(detail.values, str(detail.values.get("effective_scenario")), role != "accuracy"):
        got, more = detail.values.get(lacking[0]), f", and {len(lacking) - 1} more" * (len(lacking) > 1)
        tree.add(TreeRule.ENTRY, path, lacking[0], got, f"what LoadGen writes there{more}")
        return None
    _judge_name(tree, place, path, str(detail.values["sut_name"]))
    log = Log(place, role, path, detail, hashlib.sha256(content).hexdigest(), inferred=False)
    if log.scenario != place.scenario:
        log = replace(log, inferred=place.may_infer(log.scenario))
        rule = TreeRule.INFERRED if log.inferred else TreeRule.SCENARIO
        tree.add(rule, path, "effective_scenario", log.scenario, place.scenario)
        if not log.inferred:
            return log
    measured = _performance(detail, log.scenario, place.benchmark) if role != "accuracy" else ()
    for broken in [*_role(detail, role, place.benchmark), *measured]:
        tree.add(broken[0], path, *broken[1:])
    return log


def _judge_name(tree: Tree, place: Place, path: str, name: str) -> None:
    """Judges what LoadGen calls the system."""
    says_so = official.NETWORK_SUT in name
    if place.system.is_network and not says_so:
        tree.add(TreeRule.NETWORK, path, "sut_name", name, f"a name with '{official.NETWORK_SUT}' in it")
    elif place.division == "closed" and says_so:
        tree.add(TreeRule.NETWORK, path, "sut_name", name, "that of a system without a network before it")


def _role(detail: Detail, role: str, benchmark: Benchmark) -> Iterator[Broken]:
    """Settings of audits where they do not belong, as far as ``judge_log`` leaves them, which knows no benchmark."""
    audit: Mapping[str, int] = official.AUDITS.get(role, MappingProxyType({}))
    for name in _SHARED if role == "performance" else _PLAIN:
        if name not in audit and (got := detail.values[key := f"effective_{name}"]):
            yield TreeRule.ROLE, key, got, "0"
    key = f"effective_{official.SAMPLED}"
    others = {each.sampled for each in official.BENCHMARKS.values()} - {benchmark.sampled}
    if official.SAMPLED in audit and detail.values[key] in others:
        yield TreeRule.ROLE, key, detail.values[key], f"{benchmark.sampled}, for {benchmark.name}"


def _performance(detail: Detail, scenario: str, benchmark: Benchmark) -> Iterator[Broken]:
    values = detail.values
    if values["num_errors"] != len(detail.errors):
        yield TreeRule.ERRORS, "num_errors", values["num_errors"], str(len(detail.errors))
    key = "effective_min_duration_ms"
    if (detail.number(key) or 0) < 1000 * _LEAST_S:
        yield TreeRule.MIN_DURATION, key, values.get(key), f"{1000 * _LEAST_S} or more"
    for key, seconds, least in _lengths(detail, scenario):
        if seconds is None or not seconds >= least:
            got = values.get(key) if seconds is None else f"{values.get(key)}, so {seconds:.3f} s"
            yield TreeRule.LENGTH, key, got, f"a run of {_LEAST_S} s or more"
            break
    for key, least in _counts(scenario, benchmark):
        if (detail.number(key) or 0) < least:
            yield TreeRule.COUNT, key, values.get(key), f"{least} or more"
    key = "effective_performance_sample_count"
    if (detail.number(key) or 0) < benchmark.performance_samples:
        yield TreeRule.SAMPLES, key, values.get(key), f"{benchmark.performance_samples} or more"
    key = "effective_target_latency_percentile"
    if scenario in official.PERCENTILES and detail.number(key) != official.PERCENTILES[scenario]:
        yield TreeRule.PERCENTILE, key, values.get(key), str(official.PERCENTILES[scenario])
    key = "effective_target_latency_ns"
    bound, most_ms = detail.number(key), benchmark.server_bound_ms
    if scenario == "Server" and most_ms and not (bound is not None and 0 < bound <= most_ms * 1e6):
        yield TreeRule.BOUND, key, values.get(key), f"{most_ms * 10**6:.0f} or less"


def _counts(scenario: str, benchmark: Benchmark) -> Iterator[tuple[str, int]]:
    if scenario in official.QUERIES:
        yield "result_query_count", official.QUERIES[scenario]
    if scenario == "MultiStream":
        yield "effective_samples_per_query", official.MULTISTREAM_SAMPLES
    if scenario == "Offline":
        yield "generated_samples_per_query", benchmark.offline_samples


def _lengths(detail: Detail, scenario: str) -> Iterator[tuple[str, float | None, float]]:
    """How long a run took, in seconds, by each field that tells it, and how long that must be at the least.

    LoadGen marks the begin and the end of each run in its log, whether power is measured or not.
    """
    window = detail.power_window
    yield "power_end", window and round(window[1] - window[0], 3), _LEAST_S
    queries = detail.number("result_query_count")
    exact = _LEAST_S * (1 - _ROUNDED)
    if scenario == "Offline":
        yield "result_max_latency_ns", _quotient(detail.number("result_max_latency_ns"), 1e9), _LEAST_S
    elif scenario == "Server":
        key = "result_scheduled_samples_per_sec"
        yield key, _quotient(queries, detail.number(key)), _ABOUT * _LEAST_S
    elif scenario == "SingleStream":
        key = "result_qps_with_loadgen_overhead"
        yield key, _quotient(queries, detail.number(key)), exact
    elif scenario == "MultiStream" and queries is not None:
        key = "result_mean_query_latency_ns"
        yield key, _quotient(detail.number(key), 1e9 / queries if queries else None), _ABOUT * _LEAST_S


def _quotient(whole: float | None, part: float | None) -> float | None:
    return whole / part if whole is not None and part else None
