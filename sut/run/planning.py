"""From rules, files, flags and calibration to what LoadGen is told, and how long that will take.

Precedence: the embedded mlperf.conf, ``--mlperf_conf``, ``user.conf``, flags, then calibration for what is still unset.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from sut.config import OPTIONS, RunConfig
from sut.errors import InputError
from sut.mlperf import official
from sut.mlperf.loadgen import Settings, settings_for
from sut.mlperf.userconf import Conf, read_conf
from sut.pipeline.ledger import MAX_RECORDED_SAMPLES
from sut.process.affinity import parse
from sut.run.generation import COMFORTABLE, Generated, expected_latency_ns, generated, longest_s
from sut.run.timing import Pace
from sut.text import duration

EARLY_STOPPING_QUERIES = {"SingleStream": 64, "MultiStream": 662, "Server": 690, "Offline": 1}
"""The fewest queries with which LoadGen's early stopping can be satisfied; ``--time`` lets the count fall to them."""

OVERHEAD_S = 4.0
"""About what a run takes besides its duration: starting, loading, calibrating."""
_LONG_S = 60.0

MAX_TRACED_SAMPLES = 4_000_000
MAX_TRACED_RATE = 20_000.0
"""Samples per second beyond which LoadGen's trace (up to 6 us of CPU a sample) would slow down what it observes."""
TRACE_BYTES_PER_SAMPLE = 800
"""What LoadGen's trace takes on disk per sample, at most (270 to 780 bytes were seen)."""

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
    generation_s: float = 0.0
    """LoadGen generates its queries for about so long before the first one."""
    generation_bytes: int = 0

    def line(self) -> str:
        """The plan in one line."""
        what = "samples" if self.scenario == "Offline" or self.mode == "accuracy" else "queries"
        number = self.samples if what == "samples" else self.queries
        before = f", after about {duration(self.generation_s)} of generating them" if self.generation_s >= 5 else ""
        return f"about {number:,} {what}, {duration(self.seconds)}{before}"


@dataclass(frozen=True, slots=True)
class Room:
    """Free bytes of the disk that the logs go to, and of the memory (None: not known)."""

    disk: int
    memory: int | None


def forecast(configs: Sequence[RunConfig], rules: str) -> str | None:
    """How long runs take in all, by the durations that are asked for, before anything is known of the model.

    ``rules`` is the model whose rules LoadGen is told. None where there is nothing to add to the plan that each run
    tells: of one run whose length the user has set, of accuracy, and of a search. By ``--rules`` all are told.
    """
    if not configs:
        return None
    if configs[0].rules is not None:
        return _closed_forecast(configs, rules)
    timed = [config for config in configs if config.mode == "performance"]
    durations_s = [_min_duration_s(config, rules) for config in timed]
    chosen = all(config.time_s is not None for config in timed) or max(durations_s) < _LONG_S
    if not timed or any(config.mode == "find_peak" for config in configs) or (chosen and len(configs) == 1):
        return None
    several = len(configs) > 1
    runs, in_all, them = (f"{len(configs)} runs, ", " in all", "them") if several else ("", "", "it")
    if not chosen:
        is_official = set(durations_s) == {official.MIN_DURATION_S}
        why = f", MLPerf's {official.MIN_DURATION_S} s a scenario" if is_official else ""
        return f"{runs}at least {duration(sum(durations_s))}{in_all}{why}; --time 10 makes {them} short"
    asked = {config.scenario: EARLY_STOPPING_QUERIES[config.scenario] for config in timed}
    many = [f"{scenario} asks at least {queries} queries" for scenario, queries in asked.items() if queries > 100]
    longer = f", longer where a model is slow: {', '.join(many)}" if many else ""
    return f"{runs}about {duration(sum(durations_s) + OVERHEAD_S * len(configs))}{in_all}{longer}"


def _closed_forecast(configs: Sequence[RunConfig], rules: str) -> str:
    runs, in_all = (f"{len(configs)} runs, ", " in all") if len(configs) > 1 else ("", "")
    timed = [config for config in configs if config.mode == "performance"]
    if not timed:
        each = "each over" if in_all else "over"
        return f"{runs}{each} the whole data set once: how long that takes is in the plan, once it is calibrated"
    counts = {"Offline": f"{official.benchmark_of(rules, rules).offline_samples:,} samples"}
    counts |= {scenario: f"{queries:,} queries" for scenario, queries in official.QUERIES.items()}
    many = ", ".join(f"{config.scenario} asks at least {counts[config.scenario]}" for config in timed)
    seconds = sum(_min_duration_s(config, rules) + OVERHEAD_S for config in timed)
    return f"{runs}at least {duration(seconds)}{in_all}; longer where a model is slow: {many}"


def _min_duration_s(config: RunConfig, rules: str) -> float:
    return float(settings_before(config, rules)[0].min_duration_ms) / 1000


def settings_before(config: RunConfig, rules: str) -> tuple[Settings, list[str]]:
    """What LoadGen is told of a run before anything is measured, but for an audit, and notes for the user.

    ``rules`` is the model whose rules apply. Raises ``InputError`` for files that LoadGen or this system cannot read.
    """
    confs = [path for path in (config.mlperf_conf, config.user_conf) if path]
    settings = settings_for(rules, config.scenario, config.mode, confs)
    conf = read_conf(config.user_conf) if config.user_conf else None
    return settings, apply_flags(settings, config, conf, rules)


def apply_flags(settings: Settings, config: RunConfig, conf: Conf | None, model: str) -> list[str]:
    """Put the flags into LoadGen's settings. Returns what to tell the user: flags without effect here."""
    scenario = config.scenario
    if config.time_s is not None:
        settings.min_duration_ms = round(config.time_s * 1000)
        if config.rules is None and (conf is None or not conf.sets(model, scenario, "min_query_count")):
            settings.min_query_count = EARLY_STOPPING_QUERIES[scenario]
    if config.performance_sample_count is not None:
        settings.performance_sample_count_override = config.performance_sample_count
    if scenario == "Offline" and config.qps is not None:
        settings.offline_expected_qps = config.qps
    if scenario == "MultiStream" and config.samples_per_query is not None:
        settings.multi_stream_samples_per_query = config.samples_per_query
    if scenario == "Server":
        if config.qps is not None:
            settings.server_target_qps = config.qps
        if config.max_latency_s is not None:
            settings.server_target_latency_ns = round(config.max_latency_s * 1e9)
        if config.coalesce_queries:
            settings.server_coalesce_queries = True
    return list(_without_effect(config))


def _without_effect(config: RunConfig) -> Iterator[str]:
    """What to tell of the settings that are given and do nothing here."""
    for name, option in OPTIONS.items():
        value = getattr(config, name)
        if (only := option.only) is None or value in (RunConfig.model_fields[name].default, option.idle):
            continue
        here = getattr(config, only.setting)
        if here not in only.values and not (only.unless and getattr(config, only.unless)):
            told = (option.told or option.flag or name).format(value)
            yield f"{told} has no effect {only.place(here)}: {only.why}"
    if config.boundary == "tensor" and config.cache and config.preprocessed_from is not None:
        yield "--cache 1 has no effect with preprocessed tensors"
    elif config.boundary == "tensor" and config.cache_dir and not config.cache and config.preprocessed_from is None:
        yield "--cache_dir has no effect without --cache 1"
    yield from _without_work(config)


def _without_work(config: RunConfig) -> Iterator[str]:
    """What to tell of devices and core sets that have nothing to do."""
    units, sets = config.units, parse(config.affinity) if config.affinity is not None else {}
    if units > 1 and config.scenario == "SingleStream":
        others = ", ".join(config.devices[1:]) or "a second core set"
        yield f"{others} has no effect in SingleStream: one query at a time is for the first device alone"
    if config.lanes is not None and config.lanes < units:
        kind = "devices" if len(config.devices) > 1 else "core sets"
        yield f"--lanes {config.lanes} has no effect with {units} {kind}: each has a lane at the least"
    if config.times_preprocessing and not config.preprocess_workers:
        for name in ("preprocess_place", "preprocess_batch"):
            if (value := getattr(config, name)) != RunConfig.model_fields[name].default:
                yield f"{OPTIONS[name].flag} {value} has no effect without --preprocess-workers"
    if "preprocess" in sets and not config.stages_preprocessing:
        yield "--affinity preprocess has no effect without --preprocess-workers: lanes preprocess on their own cores"
    if "loadgen" in sets and config.scenario == "SingleStream":
        yield "--affinity loadgen has no effect in SingleStream: LoadGen's thread does the work of the lane"


def check_effect(configs: Sequence[RunConfig]) -> None:
    """Raise ``InputError`` for a flag without effect in all of a command's runs."""
    told = [{note.partition(" has no effect")[0]: note for note in _without_effect(config)} for config in configs]
    for flag, note in told[-1].items():
        if all(flag in each for each in told):
            raise InputError(f"{note}; leave it out")


def apply_calibration(
    settings: Settings, config: RunConfig, conf: Conf | None, model: str, measured: Pace, free_memory: int | None = None
) -> list[str]:
    """Fill in what neither user.conf nor a flag has set. Returns what to tell the user."""
    scenario = config.scenario
    seconds = settings.min_duration_ms / 1000

    def unset(key: str) -> bool:
        return conf is None or not conf.sets(model, scenario, key)

    if scenario == "SingleStream" and unset("target_latency") and measured.query_ns:
        comfortable = _comfortable(1, free_memory)
        settings.single_stream_expected_latency_ns = expected_latency_ns(measured.query_ns, seconds, comfortable)
    elif scenario == "MultiStream" and unset("target_latency") and measured.query_ns:
        comfortable = _comfortable(settings.multi_stream_samples_per_query, free_memory)
        settings.multi_stream_expected_latency_ns = expected_latency_ns(measured.query_ns, seconds, comfortable)
    elif scenario == "Offline" and config.qps is None and unset("target_qps") and measured.samples_per_second:
        settings.offline_expected_qps = _offline_margin(seconds) * measured.samples_per_second
    elif scenario == "Server" and measured.idle_query_ns:
        return _server(settings, config, unset, measured.idle_query_ns)
    return []


def _offline_margin(seconds: float) -> float:
    """How many times what was measured Offline is told: it is INVALID where its one query is done too early.

    A quarter more. A run of less than two seconds may lie as a whole in a better moment of a busy machine (1.58 times
    the measured rate was seen), and samples for twice as long cost it less than two.
    """
    return 2.0 if seconds < 2 else 1.25


def _server(settings: Settings, config: RunConfig, unset: Callable[[str], bool], idle_ns: int) -> list[str]:
    notes: list[str] = []
    if config.relax_server and config.max_latency_s is None:
        settings.server_target_latency_ns = max(settings.server_target_latency_ns, 10 * idle_ns)
    if config.qps is None and unset("target_qps"):
        settings.server_target_qps = 0.25 * config.lane_count * 1e9 / idle_ns
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


def _comfortable(per_query: int, free_memory: int | None) -> int:
    """Queries that are generated in good time, and in an eighth of the memory."""
    if free_memory is None:
        return COMFORTABLE
    return min(COMFORTABLE, free_memory // (8 * Generated(1, per_query).nbytes))


def make_plan(
    settings: Settings,
    config: RunConfig,
    measured: Pace,
    count: int,
    room: Room,
    notes: list[str],
    overload: bool = False,
) -> Plan:
    """The expected course of a run with these settings. ``count`` is the data set's size.

    Of an ``overload`` that ends the run early is told already.

    Raises ``InputError`` for settings that LoadGen would crash with, and for more queries than fit into half of the
    free memory.
    """
    scenario, mode = config.scenario, config.mode
    if mode == "accuracy":
        queries, samples, took, most = _accuracy(settings, config, measured, count)
        made = Generated(0, 1)
    else:
        made = _generated(settings, scenario, count, room, notes)
        queries, samples, took = _performance(settings, scenario, measured, made)
        queries, samples, took = _cut_short(settings, scenario, (queries, samples, took), [] if overload else notes)
        most = int(1.2 * made.samples) + 1000 if scenario == "Server" else made.samples
    if mode == "find_peak":
        most *= 20
    untraced = _why_untraced(config, samples, took, room.disk)
    if untraced:
        notes.append(f"{untraced}: stages come without issue_delay and residual")
    if samples > MAX_RECORDED_SAMPLES:
        notes.append(f"latencies and stages are recorded of the first {MAX_RECORDED_SAMPLES:,} samples")
    traced = not untraced
    return Plan(scenario, mode, queries, samples, took, most, traced, tuple(notes), made.seconds, made.nbytes)


def _performance(settings: Settings, scenario: str, measured: Pace, made: Generated) -> tuple[int, int, float]:
    """Queries and samples that are expected to be asked, and for how many seconds."""
    seconds = settings.min_duration_ms / 1000
    if scenario == "Offline":
        return 1, made.samples, made.samples / (measured.samples_per_second or settings.offline_expected_qps)
    if scenario == "Server":
        at_rate = made.queries / settings.server_target_qps
        return made.queries, made.samples, at_rate if settings.performance_issue_unique else max(seconds, at_rate)
    query_s = (measured.query_ns or 0) / 1e9 + _QUERY_OVERHEAD_S
    queries = min(made.queries, max(int(settings.min_query_count), math.ceil(seconds / query_s)))
    took = queries * query_s
    return queries, queries * made.per_query, took if settings.performance_issue_unique else max(seconds, took)


def _generated(settings: Settings, scenario: str, count: int, room: Room, notes: list[str]) -> Generated:
    """What LoadGen will generate, which must be possible."""
    seconds = settings.min_duration_ms / 1000
    loaded = min(settings.performance_sample_count_override or count, count)
    if settings.performance_issue_unique:
        notes.append(f"performance_issue_unique asks for each of {loaded:,} samples once, whatever min_duration says")
    if settings.performance_issue_same:
        index = settings.performance_issue_same_index
        if settings.performance_issue_unique:
            raise InputError("performance_issue_same and performance_issue_unique exclude each other; set one of them")
        if index >= loaded:
            raise InputError(f"performance_issue_same_index is {index}, expected one of the {loaded} samples loaded")
    made = generated(settings, scenario, seconds, loaded)
    if made.samples == 0:
        needs = "min_duration or min_query_count" if not settings.performance_issue_unique else "more samples"
        raise InputError(f"with these settings LoadGen would ask nothing, and crash; it needs {needs}")
    if room.memory is not None and made.nbytes > room.memory / 2:
        raise InputError(_does_not_fit(settings, scenario, loaded, made, room.memory))
    return made


def _does_not_fit(settings: Settings, scenario: str, loaded: int, made: Generated, free: int) -> str:
    what = f"{made.samples:,} samples" if made.offline else f"{made.queries:,} queries"
    seconds = settings.min_duration_ms / 1000
    got = (
        f"{scenario} of {seconds:g} s: LoadGen generates {what} beforehand, which take {made.nbytes / 1e9:.3g} GB of "
        f"memory; half of what is free is {free / 2e9:.3g} GB"
    )
    if longest := longest_s(settings, scenario, seconds, loaded, free / 2):
        # The next calibration may find the system a little faster.
        return f"{got}: the longest that fits is --time {max(1, int(0.9 * longest))}"
    return f"{got}: not even a second of it fits; lower min_query_count or the rate, or free some memory"


def _cut_short(
    settings: Settings, scenario: str, course: tuple[int, int, float], notes: list[str]
) -> tuple[int, int, float]:
    """Queries, samples and seconds with max_query_count and max_duration, with which LoadGen ends a run in error."""
    queries, samples, took = course
    if scenario == "Offline":  # has issued its one query before LoadGen looks at them
        return course
    shares = {
        f"max_query_count {settings.max_query_count:,}": settings.max_query_count / queries,
        f"max_duration {settings.max_duration_ms / 1000:g} s": settings.max_duration_ms / 1000 / max(took, 1e-9),
    }
    set_shares = [(share, name) for name, share in shares.items() if share]
    # In Server LoadGen calls the last query of the schedule one too many.
    if not set_shares or (share := min(set_shares)[0]) > 1 or (share == 1 and scenario != "Server"):
        return course
    name = min(set_shares)[1]
    notes.append(
        f"{name} ends this run of {queries:,} queries and {took:.4g} s early, which makes it INVALID; leave it out"
    )
    kept = max(1, int(share * queries))
    return kept, kept * samples // queries, share * took


def _why_untraced(config: RunConfig, samples: int, seconds: float, free_bytes: int) -> str:
    """Why LoadGen's per-sample trace stays off; empty where it is on."""
    if config.rules is not None:
        return f"a run by the rules of the {config.rules} division is not traced"
    if config.mode == "find_peak":
        return "a search of many runs is not traced"
    if samples > MAX_TRACED_SAMPLES:
        return f"{samples:,} samples are too many to trace"
    if samples > MAX_TRACED_RATE * max(seconds, 1e-3):
        return f"{samples / seconds:,.0f} samples/s are too fast to trace"
    if samples * TRACE_BYTES_PER_SAMPLE > free_bytes / 2:
        return f"the disk has no room for a trace of {samples:,} samples"
    return ""


def _accuracy(settings: Settings, config: RunConfig, measured: Pace, count: int) -> tuple[int, int, float, int]:
    per_query = settings.multi_stream_samples_per_query if config.scenario == "MultiStream" else 1
    queries = 1 if config.scenario == "Offline" else math.ceil(count / per_query)
    if config.scenario == "Offline":
        took = count / (measured.samples_per_second or 1.0)
    elif config.scenario == "Server":
        took = count / settings.server_target_qps
    else:
        took = queries * (measured.query_ns or 1) / 1e9
    return queries, count, took, 2 * count + 64 * per_query
