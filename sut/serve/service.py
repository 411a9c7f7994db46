"""What HTTP and gRPC have in common: a model's metadata, requests checked, answered, counted, refused beyond a cap."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backends.base import TensorSpec
from backends.kserve_tensors import DATATYPES, from_bytes
from sut.errors import one_line
from sut.serve.engine import Engine
from sut.serve.refused import BUSY, INVALID, TOO_LATE, UNKNOWN, Broken, Refused
from sut.serve.regions import Regions
from sut.serve.samples import Request, Sample, bodies
from sut.version import NAME

VERSION = "1"
"""Of the one model: there are no others."""
EXTENSIONS = ("binary_tensor_data", "model_configuration", "response_times")
"""The last is this project's: an answer tells in ``parameters`` what it took on the server, see ``TIMES``."""
SHARED_MEMORY = "system_shared_memory"
_MOST_ROWS = 1024
"""Of a request, unless a batch has more: others wait behind it, and a row costs memory beside its bytes."""
TIMES = ("queue_ns", "preprocess_ns", "compute_ns")
"""Parameters of an answer: ns of its last sample: until taken up, until the model had it, until computed."""


@dataclass(frozen=True, slots=True)
class Limits:
    """``inflight`` requests at a time, of ``request_bytes`` at most each; none waits longer than ``answer_s``."""

    inflight: int
    request_bytes: int
    answer_s: float


@dataclass(frozen=True, slots=True)
class Given:
    """An input as a request has it: its bytes, or the region and place in shared memory where they are."""

    name: str
    datatype: str
    shape: Sequence[int]
    raw: bytes | memoryview | NDArray[Any]


@dataclass(frozen=True, slots=True)
class Answer:
    """Outputs by name, in the order that they were asked for, and times by the names of ``TIMES``."""

    outputs: Mapping[str, NDArray[Any]]
    times: Mapping[str, int]


class Service:
    """One model, for any number of front ends, all of which are in the thread of one event loop."""

    def __init__(self, engine: Engine, name: str, limits: Limits, shares_memory: bool) -> None:
        """Requests call the model ``name``; with ``shares_memory`` clients may name regions of this host's."""
        self.engine, self.name, self.limits, self.meters = engine, name, limits, engine.meters
        self.regions = Regions(limits.request_bytes) if shares_memory else None
        self.ready = True
        self._inflight = 0
        self._idle = asyncio.Event()
        self._idle.set()
        [self._input] = engine.inputs
        self._outputs = {each.name: each for each in engine.outputs}
        self._most_rows = max(_MOST_ROWS, engine.policy.max_batch)

    @property
    def server(self) -> dict[str, Any]:
        """The server's metadata."""
        from sut import __version__

        shared = (SHARED_MEMORY,) if self.regions is not None else ()
        return {"name": NAME, "version": __version__, "extensions": [*EXTENSIONS, *shared]}

    @property
    def metadata(self) -> dict[str, Any]:
        """The model's metadata."""
        return {
            "name": self.name,
            "versions": [VERSION],
            "platform": f"{self.engine.config.backend}_{self.engine.wire}",
            "inputs": [_told(self._input)],
            "outputs": [_told(each) for each in self._outputs.values()],
        }

    @property
    def config(self) -> dict[str, Any]:
        """The model's configuration, as Triton has it; ``parameters`` say what runs, by its content."""
        engine, config = self.engine, self.engine.config
        return {
            "name": self.name,
            "platform": self.metadata["platform"],
            "backend": config.backend,
            "max_batch_size": engine.policy.max_batch,
            "input": [_configured(self._input)],
            "output": [_configured(each) for each in self._outputs.values()],
            "parameters": {key: {"string_value": value} for key, value in engine.facts.items()},
        }

    def check_name(self, name: str, version: str = "") -> None:
        """Raise ``Refused`` for another model or version than the one there is."""
        if name != self.name:
            raise Refused(UNKNOWN, f"there is no model '{name}' here; the model is called '{self.name}'")
        if version not in ("", VERSION):
            raise Refused(UNKNOWN, f"model '{name}' has no version '{version}'; its version is {VERSION}")

    @contextmanager
    def admitted(self) -> Iterator[None]:
        """While a request is in flight. Raises ``Refused`` beyond the cap, and while the server stops."""
        if not self.ready:
            raise Refused(BUSY, "the server is stopping")
        if self._inflight >= self.limits.inflight:
            raise Refused(BUSY, f"{self.limits.inflight:,} requests are in flight, which is the cap; try again later")
        self._count(1)
        try:
            yield
        finally:
            self._count(-1)

    def _count(self, more: int) -> None:
        self._inflight += more
        self.meters.inflight.set(self._inflight)
        if self._inflight:
            self._idle.clear()
        else:
            self._idle.set()

    async def infer(self, given: Sequence[Given], wanted: Sequence[str]) -> Answer:
        """Answer a request that was admitted with the outputs of these names, or all of them.

        Raises ``Refused`` for one that does not fit; ``Broken`` for one that was taken up and failed.
        """
        unknown = next((name for name in wanted if name not in self._outputs), None)
        if unknown is not None:
            raise Refused(INVALID, f"there is no output '{unknown}'; there are {', '.join(self._outputs)}")
        samples = [Sample(body) for body in self._bodies(given)]
        await self._answered(samples)
        outputs = {name: np.stack([each.outputs[name] for each in samples]) for name in wanted or self._outputs}
        last = max(samples, key=lambda each: each.computed_ns)
        spans = (last.taken_ns - last.came_ns, last.ready_ns - last.taken_ns, last.computed_ns - last.ready_ns)
        return Answer(outputs, dict(zip(TIMES, spans, strict=True)))

    async def _answered(self, samples: list[Sample]) -> None:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()

        def done(request: Request) -> None:
            with suppress(RuntimeError):  # the loop is closed: the server did not wait for this one
                loop.call_soon_threadsafe(self._settle, future)

        request = Request(samples, done)
        self.engine.ask_for(request)
        try:
            async with asyncio.timeout(self.limits.answer_s):
                await future
        except TimeoutError:
            raise Broken(TOO_LATE, f"no answer within {self.limits.answer_s:g} s") from None
        finally:
            if future.cancelled():  # it is in flight all the same, until the pipeline has let go of it
                request.is_given_up = True
                self._count(1)
        if (failed := next((each for each in samples if each.error is not None), None)) is not None:
            where = f" (row {samples.index(failed)})" if len(samples) > 1 else ""
            kind = Refused if failed.is_bad else Broken
            raise kind(INVALID if failed.is_bad else 500, f"{failed.error}{where}")

    def _settle(self, future: asyncio.Future[None]) -> None:
        if future.cancelled():
            self._count(-1)
        else:
            future.set_result(None)

    def _bodies(self, given: Sequence[Given]) -> list[Any]:
        """The samples of a request, whose inputs must be those that the metadata tells."""
        spec = self._input
        if [each.name for each in given] != [spec.name]:
            names = ", ".join(f"'{each.name}'" for each in given) or "none"
            raise Refused(INVALID, f"got the inputs {names}, expected '{spec.name}' alone")
        [one] = given
        datatype = DATATYPES[spec.dtype]
        fits = len(one.shape) == len(spec.shape) and all(
            got > 0 and want in (None, got) for want, got in zip(spec.shape, one.shape, strict=True)
        )
        if one.datatype != datatype or not fits:
            told = f"{datatype} {[-1 if axis is None else axis for axis in spec.shape]}"
            raise Refused(INVALID, f"input '{spec.name}' is {one.datatype} {list(one.shape)}, expected {told}")
        if one.shape[0] > self._most_rows:
            told = f"input '{spec.name}' has {one.shape[0]:,} rows, expected {self._most_rows:,} at the most"
            raise Refused(INVALID, told)
        try:
            array = one.raw if isinstance(one.raw, np.ndarray) else from_bytes(one.raw, one.datatype, one.shape)
        except ValueError as error:
            raise Refused(INVALID, f"input '{spec.name}': {one_line(error)}") from error
        return bodies(self.engine.wire, array)

    async def drained(self, patience_s: float) -> bool:
        """Take up nothing any more; whether all that was taken up is answered within so many seconds."""
        self.ready = False
        try:
            async with asyncio.timeout(patience_s):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True


def _told(spec: TensorSpec) -> dict[str, Any]:
    shape = [-1 if axis is None else axis for axis in spec.shape]
    return {"name": spec.name, "datatype": DATATYPES[spec.dtype], "shape": shape}


def _configured(spec: TensorSpec) -> dict[str, Any]:
    """As Triton's configuration has a tensor: without the batch."""
    told = _told(spec)
    datatype = {"BYTES": "STRING"}.get(told["datatype"], told["datatype"])
    return {"name": spec.name, "data_type": f"TYPE_{datatype}", "dims": told["shape"][1:]}
