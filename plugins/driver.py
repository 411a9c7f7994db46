"""Which NVIDIA driver there is: asked of itself, so that neither NumPy nor a GPU library has to be there."""

from __future__ import annotations

import ctypes
import os
from dataclasses import dataclass
from typing import Any

from plugins.errors import DeviceNotFound


@dataclass(frozen=True, slots=True)
class Installed:
    """The driver that is installed: its CUDA, and how many GPUs it shows."""

    major: int
    minor: int
    gpus: int


def installed_driver() -> Installed:
    """Ask the driver itself, through ctypes: no package has to be there for a clear word about what is missing.

    Raises ``DeviceNotFound`` where there is no driver, one that does not start, or no GPU.
    """
    try:
        library = ctypes.CDLL("libcuda.so.1")
    except OSError:
        raise DeviceNotFound(
            "no NVIDIA driver (libcuda.so.1 does not load): install one, or start the container with --gpus all"
        ) from None
    version, count = ctypes.c_int(), ctypes.c_int()
    code = library.cuInit(0) or library.cuDriverGetVersion(ctypes.byref(version))
    code = code or library.cuDeviceGetCount(ctypes.byref(count))
    if code:
        reason = error_text(library, code) or "unknown error"
        raise DeviceNotFound(f"the NVIDIA driver does not start: {reason} (CUDA error {code}); nvidia-smi may say more")
    return Installed(version.value // 1000, version.value % 1000 // 10, count.value)


def no_such_gpu(driver: Installed, index: int) -> str:
    """What to say of GPU ``index`` where the driver does not show it; empty where it does."""
    if index < driver.gpus:
        return ""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    hidden = f" (CUDA_VISIBLE_DEVICES is '{visible}')" if visible is not None else ""
    have = ", ".join(f"cuda:{each}" for each in range(driver.gpus)) or "none"
    return f"no GPU cuda:{index} here{hidden}; there is: {have}"


def error_text(library: Any, code: int) -> str:
    """What the driver, libcuda.so.1 through ctypes, calls an error; empty for a code that it does not know."""
    text = ctypes.c_char_p()
    library.cuGetErrorString(code, ctypes.byref(text))
    return (text.value or b"").decode()
