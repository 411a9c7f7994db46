"""Which NVIDIA driver there is: asked of itself, so that neither NumPy nor a GPU library has to be there."""

from __future__ import annotations

import ctypes
import os
import uuid
from dataclasses import dataclass
from typing import Any

from plugins.errors import DeviceNotFound

_CAPABILITY = (75, 76)
"""CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR of cuda.h."""


@dataclass(frozen=True, slots=True)
class Installed:
    """The driver that is installed: its CUDA, and how many GPUs it shows."""

    major: int
    minor: int
    gpus: int


@dataclass(frozen=True, slots=True)
class CudaGpu:
    """A GPU, or a MIG part of one, that CUDA shows: its UUID without ``GPU-`` or ``MIG-``, its compute capability."""

    uuid: str
    capability: tuple[int, int]


def installed_driver() -> Installed:
    """Ask the driver itself, through ctypes: no package has to be there for a clear word about what is missing.

    Raises ``DeviceNotFound`` where there is no driver, one that does not start, or no GPU.
    """
    return _started()[1]


def cuda_gpus() -> list[CudaGpu]:
    """The GPUs by the numbers that CUDA gives them here: what CUDA_VISIBLE_DEVICES hides is not among them, and the
    fastest comes first unless CUDA_DEVICE_ORDER says else, so that NVML's and nvidia-smi's numbers are others.

    Raises ``DeviceNotFound`` as ``installed_driver`` does, and where the driver does not tell.
    """
    library, installed = _started()
    return [_cuda_gpu(library, number) for number in range(installed.gpus)]


def _cuda_gpu(library: Any, number: int) -> CudaGpu:
    gpu, name = ctypes.c_int(), (ctypes.c_ubyte * 16)()
    capability = ctypes.c_int(), ctypes.c_int()
    code = library.cuDeviceGet(ctypes.byref(gpu), number) or library.cuDeviceGetUuid_v2(ctypes.byref(name), gpu)
    for value, attribute in zip(capability, _CAPABILITY, strict=True):
        code = code or library.cuDeviceGetAttribute(ctypes.byref(value), attribute, gpu)
    if code:
        raise DeviceNotFound(f"the NVIDIA driver tells nothing of GPU {number}: {error_text(library, code)} ({code})")
    return CudaGpu(str(uuid.UUID(bytes=bytes(name))), (capability[0].value, capability[1].value))


def _started() -> tuple[Any, Installed]:
    """The driver's library, ready to be asked."""
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
    return library, Installed(version.value // 1000, version.value % 1000 // 10, count.value)


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
