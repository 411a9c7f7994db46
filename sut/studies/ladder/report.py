"""What a ladder has found: rows without words, and what they say in sentences."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from sut.errors import short
from sut.results.statistics import Difference, difference, in_words
from sut.results.wording import milliseconds
from sut.studies.ladder.climb import Step

Row = Mapping[str, Any]
PAPER = (
    'the figures of "Beyond Inference" for its ladder, 431 to 1,600 images/s, are 3.7 x, not the 8 x of its text; '
    "they are of its machine, and nothing here was measured there"
)


def rows_of(steps: Sequence[Step]) -> list[dict[str, Any]]:
    """A row for each rung, from the bottom up; null is what was not measured, times are in ns.

    ``samples_per_second`` is the median of the rounds, ``by_round`` has each; the percentiles are over the samples of
    all rounds.
    ``against_first`` and ``against_before`` are those of the throughput, by the rounds that both were measured in, and
    of ``p99`` likewise; the rung ``before`` is the nearest below that was measured. As the best rung is picked from
    them, each asks for that much more evidence.
    """
    measured = [step for step in steps if step.rounds]
    rows, before = [], None
    for number, step in enumerate(steps, start=1):
        row = {"rung": number, "name": step.rung.name, "settings": step.settings, "tried": step.tried}
        row |= {"found": step.found, "reason": step.reason, "failed": step.failed} | _figures(step)
        for name, other in (("first", measured[0] if measured else None), ("before", before)):
            against = other if step.rounds and other is not step else None
            row[name] = against.rung.name if against else None
            row |= _against(name, against, step, len(measured) - 1)
        rows.append(row)
        before = step if step.rounds else before
    return rows


def _figures(step: Step) -> dict[str, Any]:
    rounds = list(step.rounds.values())
    names = ("p50_ns", "p99_ns")
    if not rounds:
        nothing = ("samples_per_second", *names, "lanes", "threads", "max_batchsize", "workers", "mean_batch", "parity")
        return {"rounds": 0, "samples": 0, "samples_per_second_range": None, "by_round": [], **dict.fromkeys(nothing)}
    rates = [each.driven.samples_per_second for each in rounds]
    latencies = np.concatenate([each.latency_ns for each in rounds])
    ready, batches = rounds[0].ready, [each.driven.batch_sizes for each in rounds]
    answered = sum(size * count for each in batches for size, count in each.items())
    return {
        "rounds": len(rounds),
        "samples": len(latencies),
        "samples_per_second": statistics.median(rates),
        "samples_per_second_range": [min(rates), max(rates)],
        "by_round": rates,
        **dict(zip(names, map(float, np.percentile(latencies, (50, 99))), strict=True)),
        "lanes": ready.lanes,
        "threads": ready.threads,
        "max_batchsize": ready.max_batchsize,
        "workers": ready.workers,
        "mean_batch": answered / sum(count for each in batches for count in each.values()),
        "parity": ready.parity.model_dump() if ready.parity else None,
    }


def _against(name: str, other: Step | None, step: Step, verdicts: int) -> dict[str, Any]:
    if other is None:
        return {f"against_{name}": None, f"p99_against_{name}": None}
    both = sorted(other.rounds.keys() & step.rounds.keys())
    sides = [[each.rounds[number] for number in both] for each in (other, step)]
    rates = ([each.driven.samples_per_second for each in side] for side in sides)
    tails = ([float(np.percentile(each.latency_ns, 99)) for each in side] for side in sides)
    return {
        f"against_{name}": asdict(difference(*rates, higher_is_better=True, verdicts=verdicts)),
        f"p99_against_{name}": asdict(difference(*tails, higher_is_better=False, verdicts=verdicts)),
    }


def words_of(told: Mapping[str, Any]) -> Iterator[str]:
    """What a ladder says, the decision first. ``told`` has the rows and what else is written down."""
    rows: Sequence[Row] = told["rows"]
    measured = [row for row in rows if row["rounds"]]
    yield _decision(measured)
    for row in measured[1:]:
        found = Difference(**row["against_before"])
        if found.verdict != "open":
            tail = Difference(**row["p99_against_before"])
            p99 = "" if tail.verdict == "open" else f"; its p99 is {tail.verdict}: {in_words(tail)}"
            yield f"{row['name']} against {row['before']}: {in_words(found)}{p99}"
    for row in rows:
        if row["tried"]:
            best = ", ".join(f"{key}={value}" for key, value in row["found"].items()) or "its settings unchanged"
            yield f"{row['name']}: {best}, found here by a search of {len(row['tried'])} candidates, once each"
    yield from (f"{row['name']} does not run here: {row['reason']}" for row in rows if row["reason"])
    if told["weights"] == "random":
        yield f"{told['model']} has random weights: speed only, its answers mean nothing"
    elif len({row["settings"].get("precision", "fp32") for row in measured}) > 1:
        yield "rungs in another precision may answer otherwise: sut run says how often"
    most = max((row["rounds"] for row in rows), default=0)
    yield (
        f"measured in a closed loop of {told['concurrency']} requests outstanding, from JPEG to label, "
        f"{told['seconds']:g} s or {told['least']} samples a round, rounds: {most}; so short, p99 is near the largest"
    )
    yield PAPER


def _decision(measured: Sequence[Row]) -> str:
    if not measured:
        return "no rung runs here"
    if len(measured) == 1:
        return f"only {measured[0]['name']} runs here: {_rate(measured[0])}"
    best = max(measured, key=lambda row: float(row["samples_per_second"]))
    if best is measured[0]:
        return f"the first rung, {best['name']}, has the most throughput: {_rate(best)}; no rung above shows a gain"
    found = Difference(**best["against_first"])
    if found.verdict == "open":
        return f"{best['name']} had the most throughput, {_rate(best)}, but it and {best['first']} {in_words(found)}"
    return f"{best['name']} has the most throughput: {_rate(best)}, {in_words(found)} {best['first']}"


def _rate(row: Row) -> str:
    return f"{short(row['samples_per_second'])} samples/s, p99 {milliseconds(row['p99_ns'])} ms"
