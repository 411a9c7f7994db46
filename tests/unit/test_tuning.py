"""``sut tune`` without a run: what it tries next, what it makes of what it measured, what it says and keeps."""

from __future__ import annotations

import io
import itertools
import json
import re
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console as RichConsole

from sut.commands import tune as command
from sut.config import RunConfig, make_config
from sut.errors import ExitCode, InputError, RunError, SetupError
from sut.results import Agreement, Metric, Result
from sut.runner import Ran
from sut.simulation import allowed_late, highest_rate, line, poisson, simulate
from sut.tuning import report
from sut.tuning.bench import Bench, Quiet, line_of
from sut.tuning.estimate import estimate
from sut.tuning.search import halve, in_order, next_offer, round_seconds, round_sizes, survivors
from sut.tuning.space import (
    DEFAULT,
    EFFECTS,
    STREAMS,
    Point,
    default_points,
    default_space,
    parse_space,
    points_of,
    with_settings,
)
from sut.tuning.state import Job, Measured, State, held
from sut.tuning.tuner import Outcome, Tuner
from sut.userconf import SCENARIOS
from tests.unit.small_models import write_classifier
from tests.unit.tuning_runs import MS, p, run_of, server_run

HEADER = {"machine": "a test"}


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
        ("precision=int8", {"backend": "null"}, "null cannot run precision int8; it has fp32"),
        ("backend_options.streams=2", {"backend": "null"}, "null has no option 'streams'"),
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


def test_points_begin_with_the_default_and_none_does_what_another_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sut.config.usable_cores", lambda: 2)
    base = RunConfig(scenario="Server", max_batchsize=8)

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
        assert (key, streams) == (STREAMS, point.apply(config).lanes // 2)
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


def speed_of(point: Point) -> float:
    """Planted: four lanes are best."""
    return 100.0 - abs(4 - dict(point.settings).get("lanes", 1))


def offline(job: Job) -> Measured:
    metric = {"name": "samples_per_second", "value": speed_of(job.point), "higher_is_better": True}
    return run_of(job, metric=metric)


LANES = [DEFAULT, *(p(lanes=n) for n in range(2, 9))]


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


# ---- a whole tune, on planted machines


class Planted(Bench):
    """Answers jobs with a function in the place of a run."""

    def __init__(self, state: State, answer: Callable[[Job], Measured], stop_after: int | None = None) -> None:
        super().__init__(RunConfig(), Path(), state, lambda text: None, Quiet())
        self._answer = answer
        self._stop_after = stop_after
        self.runs = 0

    def _run(self, job: Job) -> Measured:
        if self.runs == self._stop_after:
            raise KeyboardInterrupt
        self.runs += 1
        return self._answer(job)


def planted(tmp_path: Path, answer: Callable[[Job], Measured], stop_after: int | None = None) -> Planted:
    tmp_path.mkdir(exist_ok=True)
    return Planted(State.open(tmp_path, HEADER, overwrite=False), answer, stop_after)


SERVICE_NS = line(3 * MS, MS, 8)
BOUND_NS = 15 * MS


def batched(job: Job) -> Measured:
    """A Server run, simulated: batches take 3 ms + 1 ms n, twice that with two threads; judged as LoadGen judges it."""
    slower = 2 if dict(job.point.settings).get("threads") == 2 else 1
    service = [slower * took for took in SERVICE_NS]
    rate = job.qps or 20.0
    queries = max(690, int(rate * job.time_s))
    latency = simulate(poisson(rate, queries, seed=5), service).latency_ns
    late = int((latency > BOUND_NS).sum())
    return run_of(
        job,
        valid=late <= allowed_late(queries),
        invalid_reasons=[],
        bound_ns=float(BOUND_NS),
        late=late,
        queries=queries,
        samples_per_second=rate,
        latency_ns={"p99": int(np.percentile(latency, 99)), "max": int(latency.max())},
        stages_ns={"queue": {"p99": int(np.percentile(latency, 99)) - service[0]}, "infer": {"p99": service[0]}},
        idle_query_ns=service[0],
        batch_ns={str(n): took for n, took in enumerate(service, 1)},
    )


def server_tuner(bench: Bench, *points: Point) -> Tuner:
    base = RunConfig(scenario="Server", time_s=10.0, batching="fifo")
    return Tuner(base, [DEFAULT, *points], bench, estimate)


def holds(rate: float) -> bool:
    return batched(Job("truth", 1, 1, DEFAULT, 10.0, rate)).valid


def test_the_simulated_server_rate_is_found_within_5_percent_in_eight_probes(tmp_path: Path) -> None:
    outcome = server_tuner(planted(tmp_path, batched)).run()

    assert outcome.code == ExitCode.OK
    assert outcome.rate is not None and holds(outcome.rate) and not holds(1.05 * outcome.rate)
    assert len(outcome.probes) <= 8
    assert [row.valid for row in outcome.confirmations] == [True] * 3
    assert outcome.words[0] == f"highest VALID rate: {outcome.rate:g} queries/s, VALID 3 times out of 3 when confirmed"
    assert "over the bound of 15 ms" in outcome.words[1] or "too many for early stopping" in outcome.words[1]


def test_the_estimate_is_that_of_the_simulation() -> None:
    config = RunConfig(scenario="Server", time_s=1.0, batching="fifo")

    expected = highest_rate(SERVICE_NS, BOUND_NS, by_deadline=False, run_queries=690, sigma=0.05, queries=20_000)
    assert estimate(config, batched(Job("scout", 1, 1, DEFAULT, 2.0))) == expected
    assert estimate(config, run_of()) is None
    assert estimate(config, server_run(1, batch_ns={"1": 16 * MS})) is None


def test_settings_that_hold_more_are_kept_with_their_rate(tmp_path: Path) -> None:
    base = RunConfig(scenario="Server", time_s=10.0, batching="fifo", threads=2)

    def answer(job: Job) -> Measured:
        twice = not dict(job.point.settings)
        return batched(replace(job, point=p(threads=2) if twice else job.point))

    def keyed(job: Job) -> Measured:
        return replace(answer(job), key=job.key, settings=dict(job.point.settings))

    outcome = Tuner(base, [DEFAULT, p(threads=1)], planted(tmp_path, keyed), estimate).run()

    assert outcome.chosen == p(threads=1)
    assert outcome.rate is not None and holds(outcome.rate) and not holds(1.05 * outcome.rate)
    assert len(outcome.pairs) == 5
    assert f"at {outcome.rate:g} queries/s the best is VALID 5 times out of 5, the default 0" in outcome.words
    assert outcome.words[-1].startswith("gain: p99 is +")


def test_no_valid_rate_says_which_bound_to_relax(tmp_path: Path) -> None:
    def slow(job: Job) -> Measured:
        return server_run(job.qps or 1.0, key=job.key, valid=False, idle_query_ns=31 * MS)

    outcome = server_tuner(planted(tmp_path, slow), p(threads=2)).run()

    assert (outcome.code, outcome.chosen, outcome.rate) == (ExitCode.INVALID, None, None)
    assert "Relax the bound (--max-latency 0.062 or more)" in outcome.words[-1]


def offline_tuner(bench: Bench, points: list[Point] = LANES) -> Tuner:
    return Tuner(RunConfig(scenario="Offline", time_s=8.0), points, bench, estimate)


def test_a_real_gain_is_taken_and_one_in_the_noise_is_not(tmp_path: Path) -> None:
    def noisy(job: Job) -> Measured:
        value = speed_of(job.point) * (1 + 0.05 * (job.number % 3) * (job.phase == "pairs"))
        return run_of(job, metric={"name": "samples_per_second", "value": value, "higher_is_better": True})

    clear = offline_tuner(planted(tmp_path / "a", offline)).run()
    blurred = offline_tuner(planted(tmp_path / "b", noisy)).run()

    assert (clear.best, clear.chosen) == (p(lanes=4), p(lanes=4))
    assert clear.words == ["gain: the figure is +3.1 % better, spread 0.0 % (median to worst of 5 pairs)"]
    assert (blurred.best, blurred.chosen) == (p(lanes=4), DEFAULT)
    assert blurred.words[0].startswith("no gain: the figure is +")
    assert [row.point for row in planted(tmp_path / "b", noisy).rows if row.phase == "pairs"][:4] == [
        *(p(lanes=4), DEFAULT),
        *(DEFAULT, p(lanes=4)),
    ]


def test_a_default_that_is_the_best_needs_no_confirmation(tmp_path: Path) -> None:
    outcome = offline_tuner(planted(tmp_path, offline), [DEFAULT, p(lanes=9)]).run()

    assert outcome.chosen == DEFAULT
    assert outcome.pairs == []
    assert outcome.words == ["no gain: the default is the best of 2 points"]


def within(seconds: float, bench: Bench, points: list[Point] = LANES) -> Tuner:
    """Offline, with so much time for the search; every run takes a second."""
    return replace(offline_tuner(bench, points), may_go_on=lambda: bench.spent_s < seconds)


@pytest.mark.parametrize(
    ("seconds", "rounds", "words"),
    [
        (3, [3], ["the budget ended the search in round 1; the best until then counts"]),
        (8, [8, 0], ["the budget ended the search in round 2; the best until then counts"]),
        (10, [8, 2], ["the budget ended the search in round 2; the best until then counts"]),
        (14, [8, 4, 2], []),  # spent with the last run
        (99, [8, 4, 2], []),
    ],
)
def test_a_budget_cuts_a_tune_that_is_gone_through_again_where_it_was(
    tmp_path: Path, seconds: float, rounds: list[int], words: list[str]
) -> None:
    first = planted(tmp_path, offline)
    outcome = within(seconds, first).run()

    again = planted(tmp_path, offline)
    repeated = within(seconds, again).run()

    assert [len(rows) for rows in outcome.search.rounds] == rounds
    assert [word for word in outcome.words if "budget" in word] == words
    assert repeated == outcome
    assert again.runs == 0
    assert again.rows == first.rows


def test_a_larger_budget_goes_on_behind_what_a_smaller_one_left(tmp_path: Path) -> None:
    short = planted(tmp_path, offline)
    within(10, short).run()

    more = planted(tmp_path, offline)
    outcome = within(99, more).run()

    assert [len(rows) for rows in outcome.search.rounds] == [8, 4, 2]
    assert more.runs == 2 + 2  # of the second round, and the third; the pairs are there


def test_a_round_that_left_too_few_points_was_not_cut(tmp_path: Path) -> None:
    def measure(job: Job) -> Measured:
        return replace(offline(job), valid=job.point == p(lanes=4), invalid_reasons=["too short"])

    outcome = within(8, planted(tmp_path, measure)).run()

    assert [len(rows) for rows in outcome.search.rounds] == [8]
    assert not any("budget" in word for word in outcome.words)


@pytest.mark.parametrize(("seconds", "told"), [(1, "1 point"), (3, "3 points"), (99, "12 points")])
def test_the_default_is_the_best_of_those_that_ran(tmp_path: Path, seconds: float, told: str) -> None:
    points = [DEFAULT, *(p(lanes=n) for n in range(9, 20))]

    outcome = within(seconds, planted(tmp_path, offline), points).run()

    assert outcome.words[-1] == f"no gain: the default is the best of {told}"


SAID = "98.5 % same labels (95 % interval 97.5 to 99.1 %) on 1,000 crops of 11 pictures"


def quantised(line: str | None) -> Callable[[Job], Measured]:
    """int8 is twice as fast, and says ``line`` of its labels."""

    def measure(job: Job) -> Measured:
        reduced = dict(job.point.settings).get("precision") == "int8"
        metric = {"name": "samples_per_second", "value": 200.0 if reduced else 100.0, "higher_is_better": True}
        return run_of(job, metric=metric, agreement_line=line if reduced else None)

    return measure


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (f"int8 against fp32: {SAID}", f"int8 against fp32: {SAID}"),
        (None, "int8 against fp32: no run says how many labels are the same"),
    ],
)
def test_no_gain_of_a_reduced_precision_is_told_without_its_labels(tmp_path: Path, line: str | None, told: str) -> None:
    bench = planted(tmp_path, quantised(line))

    outcome = offline_tuner(bench, [DEFAULT, p(precision="int8"), p(precision="int8", lanes=2)]).run()

    assert outcome.chosen is not None and dict(outcome.chosen.settings)["precision"] == "int8"
    assert outcome.words[0].startswith("gain: the figure is +100.0 % better")
    assert outcome.words[1:] == [told]
    text = report.yaml_text(outcome.chosen.apply(RunConfig(scenario="Offline")), outcome, bench.rows)
    assert f"# I{told[1:]}\n" in text
    assert "against" in report.svg(outcome, "sut tune")


@pytest.mark.parametrize(
    ("base", "points", "labels"),
    [
        ({}, [DEFAULT, p(lanes=2)], []),
        ({"precision": "int8"}, [DEFAULT, p(lanes=2)], ["int8 against fp32: same"]),
        ({"fold": True}, [DEFAULT, p(lanes=2)], ["fp32, folded, against fp32: same"]),
        # Not chosen, but compared.
        ({}, [DEFAULT, p(precision="bf16")], ["bf16 against fp32: same"]),
        ({"precision": "int8"}, [DEFAULT, p(precision="fp32")], ["int8 against fp32: same"]),
    ],
)
def test_every_precision_that_was_compared_says_what_became_of_the_labels(
    tmp_path: Path, base: dict[str, Any], points: list[Point], labels: list[str]
) -> None:
    config = RunConfig(**{"scenario": "Offline", "time_s": 8.0} | base)

    def measure(job: Job) -> Measured:
        made = job.point.apply(config)
        name = f"{made.precision}, folded," if made.fold else made.precision
        return run_of(job, agreement_line=f"{name} against fp32: same")

    outcome = Tuner(config, points, planted(tmp_path, measure), estimate).run()

    assert [word for word in outcome.words if "against fp32" in word] == labels


def test_a_precision_that_never_ran_is_not_spoken_of(tmp_path: Path) -> None:
    def measure(job: Job) -> Measured:
        broken = job.point == p(precision="int8")
        return run_of(job, valid=not broken, failed=broken, invalid_reasons=["no conversion"] * broken)

    outcome = offline_tuner(planted(tmp_path, measure), [DEFAULT, p(precision="int8"), p(lanes=2)]).run()

    assert not any("int8" in word for word in outcome.words)


@pytest.mark.parametrize(("failed", "code"), [(True, ExitCode.FAILED), (False, ExitCode.INVALID)])
def test_nothing_valid_is_an_exit_code(tmp_path: Path, failed: bool, code: ExitCode) -> None:
    def bad(job: Job) -> Measured:
        return run_of(job, valid=False, failed=failed, invalid_reasons=["no luck"])

    outcome = offline_tuner(planted(tmp_path, bad)).run()

    assert (outcome.code, outcome.chosen) == (code, None)
    assert "no luck" in outcome.words[-1]


@pytest.mark.parametrize(
    ("tuner", "answer"),
    [
        pytest.param(lambda bench: offline_tuner(bench), offline, id="Offline"),
        pytest.param(lambda bench: server_tuner(bench, p(threads=2)), batched, id="Server"),
    ],
)
def test_an_interrupted_tune_goes_on_where_it_was(
    tmp_path: Path, tuner: Callable[[Bench], Tuner], answer: Callable[[Job], Measured]
) -> None:
    whole = planted(tmp_path / "whole", answer)
    wanted = tuner(whole).run()

    runs = 0
    for _ in range(whole.runs):
        bench = planted(tmp_path / "cut", answer, stop_after=3)
        try:
            outcome = tuner(bench).run()
            break
        except KeyboardInterrupt:
            runs += bench.runs
    else:
        pytest.fail("it came to no end")

    assert runs + bench.runs == whole.runs
    assert outcome == wanted
    assert bench.rows == whole.rows


# ---- the bench


OFFLINE = RunConfig(scenario="Offline", time_s=2.0)


def a_result(config: RunConfig, **changes: Any) -> Result:
    fields: dict[str, Any] = {
        "scenario": config.scenario,
        "precision": config.precision,
        "valid": True,
        "invalid_reasons": [],
        "failed_samples": 0,
        "first_error": None,
        "metric": Metric(name="samples_per_second", value=10.0 * config.lanes, higher_is_better=True),
        "samples_per_second": 10.0,
        "queries": 1,
        "latency_ns": {},
        "stages_ns": {},
        "cost_ns": {},
        "batch_sizes": {},
        "calibration": None,
        "config": config.model_dump(mode="json"),
        "started": "2026-01-01T00:00:00+00:00",
    }
    return Result.model_construct(**fields | changes)


def runs_made(monkeypatch: pytest.MonkeyPatch, answer: Callable[[RunConfig], Result]) -> list[RunConfig]:
    """Answer the product's runs; the list they are put down in."""
    made: list[RunConfig] = []

    def run(configs: list[RunConfig], console: object, command: str) -> Ran:
        made.extend(configs)
        return Ran([answer(configs[0])], [ExitCode.OK], Path("nowhere"))

    monkeypatch.setattr("sut.tuning.bench.run_experiment", run)
    return made


def a_bench(tmp_path: Path) -> Bench:
    state = State.open(tmp_path, HEADER, overwrite=False)
    return Bench(OFFLINE, tmp_path / "runs", state, lambda text: None, Quiet())


def test_a_point_whose_preparation_dies_is_a_failed_run_unless_it_is_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answer(config: RunConfig) -> Result:
        if config.precision == "int8":
            raise RunError("quantising failed: its process was killed by SIGKILL")
        return a_result(config)

    runs_made(monkeypatch, answer)
    bench = a_bench(tmp_path)
    dying = Job("round 1", 2, 3, p(precision="int8"), 2.0)

    with pytest.raises(RunError, match="killed by SIGKILL"):
        bench(dying)
    bench(Job("round 1", 1, 3, DEFAULT, 2.0))
    row = bench(dying)

    assert (row.valid, row.failed) == (False, True)
    assert row.invalid_reasons == ["quantising failed: its process was killed by SIGKILL"]
    assert bench(Job("round 1", 3, 3, p(lanes=2), 2.0)).valid
    assert a_bench(tmp_path).rows == bench.rows


def test_a_run_keeps_what_became_of_its_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = Agreement(value=0.985, low=0.975, high=0.991, count=1000, source="", words=SAID)
    runs_made(monkeypatch, lambda each: a_result(each, agreement=found if each.precision == "int8" else None))
    bench = a_bench(tmp_path)

    plain, reduced = (bench(Job("round 1", 1, 2, point, 2.0)) for point in (DEFAULT, p(precision="int8")))

    assert plain.agreement_line is None
    assert reduced.agreement_line == f"int8 against fp32: {SAID}"
    assert a_bench(tmp_path).rows == [plain, reduced]


# ---- the state


def test_a_state_of_another_machine_or_of_something_else_is_refused(tmp_path: Path) -> None:
    State.open(tmp_path, HEADER, overwrite=False).add(run_of())

    with pytest.raises(InputError, match="of machine 'a test', here it is 'another'; --overwrite starts anew"):
        State.open(tmp_path, {"machine": "another"}, overwrite=False)
    assert State.open(tmp_path, {"machine": "another"}, overwrite=True).rows == {}
    assert list(State.open(tmp_path, HEADER, overwrite=False).rows.values()) == [run_of()]


@pytest.mark.parametrize("key", ["backend", "model"])
def test_a_state_of_another_backend_version_or_model_file_is_refused(tmp_path: Path, key: str) -> None:
    header = HEADER | {"backend": "onnxruntime 1.0", "model": "small, sha256 0a"}
    State.open(tmp_path, header, overwrite=False).add(run_of())

    with pytest.raises(InputError, match=f"of {key} '{header[key]}', here it is 'another'; --overwrite starts anew"):
        State.open(tmp_path, header | {key: "another"}, overwrite=False)
    assert list(State.open(tmp_path, header, overwrite=False).rows.values()) == [run_of()]


def test_a_state_that_does_not_say_all_that_is_said_today_is_read(tmp_path: Path) -> None:
    row = asdict(run_of())
    del row["agreement_line"]
    header = HEADER | {"schema": 1}
    (tmp_path / "runs.jsonl").write_text(f"{json.dumps(header)}\n{json.dumps(row)}\n")

    state = State.open(tmp_path, header | {"backend": "onnxruntime 1.0", "model": "small"}, overwrite=False)

    assert list(state.rows.values()) == [run_of()]


@pytest.mark.parametrize("text", ["", "{", "[]\n", '{"machine": "a test", "schema": 1}\n{"key": "x"}\n', "\x00\xff"])
def test_a_damaged_state_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "runs.jsonl").write_text(text)

    with pytest.raises(InputError, match="--overwrite starts anew"):
        State.open(tmp_path, HEADER, overwrite=False)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"settings": 3}, "settings: "),
        ({"settings": {"lanes": [1]}}, "settings.lanes."),
        ({"invalid_reasons": None}, "invalid_reasons: "),
        ({"qps": "fast"}, "qps: "),
        ({"metric": {"value": 1.0}}, "name: Field required"),
        ({"latency_ns": {"p99": "long"}}, "latency_ns.p99: "),
        ({"stages_ns": [1]}, "stages_ns: "),
        ({"took_s": None}, "took_s: "),
        ({"odd": 1}, "odd: "),
    ],
)
def test_a_run_with_a_value_that_it_cannot_have_is_refused(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    lines = [HEADER | {"schema": 1}, asdict(run_of()) | changes]
    (tmp_path / "runs.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))

    with pytest.raises(InputError, match=rf"not a tune's state \({message}.*\); --overwrite starts anew") as caught:
        State.open(tmp_path, HEADER, overwrite=False)

    assert "\n" not in str(caught.value)


def test_a_line_that_is_no_run_is_refused(tmp_path: Path) -> None:
    (tmp_path / "runs.jsonl").write_text(f"{json.dumps(HEADER | {'schema': 1})}\n3\n")

    with pytest.raises(InputError, match=r"not a tune's state \(a run: .*\); --overwrite starts anew"):
        State.open(tmp_path, HEADER, overwrite=False)


def test_two_tunes_at_once_in_one_place_are_refused(tmp_path: Path) -> None:
    with (
        held(tmp_path / "x"),
        pytest.raises(InputError, match="another tune is at work there"),
        held(tmp_path / "x"),
    ):
        pass
    with held(tmp_path / "x"):
        pass


@settings(deadline=None)
@given(st.lists(st.sampled_from([DEFAULT, p(lanes=2), p(lanes=2, threads=1)]), min_size=1, max_size=3))
def test_a_run_comes_back_from_its_line_as_it_was(points: list[Point]) -> None:
    for point in points:
        row = run_of(Job("rate", 2, 8, point, 2.0, 31.5))

        assert Measured(**json.loads(json.dumps(asdict(row)))) == row
        assert row.point == point


# ---- what is left behind


def an_outcome(tmp_path: Path) -> tuple[Outcome, list[Measured]]:
    bench = planted(tmp_path, batched)
    return server_tuner(bench, p(threads=2), p(max_batchsize=4)).run(), bench.rows


def test_the_yaml_is_what_differs_and_can_be_read_back(tmp_path: Path) -> None:
    outcome, rows = an_outcome(tmp_path)
    base = make_config(
        {"scenario": "Server", "time_s": 3, "output": "somewhere", "dataset_path": "pictures", "lanes": 2}
    )
    config = Point((("max_batchsize", 16), ("max_wait_ms", 0.0))).apply(base, qps=61.5)

    text = report.yaml_text(config, outcome, rows)

    assert yaml.safe_load(text) == {
        "scenario": "Server",
        "dataset_path": str(Path("pictures").resolve()),
        "qps": 61.5,
        "max_batchsize": 16,
        "lanes": 2,
    }
    comments = [line for line in text.splitlines() if line.startswith("#")]
    assert comments[0] == f"# Found by sut tune, 2026-01-01T00:00:00+00:00, {len(rows)} runs."
    assert any("# Highest VALID rate" in line for line in comments)
    assert make_config(yaml.safe_load(text)).max_batchsize == 16


def test_the_shipped_user_conf_is_not_written_but_another_one_is(tmp_path: Path) -> None:
    shipped = Path(command.__file__).parents[2] / "user.conf"
    other = tmp_path / "user.conf"
    other.write_text("")

    assert "user_conf" not in report.settings_of(RunConfig(user_conf=shipped))
    assert report.settings_of(RunConfig(user_conf=other))["user_conf"] == str(other)


PATHS = {
    name for name, field in RunConfig.model_fields.items() if Path in (field.annotation, *get_args(field.annotation))
}


@pytest.mark.parametrize("name", sorted(PATHS - {"output"}))
def test_paths_are_written_whole(name: str) -> None:
    found = report.settings_of(RunConfig(**{name: "some/file"}))

    assert found[name] == str(Path("some/file").resolve())


def test_the_picture_fits_a_terminal_and_its_svg_loads_nothing(tmp_path: Path) -> None:
    outcome, rows = an_outcome(tmp_path)
    screen = io.StringIO()

    RichConsole(file=screen, width=80).print(report.picture(outcome))

    lines = screen.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    assert any(f"{outcome.rate:g} *" in line and "█" in line for line in lines)
    assert any(line.startswith("threads=2") for line in lines)
    svg = report.svg(outcome, "sut tune")
    assert svg.startswith("<svg") and "url(" not in svg.replace("url(#", "")
    json.dumps([report.rows_of(rows), report.outcome_of(outcome, RunConfig())])


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({}, "lanes=2: 100 samples/s, VALID"),
        ({"valid": False, "invalid_reasons": ["why"]}, "lanes=2: 100 samples/s, INVALID: why"),
        ({"qps": 12.5}, "lanes=2 at 12.5 queries/s: p99 10 ms, VALID"),
        ({"qps": 12.5, "bound_ns": 8e6, "valid": False}, "lanes=2 at 12.5 queries/s: p99 10 ms, INVALID: over 8 ms"),
        ({"valid": False, "failed": True, "invalid_reasons": ["broke"]}, "lanes=2: FAILED: broke"),
    ],
)
def test_a_run_in_one_line(changes: dict[str, Any], text: str) -> None:
    assert line_of(run_of(settings={"lanes": 2}, **changes)) == text


# ---- the command


@pytest.mark.parametrize(
    ("configs", "options", "message"),
    [
        ([{}, {}], {}, "takes one scenario in performance mode"),
        ([{"mode": "accuracy"}], {}, "takes one scenario in performance mode"),
        (
            [{"scenario": "Offline"}],
            {"space": ["lanes=1"]},
            r"nothing to search: the grid \(lanes=1\) is the default alone",
        ),
        ([{}], {"words": ["a", "b", "c", "d"]}, "takes BACKEND MODEL DEVICE at the most, got 'a b c d'"),
        ([{}], {"space": ["lanes=1"]}, "--space lanes has no effect in SingleStream"),
        ([{"backend": "null"}], {"words": ["nul"]}, "unknown backend 'nul'; did you mean null?"),
        ([{"backend": "null"}], {"words": ["null", "resnet5"]}, "unknown model 'resnet5'; did you mean resnet50?"),
        ([{"backend": "null", "device": "tpu"}], {}, "unknown device 'tpu'"),
    ],
)
def test_wrong_usage_is_refused_before_anything_is_run(
    tmp_path: Path, configs: list[dict[str, Any]], options: dict[str, Any], message: str
) -> None:
    made = [make_config({"output": tmp_path, **config}) for config in configs]

    with pytest.raises(InputError, match=message):
        command._tune(made, False, **options)

    assert list(tmp_path.iterdir()) == []


def test_another_space_or_config_is_another_tune() -> None:
    base = RunConfig(scenario="Offline", time_s=2)

    places = {
        command._directory(base, {"lanes": [1, 2]}, None),
        command._directory(base, {"lanes": [1, 3]}, None),
        command._directory(base, {"lanes": [1, 2]}, 1),
        command._directory(base.model_copy(update={"threads": 1}), {"lanes": [1, 2]}, None),
        command._directory(base.model_copy(update={"time_s": 3}), {"lanes": [1, 2]}, None),
        command._directory(base.model_copy(update={"scenario": "Server"}), {"lanes": [1, 2]}, None),
    }

    assert len(places) == 6
    assert command._directory(base, {"lanes": [1, 2]}, None) in places


def test_another_version_of_the_backend_asks_for_another_tune(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = runs_made(monkeypatch, a_result)
    configs = [make_config({"backend": "simulated", "scenario": "Offline", "output": tmp_path})]
    code = command._tune(configs, True, space=["lanes=2"])
    runs = len(made)

    monkeypatch.setattr("backends.simulated.Simulated.version", lambda: "2")

    with pytest.raises(InputError, match="of backend 'simulated none', here it is 'simulated 2'; --overwrite starts"):
        command._tune(configs, True, space=["lanes=2"])
    assert (code, runs, len(made)) == (ExitCode.OK, 2 + 10, runs)
    command._tune([configs[0].model_copy(update={"overwrite": True})], True, space=["lanes=2"])
    assert len(made) == 2 * runs


def test_another_file_in_the_models_place_asks_for_another_tune(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = runs_made(monkeypatch, a_result)
    model = write_classifier(tmp_path / "small.onnx", bias=np.zeros(10))
    (tmp_path / "small.yaml").write_text(
        "fit: crop-resize\ninterpolation: linear\ncrop_padding: 0\nmean: [127, 120, 110]\nstd: [128, 64, 77]\n"
    )
    settings = {"model": str(model), "recipe": str(tmp_path / "small.yaml"), "scenario": "Offline"}
    configs = [make_config({**settings, "output": tmp_path})]
    command._tune(configs, True, space=["lanes=2"])
    runs = len(made)
    command._tune(configs, True, space=["lanes=2"])
    assert len(made) == runs

    write_classifier(model, bias=np.ones(10))

    with pytest.raises(InputError, match=r"of model 'small, sha256 [0-9a-f]{16}', here it is 'small, sha256 "):
        command._tune(configs, True, space=["lanes=2"])
    assert len(made) == runs


def test_a_tune_with_a_budget_says_the_same_when_it_is_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = runs_made(monkeypatch, a_result)
    configs = [make_config({"backend": "simulated", "scenario": "Offline", "output": tmp_path})]

    told = []
    for _ in range(2):
        # Every run takes half a minute.
        clock = SimpleNamespace(monotonic=itertools.count(step=30.0).__next__)
        monkeypatch.setattr("sut.tuning.bench.time", clock)
        command._tune(configs, True, space=["lanes=2,3,4"], budget=1.0)
        told.append(json.loads(capsys.readouterr().out))

    assert told[0] == told[1]
    assert told[0]["outcome"]["words"][0] == "the budget ended the search in round 1; the best until then counts"
    assert [row["phase"] for row in told[0]["rows"]] == ["round 1"] * 2 + ["pairs"] * 10
    assert len(made) == 2 + 10
