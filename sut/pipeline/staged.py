"""The staged pipeline: workers that preprocess feed lanes that infer, through a bounded channel.

Fused lanes preprocess and infer in turn. Here N workers only preprocess, and each lane infers what is ready, so that
eight decoding threads can feed two lanes (and the other way round where inference is the slow part). A batch whose rows
follow each other is read where it lies, by a backend that takes arrays which it did not lend; else it is copied into a
slot.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Sequence

import numpy as np

from backends.base import Slot
from sut.errors import RunError
from sut.pipeline.batching import Batch
from sut.pipeline.channel import Channel, Feed
from sut.pipeline.lane import Lane, Surroundings, fill_stamped, finish
from sut.pipeline.queues import Queue
from sut.pipeline.stage import POLL_S, Stage, StageSettings, joined, started
from sut.pipeline.trays import Filled
from sut.process.affinity import Cores, stay_on, staying_on
from sut.qsl.library import Rows, Source

GATHER = 1
"""One stage before those of ``lane_stages``: out of the channel, into a slot."""


class Preprocess(Stage):
    """Threads that preprocess, one for each of ``sources``.

    It stays first in, first out whatever the service times: what waits has its preprocessing still before it.
    """

    def __init__(
        self,
        settings: StageSettings,
        sources: Sequence[Source],
        channel: Channel,
        shared: Surroundings,
        cores: Sequence[Cores] = (),
    ) -> None:
        """``cores``: sets that the workers take in turn; without any they are nowhere in particular."""
        self._sources, self._channel, self._shared = sources, channel, shared
        self._cores: Sequence[Cores | None] = cores or (None,)
        self._queue = Queue(settings.batch)
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """See ``Stage``."""
        if not self._threads:
            self._threads = [
                started(f"preprocess-{n}", self._serve, n, source) for n, source in enumerate(self._sources)
            ]

    def put(self, ids: Sequence[int], indices: Sequence[int], start: int) -> None:
        """See ``Stage``."""
        if not self._threads:
            self.start()
        self._queue.put(ids, indices, start)

    def rehearse(self, indices: Sequence[int]) -> None:
        """See ``Stage``."""
        for number, source in enumerate(self._sources):
            index = indices[number % len(indices)]
            try:
                with staying_on(self._cores[number % len(self._cores)]):
                    scratch = np.empty_like(self._channel.storage[:1])
                    source.fill([index], Rows.of(scratch), lambda stage: None)
            except Exception as error:
                raise RunError(self._shared.failures.described(error, [index])) from error

    def _serve(self, worker: int, source: Source) -> None:
        """One thread: takes samples from the queue, puts tensors into the channel, until all is done."""
        stay_on(self._cores[worker % len(self._cores)])
        while not self._queue.finished:
            if (batch := self._queue.take(POLL_S)) is not None:
                self._prepare(worker, source, batch)

    def _prepare(self, worker: int, source: Source, batch: Batch) -> None:
        """Preprocess a batch, in as many pieces as the channel has rows that follow each other."""
        first, at = batch.starts[0][0], 0
        while at < len(batch) and (rows := self._channel.reserve(len(batch) - at)):
            piece = slice(at, at + len(rows))
            _fill(worker, source, self._channel, self._shared, rows, batch.ids[piece], batch.indices[piece], first + at)
            at += len(rows)

    def close(self) -> None:
        """See ``Stage``."""
        self._queue.close()
        joined(self._threads)
        self._channel.close()


def _fill(
    worker: int,
    source: Source,
    channel: Channel,
    shared: Surroundings,
    rows: range,
    ids: Sequence[int],
    indices: Sequence[int],
    first: int,
) -> None:
    """Preprocess samples that are numbered from ``first`` into rows of the channel."""
    stamps = [shared.clock()]
    numbers = range(first, first + len(rows))
    try:
        target = Rows.of(channel.storage[rows.start : rows.stop])
        geometries = fill_stamped(source, indices, target, stamps, shared.clock)
        samples = [Filled(*each) for each in zip(ids, indices, numbers, rows, geometries, strict=True)]
    except BaseException as error:
        shared.failures.record(error, indices)
        channel.drop(rows)
        fail(shared, ids, numbers, len(source.stages), worker)
        return
    for number in numbers:
        shared.recorder.ledger.prepared(number, [stamps[0], *stamps[1::2]], worker)
    channel.put(samples)


def fail(shared: Surroundings, ids: Sequence[int], numbers: Sequence[int], stages: int, worker: int) -> None:
    """Answer samples with nothing whose preprocessing, of so many ``stages``, failed."""
    now = shared.clock()
    for number in numbers:
        shared.recorder.ledger.prepared(number, [now] * (stages + 1), worker)
    # No lane has seen them: the first stands for all of them.
    finish(shared, ids, None, [(number, 1) for number in numbers], shared.failed_stamps(GATHER), 0)


class Infer(Stage):
    """Lanes that infer what comes through a channel, each in a thread of its own."""

    def __init__(self, lanes: Sequence[Lane], channel: Feed, shared: Surroundings) -> None:
        self._lanes, self._channel, self._shared = lanes, channel, shared
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """See ``Stage``."""
        if not self._threads:
            self._threads = [started(f"lane-{n}", self._serve, lane) for n, lane in enumerate(self._lanes)]

    def put(self, ids: Sequence[int], indices: Sequence[int], start: int) -> None:
        """See ``Stage``: they will come through the channel."""
        if not self._threads:
            self.start()
        self._channel.announce(len(ids))

    def rest(self, lanes: Collection[int]) -> None:
        """See ``Stage``."""
        self._channel.rest(lanes)

    def _serve(self, lane: Lane) -> None:
        stay_on(lane.cores)
        while not self._channel.finished:
            if samples := self._channel.take(lane.number):
                _process(lane, samples, self._channel, self._shared)

    def close(self) -> None:
        """See ``Stage``."""
        joined(self._threads)


def _process(lane: Lane, samples: list[Filled], channel: Feed, shared: Surroundings) -> None:
    indices = [sample.index for sample in samples]
    rows = [sample.row for sample in samples]
    held, payloads = rows, None
    stamps = [shared.clock()]
    try:
        slot = lane.lent(channel.storage, rows)
        if slot is None:
            slot = _gathered(lane, channel, rows)
            channel.done(held)
            held = []
        stamps.append(shared.clock())
        payloads = lane.answer(slot, indices, [sample.geometry for sample in samples], stamps)
    except BaseException as error:
        shared.failures.record(error, indices, lane.on)
        payloads, stamps = None, shared.failed_stamps(GATHER)
    if held:
        channel.done(held)
    starts = [(sample.number, 1) for sample in samples]
    finish(shared, [sample.id for sample in samples], payloads, starts, stamps, lane.number)


def _gathered(lane: Lane, channel: Feed, rows: list[int]) -> Slot:
    """The lane's own slot with a copy of these rows."""
    slot = lane.slot(len(rows))
    [buffer] = slot.buffers.values()
    np.take(channel.storage, np.array(rows), axis=0, out=buffer[: len(rows)], mode="clip")
    return slot
