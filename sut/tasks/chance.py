"""Whether an accuracy looks like guessing: the sign of a wrong offset, colour order or recipe."""

from __future__ import annotations

import math

from sut.tasks.top1 import Top1

_ABOVE_GUESSING = 0.01
_BELOW_WORKING = 0.05


def near_chance(score: Top1, classes: int) -> bool:
    """Whether a top-1 score fits guessing among ``classes`` and does not fit a model that works.

    Both are binomial tests on the number of right answers. It fits guessing (chance 1 / classes) if that many or more
    would be guessed with a probability of 1 % or more. It does not fit a model that works, taken as one half-way
    between guessing and perfect, if that would get so few or fewer with less than 5 %. The second test keeps the rule
    silent where there are too few pictures to tell; no least number of them is needed.

    >>> from sut.tasks.top1 import top1_score
    >>> near_chance(top1_score(0, 11), 1000), near_chance(top1_score(2, 11), 1000)
    (True, False)
    >>> near_chance(top1_score(0, 3), 1000), near_chance(top1_score(52, 100), 2)
    (False, True)
    """
    chance = 1 / classes
    guessed = 1 - _at_most(score.good - 1, score.count, chance)
    worked = _at_most(score.good, score.count, (1 + chance) / 2)
    return guessed >= _ABOVE_GUESSING and worked < _BELOW_WORKING


def _at_most(good: int, count: int, share: float) -> float:
    """The binomial distribution function: the probability of ``good`` or fewer of ``count``."""
    whole, right, wrong = math.lgamma(count + 1), math.log(share), math.log1p(-share)
    ways = (whole - math.lgamma(k + 1) - math.lgamma(count - k + 1) for k in range(good + 1))
    return math.fsum(math.exp(each + k * right + (count - k) * wrong) for k, each in enumerate(ways))
