"""What the driver says of its GPUs, asked through ctypes: over a stand-in library in C, in a process of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import plugins.driver
from plugins.driver import cuda_gpus
from plugins.errors import DeviceNotFound
from tests.children import run_python
from tests.kernels.fakes import FakeLibcuda
from tests.nvidia import CUDA, variables


def test_gpus_have_cudas_numbers_their_uuids_and_architectures(tmp_path: Path) -> None:
    script = "from plugins.driver import cuda_gpus; print(cuda_gpus())"

    assert run_python("-c", script, cwd=tmp_path, **variables(tmp_path)).out.strip() == str(CUDA)
    assert run_python("-c", script, cwd=tmp_path, **variables(tmp_path, SHOWN="1")).out.strip() == str(CUDA[:1])


def test_a_driver_that_does_not_tell_its_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    class Silent(FakeLibcuda):
        def cuDeviceGet(self, gpu: Any, number: int) -> int:
            return 100

    monkeypatch.setattr(plugins.driver.ctypes, "CDLL", lambda name: Silent())

    with pytest.raises(DeviceNotFound, match=r"tells nothing of GPU 0: no CUDA-capable device is detected \(100\)"):
        cuda_gpus()
