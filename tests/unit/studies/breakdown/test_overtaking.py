"""Where one line of times passes under another: exactly on lines, within an interval with noise."""

from __future__ import annotations

import numpy as np
import pytest

from sut.studies.breakdown.overtaking import crossing, overtaking

PIXELS = [4_200, 56_576, 207_770, 2_796_255, 10_264_320]


def line(first_ns: float, pixel_ns: float, rounds: int = 10, noise: float = 0.0, seed: int = 0) -> np.ndarray:
    """Times of (sizes, rounds): ``first_ns`` and as many for each pixel, times a factor around 1."""
    times = first_ns + pixel_ns * np.array(PIXELS)[:, None]
    return np.asarray(times * np.random.default_rng(seed).lognormal(0, noise, (len(PIXELS), rounds)))


def test_the_size_is_exact_on_lines() -> None:
    found = overtaking(PIXELS, line(1e5, 12.0), line(2e6, 5.0))  # equal at 1.9e6 / 7 pixels

    assert (found.where, found.agreeing) == ("from", 1.0)
    assert found.pixels == pytest.approx(1.9e6 / 7) == found.low == found.high
    assert found.words("opencv") == "faster than opencv from 0.27 Mpixel on (0.27 to 0.27)"


def test_one_that_is_overtaken_is_faster_up_to_there() -> None:
    found = overtaking(PIXELS, line(2e6, 5.0), line(1e5, 12.0))

    assert (found.where, found.pixels) == ("up to", pytest.approx(1.9e6 / 7))
    assert found.words("opencv") == "faster than opencv up to 0.27 Mpixel (0.27 to 0.27)"


@pytest.mark.parametrize(("factor", "where"), [(0.5, "every"), (2.0, "none"), (1.0, "none")])
def test_every_and_none_are_answers(factor: float, where: str) -> None:
    found = overtaking(PIXELS, line(1e5, 10.0), factor * line(1e5, 10.0))

    assert (found.where, found.pixels, found.low, found.high, found.agreeing) == (where, None, None, None, 1.0)
    assert found.words("opencv") == f"faster than opencv at {where} of the sizes measured"


def test_the_last_crossing_counts() -> None:
    assert crossing([1, 2, 3, 4], [1, -1, -1, 1]) == ("from", 3.5)
    assert crossing([1, 2, 3, 4], [-1, 1, 1, -3]) == ("up to", 3.25)


def test_the_interval_holds_the_planted_size_with_noise() -> None:
    """Of 40 planted crossings at least 34: medians of ten rounds are few for the bootstrap."""
    held = 0
    for seed in range(40):
        slow, fast = line(1e5, 12.0, noise=0.05, seed=2 * seed), line(2e6, 5.0, noise=0.05, seed=2 * seed + 1)
        found = overtaking(PIXELS, slow, fast, seed)
        held += found.where == "from" and (found.low or 0) <= 1.9e6 / 7 <= (found.high or np.inf)
    assert held >= 34


def test_an_end_beyond_the_sizes_is_none() -> None:
    """Two of three rounds cross, the third says it is faster everywhere."""
    base = np.array([[10.0, 10.0, 10.0], [10.0, 10.0, 10.0]])
    taken = np.array([[12.0, 12.0, 8.0], [8.0, 8.0, 8.0]])
    found = overtaking([1, 3], base, taken)

    assert (found.where, found.pixels, found.low) == ("from", 2.0, None)
    assert found.agreeing < 0.95 and found.words("opencv").startswith("not told from opencv")


def test_times_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="do not fit 5 sizes"):
        overtaking(PIXELS, line(1, 1), line(1, 1)[:4])
