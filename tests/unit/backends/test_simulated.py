"""The simulated backend and preprocessor: the planted time, one batch at a time per device, the same answers."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
import pytest

import backends.registry
import backends.simulated
import plugins.sleep
import preprocess.registry
import preprocess.simulated
from backends.base import ModelFile, Slot
from backends.simulated import Simulated
from plugins.errors import DeviceNotFound
from preprocess.base import Recipe
from preprocess.oracle import fit
from preprocess.simulated import Simulated as SimulatedPreprocessor
from sut.qsl.library import Rows

SHAPE = (3, 4, 4)
RECIPE = Recipe(name="small", size=4, fit="crop-resize", interpolation="linear")


@dataclass
class Time:
    """Stands for the module ``time``: it stands still and writes down what is slept, in ms."""

    slept_ms: list[float] = field(default_factory=list)

    def monotonic_ns(self) -> int:
        return 0

    def sleep(self, seconds: float) -> None:
        self.slept_ms.append(round(1000 * seconds, 6))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Time]:
    stub = Time()
    for module in (backends.simulated, preprocess.simulated, plugins.sleep):
        monkeypatch.setattr(module, "time", stub)
    yield stub


def loaded(device: str = "cpu", lanes: int = 1, **options: Any) -> Simulated:
    return Simulated.load(ModelFile(None, sample_shape=SHAPE), device, lanes, 1, options)


def filled(slot: Slot, seed: int = 0) -> Slot:
    [rows] = slot.buffers.values()
    rows[...] = np.random.default_rng(seed).normal(size=rows.shape)
    return slot


def test_both_are_registered() -> None:
    assert backends.registry.load("simulated") is Simulated
    assert preprocess.registry.load("simulated") is SimulatedPreprocessor


@pytest.mark.parametrize(("n", "slept_ms"), [(1, 4.5), (2, 6), (8, 15)])
def test_a_batch_takes_what_was_planted(clock: Time, n: int, slept_ms: float) -> None:
    with loaded(a_ms=3, b_ms=1.5).runner() as runner:
        runner.infer(runner.slot(n))

    assert clock.slept_ms == [slept_ms]


def test_it_really_takes_that_time() -> None:
    with loaded(a_ms=2, b_ms=3).runner() as runner:
        begin = time.monotonic_ns()
        runner.infer(runner.slot(2))

        assert time.monotonic_ns() - begin >= 8_000_000


def test_lanes_of_a_device_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """None is served twice while another waits, however fast it comes back."""
    backend, served = loaded(), list[str]()
    [queue] = backend._queues

    def until_all_wait(until_ns: int) -> None:
        deadline = time.monotonic() + 10
        while queue._came < min(3 * 20, len(served) + 3):
            assert time.monotonic() < deadline
            time.sleep(0.0005)
        served.append(threading.current_thread().name)

    def lane() -> None:
        runner = backend.runner()
        for _ in range(20):
            runner.infer(runner.slot(1))

    monkeypatch.setattr(backends.simulated, "sleep_until", until_all_wait)
    threads = [threading.Thread(target=lane, name=name) for name in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)

    assert served == served[:3] * 20 and {*served} == {*"abc"}


def times(clock: Time, backend: Simulated, batches: int) -> list[float]:
    clock.slept_ms.clear()
    runner = backend.runner()
    for _ in range(batches):
        runner.infer(runner.slot(1))
    return list(clock.slept_ms)


def test_jitter_is_the_same_for_the_same_seed_and_its_mean_is_one(clock: Time) -> None:
    backend = loaded(a_ms=1, b_ms=1, jitter=0.2, seed=3)
    first, second = times(clock, backend, 4000), times(clock, backend, 4000)

    assert times(clock, loaded(a_ms=1, b_ms=1, jitter=0.2, seed=3), 4000) == first
    assert times(clock, loaded(a_ms=1, b_ms=1, jitter=0.2, seed=4), 4000) != first
    assert second != first  # each lane has its own
    assert np.mean(first) == pytest.approx(2, rel=0.02)
    assert np.std(first) / np.mean(first) == pytest.approx(0.2, rel=0.1)


def busy_at_once(monkeypatch: pytest.MonkeyPatch, backend: Simulated, lanes: int, wait_s: float) -> int:
    """The most batches that were under way at a time, each lane's going on until all came or ``wait_s`` are over."""
    under_way, most = 0, 0
    changed = threading.Condition()

    def sleep(until_ns: int) -> None:
        nonlocal under_way, most
        with changed:
            under_way += 1
            most = max(most, under_way)
            changed.notify_all()
            changed.wait_for(lambda: most == lanes, timeout=wait_s)
            under_way -= 1

    monkeypatch.setattr(backends.simulated, "sleep_until", sleep)
    runners = [backend.runner() for _ in range(lanes)]
    threads = [threading.Thread(target=runner.infer, args=(runner.slot(1),)) for runner in runners]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    return most


@pytest.mark.parametrize(
    ("device", "options", "lanes", "at_once"),
    [
        ("cpu", {}, 3, 1),
        ("cpu", {"devices": 2}, 4, 2),
        ("cpu", {"devices": 4}, 4, 4),
        ("sim:5", {}, 2, 1),
    ],
)
def test_each_device_serves_one_batch_at_a_time(
    monkeypatch: pytest.MonkeyPatch, device: str, options: dict[str, Any], lanes: int, at_once: int
) -> None:
    wait_s = 5 if at_once == lanes else 0.2  # who all come are not waited for
    assert busy_at_once(monkeypatch, loaded(device, lanes, **options), lanes, wait_s) == at_once


def test_labels_depend_on_the_rows_and_on_nothing_else(clock: Time) -> None:
    backend = loaded(devices=2)
    one, other = backend.runner(), backend.runner()
    labels = one.infer(filled(one.slot(64)))["label"]

    assert labels.dtype == np.int64
    assert labels.min() >= 1
    assert labels.max() <= 9
    assert len(set(labels.tolist())) > 5
    again = filled(other.slot(64))
    assert other.infer(again)["label"].tolist() == labels.tolist()
    lent = np.ascontiguousarray(again.buffers["images"][7:8])
    assert one.infer(Slot(1, {"any": lent}))["label"].tolist() == [labels[7]]


def test_its_input_is_the_models(clock: Time) -> None:
    [default] = Simulated.load(ModelFile(None), "cpu", 1, 1).inputs
    [told] = loaded().inputs

    assert (default.dtype, default.shape, default.layout) == ("float32", (None, 3, 224, 224), "NCHW")
    assert (told.shape, told.layout) == ((None, 3, 4, 4), "NCHW")


def test_it_attests_the_device_asked_for_and_what_was_planted() -> None:
    attested = loaded("sim:3", a_ms=1, b_ms=2.5).attest()

    assert (attested.device, attested.precision) == ("sim:3", "none")
    assert attested.details == {"batch_ms": "1 + 2.5 n", "jitter": "0"}, "a name is one device"
    assert loaded("cpu").attest().details["devices"] == "1"
    assert loaded("cpu", devices=3).attest().details["devices"] == "3"


@pytest.mark.parametrize("device", ["gpu", "cuda", "sim", "sim:16", "sim:0,sim:1", "sim:-1", ""])
def test_other_devices_are_not_there(device: str) -> None:
    with pytest.raises(DeviceNotFound, match="has cpu, or sim:0 to sim:15, got device"):
        loaded(device)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"c_ms": 1}, "simulated has no option 'c_ms'; did you mean b_ms\\? known: a_ms"),
        ({"a_ms": -1}, "a_ms: got -1, expected milliseconds"),
        ({"b_ms": "fast"}, "b_ms: got 'fast', expected milliseconds"),
        ({"b_ms": float("nan")}, "b_ms: got nan, expected milliseconds"),
        ({"jitter": 2}, "jitter: got 2, expected a number from 0 to 1"),
        ({"seed": 0.5}, "seed: got 0.5, expected a whole number"),
        ({"devices": 0}, "devices: got 0, expected a whole number from 1 to 16"),
        ({"devices": True}, "devices: got True, expected a whole number from 1 to 16"),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], error: str) -> None:
    with pytest.raises(ValueError, match=error):
        loaded(**options)


def test_devices_are_named_or_counted_not_both() -> None:
    with pytest.raises(ValueError, match="devices goes with the device cpu, got device 'sim:0'"):
        loaded("sim:0", devices=2)


def preprocessed(recipe: Recipe, encoded: list[bytes], **planted: float) -> tuple[Any, list[str]]:
    marked: list[str] = []
    rows = np.full((len(encoded) + 1, *recipe.sample_shape), 77, recipe.dtype)
    with SimulatedPreprocessor(recipe, **planted) as working:
        geometries = working.run(encoded, Rows.of(rows), marked.append)
    assert len(geometries) == len(encoded)
    return rows, marked


def test_each_stage_of_each_picture_takes_what_was_planted(clock: Time) -> None:
    _, marked = preprocessed(RECIPE, [b"a", b"b", b"c"], decode_ms=2, resize_ms=1, normalize_ms=0.5)

    assert marked == ["decode", "resize", "normalize"]
    assert clock.slept_ms == [6, 3, 1.5]


def test_from_pixels_nothing_is_decoded(clock: Time) -> None:
    marked: list[str] = []
    pixels = [np.zeros((5, 7, 3), np.uint8), np.ones((5, 7, 3), np.uint8)[:, ::2]]
    rows = np.empty((2, *SHAPE), np.float32)

    SimulatedPreprocessor(RECIPE, decode_ms=2, resize_ms=1, normalize_ms=0.5).run_pixels(
        pixels, Rows.of(rows), marked.append
    )

    assert tuple(marked) == SimulatedPreprocessor.pixel_stages() == ("resize", "normalize")
    assert clock.slept_ms == [2, 1]
    assert rows[0].ravel()[0] != rows[1].ravel()[0]


@pytest.mark.parametrize("dtype", ["float32", "uint8"])
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_a_row_tells_its_file_and_nothing_else(clock: Time, dtype: Any, layout: Any) -> None:
    recipe = Recipe(name="r", size=4, fit="crop-resize", interpolation="linear", dtype=dtype, layout=layout)
    rows, _ = preprocessed(recipe, [b"one", b"two", b"one"])

    first = rows.reshape(len(rows), -1)
    assert first[0].tolist() == first[2].tolist()
    assert first[0][0] != first[1][0]
    assert not first[:3, 1:].any()
    assert (first[3] == 77).all()


def test_the_geometry_is_that_of_the_pictures_size(clock: Time) -> None:
    recipe = Recipe(name="r", size=64, fit="letterbox", interpolation="linear")
    pixels = np.zeros((30, 40, 3), np.uint8)
    rows = Rows.of(np.empty((2, *recipe.sample_shape), np.float32))
    working = SimulatedPreprocessor(recipe)

    expected = fit(recipe, 40, 30).geometry
    assert working.run_pixels([pixels], rows, lambda stage: None) == [expected]
    png = cv2.imencode(".png", pixels)[1].tobytes()
    assert working.run([png, b"none"], rows, lambda stage: None) == [expected, fit(recipe, 64, 64).geometry]


@pytest.mark.parametrize("planted", [{"decode_ms": -1.0}, {"resize_ms": float("nan")}, {"normalize_ms": float("inf")}])
def test_a_time_that_is_none_is_refused(planted: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"_ms: got .*, expected milliseconds"):
        SimulatedPreprocessor(RECIPE, **planted)


def test_a_buffer_that_does_not_fit_is_refused(clock: Time) -> None:
    with pytest.raises(ValueError, match="expected float32 with at least 1 rows"):
        SimulatedPreprocessor(RECIPE).run([b"x"], Rows.of(np.empty((1, 3, 5, 5), np.float32)), lambda stage: None)
