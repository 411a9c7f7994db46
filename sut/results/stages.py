"""A ledger read back: each sample's stages, joined with LoadGen's own trace."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from sut.mlperf.check_log import Record
from sut.mlperf.logs import Int64Array, Trace
from sut.pipeline.ledger import STAMPS, Counter, Ledger

Times = TypeVar("Times")


@dataclass(frozen=True, slots=True)
class Stages:
    """A ledger read back: per-sample arrays in ns, samples in the order of issue.

    ``per_sample`` maps each stage to int64 (n,); with ``residual`` they add up to ``latency_ns``, details of
    others left out.
    ``cost_ns`` is the mean busy time per sample (batch time divided by its size).
    """

    latency_ns: Int64Array
    per_sample: dict[str, Int64Array]
    cost_ns: dict[str, float]
    batch_sizes: dict[int, int]


PAUSE_NS = 1_000_000_000
"""How long a thread may stand still between two stamps that follow each other, on a machine that is overrun or held
back by a quota."""


class LedgerError(ValueError):
    """The ledger and LoadGen's trace do not tell the same story."""


def is_detail(name: str, stages: Container[str]) -> bool:
    """Whether a stage is a part of another one that is there, too: it adds nothing to the latency.

    >>> is_detail("infer/queue", ("infer", "infer/queue")), is_detail("identify/send", ("infer", "identify/send"))
    (True, False)
    """
    parent, slash, _ = name.partition("/")
    return bool(slash) and parent in stages


def whole_stages(stages: Mapping[str, Times]) -> dict[str, Times]:
    """The stages that add up: all but details of others."""
    return {name: times for name, times in stages.items() if not is_detail(name, stages)}


def inference(stages: Mapping[str, Times]) -> Times | None:
    """What the model itself takes: of a server, or an actor, what it tells, without the way there and back."""
    return stages.get("infer/compute", stages.get("infer"))


def answered(ledger: Ledger) -> Int64Array:
    """Numbers of the recorded samples that were answered, ascending."""
    recorded = min(int(ledger.counters[Counter.ISSUED]), ledger.shape.samples)
    # A copy, because the run may be writing: counting and collecting must see the same array.
    return np.flatnonzero(ledger.batch_of[:recorded].copy())


def batch_sizes(ledger: Ledger) -> dict[int, int]:
    """How many batches had how many samples, as recorded."""
    batches = min(int(ledger.counters[Counter.BATCHES]), ledger.shape.batches)
    sizes, counts = np.unique(ledger.rows[:batches, 0], return_counts=True)
    return {int(size): int(count) for size, count in zip(sizes, counts, strict=True) if size > 0}


def own_latency_ns(ledger: Ledger, last: int | None = None) -> Int64Array:
    """Latency as this side saw it (LoadGen's call to the end of ``complete``), ns, of the answered samples.

    With ``last`` only of those among the last so many that were taken up: cheap enough to look at while a run goes on.
    """
    if last is None:
        who = answered(ledger)
    else:
        done = min(int(ledger.counters[Counter.DONE]), ledger.shape.samples)
        first = max(0, done - last)
        who = first + np.flatnonzero(ledger.batch_of[first:done].copy())
    ends = ledger.rows[ledger.batch_of[who] - 1, -1]
    latency: Int64Array = ends - ledger.issued_ns[who]
    return latency


def join(ledger: Ledger, trace: Trace | None) -> Stages:
    """Join the ledger with LoadGen's trace by the order of issue.

    Without a trace (an interrupted run, or one too long to trace) the latency is this side's own, from LoadGen's call,
    and there is neither ``issue_delay`` nor ``residual``. Raises ``LedgerError`` if the two do not fit together.
    """
    who = answered(ledger)
    rows = ledger.rows[ledger.batch_of[who] - 1]
    issued = ledger.issued_ns[who]
    stages: dict[str, Int64Array] = {}
    if trace is not None:
        asked = int(ledger.counters[Counter.ISSUED])
        if len(trace.index) != asked or not np.array_equal(trace.index[who], ledger.index_of[who]):
            raise LedgerError(
                f"LoadGen's trace ({len(trace.index)} samples) does not name the samples that the ledger "
                f"({asked} issued) recorded in the same order"
            )
        stages["issue_delay"] = trace.issue_delay_ns[who]
    names = ledger.shape.stages
    begin, end = rows[:, STAMPS], rows[:, -1]
    if ledger.shape.before:
        before = ledger.before[who]
        stages["queue"] = before[:, 0] - issued
        for column, name in enumerate(ledger.shape.before, start=1):
            stages[name] = before[:, column] - before[:, column - 1]
        stages["channel"] = begin - before[:, -2]
    else:
        stages["queue"] = begin - issued
    for i, name in enumerate(names):
        stages[name] = rows[:, STAMPS + 1 + 2 * i] - rows[:, STAMPS + 2 * i]
    if trace is None:
        latency: Int64Array = end - issued
    else:
        latency = trace.latency_ns[who]
        stages["residual"] = latency - sum(whole_stages(stages).values(), np.zeros(len(who), np.int64))
    own = ledger.shape.before if len(who) else ()
    cost = (_cost_before(ledger.before[who], own) if own else {}) | _cost(ledger, names)
    return Stages(latency, stages, cost, batch_sizes(ledger))


def latency_bounds(ledger: Ledger, scenario: str, per_query: int) -> tuple[Int64Array, Int64Array] | None:
    """Between what LoadGen's latencies must be, ns, by the ledger alone: the least and the most that each can be.

    Of queries in MultiStream, which have ``per_query`` samples, of samples elsewhere. None where not all samples are
    recorded, or not all were answered.

    LoadGen counts from the time of its schedule, which is before it calls us, to when it has our call, which is after
    we have stamped it: the latency of this side is the least. In SingleStream and MultiStream it schedules a query when
    it has all answers to the one before: that is between our last answer to it and the next call of ours, so that
    neighbours bound each query. In Offline the schedule is not before the start of the run. What is left is the way of
    an answer to LoadGen, for which ``PAUSE_NS`` is plenty; and in Server how late LoadGen asks, which is not ours.
    """
    count = int(ledger.counters[Counter.ISSUED])
    who = answered(ledger)
    if not 0 < count == len(who) or int(ledger.counters[Counter.BATCHES]) > ledger.shape.batches:
        return None
    ends, issued = ledger.rows[ledger.batch_of[who] - 1, -1], ledger.issued_ns[who]
    started = ledger.counters[Counter.RUN_START_SYSTEM_NS]
    if scenario in ("Server", "Offline"):
        since = issued if scenario == "Server" else started
        return ends - issued, ends - since + PAUSE_NS
    if count % per_query:
        return None
    of_query = ends.reshape(-1, per_query)
    # Which of its samples ends a query is whose call LoadGen comes to last: it may have been stamped before another.
    first, last, issued = of_query.min(axis=1), of_query.max(axis=1), issued[::per_query]
    before = np.concatenate([[started], last[:-1]])
    after = np.concatenate([issued[1:], [last[-1] + PAUSE_NS]])
    return first - issued, after - before


def _cost_before(before: Int64Array, names: Sequence[str]) -> dict[str, float]:
    """Mean busy time per sample of the stages before a batch: those that a worker took up together follow each other
    and have the same begin.
    """
    taken = before[:, [0, -1]]
    is_first = np.append(True, (np.diff(taken, axis=0) != 0).any(axis=1))
    spans = np.diff(before[is_first, :-1], axis=1).sum(axis=0)
    return {name: float(span) / len(before) for name, span in zip(names, spans, strict=True)}


def _cost(ledger: Ledger, names: Sequence[str]) -> dict[str, float]:
    rows = ledger.rows[: min(int(ledger.counters[Counter.BATCHES]), ledger.shape.batches)]
    rows = rows[rows[:, 0] > 0]
    samples = int(rows[:, 0].sum())
    if samples == 0:
        return {}
    spans = rows[:, STAMPS + 1 :: 2] - rows[:, STAMPS::2]
    return {name: float(spans[:, i].sum()) / samples for i, name in enumerate(names) if not is_detail(name, names)}


def record_of(
    ledger: Ledger,
    asked: Mapping[str, Any],
    latency_ns: Int64Array | None,
    stages: Stages | None,
    fastest_ns: Int64Array | None = None,
    bounds_ns: tuple[Int64Array, Int64Array] | None = None,
) -> Record:
    """What a ledger says of a run, for LoadGen's logs to be held against."""
    issued = int(ledger.counters[Counter.ISSUED])
    last = issued - 1
    recorded = 0 <= last < ledger.shape.samples
    return Record(
        asked=asked,
        issued=issued,
        started_ns=int(ledger.counters[Counter.RUN_START_SYSTEM_NS]),
        first_ns=int(ledger.issued_ns[0]),
        last_ns=int(ledger.issued_ns[last]) if recorded else None,
        last_done_ns=int(ledger.rows[ledger.batch_of[last] - 1, -1]) if recorded else None,
        latency_ns=latency_ns,
        fastest_ns=fastest_ns,
        bounds_ns=bounds_ns,
        stages_ns=stages.per_sample if stages is not None else None,
    )
