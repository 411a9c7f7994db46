"""What LoadGen is told, and how long it will take: rules, then files, then flags, then what was measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sut.config import SCENARIOS, RunConfig
from sut.errors import InputError
from sut.mlperf import loadgen
from sut.mlperf.userconf import Conf
from sut.pipeline.batching import BatchingPolicy
from sut.run.generation import LOADGEN_QUERY_NS
from sut.run.planning import (
    EARLY_STOPPING_QUERIES,
    MAX_TRACED_RATE,
    MAX_TRACED_SAMPLES,
    TRACE_BYTES_PER_SAMPLE,
    Plan,
    Room,
    apply_calibration,
    apply_flags,
    forecast,
    make_plan,
)
from sut.run.timing import Pace, sizes_to_warm

MODEL = "resnet50"
MS = 1_000_000
PLENTY = 10**15


def rules(scenario: str, mode: str = "performance") -> Any:
    return loadgen.settings_for(MODEL, scenario, mode, [])


def conf_of(**values: str) -> Conf:
    """A user.conf that sets these keys for every model and scenario."""
    return Conf(Path("user.conf"), {f"*.*.{key}": value for key, value in values.items()})


def measured(**changes: Any) -> Pace:
    return Pace(**{"first_ns": 9 * MS, "slowest_batch_ns": 9 * MS} | changes)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_without_flags_the_rules_stand(scenario: str) -> None:
    settings, untouched = rules(scenario), rules(scenario)

    assert apply_flags(settings, RunConfig(scenario=scenario), None, MODEL) == []

    for name in ("min_duration_ms", "min_query_count", "server_target_latency_ns", "performance_sample_count_override"):
        assert getattr(settings, name) == getattr(untouched, name)


def four(**settings: Any) -> list[RunConfig]:
    return [RunConfig(scenario=scenario, **settings) for scenario in SCENARIOS]


@pytest.mark.parametrize(
    ("configs", "said"),
    [
        (
            [*four(time_s=3), RunConfig(scenario="Offline", mode="accuracy")],
            "5 runs, about 32 s in all, longer where a model is slow: MultiStream asks at least 662 queries, Server "
            "asks at least 690 queries",
        ),
        (four(time_s=3)[::3], "2 runs, about 14 s in all"),
        (four(), "4 runs, at least 40 min in all, MLPerf's 600 s a scenario; --time 10 makes them short"),
        ([RunConfig()], "at least 10 min, MLPerf's 600 s a scenario; --time 10 makes it short"),
        ([RunConfig(time_s=900)], None),
        ([RunConfig(mode="accuracy", scenario="Offline")], None),
        ([RunConfig(mode="find_peak", scenario="Server")], None),
        (
            four(rules="closed")[::3],
            "2 runs, at least 20.1 min in all; longer where a model is slow: SingleStream asks at least 64 queries, "
            "Offline asks at least 24,576 samples",
        ),
        (
            [RunConfig(rules="closed", time_s=900)],
            "at least 15.1 min; longer where a model is slow: SingleStream asks at least 64 queries",
        ),
        (
            four(rules="closed", mode="accuracy"),
            "4 runs, each over the whole data set once: how long that takes is in the plan, once it is calibrated",
        ),
        ([], None),
    ],
    ids=[
        *("the demo", "two", "four by the rules", "one by the rules", "chosen", "accuracy", "a search"),
        *("two closed", "one closed", "closed accuracy", "nothing left"),
    ],
)
def test_how_long_it_takes_is_told_before_anything_is_known(configs: list[RunConfig], said: str | None) -> None:
    assert forecast(configs, MODEL) == said


@pytest.mark.parametrize(
    ("seconds", "said"), [(59, None), (90, "at least 90 s; --time 10 makes it short")], ids=["short", "long"]
)
def test_the_duration_of_user_conf_counts(tmp_path: Path, seconds: int, said: str | None) -> None:
    path = tmp_path / "user.conf"
    path.write_text(f"*.Offline.min_duration = {1000 * seconds}\n")

    assert forecast([RunConfig(scenario="Offline", user_conf=path)], MODEL) == said


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_time_sets_the_duration_and_lets_the_count_fall_to_early_stopping(scenario: str) -> None:
    settings = rules(scenario)

    apply_flags(settings, RunConfig(scenario=scenario, time_s=0.25), None, MODEL)

    assert settings.min_duration_ms == 250
    assert settings.min_query_count == EARLY_STOPPING_QUERIES[scenario]
    assert (settings.max_duration_ms, settings.max_query_count) == (0, 0)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_by_the_closed_rules_a_longer_time_leaves_the_official_count(scenario: str) -> None:
    settings, untouched = rules(scenario), rules(scenario)

    apply_flags(settings, RunConfig(scenario=scenario, time_s=900, rules="closed"), None, MODEL)

    assert settings.min_duration_ms == 900_000
    assert settings.min_query_count == untouched.min_query_count


def test_time_leaves_a_count_that_user_conf_sets() -> None:
    settings = rules("MultiStream")
    settings.min_query_count = 20

    apply_flags(settings, RunConfig(scenario="MultiStream", time_s=1), conf_of(min_query_count="20"), MODEL)

    assert settings.min_query_count == 20


@pytest.mark.parametrize(
    ("scenario", "flags", "attribute", "value"),
    [
        ("Server", {"qps": 3.5}, "server_target_qps", 3.5),
        ("Offline", {"qps": 3.5}, "offline_expected_qps", 3.5),
        ("Server", {"max_latency_s": 0.0125}, "server_target_latency_ns", 12_500_000),
        ("Server", {"coalesce_queries": True}, "server_coalesce_queries", True),
        ("MultiStream", {"samples_per_query": 3}, "multi_stream_samples_per_query", 3),
        ("Offline", {"performance_sample_count": 5}, "performance_sample_count_override", 5),
    ],
)
def test_a_flag_reaches_loadgen(scenario: str, flags: dict[str, Any], attribute: str, value: float) -> None:
    settings = rules(scenario)

    assert apply_flags(settings, RunConfig(scenario=scenario, **flags), None, MODEL) == []

    assert getattr(settings, attribute) == value


@pytest.mark.parametrize(
    ("flag", "settings", "works_in"),
    [
        ("--qps", {"qps": 3.0}, {"Server", "Offline"}),
        ("coalesce_queries", {"coalesce_queries": True}, {"Server"}),
        ("--max-latency", {"max_latency_s": 3.0}, {"Server"}),
        ("--samples-per-query", {"samples_per_query": 3}, {"MultiStream"}),
        ("--max-wait", {"max_wait_ms": 3.0}, {"Server"}),
        ("--max-batchsize", {"max_batchsize": 8}, {"MultiStream", "Server", "Offline"}),
        ("--lanes", {"lanes": 2}, {"MultiStream", "Server", "Offline"}),
        ("batching=fifo", {"batching": "fifo"}, {"Server"}),
    ],
)
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_flag_without_effect_is_said_to_have_none(
    flag: str, settings: dict[str, Any], works_in: set[str], scenario: str
) -> None:
    notes = apply_flags(rules(scenario), RunConfig(scenario=scenario, **settings), None, MODEL)

    assert [note.startswith(f"{flag} has no effect in ") for note in notes] == [True] * (scenario not in works_in)


def test_time_has_no_effect_in_accuracy_mode() -> None:
    config = RunConfig(scenario="Offline", mode="accuracy", time_s=3)

    [note] = apply_flags(rules("Offline", "accuracy"), config, None, MODEL)

    assert note.startswith("--time has no effect in accuracy mode")


@pytest.mark.parametrize(
    ("settings", "what"),
    [({"affinity": "lanes=0/1"}, "2 core sets"), ({"device": "sim:0,sim:1", "affinity": "lanes=0/1"}, "2 devices")],
)
def test_fewer_lanes_than_devices_or_core_sets_are_told_of_what_there_is(settings: dict[str, Any], what: str) -> None:
    notes = apply_flags(rules("Offline"), RunConfig(scenario="Offline", lanes=1, **settings), None, MODEL)

    assert notes == [f"--lanes 1 has no effect with {what}: each has a lane at the least"]


@pytest.mark.parametrize(("precision", "told"), [("fp32", True), ("bf16", True), ("int8", False)])
def test_only_int8_is_calibrated_on_pictures(precision: str, told: bool) -> None:
    config = RunConfig.model_validate({"precision": precision, "calibration_list": Path("list.txt")})

    notes = apply_flags(rules(config.scenario), config, None, MODEL)

    assert [note.startswith("--calibration-list has no effect in ") for note in notes] == [True] * told


def test_each_scenario_is_told_what_was_measured() -> None:
    told = {scenario: rules(scenario) for scenario in SCENARIOS}
    for scenario, settings in told.items():
        calibration = measured(query_ns=30 * MS, idle_query_ns=10 * MS, samples_per_second=200.0)
        apply_calibration(settings, RunConfig(scenario=scenario, lanes=2), None, MODEL, calibration)

    one_ns = 30 * MS + LOADGEN_QUERY_NS
    assert told["SingleStream"].single_stream_expected_latency_ns == one_ns / 3
    assert told["MultiStream"].multi_stream_expected_latency_ns == one_ns / 3
    assert told["Offline"].offline_expected_qps == 250.0
    assert told["Server"].server_target_qps == 50.0
    assert told["Server"].server_target_latency_ns == 15 * MS


@pytest.mark.parametrize(
    ("scenario", "flags", "conf", "attribute"),
    [
        ("SingleStream", {}, conf_of(target_latency="5"), "single_stream_expected_latency_ns"),
        ("MultiStream", {}, conf_of(target_latency="5"), "multi_stream_expected_latency_ns"),
        ("Offline", {}, conf_of(target_qps="5"), "offline_expected_qps"),
        ("Offline", {"qps": 5.0}, None, "offline_expected_qps"),
        ("Server", {}, conf_of(target_qps="5"), "server_target_qps"),
        ("Server", {"qps": 5.0}, None, "server_target_qps"),
    ],
)
def test_what_was_set_is_not_measured_over(
    scenario: str, flags: dict[str, Any], conf: Conf | None, attribute: str
) -> None:
    settings = rules(scenario)
    setattr(settings, attribute, 5)
    calibration = measured(query_ns=30 * MS, idle_query_ns=10 * MS, samples_per_second=200.0)

    apply_calibration(settings, RunConfig(scenario=scenario, **flags), conf, MODEL, calibration)

    assert getattr(settings, attribute) == 5


def test_a_line_for_another_scenario_does_not_count_as_set() -> None:
    settings = rules("Offline")
    conf = Conf(Path("user.conf"), {"*.Server.target_qps": "5", "yolo.Offline.target_qps": "5"})

    apply_calibration(settings, RunConfig(scenario="Offline"), conf, MODEL, measured(samples_per_second=200.0))

    assert settings.offline_expected_qps == 250.0


@pytest.mark.parametrize(("idle_ms", "bound_ms"), [(1, 15), (1.5, 15), (2, 20), (400, 4000)])
def test_a_relaxed_bound_is_ten_times_the_latency_and_never_below_the_rule(idle_ms: float, bound_ms: float) -> None:
    settings = rules("Server")
    config = RunConfig(scenario="Server", relax_server=True)

    apply_calibration(settings, config, None, MODEL, measured(idle_query_ns=int(idle_ms * MS)))

    assert settings.server_target_latency_ns == bound_ms * MS


def test_a_bound_of_ones_own_is_not_relaxed() -> None:
    settings = rules("Server")
    config = RunConfig(scenario="Server", relax_server=True, max_latency_s=0.02)
    apply_flags(settings, config, None, MODEL)

    apply_calibration(settings, config, None, MODEL, measured(idle_query_ns=400 * MS))

    assert settings.server_target_latency_ns == 20 * MS


@pytest.mark.parametrize(("idle_ms", "told"), [(14, False), (16, True)])
def test_a_picture_slower_than_servers_bound_is_told_beforehand(idle_ms: int, told: bool) -> None:
    notes = apply_calibration(
        rules("Server"), RunConfig(scenario="Server", qps=1), None, MODEL, measured(idle_query_ns=idle_ms * MS)
    )

    assert any("cannot be VALID" in note for note in notes) is told


def plan_of(scenario: str, calibration: Pace, *, mode: str = "performance", free: int = PLENTY, count: int = 11,
            settings: Any = None, memory: int | None = None, **flags: Any) -> Plan:  # fmt: skip
    config = RunConfig(scenario=scenario, mode=mode, **flags)
    settings = settings or rules(scenario, mode)
    apply_flags(settings, config, None, MODEL)
    apply_calibration(settings, config, None, MODEL, calibration, memory)
    return make_plan(settings, config, calibration, count, Room(free, memory), [])


def test_a_slow_model_takes_longer_than_asked() -> None:
    single = plan_of("SingleStream", measured(query_ns=400 * MS), time_s=3)
    multi = plan_of("MultiStream", measured(query_ns=400 * MS), time_s=3)

    assert (single.queries, single.samples) == (64, 64)
    assert single.seconds == pytest.approx(64 * 0.4, rel=0.01)
    assert (multi.queries, multi.samples) == (662, 662 * 8)
    assert multi.seconds == pytest.approx(662 * 0.4, rel=0.01)


def test_a_fast_model_takes_as_long_as_asked() -> None:
    plan = plan_of("SingleStream", measured(query_ns=MS), time_s=3)

    assert plan.seconds == pytest.approx(3, rel=0.01)
    assert plan.queries == pytest.approx(3000, rel=0.05)
    assert plan.most_samples >= 2 * 3 * 1000


@pytest.mark.parametrize(("time_s", "times"), [(0.2, 2.0), (1.9, 2.0), (2, 1.25), (9, 1.25)])
def test_offline_asks_for_a_tenth_more_than_expected_and_expects_more_than_was_measured(
    time_s: float, times: float
) -> None:
    plan = plan_of("Offline", measured(samples_per_second=1000.0), time_s=time_s)

    assert plan.queries == 1 and plan.samples == pytest.approx(1.1 * times * 1000 * time_s, abs=1)
    assert plan.seconds == pytest.approx(1.1 * times * time_s, rel=0.01)
    assert plan.most_samples == plan.samples


@pytest.mark.parametrize(("qps", "queries", "seconds"), [(1000.0, 2000, 2.0), (69.0, 690, 10.0)])
def test_server_lasts_until_both_time_and_count_are_reached(qps: float, queries: int, seconds: float) -> None:
    plan = plan_of("Server", measured(idle_query_ns=MS), qps=qps, time_s=2)

    assert (plan.queries, plan.samples) == (queries, queries)
    assert plan.seconds == pytest.approx(seconds)
    assert plan.most_samples > queries


@pytest.mark.parametrize(
    ("scenario", "queries", "seconds"),
    [("SingleStream", 11, 1.1), ("MultiStream", 2, 0.2), ("Server", 11, 5.5), ("Offline", 1, 0.55)],
)
def test_accuracy_asks_for_the_data_set_once(scenario: str, queries: int, seconds: float) -> None:
    calibration = measured(query_ns=100 * MS, idle_query_ns=100 * MS, samples_per_second=20.0)

    plan = plan_of(scenario, calibration, mode="accuracy", qps=2.0 if scenario == "Server" else None)

    assert (plan.queries, plan.samples) == (queries, 11)
    assert plan.seconds == pytest.approx(seconds, rel=0.01)
    assert plan.most_samples >= 16
    assert plan.line().startswith("about 11 samples")


@pytest.mark.parametrize(
    ("calibration", "free", "reason"),
    [
        (measured(samples_per_second=MAX_TRACED_RATE / 10), PLENTY, None),
        (measured(samples_per_second=MAX_TRACED_RATE * 10), PLENTY, "too fast to trace"),
        (measured(samples_per_second=MAX_TRACED_RATE / 10), 10 * TRACE_BYTES_PER_SAMPLE, "no room for a trace"),
    ],
)
def test_a_trace_that_would_cost_too_much_is_left_out_and_that_is_said(
    calibration: Pace, free: int, reason: str | None
) -> None:
    plan = plan_of("Offline", calibration, free=free, time_s=2)

    assert plan.trace is (reason is None)
    assert [reason in note for note in plan.notes if "issue_delay" in note] == [True] * (reason is not None)


def test_too_many_samples_are_not_traced() -> None:
    settings = rules("Offline")
    settings.min_query_count = MAX_TRACED_SAMPLES + 1
    calibration = measured(samples_per_second=MAX_TRACED_RATE / 10)

    plan = make_plan(settings, RunConfig(scenario="Offline"), calibration, 11, Room(PLENTY, None), [])

    assert not plan.trace
    assert "4,000,001 samples are too many to trace" in plan.notes[-1]


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_more_than_half_of_the_memory_is_refused_with_the_time_that_fits(scenario: str) -> None:
    calibration = measured(query_ns=4000, idle_query_ns=4000, samples_per_second=400_000.0)
    flags: dict[str, Any] = {"qps": 50_000.0} if scenario == "Server" else {}
    memory = 4 * 10**9

    with pytest.raises(InputError, match=r"generates [\d,]+ (queries|samples) beforehand") as refused:
        plan_of(scenario, calibration, memory=memory, **flags)

    longest = int(str(refused.value).rpartition("--time ")[2])
    assert 1 < longest < 600
    plan = plan_of(scenario, calibration, memory=memory, time_s=longest, **flags)
    assert plan.generation_bytes <= memory / 2


def test_a_count_that_no_time_makes_fit_is_told_so() -> None:
    settings = rules("Offline")
    settings.min_query_count = 10**9

    with pytest.raises(InputError, match="not even a second of it fits; lower min_query_count"):
        plan_of("Offline", measured(samples_per_second=10.0), settings=settings, memory=10**9)


def test_where_memory_is_short_fewer_queries_are_generated_in_advance() -> None:
    plenty = plan_of("SingleStream", measured(query_ns=MS), memory=10**11)
    short = plan_of("SingleStream", measured(query_ns=MS), memory=2 * 10**9)

    assert short.generation_bytes < plenty.generation_bytes / 2
    assert short.most_samples > 1.2 * short.samples


@pytest.mark.parametrize(
    ("scenario", "changes", "told", "queries", "seconds"),
    [
        ("SingleStream", {"max_duration_ms": 500}, "max_duration 0.5 s ends this run", 250, 0.5),
        ("SingleStream", {"max_duration_ms": 2000}, None, 1000, 2.0),
        ("MultiStream", {"max_query_count": 100}, "max_query_count 100 ends this run", 100, 0.2),
        ("Server", {"max_query_count": 2000}, "max_query_count 2,000 ends this run", 2000, 2.0),
        ("Server", {"max_query_count": 2001}, None, 2000, 2.0),
        ("Server", {"max_query_count": 1000, "max_duration_ms": 500}, "max_duration 0.5 s ends", 500, 0.5),
        ("Offline", {"max_duration_ms": 1, "max_query_count": 1}, None, 1, 2.75),
    ],
)
def test_what_makes_loadgen_end_early_is_told_and_planned_for(
    scenario: str, changes: dict[str, Any], told: str | None, queries: int, seconds: float
) -> None:
    settings = rules(scenario)
    for name, value in changes.items():
        setattr(settings, name, value)
    calibration = measured(query_ns=2 * MS - 20_000, idle_query_ns=MS, samples_per_second=1000.0)

    plan = plan_of(
        scenario, calibration, settings=settings, time_s=2, **({"qps": 1000.0} if scenario == "Server" else {})
    )

    assert [note.startswith(told or "") for note in plan.notes if "early" in note] == [True] * (told is not None)
    assert plan.queries == queries
    assert plan.seconds == pytest.approx(seconds, rel=0.01)


def test_unique_samples_are_asked_once_whatever_the_duration() -> None:
    for scenario, queries in (("SingleStream", 11), ("MultiStream", 2), ("Server", 11), ("Offline", 1)):
        settings = rules(scenario)
        settings.performance_issue_unique = True
        settings.performance_sample_count_override = 11
        calibration = measured(query_ns=100 * MS, idle_query_ns=MS, samples_per_second=20.0)
        flags: dict[str, Any] = {"qps": 10.0} if scenario == "Server" else {}

        plan = plan_of(scenario, calibration, settings=settings, **flags)

        assert plan.queries == queries
        assert plan.seconds < 2
        assert "each of 11 samples once" in plan.notes[0]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"performance_issue_same": True, "performance_issue_same_index": 11}, "is 11, expected one of the 11 samples"),
        ({"performance_issue_same": True, "performance_issue_unique": True}, "exclude each other"),
        ({"min_duration_ms": 0, "min_query_count": 0}, "ask nothing, and crash; it needs min_duration or"),
    ],
)
def test_settings_that_loadgen_would_crash_with_are_refused(changes: dict[str, Any], reason: str) -> None:
    for scenario in SCENARIOS:
        settings = rules(scenario)
        for name, value in changes.items():
            setattr(settings, name, value)

        with pytest.raises(InputError, match=reason):
            plan_of(scenario, measured(query_ns=MS, idle_query_ns=MS, samples_per_second=10.0), settings=settings)


def test_fewer_samples_than_offline_asks_for_at_a_time_are_refused() -> None:
    settings = rules("Offline")
    settings.performance_issue_unique = True

    with pytest.raises(InputError, match="ask nothing, and crash; it needs more samples"):
        plan_of("Offline", measured(samples_per_second=10.0), settings=settings)


def test_a_search_is_not_traced_and_keeps_room_for_many_probes() -> None:
    once = plan_of("Server", measured(idle_query_ns=MS), qps=100.0, time_s=2)
    search = plan_of("Server", measured(idle_query_ns=MS), mode="find_peak", qps=100.0, time_s=2)

    assert not search.trace
    assert search.most_samples > 10 * once.most_samples


@pytest.mark.parametrize(
    ("scenario", "samples", "seconds", "line"),
    [
        ("SingleStream", 512, 3.4, "about 64 queries, 3 s"),
        ("Offline", 12345, 99.4, "about 12,345 samples, 99 s"),
        ("Server", 512, 132.0, "about 64 queries, 2.2 min"),
    ],
)
def test_the_plan_in_one_line(scenario: str, samples: int, seconds: float, line: str) -> None:
    assert Plan(scenario, "performance", 64, samples, seconds, samples, True, ()).line() == line


@pytest.mark.parametrize(("generation_s", "end"), [(4.9, ", 10 min"), (37.2, "after about 37 s of generating them")])
def test_the_plan_tells_how_long_queries_are_generated_where_that_is_long(generation_s: float, end: str) -> None:
    line = Plan("SingleStream", "performance", 64, 64, 600.0, 64, True, (), generation_s).line()

    assert line.endswith(end)


@given(
    max_batch=st.integers(1, 16),
    sizes=st.none() | st.lists(st.integers(1, 32), min_size=1, max_size=5, unique=True).map(lambda s: tuple(sorted(s))),
    per_query=st.integers(1, 40),
)
def test_every_batch_size_a_latency_run_can_meet_is_warmed(
    max_batch: int, sizes: tuple[int, ...] | None, per_query: int
) -> None:
    for scenario, queries in (("SingleStream", [1]), ("MultiStream", [per_query])):
        policy = BatchingPolicy.of(scenario, max_batch, 0, sizes)
        met = {policy.padded(len(batch)) for n in queries for batch in policy.cut(range(n), range(n), 0)}
        assert met == set(sizes_to_warm(scenario, policy, per_query))
    policy = BatchingPolicy.of("Server", max_batch, 0, sizes)
    met = {policy.padded(n) for n in range(1, policy.max_batch + 1)}
    assert met == set(sizes_to_warm("Server", policy, per_query))
