"""N*: found with its interval where it was planted, none, or open."""

from __future__ import annotations

import pytest

from sut.results.statistics import Difference, Verdict
from sut.studies.brokers.crossing import Best, Crossing, best_of, crossing

VERDICTS: dict[str, tuple[float, Verdict]] = {
    "-": (0.8, "worse"),
    "a": (0.98, "open"),
    "b": (1.02, "open"),
    "+": (1.5, "better"),
}
FAN_OUTS = (1, 3, 5, 9, 15, 25)


@pytest.mark.parametrize(
    ("signs", "expected"),
    [
        ("---+++", Crossing("found", 9, 9, 9)),
        ("--ab++", Crossing("found", 9, 5, 15)),
        ("++++++", Crossing("found", 1, 1, 1)),
        ("aaaaa+", Crossing("found", 25, 1, 25)),
        ("-+-+++", Crossing("found", 9, 9, 9)),
        ("b-a+++", Crossing("found", 9, 5, 9)),
        ("------", Crossing("none")),
        ("+++++-", Crossing("none")),
        ("---aba", Crossing("open", low=9)),
        ("bbbbbb", Crossing("open", low=1)),
        ("-----b", Crossing("open", low=25)),
    ],
)
def test_n_star_is_where_the_best_comes_to_be_ahead_for_good(signs: str, expected: Crossing) -> None:
    best = {
        fan_out: Best("redis", Difference(VERDICTS[sign][0], 0.5, 2.0, 7, VERDICTS[sign][1], None))
        for fan_out, sign in zip(FAN_OUTS, signs, strict=True)
    }

    assert crossing(best) == expected


def test_nothing_measured_is_open() -> None:
    assert crossing({}) == Crossing("open")


def test_the_best_form_is_picked_at_each_fan_out_by_the_rounds_that_both_have() -> None:
    rates = {
        "fused": {1: [10.0] * 5, 9: [5.0] * 5, 25: [1.0] * 5},
        "shared": {1: [9.0, None, 9.0, 9.0, 9.0], 9: [6.0] * 5},
        "redis": {1: [8.0] * 5, 9: [8.0] * 5},
    }

    best = best_of(rates, "fused", ["shared", "redis", "kafka"])

    assert {fan_out: each.form for fan_out, each in best.items()} == {1: "shared", 9: "redis"}
    assert best[1].found.pairs == 4 and best[9].found.ratio == pytest.approx(1.6)


def test_the_best_of_several_needs_more_evidence_than_one_alone() -> None:
    after = [1.1, 1.3, 1.05, 1.25]
    rates = {"fused": {1: [1.0] * 4}, "redis": {1: after}}

    one, several = (best_of(rates, "fused", forms)[1].found for forms in (["redis"], ["redis", "shared", "kafka"]))

    assert (several.low or 0) < (one.low or 0) and (several.high or 0) > (one.high or 0)
