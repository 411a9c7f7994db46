"""Claims, and what the file of a study says of each: whether it holds, by the interval of what was measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sut.results.statistics import Difference
from sut.studies.beyond_inference.predicates import DECLINE, IN_ALL, LARGE, SMALL
from sut.studies.breakdown.cells import BASELINE
from sut.studies.claims import AbsentError, Ours, UntestableError, at_least, lost, share
from sut.studies.sweeping.grids import MOST_CONCURRENCY

Content = Mapping[str, Any]
"""What a study's file has."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A claim of a ``figure``: what it ``says``, with the source's own number.

    ``judge`` holds it against the file of ``study``, one of ``STUDIES`` in studies.py; it raises ``UntestableError``
    where this machine cannot decide it, ``AbsentError`` where the file has no such figure, and what Python does where
    it is not what the study writes. A claim without a study cannot be tested here at all: ``command`` is what would
    test it where there is what it ``needs``.
    """

    figure: str
    says: str
    study: str = ""
    judge: Callable[[Content], Ours] | None = None
    command: str = ""
    needs: str = ""


def _row(rows: Sequence[Content], **wanted: str) -> Content:
    for row in rows:
        if all(row[key] == value for key, value in wanted.items()):
            return row
    raise AbsentError(f"no figures of {', '.join(wanted.values())}")


# ---- what each study's file says of a claim


def in_all(content: Content) -> Ours:
    """What the best rung of a ladder has of the first one's throughput."""
    above = [row for row in content["rows"] if row["against_first"]]
    if not above:
        raise UntestableError("no two rungs run here")
    best = max(above, key=lambda row: float(row["samples_per_second"]))
    ours = at_least(IN_ALL, Difference(**best["against_first"]))
    return replace(ours, words=f"{ours.words}: {best['name']} against {best['first']}")


def each_rung(content: Content) -> Ours:
    """Whether each rung that runs has at least the throughput of the one below; the least gain in words."""
    above = [row for row in content["rows"] if row["against_before"]]
    if not above:
        raise UntestableError("no two rungs run here")
    found = [at_least(1, Difference(**row["against_before"])) for row in above]
    least = min(range(len(above)), key=lambda at: float(above[at]["against_before"]["ratio"]))
    holds = [each.holds for each in found]
    decided = False if False in holds else None if None in holds else True
    return Ours(decided, f"the least of {len(above)}: {found[least].words}, {above[least]['name']}")


def rung(name: str, content: Content) -> Ours:
    """What a rung gains on the one below."""
    row = _row(content["rows"], name=name)
    if row["against_before"] is None:
        raise UntestableError(row["reason"] or "it is the first that runs")
    return at_least(1, Difference(**row["against_before"]))


def share_grows(content: Content) -> Ours:
    """How many times inference's share of the largest model is that of the smallest, by the ends of all rounds."""
    small, large = (_row(content["rows"], model=name, preprocess=content["against"]) for name in (SMALL, LARGE))
    if not small["rounds"] or not large["rounds"]:
        raise AbsentError("no figures of both models")
    shares = [row["inference_share"] for row in (small, large)]
    words = f"{SMALL} {100 * shares[0]:.3g} %, {LARGE} {100 * shares[1]:.3g} %"
    if min(small["rounds"], large["rounds"]) < 2:
        return Ours(None, f"{words}, one round each")
    (low, high), (least, most) = (row["inference_share_range"] for row in (small, large))
    return Ours(True if least > high else False if most < low else None, words)


def outlier(content: Content) -> Ours:
    """End to end against inference alone, with the preprocessor that comes nearest."""
    rows = content["bottleneck"]
    if not rows:
        raise AbsentError("no figures of any preprocessor")
    best = max(rows, key=lambda row: float(row["end_to_end_by_inference"]["ratio"]))
    ours = at_least(1, Difference(**best["end_to_end_by_inference"]))
    return replace(ours, words=f"{ours.words} of inference alone, {best['preprocess']}")


def of_throughput(pictures: str, limit: float, content: Content) -> Ours:
    """What of inference's throughput is lost end to end."""
    row = _row(content["bottleneck"], pictures=pictures, preprocess=BASELINE)
    return at_least(limit, lost(Difference(**row["end_to_end_by_inference"])), " %")


def of_latency(pictures: str, load: str, at: str, of: str, limit: float, content: Content) -> Ours:
    """``of`` the latency, ``tax`` or ``waiting``, at a place of a load's conditional percentiles."""
    row = _row(content["rows"], pictures=pictures, preprocess=BASELINE, load=load)
    values = [each[at][of] if each[at] else None for each in row["by_round"]]
    return at_least(limit, share(values), " %")


def _outcome(content: Content) -> Content:
    outcome: Content = content["outcome"]
    if not outcome:
        raise AbsentError("no point of the closed loop counts")
    return outcome


def declines(content: Content) -> Ours:
    """What throughput has lost at the highest concurrency."""
    outcome = _outcome(content)
    most = outcome["highest_concurrency"]
    if outcome["decline_concurrency"] is None:
        return Ours(False if most >= MOST_CONCURRENCY else None, f"no decline up to {most:,} outstanding")
    ours = at_least(DECLINE, lost(Difference(**outcome["decline"])), " %")
    return replace(ours, words=f"{ours.words} less, from {outcome['decline_concurrency']:,.0f} outstanding on")


def by_memory(content: Content) -> Ours:
    """Whether a decline sets in where memory is full."""
    outcome = _outcome(content)
    if outcome["decline_concurrency"] is None or outcome["decline"]["verdict"] != "worse":
        raise UntestableError("throughput did not decline here, so there is nothing to explain")
    full = outcome["memory_full_concurrency"]
    words = "memory was never full" if full is None else f"memory is full at {full:,.0f} outstanding"
    return Ours(outcome["declines_with_memory"], f"decline from {outcome['decline_concurrency']:,.0f} on, {words}")
