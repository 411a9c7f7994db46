"""The backend ``onnxruntime-fake-gpu``: ONNX Runtime's CUDA code in a run's processes, over a GPU that is not there.

The variable FAKE_GPU says what ``cuda:0`` does at the first batch with a white picture: it ``fails``, or ``hangs``;
FAKE_SECOND_GPU the same of ``cuda:1``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from backends.onnxruntime import OnnxRuntime
from tests import fake_gpu, fake_onnxruntime
from tests.fake_gpu import FakeDriver, FakeGpuError

WHITE = 0.9
"""Of a picture that is normalised."""


def at_white(feed: Mapping[str, Any], gpu: int) -> None:
    """What goes wrong in the middle of a run."""
    wrong = os.environ.get(("FAKE_GPU", "FAKE_SECOND_GPU")[gpu])
    if wrong and (feed["images"][:, 0, 0, 0] > WHITE).any():
        if wrong == "hangs":
            fake_gpu.never()
        raise FakeGpuError("CUDA_ERROR_ECC_UNCORRECTABLE")


class OnFakeGpu(OnnxRuntime):
    """The backend itself, in processes where nothing else is faked."""

    name = "onnxruntime-fake-gpu"


fake_onnxruntime.plug_in(FakeDriver(), FakeDriver(index=1)).at_batch = at_white
