"""From which fan-out on something between two models has more throughput than the fused form: N*, by paired rounds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from sut.results.statistics import Difference
from sut.studies.claims import Value, compared

Rates = Mapping[str, Mapping[int, Sequence[Value]]]
"""Frames per second by form and by fan-out, a value for each round, None where a round has none."""


@dataclass(frozen=True, slots=True)
class Best:
    """The form that is ahead at a fan-out, and how it stands to the fused one; over 1 is more throughput."""

    form: str
    found: Difference


@dataclass(frozen=True, slots=True)
class Crossing:
    """``at``: the smallest fan-out from which on the best form is ahead, N*; it lies from ``low`` to ``high``.

    ``none``: at the largest fan-out the best form is still behind. ``open``: there it cannot be told.
    """

    verdict: Literal["found", "none", "open"]
    at: int | None = None
    low: int | None = None
    high: int | None = None


def best_of(rates: Rates, fused: str, forms: Sequence[str]) -> dict[int, Best]:
    """By fan-out the best of some forms against the fused one, where a round has both.

    Each verdict is one of as many as there are forms, of which the best is picked.
    """
    found: dict[int, Best] = {}
    for fan_out, before in sorted(rates.get(fused, {}).items()):
        each = [
            Best(form, compared(before, after, verdicts=len(forms)))
            for form in forms
            if (after := rates.get(form, {}).get(fan_out))
        ]
        known = [best for best in each if best.found.ratio is not None]
        if known:
            found[fan_out] = max(known, key=lambda best: best.found.ratio or 0.0)
    return found


def crossing(best: Mapping[int, Best]) -> Crossing:
    """Where the best form comes to be ahead, among the fan-outs that were measured.

    ``high`` is the smallest from which on it is told to be ahead, ``low`` the one behind the largest at which it is
    told to be behind.
    """
    fan_outs = sorted(best)
    if not fan_outs:
        return Crossing("open")
    if best[fan_outs[-1]].found.verdict == "worse":
        return Crossing("none")
    told, ahead, behind = 0, 0, 0
    for number, fan_out in enumerate(fan_outs, start=1):
        found = best[fan_out].found
        told = told if found.verdict == "better" else number
        ahead = ahead if (found.ratio or 0.0) > 1 else number
        behind = number if found.verdict == "worse" else behind
    if told == len(fan_outs):
        return Crossing("open", low=fan_outs[behind])
    return Crossing("found", fan_outs[ahead], fan_outs[behind], fan_outs[told])
