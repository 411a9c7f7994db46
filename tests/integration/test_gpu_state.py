"""The GPUs of a run: real processes and nvidia-ml-py, over stand-ins for the driver."""

from __future__ import annotations

from pathlib import Path

from tests.core import needs
from tests.integration.support import Sut
from tests.nvidia import FIRST, variables

pytestmark = needs("nvidia-ml-py")

POWER_CAP_AND_HEAT = "36"


def test_a_run_tells_what_its_gpu_was_like_and_that_it_was_throttled(sut: Sut, tmp_path: Path) -> None:
    machine = variables(tmp_path, REASONS=POWER_CAP_AND_HEAT)
    where = ("--dataset-path", sut.pictures(), "--time", "1")

    done = sut.run("--backend", "other-device", "--device", "cuda:0", *where, **machine)

    result = done.result
    [gpu] = result["gpus"]
    assert (gpu["device"], gpu["uuid"], gpu["name"], gpu["memory_bytes"]) == ("cuda:0", FIRST, "Fake 90", 2**34)
    assert gpu["before"] == {
        "used_bytes": 2**20,
        "sm_mhz": 1410,
        "memory_mhz": 2619,
        "power_watts": 69.5,
        "temperature_celsius": 31,
        "slowed_by": ["sw_power_cap", "sw_thermal_slowdown"],
    }
    assert gpu["slowed"] == dict.fromkeys(["sw_power_cap", "sw_thermal_slowdown"], gpu["looks"])
    assert gpu["looks"] >= 1
    assert result["memory_bytes"]["gpu_peak"] == gpu["peak_bytes"] - 2**20 > 0
    [told] = [note for note in result["notes"] if "cuda:0" in note]
    assert told.startswith("cuda:0 was throttled: sw_power_cap at ")
    assert f"SingleStream performance: {told}" in done.err
    assert (result["failed_samples"], result["first_error"], done.errors) == (0, None, [])
