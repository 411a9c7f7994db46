"""A LoadGen system under test for vision models.

``SUT`` and ``RunConfig`` are what a script of one's own needs; everything else is behind ``python -m sut``.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sut.config import RunConfig
    from sut.pipeline.system import SUT

# ONNX Runtime 1.31 sends telemetry, from a thread and a database of its own, unless it finds this when it is imported:
# here by this process, and by those that it starts.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__all__ = ["SUT", "RunConfig"]

__version__ = "0.1.0"
"""The one place that has it: setup.py reads it from here."""


def __getattr__(name: str) -> Any:
    """Import ``SUT`` and ``RunConfig`` when they are asked for: the command line starts without them."""
    if name == "SUT":
        from sut.pipeline.system import SUT

        return SUT
    if name == "RunConfig":
        from sut.config import RunConfig

        return RunConfig
    raise AttributeError(f"module 'sut' has no attribute '{name}'")
