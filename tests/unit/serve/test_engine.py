"""The engine in one process: batches form across requests, and what fails one request fails no other."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import cv2
import numpy as np
import pytest

from backends.base import Slot
from backends.simulated import SimulatedRunner
from sut.config import make_config
from sut.errors import InputError
from sut.pipeline.assembly import assemble
from sut.pipeline.ledger import Counter, Ledger
from sut.serve.engine import Engine
from sut.serve.samples import Request, Sample

SHAPE = (3, 224, 224)
LIMIT_S = 60.0
"""Against hangs only."""
FUSED: dict[str, Any] = {}
STAGED: dict[str, Any] = {"preprocess_workers": 2}


@contextmanager
def engine(boundary: str, **settings: Any) -> Iterator[Engine]:
    own: dict[str, Any] = {"backend": "simulated", "backend_options": {"a_ms": 1, "b_ms": 0}, "scenario": "Server"}
    config = make_config(own | {"boundary": boundary, "lanes": 1, "max_batchsize": 4} | settings)
    with Engine(config, assemble(config)) as made:
        made.warm(None)
        yield made


class Asked:
    """Requests, and their ends."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._done = threading.Semaphore(0)
        self.requests: list[Request] = []

    def ask(self, *bodies: Any) -> Request:
        request = Request([Sample(body) for body in bodies], lambda request: self._done.release())
        self.requests.append(request)
        self.engine.ask_for(request)
        return request

    def wait(self) -> None:
        for _ in self.requests:
            assert self._done.acquire(timeout=LIMIT_S)
        assert not self._done.acquire(timeout=0.01)  # each is done once


def row(number: int) -> Any:
    """A row whose label is 1 + number."""
    made = np.zeros(SHAPE, np.float32)
    made[0, 0, 0] = number / 1000
    return made


def labels(request: Request) -> list[int]:
    return [int(sample.outputs["label"]) for sample in request.samples]


def picture(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (1, 1, 3)).repeat(60, 0).repeat(80, 1).astype(np.uint8)
    return cv2.imencode(".jpg", pixels)[1].tobytes()


class Held:
    """Keeps the lane in its batch until it is let go, and writes down how large batches were."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sizes: list[int] = []
        self.go, self.is_in = threading.Event(), threading.Event()
        infer = SimulatedRunner.infer

        def held(runner: SimulatedRunner, slot: Slot) -> Mapping[str, Any]:
            self.sizes.append(slot.n)
            self.is_in.set()
            assert self.go.wait(LIMIT_S)
            return infer(runner, slot)

        monkeypatch.setattr(SimulatedRunner, "infer", held)


def test_batches_form_across_requests_and_each_gets_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    with engine("tensor") as made:
        held, asked = Held(monkeypatch), Asked(made)
        asked.ask(row(0))
        assert held.is_in.wait(LIMIT_S)
        for numbers in ((1,), (2, 3), (4, 5, 6, 7, 0), (1,)):
            asked.ask(*map(row, numbers))
        held.go.set()
        asked.wait()

        assert held.sizes == [1, 4, 4, 1]
        assert [labels(each) for each in asked.requests] == [[1], [2], [3, 4], [5, 6, 7, 8, 1], [2]]
        for sample in (sample for each in asked.requests for sample in each.samples):
            assert sample.came_ns <= sample.taken_ns <= sample.ready_ns <= sample.computed_ns
        assert not made._requests.held


@pytest.mark.parametrize("staging", [FUSED, STAGED], ids=["fused", "staged"])
@pytest.mark.parametrize("bad", [b"", b"no picture", picture(0)[:-200], picture(0)[:100]], ids=len)
def test_a_bad_picture_fails_alone(staging: Mapping[str, Any], bad: bytes) -> None:
    good = [picture(seed) for seed in range(1, 7)]
    with engine("jpeg", preprocess="opencv", **staging) as made:
        alone, asked = Asked(made), Asked(made)
        for each in good:
            alone.ask(each)
        alone.wait()
        asked.ask(good[0], bad, good[1])
        for each in good[2:]:
            asked.ask(each)
            asked.ask(bad)
        asked.ask(bad, bad, bad, bad)
        asked.wait()

        found = {id(sample.body): sample for each in asked.requests for sample in each.samples if sample.body != bad}
        for body, request in zip(good, alone.requests, strict=True):
            assert found[id(body)].error is None
            assert int(found[id(body)].outputs["label"]) == labels(request)[0]
        spoilt = [sample for each in asked.requests for sample in each.samples if sample.body == bad]
        assert len(spoilt) == 9 and all(sample.is_bad and sample.error for sample in spoilt)


@pytest.mark.parametrize("staging", [FUSED, STAGED], ids=["fused", "staged"])
def test_what_the_backend_raises_fails_its_requests_and_no_others(
    monkeypatch: pytest.MonkeyPatch, staging: Mapping[str, Any]
) -> None:
    infer = SimulatedRunner.infer

    def failing(runner: SimulatedRunner, slot: Slot) -> Mapping[str, Any]:
        outputs = infer(runner, slot)
        if fails.is_set():
            raise RuntimeError("the device\nis gone")
        return outputs

    boundary, bodies = ("jpeg", [picture(seed) for seed in range(3)]) if staging else ("tensor", [row(1)] * 3)
    with engine(boundary, **staging) as made:
        fails = threading.Event()
        monkeypatch.setattr(SimulatedRunner, "infer", failing)
        first, second, third = Asked(made), Asked(made), Asked(made)
        for asked in (first, second, third):
            if asked is second:
                fails.set()
            else:
                fails.clear()
            asked.ask(*bodies)
            asked.wait()

        for asked in (first, third):
            assert [sample.error for sample in asked.requests[0].samples] == [None] * 3
        for sample in second.requests[0].samples:
            assert sample.error == "RuntimeError: the device is gone" and not sample.is_bad
        assert not made._requests.held


def test_what_nobody_waits_for_is_not_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    with engine("tensor") as made:
        held, asked = Held(monkeypatch), Asked(made)
        asked.ask(row(0))
        assert held.is_in.wait(LIMIT_S)
        asked.ask(*[row(1)] * 8).is_given_up = True
        asked.ask(row(2))
        made_up = asked.ask(*[row(3)] * 3)
        held.go.set()
        asked.wait()

        assert held.sizes == [1, 4]
        assert labels(asked.requests[2]) == [3] and labels(made_up) == [4, 4, 4]


def test_the_end_computes_nothing_that_was_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    with engine("tensor") as made:
        held, asked = Held(monkeypatch), Asked(made)
        for _ in range(50):
            asked.ask(row(0))
        assert held.is_in.wait(LIMIT_S)
        made.give_up()
        held.go.set()
    asked.wait()

    assert len(held.sizes) <= 2


def test_more_requests_than_a_ledger_has_room_for() -> None:
    with engine("tensor") as made:
        made.start(Ledger(made.ledger_shape(8, traced=False)))
        asked = Asked(made)
        for number in range(20):
            asked.ask(*[row(number % 9)] * 3)
        asked.wait()

        assert made.ledger.words[Counter.DONE] == 60
        assert [labels(each) for each in asked.requests] == [[number % 9 + 1] * 3 for number in range(20)]
        assert b"sut_samples_total 60.0" in made.meters.text()


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"boundary": "device"}, "serve tensor, pixels or jpeg"),
        ({"boundary": "jpeg", "preprocess_workers": 1, "preprocess_place": "process"}, "serve with thread"),
        ({"boundary": "tensor", "backend": "null", "backend_options": {}}, "null takes nothing for a sample"),
    ],
)
def test_what_cannot_be_served(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError, match=told), engine(**settings):
        pass


def test_outputs_are_chosen_of_a_model_alone_as_in_a_run() -> None:
    with engine("tensor", outputs=["nothing"]) as made:
        assert [each.name for each in made.outputs] == ["label"]
