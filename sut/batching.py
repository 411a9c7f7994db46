"""How queries become batches: one policy per scenario, one queue for all lanes."""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace


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
    """``inline``: the work is done in LoadGen's own call (SingleStream, MultiStream), without a thread in between.

    ``max_batch`` samples at the most; ``max_wait_ns`` is how long the first of a batch may wait for more (0: take what
    is waiting); ``sizes`` are the batch sizes the backend takes, ascending (None: any).
    """

    inline: bool
    max_batch: int
    max_wait_ns: int = 0
    sizes: tuple[int, ...] | None = None

    @classmethod
    def of(cls, scenario: str, max_batch: int, max_wait_ns: int, sizes: tuple[int, ...] | None) -> BatchingPolicy:
        """The policy of a scenario; ``max_batch`` is cut at the largest size the backend takes."""
        limit = max_batch if sizes is None else min(max_batch, sizes[-1])
        return cls(
            inline=scenario in ("SingleStream", "MultiStream"),
            max_batch=limit,
            max_wait_ns=max_wait_ns if scenario == "Server" else 0,
            sizes=sizes,
        )

    def of_one(self) -> BatchingPolicy:
        """The same for single samples, on their way to the workers of a staged pipeline."""
        return replace(self, inline=False, max_batch=1, max_wait_ns=0, sizes=None)

    def padded(self, n: int) -> int:
        """The batch size that ``n`` samples are run at: the next one the backend takes."""
        if self.sizes is None:
            return n
        return self.sizes[bisect_left(self.sizes, n)]

    def cut(self, ids: Sequence[int], indices: Sequence[int], start: int) -> list[Batch]:
        """One query as batches, in order."""
        if len(ids) <= self.max_batch:
            return [Batch(ids, indices, [(start, len(ids))])]
        step = self.max_batch
        return [
            Batch(ids[at : at + step], indices[at : at + step], [(start + at, len(ids[at : at + step]))])
            for at in range(0, len(ids), step)
        ]


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
    """First in, first out: queries in, batches out. One lock per batch and per query, never per sample."""

    policy: BatchingPolicy
    _queries: deque[_Waiting] = field(default_factory=deque)
    _ready: threading.Condition = field(default_factory=lambda: threading.Condition(threading.Lock()))
    _waiting: int = 0
    _idle: int = 0
    _closed: bool = False

    def put(self, ids: Sequence[int], indices: Sequence[int], start: int) -> None:
        """Hand over a query; its samples are numbered from ``start``, which goes on where the last query ended."""
        query = _Waiting(ids, indices, start, time.monotonic_ns() if self.policy.max_wait_ns else 0)
        with self._ready:
            self._queries.append(query)
            self._waiting += len(ids)
            if self._idle:
                if len(ids) > self.policy.max_batch:
                    self._ready.notify_all()
                else:
                    self._ready.notify()

    def take(self, timeout_s: float) -> Batch | None:
        """The next batch, or None when nothing came within ``timeout_s`` or the batcher was closed."""
        with self._ready:
            if not self._queries and not self._closed:
                self._wait(timeout_s)
            if not self._queries:
                return None
            if self.policy.max_wait_ns and self._waiting < self.policy.max_batch:
                self._fill_up()
                if not self._queries:  # another lane took them meanwhile
                    return None
            return self._pop()

    def _fill_up(self) -> None:
        deadline = self._queries[0].arrived_ns + self.policy.max_wait_ns
        while 0 < self._waiting < self.policy.max_batch and not self._closed:
            left_ns = deadline - time.monotonic_ns()
            if left_ns <= 0:
                return
            self._wait(left_ns / 1e9)

    def _wait(self, timeout_s: float) -> None:
        self._idle += 1
        self._ready.wait(timeout_s)
        self._idle -= 1

    def _pop(self) -> Batch:
        room = self.policy.max_batch
        head = self._queries[0]
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

    def close(self) -> None:
        """Wake every lane; ``take`` goes on handing out what is left."""
        with self._ready:
            self._closed = True
            self._ready.notify_all()

    @property
    def finished(self) -> bool:
        """Closed, and nothing left."""
        return self._closed and not self._queries
