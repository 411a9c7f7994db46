"""Mistakes that CUDA and ONNX Runtime let pass, planted into the runner of a GPU: each shows in answers, or raises."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from itertools import repeat
from pathlib import Path
from typing import Any

import pytest

from backends import onnxruntime_cuda
from backends.base import Slot
from backends.onnxruntime_cuda import OnnxRuntimeGpuRunner
from kernels.device import DeviceError
from kernels.gpu_driver import Driver
from tests.fake_gpu import FakeGpuError
from tests.fake_onnxruntime import FakeOrt
from tests.unit.backends.test_onnxruntime import SIZES, is_right, loaded


class Without:
    """A driver that does not do one thing."""

    def __init__(self, driver: Driver, name: str, instead: Callable[..., Any]) -> None:
        self._driver = driver
        setattr(self, name, instead)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._driver, name)


class NoSynchronize(OnnxRuntimeGpuRunner):
    def _queue(self, driver: Any, slot: Slot) -> tuple[int, int]:
        return super()._queue(Without(driver, "elapsed_ms", lambda begin, end: 0.0), slot)


class WaitsForTheCopyAlone(OnnxRuntimeGpuRunner):
    """The output is copied before the model is started."""

    def _queue(self, driver: Any, slot: Slot) -> tuple[int, int]:
        late: list[int] = []
        self._start, started = late.append, self._start  # type: ignore[method-assign]
        try:
            spans = super()._queue(driver, slot)
        finally:
            self._start = started  # type: ignore[method-assign]
        self._start(*late)
        return spans


class SlotReadBeforeItIsReady(OnnxRuntimeGpuRunner):
    def _queue(self, driver: Driver, slot: Slot) -> tuple[int, int]:
        return super()._queue(driver, replace(slot, ready=None))


class BufferFreed(OnnxRuntimeGpuRunner):
    def _bind(self, n: int) -> None:
        super()._bind(n)
        self._memory["scores"].free()


class OtherStream(OnnxRuntimeGpuRunner):
    """The copies are on another stream than the session."""

    def __init__(self, gpu: Any, place: str, inputs: Any, outputs: Any, stream: int, session: Any, **more: Any) -> None:
        super().__init__(gpu, place, inputs, outputs, gpu.device.new_stream(), session, **more)


class BatchNotSet(OnnxRuntimeGpuRunner):
    def _start(self, n: int) -> None:
        super()._start(min(self._bindings))


class BoundBeforeBuffersGrew(OnnxRuntimeGpuRunner):
    def _bind(self, n: int) -> None:
        if n not in self._bindings:
            super()._bind(n)

    def _unbind(self) -> None: ...


class OutputOverInput(OnnxRuntimeGpuRunner):
    def _bind(self, n: int) -> None:
        self._memory, right = {**self._memory, "scores": self._memory["images"]}, self._memory
        super()._bind(n)
        self._memory = right


class WrongDtype(OnnxRuntimeGpuRunner):
    def _bind(self, n: int) -> None:
        self._specs, right = tuple(replace(spec, dtype="float16") for spec in self._specs), self._specs
        super()._bind(n)
        self._specs = right


class WrongShape(OnnxRuntimeGpuRunner):
    def _bind(self, n: int) -> None:
        more = tuple(replace(spec, shape=(None, 11)) for spec in self._output_specs)
        self._output_specs, right = more, self._output_specs
        super()._bind(n)
        self._output_specs = right


class GraphIdNotSet(OnnxRuntimeGpuRunner):
    def _bind(self, n: int) -> None:
        self._graph_ids = repeat(1)  # type: ignore[assignment]
        super()._bind(n)


class GraphKeptWhenBuffersGrew(OnnxRuntimeGpuRunner):
    def _bind(self, n: int) -> None:
        self._graph_ids = repeat(n)  # type: ignore[assignment]
        super()._bind(n)


class CapturedInAnotherThread(OnnxRuntimeGpuRunner):
    def _start(self, n: int) -> None:
        self._session.run_with_iobinding(*self._bindings[n])


class OtherLanesBinding(OnnxRuntimeGpuRunner):
    first: OnnxRuntimeGpuRunner | None = None

    def _start(self, n: int) -> None:
        type(self).first = self.first or self
        self._session.run_with_iobinding(*(self.first or self)._bindings[n])


MISTAKES = [
    (NoSynchronize, "pinned", False),
    (WaitsForTheCopyAlone, "pinned", False),
    (SlotReadBeforeItIsReady, "cuda:0", False),
    (BufferFreed, "pinned", False),
    (OtherStream, "pinned", False),
    (BatchNotSet, "pinned", False),
    (BoundBeforeBuffersGrew, "cuda:0", False),
    (OutputOverInput, "pinned", False),
    (WrongDtype, "pinned", False),
    (WrongShape, "pinned", False),
    (OtherLanesBinding, "pinned", False),
    (GraphIdNotSet, "pinned", True),
    (GraphKeptWhenBuffersGrew, "cuda:0", True),
    (CapturedInAnotherThread, "pinned", True),
]


def works(ort: FakeOrt, model: Path, place: str, graphs: bool) -> bool:
    """Whether two lanes answer rightly in the thread that warms them up, and in another, where no graph is captured."""
    right = []
    with loaded(model, lanes=2, graphs=graphs) as backend:
        runners = [backend.runner(place) for _ in range(2)]

        def ask() -> None:
            try:
                # Twice: the buffers grow in the first.
                right.extend(is_right(ort, model, runner, SIZES * 2) for runner in runners)
            except (DeviceError, FakeGpuError, RuntimeError, ValueError):
                right.append(False)

        ask()
        captured = len(ort.captures)
        lane = threading.Thread(target=ask)
        lane.start()
        lane.join(60)
    return all(right) and len(ort.captures) == captured


@pytest.mark.parametrize("graphs", [False, True])
@pytest.mark.parametrize("place", ["pinned", "cuda:0"])
def test_without_a_mistake_it_works(ort: FakeOrt, model: Path, place: str, graphs: bool) -> None:
    assert works(ort, model, place, graphs)


@pytest.mark.parametrize(("mistake", "place", "graphs"), MISTAKES)
def test_a_mistake_shows(
    ort: FakeOrt,
    model: Path,
    monkeypatch: pytest.MonkeyPatch,
    mistake: type[OnnxRuntimeGpuRunner],
    place: str,
    graphs: bool,
) -> None:
    monkeypatch.setattr(onnxruntime_cuda, "OnnxRuntimeGpuRunner", mistake)

    assert not works(ort, model, place, graphs)
