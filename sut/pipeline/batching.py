"""How queries become batches: one policy per scenario, one queue for all lanes."""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from sut.pipeline.deadline import Deadline, service_times

Batching = Literal["fifo", "deadline"]


@dataclass(slots=True)
class Batch:
    """Samples that are answered together. ``starts`` are its runs of sample numbers as (first, count)."""

    ids: Sequence[int]
    indices: Sequence[int]
    starts: list[tuple[int, int]]

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, slots=True)
class BatchingPolicy:
    """``inline``: the work is done in LoadGen's own call (SingleStream, MultiStream on one lane), without a thread in
    between.

    ``max_batch`` samples at the most; ``max_wait_ns`` is how long the first of a batch may wait for more (0: take what
    is waiting); ``sizes`` are the batch sizes the backend takes, ascending (None: any). ``shared_by`` lanes share each
    query evenly to its last sample (1: batches are filled one after another). ``batching``: first in, first out, or,
    once service times and latency bound are known, by ``sut.pipeline.deadline``.
    """

    inline: bool
    max_batch: int
    max_wait_ns: int = 0
    sizes: tuple[int, ...] | None = None
    shared_by: int = 1
    batching: Batching = "fifo"

    @classmethod
    def of(
        cls,
        scenario: str,
        max_batch: int,
        max_wait_ns: int,
        sizes: tuple[int, ...] | None,
        lanes: int = 1,
        batching: Batching = "deadline",
    ) -> BatchingPolicy:
        """The policy of a scenario; ``max_batch`` is cut at the largest size the backend takes."""
        limit = max_batch if sizes is None else min(max_batch, sizes[-1])
        return cls(
            inline=scenario == "SingleStream" or (scenario == "MultiStream" and lanes == 1),
            max_batch=limit,
            max_wait_ns=max_wait_ns if scenario == "Server" else 0,
            sizes=sizes,
            shared_by=lanes if scenario in ("MultiStream", "Offline") else 1,
            batching=batching if scenario == "Server" else "fifo",
        )

    def of_one(self) -> BatchingPolicy:
        """The same for single samples, on their way to the workers of a staged pipeline."""
        return BatchingPolicy(inline=False, max_batch=1)

    def padded(self, n: int) -> int:
        """The batch size that ``n`` samples are run at: the next one the backend takes."""
        if self.sizes is None:
            return n
        return self.sizes[bisect_left(self.sizes, n)]

    def share(self, count: int, at: int) -> int:
        """Samples in the batch that begins ``at`` samples into a query of ``count``.

        Full batches as long as more is left than one for each lane; that rest is cut evenly, as far as the sizes that
        the backend takes allow, so that no lane stands idle while another has a full batch left.
        """
        full = max(0, -(-count // self.max_batch) - self.shared_by) * self.max_batch
        if at < full:
            return self.max_batch
        rest = count - full
        if self.sizes is not None:
            even = min(self.padded(-(-rest // self.shared_by)), self.max_batch)
            return min(even, count - at)
        even, larger = divmod(rest, min(self.shared_by, rest))
        return even + 1 if at - full < larger * (even + 1) else even

    def query_sizes(self, count: int) -> set[int]:
        """Every size of the batches that a query of ``count`` samples is cut into."""
        full = max(0, -(-count // self.max_batch) - self.shared_by) * self.max_batch
        found = {self.max_batch} if full else set()
        at = full
        while at < count:
            found.add(step := self.share(count, at))
            at += step
        return found

    def cut(self, ids: Sequence[int], indices: Sequence[int], start: int) -> list[Batch]:
        """One query as batches, in order."""
        count = len(ids)
        if count <= self.max_batch and self.shared_by == 1:
            return [Batch(ids, indices, [(start, count)])]
        batches = []
        at = 0
        while at < count:
            step = self.share(count, at)
            batches.append(Batch(ids[at : at + step], indices[at : at + step], [(start + at, step)]))
            at += step
        return batches


@dataclass(slots=True)
class _Waiting:
    """One query, of which ``at`` samples are already taken."""

    ids: Sequence[int]
    indices: Sequence[int]
    start: int
    arrived_ns: int
    at: int = 0


@dataclass(slots=True)
class Batcher:
    """Queries in, batches out, the oldest first. One lock per batch and per query, never per sample.

    Once ``know_service_times`` has told what batches take, a policy of ``deadline`` answers those first that can still
    be in time. ``clock`` is in ns and never goes back.
    """

    policy: BatchingPolicy
    clock: Callable[[], int] = time.monotonic_ns
    _queries: deque[_Waiting] = field(default_factory=deque)
    _aside: deque[_Waiting] = field(default_factory=deque)
    """Hopeless queries, which let all others go before them."""
    _passed: int = 0
    """Batches since a hopeless query was last answered."""
    _deadline: Deadline | None = None
    _ready: threading.Condition = field(default_factory=lambda: threading.Condition(threading.Lock()))
    _waiting: int = 0
    """Samples of ``_queries``."""
    _idle: int = 0
    _closed: bool = False
    _timed: bool = False
    """Whether it matters when a query arrived."""

    def __post_init__(self) -> None:
        self._timed = self.policy.max_wait_ns > 0

    def know_service_times(self, batch_ns: Mapping[int, int], bound_ns: int) -> None:
        """What batches take, in ns by padded size, and the latency bound: from now on queries are to be in time.

        Without effect for a policy of ``fifo``, and where there is nothing to win.
        """
        if self.policy.batching == "fifo" or not batch_ns:
            return
        padded = [self.policy.padded(n) for n in range(1, self.policy.max_batch + 1)]
        with self._ready:
            self._deadline = Deadline.worthwhile(bound_ns, service_times(batch_ns, padded))
            self._timed = self._deadline is not None or self.policy.max_wait_ns > 0

    def put(self, ids: Sequence[int], indices: Sequence[int], start: int) -> None:
        """Hand over a query; its samples are numbered from ``start``, which goes on where the last query ended."""
        query = _Waiting(ids, indices, start, self.clock() if self._timed else 0)
        with self._ready:
            self._queries.append(query)
            self._waiting += len(ids)
            if self._idle:
                if len(ids) > self.policy.max_batch or self.policy.shared_by > 1:
                    self._ready.notify_all()
                else:
                    self._ready.notify()

    def take(self, timeout_s: float) -> Batch | None:
        """The next batch, or None when nothing came within ``timeout_s`` or the batcher was closed."""
        with self._ready:
            if not self._queries:
                if not self._aside and not self._closed:
                    self._wait(timeout_s)
                if not self._queries and not self._aside:
                    return None
            if self._timed:
                return self._take_timed()
            return self._pop(self.policy.max_batch)

    def _take_timed(self) -> Batch | None:
        """The next batch where it matters when queries arrived."""
        if self.policy.max_wait_ns and self._queries and self._waiting < self.policy.max_batch:
            self._fill_up()  # another lane may take them meanwhile
        if self._deadline is not None:
            return self._pop_in_time(self._deadline)
        return self._pop(self.policy.max_batch) if self._queries else None

    def _fill_up(self) -> None:
        head_ns = self._queries[0].arrived_ns
        until = head_ns + self.policy.max_wait_ns
        if self._deadline is not None:
            until = min(until, head_ns + self._deadline.bound_ns - self._deadline.service_ns[-1])
        while 0 < self._waiting < self.policy.max_batch and not self._closed:
            left_ns = until - self.clock()
            if left_ns <= 0:
                return
            self._wait(left_ns / 1e9)

    def _wait(self, timeout_s: float) -> None:
        self._idle += 1
        self._ready.wait(timeout_s)
        self._idle -= 1

    def _pop(self, room: int) -> Batch:
        """At most ``room`` samples of the oldest queries."""
        head = self._queries[0]
        if self.policy.shared_by > 1:
            room = self.policy.share(len(head.ids), head.at)
        if head.at == 0 and len(head.ids) < room and len(self._queries) == 1:
            self._queries.popleft()
            self._waiting -= len(head.ids)
            return Batch(head.ids, head.indices, [(head.start, len(head.ids))])
        if len(head.ids) - head.at >= room:
            taken = slice(head.at, head.at + room)
            head.at += room
            if head.at == len(head.ids):
                self._queries.popleft()
            self._waiting -= room
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
        self._waiting -= len(ids)
        return Batch(ids, indices, [(first, len(ids))])

    def _pop_in_time(self, deadline: Deadline) -> Batch | None:
        """The batch that the oldest query which can still be in time can bear; the hopeless if there is no such."""
        queries, aside = self._queries, self._aside
        now = self.clock()
        hopeless_before = deadline.hopeless_before(now)
        while queries and queries[0].arrived_ns < hopeless_before:
            query = queries.popleft()
            self._waiting -= len(query.ids) - query.at
            aside.append(query)
        if queries:
            room = deadline.in_time(queries[0].arrived_ns, now)
            starved = bool(aside) and deadline.takes_along(aside[0].arrived_ns, now, self._passed)
            self._passed += 1
            batch = self._pop(room - starved) if room > starved else Batch([], [], [])
            if starved:
                batch = self._with_hopeless(batch, 1)
        elif aside:
            batch = self._with_hopeless(Batch([], [], []), deadline.at_ease)
        else:
            return None
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

    def close(self) -> None:
        """Wake every lane; ``take`` goes on handing out what is left."""
        with self._ready:
            self._closed = True
            self._ready.notify_all()

    @property
    def finished(self) -> bool:
        """Closed, and nothing left."""
        return self._closed and not self._queries and not self._aside
