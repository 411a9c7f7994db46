"""The begin of a run as a trace that Perfetto shows: lanes, workers and LoadGen as tracks, a sample as a span.

The format is the JSON Trace Event Format (``traceEvents``, times in microseconds), made of the ledger after the run:
the run itself pays nothing for it.
"""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plugins.files import whole_file
from sut.errors import InputError, refusing
from sut.mlperf.logs import Int64Array
from sut.pipeline.ledger import STAMPS, Counter, Ledger
from sut.results.stages import Stages, answered

MOST_EVENTS = 100_000
"""More make the viewers slow."""
MOST_SPANS = 1000
"""Samples whose latency is a span of its own, from the first: a viewer gives overlapping ones a row each."""
_MOST_INDICES = 16
_NEEDED_BYTES = 64 * 2**20
"""What the largest trace takes, and as much again."""

_PID, _LOADGEN, _WORKERS, _LANES = 1, 1, 1_000, 10_000
"""The process, and from which number on its tracks are threads of each kind; they are shown in this order."""

_Event = dict[str, Any]


def trace_file(chosen: Path, scenario: str, mode: str, several: bool) -> Path:
    """Where the trace of a run goes: where ``several`` runs have one, scenario and mode stand before the suffix.

    >>> trace_file(Path("run.json.gz"), "Server", "performance", True).name
    'run.Server.performance.json.gz'
    """
    if not several:
        return chosen
    ending = "".join(chosen.suffixes[-2:]) if chosen.suffix == ".gz" else chosen.suffix
    return chosen.with_name(f"{chosen.name.removesuffix(ending)}.{scenario}.{mode}{ending}")


def check_writable(path: Path) -> None:
    """Raise ``InputError`` where a trace could not be written to ``path``, as far as can be known before the run."""
    what, remedy = f"--trace {path}: cannot be written", "; name a file in a folder that is there"
    if path.is_dir():
        raise InputError(f"{what}: it is a folder{remedy}")
    if path.exists() and not path.is_file():
        raise InputError(f"{what}: it is no regular file{remedy}")
    with refusing(what, remedy):
        with NamedTemporaryFile(dir=path.parent, prefix=".probe.", buffering=0) as probe:
            probe.write(b"x" * 4096)
        free = shutil.disk_usage(path.parent).free
    if free < _NEEDED_BYTES:
        raise InputError(f"{what}: {free / 2**20:.0f} MiB free, {_NEEDED_BYTES // 2**20} MiB needed; make room")


def write_trace(path: Path, about: Mapping[str, Any], ledger: Ledger, stages: Stages) -> str:
    """Write the trace of a run, compressed if ``path`` ends in .gz; returns what of the run it has, in words.

    ``about`` goes into it as it is. Raises ``OSError``.
    """
    window = _Window.of(ledger, stages)
    events = [*_names(window), *window.events()]
    has = {"window_s": window.seconds, "run_s": window.run_seconds, "events": len(events)}
    whole: dict[str, Any] = {
        "traceEvents": events,
        "displayTimeUnit": "ms",
        "otherData": {"schema": 1, **about, **has, "began_ns": window.origin_ns},
    }
    content = json.dumps(whole, separators=(",", ":")).encode()
    with whole_file(path) as file:
        file.write(gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)
    what = f"all {window.run_seconds:.1f} s" if window.is_whole else f"the first {window.seconds:.3f} s"
    return f"trace: {path} has {what} of the run, in {len(events):,} events; ui.perfetto.dev opens it"


@dataclass(frozen=True, slots=True)
class _Window:
    """A run up to ``end_ns``; its arrays are those of the ledger, cut to what was recorded."""

    ledger: Ledger
    who: Int64Array
    """Numbers of the answered samples."""
    delay_ns: Int64Array | None
    latency_ns: Int64Array
    rows: Int64Array
    calls: Int64Array
    """The first sample of each of LoadGen's calls."""
    origin_ns: int
    last_ns: int
    end_ns: int

    @classmethod
    def of(cls, ledger: Ledger, stages: Stages) -> _Window:
        """From the begin of a run as much as ``MOST_EVENTS`` can show."""
        who = answered(ledger)
        rows = ledger.rows[: min(int(ledger.counters[Counter.BATCHES]), ledger.shape.batches)]
        issued = ledger.issued_ns[: min(int(ledger.counters[Counter.ISSUED]), ledger.shape.samples)]
        calls = np.flatnonzero(np.diff(issued, prepend=-1))
        last = max(int(issued.max(initial=0)), int(rows[:, -1].max(initial=0)))
        origin = int(ledger.counters[Counter.RUN_START_SYSTEM_NS])
        # When something begins, and how many events that is.
        units = [
            (issued[calls], 2),
            (ledger.issued_ns[who[:MOST_SPANS]], 2),
            (rows[rows[:, 0] > 0, STAMPS], len(ledger.shape.stages) + 1),
        ]
        tracks = 3 + 2 * (1 + int(rows[:, 2].max(initial=0)))
        if ledger.shape.before:
            units.append((ledger.before[who, 0], len(ledger.shape.before) + 2))
            tracks += 2 * (1 + int(ledger.before[who, -1].max(initial=0)))
        end = _end(units, MOST_EVENTS - tracks) or last + 1
        delay = stages.per_sample.get("issue_delay")
        return cls(ledger, who, delay, stages.latency_ns, rows, calls, origin, last, end)

    @property
    def is_whole(self) -> bool:
        return self.end_ns > self.last_ns

    @property
    def run_seconds(self) -> float:
        return (self.last_ns - self.origin_ns) / 1e9

    @property
    def seconds(self) -> float:
        return (min(self.end_ns, self.last_ns) - self.origin_ns) / 1e9

    def us(self, at_ns: int) -> float:
        """A time as the trace has it, in microseconds from the begin of the run."""
        return (at_ns - self.origin_ns) / 1000

    def events(self) -> Iterator[_Event]:
        yield from self._issues()
        yield from self._spans()
        yield from self._batches()
        yield from self._prepared()
        yield from self._depths()

    def _issues(self) -> Iterator[_Event]:
        """LoadGen's calls, each an instant: how many samples, and how late the first of them is."""
        issued, ends = self.ledger.issued_ns, [*self.calls[1:].tolist(), int(self.ledger.counters[Counter.ISSUED])]
        late = dict(zip(self.who.tolist(), self.delay_ns.tolist(), strict=True)) if self.delay_ns is not None else {}
        for first, end in zip(self.calls.tolist(), ends, strict=True):
            at, delay = int(issued[first]), late.get(first)
            if at >= self.end_ns:
                return
            args: dict[str, Any] = {"first": first, "n": end - first, "issue_delay_us": None, "scheduled_us": None}
            if delay is not None:
                args |= {"issue_delay_us": delay / 1000, "scheduled_us": self.us(at - delay)}
            yield {
                "ph": "i",
                "s": "t",
                "name": "issue",
                "cat": "loadgen",
                "ts": self.us(at),
                **_on(_LOADGEN),
                "args": args,
            }

    def _spans(self) -> Iterator[_Event]:
        """From a sample's scheduled time (LoadGen's call where that is not known) to its answer."""
        delays = self.delay_ns if self.delay_ns is not None else np.zeros_like(self.latency_ns)
        for at, number in enumerate(self.who[:MOST_SPANS].tolist()):
            issued = int(self.ledger.issued_ns[number])
            begin, index = issued - int(delays[at]), int(self.ledger.index_of[number])
            if issued < self.end_ns:
                same = {"name": "sample", "cat": "sample", "id": number, **_on(_LOADGEN)}
                yield {"ph": "b", "ts": self.us(begin), **same, "args": {"number": number, "index": index}}
                yield {"ph": "e", "ts": self.us(begin + int(self.latency_ns[at])), **same}

    def _batches(self) -> Iterator[_Event]:
        """Each stage of each batch, on its lane's track."""
        of_sample = self.ledger.batch_of[self.who] - 1
        order = np.argsort(of_sample, kind="stable")
        samples, firsts = self.who[order], np.searchsorted(of_sample[order], np.arange(len(self.rows) + 1))
        for number, row in enumerate(self.rows.tolist()):
            if not row[0] or row[STAMPS] >= self.end_ns:
                continue
            some = samples[firsts[number] : firsts[number + 1]]
            args = {"batch": number, "n": row[0], "padded": row[1], "indices": _indices(self.ledger, some)}
            track = _LANES + row[2]
            if len(some) and (worker := self._failed_in(int(some[0]))) is not None:
                track = _WORKERS + worker
            for name, begin, end in zip(self.ledger.shape.stages, row[STAMPS::2], row[STAMPS + 1 :: 2], strict=True):
                yield self._stage(name, begin, end, track, args)

    def _failed_in(self, sample: int) -> int | None:
        """The worker that failed to prepare a sample, and answered it itself; None where a lane did."""
        before = self.ledger.before[sample]
        return int(before[-1]) if len(before) and before[0] == before[-2] else None

    def _prepared(self) -> Iterator[_Event]:
        """Each stage of each sample of a staged pipeline, on its worker's track."""
        names = self.ledger.shape.before
        for number in self.who.tolist() if names else ():
            *stamps, worker = self.ledger.before[number].tolist()
            if stamps[0] < self.end_ns:
                args = {"sample": number, "n": 1, "index": int(self.ledger.index_of[number])}
                for name, begin, end in zip(names, stamps[:-1], stamps[1:], strict=True):
                    yield self._stage(name, begin, end, _WORKERS + worker, args)

    def _stage(self, name: str, begin: int, end: int, track: int, args: Mapping[str, Any]) -> _Event:
        times = {"ts": self.us(begin), "dur": (end - begin) / 1000}
        return {"ph": "X", "name": name, "cat": "stage", **times, **_on(track), "args": args}

    def _depths(self) -> Iterator[_Event]:
        """How many samples wait: for a lane or worker, and in a staged pipeline, prepared, for a lane."""
        issued, rows = self.ledger.issued_ns, self.rows
        counts = np.diff(self.calls, append=int(self.ledger.counters[Counter.ISSUED]))
        taken = (rows[:, STAMPS], -rows[:, 0])
        if self.ledger.shape.before:
            before = self.ledger.before[self.who]
            one = np.ones(len(before), np.int64)
            yield from self._counter("ready samples", (before[:, -2], one), taken)
            taken = (before[:, 0], -one)
        yield from self._counter("queue depth", (issued[self.calls], counts), taken)

    def _counter(self, name: str, *changes: tuple[Int64Array, Int64Array]) -> Iterator[_Event]:
        times, steps = (np.concatenate(each) for each in zip(*changes, strict=True))
        order = np.argsort(times, kind="stable")
        depths = np.cumsum(steps[order])
        for at, depth in zip(times[order].tolist(), depths.tolist(), strict=True):
            if at < self.end_ns:
                yield {"ph": "C", "name": name, "ts": self.us(at), **_on(_LOADGEN), "args": {"samples": depth}}


def _names(window: _Window) -> Iterator[_Event]:
    """What the tracks are called."""
    lanes = window.rows[window.rows[:, 0] > 0, 2]
    tracks = {_LOADGEN: "LoadGen"} | {_LANES + n: f"lane {n}" for n in np.unique(lanes).tolist()}
    if window.ledger.shape.before:
        workers = np.unique(window.ledger.before[window.who, -1]).tolist()
        tracks |= {_WORKERS + n: f"preprocess worker {n}" for n in workers}
    yield {"ph": "M", "name": "process_name", "ts": 0, **_on(_LOADGEN), "args": {"name": "sut"}}
    for number, name in sorted(tracks.items()):
        yield {"ph": "M", "name": "thread_name", "ts": 0, **_on(number), "args": {"name": name}}
        yield {"ph": "M", "name": "thread_sort_index", "ts": 0, **_on(number), "args": {"sort_index": number}}


def _on(track: int) -> dict[str, int]:
    return {"pid": _PID, "tid": track}


def _indices(ledger: Ledger, samples: NDArray[np.int64]) -> list[int]:
    """The data set's indices of the first samples of a batch."""
    found: list[int] = ledger.index_of[samples[:_MOST_INDICES]].tolist()
    return found


def _end(units: Iterable[tuple[Int64Array, int]], most: int) -> int | None:
    """When the first thing begins for which there is no more room; None where there is room for all."""
    times = np.concatenate([each for each, _ in units])
    weights = np.concatenate([np.full(len(each), weight) for each, weight in units])
    order = np.argsort(times, kind="stable")
    over = np.flatnonzero(np.cumsum(weights[order]) > most)
    return int(times[order][over[0]]) if len(over) else None
