"""The backend ``tensorrt-fake-gpu``: TensorRT's code in a run's processes, over a runtime that is not there."""

from __future__ import annotations

from backends.tensorrt import TensorRt
from tests import fake_tensorrt
from tests.fake_gpu import FakeDriver


class OnFakeTensorRt(TensorRt):
    """The backend itself, in processes where nothing else is faked."""

    name = "tensorrt-fake-gpu"


fake_tensorrt.plug_in(FakeDriver())
