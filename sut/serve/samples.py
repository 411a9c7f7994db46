"""Samples that come with requests: a library without a data set, what a lane reads them with, and what it answers."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backends.kserve_tensors import ANSWER, Wire
from preprocess.base import BadPicture, Geometry, Mark, Preprocessor, Target, unmarked
from preprocess.parts.decode import MOST_BYTES, check
from sut.errors import one_line
from sut.pipeline.lane import Failures
from sut.qsl.library import Library, Loading, Rows, Source
from sut.tasks.base import Payloads, Task

clock = time.monotonic_ns


@dataclass(slots=True, eq=False)
class Sample:
    """One row of a request. ``body``: a file's bytes, pixels (BGR, as OpenCV decodes), or the model's input.

    Times are ns of ``clock``: when it came, was taken up, was ready for the model, was computed.
    """

    body: Any
    request: Request | None = None
    came_ns: int = 0
    taken_ns: int = 0
    ready_ns: int = 0
    computed_ns: int = 0
    batch: int = 0
    outputs: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    """Of each output of the model the row that is this sample's."""
    error: str | None = None
    is_bad: bool = False
    """Whether that is for what it is: no picture."""


@dataclass(slots=True, eq=False)
class Request:
    """Samples that are answered together; ``done`` is called once, by a lane's thread, when the last of them is.

    It must not raise. Of one that is given up, since nobody waits any more, nothing is computed that can be left.
    """

    samples: list[Sample]
    done: Callable[[Request], None]
    left: int = 0
    is_given_up: bool = False


class GivenUp(RuntimeError):
    """Nobody waits for a batch."""


def bodies(wire: Wire, rows: NDArray[Any]) -> list[Any]:
    """The samples' bodies of a request that brings these rows; pixels come in RGB."""
    if wire == "jpeg":
        return list(rows.reshape(-1))
    return [_bgr(each) for each in rows] if wire == "pixels" else list(rows)


def _bgr(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    import cv2

    return cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR).astype(np.uint8, copy=False)


Held = dict[int, Sample]
"""Samples that are in flight, by their numbers."""


class Requests(Library):
    """The samples of all requests in flight. Nothing is loaded: who asks puts samples into ``held``."""

    def __init__(self, how: Loading, wire: Wire) -> None:
        """``wire``: what the bodies are."""
        super().__init__(how)
        self.held: Held = {}
        self.wire: Wire = wire
        if wire == "tensor":
            return
        with how.make() as one:
            self.stages = one.stages if wire == "jpeg" else one.pixel_stages()

    def source(self, lane: int = 0) -> Source:
        """One that copies ready tensors, or has a preprocessor of its own."""
        if self.wire == "tensor":
            return Tensors(self.held)
        return Pictures(self, self._how.make(lane))

    def _load_chunk(self, chunk: Sequence[int]) -> None:
        raise NotImplementedError

    def _drop(self, index: int) -> None:
        raise NotImplementedError


def _taken(held: Held, indices: Sequence[int]) -> list[Sample]:
    """A batch's samples. Raises ``GivenUp`` where nobody waits for any of them."""
    samples, now = [held[index] for index in indices], clock()
    if all(sample.request is not None and sample.request.is_given_up for sample in samples):
        raise GivenUp("nobody waits for the answer any more")
    for sample in samples:
        sample.taken_ns = now
        sample.batch = len(indices)
    return samples


def _ready(samples: Sequence[Sample]) -> None:
    now = clock()
    for sample in samples:
        sample.ready_ns = now


_NOWHERE = Geometry(0, 0, 1.0, 1.0, 0.0, 0.0)
"""The client has preprocessed, and knows where boxes belong."""


class Tensors(Source):
    """Copies inputs that came ready into the slot; a single one is read where it lies."""

    def __init__(self, held: Held) -> None:
        self._held = held

    def view(self, index: int) -> tuple[NDArray[Any], list[Geometry]] | None:
        """See ``Source``. The bytes of a request may lie where no float may: those are copied."""
        body: NDArray[Any] = self._held[index].body
        if not body.flags.aligned:
            return None
        _ready(_taken(self._held, [index]))
        return body[np.newaxis], [_NOWHERE]

    def fill(self, indices: Sequence[int], target: Target, mark: Mark) -> list[Geometry]:
        """See ``Source``."""
        samples = _taken(self._held, indices)
        [buffer] = target.buffers.values()
        for row, sample in enumerate(samples):
            buffer[row] = sample.body
        mark("preprocess")
        _ready(samples)
        return [_NOWHERE] * len(samples)


class Pictures(Source):
    """Preprocesses pictures. One that cannot be decoded fails alone: another stands in its row."""

    def __init__(self, library: Requests, preprocessor: Preprocessor) -> None:
        self._library, self._preprocessor = library, preprocessor
        self.stages = library.stages
        decoded = library.wire == "pixels"
        self._run = preprocessor.run_pixels if decoded else preprocessor.run
        self._check: Callable[[Any], None] = (lambda body: None) if decoded else check_file
        self._standing_in: Any = None

    def fill(self, indices: Sequence[int], target: Target, mark: Mark) -> list[Geometry]:
        """See ``Source``. Raises ``ValueError`` where no sample of the batch can be decoded."""
        samples = _taken(self._library.held, indices)
        bodies = [self._checked(sample) for sample in samples]
        marks = Counting(mark)
        try:
            geometries = self._run(bodies, target, marks)
        except BadPicture:
            if marks.count:
                raise
            bodies = [self._tried(sample, target) for sample in samples]
            geometries = self._run(bodies, target, mark)
        _ready(samples)
        return geometries

    def _checked(self, sample: Sample) -> Any:
        """The body, or what stands in for one that is no whole picture."""
        try:
            self._check(sample.body)
        except ValueError as error:
            sample.error, sample.is_bad = one_line(error), True
            return self._stand_in()
        return sample.body

    def _tried(self, sample: Sample, target: Target) -> Any:
        """The same for one that passed the check and may be the one that cannot be decoded."""
        if sample.error is None:
            try:
                [buffer] = target.buffers.values()
                self._run([sample.body], Rows.of(buffer[:1]), unmarked)
                return sample.body
            except BadPicture as error:
                sample.error, sample.is_bad = one_line(error), True
        return self._stand_in()

    def _stand_in(self) -> Any:
        if self._standing_in is None:
            grey = np.full((8, 8, 3), 128, np.uint8)
            self._standing_in = grey if self._library.wire == "pixels" else _as_file(grey)
        return self._standing_in

    def counts(self) -> Mapping[str, int]:
        """See ``Source``."""
        return self._preprocessor.counts()

    def close(self) -> None:
        """See ``Source``."""
        self._preprocessor.close()


def check_file(body: bytes) -> None:
    """Raise ``ValueError`` for what is no whole picture, or would unfold to too much."""
    check(body, MOST_PIXEL_BYTES)


MOST_PIXEL_BYTES = min(MOST_BYTES, 300_000_000)
"""What a picture of a stranger may unfold to: a hundred million pixels."""


def _as_file(pixels: NDArray[np.uint8]) -> bytes:
    import cv2

    return cv2.imencode(".jpg", pixels)[1].tobytes()


class Counting:
    """Hands marks on, and counts them."""

    def __init__(self, mark: Mark) -> None:
        self._mark, self.count = mark, 0

    def __call__(self, stage: str) -> None:
        self.count += 1
        self._mark(stage)


class Outputs:
    """The decoder of a server: the model's own outputs, which the client reads."""

    stages = ("postprocess",)

    def __init__(self, held: Held, names: Sequence[str]) -> None:
        """``names`` of the outputs that are answered with."""
        self._held, self._names = held, names

    def decode(
        self,
        outputs: Mapping[str, Any],
        indices: Sequence[int],
        geometries: Sequence[Geometry],
        rows: int,
        mark: Mark = unmarked,
    ) -> Payloads:
        """Keep each sample's rows with it, copied: outputs last until the runner's next call. The answers are empty."""
        now, n = clock(), len(indices)
        kept = {name: np.array(outputs[name][:n]) for name in self._names}
        for row, index in enumerate(indices):
            sample = self._held[index]
            sample.computed_ns = now
            sample.outputs = {name: values[row] for name, values in kept.items()}
        return [b""] * n


class Answers:
    """The decoder of a server that answers as LoadGen is answered: what the task makes of the model's outputs."""

    def __init__(self, held: Held, task: Task) -> None:
        self._held, self._task, self.stages = held, task, task.stages

    def decode(
        self,
        outputs: Mapping[str, Any],
        indices: Sequence[int],
        geometries: Sequence[Geometry],
        rows: int,
        mark: Mark = unmarked,
    ) -> Payloads:
        """Keep each sample's answer with it. Raises what the task's ``decode`` does."""
        now = clock()
        answers = self._task.decode(outputs, indices, geometries, rows, mark)
        for index, answer in zip(indices, answers, strict=True):
            sample = self._held[index]
            sample.computed_ns = now
            sample.outputs = {ANSWER.name: np.asarray(answer)}
        return [b""] * len(indices)


class Refusals(Failures):
    """Remembers for each sample why it failed, for who has asked it."""

    def __init__(self, held: Held) -> None:
        super().__init__(lambda index: f"sample {index}")
        self._held = held

    def record(self, error: BaseException, indices: Sequence[int], on: str = "") -> None:
        """See ``Failures``. What failed a batch failed each of it, unless a sample has a reason of its own."""
        told = one_line(error)
        for index in indices:
            sample = self._held[index]
            sample.error = sample.error or f"{type(error).__name__}: {told}"
        super().record(error, indices, on)
