"""How queries become batches: one policy per scenario. The queues that go by it are in ``sut.pipeline.queues``."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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

    def deadline(self, batch_ns: Mapping[int, int], bound_ns: int) -> Deadline | None:
        """What can be in time, by what batches take in ns (by padded size) and the latency bound.

        None for a policy of ``fifo``, and where there is nothing to win.
        """
        if self.batching == "fifo" or not batch_ns:
            return None
        padded = [self.padded(n) for n in range(1, self.max_batch + 1)]
        return Deadline.worthwhile(bound_ns, service_times(batch_ns, padded))
