"""Queries in, batches out: one queue for all lanes, of a class for each way to fill a batch; ``queue_for`` chooses."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sut.pipeline.batching import Batch, BatchingPolicy
from sut.pipeline.deadline import Deadline

Clock = Callable[[], int]
"""Nanoseconds of a clock that never goes back."""


@dataclass(slots=True)
class _Waiting:
    """One query, of which ``at`` samples are already taken."""

    ids: Sequence[int]
    indices: Sequence[int]
    start: int
    arrived_ns: int
    at: int = 0


class Queue:
    """The oldest first, as many as wait up to a full batch. One lock per batch and per query, never per sample."""

    def __init__(self, max_batch: int, clock: Clock = time.monotonic_ns) -> None:
        self.clock = clock
        self._timed = False  # whether it matters when a query arrived
        self._max_batch = max_batch
        self._for_one_lane = max_batch  # samples; a larger query wakes all lanes
        self._queries: deque[_Waiting] = deque()
        self._ready = threading.Condition(threading.Lock())
        self._idle = 0
        self._closed = False

    def put(self, ids: Sequence[int], indices: Sequence[int], start: int) -> None:
        """Hand over a query; its samples are numbered from ``start``, which goes on where the last query ended."""
        query = _Waiting(ids, indices, start, self.clock() if self._timed else 0)
        with self._ready:
            self._queries.append(query)
            if self._idle:
                if len(ids) > self._for_one_lane:
                    self._ready.notify_all()
                else:
                    self._ready.notify()

    def take(self, timeout_s: float) -> Batch | None:
        """The next batch, or None when nothing came within ``timeout_s`` or the queue was closed."""
        with self._ready:
            if not self._queries and not self._closed:
                self._wait(timeout_s)
            return self._pop(self._max_batch) if self._queries else None

    def _wait(self, timeout_s: float) -> None:
        self._idle += 1
        self._ready.wait(timeout_s)
        self._idle -= 1

    def _pop(self, room: int) -> Batch:
        """At most ``room`` samples of the oldest queries."""
        head = self._queries[0]
        if head.at == 0 and len(head.ids) < room and len(self._queries) == 1:
            self._queries.popleft()
            return Batch(head.ids, head.indices, [(head.start, len(head.ids))])
        if len(head.ids) - head.at >= room:
            taken = slice(head.at, head.at + room)
            head.at += room
            if head.at == len(head.ids):
                self._queries.popleft()
            return Batch(head.ids[taken], head.indices[taken], [(head.start + taken.start, room)])
        # Queries come in the order of their samples' numbers: what is taken from several is one run all the same.
        first = head.start + head.at
        ids: list[int] = []
        indices: list[int] = []
        while room and self._queries:
            head = self._queries[0]
            upto = min(head.at + room, len(head.ids))
            ids += head.ids[head.at : upto]
            indices += head.indices[head.at : upto]
            room -= upto - head.at
            head.at = upto
            if upto == len(head.ids):
                self._queries.popleft()
        return Batch(ids, indices, [(first, len(ids))])

    def close(self) -> None:
        """Wake every lane; ``take`` goes on handing out what is left."""
        with self._ready:
            self._closed = True
            self._ready.notify_all()

    @property
    def finished(self) -> bool:
        """Closed, and nothing left."""
        return self._closed and not self._queries


class SharingQueue(Queue):
    """Each query by itself, shared evenly by all lanes to its last sample."""

    def __init__(self, policy: BatchingPolicy) -> None:
        super().__init__(policy.max_batch)
        self._share = policy.share
        self._for_one_lane = 0

    def _pop(self, room: int) -> Batch:
        head = self._queries[0]
        at = head.at
        head.at = upto = at + self._share(len(head.ids), at)
        if upto == len(head.ids):
            self._queries.popleft()
        return Batch(head.ids[at:upto], head.indices[at:upto], [(head.start + at, upto - at)])


class PatientQueue(Queue):
    """The oldest first; the first of a batch waits up to ``max_wait_ns`` for more."""

    def __init__(self, max_batch: int, max_wait_ns: int, clock: Clock) -> None:
        super().__init__(max_batch, clock)
        self._timed = True
        self._max_wait_ns = max_wait_ns

    def take(self, timeout_s: float) -> Batch | None:
        """See ``Queue``."""
        with self._ready:
            if not self._queries and not self._closed:
                self._wait(timeout_s)
            if self._queries:
                self._fill_up()
            return self._pop(self._max_batch) if self._queries else None

    def _fill_up(self) -> None:
        """Wait for a full batch. Another lane may take meanwhile what was there."""
        until = self._until(self._queries[0].arrived_ns)
        while self._queries and self._samples() < self._max_batch and not self._closed:
            left_ns = until - self.clock()
            if left_ns <= 0:
                return
            self._wait(left_ns / 1e9)

    def _until(self, arrived_ns: int) -> int:
        """How long one that arrived then may wait."""
        return arrived_ns + self._max_wait_ns

    def _samples(self) -> int:
        """Samples that wait in queries that follow one another, so that their numbers tell."""
        oldest, newest = self._queries[0], self._queries[-1]
        return newest.start + len(newest.ids) - oldest.start - oldest.at


class DeadlineQueue(PatientQueue):
    """Those first that can still be in time, as ``sut.pipeline.deadline`` has it."""

    def __init__(self, max_batch: int, max_wait_ns: int, clock: Clock, deadline: Deadline) -> None:
        super().__init__(max_batch, max_wait_ns, clock)
        self._deadline = deadline
        self._aside: deque[_Waiting] = deque()
        """Hopeless queries, which let all others go before them."""
        self._passed = 0
        """Batches since a hopeless query was last answered."""

    def take(self, timeout_s: float) -> Batch | None:
        """See ``Queue``."""
        with self._ready:
            if not self._queries and not self._aside and not self._closed:
                self._wait(timeout_s)
            if self._max_wait_ns and self._queries:
                self._fill_up()
            return self._pop_in_time() if self._queries or self._aside else None

    def _until(self, arrived_ns: int) -> int:
        in_time = arrived_ns + self._deadline.bound_ns - self._deadline.service_ns[-1]
        return min(super()._until(arrived_ns), in_time)

    def _pop_in_time(self) -> Batch:
        """The batch that the oldest query which can still be in time can bear; the hopeless if there is no such."""
        queries, aside, deadline = self._queries, self._aside, self._deadline
        now = self.clock()
        hopeless_before = deadline.hopeless_before(now)
        while queries and queries[0].arrived_ns < hopeless_before:
            aside.append(queries.popleft())
        if queries:
            room = deadline.in_time(queries[0].arrived_ns, now)
            starved = bool(aside) and deadline.takes_along(aside[0].arrived_ns, now, self._passed)
            self._passed += 1
            batch = self._pop(room - starved) if room > starved else Batch([], [], [])
            if starved:
                batch = self._with_hopeless(batch, 1)
        else:
            batch = self._with_hopeless(Batch([], [], []), deadline.at_ease)
        if self._idle and (queries or aside):  # not all that was announced to one lane may have been taken
            self._ready.notify()
        return batch

    def _with_hopeless(self, batch: Batch, room: int) -> Batch:
        """The batch and ``room`` samples, at the most, of the queries set aside."""
        self._passed = 0
        ids, indices, starts = list(batch.ids), list(batch.indices), list(batch.starts)
        while room and self._aside:
            query = self._aside[0]
            upto = min(query.at + room, len(query.ids))
            ids += query.ids[query.at : upto]
            indices += query.indices[query.at : upto]
            starts.append((query.start + query.at, upto - query.at))
            room -= upto - query.at
            query.at = upto
            if upto == len(query.ids):
                self._aside.popleft()
        return Batch(ids, indices, starts)

    @property
    def finished(self) -> bool:
        """See ``Queue``."""
        return super().finished and not self._aside


def queue_for(policy: BatchingPolicy, deadline: Deadline | None = None, clock: Clock = time.monotonic_ns) -> Queue:
    """The queue of a policy; ``deadline``: where it is known what can be in time, and worth it."""
    if policy.shared_by > 1:
        return SharingQueue(policy)
    if deadline is not None:
        return DeadlineQueue(policy.max_batch, policy.max_wait_ns, clock, deadline)
    if policy.max_wait_ns:
        return PatientQueue(policy.max_batch, policy.max_wait_ns, clock)
    return Queue(policy.max_batch)
