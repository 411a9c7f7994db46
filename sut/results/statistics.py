"""Whether two cells differ: judged by pairs of runs, after every pair, and called a fact only beyond their spread.

A pair is two runs, one right after the other and in alternating order, so that what slows the machine down for a while
slows down both. Where the cells are the same it is as likely that one is ahead as the other, whatever the noise.

The logarithms of the pairs' ratios are put to Student's t, with its alternative spread out over a normal prior: the
evidence is how many times likelier the pairs are so (J. N. Rouder et al., "Bayesian t tests for accepting and rejecting
the null hypothesis", 2009, with a fixed g; here two of them, one for large effects that four pairs show, one for small
ones). That is a martingale where there is no difference, so one may look after every pair (J. Ville 1939; H. Wang and
A. Ramdas, "Anytime-valid t-tests and confidence sequences for Gaussian means with unknown variance", 2025).

A stall of the machine makes a run 1.5 to 3 times slower, and Student's t then sees nothing else. From eight pairs on,
those whose ratio is far off the median are set aside (B. Iglewicz and D. C. Hoaglin, "How to Detect and Handle
Outliers", 1993). So it is the usual run that is judged: a cell that stalls in less than one run out of five by itself
is not called slower for it. With that the evidence is no exact martingale any more; simulated with noise of 5 % a run
that is normal, lognormal, one-sided, or of stalls in a tenth of the runs, and looked at after each of 4 to 100 pairs,
at most 43 of 1,000 identical cells are called different, and a cell that is 5 % slower is found within 40 pairs in 91
to 94 of 100 cases (in 73 to 77 with the stalls; without setting pairs aside in under 10).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

FEWEST_PAIRS = 4
"""Before these nothing is called different: with three, Student's t would have to be over 63, which no noise of a real
machine lets it be, only figures that happen to be the same."""
_EVIDENCE = 15.0
"""From which on the pairs are called different. Ville's inequality allows 1 error in 15 for ever; within 100 pairs it
is 4 in 100."""
_PRIORS = ((0.9, 0.2), (0.1, 50.0))
"""Weight, and variance of the effect in units of a pair's spread: small effects, and those that four pairs show."""
_OUTLIERS_FROM = 8
_OUTLIER = 5.0
"""Standard deviations off the median, as the median absolute deviation tells them; 3.5 would be Iglewicz's, but cost
one error in a hundred more."""
_DEVIATION = statistics.NormalDist().inv_cdf(0.75)
_MOST_PAIRS_NEEDED = 1_000_000
_MOST_LOG = 700.0

Verdict = Literal["better", "worse", "open"]


@dataclass(frozen=True, slots=True)
class Difference:
    """A candidate against a baseline. ``ratio`` over 1: the candidate is better; 1.1 is by a tenth.

    [``low``, ``high``] holds the true ratio in 95 of 100 cases however often one looks; None where nothing bounds it
    yet. ``pairs`` have figures on both sides. ``verdict`` is open where the interval holds 1; ``pairs_needed`` are
    then about how many would tell, with the effect and the spread seen so far; None where that is unknown.
    """

    ratio: float | None
    low: float | None
    high: float | None
    pairs: int
    verdict: Verdict
    pairs_needed: int | None


def difference(
    baseline: Sequence[float | None], candidate: Sequence[float | None], *, higher_is_better: bool, verdicts: int = 1
) -> Difference:
    """What the pairs so far say; element i of both is pair i, a rate, a time or any other figure over 0.

    Where it is one of so many ``verdicts`` from which the best is picked, each needs that many times the evidence, so
    that all of them together are wrong no oftener than one alone (Bonferroni). A pair in which either is None, not
    finite or not over 0 does not count. Raises ``ValueError`` where one is longer.
    """
    evidence = _EVIDENCE * verdicts
    logs = [(_log(before), _log(after)) for before, after in zip(baseline, candidate, strict=True)]
    sign = 1 if higher_is_better else -1
    effects = [sign * (after - before) for before, after in logs if before is not None and after is not None]
    pairs = len(effects)
    if pairs < 2:
        return Difference(_exp(effects[0]) if effects else None, None, None, pairs, "open", None)
    kept = _without_outliers(effects)
    effect, spread = _mean_and_deviation(kept)
    reach = _farthest(len(kept), evidence) * spread / math.sqrt(len(kept)) if pairs >= FEWEST_PAIRS else math.inf
    verdict: Verdict = "open" if abs(effect) <= reach else "better" if effect > 0 else "worse"
    needed = None
    if verdict == "open" and (found := _pairs_needed(effect, spread, evidence)) is not None:
        needed = max(pairs + 1, math.ceil(found * pairs / len(kept)))
    low, high = (None, None) if math.isinf(reach) else (_exp(effect - reach), _exp(effect + reach))
    return Difference(_exp(effect), low, high, pairs, verdict, needed)


def in_words(speed: Difference, cost: Difference | None = None) -> str:
    """What a difference means; ``cost``, of the same pairs' CPU time a sample, counts where ``speed`` is open.

    >>> in_words(difference([10, 11, 12, 10, 11], [20, 22, 25, 21, 22], higher_is_better=True))
    '2.04 x (1.84 to 2.25), 5 pairs'
    >>> in_words(difference([10, 11, 12, 10, 11], [11, 10, 12.5, 10, 11.4], higher_is_better=True))
    'cannot be told apart; about 210 pairs would'
    """
    if speed.verdict != "open":
        return f"{interval(speed)}, {speed.pairs} pairs"
    text = "cannot be told apart"
    if speed.pairs_needed is not None:
        text += f"; {about_pairs(speed.pairs_needed)} would"
    elif speed.pairs < 2:
        text += f"; {FEWEST_PAIRS} pairs at least are needed, got {speed.pairs}"
    else:
        text += "; not even a million pairs would"
    if cost is not None and cost.verdict != "open":
        text += f"; by CPU time a sample {interval(cost)}"
    return text


def interval(found: Difference) -> str:
    """The ratio, and what it may be, of one that is bounded."""
    return f"{found.ratio:.3g} x ({found.low:.3g} to {found.high:.3g})"


def about_pairs(needed: int) -> str:
    """So many in words, with no more digits than are known.

    >>> about_pairs(12345)
    'about 12,000 pairs'
    """
    return f"about {int(float(f'{needed:.2g}')):,} pairs"


def _log(figure: float | None) -> float | None:
    return math.log(figure) if figure is not None and math.isfinite(figure) and figure > 0 else None


def _mean_and_deviation(values: Sequence[float]) -> tuple[float, float]:
    """Those of a sample of two or more: what ``statistics`` gives, twenty times as fast."""
    mean = math.fsum(values) / len(values)
    return mean, math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))


def _without_outliers(effects: Sequence[float]) -> Sequence[float]:
    """Those not farther from the median than ``_OUTLIER`` says; all where they are few, or most are the same."""
    if len(effects) < _OUTLIERS_FROM:
        return effects
    middle = statistics.median(effects)
    far = _OUTLIER / _DEVIATION * statistics.median(abs(effect - middle) for effect in effects)
    return [effect for effect in effects if abs(effect - middle) <= far] if far else effects


def _log_evidence(t: float, pairs: int) -> float:
    """The logarithm of how many times likelier a value of Student's t is with an effect than without one."""
    share = t * t / (pairs - 1)
    logs = []
    for weight, variance in _PRIORS:
        wider = 1 + pairs * variance
        logs.append(
            math.log(weight) - math.log(wider) / 2 + pairs / 2 * (math.log1p(share) - math.log1p(share / wider))
        )
    largest = max(logs)
    return largest + math.log(math.fsum(math.exp(each - largest) for each in logs))


@cache
def _farthest(pairs: int, evidence: float) -> float:
    """The largest value of Student's t that so many pairs may have without being called different."""
    low, high = 0.0, 1e6
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _log_evidence(middle, pairs) < math.log(evidence) else (low, middle)
    return high


def _pairs_needed(effect: float, spread: float, evidence: float) -> int | None:
    """About how many pairs would tell an effect; None for none at all, and where a million would not do.

    With so many the evidence comes up to what is needed by one of the priors alone; each step comes ten times closer.
    """
    if not spread:
        return FEWEST_PAIRS if effect else None
    share = (effect / spread) ** 2
    needed = math.inf
    for weight, variance in _PRIORS:
        pairs = 10.0
        for _ in range(10):
            wider = 1 + pairs * variance
            a_pair = (math.log1p(share) - math.log1p(share / wider)) / 2
            pairs = (math.log(evidence / weight) + math.log(wider) / 2) / a_pair if a_pair else math.inf
        needed = min(needed, pairs)
    return max(FEWEST_PAIRS, math.ceil(needed)) if needed <= _MOST_PAIRS_NEEDED else None


def _exp(value: float) -> float:
    """The ratio; the largest or smallest number where it is beyond all of them."""
    return math.exp(max(-_MOST_LOG, min(_MOST_LOG, value)))
