"""The fused pipeline: fill a slot, infer, decode the answer, complete; all in the thread of its lane.

A lane stamps begin and end of each stage once per batch. It never lets an error out: LoadGen would wait for ever or the
process would crash. It answers the samples with nothing, and remembers what happened, so that the run is failed.
"""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from backends.base import Runner, Slot
from preprocess.base import Geometry
from sut.batching import Batch, BatchingPolicy
from sut.errors import one_line
from sut.ledger import Counter, Ledger
from sut.tasks.base import Payloads, Task

Clock = Callable[[], int]
"""Nanoseconds of the system clock."""

Complete = Callable[[Sequence[int], Payloads | None], int]
"""Hands the answers of some samples to who asked; None for samples that failed. Returns when it did so, in ns."""


class Source(Protocol):
    """What fills a slot with samples: the library at its boundary."""

    def fill(self, indices: Sequence[int], slot: Slot, mark: Callable[[str], None]) -> list[Geometry]: ...


@dataclass(slots=True)
class Failures:
    """What went wrong in a run. The first error is kept with its traceback; ``tell`` is called with it at once."""

    name_of: Callable[[int], str]
    tell: Callable[[str], None] = lambda message: None
    samples: int = 0
    first_error: str | None = None
    first_traceback: str | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def record(self, error: BaseException, indices: Sequence[int]) -> None:
        """Count the samples of a batch as failed."""
        with self._lock:
            self.samples += len(indices)
            if self.first_error is not None:
                return
            files = self.name_of(indices[0])
            if len(indices) > 1:
                files += f" (in a batch of {len(indices)})"
            self.first_error = f"{files}: {type(error).__name__}: {one_line(error)}"
            self.first_traceback = "".join(traceback.format_exception(error))
        self.tell(self.first_error)


def _no_mark(stage: str) -> None:
    """The source's own stages are not told apart."""


class Lane:
    """One copy of the fused pipeline. ``work`` is the timed work on one batch; ``process`` also completes it."""

    def __init__(
        self,
        runner: Runner,
        source: Source,
        task: Task,
        policy: BatchingPolicy,
        ledger: Ledger,
        failures: Failures,
        complete: Complete,
        clock: Clock,
        record_lock: threading.Lock,
    ) -> None:
        self._runner = runner
        self._source = source
        self._task = task
        self._policy = policy
        self._ledger = ledger
        self._failures = failures
        self._complete = complete
        self._clock = clock
        self._record_lock = record_lock

    def use(self, ledger: Ledger) -> None:
        """Record into another ledger from now on."""
        self._ledger = ledger

    def work(self, indices: Sequence[int]) -> tuple[Payloads, list[int]]:
        """Answer some samples, without completing them.

        Returns the answers and the stamps: begin and end of ``preprocess``, ``infer`` and ``postprocess`` in ns.
        """
        clock = self._clock
        n = len(indices)
        begin_fill = clock()
        slot = self._runner.slot(self._policy.padded(n))
        geometries = self._source.fill(indices, slot, _no_mark)
        end_fill = clock()
        begin_infer = clock()
        outputs = self._runner.infer(slot)
        end_infer = clock()
        begin_decode = clock()
        payloads = self._task.decode(outputs, n, geometries)
        if len(payloads) != n:
            raise ValueError(f"{len(payloads)} answers for {n} samples")
        return payloads, [begin_fill, end_fill, begin_infer, end_infer, begin_decode, clock()]

    def process(self, batch: Batch) -> None:
        """Answer and complete a batch. Never raises."""
        payloads: Payloads | None
        try:
            payloads, stamps = self.work(batch.indices)
        except BaseException as error:
            self._failures.record(error, batch.indices)
            now = self._clock()
            payloads, stamps = None, [now] * 6
        begin = self._clock()
        handed = self._complete(batch.ids, payloads)
        self._record(batch, payloads is None, (*stamps, begin, handed))

    def _record(self, batch: Batch, failed: bool, stamps: Sequence[int]) -> None:
        n = len(batch)
        padded = self._policy.padded(n) - n
        words = self._ledger.words
        with self._record_lock:
            number = words[Counter.BATCHES]
            words[Counter.BATCHES] = number + 1
            words[Counter.DONE] += n
            words[Counter.PADDED] += padded
            words[Counter.HEARTBEAT] += 1
            if failed:
                words[Counter.FAILED] += n
        self._ledger.batch(number, batch.starts, padded, stamps)
