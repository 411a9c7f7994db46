"""What tests of several rooms use."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import pytest

from sut.run.energy import gpus, metering
from sut.run.energy.meters import Recording
from tests.nvidia import CUDA, FakeNvml


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache folder, which is the test's own and not there yet."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("SUT_CACHE_DIR", str(folder))
    return folder


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeNvml:
    """One whose meters are read as fast as can be: two fake GPUs without a counter yet, and a CPU without one."""
    fake = FakeNvml()
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    monkeypatch.setattr(gpus, "cuda_gpus", lambda: CUDA)
    monkeypatch.setattr(metering, "POWERCAP", tmp_path / "powercap")
    monkeypatch.setattr(metering, "Recording", partial(Recording, every_s=0.001))
    return fake
