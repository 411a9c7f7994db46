"""``sut plan``: what a layout comes to by planted times, which one is chosen, what is said; and the measuring."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sut.cli.console import BriefConsole
from sut.config import make_config
from sut.errors import InputError
from sut.pipeline.assembly import assemble
from sut.results.wording import RANDOM_WEIGHTS
from sut.studies.capacity import report
from sut.studies.capacity.choice import Machine, Needs, Plan, Planned, Wanted, choose, limit_of, needs
from sut.studies.capacity.measuring import ROUNDS, Doing, Orders, Timed, Window, measure
from sut.studies.capacity.model import Expected, Layout, Times, expected, rate, stations, throughput
from sut.studies.capacity.page import study_of
from sut.studies.capacity.study import run_plan
from sut.studies.simulation import at_random, highest_held, highest_rate, line, prepared, simulate, simulate_staged

MS = 1_000_000
SIZES = (1, 2, 4, 8)
ONE_DEVICE = Machine(1, 4, infers_on_cores=False)


def planted(
    a_ms: float,
    b_ms: float,
    decode_ms: float = 0.0,
    lanes: tuple[int, ...] = (1, 2),
    workers: tuple[int, ...] = (1, 2, 4),
    slower: float = 1.0,
    sigma: float = 0.02,
) -> Timed:
    """A system whose batches of n take a + b n ms and whose pictures take ``decode_ms``, as it would be measured.

    ``slower``: how many times as long each side takes while the other is always busy.
    """
    chance = np.random.default_rng(3)

    def drawn(ms: float) -> tuple[int, ...]:
        return tuple(int(each) for each in ms * MS * chance.lognormal(-(sigma**2) / 2, sigma, 50))

    windows = []
    workers = workers if decode_ms else ()
    for number in range(ROUNDS):
        for count in lanes:
            doing: tuple[Doing, ...] = ("fused", "alone") if count > 1 else ("fused",)
            for size in SIZES:
                whole, ready = a_ms + size * (b_ms + decode_ms), a_ms + size * b_ms
                windows += [Window(each, count, 0, size, number, drawn(whole)) for each in doing]
                windows += [Window("lanes", count, 0, size, number, drawn(ready))] if workers else []
            busy = slower * (a_ms + SIZES[-1] * b_ms)
            windows += [
                Window("both", count, each, SIZES[-1], number, drawn(busy), drawn(slower * decode_ms))
                for each in workers
            ]
        windows += [Window("workers", 1, each, 0, number, (), drawn(decode_ms)) for each in workers]
    stages = {"decode": int(decode_ms * MS), "infer": int(b_ms * MS), "postprocess": 1000}
    return Timed(tuple(windows), stages, 50_000 if workers else None, 602_112, dict.fromkeys(lanes, 1), True)


# ---- simulation of workers before lanes


def test_each_worker_takes_one_query_and_the_first_to_be_free_takes_the_next() -> None:
    arrived = np.array([0, 1, 2, 50])

    assert prepared(arrived, [10, 4, 10, 10], 2).tolist() == [10, 5, 15, 60]


def test_lanes_take_what_is_ready_in_the_order_in_which_it_is() -> None:
    # Ready at 10, 5 and 15: the second is answered first, then the first, and the third behind it.
    latency = simulate_staged(np.array([0, 1, 2]), [10, 4, 10], 2, [20])

    assert latency.tolist() == [45 - 0, 25 - 1, 65 - 2]


def test_workers_that_take_no_time_are_not_there() -> None:
    arrived = (at_random(2000, 5) / 300).astype(np.int64)
    service = line(2 * MS, MS, 8)

    staged = simulate_staged(arrived, [0] * 2000, 1, service)

    assert staged.tolist() == simulate(arrived, service).tolist()


def test_where_single_queries_are_late_no_rate_is_held() -> None:
    assert highest_held(lambda at: np.full_like(at, 11), 10, 100.0, at_random(1000, 1)) == 0


# ---- what a layout comes to


def test_service_times_are_those_that_were_planted() -> None:
    found = stations(Times(planted(10, 5)), Layout(1, 0, 8))

    assert found.service_ns == pytest.approx(line(10 * MS, 5 * MS, 8), rel=0.05)
    assert throughput(Times(planted(10, 5)), Layout(2, 0, 8)).value == pytest.approx(2 * 8 / 0.050, rel=0.02)


@pytest.mark.parametrize(("workers", "limit"), [(1, "decode"), (4, "infer")])
def test_the_slower_of_two_stations_limits_and_is_named(workers: int, limit: str) -> None:
    times = Times(planted(20, 5, decode_ms=20))  # a lane answers 8 in 60 ms, a worker makes 50 a second ready
    layout = Layout(1, workers, 8)

    assert throughput(times, layout).value == pytest.approx(min(workers * 50, 8 / 0.060), rel=0.02)
    assert limit_of(times, layout) == limit


@pytest.mark.parametrize(("decode_ms", "limit"), [(20.0, "decode"), (2.0, "infer")])
def test_the_longer_part_of_a_lane_limits_and_is_named(decode_ms: float, limit: str) -> None:
    assert limit_of(Times(planted(20, 5, decode_ms)), Layout(1, 0, 8)) == limit


def test_who_waits_for_the_other_leaves_it_the_machine() -> None:
    # Workers alone make 100 a second ready, lanes alone answer 200; each takes 1.5 times as long beside the other.
    times = Times(planted(0, 5, decode_ms=10, lanes=(1,), workers=(1,), slower=1.5, sigma=0.0))

    found = stations(times, Layout(1, 1, 8))

    # Lanes are busy for a share u of the time: P = 10 (1 + u / 2) ms, I = 7.5 ms, as workers always are, u = I / P.
    share = -1 + math.sqrt(1 + 2 * 0.75)
    assert found.samples_per_second == pytest.approx(1e3 / (10 * (1 + share / 2)), rel=1e-3)


def optimum(a_ms: float, b_ms: float, decode_ms: float, bound_ns: int) -> float:
    """The highest rate of 2 lanes and 4 workers, or 2 lanes that preprocess, by a simulation with the planted times."""
    queries, found = 6_000, [highest_rate(line(a_ms * MS, (b_ms + decode_ms) * MS, 8), bound_ns, 2, queries=6_000)]
    if decode_ms:
        took, service = [int(decode_ms * MS)] * queries, line(a_ms * MS, b_ms * MS, 8)
        ceiling = 2 * 8e9 / service[-1]
        at_unity = at_random(queries, 7)
        found.append(highest_held(lambda at: simulate_staged(at, took, 4, service, 2), bound_ns, ceiling, at_unity))
    return max(found)


@pytest.mark.parametrize(("a_ms", "b_ms", "decode_ms"), [(50, 25, 0.0), (50, 25, 20.0)])
def test_the_rate_expected_of_the_best_is_within_a_tenth_of_the_planted_optimum(
    a_ms: float, b_ms: float, decode_ms: float
) -> None:
    wanted = Wanted(10_000, 600 * MS)

    plan = choose(Times(planted(a_ms, b_ms, decode_ms)), wanted)

    assert plan is not None and plan.verdict == "no"
    assert plan.rate.value == pytest.approx(optimum(a_ms, b_ms, decode_ms, wanted.bound_ns), rel=0.1)


def test_the_fewest_threads_that_hold_the_rate_are_taken() -> None:
    times = Times(planted(50, 25, decode_ms=20, workers=(1, 2)))

    small, large = (choose(times, Wanted(asked, 800 * MS)) for asked in (5, 500))

    assert small is not None and small.verdict == "yes" and small.layout.threads == 1
    assert large is not None and large.verdict == "no" and large.layout.threads > 1
    assert large.rate.value > small.rate.value


def test_a_rate_within_the_interval_is_left_open() -> None:
    times = Times(planted(50, 25, lanes=(1,)))
    most = rate(times, Layout(1, 0, 8), 800 * MS)

    found = choose(times, Wanted(most.value, 800 * MS))

    assert found is not None and found.verdict == "open" and found.rate.low < most.value
    assert found.rate.high is not None and most.value < found.rate.high


def test_the_interval_is_wider_the_more_the_rounds_differ() -> None:
    alike, apart = expected(100.0, [100.0] * 5), expected(100.0, [90.0, 95.0, 100.0, 105.0, 110.0])

    assert alike.high is not None and apart.high is not None
    assert 94 < alike.low < 100 < alike.high < 106
    assert apart.low < 85 and apart.high > 115
    assert expected(100.0, [0.0, 90.0, 100.0, 100.0, 100.0]) == Expected(100.0, 0.0, None)


# ---- what more would hold


def test_cores_per_device_are_inference_by_preprocessing() -> None:
    # A device infers 8 in 50 ms, 160 a second, with one lane; with two, which are no second device here, 320.
    found = needs(Times(planted(10, 5, decode_ms=25, lanes=(1,))), ONE_DEVICE, Wanted(990, 400 * MS), None)

    per_device = found.cores_per_device
    assert per_device is not None and per_device.high is not None
    assert per_device.value == pytest.approx(160 / 40, rel=0.05)
    assert per_device.low < 4 < per_device.high
    assert found.cores == math.ceil(990 / 40) and found.devices is not None and 7 <= found.devices <= 9


def test_where_inference_works_on_the_cores_there_are_only_cores() -> None:
    times, wanted = Times(planted(10, 5, lanes=(1,))), Wanted(1000, 400 * MS)
    plan = choose(times, wanted)
    assert plan is not None

    found = needs(times, Machine(1, 4, infers_on_cores=True), wanted, plan)

    assert found == Needs(None, math.ceil(4 * 1000 / plan.rate.value), None)


def test_a_bound_below_one_picture_cannot_be_had_with_any_number() -> None:
    times, wanted = Times(planted(50, 25, lanes=(1,))), Wanted(10, 60 * MS)
    plan = choose(times, wanted)
    planned = Planned(
        Path(),
        make_config({}),
        wanted,
        ONE_DEVICE,
        planted(50, 25),
        plan,
        needs(times, ONE_DEVICE, wanted, plan),
        "m",
        None,
    )

    assert plan is None and planned.needs.devices is None
    assert report.sentences(planned, times)[0].startswith(
        "no rate is held with p99 <= 60 ms: one picture alone takes 7"
    )


def test_the_yaml_asks_what_is_expected_where_the_wish_is_too_much() -> None:
    layout, found = Layout(2, 1, 4), Expected(80.0, 71.23456, 90.0)
    plan = Plan(layout, "no", found, found, "decode")
    config = make_config({"backend": "simulated", "boundary": "jpeg", "scenario": "Server"})
    planned = Planned(
        Path(), config, Wanted(100, 50 * MS), ONE_DEVICE, planted(1, 1), plan, Needs(None, None, None), "m", None
    )

    text = report.yaml_text(planned)

    assert "qps: 71.23\n" in text and "max_latency_s: 0.05\n" in text and "preprocess_workers: 1\n" in text
    assert text.startswith("# 100 queries/s with p99 <= 50 ms: no, not here; with 2 lanes, batch 4 at the most")
    assert "qps: 100.0\n" in report.yaml_text(replace(planned, plan=replace(plan, verdict="yes")))


# ---- the page


@pytest.mark.parametrize("decode_ms", [0.0, 20.0])
def test_the_page_leads_with_the_decision_and_marks_the_plan(decode_ms: float) -> None:
    wanted, timed = Wanted(100, 800 * MS), planted(50, 25, decode_ms, workers=(1, 4))
    times, config = Times(timed), make_config({"backend": "simulated", "scenario": "Server"})
    plan = choose(times, wanted)
    assert plan is not None
    more = needs(times, ONE_DEVICE, wanted, plan)
    planned = Planned(Path(), config, wanted, ONE_DEVICE, timed, plan, more, "m", "random")

    study = study_of(json.loads(json.dumps(report.told(planned, times))), "s0")

    assert study.sentences[0].startswith("100 queries/s with p99 <= 800 ms: no, not here; with ")
    assert RANDOM_WEIGHTS in study.sentences
    rates, batches = study.figures
    assert f"the plan: {plan.layout.batch}" in rates.svg and "the plan" not in batches.svg
    assert [name for _, name in rates.legend] == ["1 lane", "2 lanes"]
    assert (f"{plan.layout.workers} preprocessing" in rates.caption) == bool(plan.layout.workers)
    [taken] = [at for at, cell in enumerate(study.tables[0].columns[-1].cells) if cell.said]
    assert times.layouts()[taken] == plan.layout
    assert len(study.tables) == (2 if decode_ms else 1)


def test_where_nothing_is_held_the_page_marks_nothing() -> None:
    wanted, timed = Wanted(10, 60 * MS), planted(50, 25)
    times, config = Times(timed), make_config({"backend": "simulated", "scenario": "Server"})
    planned = Planned(Path(), config, wanted, ONE_DEVICE, timed, None, Needs(None, None, None), "m", None)

    study = study_of(report.told(planned, times), "s0")

    assert study.sentences[0].startswith("no rate is held with p99 <= 60 ms")
    assert "the plan" not in study.figures[0].svg and "plan" not in [each.heading for each in study.tables[0].shown]


# ---- measuring


def test_what_is_planted_is_measured() -> None:
    settings = {
        **{"backend": "simulated", "preprocess": "simulated", "boundary": "jpeg", "scenario": "Server", "count": 3},
        "backend_options": {"a_ms": 50, "b_ms": 50},
        "preprocess_options": {"decode_ms": 50, "resize_ms": 0, "normalize_ms": 0},
    }
    config = make_config(settings)

    timed = measure(assemble(config), Orders(config, None, (1,), (1,), 2, 10**10, 1.0), lambda done, total: None)

    times = Times(timed)
    took = {
        150: times.batch_ns("fused", 1, 1),
        250: times.batch_ns("fused", 1, 2),
        100: times.batch_ns("lanes", 1, 1),
        50: times.picture_ns(1, 1),
    }
    # Asleep, nobody is early; how late is the machine's.
    assert all(planted_ms * MS <= found for planted_ms, found in took.items())
    assert {each.round for each in timed.windows} == set(range(ROUNDS))
    assert timed.stages_ns["decode"] >= 50 * MS and timed.picture_bytes is not None
    assert timed.tensor_bytes == 3 * 224 * 224 * 4 and [*timed.threads] == [1]


def test_lanes_that_share_a_device_are_timed_while_they_share_it() -> None:
    config = make_config({"backend": "simulated", "backend_options": {"a_ms": 50, "b_ms": 0}, "scenario": "Server"})

    timed = measure(assemble(config), Orders(config, None, (2,), (), 1, 10**10, 0.01), lambda done, total: None)

    # Each waits for the other: 100 ms, but for a first batch that finds the device idle, which would make it 75.
    assert Times(timed).batch_ns("fused", 2, 1) >= 95 * MS
    assert Times(timed).batch_ns("alone", 2, 1) >= 50 * MS


def test_batches_over_the_bound_are_left_out() -> None:
    config = make_config({"backend": "simulated", "backend_options": {"a_ms": 50, "b_ms": 10}, "scenario": "Server"})

    timed = measure(assemble(config), Orders(config, None, (1,), (), 8, 65 * MS, 0.1), lambda done, total: None)

    assert Times(timed).sizes(1) == [1] and timed.picture_bytes is None


# ---- bad input


@pytest.mark.parametrize(
    ("asked", "bound", "why"),
    [
        (None, "15ms", "--rate takes queries a second, more than 0, got nothing; for example --rate 100"),
        (0.0, "15ms", "more than 0, got 0;"),
        (-3.0, "15ms", "more than 0, got -3;"),
        (float("nan"), "15ms", "got nan"),
        (float("inf"), "15ms", "got inf"),
        (10.0, None, "--p99 takes ms, or a time such as 15ms or 0.1s, more than 0, got nothing"),
        (10.0, "0", "more than 0, got '0'"),
        (10.0, "-5", "got '-5'"),
        (10.0, "5 min", "got '5 min'"),
        (10.0, "", "got ''"),
    ],
)
def test_what_is_no_rate_or_no_bound_is_refused(asked: float | None, bound: str | None, why: str) -> None:
    with pytest.raises(InputError, match=why.replace("?", r"\?")):
        run_plan([make_config({"scenario": "Server"})], asked, bound, BriefConsole())
