"""How queries reach lanes that do all the work on them: in the thread of who asks, or through a queue for all lanes."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from sut.pipeline.batching import BatchingPolicy
from sut.pipeline.deadline import Deadline
from sut.pipeline.lane import Lane
from sut.pipeline.queues import queue_for
from sut.pipeline.stage import POLL_S, Stage, joined, started
from sut.process.affinity import stay_on


class Inline(Stage):
    """In the thread of who asks, without another one in between."""

    answers_alone = True

    def __init__(self, lane: Lane, policy: BatchingPolicy) -> None:
        self._process, self._cut = lane.process, policy.cut

    def put(self, ids: Sequence[int], indices: Sequence[int], start: int) -> None:
        """See ``Stage``."""
        for batch in self._cut(ids, indices, start):
            self._process(batch)


class Fused(Stage):
    """Through a queue, from which each lane takes batches in a thread of its own."""

    def __init__(self, lanes: Sequence[Lane], policy: BatchingPolicy) -> None:
        self.answers_alone = policy.shared_by == 1
        self._lanes, self._policy = lanes, policy
        self._queue = queue_for(policy)
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """See ``Stage``."""
        if not self._threads:
            self._threads = [started(f"lane-{n}", self._serve, lane) for n, lane in enumerate(self._lanes)]

    def put(self, ids: Sequence[int], indices: Sequence[int], start: int) -> None:
        """See ``Stage``."""
        if not self._threads:
            self.start()
        self._queue.put(ids, indices, start)

    def expect(self, deadline: Deadline | None) -> None:
        """See ``Stage``."""
        before, self._queue = self._queue, queue_for(self._policy, deadline)
        before.close()  # whoever waits there goes on to the new one

    def _serve(self, lane: Lane) -> None:
        stay_on(lane.cores)
        while not self._queue.finished:
            if (batch := self._queue.take(POLL_S)) is not None:
                lane.process(batch)

    def close(self) -> None:
        """See ``Stage``."""
        self._queue.close()
        joined(self._threads)
