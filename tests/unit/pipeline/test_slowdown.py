"""Stretched stages take as long as they were told to, on cores where they are of cores, and answer the same."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from backends.base import Attestation, Runner, Slot
from preprocess.base import Geometry, Mark, Preprocessor, Target
from preprocess.opencv import OpenCV
from preprocess.simulated import Simulated
from sut.config import RunConfig, make_config
from sut.errors import InputError
from sut.pipeline import slowdown, system
from sut.pipeline.slowdown import Burn, Slowdown, burn, sleep
from sut.pipeline.system import SUT
from sut.qsl.library import Rows, Source

STAGES = ("decode", "resize", "normalize", "gather", "h2d", "infer", "d2h", "postprocess", "complete")
WORK_NS = 50_000_000
GEOMETRY = Geometry(1, 1, 1.0, 1.0, 0.0, 0.0)


def backend(provider: str = "none", device: str = "cpu", **details: str) -> Any:
    attested = Attestation(device, "some", provider, "fp32", details)
    return SimpleNamespace(inputs=("images",), transfers=False, attest=lambda: attested)


def slowed(
    slowdown: dict[str, float], of: Any = None, preprocessor: type[Preprocessor] = Simulated, **settings: Any
) -> Slowdown:
    config = RunConfig(slowdown=slowdown, boundary="jpeg", **{"threads": 1} | settings)
    return Slowdown(config, of or backend(), preprocessor, STAGES)


class Worker(Runner):
    """Sleeps, or works, for a while."""

    def __init__(self, take: Any) -> None:
        self.take, self.closed = take, False

    def slot(self, n: int) -> Slot:
        return Slot(n, {})

    def infer(self, slot: Slot) -> Mapping[str, Any]:
        self.take()
        return {"label": slot.n}

    def close(self) -> None:
        self.closed = True


def asleep() -> None:
    time.sleep(WORK_NS / 1e9)


def at_work() -> None:
    burn(WORK_NS)


def timed(work: Any) -> tuple[int, int]:
    """Wall time and CPU time in a thread of its own, in ns: none has been woken late in it before."""

    def measure() -> tuple[int, int]:
        wall, cpu = time.monotonic_ns(), time.thread_time_ns()
        work()
        return time.monotonic_ns() - wall, time.thread_time_ns() - cpu

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(measure).result()


def test_what_takes_no_core_sleeps_longer() -> None:
    inner = Worker(asleep)
    runner = slowed({"infer": 3.0}).runner(inner)

    wall_ns, cpu_ns = timed(lambda: runner.infer(runner.slot(5)))
    runner.close()

    assert wall_ns >= 3 * WORK_NS and cpu_ns < WORK_NS
    assert runner.infer(Slot(7, {})) == {"label": 7} and inner.closed


@pytest.mark.parametrize("threads", [1, 3])
def test_what_takes_cores_goes_on_taking_as_many(threads: int) -> None:
    runner = slowed({"infer": 2.0}, backend("CPUExecutionProvider"), threads=threads).runner(Worker(at_work))

    before = time.process_time_ns()
    _, cpu_ns = timed(lambda: runner.infer(runner.slot(1)))

    assert cpu_ns >= 2 * WORK_NS
    assert time.process_time_ns() - before >= (1 + threads) * WORK_NS


def test_a_thread_that_waited_for_others_counts_by_the_clock() -> None:
    _, cpu_ns = timed(lambda: Burn(1)(1.0, WORK_NS, WORK_NS // 10))

    assert cpu_ns >= WORK_NS


def test_a_thread_that_shared_its_core_counts_by_its_own_time() -> None:
    _, cpu_ns = timed(lambda: Burn(1)(1.0, WORK_NS, WORK_NS * 6 // 10))

    assert WORK_NS * 6 // 10 <= cpu_ns < WORK_NS


def test_sleeping_takes_no_core_and_what_it_was_late_by_is_taken_off_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    until: list[int] = []
    clock = iter([0, 130, 200, 250])
    monkeypatch.setattr(slowdown.time, "monotonic_ns", lambda: next(clock))
    monkeypatch.setattr(slowdown, "sleep_until", until.append)
    monkeypatch.setattr(slowdown, "_thread", threading.local())

    sleep(0.5, 200, 0)  # ends at 130
    sleep(0.5, 200, 0)  # begins at 200

    assert until == [100, 270]


def test_copies_are_stretched_by_their_own_factors() -> None:
    inner = Worker(asleep)
    inner.transfers_ns = (10_000_000, 20_000_000)
    runner = slowed({"h2d": 2.0, "d2h": 1.5}).runner(inner)

    wall_ns, _ = timed(lambda: runner.infer(runner.slot(1)))

    assert wall_ns >= WORK_NS + 10_000_000 + 10_000_000
    assert runner.transfers_ns == (20_000_000, 30_000_000)


class Stages(Source):
    """Three stages, each of which sleeps."""

    stages = ("decode", "resize", "normalize")

    def fill(self, indices: Sequence[int], target: Target, mark: Mark) -> list[Geometry]:
        for stage in self.stages:
            asleep()
            mark(stage)
        return [GEOMETRY]

    def view(self, index: int) -> Any:
        return None

    def counts(self) -> Mapping[str, int]:
        return {"seen": 3}


def test_each_stage_of_a_source_has_its_own_factor() -> None:
    source = slowed({"decode": 2.0, "normalize": 3.0}).source(Stages())
    ends: list[int] = []

    def fill() -> None:
        ends.append(time.monotonic_ns())
        assert source.fill([0], Rows.of(np.empty(1)), lambda stage: ends.append(time.monotonic_ns())) == [GEOMETRY]

    timed(fill)

    took = np.diff(ends) / WORK_NS
    assert source.stages == Stages.stages and source.counts() == {"seen": 3}
    # What a stage is woken late by is taken off the next ones.
    assert took[0] >= 2 and took[1] >= 1 and took.sum() >= 6
    assert source.view(0) is None


def test_a_task_is_stretched_and_answers_the_same() -> None:
    class Answers:
        stages = ("nms", "postprocess")

        def decode(self, outputs: Any, indices: Any, geometries: Any, rows: int, mark: Mark) -> list[bytes]:
            burn(WORK_NS // 2)
            mark("nms")
            burn(WORK_NS // 2)
            return [b"answer"]

    decoder = slowed({"postprocess": 3.0}).decoder(Answers())
    marks: list[str] = []

    _, cpu_ns = timed(lambda: marks.extend(map(str, decoder.decode({}, [0], [GEOMETRY], 1, marks.append))))

    assert cpu_ns >= 2 * WORK_NS and marks == ["nms", "b'answer'"]


@pytest.mark.parametrize(
    ("slowdown", "settings", "of", "error"),
    [
        ({"decod": 2.0}, {}, None, "unknown stage 'decod'; did you mean decode"),
        ({"gather": 2.0}, {}, None, "gather cannot be stretched"),
        ({"complete": 2.0}, {}, None, "complete cannot be stretched"),
        ({"infer": 2.0}, {"lanes": 3}, backend(devices="2"), "3 lanes share 2 devices.* add --lanes 2"),
        ({"infer": 2.0}, {"lanes": 2}, backend("CUDA", "cuda:0"), "2 lanes share 1 device.* add --lanes 1"),
        ({"preprocess": 2.0}, {"boundary": "device"}, None, "preprocess is on the GPU"),
    ],
)
def test_what_cannot_be_stretched_is_refused(
    slowdown: dict[str, float], settings: dict[str, Any], of: Any, error: str
) -> None:
    with pytest.raises(InputError, match=error):
        Slowdown(
            RunConfig(**{"slowdown": slowdown, "boundary": "jpeg"} | settings),
            of or backend(),
            OpenCV,
            (*STAGES, "preprocess"),
        )


def test_lanes_that_share_cores_may_be_stretched() -> None:
    slowed({"infer": 2.0}, backend("CPUExecutionProvider"), lanes=4)
    slowed({"infer": 2.0}, backend(devices="4"), lanes=4)


@pytest.mark.parametrize("factor", [0.5, 0, -1, 1000, "twice"])
def test_a_factor_is_one_or_more(factor: Any) -> None:
    with pytest.raises(InputError, match=r"slowdown.infer: "):
        make_config({"slowdown": {"infer": factor}})


def test_a_stretched_run_has_a_folder_of_its_own() -> None:
    assert RunConfig(slowdown={"infer": 2.0}).digest() != RunConfig().digest()


def test_without_it_nothing_is_wrapped(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[object] = []
    monkeypatch.setattr(system, "Slowdown", lambda *args: made.append(args))

    with SUT(RunConfig(backend="null", dataset="demo")) as sut:
        assert sut.lanes and made == []
