"""The stage ledger: when each batch went through each stage, in arrays that exist before the run.

The arrays lie in one block of memory that the supervising process maps too. So progress costs the run nothing, and what
was recorded survives whatever happens to the process that wrote it.

A sample's stages, in the order in which it meets them from its *scheduled* time: ``issue_delay`` (LoadGen's own, from
its trace), ``queue`` (from LoadGen's call to the batch being taken up), then the pipeline's stages, each with its own
begin and end. What lies between them is in none of them: it is the ``residual``, which LoadGen's latency minus all
stages leaves over.
"""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from struct import Struct

import numpy as np
from numpy.typing import NDArray

from sut.mlperf.logs import Int64Array

Int32Array = NDArray[np.int32]

PIPELINE_STAGES = ("preprocess", "infer", "postprocess", "complete")
"""Stages of the fused pipeline at the boundary ``tensor``."""

MAX_RECORDED_SAMPLES = 8_000_000
"""Beyond this many samples (or batches) the ledger stops recording; the result says how many it has."""


class Counter(IntEnum):
    """Slots of the counter block, all int64; written by the run, read by its supervisor."""

    PLANNED = 0
    ISSUED = 1
    DONE = 2
    FAILED = 3
    BATCHES = 4
    PADDED = 5
    HEARTBEAT = 6
    RUN_START_NS = 7
    """Of the monotonic clock, by which the run is waited for."""
    RUN_START_SYSTEM_NS = 8
    """Of the system clock, LoadGen's."""


_HEADER = 16  # int64 words in front of the arrays

STAMPS = 3
"""The column of a batch row at which the stamps begin: before it are sample count, rows padded and lane."""


@dataclass(frozen=True, slots=True)
class LedgerShape:
    """How large a ledger is. ``stages`` are those that a batch goes through together, in order; ``before`` those that
    each sample of a staged pipeline has behind it by then.
    """

    samples: int
    batches: int
    stages: tuple[str, ...] = PIPELINE_STAGES
    before: tuple[str, ...] = ()
    indexed: bool = True
    """Whether each sample's data set index is recorded: for the join with LoadGen's trace, where there will be one."""

    @property
    def columns(self) -> int:
        """int64 words of one batch row: sample count, rows padded, lane, then begin and end of each stage."""
        return STAMPS + 2 * len(self.stages)

    @property
    def before_columns(self) -> int:
        """int64 words per sample: the begin of its first stage, the end of each, then the worker."""
        return len(self.before) + 2 if self.before else 0

    @property
    def nbytes(self) -> int:
        """Size of the whole block in bytes."""
        words = _HEADER + self.samples + self.batches * self.columns + self.samples * self.before_columns
        return 8 * words + 4 * 2 * self.samples

    @classmethod
    def of(
        cls,
        samples: int,
        batches: int | None = None,
        stages: tuple[str, ...] = PIPELINE_STAGES,
        before: tuple[str, ...] = (),
        indexed: bool = True,
    ) -> LedgerShape:
        """A shape for that many samples, cut at ``MAX_RECORDED_SAMPLES``."""
        kept = min(max(samples, 1), MAX_RECORDED_SAMPLES)
        return cls(kept, min(batches or kept, kept), stages, before, indexed)


class Ledger:
    """One run's record. All times are ns of the system clock (``time.time_ns``), which is LoadGen's clock too.

    ``counters`` int64 (16,); ``issued_ns`` int64 (samples,): when LoadGen called; ``batch_of`` int32 (samples,): one
    more than the number of the batch that answered it, 0 while unanswered; ``index_of`` int32 (samples,): the data
    set's index; ``rows`` int64 (batches, 3 + 2 x stages). Samples are numbered in the order of issue, lanes and workers
    from 0.
    """

    def __init__(self, shape: LedgerShape, buffer: mmap.mmap | bytearray | None = None) -> None:
        self.shape = shape
        self._buffer = bytearray(shape.nbytes) if buffer is None else buffer
        view = memoryview(self._buffer)
        words = 8 * _HEADER
        rows_end = words + 8 * shape.batches * shape.columns
        before_end = rows_end + 8 * shape.samples * shape.before_columns
        issued_end = before_end + 8 * shape.samples
        batch_end = issued_end + 4 * shape.samples
        self.counters: Int64Array = np.frombuffer(view[:words], np.int64)
        self.words = view[:words].cast("q")
        """The counters as a memoryview: one store costs a third of NumPy's."""
        self.rows: Int64Array = np.frombuffer(view[words:rows_end], np.int64).reshape(shape.batches, shape.columns)
        self._pack_row = Struct(f"{shape.columns}q").pack_into
        self._rows_at = view[words:rows_end]
        self.issued_ns: Int64Array = np.frombuffer(view[before_end:issued_end], np.int64)
        self._pack_before = Struct(f"{shape.before_columns}q").pack_into
        self._before_at = view[rows_end:before_end]
        prepared = np.frombuffer(self._before_at, np.int64)
        self.before: Int64Array = prepared.reshape(shape.samples, shape.before_columns)
        self.batch_of: Int32Array = np.frombuffer(view[issued_end:batch_end], np.int32)
        self.index_of: Int32Array = np.frombuffer(view[batch_end : batch_end + 4 * shape.samples], np.int32)

    def issue(self, start: int, indices: Sequence[int], now_ns: int) -> None:
        """Record that the samples numbered from ``start`` were issued. O(1) Python work for any number."""
        end = min(start + len(indices), self.shape.samples)
        if start >= end:
            return
        if end - start == 1:
            self.issued_ns[start] = now_ns
            self.index_of[start] = indices[0]
            return
        self.issued_ns[start:end] = now_ns
        if self.shape.indexed:
            self.index_of[start:end] = indices[: end - start]

    def prepared(self, number: int, stamps: Sequence[int], worker: int) -> None:
        """Record a sample's stages before its batch: the begin of the first, then the end of each, ns; and who did."""
        if number < self.shape.samples:
            self._pack_before(self._before_at, 8 * self.shape.before_columns * number, *stamps, worker)

    def batch(
        self, number: int, starts: Sequence[tuple[int, int]], padded: int, stamps: Sequence[int], lane: int
    ) -> None:
        """Record batch ``number``: its runs of samples as (first, count), and begin and end of each stage in order."""
        if number >= self.shape.batches:
            return
        # The row first: whoever reads along must not find a sample that points to an empty row.
        total = starts[0][1] if len(starts) == 1 else sum(count for _, count in starts)
        self._pack_row(self._rows_at, 8 * self.shape.columns * number, total, padded, lane, *stamps)
        for start, count in starts:
            if count == 1 and start < self.shape.samples:
                self.batch_of[start] = number + 1
            else:
                self.batch_of[start : start + count] = number + 1
