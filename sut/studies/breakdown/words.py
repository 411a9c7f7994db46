"""What a breakdown says in sentences, and what must be known before its figures are believed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sut.results.wording import RANDOM_WEIGHTS, milliseconds
from sut.studies.breakdown.cells import LOADED, ZERO
from sut.studies.breakdown.split import MOST_RESIDUAL
from sut.text import duration

Rows = Sequence[Mapping[str, Any]]


def sentences(told: Mapping[str, Any]) -> list[str]:
    """What was found, the shortest way."""
    found = [*_taxes(told["rows"]), *_tails(told["rows"])]
    found += [f"{row['preprocess']}: {row['words']}" for row in told["overtaking"] if row["words"]]
    return found + [f"{row['preprocess']}, {row['pictures']}: {limit_words(row)}" for row in told["bottleneck"]]


def _taxes(rows: Rows) -> Iterator[str]:
    for load, words in ((ZERO, "one request at a time"), (LOADED, "at 80 % of the highest rate")):
        for at, share in (("p50", "a typical picture's time"), ("p99", "the time of the slowest 1 %")):
            some = [row for row in rows if row["load"] == load and row["at"][at] and row["at"][at]["tax"] is not None]
            if some:
                least, most = (pick(some, key=lambda row: row["at"][at]["tax"]) for pick in (min, max))
                ends = [f"{_percent(row['at'][at]['tax'])} ({_name(row)})" for row in (least, most)]
                yield f"{words}, {' to '.join(dict.fromkeys(ends))} of {share} is not the model"


def _tails(rows: Rows) -> Iterator[str]:
    for row in rows:
        if row["load"] == LOADED and row["tail_by_size"]:
            each = [_whose(tail) for tail in row["tail_by_size"] if tail["tail_samples"]]
            yield f"{_name(row)}, loaded, the slowest 1 %: {', '.join(each)}"


def _whose(tail: Mapping[str, Any]) -> str:
    waited = _percent(tail["waiting_ns"] / tail["latency_ns"])
    return (
        f"{_percent(tail['share_of_tail'])} {tail['size']} ({waited} of {milliseconds(tail['latency_ns'])} ms waiting)"
    )


def limit_words(row: Mapping[str, Any]) -> str:
    """What a row of ``bottleneck`` says in a line."""
    limits = f"{row['limits']} limits" if row["limits"] else f"{row['rounds']} rounds do not tell which part limits"
    law = "min(P, I)" if row["overlapped"] else "1/(1/P + 1/I)"
    outlier = row["end_to_end_by_inference"]
    words = f"{limits}; end to end is {_ratio(row['of_bound'])} of what they allow, {law}"
    slowed = ", ".join(f"{name} {_ratio(each)}" for name, each in row["slowed"].items())
    verdict = {
        "repeated": "faster than inference alone",
        "refuted": "not faster than inference alone",
        None: "not told from inference alone",
    }[row["outlier"]]
    return f"{words}; slower beside the other: {slowed}; end to end is {verdict}: {_ratio(outlier)}"


def _ratio(found: Mapping[str, Any]) -> str:
    if found["ratio"] is None:
        return "-"
    if found["low"] is None:
        return f"{found['ratio']:.3g} x"
    return f"{found['ratio']:.3g} x ({found['low']:.3g} to {found['high']:.3g})"


def warnings(told: Mapping[str, Any]) -> list[str]:
    """What a reader must know: random weights, what the stages leave open, what was left out, what did not run."""
    found = [f"loads of seconds on {told['backend']}: for where the time goes, no result by MLPerf's rules"]
    if told["weights"] == "random":
        found.append(RANDOM_WEIGHTS)
    open_rows = [f"{_name(row)}, {row['load']}" for row in told["rows"] if row["residual_ok"] is False]
    if open_rows:
        limits = " or ".join(f"{_percent(share)} of the latency at {at}" for at, share in MOST_RESIDUAL.items())
        found.append(f"the stages leave more than {limits} unexplained: {'; '.join(open_rows)}")
    found += [f"{_name(row)}, {row['load']}: {row['trouble']}" for row in told["rows"] if row["trouble"]]
    for row in told["zero_load"]:
        if not row["within_10_percent"]:
            ratio, (low, high) = row["p50_at_20_percent_by_zero_load"], row["in_rounds"]
            found.append(
                f"{_name(row)}: p50 at 20 % of the batch-1 rate is {ratio:.2f} x that of zero load "
                f"({low:.2f} to {high:.2f} in single rounds), more than 10 % off"
            )
    if told["left_out"]:
        found.append(f"left out, as it did not fit into {duration(told['budget_s'])}: {'; '.join(told['left_out'])}")
    reasons = list(dict.fromkeys(told["failed"].values()))
    found += [f"{'; '.join(name for name, each in told['failed'].items() if each == why)}: {why}" for why in reasons]
    return found + [f"not here: {name}: {why}" for name, why in told["absent"].items()]


def _name(row: Mapping[str, Any]) -> str:
    return f"{row['preprocess']}, {row['pictures']}"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
