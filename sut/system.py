"""The system under test: queries in by ``issue``, answers out by ``complete``.

LoadGen is one of those who ask; a closed-loop driver or a network front end use the same two calls.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Self

from backends.base import Backend
from sut.assembly import Assembly, assemble
from sut.batching import Batcher, BatchingPolicy
from sut.config import RunConfig
from sut.ledger import Counter, Ledger, LedgerShape
from sut.library import Library
from sut.loadgen import complete as complete_loadgen
from sut.pipeline import Clock, Complete, Failures, Lane

_POLL_S = 0.5


class SUT:
    """A model behind a backend, a preprocessor and a batching policy, ready to be asked.

    ``SUT(RunConfig(...))`` loads everything for the config's scenario; ``issue(ids, indices)`` and ``flush()`` are
    LoadGen's callbacks (``ConstructFastSUT``), ``library.load`` and ``library.unload`` those of its sample library.
    ``complete`` gets each batch of answers; by default they go to LoadGen. Use it as a context manager: its lanes are
    threads.
    """

    def __init__(
        self,
        config: RunConfig,
        *,
        complete: Complete = complete_loadgen,
        clock: Clock = time.time_ns,
        loaded: Callable[[int], None] = lambda count: None,
        tell: Callable[[str], None] = lambda message: None,
        performance_samples: int | None = None,
        assembly: Assembly | None = None,
    ) -> None:
        self.config = config
        self.parts = assembly or assemble(config)
        self._clock = clock
        self._issued = 0
        self._stack = ExitStack()
        self._threads: list[threading.Thread] = []
        self._record_lock = threading.Lock()
        self._complete = complete
        self.ledger = Ledger(LedgerShape.of(65536))
        dataset = self.parts.dataset
        self.failures = Failures(lambda index: dataset.files[index], tell)
        with ExitStack() as stack:
            self.backend: Backend = stack.enter_context(self.parts.load_backend())
            self.parts.check_attested(self.backend.attest())
            self.task = self.parts.task_for(self.backend)
            self.library: Library = self.parts.library(self.backend, performance_samples, loaded)
            self.policy = BatchingPolicy.of(
                config.scenario, config.max_batchsize, int(config.max_wait_ms * 1e6), self.backend.batch_sizes
            )
            runners = [stack.enter_context(self.backend.runner()) for _ in range(config.lanes)]
            self._stack = stack.pop_all()
        self.batcher = Batcher(self.policy)
        self.lanes = [
            Lane(
                runner,
                self.library,
                self.task,
                self.policy,
                self.ledger,
                self.failures,
                complete,
                clock,
                self._record_lock,
            )
            for runner in runners
        ]

    @property
    def failed_samples(self) -> int:
        """Samples that were answered with nothing because something raised."""
        return self.failures.samples

    def start(self, ledger: Ledger | None = None) -> None:
        """Begin a run: take a fresh ledger and start the lanes' threads. ``issue`` does it when nobody did."""
        if ledger is not None:
            self.ledger = ledger
            for lane in self.lanes:
                lane.use(ledger)
        self._issued = 0
        if not self.policy.inline and not self._threads:
            for number, lane in enumerate(self.lanes):
                thread = threading.Thread(target=self._serve, args=(lane,), name=f"lane-{number}", daemon=True)
                thread.start()
                self._threads.append(thread)

    def issue(self, ids: Sequence[int], indices: Sequence[int]) -> None:
        """Take a query: response ids and data set indices, one each per sample. Never raises, waits only if inline."""
        now = self._clock()
        start = self._issued
        count = len(ids)
        self._issued = start + count
        self.ledger.issue(start, indices, now)
        self.ledger.words[Counter.ISSUED] = self._issued
        if self.policy.inline:
            lane = self.lanes[0]
            for batch in self.policy.cut(ids, indices, start):
                lane.process(batch)
        else:
            if not self._threads:
                self.start()
            self.batcher.put(ids, indices, start)

    def flush(self) -> None:
        """LoadGen has issued the last query of a set. Nothing is held back here that a lane would not take."""

    def _serve(self, lane: Lane) -> None:
        while not self.batcher.finished:
            if (batch := self.batcher.take(_POLL_S)) is not None:
                lane.process(batch)

    def close(self) -> None:
        """Answer what was issued, stop the lanes, unload the model."""
        self.batcher.close()
        for thread in self._threads:
            thread.join(timeout=30)
        self._threads.clear()
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
