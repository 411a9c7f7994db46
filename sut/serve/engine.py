"""A system that is asked by requests: the same lanes, batches and stages as in a run, without LoadGen."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import partial
from itertools import count
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backends.base import TensorSpec
from backends.kserve_tensors import ANSWER, PICTURES, Wire
from preprocess.base import unmarked
from preprocess.parts.decode import decode
from sut.config import RunConfig
from sut.errors import InputError
from sut.pipeline.assembly import Assembly
from sut.pipeline.lane import Decoder, Failures, Recorder
from sut.pipeline.ledger import Ledger
from sut.pipeline.system import SUT
from sut.process.cgroup import usable_cores
from sut.qsl.library import Library, Loading, Rows
from sut.run.timing import Pace, calibrate
from sut.serve.metrics import Meters
from sut.serve.samples import Answers, Outputs, Refusals, Request, Requests, Sample, clock
from sut.tasks.base import Payloads

_REHEARSED = 16
"""Pictures of the data set that lanes are warmed with."""
_WARM_UP_S = 1.0


class Engine(SUT):
    """Answers requests. The boundary of its config says what they bring: tensors, pixels, or files' bytes.

    ``ask_for`` takes a request; its ``done`` is called when all of it is answered. ``warm`` is called once before.
    """

    def __init__(self, config: RunConfig, parts: Assembly, answers: bool = False) -> None:
        """With ``answers`` it gives those that LoadGen gets. Raises ``InputError`` and ``SetupError`` as a run does."""
        if answers and parts.spec.task != "classification":
            raise InputError(f"--answers are labels, and {parts.spec.name} has none (its task is {parts.spec.task})")
        if config.boundary == "device":
            raise InputError("--boundary device is in the memory of one process: serve tensor, pixels or jpeg")
        if config.preprocess_workers and config.preprocess_place != "thread":
            raise InputError(
                f"--preprocess-place {config.preprocess_place} has pictures of a data set; serve with thread"
            )
        self.wire: Wire = config.boundary
        self._answers = answers
        self.meters, self._numbers = Meters(), count()
        self._lock = threading.Lock()
        super().__init__(config, complete=self._answered, clock=clock, assembly=parts)
        recipe = self.parts.spec.recipe
        if self.wire == "tensor":
            self.inputs = self.backend.inputs
        else:
            self.inputs = (PICTURES[self.wire],)
        if len(self.backend.inputs) != 1 or self.backend.inputs[0].sample_shape != recipe.sample_shape:
            inputs = ", ".join(f"{each.name} {list(each.shape[1:])}" for each in self.backend.inputs) or "nothing"
            raise InputError(
                f"{config.backend} takes {inputs} for a sample of {self.parts.spec.name}, and what is served is one "
                f"tensor {list(recipe.sample_shape)}: choose another --backend or --model"
            )

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """What an answer has: the model's outputs, or those of them that ``--outputs`` names."""
        if self._answers:
            return (ANSWER,)
        wanted = self.config.outputs if self.parts.has_model else None
        return tuple(each for each in self.backend.outputs if not wanted or each.name in wanted)

    @property
    def facts(self) -> dict[str, str]:
        """What runs, by its content and as the runtime itself reports it: parameters of the model's configuration."""
        attested, model = self.backend.attest(), self.parts.model
        return {
            "model": self.parts.spec.name,
            "sha256": (model.sha256 if model is not None else None) or "",
            "weights": model.weights if model is not None else "",
            "precision": attested.precision,
            "device": attested.device,
            "provider": attested.provider,
            "backend_version": self.parts.backend.version(),
            "preprocess": self.config.preprocess if self.config.times_preprocessing else "",
            "recipe": self.parts.spec.recipe.name,
        }

    def _library(self, samples: int | None, loaded: Callable[[int], None]) -> Library:
        make = partial(self.parts.preprocessor_for, self.parts.spec.recipe)
        self._requests = Requests(Loading(self.parts.dataset, make, 1, usable_cores()), self.wire)
        return self._requests

    def _failures(self, tell: Callable[[str], None]) -> Failures:
        return Refusals({})

    def _decoder(self) -> Decoder:
        held = self._requests.held
        self.failures = Refusals(held)
        if self._answers:
            return Answers(held, self.task)
        return Outputs(held, [each.name for each in self.outputs])

    def _recorder(self, ledger: Ledger) -> Recorder:
        return _Metered(ledger, self.meters)

    def warm(self, latency_bound_s: float | None) -> Pace:
        """Meet all batch sizes with pictures of the data set, and measure them, for batching within a latency bound."""
        bodies = self._bodies()
        numbers = [next(self._numbers) for _ in bodies]
        self._requests.held.update(zip(numbers, map(Sample, bodies), strict=True))
        self.start()
        pace = calibrate("Server", self, numbers, 1, _WARM_UP_S, lambda: None)
        for number in numbers:
            del self._requests.held[number]
        if latency_bound_s is not None:
            self.know_service_times(pace.batch_ns, int(1e9 * latency_bound_s))
        return pace

    def _bodies(self) -> list[Any]:
        files = range(min(_REHEARSED, self.parts.dataset.count))
        data = [self.parts.dataset.read(index) for index in files]
        if self.wire == "jpeg":
            return data
        if self.wire == "pixels":
            return [decode(each) for each in data]
        recipe = self.parts.spec.recipe
        rows: NDArray[Any] = np.empty((len(data), *recipe.sample_shape), recipe.dtype)
        with self.parts.preprocessor_for(recipe) as preprocessor:
            preprocessor.run(data, Rows.of(rows), unmarked)
        return list(rows)

    def ask_for(self, request: Request) -> None:
        """Have a request answered; raises nothing."""
        samples, now = request.samples, clock()
        request.left = len(samples)
        with self._lock:
            numbers = [next(self._numbers) for _ in samples]
            for number, sample in zip(numbers, samples, strict=True):
                sample.request, sample.came_ns = request, now
                self._requests.held[number] = sample
            self.issue(numbers, numbers)

    def give_up(self) -> None:
        """Compute nothing any more of what is in flight: the end is near, and nobody waits."""
        with self._lock:
            for sample in self._requests.held.values():
                if sample.request is not None:
                    sample.request.is_given_up = True

    def _answered(self, ids: Sequence[int], payloads: Payloads | None) -> int:
        """A lane has answered a batch."""
        done: list[Request] = []
        with self._lock:
            for number in ids:
                request = self._requests.held.pop(number).request
                assert request is not None
                request.left -= 1
                if not request.left:
                    done.append(request)
        for request in done:
            request.done(request)
        return clock()


class _Metered(Recorder):
    """Counts batches for /metrics, too."""

    def __init__(self, ledger: Ledger, meters: Meters) -> None:
        super().__init__(ledger)
        self._meters = meters
        meters.know_stages(ledger.shape.stages)

    def record(
        self, n: int, starts: Sequence[tuple[int, int]], padded: int, failed: bool, stamps: Sequence[int], lane: int
    ) -> None:
        """See ``Recorder``."""
        super().record(n, starts, padded, failed, stamps, lane)
        self._meters.batch(n, padded, stamps)
