"""Why a run takes longer than was planned."""

from __future__ import annotations

from sut.errors import short
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
