"""A whole ``sut tune`` on planted machines: what it finds, and what it says of that."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sut.config import RunConfig
from sut.errors import ExitCode
from sut.studies.simulation import highest_rate
from sut.studies.tuning import report
from sut.studies.tuning.bench import Bench
from sut.studies.tuning.estimate import estimate
from sut.studies.tuning.space import DEFAULT, Point
from sut.studies.tuning.state import Job, Measured
from sut.studies.tuning.tuner import MOST_PAIRS, Tuner
from tests.unit.tuning_runs import (
    BOUND_NS,
    LANES,
    MS,
    SAID,
    SERVICE_NS,
    batched,
    offline,
    p,
    planted,
    run_of,
    server_run,
    server_tuner,
    speed_of,
)

# ---- a whole tune, on planted machines


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
    assert len(outcome.pairs) == 4
    assert f"at {outcome.rate:g} queries/s the best is VALID 4 times out of 4, the default 0" in outcome.words
    assert outcome.words[-1].startswith("gain by p99: ")


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
    assert clear.words == ["gain by the figure: 1.03 x (1.03 to 1.03), 4 pairs"]
    assert (blurred.best, blurred.chosen) == (p(lanes=4), DEFAULT)
    assert blurred.words[0].startswith("no gain by the figure: cannot be told apart; about ")
    assert blurred.words[0].endswith(" pairs would; the default stays")
    assert (len(clear.pairs), len(blurred.pairs)) == (4, MOST_PAIRS)
    assert [row.point for row in planted(tmp_path / "b", noisy).rows if row.phase == "pairs"][:4] == [
        *(p(lanes=4), DEFAULT),
        *(DEFAULT, p(lanes=4)),
    ]


def test_what_is_no_faster_is_taken_if_it_costs_less_cpu_time(tmp_path: Path) -> None:
    def cheap(job: Job) -> Measured:
        value = 100.0 + 5 * (job.number % 3) if job.phase == "pairs" else speed_of(job.point)
        metric = {"name": "samples_per_second", "value": value, "higher_is_better": True}
        return run_of(job, metric=metric, cpu_seconds_per_sample=0.02 if job.point == DEFAULT else 0.01)

    outcome = offline_tuner(planted(tmp_path, cheap), [DEFAULT, p(lanes=4)]).run()

    assert outcome.chosen == p(lanes=4)
    assert outcome.words[0].startswith("no gain by the figure: cannot be told apart; ")
    assert outcome.words[0].endswith(" pairs would; by CPU time a sample 2 x (2 to 2); so the best stays")


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
    assert outcome.words[0].startswith("gain by the figure: 2 x (2 to 2), 4 pairs")
    assert outcome.words[1:] == [told]
    text = report.yaml_text(outcome.chosen.apply(RunConfig(scenario="Offline")), outcome, bench.rows)
    assert f"# I{told[1:]}\n" in text
    assert "against" in report.svg(outcome, "sut tune")


def test_no_gain_of_a_second_model_in_a_reduced_precision_is_told_without_what_is_not_known(tmp_path: Path) -> None:
    config = RunConfig(scenario="Offline", time_s=8.0, boundary="jpeg", identify="efficientnet-lite0")

    def measure(job: Job) -> Measured:
        reduced = dict(job.point.settings).get("identify_precision") == "int8"
        return run_of(job, metric={"name": "a", "value": 200.0 if reduced else 100.0, "higher_is_better": True})

    outcome = Tuner(config, [DEFAULT, p(identify_precision="int8")], planted(tmp_path, measure), estimate).run()

    assert outcome.chosen == p(identify_precision="int8")
    assert outcome.words[1:] == ["int8 of the second model: its labels against fp32's are not known"]


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


@pytest.mark.first(1)
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
