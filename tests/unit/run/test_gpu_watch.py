"""Who looks at a run's GPUs: at the right ones, before and in it, and never in its way."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from plugins.errors import DeviceNotFound
from sut.results.gpus import GpuUse, peak_bytes
from sut.run import gpu_watch
from sut.run.gpu_watch import Watch
from tests.nvidia import CUDA, FIRST, SECOND, FakeNvml, answers

MIB = 2**20


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> FakeNvml:
    """NVML, of which looks are taken as fast as they can be."""
    fake = FakeNvml()
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    monkeypatch.setattr(gpu_watch, "cuda_gpus", lambda: CUDA)
    monkeypatch.setattr(gpu_watch, "_EVERY_S", 0.0)
    monkeypatch.setattr(gpu_watch, "_TICK_S", 0.001)
    return fake


def watched(numbers: list[int], *running: bool) -> tuple[list[GpuUse] | None, list[str]]:
    """What is found in a run that is ``running`` or not at the looks at it, and then over."""
    left, over = list(running), threading.Event()

    def now() -> bool:
        if left:
            return left.pop(0)
        over.set()
        return False

    with Watch(numbers, now) as watch:
        assert over.wait(30)
    return watch.found()


def memory(*used_mib: int) -> dict[str, Any]:
    # The first is asked for its size.
    return {"MemoryInfo 33554472": [SimpleNamespace(total=2**34, used=mib * MIB) for mib in (0, *used_mib)]}


def test_before_a_run_and_in_it(library: FakeNvml) -> None:
    # Before, loading, and twice in the run; what comes after has no part in it.
    more: dict[str, Any] = {
        "ClockInfo 1": [210, 300, 1980, 990, 210],
        "CurrentClocksEventReasons": [0x1, 0x20, 0x4, 0x4 | 0x40, 0x80],
        "PowerUsage": [50_000, 60_000, 700_000, 600_000, 50_000],
        "TemperatureV 0": [30, 99, 80, 85, 99],
    }
    library.answers[f"GPU-{FIRST}"] = answers() | more | memory(10, 3000, 2000, 2500, 10)

    gpus, warnings = watched([0], False, True, True)

    assert gpus is not None
    [gpu] = gpus
    assert (gpu.device, gpu.uuid, gpu.name, gpu.memory_bytes) == ("cuda:0", FIRST, "Fake 90", 2**34)
    assert gpu.before is not None
    assert (gpu.before.used_bytes, gpu.before.sm_mhz, gpu.before.slowed_by) == (10 * MIB, 210, ())
    assert (gpu.looks, gpu.peak_bytes, gpu.lowest_sm_mhz, gpu.mean_sm_mhz) == (2, 3000 * MIB, 990, 1485.0)
    assert (gpu.mean_power_watts, gpu.hottest_celsius) == (650.0, 85)
    assert gpu.slowed == {"sw_power_cap": 2, "hw_thermal_slowdown": 1}
    assert peak_bytes(gpus) == 2990 * MIB
    assert warnings == [
        "cuda:0 was throttled: sw_power_cap at 2, hw_thermal_slowdown at 1 of 2 looks, 1,485 of 1,980 MHz on average"
    ]
    assert library.open == 0


def test_a_number_is_cudas(library: FakeNvml) -> None:
    gpus, _ = watched([1, 0], True)

    assert gpus is not None
    assert [(gpu.device, gpu.uuid, gpu.name) for gpu in gpus] == [
        ("cuda:1", SECOND, "Fake 75"),
        ("cuda:0", FIRST, "Fake 90"),
    ]


def test_memory_of_others_is_told(library: FakeNvml) -> None:
    library.answers[f"GPU-{FIRST}"] |= memory(1200)
    library.answers[f"GPU-{SECOND}"] |= memory(3)

    gpus, warnings = watched([0, 1], True)

    assert warnings == ["cuda:0: others held 1,200 MiB of its memory before the run"]
    assert peak_bytes(gpus) == 0


def test_what_nvml_does_not_tell_is_null(library: FakeNvml) -> None:
    library.answers[f"GPU-{FIRST}"] = {}

    gpus, warnings = watched([0], True)

    assert gpus is not None
    assert (gpus[0].looks, gpus[0].peak_bytes, gpus[0].mean_sm_mhz, gpus[0].slowed) == (1, None, None, {})
    assert (peak_bytes(gpus), warnings) == (None, [])


def test_on_the_cpu_nobody_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_watch, "Nvml", None)

    with Watch([], lambda: True) as watch:
        pass

    assert watch.found() == (None, [])
    assert peak_bytes(None) is None


def raising(error: Exception) -> Callable[[], Any]:
    def fail() -> Any:
        raise error

    return fail


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda at, fake: at.setitem(sys.modules, "pynvml", None), "nvidia-ml-py is not installed: pip install nvidia"),
        (lambda at, fake: at.setattr(fake, "nvmlInit", raising(OSError("no RM"))), "NVML does not start: no RM"),
        (lambda at, fake: at.setattr(gpu_watch, "cuda_gpus", raising(DeviceNotFound("no driver"))), "no driver"),
        (lambda at, fake: at.setattr(fake, "answers", {}), "NVML does not know it"),
    ],
)
def test_without_nvml_a_run_is_as_good_and_says_why(
    library: FakeNvml, monkeypatch: pytest.MonkeyPatch, spoil: Callable[..., None], why: str
) -> None:
    spoil(monkeypatch, library)

    with Watch([0], lambda: True) as watch:
        pass

    gpus, [note] = watch.found()
    assert gpus is None
    assert note.startswith(f"the GPU's state is unknown: {why}")


def test_a_driver_that_does_not_answer_keeps_nobody_waiting(library: FakeNvml, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = threading.Event()
    library.answers[f"GPU-{FIRST}"]["ClockInfo 1"] = lambda: answer.wait(30) and 1410
    monkeypatch.setattr(gpu_watch, "_BEFORE_S", 0.01)
    monkeypatch.setattr(gpu_watch, "_END_S", 0.01)

    with Watch([0], lambda: True) as watch:
        pass

    assert watch.found() == (None, ["the GPU's state is unknown: the driver does not answer"])
    answer.set()


def test_a_look_that_came_too_late_says_nothing_of_before(library: FakeNvml, monkeypatch: pytest.MonkeyPatch) -> None:
    library.answers[f"GPU-{FIRST}"] |= memory(1200)
    began = threading.Event()
    monkeypatch.setattr(gpu_watch, "_BEFORE_S", 0.01)
    monkeypatch.setattr(gpu_watch, "cuda_gpus", lambda: CUDA if began.wait(30) else [])
    looked = threading.Event()

    def running() -> bool:
        looked.set()
        return True

    with Watch([0], running) as watch:
        began.set()
        assert looked.wait(30)

    gpus, warnings = watch.found()
    assert gpus is not None
    assert (gpus[0].before, warnings, peak_bytes(gpus)) == (None, [], None)
