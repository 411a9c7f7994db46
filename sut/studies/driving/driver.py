"""Drives a loaded system through loads one after another, and takes down what it did: in the process that has it."""

from __future__ import annotations

import gc
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sut.mlperf.logs import Int64Array, Trace
from sut.pipeline.ledger import STAMPS, Counter, Ledger
from sut.pipeline.system import SUT
from sut.process.memory import forget_peak, peak_bytes
from sut.results.samples import Samples
from sut.results.stages import join
from sut.run.timing import Beat
from sut.studies.driving.asking import Answers, Asking, clock
from sut.studies.driving.driven import Drive, Driven
from sut.studies.driving.loads import Closed

_DRAWS = 2**16
_SEED = 0


class Driver:
    """A loaded system, whose ``complete`` is that of ``answers`` and whose clock is that of ``asking``.

    ``indices`` are loaded samples; which of them are asked, at random, is the same in each drive. A load that is not
    answered for ``watchdog_s`` ends with ``RunError``.
    """

    def __init__(
        self, sut: SUT, answers: Answers, indices: Sequence[int], watchdog_s: float = 30.0, beat: Beat = lambda: None
    ) -> None:
        self._sut, self._answers, self._watchdog_s, self._beat = sut, answers, watchdog_s, beat
        drawn = np.random.default_rng(_SEED).integers(0, len(indices), _DRAWS)
        self._draws: list[int] = [indices[each] for each in drawn]

    def drive(self, drive: Drive, number: int, directory: Path) -> Driven:
        """Ask what ``drive`` says, wait for all answers, and write the samples that count into ``directory``.

        Raises ``RunError`` where answers stay away.
        """
        failures = self._sut.failures
        failures.samples, failures.first_error = 0, None
        gc.collect()
        forget_peak()
        asking = Asking(self._sut, self._answers, self._draws, drive, self._watchdog_s, self._beat)
        with self._sut.asking():
            asking.go()
        return self._taken_down(drive, asking, number, directory / f"samples-{number}.npz")

    def _taken_down(self, drive: Drive, asking: Asking, number: int, path: Path) -> Driven:
        ledger, window, failures = asking.ledger, asking.window, self._sut.failures
        scheduled_ns = asking.scheduled_ns
        stages = join(ledger, _schedule(ledger, scheduled_ns))
        counts_by = scheduled_ns + stages.latency_ns if isinstance(drive.load, Closed) else scheduled_ns
        counted = np.flatnonzero((counts_by >= window.begin_ns) & (counts_by < window.end_ns))
        nothing = None if len(counted) else f"no sample counts in {drive.seconds:g} s; ask for more seconds"
        by_stage = {name: values[counted] for name, values in stages.per_sample.items()}
        since_begin_ns = scheduled_ns[counted] - asking.begin_ns
        Samples(ledger.index_of[counted], since_begin_ns, stages.latency_ns[counted], by_stage).save(path)
        duration_s = (window.end_ns - window.begin_ns) / 1e9
        return Driven(
            number=number,
            load=drive.load,
            duration_s=duration_s,
            samples=len(counted),
            failed=failures.samples,
            first_error=failures.first_error or asking.trouble or nothing,
            samples_per_second=_work_in(ledger, window.begin_ns, window.end_ns) / duration_s,
            batch_sizes=_batch_sizes(ledger.rows[ledger.batch_of[counted] - 1, 0]),
            cost_ns=stages.cost_ns,
            cpu_s=window.cpu_s,
            host_bytes=peak_bytes(),
            path=path,
            begin_s=time.time() - (clock() - window.begin_ns) / 1e9,
            carried_bytes_per_sample=_carried_bytes(self._sut) / max(1, int(ledger.words[Counter.DONE])),
        )


def _carried_bytes(sut: SUT) -> int:
    """Of all messages of a load between its two models; 0 where it has one, or nothing between them."""
    pool = sut.second.pool if sut.second is not None else None
    return sum(each.bytes for each in pool.carried.values()) if pool is not None else 0


def _schedule(ledger: Ledger, scheduled_ns: Int64Array) -> Trace:
    """What LoadGen's trace would be: by it the stages close over the latency."""
    count = len(scheduled_ns)
    ends = ledger.rows[ledger.batch_of[:count] - 1, -1]
    delays = ledger.issued_ns[:count] - scheduled_ns
    return Trace(ledger.index_of[:count].astype(np.int64), delays, ends - scheduled_ns)


def _batch_sizes(batch: Int64Array) -> dict[int, int]:
    """How many batches had how many samples; one that reaches over an edge counts."""
    sizes, samples = np.unique(batch, return_counts=True)
    return {int(size): -(-int(count) // int(size)) for size, count in zip(sizes, samples, strict=True)}


def _work_in(ledger: Ledger, begin_ns: int, end_ns: int) -> float:
    """Samples that were worked on between two times: of what reaches over an edge, as much as lies inside.

    That is a batch; where workers preprocess, each sample from when its worker took it.
    """
    issued, batches = int(ledger.counters[Counter.ISSUED]), int(ledger.counters[Counter.BATCHES])
    if ledger.shape.before:
        begin, size = ledger.before[:issued, 0], np.ones(issued, np.int64)
        end = ledger.rows[ledger.batch_of[:issued] - 1, -1]
    else:
        size, begin, end = (ledger.rows[:batches, column] for column in (0, STAMPS, -1))
    inside = np.minimum(end, end_ns) - np.maximum(begin, begin_ns)
    return float((size * np.clip(inside / np.maximum(end - begin, 1), 0, 1)).sum())
