"""Backends on a GPU that is not there."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from backends import onnxruntime_needs
from backends.base import ModelFile
from sut.models.precision.calibration import preprocessed
from tests import fake_gpu, fake_onnxruntime
from tests.fake_gpu import FakeDriver
from tests.fake_onnxruntime import FakeOrt
from tests.unit.backends.gpu_batches import BATCHES
from tests.unit.small_models import RECIPE, pictures, scores, write_classifier


@pytest.fixture
def ort(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeOrt]:
    """In the place of the module, with a GPU as ``cuda:0``."""
    for name in ("installed_driver", "CUDNN"):
        monkeypatch.setattr(onnxruntime_needs, name, getattr(onnxruntime_needs, name))
    monkeypatch.setitem(sys.modules, "onnxruntime", sys.modules.get("onnxruntime"))
    yield fake_onnxruntime.plug_in(FakeDriver())
    fake_gpu.unplug()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small classifier's file."""
    return write_classifier(tmp_path_factory.mktemp("small") / "small.onnx")


@pytest.fixture(scope="module")
def samples() -> NDArray[np.float32]:
    """Of all ``BATCHES``."""
    return preprocessed(pictures(sum(BATCHES), 9), sum(BATCHES), RECIPE)


@pytest.fixture(scope="module")
def truth(model: ModelFile, samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """What the model of the test says of them, on a CPU."""
    assert model.path is not None
    return scores(model.path, samples)
