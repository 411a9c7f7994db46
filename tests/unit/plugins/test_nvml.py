"""What is asked of NVML, and what comes of it where a driver or a GPU does not know an answer."""

from __future__ import annotations

import sys
from dataclasses import fields
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from plugins.errors import DeviceNotFound
from plugins.nvml import GpuFacts, GpuState, Nvml, NvmlGpu, slowing
from tests.nvidia import FIRST, SECOND, FakeNvml, answers


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> FakeNvml:
    fake = FakeNvml()
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    return fake


def gpu_of(nvml: Nvml, uuid: str = FIRST) -> NvmlGpu:
    gpu = nvml.gpu(uuid)
    assert gpu is not None
    return gpu


def test_a_gpu_in_units_of_ours(library: FakeNvml) -> None:
    library.answers[f"GPU-{FIRST}"] = answers(
        used=5,
        CurrentClocksEventReasons=0x1 | 0x4,
        JpgUtilization=(0, 0),
        Attributes=SimpleNamespace(sharedJpegCount=0),  # which are those of MIG parts
    )

    with Nvml() as nvml:
        gpu = gpu_of(nvml)
        assert (nvml.driver, nvml.uuids()) == ("580.1", [SECOND, FIRST])
        assert gpu.facts() == GpuFacts("Fake 90", 2**34, 1980, 2619, 700.0, True, None, None)
        assert gpu.state() == GpuState(5, 1410, 2619, 69.5, 31, ("sw_power_cap",))

    assert library.open == 0
    with Nvml() as nvml:
        assert nvml.gpu("00000000-0000-0000-0000-00000000000c") is None


def test_what_nvml_does_not_tell_is_none(library: FakeNvml) -> None:
    library.answers[f"GPU-{FIRST}"] = {}

    with Nvml() as nvml:
        state, facts = gpu_of(nvml).state(), gpu_of(nvml).facts()

    assert {getattr(state, each.name) for each in fields(GpuState)} == {None}
    assert {getattr(facts, each.name) for each in fields(GpuFacts)} == {None, "unknown"}


def test_a_module_without_a_function_is_one_that_does_not_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    bare = SimpleNamespace(nvmlInit=lambda: None, NVMLError=FakeNvml.NVMLError)
    bare.nvmlDeviceGetHandleByUUID = lambda uuid: uuid
    monkeypatch.setitem(sys.modules, "pynvml", bare)

    with Nvml() as nvml:
        assert (nvml.driver, nvml.uuids(), gpu_of(nvml).state().sm_mhz) == ("", [], None)


def test_drivers_of_before_cuda_13_answer_to_older_names(library: FakeNvml) -> None:
    old = answers(CurrentClocksThrottleReasons=0x40)
    del old["CurrentClocksEventReasons"]
    old["Temperature 0"] = old.pop("TemperatureV 0") + 1
    library.answers[f"GPU-{FIRST}"] = old

    with Nvml() as nvml:
        state = gpu_of(nvml).state()

    assert (state.slowed_by, state.temperature_celsius) == (("hw_thermal_slowdown",), 32)


def test_a_mig_part_has_memory_of_its_own_and_clocks_of_the_whole(library: FakeNvml) -> None:
    part: dict[str, Any] = {
        "DeviceHandleFromMigDeviceHandle": "whole",
        "Name": "Fake MIG 1g",
        "Attributes": SimpleNamespace(),
    }
    part["Attributes"].sharedJpegCount = 2
    part["MemoryInfo 33554472"] = SimpleNamespace(total=2**30, used=7)
    library.answers = {f"MIG-{FIRST}": part, "whole": answers(used=2**33, MigMode=(1, 1))}

    with Nvml() as nvml:
        facts, state = gpu_of(nvml).facts(), gpu_of(nvml).state()

    assert (facts.name, facts.memory_bytes, facts.jpeg_engines, facts.mig) == ("Fake MIG 1g", 2**30, 2, True)
    assert (state.used_bytes, state.sm_mhz, facts.power_watts) == (7, 1410, 700.0)


def test_energy_and_power_are_of_whole_gpus_alone(library: FakeNvml) -> None:
    library.answers[f"GPU-{FIRST}"]["TotalEnergyConsumption"] = 1_234_567
    with Nvml() as nvml:
        assert (gpu_of(nvml).joules(), gpu_of(nvml).watts()) == (1234.567, 69.5)
        library.answers[f"GPU-{FIRST}"] = {}
        assert (gpu_of(nvml).joules(), gpu_of(nvml).watts()) == (None, None)
    part = {"DeviceHandleFromMigDeviceHandle": "whole", "TotalEnergyConsumption": 1, "PowerUsage": 1}
    library.answers = {f"MIG-{FIRST}": part, "whole": answers(TotalEnergyConsumption=1)}
    with Nvml() as nvml:
        assert (gpu_of(nvml).joules(), gpu_of(nvml).watts()) == (None, None)


@pytest.mark.parametrize(
    ("bits", "reasons"),
    [
        (0x0, ()),
        (0x1 | 0x2 | 0x100, ()),
        (0x8 | 0x80, ("hw_slowdown", "hw_power_brake_slowdown")),
        (1 << 40, (hex(1 << 40),)),
    ],
)
def test_only_what_slows_is_throttling(bits: int, reasons: tuple[str, ...]) -> None:
    assert slowing(bits) == reasons


def test_nvml_that_does_not_start_says_why(library: FakeNvml, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise FakeNvml.NVMLError("Driver Not Loaded")

    monkeypatch.setattr(library, "nvmlInit", fail)
    with pytest.raises(DeviceNotFound, match="NVML does not start: Driver Not Loaded"):
        Nvml()

    monkeypatch.setitem(sys.modules, "pynvml", ModuleType("pynvml"))
    with pytest.raises(DeviceNotFound, match="has no attribute 'nvmlInit'"):
        Nvml()

    monkeypatch.setitem(sys.modules, "pynvml", None)
    with pytest.raises(ModuleNotFoundError, match="nvidia-ml-py is not installed"):
        Nvml()
