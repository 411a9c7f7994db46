"""Why a run was not VALID, in words: which percentile, which stage of the ledger, which constraint to relax."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from sut.mlperf.metrics import PERCENTILES
from sut.results.wording import milliseconds as _ms
from sut.studies.tuning.rate import too_slow_for_any_rate
from sut.studies.tuning.space import tidy
from sut.studies.tuning.state import Measured

_MEANING = {
    "issue_delay": "LoadGen itself was late: no core was left for it",
    "queue": "queries wait for a lane, and the lanes are busy",
    "channel": "preprocessed samples wait for a lane: inference is what is slow",
    "gather": "preprocessed samples are copied into the lane's slot",
    "infer": "the model takes longer: larger batches, or cores that others use too",
    "residual": "time between the stages: no core was left for the lanes",
}


def why_it_fails(failing: Measured, valid: Measured) -> str:
    """Why Server is INVALID at the failing run's rate and not at the valid one's; both are Server runs."""
    at = f"at {failing.qps:g} queries/s" if failing.qps else "at the next rate"
    if failing.failed:
        return f"{at} the run failed: {'; '.join(failing.invalid_reasons)}"
    bound, p99 = failing.bound_ns, failing.p99_ns
    if bound is None or p99 is None:
        return f"{at} it is INVALID: {'; '.join(failing.invalid_reasons)}"
    return f"{at} {_percentile(failing, p99, bound)}; {_stage(failing, valid)}"


def _percentile(failing: Measured, p99: int, bound: float) -> str:
    if p99 > bound:
        text = f"p99 is {_ms(p99)} ms, {100 * (p99 / bound - 1):.0f} % over the bound of {_ms(bound)} ms"
        first = next(name for name in PERCENTILES if (failing.latency_ns.get(name) or 0) > bound)
        return text if first == "p99" else f"{text} (from {first.replace('_', '.')} on it is over)"
    if failing.late is None or failing.queries is None:
        return f"p99 is {_ms(p99)} ms, within the bound of {_ms(bound)} ms, but {'; '.join(failing.invalid_reasons)}"
    return (
        f"p99 is {_ms(p99)} ms, within the bound of {_ms(bound)} ms, but {failing.late} of {failing.queries} queries "
        f"were over it ({100 * failing.late / max(failing.queries, 1):.2g} %), too many for early stopping, which "
        "wants to be sure: the fewer queries, the fewer may be late; a longer --time may pass"
    )


def _stage(failing: Measured, valid: Measured) -> str:
    grown = {
        name: stats["p99"] - valid.stages_ns.get(name, {}).get("p99", 0) for name, stats in failing.stages_ns.items()
    }
    if not grown:
        return "no stages were recorded, so the ledger cannot say where the time went"
    name = max(grown, key=lambda each: grown[each])
    if grown[name] <= 0:
        return f"no stage grew against {valid.qps:g} queries/s: it is at the edge, and chance decides"
    before = valid.stages_ns.get(name, {}).get("p99", 0)
    meaning = f" ({_MEANING[name]})" if name in _MEANING else ""
    return (
        f"against {valid.qps:g} queries/s the stage {name} grew most, p99 {_ms(before)} to "
        f"{_ms(failing.stages_ns[name]['p99'])} ms{meaning}"
    )


def why_nothing(rows: Sequence[Measured]) -> str:
    """Why no run of a tune was VALID, and which constraint to relax. ``rows`` are all its runs, at least one."""
    ran = [row for row in rows if not row.failed]
    if not ran:
        return f"every run failed: {_commonest(rows)}"
    served = [row for row in ran if row.bound_ns is not None and row.p99_ns is not None]
    if not served:
        return f"no point was VALID: {_commonest(ran)}"
    slow = [row for row in served if too_slow_for_any_rate(row)]
    if slow:
        row = min(slow, key=lambda each: each.idle_query_ns or 0)
        idle = row.idle_query_ns or 0
        return (
            f"no rate is VALID: one picture alone takes {_ms(idle)} ms, longer than the latency bound of "
            f"{_ms(row.bound_ns or 0)} ms. Relax the bound (--max-latency {_seconds(2 * idle)} or more), or take a "
            "faster model, backend or precision"
        )
    best = min(served, key=lambda each: each.p99_ns or 0)
    bound, p99 = best.bound_ns or 0, best.p99_ns or 0
    at = f"{best.point.label}, {best.qps:g} queries/s" if best.qps else best.point.label
    if p99 > bound:
        return (
            f"no rate is VALID: at the best ({at}) p99 was {_ms(p99)} ms, over the latency bound of {_ms(bound)} ms. "
            f"Relax the bound (--max-latency {_seconds(1.2 * p99)})"
        )
    return (
        f"no rate is VALID: at the best ({at}) p99 was {_ms(p99)} ms, within the latency bound of {_ms(bound)} ms, but "
        f"{best.late} of {best.queries} queries were over it, too many for early stopping at so few. Relax the sample "
        f"count (a longer --time), or the bound (--max-latency {_seconds(1.2 * (best.latency_ns.get('max') or p99))})"
    )


def _commonest(rows: Sequence[Measured]) -> str:
    reasons = Counter(reason for row in rows for reason in row.invalid_reasons[:1])
    if not reasons:
        return "no reason was recorded"
    [(text, times)] = reasons.most_common(1)
    return text if len(rows) == 1 else f"{text} ({times} of {len(rows)} runs)"


def _seconds(nanoseconds: float) -> str:
    return f"{tidy(nanoseconds / 1e9):.2g}"
