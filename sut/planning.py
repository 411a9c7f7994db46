"""From rules, files, flags and calibration to what LoadGen is told, and how long that will take.

Precedence: the embedded mlperf.conf, ``--mlperf_conf``, ``user.conf``, flags, then calibration for what is still unset.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from sut.calibrate import Calibration
from sut.config import RunConfig
from sut.loadgen import Settings
from sut.userconf import Conf

EARLY_STOPPING_QUERIES = {"SingleStream": 64, "MultiStream": 662, "Server": 690, "Offline": 1}
"""The fewest queries with which LoadGen's early stopping can be satisfied; ``--time`` lets the count fall to them."""

MAX_TRACED_SAMPLES = 4_000_000
MAX_TRACED_RATE = 20_000.0
"""Samples per second beyond which LoadGen's trace (up to 6 us of CPU a sample) would slow down what it observes."""
TRACE_BYTES_PER_SAMPLE = 800
"""What LoadGen's trace takes on disk per sample, at most (270 to 780 bytes were seen)."""

_GENERATED_BYTES = 300
"""About what LoadGen holds in memory per query it has generated."""
_MAX_GENERATED = 2_000_000
_QUERY_OVERHEAD_S = 20e-6
"""What LoadGen and Python need per query besides the work (16 to 25 us were seen on two cores)."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run will do. ``queries``, ``samples`` and ``seconds`` are expected, ``most_samples`` is an upper bound."""

    scenario: str
    mode: str
    queries: int
    samples: int
    seconds: float
    most_samples: int
    trace: bool
    notes: tuple[str, ...]

    def line(self) -> str:
        """The plan in one line."""
        what = "samples" if self.scenario == "Offline" or self.mode == "accuracy" else "queries"
        number = self.samples if what == "samples" else self.queries
        return f"about {number:,} {what}, {_duration(self.seconds)}"


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.1f} min"


def apply_flags(settings: Settings, config: RunConfig, conf: Conf | None, model: str) -> list[str]:
    """Put the flags into LoadGen's settings. Returns what to tell the user: flags without effect here."""
    scenario = config.scenario
    notes: list[str] = []
    if config.time_s is not None:
        settings.min_duration_ms = round(config.time_s * 1000)
        if conf is None or not conf.sets(model, scenario, "min_query_count"):
            settings.min_query_count = EARLY_STOPPING_QUERIES[scenario]
    if config.performance_sample_count is not None:
        settings.performance_sample_count_override = config.performance_sample_count
    if config.qps is not None:
        if scenario == "Server":
            settings.server_target_qps = config.qps
        elif scenario == "Offline":
            settings.offline_expected_qps = config.qps
        else:
            notes.append(f"--qps has no effect in {scenario}: the next query follows the answer")
    if config.max_latency_s is not None:
        if scenario == "Server":
            settings.server_target_latency_ns = round(config.max_latency_s * 1e9)
        else:
            notes.append(f"--max-latency has no effect in {scenario}: only Server has a latency bound")
    if config.samples_per_query is not None:
        if scenario == "MultiStream":
            settings.multi_stream_samples_per_query = config.samples_per_query
        else:
            notes.append(f"--samples-per-query has no effect in {scenario}")
    if config.preprocess_workers and not config.times_preprocessing:
        notes.append(
            f"--preprocess-workers has no effect at the boundary {config.boundary}: "
            "preprocessing is done before the clock"
        )
    notes += _tensor_notes(config)
    given = config.model_fields_set
    if config.max_wait_ms and scenario != "Server":
        notes.append(f"--max-wait has no effect in {scenario}: only Server waits for a batch to fill")
    if "max_batchsize" in given and scenario == "SingleStream":
        notes.append("--max-batchsize has no effect in SingleStream: a query is one sample")
    if config.lanes > 1 and scenario == "SingleStream":
        notes.append("--lanes has no effect in SingleStream: a query is one sample, and they come one at a time")
    if config.calibration_list is not None and config.precision != "int8":
        notes.append(f"--calibration-list has no effect in {config.precision}: only int8 is calibrated on pictures")
    if config.rules is not None and config.precision != "int8":
        notes.append(f"--rules {config.rules} has no effect in {config.precision}: it is about what calibrates int8")
    if "batching" in given and scenario != "Server":
        notes.append(f"batching={config.batching} has no effect in {scenario}: only Server chooses its batches")
    if config.mode == "accuracy" and config.time_s is not None:
        notes.append("--time has no effect in accuracy mode: the whole data set is asked once")
    return notes


def _tensor_notes(config: RunConfig) -> list[str]:
    """Flags about ready tensors that have no effect."""
    ready = {
        "--cache 1": config.cache,
        "--cache_dir": config.cache_dir is not None,
        "--preprocessed_dir": config.preprocessed_dir is not None,
        "--use_preprocessed_dataset": config.use_preprocessed_dataset,
    }
    if config.boundary != "tensor":
        done = "is timed, so it is done" if config.times_preprocessing else "ends on the device"
        why = f"at the boundary {config.boundary}: preprocessing {done}"
        return [f"{flag} has no effect {why}" for flag, given in ready.items() if given]
    if config.preprocessed_from is not None:
        return ["--cache 1 has no effect with preprocessed tensors"] if config.cache else []
    if config.cache_dir is not None and not config.cache:
        return ["--cache_dir has no effect without --cache 1"]
    return []


def apply_calibration(
    settings: Settings, config: RunConfig, conf: Conf | None, model: str, measured: Calibration
) -> list[str]:
    """Fill in what neither user.conf nor a flag has set. Returns what to tell the user."""
    scenario = config.scenario
    seconds = settings.min_duration_ms / 1000

    def unset(key: str) -> bool:
        return conf is None or not conf.sets(model, scenario, key)

    if scenario == "SingleStream" and unset("target_latency") and measured.query_ns:
        settings.single_stream_expected_latency_ns = expected_latency_ns(measured.query_ns, seconds)
    elif scenario == "MultiStream" and unset("target_latency") and measured.query_ns:
        settings.multi_stream_expected_latency_ns = expected_latency_ns(measured.query_ns, seconds)
    elif scenario == "Offline" and config.qps is None and unset("target_qps") and measured.samples_per_second:
        settings.offline_expected_qps = 1.25 * measured.samples_per_second
    elif scenario == "Server" and measured.idle_query_ns:
        return _server(settings, config, unset, measured.idle_query_ns)
    return []


def _server(settings: Settings, config: RunConfig, unset: Callable[[str], bool], idle_ns: int) -> list[str]:
    notes: list[str] = []
    if config.relax_server and config.max_latency_s is None:
        settings.server_target_latency_ns = max(settings.server_target_latency_ns, 10 * idle_ns)
    if config.qps is None and unset("target_qps"):
        settings.server_target_qps = 0.25 * config.lanes * 1e9 / idle_ns
        notes.append(
            f"Server is asked at {settings.server_target_qps:,.4g} queries/s, a quarter of what {idle_ns / 1e6:.3g} ms "
            "per picture allow; --qps sets another rate"
        )
    bound_ns = settings.server_target_latency_ns
    if idle_ns > bound_ns and config.mode == "performance":
        notes.append(
            f"one picture takes {idle_ns / 1e6:.3g} ms, longer than Server's latency bound of {bound_ns / 1e6:.3g} ms: "
            "this run cannot be VALID; --max-latency relaxes the bound"
        )
    return notes


def expected_latency_ns(measured_ns: int, seconds: float) -> float:
    """What to tell LoadGen a query takes: a third of the measured time.

    LoadGen generates 2 x duration / latency queries beforehand and ends INVALID when it runs out of them, so a system
    that turns out faster must not. The margin shrinks to none where so many queries would not fit into memory.

    >>> expected_latency_ns(3_000_000, 600)
    1000000.0
    """
    third = measured_ns / 3
    enough = 2 * seconds * 1e9 / _MAX_GENERATED
    return min(max(third, enough), float(measured_ns))


def make_plan(
    settings: Settings, config: RunConfig, measured: Calibration, count: int, free_bytes: int, notes: list[str]
) -> Plan:
    """The expected course of a run with these settings. ``count`` is the data set's size."""
    scenario, mode = config.scenario, config.mode
    seconds = settings.min_duration_ms / 1000
    if mode == "accuracy":
        queries, samples, took, most = _accuracy(settings, config, measured, count)
    elif scenario == "Offline":
        rate = settings.offline_expected_qps
        samples = max(settings.min_query_count, int(1.1 * rate * seconds), 1)
        true_rate = measured.samples_per_second or rate
        queries, took, most = 1, samples / true_rate, samples
        _note_memory(samples, notes)
    elif scenario == "Server":
        rate = settings.server_target_qps
        queries = samples = max(settings.min_query_count, round(rate * seconds))
        took = max(seconds, queries / rate)
        most = int(1.2 * queries) + 1000
    else:
        per_query = settings.multi_stream_samples_per_query if scenario == "MultiStream" else 1
        query_s = (measured.query_ns or 0) / 1e9 + _QUERY_OVERHEAD_S
        queries = max(settings.min_query_count, math.ceil(seconds / query_s))
        samples, took = queries * per_query, max(seconds, queries * query_s)
        expected = (
            settings.multi_stream_expected_latency_ns
            if scenario == "MultiStream"
            else settings.single_stream_expected_latency_ns
        )
        generated = max(settings.min_query_count, math.ceil(2 * seconds * 1e9 / expected)) + 1
        most = generated * per_query
        _note_memory(generated, notes)
    if mode == "find_peak":
        most *= 20
    untraced = _why_untraced(mode, samples, took, free_bytes)
    if untraced:
        notes.append(f"{untraced}: stages come without issue_delay and residual")
    return Plan(scenario, mode, queries, samples, took, most, not untraced, tuple(notes))


def _why_untraced(mode: str, samples: int, seconds: float, free_bytes: int) -> str:
    """Why LoadGen's per-sample trace stays off; empty where it is on."""
    if mode == "find_peak":
        return "a search of many runs is not traced"
    if samples > MAX_TRACED_SAMPLES:
        return f"{samples:,} samples are too many to trace"
    if samples > MAX_TRACED_RATE * max(seconds, 1e-3):
        return f"{samples / seconds:,.0f} samples/s are too fast to trace"
    if samples * TRACE_BYTES_PER_SAMPLE > free_bytes / 2:
        return f"the disk has no room for a trace of {samples:,} samples"
    return ""


def _note_memory(generated: int, notes: list[str]) -> None:
    if generated > 2 * _MAX_GENERATED:
        gigabytes = generated * _GENERATED_BYTES / 1e9
        notes.append(
            f"LoadGen generates {generated:,} queries or samples beforehand, up to {gigabytes:.1f} GB of memory; "
            "a shorter --time needs less"
        )


def _accuracy(settings: Settings, config: RunConfig, measured: Calibration, count: int) -> tuple[int, int, float, int]:
    per_query = settings.multi_stream_samples_per_query if config.scenario == "MultiStream" else 1
    queries = 1 if config.scenario == "Offline" else math.ceil(count / per_query)
    if config.scenario == "Offline":
        took = count / (measured.samples_per_second or 1.0)
    elif config.scenario == "Server":
        took = count / settings.server_target_qps
    else:
        took = queries * (measured.query_ns or 1) / 1e9
    return queries, count, took, 2 * count + 64 * per_query
