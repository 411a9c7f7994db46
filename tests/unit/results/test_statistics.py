"""What counts as a difference: the promises over a thousand drawn comparisons, and the edges."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from scipy import integrate, stats

from sut.results import statistics
from sut.results.statistics import FEWEST_PAIRS, Difference, difference, in_words

Draw = Callable[[np.random.Generator, float], np.ndarray]
REPEATS, MOST_PAIRS = 1000, 40
SHAPE = (2, MOST_PAIRS)


def normal(draw: np.random.Generator, noise: float) -> np.ndarray:
    return np.maximum(draw.normal(1, noise, SHAPE), 0.05)


def lognormal(draw: np.random.Generator, noise: float) -> np.ndarray:
    return np.exp(draw.normal(0, noise, SHAPE))


def one_sided(draw: np.random.Generator, noise: float) -> np.ndarray:
    """Never much faster than usual, sometimes much slower."""
    return 1 / (1 + noise * np.expm1(0.8 * draw.normal(0, 1, SHAPE)))


def stalls(draw: np.random.Generator, noise: float) -> np.ndarray:
    """One run out of ten is 1.5 to 3 times slower."""
    slower = np.where(draw.random(SHAPE) < 0.1, draw.uniform(1.5, 3, SHAPE), 1)
    return lognormal(draw, noise) / slower


def decided(baseline: Sequence[float], candidate: Sequence[float]) -> Difference:
    """The first decision, looked for after every pair; what is known after the last where there is none."""
    for pairs in range(1, MOST_PAIRS + 1):
        found = difference(baseline[:pairs], candidate[:pairs], higher_is_better=True)
        if found.verdict != "open":
            break
    return found


def thousand(drawn: Draw, noise: float, speed: float = 1.0) -> list[Difference]:
    draw = np.random.default_rng(20260101)
    runs = (drawn(draw, noise) * [[1.0], [speed]] for _ in range(REPEATS))
    return [decided(*each.tolist()) for each in runs]


@pytest.mark.first(2)
@pytest.mark.parametrize("drawn", [normal, lognormal, one_sided, stalls])
def test_identical_cells_are_called_different_in_fifty_of_a_thousand_at_most(drawn: Draw) -> None:
    verdicts = Counter(found.verdict for found in thousand(drawn, 0.05))

    assert verdicts["better"] + verdicts["worse"] <= 50


@pytest.mark.parametrize(
    ("drawn", "speed", "times"),
    [(normal, 0.95, 900), (normal, 1 / 1.05, 900), (one_sided, 0.95, 900), (stalls, 0.95, 700)],
)
def test_a_cell_five_percent_slower_is_found_within_forty_pairs(drawn: Draw, speed: float, times: int) -> None:
    found = thousand(drawn, 0.05, speed)

    assert sum(each.verdict == "worse" for each in found) >= times
    assert sum(each.verdict == "better" for each in found) <= 5


def test_twenty_percent_noise_is_answered_with_how_many_pairs_would_tell() -> None:
    found = [each for each in thousand(normal, 0.2, 0.95) if each.verdict == "open"]

    assert len(found) >= 900
    assert np.median([each.pairs_needed or math.inf for each in found]) == pytest.approx(370, rel=0.2)
    assert in_words(found[0]).startswith("cannot be told apart; about ")
    assert in_words(found[0]).endswith(" pairs would")


def test_a_large_difference_is_told_by_few_pairs() -> None:
    found = [decided(*(normal(draw, 0.05) * [[1.0], [3.0]]).tolist()) for draw in map(np.random.default_rng, range(99))]

    assert {each.verdict for each in found} == {"better"}
    assert np.median([each.pairs for each in found]) == FEWEST_PAIRS


def test_the_interval_holds_the_ratio_however_often_one_looks() -> None:
    draw = np.random.default_rng(3)
    missed = 0
    for _ in range(300):
        runs = (lognormal(draw, 0.05) * [[1.0], [1.3]]).tolist()
        looks = [difference(*(side[:n] for side in runs), higher_is_better=True) for n in range(4, MOST_PAIRS + 1)]
        missed += any(not (each.low or 0.0) <= 1.3 <= (each.high or math.inf) for each in looks)

    assert 0 < missed <= 15


def test_one_stall_hides_no_gain() -> None:
    default, best = [100.0, 101, 99, 100, 102, 98, 100, 101, 99], [110.0, 112, 109, 108, 40, 111, 110, 109, 112]

    found = difference(default, best, higher_is_better=True)

    assert (found.verdict, found.pairs) == ("better", 9)
    assert found.ratio == pytest.approx(1.1, rel=0.01)


# ---- SciPy's word


@pytest.mark.parametrize("pairs", [3, 5, 12, 40])
@pytest.mark.parametrize("t", [0.0, 0.7, 2.5, -4.0])
def test_the_evidence_is_a_ratio_of_scipy_s_t_densities(monkeypatch: pytest.MonkeyPatch, t: float, pairs: int) -> None:
    priors = ((0.3, 0.2), (0.7, 1.5))
    monkeypatch.setattr(statistics, "_PRIORS", priors)

    def with_effect(effect: float, variance: float) -> float:
        prior = stats.norm.pdf(effect, scale=math.sqrt(variance))
        return float(prior * stats.nct.pdf(t, pairs - 1, effect * math.sqrt(pairs)))

    alternative = sum(
        weight * integrate.quad(with_effect, -10, 10, args=(variance,), limit=200)[0] for weight, variance in priors
    )
    evidence = math.exp(statistics._log_evidence(t, pairs))
    assert evidence == pytest.approx(alternative / stats.t.pdf(t, pairs - 1), rel=1e-3)


@pytest.mark.parametrize("pairs", [4, 8, 40, 1000])
def test_what_is_called_different_has_that_much_evidence(pairs: int) -> None:
    farthest = statistics._farthest(pairs, statistics._EVIDENCE)

    assert math.exp(statistics._log_evidence(farthest, pairs)) == pytest.approx(15)
    assert 2 * stats.t.sf(farthest, pairs - 1) < 0.005  # a single look would need far less


def test_mean_and_deviation_are_scipy_s() -> None:
    values = [0.3, -0.1, 0.25, 0.4]

    assert statistics._mean_and_deviation(values) == pytest.approx((stats.tmean(values), stats.tstd(values)))


def test_outliers_are_those_far_off_the_median() -> None:
    values = [0.01 * n for n in range(10)]
    spread = stats.median_abs_deviation([*values, 0.5, -0.5], scale="normal")

    assert statistics._without_outliers([*values, 0.5, -0.5]) == values
    assert statistics._without_outliers([*values, 0.045 + 4.9 * spread])[-1] > 0.1
    assert len(statistics._without_outliers([0.0, 0.01, 0.02, 9.0])) == 4
    assert len(statistics._without_outliers([0.0] * 9 + [1.0])) == 10


# ---- the edges


def test_no_pair_says_nothing() -> None:
    found = difference([], [], higher_is_better=True)

    assert found == Difference(None, None, None, 0, "open", None)
    assert in_words(found) == "cannot be told apart; 4 pairs at least are needed, got 0"


def test_one_pair_is_no_spread() -> None:
    found = difference([2.0], [3.0], higher_is_better=True)

    assert found == Difference(pytest.approx(1.5), None, None, 1, "open", None)
    assert in_words(found) == "cannot be told apart; 4 pairs at least are needed, got 1"


def test_two_pairs_say_how_many_more() -> None:
    found = difference([2.0, 2.0], [6.0, 6.1], higher_is_better=True)

    assert (found.low, found.high, found.verdict, found.pairs_needed) == (None, None, "open", 4)
    assert in_words(found) == "cannot be told apart; about 4 pairs would"


def test_equal_figures_cannot_be_told_apart() -> None:
    found = difference([2.0] * 9, [2.0] * 9, higher_is_better=True)

    assert found == Difference(1.0, 1.0, 1.0, 9, "open", None)
    assert in_words(found) == "cannot be told apart; not even a million pairs would"


def test_a_difference_without_spread_is_one_from_four_pairs_on() -> None:
    three, four = (difference([2.0] * n, [1.0] * n, higher_is_better=True) for n in (3, 4))

    assert (three.verdict, three.pairs_needed) == ("open", 4)
    assert (four.verdict, four.low, four.high) == ("worse", pytest.approx(0.5), pytest.approx(0.5))


@pytest.mark.parametrize("odd", [None, math.inf, math.nan, 0.0, -1.0])
def test_a_pair_without_a_figure_does_not_count(odd: float | None) -> None:
    plain = difference([1.0, 1.1], [1.2, 1.25], higher_is_better=True)

    assert difference([1.0, odd, 1.1, 7.0], [1.2, 7.0, 1.25, odd], higher_is_better=True) == plain


def test_pairs_have_two_sides() -> None:
    with pytest.raises(ValueError, match="shorter"):
        difference([1.0, 2.0], [1.0], higher_is_better=True)


def test_the_sides_and_the_direction_may_be_turned_round() -> None:
    first, second = [1.0, 1.1, 0.9, 1.05], [2.0, 2.1, 1.95, 2.2]
    faster = difference(first, second, higher_is_better=True)
    slower = difference(first, second, higher_is_better=False)

    assert (faster.verdict, slower.verdict) == ("better", "worse")
    assert difference(second, first, higher_is_better=False) == faster
    assert (slower.ratio, slower.low, slower.high) == pytest.approx((1 / faster.ratio, 1 / faster.high, 1 / faster.low))


def test_figures_at_the_ends_of_the_numbers_are_told() -> None:
    found = difference([1e-300] * 4, [1e300] * 4, higher_is_better=True)

    assert (found.verdict, found.low) == ("better", found.high)
    assert in_words(found) == "1.01e+304 x (1.01e+304 to 1.01e+304), 4 pairs"
    wide = difference([1e-300] * 4 + [1e300], [1e300] * 4 + [1e-300], higher_is_better=True)
    assert wide.verdict == "open" and wide.low is not None and wide.low > 0


def test_cost_is_told_where_speed_cannot() -> None:
    fast, slow = (difference([1.0] * 4, [each] * 4, higher_is_better=True) for each in (1.2, 1.1))
    alike = difference([1.0, 1.1] * 3, [1.1, 1.0] * 3, higher_is_better=True)

    assert in_words(fast, slow) == "1.2 x (1.2 to 1.2), 4 pairs"
    assert in_words(alike, slow).endswith("would; by CPU time a sample 1.1 x (1.1 to 1.1)")
    assert in_words(alike, alike) == in_words(alike)
