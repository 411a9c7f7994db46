"""The backend ``tensorrt-fake-gpu``: TensorRT's code in a run's processes.

The runtime and both GPUs are not there.
"""

from __future__ import annotations

from backends.tensorrt import TensorRt
from tests import fake_tensorrt
from tests.fake_gpu import FakeDriver


class OnFakeTensorRt(TensorRt):
    """The backend itself, in processes where nothing else is faked."""

    name = "tensorrt-fake-gpu"


fake_tensorrt.plug_in(FakeDriver(), FakeDriver(name="Another GPU", index=1))
