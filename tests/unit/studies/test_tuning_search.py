"""What ``sut tune`` tries: the space, and which of its points a round keeps."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sut.config import SCENARIOS, RunConfig, make_config
from sut.errors import InputError, SetupError
from sut.studies.tuning.search import halve, in_order, next_offer, round_seconds, round_sizes, survivors
from sut.studies.tuning.space import (
    DEFAULT,
    EFFECTS,
    Point,
    default_points,
    default_space,
    parse_space,
    points_of,
    with_settings,
)
from sut.studies.tuning.state import Job, Measured
from tests.unit.tuning_runs import LANES, MS, offline, p, run_of, server_run

STREAMS = "backend_options.streams"

# ---- the space


def test_a_space_is_read_as_yaml_in_one_or_several_words() -> None:
    config = RunConfig(scenario="Server")

    space = parse_space(["lanes=1,2 max-wait-ms=0,2.5", "threads=null,1"], config)

    assert space == {"lanes": [1, 2], "max_wait_ms": [0, 2.5], "threads": [None, 1]}


@pytest.mark.parametrize(
    ("text", "changes", "message"),
    [
        ("lanes", {}, "--space takes KEY=V1,V2, got 'lanes'"),
        ("lanes=", {}, "--space takes KEY=V1,V2"),
        ("lanes=1,,2", {}, "--space takes KEY=V1,V2"),
        ("=1", {}, "--space takes KEY=V1,V2"),
        ("lanes=0", {}, "lanes: Input should be greater than or equal to 1, got '0'"),
        ("lanes={", {}, "no YAML values"),
        ("lane=1", {}, "cannot vary 'lane'; did you mean lanes?"),
        ("qps=1,2", {}, "cannot vary 'qps'"),
        ("max_wait_ms=1", {}, "--space max_wait_ms has no effect in Offline; leave it out"),
        ("lanes=1", {"scenario": "SingleStream"}, "--space lanes has no effect in SingleStream"),
        ("preprocess_workers=1", {}, "no effect at the boundary tensor"),
        ("preprocess_place=thread,process", {}, "no effect at the boundary tensor"),
        ("preprocess_batch=1,4", {"boundary": "device"}, "no effect at the boundary device"),
        ("channel=none,shared", {}, "--space channel has no effect without a second model; add --identify MODEL"),
        ("identify_workers=1,2", {}, "no effect without a second model"),
        ("precision=int8", {"backend": "null"}, "null cannot run precision int8; it has fp32"),
        ("backend_options.streams=2", {"backend": "null"}, "null has no option 'streams'; it has none"),
        ("backend_options.=2", {}, "cannot vary 'backend_options.'"),
    ],
)
def test_a_bad_space_is_refused(text: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        parse_space([text], RunConfig(**{"scenario": "Offline"} | changes))


def test_a_dotted_setting_is_one_entry_of_a_map() -> None:
    base = make_config({"backend": "simulated", "backend_options": {"a_ms": 3}})

    found = with_settings(base, {"backend_options.b_ms": 2, "lanes": 2})

    assert (found.backend_options, found.lanes) == ({"a_ms": 3, "b_ms": 2}, 2)
    assert base.backend_options == {"a_ms": 3}


def test_the_settings_of_a_second_model_can_be_varied_where_there_is_one() -> None:
    base = RunConfig(scenario="Offline", boundary="jpeg", identify="efficientnet-lite0")

    space = parse_space(["channel=none,shared identify_workers=1,2", "identify_batch=1,8"], base)

    assert space == {"channel": ["none", "shared"], "identify_workers": [1, 2], "identify_batch": [1, 8]}


@pytest.mark.parametrize("scenario", ["Server", "Offline"])
def test_beside_a_second_model_no_workers_are_tried(scenario: str) -> None:
    base = make_config({"scenario": scenario, "boundary": "jpeg"})

    assert "preprocess_workers" in default_space(base, 4)
    assert "preprocess_workers" not in default_space(base.model_copy(update={"identify": "efficientnet-lite0"}), 4)


def test_place_and_batch_are_those_of_workers() -> None:
    base = make_config({"scenario": "Offline", "boundary": "jpeg", "lanes": 1, "max_batchsize": 8})
    space = parse_space(["preprocess_workers=0,2", "preprocess_place=thread,process", "preprocess_batch=1,4"], base)

    points = points_of(space, base)

    assert [(dict(each.settings) or {"preprocess_workers": 0})["preprocess_workers"] for each in points] == [
        0,
        2,
        2,
        2,
        2,
    ]
    assert {(each.apply(base).preprocess_place, each.apply(base).preprocess_batch) for each in points[1:]} == {
        ("thread", 1),
        ("thread", 4),
        ("process", 1),
        ("process", 4),
    }


def test_points_begin_with_the_default_and_none_does_what_another_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sut.config.usable_cores", lambda: 2)
    base = RunConfig(scenario="Server", lanes=1, max_batchsize=8)

    points = points_of({"threads": [1, 2], "max_batchsize": [1, 8], "max_wait_ms": [0.0, 2.0]}, base)

    assert points == [
        DEFAULT,
        p(threads=1, max_batchsize=1, max_wait_ms=0.0),  # waiting for a batch of one is no waiting
        p(threads=1, max_batchsize=8, max_wait_ms=0.0),
        p(threads=1, max_batchsize=8, max_wait_ms=2.0),
        p(threads=2, max_batchsize=1, max_wait_ms=0.0),
        p(threads=2, max_batchsize=8, max_wait_ms=2.0),  # threads=2 without waiting is the default
    ]


@pytest.mark.parametrize("scenario", SCENARIOS)
@pytest.mark.parametrize("boundary", ["tensor", "jpeg"])
@pytest.mark.parametrize("cores", [1, 2, 6, 64])
def test_the_default_space_is_small_and_only_of_what_has_an_effect(scenario: str, boundary: str, cores: int) -> None:
    config = make_config({"scenario": scenario, "boundary": boundary})

    space = default_space(config, cores)

    texts = [f"{key}={','.join(map(str, values))}" for key, values in space.items()]
    assert parse_space(texts, config) == space
    assert all(scenario in EFFECTS[key] for key in space)
    assert "precision" not in space
    assert len(points_of(space, config)) <= 41


@pytest.mark.parametrize(
    ("where", "scenario", "cores", "lanes"),
    [
        ({"device": "sim:0,sim:1"}, "Offline", 2, [2]),
        ({"device": "sim:0,sim:1"}, "Server", 8, [2, 4, 8]),
        ({"device": "sim:0,sim:1,sim:2"}, "MultiStream", 8, [3, 6]),
        ({"device": "sim:0,sim:1,sim:2"}, "Offline", 2, [3]),
        ({"affinity": "lanes=0-1/2-3"}, "Offline", 4, [2, 4]),
    ],
)
def test_each_of_several_devices_has_as_many_lanes(
    where: dict[str, str], scenario: str, cores: int, lanes: list[int]
) -> None:
    config = make_config({"backend": "simulated", "scenario": scenario, **where})

    assert default_space(config, cores)["lanes"] == lanes


def test_lanes_that_several_devices_have_anyway_are_one_system() -> None:
    base = make_config({"backend": "simulated", "scenario": "Offline", "device": "sim:0,sim:1"})

    assert points_of({"lanes": [1, 2, 3]}, base) == [DEFAULT, p(lanes=1), p(lanes=3)]
    assert points_of({"lanes": [1, 2]}, base.model_copy(update={"lanes": 2})) == [DEFAULT]


@pytest.mark.parametrize("scenario", SCENARIOS)
@pytest.mark.parametrize("boundary", ["tensor", "jpeg"])
@pytest.mark.parametrize("cores", [1, 2, 6, 64])
def test_a_backend_with_streams_has_half_as_many_as_lanes_tried_too(scenario: str, boundary: str, cores: int) -> None:
    without, config = (
        make_config({"scenario": scenario, "boundary": boundary, "backend": name}) for name in ("null", "openvino")
    )
    space = default_space(config, cores)

    points = default_points(space, config)

    plain = default_points(default_space(without, cores), without)
    more = points[len(plain) :]
    assert points[: len(plain)] == plain
    assert bool(more) is (scenario != "SingleStream" and cores > 1)
    assert len(points) <= 2 * len(plain)
    assert len(set(points)) == len(points)
    for point in more:
        *others, (key, streams) = point.settings
        assert Point(tuple(others)) in plain
        assert (key, streams) == (STREAMS, point.apply(config).lane_count // 2)
        assert streams >= 1
    texts = [f"{key}={','.join(map(str, values))}" for key, values in space.items()]
    assert parse_space(texts, config) == space


@pytest.mark.parametrize("options", [{"streams": 3}, {"hint": "throughput"}])
def test_streams_that_the_user_has_set_are_left_alone(options: dict[str, Any]) -> None:
    config = make_config({"scenario": "Offline", "backend": "openvino", "backend_options": options})

    assert STREAMS not in default_space(config, 8)


def test_a_backend_that_cannot_be_loaded_is_a_matter_of_the_installation(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> None:
        raise AttributeError("half installed")

    monkeypatch.setattr("backends.registry.load", broken)

    with pytest.raises(SetupError, match="backend odd cannot be loaded: AttributeError: half installed"):
        default_space(RunConfig(backend="odd"), 2)


# ---- successive halving


@settings(deadline=None)
@given(st.integers(2, 300))
def test_rounds_halve_down_to_two(points: int) -> None:
    sizes = round_sizes(points)

    assert sizes[0] == points and sizes[-1] == 2
    assert all(after == -(-before // 2) for before, after in itertools.pairwise(sizes))


@settings(deadline=None)
@given(st.integers(1, 9), st.floats(0.1, 600))
def test_runs_get_longer_up_to_the_time_that_was_asked(rounds: int, time_s: float) -> None:
    seconds = round_seconds(rounds, time_s)

    assert seconds == sorted(seconds) and seconds[-1] == time_s
    assert seconds[0] >= min(2.0, time_s)


def test_the_order_is_shuffled_anew_in_each_round_and_begins_with_the_default() -> None:
    points = [DEFAULT, *(p(lanes=n) for n in range(2, 12))]

    first, second = in_order(points, 0), in_order(points, 1)

    assert first[0] == DEFAULT and first != points
    assert sorted(second, key=repr) == sorted(points, key=repr) and second != first
    assert in_order(points, 1) == second


def halved(
    points: list[Point], measure: Callable[[Job], Measured], may_go_on: Callable[[], bool] = lambda: True
) -> Any:
    sizes = round_sizes(len(points))
    return halve(points, sizes, round_seconds(len(sizes), 8), measure, may_go_on)


def test_the_planted_best_is_found() -> None:
    search = halved(LANES, offline)

    assert search.best == p(lanes=4)
    assert [len(rows) for rows in search.rounds] == [8, 4, 2]
    assert [{row.time_s for row in rows} for rows in search.rounds] == [{2.0}, {4.0}, {8.0}]


def test_a_point_that_fails_or_is_invalid_drops_out_with_its_reason_and_ends_nothing() -> None:
    def measure(job: Job) -> Measured:
        if job.point == p(lanes=4):
            return run_of(job, valid=False, failed=True, invalid_reasons=["out of luck"], metric=None)
        if job.point == p(lanes=5):
            return replace(offline(job), valid=False, invalid_reasons=["too short"])
        return offline(job)

    search = halved(LANES, measure)

    assert search.best == p(lanes=3)
    first, *later = search.rounds
    assert {row.point.label: row.invalid_reasons for row in first if not row.valid} == {
        "lanes=4": ["out of luck"],
        "lanes=5": ["too short"],
    }
    assert all(row.valid for rows in later for row in rows)


def test_nothing_valid_leaves_nothing() -> None:
    search = halved(LANES, lambda job: replace(offline(job), valid=False, invalid_reasons=["too short"]))

    assert search.best is None
    assert len(search.rounds) == 1


@pytest.mark.parametrize(
    ("runs", "rounds", "best"), [(1, [1], DEFAULT), (8, [8, 0], p(lanes=4)), (10, [8, 2], p(lanes=4))]
)
def test_a_budget_that_is_spent_ends_the_search_with_the_last_whole_round(
    runs: int, rounds: list[int], best: Point
) -> None:
    made: list[Job] = []

    def measure(job: Job) -> Measured:
        made.append(job)
        # The second round would mislead: what it says counts only when it is whole.
        return offline(job) if len(made) <= 8 else run_of(job, valid=False)

    search = halved(LANES, measure, lambda: len(made) < runs)

    assert [len(rows) for rows in search.rounds] == rounds
    assert search.best == best


def test_in_server_a_rate_too_high_for_all_still_tells_them_apart() -> None:
    rows = [server_run(50, valid=False, settings={"lanes": n}, latency_ns={"p99": n * MS}) for n in (30, 20, 40)]

    assert survivors(rows, 2) == [p(lanes=20), p(lanes=30)]
    assert next_offer(50, rows) == 38.46
    assert next_offer(50, [server_run(50)]) == 57.5
    assert next_offer(50, [server_run(50), *rows[:1]]) == 50
