"""A GPU in host form, for the parts of the GPU report that preprocess."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import pytest

from kernels import gpu
from preprocess import registry
from tests.unit.device_form import PLACE, HostForm, Uploading, WatchedDevice


class Shared(WatchedDevice):
    """One device for all, as a GPU's primary context is: it outlives who uses it."""

    def close(self) -> None:
        """Ends with ``end``."""

    def end(self) -> None:
        super().close()


@pytest.fixture
def gpu_in_host_form(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[HostForm]]:
    if shutil.which("g++") is None:
        pytest.skip("the host form of the kernels needs g++")
    device = Shared()

    class Made(HostForm):
        def __init__(self, recipe: Any) -> None:
            super().__init__(recipe, device, Uploading(device), PLACE)

    monkeypatch.setattr(gpu, "open_device", lambda name: device)
    monkeypatch.setattr(registry, "load", lambda name: Made)
    yield Made
    device.end()
