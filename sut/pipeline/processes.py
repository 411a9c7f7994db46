"""Preprocessing in processes of its own, which write tensors into memory that the lanes read: no copy, no pickle."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from itertools import cycle, islice

from sut.errors import RunError
from sut.pipeline.assembly import Assembly
from sut.pipeline.lane import Surroundings
from sut.pipeline.preprocess_worker import Counted, Orders
from sut.pipeline.process_channel import ProcessChannel
from sut.pipeline.shared import Layout, SharedRows, memory_for
from sut.pipeline.stage import Stage, StageSettings
from sut.pipeline.trays import Trays
from sut.process.affinity import Affinity
from sut.process.clock import name_of
from sut.process.messages import Failed, vocabulary
from sut.process.workers import Ready, Workers
from sut.qsl.shared_pictures import SharedPictures
from sut.text import Progress

_KINDS = vocabulary(Ready | Counted | Failed)
_REHEARSALS = 2
"""For each worker: whoever is free takes the next, so that one alone might go by a worker."""


class PreprocessInProcesses(Stage):
    """Workers that are processes. They are started when this is made, and wait for work."""

    def __init__(
        self, settings: StageSettings, channel: ProcessChannel, orders: Sequence[Orders], progress: Progress
    ) -> None:
        """``progress`` is told that they are being started. Raises ``SutError`` in one line where one cannot be."""
        self._settings, self._channel = settings, channel
        self._counted: Counter[str] = Counter()
        fds = {each for one in orders for each in (one.rows, one.pictures, one.jobs, one.done)}
        module = "sut.pipeline.preprocess_worker"
        self._workers = Workers("preprocess", module, orders, [*fds], _KINDS, self._lost, self._count)
        try:
            self._workers.start(lambda: progress(0, 0))
        except BaseException:
            self._workers.end(channel.close_jobs)
            raise

    def put(self, ids: Sequence[int], indices: Sequence[int], start: int) -> None:
        """See ``Stage``."""
        self._channel.ask(ids, indices, start)

    def rehearse(self, indices: Sequence[int]) -> None:
        """See ``Stage``."""
        self._channel.rehearse([*islice(cycle(indices), _REHEARSALS * self._settings.workers)])

    @property
    def processes(self) -> Mapping[str, int]:
        """See ``Stage``."""
        return self._workers.processes

    def counts(self) -> Mapping[str, int]:
        """See ``Stage``."""
        return self._counted

    def close(self) -> None:
        """See ``Stage``."""
        self._channel.drain()
        self._workers.end(self._channel.close_jobs)
        self._channel.close()

    def _count(self, event: object) -> None:
        if isinstance(event, Counted):
            self._counted.update(event.counts)

    def _lost(self, message: str) -> None:
        """A worker is gone: nothing is left waiting for it, and the run comes to its end."""
        self._channel.give_up(message)
        raise RunError(message)


def preprocess_in_processes(
    settings: StageSettings,
    infer: StageSettings,
    parts: Assembly,
    pictures: SharedPictures,
    stages: tuple[str, ...],
    trays: Trays,
    shared: Surroundings,
    stack: ExitStack,
) -> tuple[PreprocessInProcesses, ProcessChannel]:
    """The stage, whose samples go through these ``stages``, and the channel behind it; what they hold is on ``stack``.

    Raises ``SutError`` in one line where there is too little memory, or a worker cannot be started.
    """
    layout = Layout.of(trays.capacity, parts.spec.recipe, stages)
    rows = memory_for(layout)
    stack.callback(os.close, rows)
    channel = ProcessChannel(SharedRows(layout, rows), trays, infer, pictures, shared)
    stack.callback(channel.close_pipes)
    common = partial(
        Orders,
        preprocess=parts.config.preprocess,
        recipe=parts.spec.recipe,
        stages=stages,
        batch=settings.batch,
        layout=layout,
        rows=rows,
        pictures=pictures.descriptor,
        jobs=channel.jobs,
        done=channel.done_in,
        clock=name_of(shared.clock),
        slowdown=parts.config.slowdown,
    )
    orders = [
        common(number=number, options=parts.preprocess_options_of(number), cores=_cores_of(parts.affinity, number))
        for number in range(settings.workers)
    ]
    return PreprocessInProcesses(settings, channel, orders, parts.progress), channel


def _cores_of(affinity: Affinity, number: int) -> tuple[int, ...] | None:
    """Where a worker is to stay: the sets are taken in turn; None: anywhere."""
    sets = affinity.preprocess
    return tuple(sorted(sets[number % len(sets)])) if sets else None
