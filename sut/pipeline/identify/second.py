"""The second model, loaded: crops in, labels out. In the lane itself (``Fused``), or behind a channel."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backends.base import Loaded, Slot
from preprocess.base import Mark, unmarked
from sut.pipeline.assembly import Assembly
from sut.pipeline.batching import BatchingPolicy
from sut.pipeline.identify.crops import Crop
from sut.pipeline.lane import Clock, ended
from sut.tasks.base import Task

PREPROCESS, INFER = "identify/preprocess", "identify/infer"

Labels = NDArray[np.float32]


class Second:
    """One runner of the second model. Used by one thread at a time."""

    def __init__(self, parts: Assembly, backend: Loaded, stack: ExitStack) -> None:
        """What is to be closed goes onto ``stack``."""
        self._policy = BatchingPolicy.of("Offline", parts.config.largest_batch, 0, backend.batch_sizes)
        self._runner = stack.enter_context(backend.runner(parts.place_for(backend)))
        self._task: Task = parts.task_for(backend)
        takes_any = backend.reads_host_arrays and len(backend.inputs) == 1 and self._policy.padded(1) == 1
        self._lend_to = backend.inputs[0].name if takes_any else None

    @property
    def most(self) -> int:
        """Crops in a batch at most."""
        return self._policy.max_batch

    def slot(self, n: int) -> Slot:
        """Room for ``n`` preprocessed crops."""
        return self._runner.slot(self._policy.padded(n))

    def labels(self, slot: Slot, n: int) -> Labels:
        """Of the first ``n`` rows of a slot. Raises what the backend does, and ``ValueError`` for what is no answer."""
        found: Labels = self._task.decode(self._runner.infer(slot), range(n), (), slot.n)  # type: ignore[assignment]
        return found

    def labels_of(self, crops: Sequence[NDArray[Any]]) -> Labels:
        """Of preprocessed crops, which are gathered, or read where they lie if it is one."""
        if self._lend_to is not None and len(crops) == 1:
            return self.labels(Slot(1, {self._lend_to: crops[0][np.newaxis]}), 1)
        slot = self.slot(len(crops))
        [buffer] = slot.buffers.values()
        for row, crop in zip(buffer, crops, strict=False):
            row[...] = crop
        return self.labels(slot, len(crops))

    def warm_up(self) -> float:
        """Meet each batch size once that there will be. Returns what the largest took, in seconds."""
        began = time.monotonic()
        for n in range(1, self.most + 1):
            if self._policy.padded(n) == n:
                slot = self.slot(n)
                [buffer] = slot.buffers.values()
                buffer[...] = 0
                began = time.monotonic()
                self.labels(slot, n)
        return time.monotonic() - began


class Fused:
    """A lane's own way: it preprocesses and identifies crops by itself."""

    stages: tuple[str, ...] = (PREPROCESS, INFER)

    def __init__(self, parts: Assembly, backend: Loaded, stack: ExitStack, clock: Clock, lane: int) -> None:
        """What is to be closed goes onto ``stack``."""
        self._second = Second(parts, backend, stack)
        self._preprocessor = stack.enter_context(parts.preprocessor_for(parts.spec.recipe, lane))
        self._clock = clock
        self._second.warm_up()

    def identify(self, crops: Sequence[Crop], mark: Mark) -> Labels:
        """See ``Identifier``."""
        clock, begin, preprocessed_ns = self._clock, self._clock(), 0
        found: list[Labels] = []
        for at in range(0, len(crops), self._second.most):
            some = crops[at : at + self._second.most]
            started = clock()
            slot = self._second.slot(len(some))
            self._preprocessor.run_pixels(some, slot, unmarked)
            preprocessed_ns += clock() - started
            found.append(self._second.labels(slot, len(some)))
        ended(mark, PREPROCESS, begin + preprocessed_ns)
        return np.concatenate(found) if found else np.empty(0, np.float32)
