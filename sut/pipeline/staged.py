"""The staged pipeline: preprocessing workers feed the lanes through a bounded channel.

Fused lanes preprocess and infer in turn. Here N workers only preprocess, one sample at a time, and each lane infers
what is ready, so that eight decoding threads can feed two lanes (and the other way round where inference is the slow
part). The price is one copy of each tensor, from the channel into the slot.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from preprocess.base import Geometry, Recipe
from sut.pipeline.fused import POLL_S, Way, joined, started
from sut.pipeline.lane import Lane, Surroundings, fill_stamped, finish
from sut.pipeline.queues import Queue
from sut.process.affinity import Cores, stay_on
from sut.qsl.library import Rows, Source

_GATHER = 1
"""One stage before those of ``lane_stages``: out of the channel, into a slot."""


@dataclass(frozen=True, slots=True)
class Filled:
    """One preprocessed sample on its way: its tensor is row ``row`` of the channel."""

    id: int
    index: int
    number: int
    row: int
    geometry: Geometry


class Channel:
    """A bounded channel of tensors between workers and lanes.

    ``fill_up`` makes a lane wait for a full batch while more samples are on their way (Offline, MultiStream);
    otherwise it takes what is ready (Server).
    """

    def __init__(self, recipe: Recipe, max_batch: int, workers: int, fill_up: bool) -> None:
        self._capacity = 2 * max_batch + workers
        self.storage: NDArray[Any] = np.empty((self._capacity, *recipe.sample_shape), recipe.dtype)
        self._max_batch = max_batch
        self._fill_up = fill_up
        self._free = list(range(self._capacity))
        self._ready: deque[Filled] = deque()
        self._coming = 0
        self._closed = False
        self._resting: frozenset[int] = frozenset()
        self._changed = threading.Condition(threading.Lock())

    def announce(self, samples: int) -> None:
        """So many more samples will come; called when they are issued."""
        with self._changed:
            self._coming += samples

    def reserve(self) -> int | None:
        """A free row to preprocess into; waits for one. None once the channel is closed."""
        with self._changed:
            while not self._free:
                if self._closed:
                    return None
                self._changed.wait(POLL_S)
            return self._free.pop()

    def put(self, sample: Filled) -> None:
        """A sample is ready."""
        with self._changed:
            self._ready.append(sample)
            self._coming -= 1
            self._changed.notify_all()

    def drop(self, row: int) -> None:
        """A sample that was announced failed; its row is free again."""
        with self._changed:
            self._coming -= 1
            self._free.append(row)
            self._changed.notify_all()

    def rest(self, lanes: Collection[int]) -> None:
        """Give nothing to the lanes of these numbers from now on, and to all others again."""
        with self._changed:
            self._resting = frozenset(lanes)
            self._changed.notify_all()

    def take(self, lane: int) -> list[Filled]:
        """The next batch for a lane; empty when nothing came for a while, or the channel is closed and empty."""
        with self._changed:
            if not self._enough() or lane in self._resting:
                self._changed.wait(POLL_S)
                if not self._enough() or lane in self._resting:
                    return []
            return [self._ready.popleft() for _ in range(min(self._max_batch, len(self._ready)))]

    def _enough(self) -> bool:
        if not self._ready:
            return False
        return not self._fill_up or len(self._ready) >= self._max_batch or self._coming == 0

    def release(self, samples: Sequence[Filled]) -> None:
        """The rows of these samples were copied."""
        with self._changed:
            self._free += [sample.row for sample in samples]
            self._changed.notify_all()

    def close(self) -> None:
        """Nothing more will come; wake everybody."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    @property
    def finished(self) -> bool:
        """Closed, and everything taken."""
        return self._closed and not self._ready and self._coming <= 0


class Staged(Way):
    """Workers that preprocess, one for each of ``sources``, and lanes that infer what they have made ready.

    It stays first in, first out whatever the service times: what waits has its preprocessing still before it.
    """

    def __init__(
        self,
        lanes: Sequence[Lane],
        sources: Sequence[Source],
        channel: Channel,
        shared: Surroundings,
        cores: Sequence[Cores] = (),
    ) -> None:
        """``cores``: sets that the workers take in turn; without any they are nowhere in particular."""
        self._lanes, self._sources, self._channel, self._shared = lanes, sources, channel, shared
        self._cores: Sequence[Cores | None] = cores or (None,)
        self._queue = Queue(max_batch=1)
        self._preprocessing: list[threading.Thread] = []
        self._inferring: list[threading.Thread] = []

    def start(self) -> None:
        """See ``Way``."""
        if self._preprocessing:
            return
        channel, shared = self._channel, self._shared
        self._preprocessing = [
            started(f"preprocess-{n}", self._serve_worker, n, source) for n, source in enumerate(self._sources)
        ]
        self._inferring = [
            started(f"lane-{n}", _serve_lane, lane, channel, shared) for n, lane in enumerate(self._lanes)
        ]

    def put(self, ids: Sequence[int], indices: Sequence[int], start: int) -> None:
        """See ``Way``."""
        if not self._preprocessing:
            self.start()
        self._channel.announce(len(ids))
        self._queue.put(ids, indices, start)

    def rest(self, lanes: Collection[int]) -> None:
        """See ``Channel``."""
        self._channel.rest(lanes)

    def _serve_worker(self, worker: int, source: Source) -> None:
        """One preprocessing thread: takes samples from the queue, puts tensors into the channel, until all is done."""
        queue, channel, shared = self._queue, self._channel, self._shared
        stay_on(self._cores[worker % len(self._cores)])
        while not queue.finished:
            if (batch := queue.take(POLL_S)) is not None:
                _prepare(worker, source, channel, shared, (batch.ids[0], batch.indices[0], batch.starts[0][0]))

    def close(self) -> None:
        """See ``Way``."""
        self._queue.close()
        joined(self._preprocessing)
        self._channel.close()
        joined(self._inferring)


def _prepare(worker: int, source: Source, channel: Channel, shared: Surroundings, sample: tuple[int, int, int]) -> None:
    each, index, number = sample
    row = channel.reserve()
    if row is None:
        return
    stamps = [shared.clock()]
    try:
        target = Rows.of(channel.storage[row : row + 1])
        [geometry] = fill_stamped(source, [index], target, stamps, shared.clock)
    except BaseException as error:
        shared.failures.record(error, [index])
        channel.drop(row)
        now = shared.clock()
        shared.recorder.ledger.prepared(number, [now] * (len(source.stages) + 1), worker)
        # No lane has seen it: the first stands for all of them.
        finish(shared, [each], None, [(number, 1)], shared.failed_stamps(_GATHER), 0)
        return
    shared.recorder.ledger.prepared(number, [stamps[0], *stamps[1::2]], worker)
    channel.put(Filled(each, index, number, row, geometry))


def _serve_lane(lane: Lane, channel: Channel, shared: Surroundings) -> None:
    """One lane's thread: infers what comes through the channel until it is closed and empty."""
    stay_on(lane.cores)
    while not channel.finished:
        if samples := channel.take(lane.number):
            _process(lane, samples, channel, shared)


def _process(lane: Lane, samples: list[Filled], channel: Channel, shared: Surroundings) -> None:
    indices = [sample.index for sample in samples]
    payloads = None
    stamps = [shared.clock()]
    released = False
    try:
        slot = lane.slot(len(samples))
        [buffer] = slot.buffers.values()
        rows = np.array([sample.row for sample in samples])
        np.take(channel.storage, rows, axis=0, out=buffer[: len(samples)], mode="clip")
        channel.release(samples)
        released = True
        stamps.append(shared.clock())
        payloads = lane.answer(
            slot, [sample.index for sample in samples], [sample.geometry for sample in samples], stamps
        )
    except BaseException as error:
        if not released:
            channel.release(samples)
        shared.failures.record(error, indices, lane.on)
        payloads, stamps = None, shared.failed_stamps(_GATHER)
    starts = [(sample.number, 1) for sample in samples]
    finish(shared, [sample.id for sample in samples], payloads, starts, stamps, lane.number)
