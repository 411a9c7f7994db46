"""``sut tune``: which Server rate is probed next, why one fails, and when a gain is one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sut.pipeline.deadline import Deadline
from sut.results.statistics import difference
from sut.studies.simulation import Unity, allowed_late, at_random, highest_rate, line, noise, simulate
from sut.studies.tuning.rate import Ask, Probe, confirm_rate, next_rate, search_rate
from sut.studies.tuning.space import tidy
from sut.studies.tuning.state import Measured
from sut.studies.tuning.tuner import MOST_PAIRS, cost_of, gain_of, no_more_pairs
from sut.studies.tuning.words import why_it_fails, why_nothing
from tests.unit.tuning_runs import MS, run_of, server_run

# ---- Server's rate


def found(rows: list[Measured]) -> float:
    return max((row.qps or 0 for row in rows if row.valid), default=0.0)


def machine(truth: float, hiccups: tuple[int, ...] = ()) -> Callable[[float, int], Measured]:
    """Holds every rate up to ``truth``; the runs with these numbers are INVALID all the same."""

    def ask(rate: float, number: int) -> Measured:
        held = min(rate, 1.2 * truth)
        return server_run(rate, valid=rate <= truth and number not in hiccups, samples_per_second=held)

    return ask


@settings(deadline=None)
@given(st.floats(10, 5000), st.floats(1 / 1.9, 1.9))
def test_a_good_estimate_leads_to_the_rate_in_eight_probes(start: float, off: float) -> None:
    rows = search_rate(start, machine(start * off))

    assert start * off / 1.038 <= found(rows) <= start * off
    assert len(rows) <= 8


@settings(deadline=None)
@given(st.floats(10, 5000), st.floats(0.15, 12))
def test_a_bad_estimate_leads_there_too(start: float, off: float) -> None:
    rows = search_rate(start, machine(start * off))

    assert len(rows) <= 16
    assert start * off / 1.2 <= found(rows) <= start * off


@settings(deadline=None)
@given(st.floats(10, 5000), st.floats(1 / 1.3, 1.3), st.integers(1, 6))
def test_one_hiccup_of_the_machine_is_not_believed(start: float, off: float, which: int) -> None:
    rows = search_rate(start, machine(start * off, (which,)))

    assert start * off / 1.0525 <= found(rows) <= start * off


def test_an_invalid_probe_below_a_valid_one_is_not_believed() -> None:
    seen = [Probe(100, True), Probe(90, False), Probe(103, False), Probe(103, False)]

    assert next_rate(100, seen) is None
    assert next_rate(100, seen[:3]) == 103


@settings(deadline=None)
@given(st.floats(10, 5000), st.floats(1.05, 3), st.lists(st.integers(1, 16), max_size=2, unique=True))
def test_what_was_valid_before_bounds_the_search(known: float, off: float, hiccups: list[int]) -> None:
    rows = search_rate(known * 1.2, machine(known * off, tuple(hiccups)), known)

    assert all((row.qps or 0) > known for row in rows)
    if not hiccups:
        assert max(found(rows), known) >= known * off / 1.038


def test_what_an_overloaded_system_got_done_is_where_to_look() -> None:
    assert next_rate(100, [Probe(100, False, completed=44.0)]) == 40
    assert next_rate(100, [Probe(100, False, completed=99.0)]) == 86.96


def test_without_any_valid_rate_the_search_ends_at_an_eighth() -> None:
    rows = search_rate(80, lambda rate, number: server_run(rate, valid=False, samples_per_second=rate))

    assert rows[-1].qps == 10
    assert len(rows) <= 7


def test_a_picture_longer_than_the_bound_ends_the_search_at_once() -> None:
    rows = search_rate(80, lambda rate, number: server_run(rate, valid=False, idle_query_ns=16 * MS))

    assert len(rows) == 1


def test_a_rate_is_confirmed_when_it_is_valid_three_times_in_a_row() -> None:
    asked: list[float] = []

    def ask(rate: float, number: int) -> Measured:
        asked.append(rate)
        return server_run(rate, valid=number not in (2, 5))

    rate, rows = confirm_rate(100, ask)

    assert asked == [100, 100, 98.5, 98.5, 98.5, 97.02, 97.02, 97.02]
    assert rate == 97.02
    assert [row.valid for row in rows[-3:]] == [True] * 3


def test_a_rate_that_never_holds_is_not_confirmed() -> None:
    rate, rows = confirm_rate(100, lambda rate, number: server_run(rate, valid=number % 3 != 0))

    assert rate is None
    assert min(row.qps or 0 for row in rows) == pytest.approx(74, abs=1)


WORLDS = 20
QUERIES = 3600
SIGMA = 0.03


def loadgens(at_unity_ns: Unity, bound_ns: int, service_ns: list[int], seed: int) -> Ask:
    """A lane behind LoadGen, which asks the same queries at any rate; what batches take varies, anew in each run."""
    deadline = Deadline.worthwhile(bound_ns, service_ns)

    def ask(rate: float, number: int) -> Measured:
        drawn = noise(QUERIES, 1000 * seed + number, SIGMA)
        arrived = (at_unity_ns / rate).astype(np.int64)
        late = int((simulate(arrived, service_ns, 1, deadline, drawn) > bound_ns).sum())
        return server_run(rate, valid=late <= allowed_late(QUERIES))

    return ask


def test_a_planted_rate_is_found_within_5_percent_although_chance_decides_at_the_edge() -> None:
    service, bound = line(2 * MS, MS, 8), 15 * MS
    start = tidy(highest_rate(service, bound, run_queries=QUERIES, sigma=SIGMA, queries=20_000))
    shares, runs = [], []
    for seed in range(WORLDS):
        at_unity = at_random(QUERIES, seed)
        planted = highest_rate(service, bound, run_queries=QUERIES, sigma=SIGMA, at_unity_ns=at_unity, seed=seed)
        ask = loadgens(at_unity, bound, service, seed)
        probes = search_rate(start, ask)
        rate, confirmations = confirm_rate(found(probes), lambda rate, number, ask=ask: ask(rate, 100 + number))
        shares.append((rate or 0.0) / planted)
        runs.append(len(probes) + len(confirmations))

    assert sum(abs(share - 1) <= 0.05 for share in shares) >= 0.95 * WORLDS
    assert np.median(runs) <= 11


# ---- words


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        (
            {
                "latency_ns": {"p50": 6 * MS, "p90": 14 * MS, "p97": 16 * MS, "p99": 30 * MS},
                "stages_ns": {"queue": {"p99": 22 * MS}, "infer": {"p99": 7 * MS}},
            },
            [
                "at 110 queries/s p99 is 30 ms, 100 % over the bound of 15 ms (from p97 on it is over)",
                "against 100 queries/s the stage queue grew most, p99 2 to 22 ms (queries wait for a lane",
            ],
        ),
        (
            {"latency_ns": {"p97": 9 * MS, "p99": 18 * MS}, "stages_ns": {"infer": {"p99": 16 * MS}}},
            ["p99 is 18 ms, 20 % over the bound of 15 ms; against", "the stage infer grew most, p99 6 to 16 ms"],
        ),
        (
            {"late": 4, "queries": 690, "stages_ns": {}},
            [
                "p99 is 10 ms, within the bound of 15 ms, but 4 of 690 queries were over it (0.58 %)",
                "a longer --time may pass; no stages were recorded",
            ],
        ),
        (
            {"late": 9, "queries": 690, "stages_ns": {"queue": {"p99": MS}}},
            ["no stage grew against 100 queries/s: it is at the edge"],
        ),
        ({"failed": True, "invalid_reasons": ["it broke"]}, ["at 110 queries/s the run failed: it broke"]),
        ({"latency_ns": {}, "invalid_reasons": ["no end"]}, ["at 110 queries/s it is INVALID: no end"]),
    ],
)
def test_why_the_next_rate_fails_names_the_percentile_and_the_stage(changes: dict[str, Any], parts: list[str]) -> None:
    valid = server_run(100, stages_ns={"queue": {"p99": 2 * MS}, "infer": {"p99": 6 * MS}})

    told = why_it_fails(server_run(110, valid=False, **changes), valid)

    for part in parts:
        assert part in told


@pytest.mark.parametrize(
    ("rows", "parts"),
    [
        (
            [server_run(20, valid=False, idle_query_ns=31 * MS, latency_ns={"p99": 40 * MS})],
            ["one picture alone takes 31 ms, longer than the latency bound of 15 ms", "(--max-latency 0.062 or more)"],
        ),
        (
            [server_run(rate, valid=False, latency_ns={"p99": int(rate * MS)}) for rate in (80, 40, 20)],
            ["no rate is VALID: at the best (default, 20 queries/s) p99 was 20 ms", "(--max-latency 0.024)"],
        ),
        (
            [server_run(20, valid=False, late=2, queries=690)],
            [
                "2 of 690 queries were over it",
                "Relax the sample count (a longer --time), or the bound (--max-latency 0.016)",
            ],
        ),
        ([run_of(valid=False, failed=True, invalid_reasons=["it broke"])], ["every run failed: it broke"]),
        (
            [run_of(valid=False, invalid_reasons=[why]) for why in ("raise --time", "odd", "raise --time")],
            ["no point was VALID: raise --time (2 of 3 runs)"],
        ),
    ],
)
def test_without_a_valid_run_the_constraint_to_relax_is_named(rows: list[Measured], parts: list[str]) -> None:
    told = why_nothing(rows)

    for part in parts:
        assert part in told


# ---- best against default


def pair(best: float | None, default: float | None) -> tuple[Measured, Measured]:
    def one(value: float | None) -> Measured:
        metric = {"name": "samples_per_second", "value": value, "higher_is_better": True}
        return run_of(metric=metric, failed=value is None, cpu_seconds_per_sample=value)

    return one(best), one(default)


@pytest.mark.parametrize(
    ("pairs", "verdict"),
    [
        ([pair(110, 100)] * 4, "better"),
        ([pair(110, 100)] * 3, "open"),
        ([pair(100, 100)] * 9, "open"),
        ([pair(90, 100)] * 4, "worse"),
        ([pair(105, 100), pair(100, 100), pair(110, 100), pair(105, 100), pair(99, 100)], "open"),
        ([pair(2, 1), pair(None, 1), pair(2, 1), pair(2, 1), pair(2, 1)], "better"),
        ([pair(None, 1), pair(2, None)], "open"),
    ],
)
def test_a_gain_is_one_beyond_the_spread_of_its_pairs(pairs: list[tuple[Measured, Measured]], verdict: str) -> None:
    assert gain_of(pairs).verdict == verdict


def test_latency_gains_by_falling() -> None:
    fast, slow = (
        run_of(metric={"name": "early_stopping_p90_latency_ns", "value": value, "higher_is_better": False})
        for value in (8.0 * MS, 10.0 * MS)
    )

    assert (gain_of([(fast, slow)] * 4).verdict, gain_of([(fast, slow)] * 4).ratio) == ("better", pytest.approx(1.25))


def test_cost_gains_by_falling_and_may_be_unknown() -> None:
    assert cost_of([pair(1, 2)] * 4).verdict == "better"
    assert cost_of([(run_of(), run_of())] * 4).pairs == 0


@pytest.mark.parametrize(
    ("run", "found", "enough"),
    [
        (1, [(1, 2)], False),
        (4, [(1, 2)] * 4, True),
        (7, [(1, 1)] * 7, False),
        (8, [(1, 1)] * 8, True),  # not a million would tell
        (8, [(1, 1.5), (1, 0.7)] * 4, True),  # hundreds would
        (9, [(1, 1.2), (1, 1.0), (1, 0.98)] * 3, False),
        (MOST_PAIRS, [(1, 1.2), (1, 0.8), (1, 1.3)] * 3, True),
        (3, [], False),
        (4, [], True),  # the runs fail
    ],
)
def test_pairs_go_on_until_they_tell_or_more_would_not(
    run: int, found: list[tuple[float, float]], enough: bool
) -> None:
    default, best = zip(*found, strict=True) if found else ((), ())

    assert no_more_pairs(run, difference(default, best, higher_is_better=True)) is enough
