"""The GPUs of a run and of ``sut doctor``: real processes and nvidia-ml-py, over stand-ins for the driver."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sut.cli.doctor.installed import EXTRAS
from sut.mlperf.logs import read_detail
from sut.results.schema import FILE
from tests.children import run_python
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
    gpu = result["energy"]["gpu"]
    [file] = (sut.cwd / "output").rglob(FILE)
    begin_s, end_s = read_detail(file.parent).power_window or (0.0, 0.0)
    assert gpu["source"] == "nvml_power"  # of this driver: it has no counter
    assert gpu["gross_joules_per_sample"] == pytest.approx(69.5 * (end_s - begin_s) / result["samples"], rel=0.02)
    assert gpu["idle_watts"] == pytest.approx(69.5, rel=0.02)
    [told] = [note for note in result["notes"] if "cuda:0" in note]
    assert told.startswith("cuda:0 was throttled: sw_power_cap at ")
    assert f"SingleStream performance: {told}" in done.err
    assert (result["failed_samples"], result["first_error"], done.errors) == (0, None, [])


@pytest.mark.slow
def test_doctor_tells_what_cuda_nvml_and_each_library_see(tmp_path: Path) -> None:
    machine = variables(tmp_path, REASONS=POWER_CAP_AND_HEAT, SHOWN="1")

    done = run_python("-m", "sut", "doctor", "--json", cwd=tmp_path, timeout_s=240, **machine)

    rows = {row["name"]: row for row in json.loads(done.out)["rows"]}
    assert {name.removeprefix("cuda:0 "): row["found"] for name, row in rows.items() if row["group"] == "nvidia"} == {
        "driver": "580.1",
        "cuda:0": "Fake 90, sm_90",
        "memory": "16.0 GiB, 0.0 in use",
        "clocks": "SM 1,410 of 1,980 MHz, memory 2,619 of 2,619 MHz",
        "power": "70 of 700 W, 31 °C",
        "throttling": "sw_power_cap, sw_thermal_slowdown",
        "JPEG engines": "yes; nvjpeg counts them",
        "GPU": "Fake 75: CUDA does not show it",
        "CUDA": f"13.0; its extra is {EXTRAS[13]}",
    }
    assert rows["cuda:0 throttling"]["status"] == "warning"
    assert "wait until cuda:0 is cooler" in rows["cuda:0 throttling"]["hint"]
    # The stand-in is no driver to work with: each library says so, and none ends the doctor.
    assert rows["cupy"]["status"] == rows["dali"]["status"] == "warning"
    assert "cudaErrorCallRequiresNewerDriver" in rows["cupy"]["found"]
    assert rows["nvimgcodec"]["found"].endswith("built for CUDA 13.3")
    # A CUDA build of PyTorch brings it.
    assert (rows["cudnn"]["status"], rows["cudnn"]["hint"]) in (("absent", "pip install nvidia-cudnn-cu13"), ("ok", ""))
