"""The fused pipeline: fill a slot, infer, decode the answer, complete; all in the thread of its lane.

A lane stamps begin and end of each stage once per batch. It never lets an error out: LoadGen would wait for ever or the
process would crash. It answers the samples with nothing, and remembers what happened, so that the run is failed.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from numpy.typing import NDArray

from backends.base import Runner, Slot
from preprocess.base import BadPicture, Geometry, Mark, Target, unmarked
from sut.errors import RunError, one_line
from sut.mlperf.loadgen import Complete
from sut.pipeline.batching import Batch, BatchingPolicy
from sut.pipeline.devices import Unit
from sut.pipeline.ledger import Counter, Ledger
from sut.process.affinity import staying_on
from sut.qsl.library import Source
from sut.tasks.base import Payloads, Task

Clock = Callable[[], int]
"""Nanoseconds of the system clock."""


def lane_stages(
    transfers: bool, decoding: tuple[str, ...] = Task.stages, details: tuple[str, ...] = ()
) -> tuple[str, ...]:
    """What follows on a filled slot; where the backend ``transfers``, the copies are stages of their own.

    ``decoding`` are the task's, ``details`` the backend's, each a part of ``infer``.
    """
    infer = ("h2d", "infer", "d2h") if transfers else ("infer", *(f"infer/{each}" for each in details))
    return (*infer, *decoding, "complete")


@dataclass(slots=True)
class Failures:
    """What went wrong in a run. The first error is kept; ``tell`` is called with it at once."""

    name_of: Callable[[int], str]
    tell: Callable[[str], None] = lambda message: None
    samples: int = 0
    first_error: str | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def record(self, error: BaseException, indices: Sequence[int], on: str = "") -> None:
        """Count the samples of a batch as failed, and name the bad one's file where the error knows which it is."""
        with self._lock:
            self.samples += len(indices)
            if self.first_error is not None:
                return
            self.first_error = self.described(error, indices, on)
        self.tell(self.first_error)

    def described(self, error: BaseException, indices: Sequence[int], on: str = "") -> str:
        """An error in a batch of samples in one line, with the name of the bad one's file, or of the batch's first.

        Where no file is to blame also ``on`` which device it was, if there are several.
        """
        bad = error.position if isinstance(error, BadPicture) else None
        batch = f"in a batch of {len(indices)}" if bad is None and len(indices) > 1 else ""
        where = ", ".join(filter(None, (batch, "" if isinstance(error, BadPicture) else on)))
        told = f" ({where})" if where else ""
        kind = getattr(error, "kind", type(error).__name__)  # of one that was raised in another process
        return f"{self.name_of(indices[bad or 0])}{told}: {kind}: {one_line(error)}"


class Recorder:
    """Counts what is done and writes it into the ledger; shared by all threads of a run."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self._lock = threading.Lock()

    def record(
        self, n: int, starts: Sequence[tuple[int, int]], padded: int, failed: bool, stamps: Sequence[int], lane: int
    ) -> None:
        """A lane answered ``n`` samples: which, the rows it padded them by, begin and end of each stage in ns."""
        words = self.ledger.words
        with self._lock:
            number = words[Counter.BATCHES]
            words[Counter.BATCHES] = number + 1
            words[Counter.DONE] += n
            words[Counter.PADDED] += padded
            words[Counter.HEARTBEAT] += 1
            if failed:
                words[Counter.FAILED] += n
        self.ledger.batch(number, starts, padded, stamps, lane)


class Decoder(Protocol):
    """A task as a lane sees it."""

    @property
    def stages(self) -> tuple[str, ...]: ...
    def decode(
        self,
        outputs: Mapping[str, Any],
        indices: Sequence[int],
        geometries: Sequence[Geometry],
        rows: int,
        mark: Mark = unmarked,
    ) -> Payloads: ...


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the threads of one run share."""

    task: Decoder
    policy: BatchingPolicy
    recorder: Recorder
    failures: Failures
    complete: Complete
    clock: Clock
    transfers: bool = False
    """``Backend.transfers``."""
    details: tuple[str, ...] = ()
    """``Backend.details``."""

    def failed_stamps(self, stages_before: int) -> list[int]:
        """Begin and end, now, of all stages of a batch that failed, so many before the lane's, but of ``complete``."""
        stages = stages_before + len(lane_stages(self.transfers, self.task.stages, self.details)) - 1
        return [self.clock()] * (2 * stages)


class Lane:
    """One copy of the fused pipeline.

    ``work`` is the timed work on one batch, ``process`` also completes it, ``rehearse`` does it before the clock, on
    the cores of the lane's unit. Whose thread does the other two stays there by itself (``sut.process.affinity``).
    """

    def __init__(
        self,
        runner: Runner,
        source: Source,
        shared: Surroundings,
        lend_to: str | None = None,
        number: int = 0,
        unit: Unit | None = None,
    ) -> None:
        """``lend_to``: the input that takes a single ready sample where it lies; None to copy each into a slot."""
        self._input, self.number = lend_to, number
        self.cores = unit.cores if unit else None
        """On which its work is done; None: anywhere."""
        self.on = f"on {unit.name}" if unit else ""
        self._runner, self._source, self._shared = runner, source, shared

    def work(self, indices: Sequence[int]) -> tuple[Payloads, list[int]]:
        """Answer some samples, without completing them.

        Returns the answers and the stamps in ns: begin and end of each of the source's stages and of ``lane_stages``,
        but of ``complete``.
        """
        clock = self._shared.clock
        stamps = [clock()]
        if self._input and len(indices) == 1 and (ready := self._source.view(indices[0])) is not None:
            slot, geometries = Slot(1, {self._input: ready[0]}), ready[1]
            stamps.append(clock())
        else:
            slot = self.slot(len(indices))
            geometries = fill_stamped(self._source, indices, slot, stamps, clock)
        return self.answer(slot, indices, geometries, stamps), stamps

    def rehearse(self, indices: Sequence[int]) -> Payloads:
        """Do the work without being asked, as warm-up. Raises ``RunError`` with the name of the file to blame."""
        try:
            with staying_on(self.cores):
                return self.work(indices)[0]
        except Exception as error:
            raise RunError(self._shared.failures.described(error, indices, self.on)) from error

    def examine(self, indices: Sequence[int]) -> tuple[Payloads, Mapping[str, Any]]:
        """``rehearse``, with the outputs that the answers come from: all rows, valid until the lane's next batch."""
        try:
            with staying_on(self.cores):
                slot = self.slot(len(indices))
                geometries = self._source.fill(indices, slot, unmarked)
                outputs = self._runner.infer(slot)
                return self._shared.task.decode(outputs, indices, geometries, slot.n), outputs
        except Exception as error:
            raise RunError(self._shared.failures.described(error, indices, self.on)) from error

    def answer(self, slot: Slot, indices: Sequence[int], geometries: Sequence[Geometry], stamps: list[int]) -> Payloads:
        """Infer and decode a slot's first rows, which hold these samples; stamps begin and end of each stage."""
        clock = self._shared.clock
        stamps.append(clock())
        outputs = self._runner.infer(slot)
        end = clock()
        if self._shared.transfers:
            up, down = self._runner.transfers_ns
            sent = min(stamps[-1] + up, end)
            computed = max(end - down, sent)
            stamps += (sent, sent, computed, computed)
        stamps.append(end)
        if self._shared.details:
            stamps += within(stamps[-2], end, self._runner.details_ns)
        stamps.append(clock())
        task = self._shared.task
        if len(task.stages) == 1:
            payloads = task.decode(outputs, indices, geometries, slot.n)
        else:
            payloads = task.decode(outputs, indices, geometries, slot.n, Stamping(stamps, clock))
        if len(payloads) != len(indices):
            raise ValueError(f"{len(payloads)} answers for {len(indices)} samples")
        stamps.append(clock())
        return payloads

    def process(self, batch: Batch) -> None:
        """Answer and complete a batch. Never raises."""
        shared = self._shared
        payloads: Payloads | None
        try:
            payloads, stamps = self.work(batch.indices)
        except BaseException as error:
            shared.failures.record(error, batch.indices, self.on)
            payloads, stamps = None, shared.failed_stamps(len(self._source.stages))
        finish(shared, batch.ids, payloads, batch.starts, stamps, self.number)

    def lent(self, storage: NDArray[Any], rows: Sequence[int]) -> Slot | None:
        """A slot that is these rows of ``storage`` where they lie; None where they must be copied into the runner's.

        As they must be where the runner takes no other buffers, or they do not follow each other, or are to be padded.
        """
        first, n = rows[0], len(rows)
        if not self._input or rows[-1] - first != n - 1 or self._shared.policy.padded(n) != n:
            return None
        return Slot(n, {self._input: storage[first : first + n]})

    def slot(self, n: int) -> Slot:
        """The runner's slot for ``n`` samples, padded to a size that the backend takes."""
        return self._runner.slot(self._shared.policy.padded(n))


def within(begin: int, end: int, parts_ns: Sequence[int]) -> list[int]:
    """Begin and end of parts that follow each other in the middle of a stage: how long each took is all that is known.

    What is told of another machine may be more than there was, or less than nothing: it is cut.

    >>> within(100, 200, (20, 40)), within(100, 200, (-20, 400))
    ([120, 140, 140, 180], [100, 100, 100, 200])
    """
    parts = [max(0, part) for part in parts_ns]
    at = begin + max(0, end - begin - sum(parts)) // 2
    stamps = []
    for part in parts:
        stamps += [at, at := min(at + part, end)]
    return stamps


class Stamping:
    """A ``Mark`` that appends to ``stamps`` the end of each stage and the begin of the next.

    Who marks may know better than now when a stage ended.
    """

    def __init__(self, stamps: list[int], clock: Clock) -> None:
        """``stamps`` has the begin of the first stage."""
        self._stamps, self._clock = stamps, clock

    def __call__(self, stage: str) -> None:
        self.at(self._clock())

    def at(self, end_ns: int) -> None:
        """A stage ended then, not before the one before it, and the next one began."""
        end_ns = max(end_ns, self._stamps[-1])
        self._stamps += (end_ns, end_ns)


def ended(mark: Mark, stage: str, end_ns: int) -> None:
    """``mark`` a stage that ended at another time than now, in ns of the lane's clock."""
    if isinstance(mark, Stamping):
        mark.at(end_ns)
    else:
        mark(stage)


def fill_stamped(
    source: Source, indices: Sequence[int], target: Target, stamps: list[int], clock: Clock
) -> list[Geometry]:
    """Fill the target. ``stamps`` has the begin; appended are the end of each stage and the begin of the next."""
    geometries = source.fill(indices, target, Stamping(stamps, clock))
    if len(stamps) != 2 * len(source.stages) + 1:
        raise RuntimeError(f"{len(stamps) // 2} stages were marked, expected {', '.join(source.stages)}")
    stamps.pop()
    return geometries


def finish(
    shared: Surroundings,
    ids: Sequence[int],
    payloads: Payloads | None,
    starts: Sequence[tuple[int, int]],
    stamps: list[int],
    lane: int,
) -> None:
    """Complete some samples (``payloads`` None: they failed) and record their batch."""
    stamps.append(shared.clock())
    stamps.append(shared.complete(ids, payloads))
    n = len(ids)
    shared.recorder.record(n, starts, shared.policy.padded(n) - n, payloads is None, stamps, lane)
