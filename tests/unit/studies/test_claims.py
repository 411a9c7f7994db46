"""Verdicts on claims: by an interval against a limit, at the limit itself, and where there are no figures."""

from __future__ import annotations

import pytest

from sut.results.statistics import Difference
from sut.studies import claims
from sut.studies.claims import AbsentError, Claim, Figures, Ours, UntestableError, all_of, at_least, differs, judged


def found(ratio: float, low: float | None, high: float | None) -> Difference:
    verdict = "open" if low is None or high is None or low <= 1 <= high else "better" if low > 1 else "worse"
    return Difference(ratio, low, high, 5, verdict, None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("low", "high", "holds"),
    [(2.0, 2.2, True), (1.8, 1.99, False), (1.8, 2.0, None), (1.99, 2.1, None), (None, None, None)],
)
def test_a_limit_is_met_at_itself(low: float | None, high: float | None, holds: bool | None) -> None:
    assert at_least(2, found(2.0, low, high)).holds is holds


@pytest.mark.parametrize(
    ("low", "high", "holds"),
    [
        (1.06, 1.2, True),
        (0.8, 0.9, True),
        (1.01, 1.2, True),
        (0.96, 1.04, False),
        (1.01, 1.04, False),
        (0.94, 1.04, None),
        (0.96, 1.05, None),
        (None, None, None),
    ],
)
def test_a_ratio_differs_beyond_its_interval_and_does_not_where_all_of_it_is_near_one(
    low: float | None, high: float | None, holds: bool | None
) -> None:
    assert differs(found(1.0, low, high)).holds is holds


def test_all_hold_or_one_does_not_or_one_is_not_told() -> None:
    yes, no, open_ = (Ours(each, "") for each in (True, False, None))

    assert (all_of([yes, yes]), all_of([yes, no, open_]), all_of([yes, open_])) == (True, False, None)


def test_rounds_are_paired_by_their_number() -> None:
    told = claims.compared([1.0, None, 1.0, 1.0, 1.0, 1.0], [2.0, 9.0, 2.0, 2.0, 2.0])

    assert told.pairs == 4 and told.ratio == pytest.approx(2)
    assert claims.lost(told).ratio == pytest.approx(-1)


def needs(name: str) -> Claim:
    def judge(figures: Figures) -> Ours:
        return at_least(1, claims.compared(claims.values(figures, "a", "base"), claims.values(figures, "a", name)))

    return Claim("key", "1", "It is so", None, ("a",), judge, "show")


FIGURES = {"a": {"base": [1.0] * 4, "other": [2.0] * 4, "none": [None] * 4}}


@pytest.mark.parametrize(
    ("name", "absent", "verdict", "words"),
    [
        ("other", {}, "holds", "2 x (2 to 2)"),
        ("other", {"a": "there is no GPU"}, "holds", "2 x (2 to 2)"),
        ("none", {}, "not measured yet", "no round of a has measured none"),
        ("none", {"b": "there is no GPU"}, "not measured yet", "no round of a has measured none"),
        ("none", {"a": "there is no GPU"}, "cannot be tested here", "there is no GPU"),
    ],
)
def test_without_figures_it_says_why(name: str, absent: dict[str, str], verdict: str, words: str) -> None:
    told, ours = judged(needs(name), FIGURES, absent)

    assert (told, ours.words) == (verdict, words)


def test_what_a_machine_cannot_decide_is_untestable_whatever_it_measured() -> None:
    def judge(figures: Figures) -> Ours:
        raise UntestableError("nothing to explain")

    claim = Claim("key", "1", "It is so", None, (), judge, "show")
    assert judged(claim, FIGURES, {}) == ("cannot be tested here", Ours(None, "nothing to explain"))


def test_no_pair_has_no_figure() -> None:
    with pytest.raises(AbsentError, match="no round has a figure"):
        at_least(1, claims.compared([None], [1.0]))
