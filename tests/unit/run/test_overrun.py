"""Why a run takes twice its time, and who holds it up: what is known, and nothing before."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from sut.pipeline.ledger import Counter, Ledger, LedgerShape
from sut.run.overrun import holders, why_long
from sut.run.planning import Plan

PLAN = Plan("SingleStream", "performance", 1000, 1000, 10.0, 1000, trace=True, notes=())


def test_nothing_is_said_up_to_twice_the_plan() -> None:
    assert why_long(PLAN, 64, 10, 20.9, 9.0, 2) is None
    assert why_long(replace(PLAN, seconds=0.01), 64, 10, 0.9, 9.0, 2) is None


def test_nothing_is_said_of_a_search_which_makes_many_runs() -> None:
    assert why_long(replace(PLAN, mode="find_peak"), 64, 9000, 90.0, 9.0, 2) is None


@pytest.mark.parametrize(
    ("changes", "least", "done", "load", "expected"),
    [
        ({}, 64, 1200, 1.0, ["50 samples/s are answered, and 100 were planned"]),
        ({}, 1000, 480, 1.0, ["20 samples/s are answered", "min_query_count 1,000 holds it"]),
        ({}, 64, 1200, 5.0, ["50 samples/s", "the machine is busy: its load is 5.0 on 2 cores"]),
        ({}, 64, 2400, 1.0, ["2,400 samples are answered, and 1,000 were planned"]),
        ({"mode": "accuracy"}, 64, 1200, 1.0, ["an accuracy run loads its pictures in between"]),
    ],
)
def test_what_is_known_is_said(
    changes: dict[str, Any], least: int, done: int, load: float, expected: list[str]
) -> None:
    why = why_long(replace(PLAN, **changes), least, done, 24.0, load, 2)

    assert why is not None
    assert why.startswith("past twice the planned 10 s: ")
    assert [part in why for part in expected] == [True] * len(expected)
    assert why.count(";") == len(expected) - 1


UNITS = ("left", "right", "last")


def recorded(issued: int, *batches: tuple[int, int, int], samples: int = 100, before: tuple[str, ...] = ()) -> Ledger:
    """A ledger with batches: the first sample, how many, and the lane."""
    ledger = Ledger(LedgerShape.of(samples, stages=("infer",), before=before))
    ledger.words[Counter.ISSUED] = issued
    for number, (first, count, lane) in enumerate(batches):
        ledger.batch(number, [(first, count)], 0, [1, 2], lane)
    return ledger


@pytest.mark.parametrize(
    ("ledger", "lanes", "names"),
    [
        (recorded(16, (0, 4, 0), (8, 4, 0), (12, 4, 2)), 3, ["right"]),
        (recorded(16, (0, 4, 1), (8, 4, 0), (12, 4, 2)), 3, ["right"]),
        (recorded(16, (0, 4, 0), (8, 4, 1)), 3, ["left", "last"]),
        # Lanes 1 and 4 are on the same unit: that one of them went on clears no unit of the other.
        (recorded(24, (4, 4, 1), (8, 4, 0), (12, 4, 2), (16, 4, 3), (20, 4, 5)), 6, ["right"]),
        (recorded(24, (4, 4, 0)), 6, []),
        (recorded(8, (0, 4, 0)), 3, []),
        (recorded(8, (0, 8, 0)), 3, []),
        (recorded(0), 3, []),
        (recorded(16, (0, 4, 0), (8, 4, 0), samples=12), 3, []),
        (recorded(16, (0, 4, 0), (8, 4, 0), before=("decode",)), 3, []),
    ],
)
def test_who_answered_a_later_sample_has_not_the_first_that_waits(ledger: Ledger, lanes: int, names: list[str]) -> None:
    assert holders(ledger, UNITS, lanes) == names
