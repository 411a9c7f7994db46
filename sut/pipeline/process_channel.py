"""What lies between processes that preprocess and the lanes of this one: rows that both have, and two pipes.

Queries wait here until there is a free row; then a *job* goes through a pipe to whichever process is free. When a row
is ready its number comes back through another pipe, on which one lane at a time listens: no thread stands between a
worker and the lane that infers what it made. What is known of a sample stays here, by its row.
"""

from __future__ import annotations

import os
import select
import threading
import time
from collections import deque
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from sut.errors import RunError
from sut.pipeline.channel import Patience
from sut.pipeline.lane import Surroundings
from sut.pipeline.shared import DONE, JOB, MOST_JOBS, Remote, SharedRows
from sut.pipeline.stage import GOODBYE_S, POLL_S, StageSettings
from sut.pipeline.staged import fail
from sut.pipeline.trays import Filled, Trays
from sut.qsl.shared_pictures import SharedPictures, Span

_NUDGE = DONE.pack(-1, -1)
"""Nothing is ready, but whoever listens is to look around."""
_NOT_LOADED = Span(0, -1)
_REHEARSED = -1
"""The number of a sample that nobody asked for."""
_REHEARSAL_S = 60.0
_NO_LANE = -1
_LOOK_S = 0.005
_MOST_HEARD = 64 * DONE.size


@dataclass(slots=True)
class _Sample:
    id: int
    index: int
    number: int


class ProcessChannel:
    """A bounded channel between this process's lanes and workers in others."""

    def __init__(
        self,
        rows: SharedRows,
        trays: Trays,
        infer: StageSettings,
        pictures: SharedPictures,
        shared: Surroundings,
    ) -> None:
        self.storage: NDArray[Any] = rows.storage
        self.jobs, self._jobs_in = os.pipe()
        """Where workers take jobs from."""
        self._done_out, self.done_in = os.pipe()
        """Where they say that a row is ready."""
        self._rows, self._trays, self._pictures, self._shared = rows, trays, pictures, shared
        self._patience = Patience(infer.batch, infer.max_wait_ns)
        self._waiting: deque[_Sample] = deque()
        self._at_work: dict[int, _Sample] = {}
        """By row, what workers have."""
        self._rehearsed: list[tuple[_Sample, Remote | None]] = []
        self._resting: frozenset[int] = frozenset()
        self._closed = False
        self.broken: str | None = None
        """Why no worker does anything any more."""
        self._state = threading.Lock()
        self._listener = threading.Lock()
        self._poll = select.poll()
        self._poll.register(self._done_out, select.POLLIN)

    def announce(self, samples: int) -> None:
        """See ``Channel``."""
        with self._state:
            self._trays.announce(samples)

    def ask(self, ids: Sequence[int], indices: Sequence[int], start: int) -> None:
        """Have samples, which were announced, preprocessed as soon as there are rows for them."""
        with self._state:
            self._waiting.extend(map(_Sample, ids, indices, range(start, start + len(ids))))
            self._send()
        if self.broken is not None:
            self._fail_all()

    def _send(self) -> None:
        """Send as many jobs as there are free rows."""
        jobs: list[bytes] = []
        room = MOST_JOBS - len(self._at_work) if self.broken is None else 0
        while self._waiting and len(jobs) < room and (free := self._trays.reserve()):
            sample, [row] = self._waiting.popleft(), free
            self._at_work[row] = sample
            span = self._pictures.spans.get(sample.index, _NOT_LOADED)
            jobs.append(JOB.pack(sample.number, span.offset, span.nbytes, row, span.height, span.width))
        step = select.PIPE_BUF // JOB.size
        for at in range(0, len(jobs), step):
            os.write(self._jobs_in, b"".join(jobs[at : at + step]))

    def take(self, lane: int) -> list[Filled]:
        """See ``Channel``."""
        if lane in self._resting:
            time.sleep(_LOOK_S)
            return []
        with self._listener:
            return self._listen(lane)

    def _listen(self, lane: int) -> list[Filled]:
        until = time.monotonic() + POLL_S
        while (left_s := until - time.monotonic()) > 0 and not self.finished and lane not in self._resting:
            with self._state:
                wait_s = self._patience.left_s(self._trays.waiting)
                if wait_s == 0:
                    return self._trays.take()
            if self._poll.poll(1000 * (left_s if wait_s is None else min(left_s, wait_s))):
                self._hear(os.read(self._done_out, _MOST_HEARD))
        return []

    def _hear(self, told: bytes) -> None:
        """Take in what workers say."""
        failed: list[tuple[_Sample, Remote, int]] = []
        with self._state:
            for row, worker in DONE.iter_unpack(told):
                sample = self._at_work.pop(row, None)
                if sample is None:  # a nudge, or of a run that has been given up
                    continue
                told_number, error, geometry, stamps = self._rows.told(row)
                if told_number != sample.number:
                    raise RunError(f"preprocess-{worker} answered for sample {told_number}, not {sample.number}")
                if sample.number == _REHEARSED:
                    self._rehearsed.append((sample, error))
                    self._trays.drop(row)
                elif error is None:
                    self._shared.recorder.ledger.prepared(sample.number, stamps, worker)
                    self._trays.put(Filled(sample.id, sample.index, sample.number, row, geometry))
                else:
                    self._trays.drop(row)
                    failed.append((sample, error, worker))
            if self._waiting:
                self._send()
        for sample, error, worker in failed:
            self._shared.failures.record(error, [sample.index])
            fail(self._shared, [sample.id], [sample.number], self._rows.stages, worker)

    def done(self, rows: Iterable[int]) -> None:
        """See ``Channel``."""
        with self._state:
            self._trays.done(rows)
            if self._waiting:
                self._send()

    def rest(self, lanes: Collection[int]) -> None:
        """See ``Channel``."""
        self._resting = frozenset(lanes)
        os.write(self.done_in, _NUDGE)

    def give_up(self, why: str) -> None:
        """Answer with nothing what is and will be asked, since no worker is left."""
        with self._state:
            self.broken = why
        self._fail_all()

    def _fail_all(self) -> None:
        with self._state:
            lost = [*self._at_work.items()]
            samples = [*(sample for _, sample in lost), *self._waiting]
            self._at_work.clear()
            self._waiting.clear()
            self._trays.cancel(len(samples) - len(lost))
            for row, _ in lost:
                self._trays.drop(row)
        for sample in samples:
            if sample.number == _REHEARSED:
                continue
            self._shared.failures.record(RunError(self.broken), [sample.index])
            fail(self._shared, [sample.id], [sample.number], self._rows.stages, 0)

    def rehearse(self, indices: Sequence[int]) -> None:
        """Have samples preprocessed that nobody asked for. Raises ``RunError`` with the file of one that fails."""
        with self._state:
            self._rehearsed.clear()
            self._trays.announce(len(indices))
            self._waiting.extend(_Sample(0, index, _REHEARSED) for index in indices)
            self._send()
        deadline = time.monotonic() + _REHEARSAL_S
        while len(self._rehearsed) < len(indices):
            if self.broken is not None or time.monotonic() > deadline:
                raise RunError(self.broken or f"preprocessing {len(indices)} samples took over {_REHEARSAL_S:.0f} s")
            self.take(_NO_LANE)
        for sample, error in self._rehearsed:
            if error is not None:
                raise RunError(self._shared.failures.described(error, [sample.index])) from error

    def drain(self) -> None:
        """Wait until workers have done all that was asked, 30 s at the most."""
        deadline = time.monotonic() + GOODBYE_S
        while (self._waiting or self._at_work) and time.monotonic() < deadline:
            time.sleep(_LOOK_S)

    def close_jobs(self) -> None:
        """Tell the workers that nothing more comes."""
        os.close(self._jobs_in)

    def close(self) -> None:
        """See ``Channel``."""
        self._closed = True
        os.write(self.done_in, _NUDGE)

    def close_pipes(self) -> None:
        """Once no lane and no worker has anything to do with them."""
        for each in (self.jobs, self._done_out, self.done_in):
            os.close(each)

    @property
    def finished(self) -> bool:
        """See ``Channel``."""
        return self._closed and self._trays.is_empty
