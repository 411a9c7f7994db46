"""What lies between workers that preprocess and lanes that infer, in the memory of one process.

``put``, ``take`` and ``done`` are what a lane and a worker need of any such channel: a sample is put into a row that
was reserved, taken with others as a batch, and done when its row may be written again.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Iterable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from preprocess.base import Recipe
from sut.pipeline.stage import POLL_S, StageSettings
from sut.pipeline.trays import Filled, Trays


class Feed(Protocol):
    """A channel as a lane sees it."""

    @property
    def storage(self) -> NDArray[Any]: ...

    @property
    def finished(self) -> bool: ...
    def announce(self, samples: int) -> None: ...
    def take(self, lane: int) -> list[Filled]: ...
    def done(self, rows: Iterable[int]) -> None: ...
    def rest(self, lanes: Collection[int]) -> None: ...
    def close(self) -> None: ...


def trays_for(before: StageSettings, infer: StageSettings, fill_up: bool) -> Trays:
    """As many as keep everybody busy: one for each lane, those that are filled meanwhile, and one that is ready."""
    filling = -(-before.workers * before.batch // infer.batch)
    return Trays(infer.workers + filling + 1, infer.batch, fill_up)


class Channel:
    """A bounded channel of tensors between the threads of one process.

    Where its trays fill up, a lane waits for a full batch while more samples are on their way (Offline, MultiStream);
    otherwise it takes what is ready, once the first of it has waited ``max_wait_ns`` for more (Server).
    """

    def __init__(
        self, recipe: Recipe, trays: Trays, batch: int, max_wait_ns: int = 0, by_reference: bool = False
    ) -> None:
        """``by_reference``: its rows are not tensors but what tells where each is."""
        shape, dtype = ((), object) if by_reference else (recipe.sample_shape, recipe.dtype)
        self.storage: NDArray[Any] = np.empty((trays.capacity, *shape), dtype)
        self._trays = trays
        self._patience = Patience(batch, max_wait_ns)
        self._closed = False
        self._resting: frozenset[int] = frozenset()
        self._changed = threading.Condition(threading.Lock())

    def announce(self, samples: int) -> None:
        """So many more samples will come; called when they are issued."""
        with self._changed:
            self._trays.announce(samples)

    def reserve(self, most: int) -> range:
        """Up to so many free rows to preprocess into; waits for one. None once the channel is closed."""
        with self._changed:
            while not (rows := self._trays.reserve(most)) and not self._closed:
                self._changed.wait(POLL_S)
            return rows

    def put(self, samples: Iterable[Filled]) -> None:
        """Samples are ready."""
        with self._changed:
            for sample in samples:
                self._trays.put(sample)
            self._changed.notify_all()

    def drop(self, rows: Iterable[int]) -> None:
        """Samples that were announced failed; their rows are free again."""
        with self._changed:
            for row in rows:
                self._trays.drop(row)
            self._changed.notify_all()

    def rest(self, lanes: Collection[int]) -> None:
        """Give nothing to the lanes of these numbers from now on, and to all others again."""
        with self._changed:
            self._resting = frozenset(lanes)
            self._changed.notify_all()

    def take(self, lane: int) -> list[Filled]:
        """The next batch for a lane; empty when nothing came for a while, or the channel is closed and empty."""
        with self._changed:
            until = time.monotonic() + POLL_S
            while (left_s := until - time.monotonic()) > 0 and not self.finished:
                wait_s = self._patience.left_s(self._trays.waiting) if lane not in self._resting else None
                if wait_s == 0:
                    return self._trays.take()
                self._changed.wait(left_s if wait_s is None else min(left_s, wait_s))
            return []

    def done(self, rows: Iterable[int]) -> None:
        """These rows were read."""
        with self._changed:
            self._trays.done(rows)
            self._changed.notify_all()

    def close(self) -> None:
        """Nothing more will come; wake everybody."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    @property
    def finished(self) -> bool:
        """Closed, and everything taken."""
        return self._closed and self._trays.is_empty


class Patience:
    """How long what is ready still waits for a full batch. ``clock``: seconds of a clock that never goes back."""

    def __init__(self, batch: int, max_wait_ns: int) -> None:
        self._batch, self._max_wait_s = batch, max_wait_ns / 1e9
        self._since: float | None = None

    def left_s(self, waiting: int) -> float | None:
        """Seconds until ``waiting`` samples are to be taken, 0 for now; None where there are none."""
        if not waiting:
            self._since = None
            return None
        if waiting >= self._batch or not self._max_wait_s:
            self._since = None
            return 0.0
        now = time.monotonic()
        if self._since is None:
            self._since = now
        left = self._since + self._max_wait_s - now
        if left > 0:
            return left
        self._since = None
        return 0.0
