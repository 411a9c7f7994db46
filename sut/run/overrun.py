"""Why a run takes longer than was planned, and which device has what it waits for."""

from __future__ import annotations

from collections.abc import Sequence

from sut.errors import short
from sut.pipeline.ledger import STAMPS, Counter, Ledger
from sut.run.planning import Plan

_SLACK_S = 1.0
"""Short plans are exceeded by what every run needs at its begin and its end."""
_SLOWER = 1.5


def why_long(plan: Plan, min_query_count: int, done: int, elapsed_s: float, load: float, cores: int) -> str | None:
    """What is known of why a run goes on past twice its plan; None while it does not.

    A search makes as many runs as it needs, which nobody can plan: of it nothing is said.
    ``done`` samples were answered after ``elapsed_s`` seconds; ``load`` is the machine's load average, for ``cores``.
    """
    planned_s, planned = plan.seconds, plan.samples
    if plan.mode == "find_peak" or elapsed_s <= 2 * planned_s + _SLACK_S:
        return None
    calibrated, rate = planned / max(planned_s, 1e-3), done / elapsed_s
    reasons = []
    if plan.mode == "accuracy":
        reasons.append("an accuracy run loads its pictures in between")
    elif rate * _SLOWER < calibrated:
        reasons.append(f"{short(rate)} samples/s are answered, and {short(calibrated)} were planned after calibration")
        if _holds(plan, min_query_count, done):
            reasons.append(f"min_query_count {min_query_count:,} holds it")
    if load > _SLOWER * cores:
        reasons.append(f"the machine is busy: its load is {load:.1f} on {cores} cores")
    why = "; ".join(reasons) or f"{done:,} samples are answered, and {planned:,} were planned"
    return f"past twice the planned {planned_s:.0f} s: {why}"


def _holds(plan: Plan, min_query_count: int, done: int) -> bool:
    """Whether the run would have ended but for min_query_count, which in Offline counts samples of its one query."""
    if plan.queries == 1:
        return min_query_count >= plan.samples
    return done < min_query_count * plan.samples / plan.queries


def holders(ledger: Ledger, units: Sequence[str], lanes: int) -> list[str]:
    """Units, lane n on unit n modulo their number, of which one has the first sample that is not answered.

    Lanes take samples in the order of issue, a batch at a time: one that has answered a later sample has not got it.
    None where it may be any of them, or the ledger does not tell: where workers preprocess, or it is too small.
    """
    issued = int(ledger.counters[Counter.ISSUED])
    batch_of = ledger.batch_of[:issued]
    if issued > ledger.shape.samples or ledger.shape.before or batch_of.all():
        return []
    later = batch_of[batch_of.argmin() :]
    went_on = {int(lane) for lane in ledger.rows[later[later > 0] - 1, STAMPS - 1]}
    may = {units[lane % len(units)] for lane in range(lanes) if lane not in went_on}
    return [name for name in units if name in may] if len(may) < len(units) else []
