"""The system under test: queries in by ``issue``, answers out by ``complete``.

LoadGen is one of those who ask; a closed-loop driver or a network front end use the same two calls.
"""

from __future__ import annotations

import threading
import time
from collections import Counter as Counts
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from functools import partial
from typing import Self

from backends.base import Loaded
from sut.config import RunConfig
from sut.errors import RunError
from sut.mlperf.loadgen import Complete
from sut.mlperf.loadgen import complete as complete_loadgen
from sut.pipeline.assembly import Assembly, assemble
from sut.pipeline.batching import BatchingPolicy
from sut.pipeline.building import Builder
from sut.pipeline.choice import prior
from sut.pipeline.identify.build import Identification
from sut.pipeline.lane import Clock, Decoder, Failures, Recorder, Surroundings, lane_stages
from sut.pipeline.ledger import Counter, Ledger, LedgerShape
from sut.pipeline.ranges import nvtx_for
from sut.pipeline.slowdown import Slowdown
from sut.pipeline.stage import entry, stages_of
from sut.process.affinity import staying_on
from sut.process.cpu import cpu_ns_of
from sut.qsl.library import Library
from sut.tasks.base import Payloads, Task


class SUT:
    """A model behind a backend, a preprocessor and a batching policy, ready to be asked.

    ``SUT(RunConfig(...))`` loads everything for the config's scenario; ``issue(ids, indices)`` and ``flush()`` are
    LoadGen's callbacks (``ConstructFastSUT``), ``library.load`` and ``library.unload`` those of its sample library.
    ``complete`` gets each batch of answers; by default they go to LoadGen. Use it as a context manager: its lanes are
    threads. ``run`` is the run's id in a broker, by chance unless told. What is ``auto`` in the config is guessed from
    the model's size and the cores; ``config`` says how.
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
        run: str | None = None,
    ) -> None:
        parts = assembly or assemble(config)
        self.config = config = prior(config, parts.lane_cores, parts.model_bytes).apply(config)
        self.parts = replace(parts, config=config)
        self._issued = 0
        self._deliver = complete
        self.failures = self._failures(tell)
        with ExitStack() as stack:
            self.backend: Loaded = stack.enter_context(self.parts.load_backend())
            self.parts.check_attested(self.backend.attest())
            self.library: Library = self._library(performance_samples, loaded)
            stack.callback(self.library.close)
            self.policy = BatchingPolicy.of(
                config.scenario,
                config.largest_batch,
                int(config.max_wait_ms * 1e6),
                self.backend.batch_sizes,
                config.requests_at_once,
                config.batching,
            )
            self.stage_settings = stages_of(config, self.policy, bool(self.backend.inputs))
            self.task: Task = self.parts.task_for(self.backend)
            """What turns the model's outputs into answers."""
            self.second = Identification(self.parts, clock, stack, run) if self.parts.second is not None else None
            """The model that identifies what the first finds, where there is one."""
            self._build(clock, stack)
            self._stack = stack.pop_all()

    # What is another's where queries do not come from a data set, and answers do not go to LoadGen: see sut/serve.

    def _failures(self, tell: Callable[[str], None]) -> Failures:
        dataset = self.parts.dataset
        return Failures(lambda index: dataset.files[index], tell)

    def _library(self, samples: int | None, loaded: Callable[[int], None]) -> Library:
        return self.parts.library(self.backend, samples, loaded)

    def _decoder(self) -> Decoder:
        return self.task

    def _recorder(self, ledger: Ledger) -> Recorder:
        return Recorder(ledger)

    def _build(self, clock: Clock, stack: ExitStack) -> None:
        """Make the pipeline, and what its threads share."""
        config, stages = self.config, self.library.stages
        decoding = (*self.task.stages, *(self.second.stages if self.second is not None else ()))
        lane = lane_stages(self.backend.transfers, decoding, self.backend.details)
        before, with_batch = (stages, ("gather", *lane)) if self.staged else ((), (*stages, *lane))
        self._ledger_shape = partial(LedgerShape.of, stages=with_batch, before=before)
        slowdown: Slowdown | None = None
        if config.slowdown:
            slowdown = Slowdown(config, self.backend, self.parts.preprocessor, (*before, *with_batch))
        self._shared = Surroundings(
            task=slowdown.decoder(self.task) if slowdown else self._decoder(),
            policy=self.policy,
            recorder=self._recorder(Ledger(self._ledger_shape(65536))),
            failures=self.failures,
            complete=self._complete,
            clock=clock,
            transfers=self.backend.transfers,
            details=self.backend.details,
        )
        system = (self.parts, self.backend, self.library, self.policy, self._shared)
        builder = Builder(*system, stack, slowdown, nvtx_for(config), self.second)
        self._sources = builder.sources
        self.lanes = builder.lanes()
        self.stages = builder.stages(self.stage_settings, self.lanes)
        self._put = entry(self.stages)

    @property
    def staged(self) -> bool:
        """Whether preprocessing has workers of its own."""
        return len(self.stage_settings) > 1

    @property
    def output(self) -> str | None:
        """Name of the model's output that answers; None where no model is run, or the task needs several."""
        return self.task.output.name if self.parts.has_model and self.task.output is not None else None

    @property
    def failed_samples(self) -> int:
        """Samples that were answered with nothing because something raised."""
        return self.failures.samples

    @property
    def ledger(self) -> Ledger:
        """The record of the run that goes on."""
        return self._shared.recorder.ledger

    def notes(self) -> list[str]:
        """What a reader of the result must know so far: what happened in preprocessing, how often, and of answers."""
        found: Counts[str] = Counts()
        for counts in (each.counts() for of in (self._sources, self.stages) for each in of):
            found.update(counts)
        of_second = self.second.notes() if self.second is not None else ()
        return [*(f"{count:,} {what}" for what, count in found.items() if count), *self.task.notes(), *of_second]

    @property
    def processes(self) -> dict[str, int]:
        """Numbers of the processes that work for this one, by name."""
        found = {name: number for stage in self.stages for name, number in stage.processes.items()}
        found |= self.backend.processes
        return found if self.second is None else {**found, **self.second.processes}

    def cpu_s(self) -> float:
        """CPU time so far, in seconds, of this process and of those that work for it."""
        return time.process_time() + sum(map(cpu_ns_of, self.processes.values())) / 1e9

    def ledger_shape(self, samples: int, traced: bool) -> LedgerShape:
        """The shape of a ledger for so many samples of this system, and for joining it with a trace or not."""
        return self._ledger_shape(samples, indexed=traced)

    def start(self, ledger: Ledger | None = None) -> None:
        """Begin a run: take a fresh ledger and start the threads. ``issue`` does it when nobody did."""
        if ledger is not None:
            self._shared.recorder.ledger = ledger
        self._issued = 0
        self.task.start()
        if self.second is not None:
            self.second.start()
        for stage in reversed(self.stages):
            stage.start()

    def asking(self) -> AbstractContextManager[None]:
        """While a thread asks, it stays on LoadGen's cores, or on those of the lane that works in it."""
        [loadgen] = self.parts.affinity.loadgen or (None,)
        return staying_on(self.lanes[0].cores if self.policy.inline else loadgen)

    def issue(self, ids: Sequence[int], indices: Sequence[int]) -> None:
        """Take a query: response ids and data set indices, one each per sample. Never raises, waits only if inline."""
        now = self._shared.clock()
        start = self._issued
        self._issued = start + len(ids)
        ledger = self._shared.recorder.ledger
        ledger.issue(start, indices, now)
        ledger.words[Counter.ISSUED] = self._issued
        self._put(ids, indices, start)

    def ask(self, indices: Sequence[int]) -> None:
        """Answer some samples without LoadGen, through all threads that a query goes through; for calibration.

        Raises ``RunError`` with the first failure, or when nothing is answered for a minute.
        """
        if self.stages[0].answers_alone:
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
        """What batches take, in ns by size, and Server's latency bound: what its batching needs to answer in time."""
        deadline = self.policy.deadline(batch_ns, latency_bound_ns)
        for stage in self.stages:
            stage.expect(deadline)

    def rest(self, lanes: Collection[int]) -> None:
        """Have workers feed all lanes but those of these numbers, for calibration."""
        for stage in self.stages:
            stage.rest(lanes)

    def rehearse(self, indices: Sequence[int]) -> None:
        """Have all workers but the lanes, which are rehearsed by size, do their work on some loaded samples."""
        for stage in self.stages:
            stage.rehearse(indices)

    def flush(self) -> None:
        """LoadGen has issued the last query of a set. Nothing is held back here that a lane would not take."""

    def close(self) -> None:
        """Answer what was issued, stop the lanes, unload the model."""
        for stage in self.stages:
            stage.close()
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
