"""The highest rate at which Server is VALID: bracketed in steps of 1.15 and then 1.3, bisected to 3.6 %, confirmed.

What to run next is a pure function of what was run, so an interrupted search goes on where it was.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sut.studies.tuning.space import tidy
from sut.studies.tuning.state import Measured

RESOLUTION = 1.036
"""How far the highest VALID rate and the lowest INVALID one above it may be apart, as a ratio: a first step halved
twice, or another halved three times."""
_FIRST_STEP = 1.15
_STEP = 1.3
_SMALL_STEPS = 4
"""After so many probes without a bracket the steps grow: the estimate was far off."""
_LOWEST_SHARE = 1 / 8
"""Of the first rate: so slow, queries hardly ever meet, and a slower rate would be INVALID for the same reason."""
MOST_PROBES = 16
"""On a noisy machine; a good estimate and a quiet one need eight at the most."""
TIMES = 3
"""How often the confirmed rate must be VALID in a row."""
_STEP_DOWN = 0.985
"""LoadGen asks the same queries at the same moments in each run of a rate, so what makes one of three INVALID is how
batch times vary, which is little. Simulated with LoadGen's way of asking, a step of 3 % finds a rate within 5 % of the
highest in 83 to 93 of 100 tunes, this one in 95 to 98, with one run more in the median at the most."""
_MOST_STEPS_DOWN = 20

Ask = Callable[[float, int], Measured]
"""Runs Server at a rate; the number counts the runs of this phase from 1."""


@dataclass(frozen=True, slots=True)
class Probe:
    """One run at ``rate`` queries a second; ``completed`` is what the system really got done in a second."""

    rate: float
    valid: bool
    completed: float | None = None


def next_rate(start: float, seen: Sequence[Probe], known: float | None = None) -> float | None:
    """The rate to probe next, in queries per second; None when the search is over. ``known`` was VALID before.

    An INVALID probe below a VALID one is not believed. The lowest INVALID one above all VALID ones is repeated once at
    the end: everything found hangs on it, and one hiccup of the machine is enough to make a run INVALID. If the repeat
    is VALID the search goes on upwards.
    """
    if not seen:
        return tidy(start)
    low = max((probe.rate for probe in seen if probe.valid and probe.rate >= (known or 0.0)), default=known)
    invalid = [probe for probe in seen if not probe.valid and (low is None or probe.rate > low)]
    if low is None:
        return _below(start, invalid)
    if not invalid:
        return tidy(low * _step(sum(probe.rate >= tidy(start) for probe in seen)))
    high = min(probe.rate for probe in invalid)
    if high > low * RESOLUTION:
        return tidy(math.sqrt(low * high))
    return high if sum(probe.rate == high for probe in invalid) == 1 else None


def _step(probes: int) -> float:
    return _FIRST_STEP if probes == 1 else float(_STEP ** (2 ** max(0, probes - _SMALL_STEPS)))


def _below(start: float, invalid: Sequence[Probe]) -> float | None:
    """A lower rate. A system that is asked too much shows how much it can do at the most, which is not VALID either."""
    lowest = min(invalid, key=lambda probe: probe.rate)
    floor = tidy(start * _LOWEST_SHARE)
    if lowest.rate <= floor:
        return None
    rate = lowest.rate / _step(len(invalid))
    if lowest.completed:
        rate = min(rate, lowest.completed / 1.1)
    return tidy(max(rate, floor))


def search_rate(start: float, ask: Ask, known: float | None = None) -> list[Measured]:
    """Probe until the highest VALID rate is known to 3.6 %: five or six times on a good estimate and a quiet machine.

    It ends without a VALID one at an eighth of ``start``, and where a single picture takes longer than the bound.
    """
    rows: list[Measured] = []
    probes: list[Probe] = []
    while len(rows) < MOST_PROBES and (rate := next_rate(start, probes, known)) is not None:
        row = ask(rate, len(rows) + 1)
        rows.append(row)
        probes.append(Probe(rate, row.valid, row.samples_per_second))
        if too_slow_for_any_rate(row):
            break
    return rows


def too_slow_for_any_rate(row: Measured) -> bool:
    """Whether one picture alone took longer than Server's bound, so that no rate can be VALID."""
    return not row.valid and bool(row.idle_query_ns and row.bound_ns) and (row.idle_query_ns or 0) > (row.bound_ns or 0)


def confirm_rate(rate: float, ask: Ask) -> tuple[float | None, list[Measured]]:
    """Run a rate three times; unless all are VALID, step down by 1.5 % and begin again.

    Returns the confirmed rate, None where even 26 % below there was none, and all runs.
    """
    rows: list[Measured] = []
    for _ in range(_MOST_STEPS_DOWN + 1):
        for _ in range(TIMES):
            rows.append(ask(rate, len(rows) + 1))
            if not rows[-1].valid:
                break
        else:
            return rate, rows
        rate = tidy(rate * _STEP_DOWN)
    return None, rows
