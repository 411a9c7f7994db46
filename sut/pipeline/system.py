"""The system under test: queries in by ``issue``, answers out by ``complete``.

LoadGen is one of those who ask; a closed-loop driver or a network front end use the same two calls.
"""

from __future__ import annotations

import threading
import time
from collections import Counter as Counts
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from types import TracebackType
from typing import Self

from backends.base import Backend
from sut.config import RunConfig
from sut.errors import RunError
from sut.mlperf.loadgen import Complete
from sut.mlperf.loadgen import complete as complete_loadgen
from sut.pipeline.assembly import Assembly, assemble
from sut.pipeline.batching import Batcher, BatchingPolicy
from sut.pipeline.choice import prior
from sut.pipeline.lane import Clock, Failures, Lane, Recorder, Surroundings
from sut.pipeline.ledger import Counter, Ledger, LedgerShape
from sut.pipeline.staged import LANE_STAGES, Channel, Worker, serve_lane
from sut.process.cgroup import usable_cores
from sut.qsl.library import Library, Source
from sut.tasks.base import Payloads, Task

_POLL_S = 0.5


class SUT:
    """A model behind a backend, a preprocessor and a batching policy, ready to be asked.

    ``SUT(RunConfig(...))`` loads everything for the config's scenario; ``issue(ids, indices)`` and ``flush()`` are
    LoadGen's callbacks (``ConstructFastSUT``), ``library.load`` and ``library.unload`` those of its sample library.
    ``complete`` gets each batch of answers; by default they go to LoadGen. Use it as a context manager: its lanes are
    threads. What is ``auto`` in the config is guessed from the model's size and the cores; ``config`` says how.
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
        parts = assembly or assemble(config)
        self.config = config = prior(config, usable_cores(), parts.model_bytes).apply(config)
        self.parts = replace(parts, config=config)
        self._issued = 0
        self._threads: list[threading.Thread] = []
        self._deliver = complete
        dataset = self.parts.dataset
        self.failures = Failures(lambda index: dataset.files[index], tell)
        with ExitStack() as stack:
            self.backend: Backend = stack.enter_context(self.parts.load_backend())
            self.parts.check_attested(self.backend.attest())
            self.library: Library = self.parts.library(self.backend, performance_samples, loaded)
            self.policy = BatchingPolicy.of(
                config.scenario,
                config.largest_batch,
                int(config.max_wait_ms * 1e6),
                self.backend.batch_sizes,
                config.lane_count,
                config.batching,
            )
            self._shared = Surroundings(
                task=self.parts.task_for(self.backend),
                policy=self.policy,
                recorder=Recorder(Ledger(LedgerShape.of(65536, stages=self._stages(), before=self._before()))),
                failures=self.failures,
                complete=self._complete,
                clock=clock,
            )
            one = self.backend.reads_host_arrays and len(self.backend.inputs) == 1 and self.policy.padded(1) == 1
            lend_to = self.backend.inputs[0].name if one else None
            self.lanes = []
            self._sources: list[Source] = []
            for _ in range(config.lane_count):
                runner = stack.enter_context(self.backend.runner())
                self._sources.append(self.library.source())
                self.lanes.append(Lane(runner, self._sources[-1], self._shared, lend_to))
                stack.callback(self.lanes[-1].close)
            stack.callback(self.library.close)
            self._stack = stack.pop_all()
        self._inline = self.policy.inline and not self.staged
        self.batcher = Batcher(self.policy.of_one() if self.staged else self.policy)
        self._channel: Channel | None = None

    @property
    def staged(self) -> bool:
        """Whether preprocessing has workers of its own."""
        return self.config.preprocess_workers > 0 and self.config.times_preprocessing and bool(self.backend.inputs)

    @property
    def task(self) -> Task:
        """What turns the model's outputs into answers."""
        return self._shared.task

    @property
    def output(self) -> str | None:
        """Name of the model's output that answers; None where no model is run, or the task needs several."""
        return self.task.output.name if self.parts.model is not None and self.task.output is not None else None

    @property
    def failed_samples(self) -> int:
        """Samples that were answered with nothing because something raised."""
        return self.failures.samples

    @property
    def ledger(self) -> Ledger:
        """The record of the run that goes on."""
        return self._shared.recorder.ledger

    def notes(self) -> list[str]:
        """What a reader of the result must know of the preprocessing so far: what happened, and how often."""
        found: Counts[str] = Counts()
        for source in self._sources:
            found.update(source.counts())
        return [f"{count:,} {what}" for what, count in found.items() if count]

    def ledger_shape(self, samples: int, traced: bool) -> LedgerShape:
        """The shape of a ledger for so many samples of this system, and for joining it with a trace or not."""
        return LedgerShape.of(samples, stages=self._stages(), before=self._before(), indexed=traced)

    def _stages(self) -> tuple[str, ...]:
        return LANE_STAGES if self.staged else (*self.library.stages, *LANE_STAGES[1:])

    def _before(self) -> tuple[str, ...]:
        return self.library.stages if self.staged else ()

    def start(self, ledger: Ledger | None = None) -> None:
        """Begin a run: take a fresh ledger and start the threads. ``issue`` does it when nobody did."""
        if ledger is not None:
            self._shared.recorder.ledger = ledger
        self._issued = 0
        if self._inline or self._threads:
            return
        if self.staged:
            self._start_staged()
        else:
            for number, lane in enumerate(self.lanes):
                self._thread(f"lane-{number}", self._serve, lane)

    def _start_staged(self) -> None:
        workers = self.config.preprocess_workers
        fill_up = self.config.scenario != "Server"
        recipe = self.parts.spec.recipe
        self._channel = channel = Channel(recipe, self.policy.max_batch, workers, fill_up)
        for number in range(workers):
            source = self.library.source()
            self._sources.append(source)
            self._stack.callback(source.close)
            worker = Worker(source, self.batcher, channel, self._shared)
            self._thread(f"preprocess-{number}", worker.serve)
        for number, lane in enumerate(self.lanes):
            self._thread(f"lane-{number}", serve_lane, lane, channel, self._shared)

    def _thread(self, name: str, target: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, name=name, daemon=True)
        thread.start()
        self._threads.append(thread)

    def issue(self, ids: Sequence[int], indices: Sequence[int]) -> None:
        """Take a query: response ids and data set indices, one each per sample. Never raises, waits only if inline."""
        now = self._shared.clock()
        start = self._issued
        count = len(ids)
        self._issued = start + count
        ledger = self._shared.recorder.ledger
        ledger.issue(start, indices, now)
        ledger.words[Counter.ISSUED] = self._issued
        if self._inline:
            lane = self.lanes[0]
            for batch in self.policy.cut(ids, indices, start):
                lane.process(batch)
            return
        if not self._threads:
            self.start()
        if self._channel is not None:
            self._channel.announce(count)
        self.batcher.put(ids, indices, start)

    def ask(self, indices: Sequence[int]) -> None:
        """Answer some samples without LoadGen, through all threads that a query goes through; for calibration.

        Raises ``RunError`` with the first failure, or when nothing is answered for a minute.
        """
        if not self.staged and (self._inline or self.policy.shared_by == 1):
            for at in range(0, len(indices), self.policy.max_batch):
                self.lanes[0].rehearse(indices[at : at + self.policy.max_batch])
            return
        answered = threading.Semaphore(0)

        def count(ids: Sequence[int], payloads: Payloads | None) -> int:
            now = time.time_ns()
            answered.release(len(ids))
            return now

        before, self._deliver = self._deliver, count
        try:
            self.issue(range(len(indices)), list(indices))
            for _ in indices:
                if not answered.acquire(timeout=60):
                    raise RunError("no answer for 60 s")
        finally:
            self._deliver = before
        if self.failures.first_error:
            raise RunError(self.failures.first_error)

    def _complete(self, ids: Sequence[int], payloads: Payloads | None) -> int:
        return self._deliver(ids, payloads)

    def know_service_times(self, batch_ns: Mapping[int, int], latency_bound_ns: int) -> None:
        """What batches take, in ns by size, and Server's latency bound: what its batching needs to answer in time.

        A staged pipeline goes on first in, first out: what waits there has its preprocessing still before it.
        """
        if not self.staged:
            self.batcher.know_service_times(batch_ns, latency_bound_ns)

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
            if self._channel is not None and thread.name.startswith("lane"):
                self._channel.close()  # the workers, which come first, have ended
            thread.join(timeout=30)
        self._threads.clear()
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
