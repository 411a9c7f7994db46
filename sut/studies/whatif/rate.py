"""The rate at which Server's 99th percentile is its latency bound, from few runs at rates near it.

A run tells more than whether it was in time: how many of its queries were late. That share grows with the rate by a
power law, over the little way that matters, and steeply; so a run near the bound tells how far it is from there. The
search goes where the runs so far say.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from sut.studies.simulation import LATE_SHARE

_POWER = 15.0
"""Of the rate, by which the late share grows: in simulation 7 to 60, the less room the bound leaves the flatter."""
_POWERS = (4.0, 80.0)
_DOUBT = (0.4 / 10.0) ** 2
"""Noise of a run's ``excess`` (7 of 690 late are 7 give or take 2.6) by doubt in the power beforehand, both squared."""
_TELLING = 2.5
"""Beyond this ``excess`` hardly any query was late, or so many that the power is another."""
_NEAR = math.log(1.75)
"""How far a run may be from the bound to tell the rate well though the power is not known well."""
_SAME = 0.2
"""Nearer than this one run is as good as another."""
_BEYOND = 1.04
"""Where the other side of the bound is looked for once a run was near it."""
MOST_PROBES = 8


@dataclass(frozen=True, slots=True)
class Asked:
    """A run of ``queries`` at ``rate`` queries a second, of which so many were over the bound."""

    rate: float
    late: int
    queries: int

    @property
    def excess(self) -> float:
        """The logarithm of how many times as many were late as may be; none at all counts as half a query."""
        return math.log((self.late + 0.5) / (self.queries + 1) / LATE_SHARE)

    @property
    def is_near(self) -> bool:
        """Whether it tells the rate at the bound."""
        return abs(self.excess) <= _NEAR


@dataclass(slots=True)
class Search:
    """The runs of one system so far. ``usual`` is the power that a system like it has; None: it has to be found out."""

    usual: float | None = None
    asked: list[Asked] = field(default_factory=list)

    @property
    def power(self) -> float:
        """The power of the rate by which the late share grows: a straight line through what the runs tell.

        As far as they do: runs at nearly the same rate tell little, and leave it at what was believed before.
        """
        before = self.usual or _POWER
        telling = [(math.log(each.rate), each.excess) for each in self.asked if abs(each.excess) <= _TELLING]
        if not telling:
            return before
        middle = math.fsum(x for x, _ in telling) / len(telling)
        across = math.fsum((x - middle) ** 2 for x, _ in telling)
        along = math.fsum((x - middle) * excess for x, excess in telling)
        return min(max((along + _DOUBT * before) / (across + _DOUBT), _POWERS[0]), _POWERS[1])

    def at_bound(self, one: Asked) -> float:
        """The rate at which one in a hundred would have been late, by one run."""
        return one.rate * math.exp(-one.excess / self.power)

    @property
    def rate(self) -> float:
        """The rate at the bound, in queries/s, by the runs near it, the nearer the more; else between its two sides.

        Where all were on one side it is beyond them, the farther the more they are.
        """
        if any(each.is_near for each in self.asked):
            weights = [1 / (each.excess**2 + _SAME**2) ** 2 for each in self.asked]
            logs = (math.log(self.at_bound(each)) for each in self.asked)
            return math.exp(math.fsum(map(math.prod, zip(weights, logs, strict=True))) / math.fsum(weights))
        under, over = self._sides()
        if under is not None and over is not None:
            part = under.excess / (under.excess - over.excess)
            return under.rate * math.pow(over.rate / under.rate, part)
        [last] = [each for each in (under, over) if each is not None]
        return last.rate * math.exp(-last.excess / _POWER * len(self.asked))

    @property
    def is_settled(self) -> bool:
        """Whether the last run tells the rate: it was near the bound, and the power is known. Or there were many."""
        knows_power = self.usual is not None or None not in self._sides()
        return bool(self.asked) and ((self.asked[-1].is_near and knows_power) or len(self.asked) >= MOST_PROBES)

    @property
    def next_rate(self) -> float:
        """Where to ask next: at the bound as far as it is known; beyond it where the other side has to be seen."""
        under, over = self._sides()
        if self.usual is not None or not self.asked[-1].is_near or (under is not None and over is not None):
            return self.rate
        return self.rate * (_BEYOND if over is None else 1 / _BEYOND)

    def _sides(self) -> tuple[Asked | None, Asked | None]:
        """The fastest run that was in time, of those slower than the slowest that was not; and that one."""
        over = min((each for each in self.asked if each.excess > 0), key=lambda each: each.rate, default=None)
        below = [each for each in self.asked if each.excess <= 0 and (over is None or each.rate < over.rate)]
        return max(below, key=lambda each: each.rate, default=None), over
