"""LoadGen's early stopping: how many of a run's slowest queries its estimate of a percentile leaves out.

From LoadGen's ``early_stopping.cc`` and MLPerf's note on early stopping: with t of n queries over a latency, the share
of all queries over it is below 1 - p, with 99 % confidence, where a binomial of n and 1 - p is t or less in 1 % of
cases at the most. The figures that official logs print were all found again, up to two million queries.
"""

from __future__ import annotations

import math
from functools import lru_cache

_RARE = 0.01
"""One less the confidence."""
_NOTHING = 1e-17
"""What a sum of probabilities does not see."""
_UNSURE = 1e-6
"""LoadGen's own sum is not better than that."""

_MOST = 10**8
"""Queries: more than 100,000 a second in the time of an official run."""


def chance(queries: int, late: int, percentile: float) -> float:
    """That a binomial of ``queries`` and ``1 - percentile`` is ``late`` or less.

    >>> f"{chance(459, 0, 0.99):.5f}", f"{chance(458, 0, 0.99):.5f}"
    ('0.00992', '0.01002')
    """
    if late >= queries:
        return 1.0
    good, bad = percentile, 1 - percentile
    ways = math.lgamma(queries + 1) - math.lgamma(late + 1) - math.lgamma(queries - late + 1)
    total = term = 1.0
    for each in range(late, 0, -1):
        term *= each * good / ((queries - each + 1) * bad)
        total += term
        if term < _NOTHING * total:
            break
    return math.exp(ways + late * math.log(bad) + (queries - late) * math.log(good)) * total


def satisfied(queries: int, late: int, percentile: float) -> bool | None:
    """Whether early stopping is satisfied by Server's run; None where it is too close to say.

    >>> satisfied(459, 0, 0.99), satisfied(600, 1, 0.99), satisfied(662, 1, 0.99)
    (True, False, True)
    """
    likely = chance(queries, late, percentile)
    return None if abs(likely - _RARE) < _UNSURE else likely < _RARE


@lru_cache(maxsize=256)
def left_out(queries: int, percentile: float) -> int:
    """The rank, from the top, of the latency that is the estimate; 0 where there are too few queries for one, or more
    than a run can have.

    >>> left_out(63, 0.9), left_out(64, 0.9), left_out(662, 0.99), left_out(2_004_954, 0.9)
    (0, 1, 1, 199507)
    """
    low, high = 0, queries if queries <= _MOST else 0
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if chance(queries, middle, percentile) <= _RARE else (low, middle)
    return low
