"""What ONNX Runtime needs for an NVIDIA GPU, and whether that is here: driver, GPU, its GPU build, CUDA's libraries.

A provider whose libraries do not load is left out without an error: ONNX Runtime says why on stderr and goes on with
the CPU. So it is looked at before. Tried with onnxruntime-gpu 1.31.1 and libraries taken away, without a GPU.
"""

from __future__ import annotations

import ctypes
import io
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from plugins.driver import Installed, installed_driver, no_such_gpu
from plugins.errors import DeviceNotFound
from plugins.packages import beside

PROVIDERS = {"cuda": "CUDAExecutionProvider", "tensorrt": "TensorrtExecutionProvider"}
"""Execution providers on a GPU by what the option ``provider`` calls them, as in the names of their libraries."""
CUDNN = "libcudnn.so.9"
_LAST_OF_CUDA = {12: "==1.26.*"}
"""Versions of onnxruntime-gpu for a driver's CUDA that is not that of the newest."""


def gpus(ort: Any) -> list[str]:
    """The GPUs that this build of ONNX Runtime is made for, and the driver shows, as ``--device`` takes them."""
    if PROVIDERS["cuda"] not in ort.get_available_providers():
        return []
    try:
        return [f"cuda:{index}" for index in range(installed_driver().gpus)]
    except DeviceNotFound:
        return []


def missing_for_gpu(ort: Any, device: str) -> list[str]:
    """All that is missing for ``cuda`` or ``cuda:N``, each with what to do; empty where nothing is known to be."""
    missing, driver = [], None
    try:
        driver = installed_driver()
        if gone := no_such_gpu(driver, int(device.partition(":")[2] or 0)):
            missing.append(gone)
    except DeviceNotFound as error:
        missing.append(str(error))
    if found := beside("onnxruntime"):
        missing.append(
            f"{' and '.join(found)} are both installed, and write the same module: pip uninstall -y {' '.join(found)}, "
            f"then {_install(driver)}"
        )
    elif PROVIDERS["cuda"] not in ort.get_available_providers():
        missing.append(
            f"onnxruntime {ort.__version__} is the CPU build: pip uninstall -y onnxruntime, then {_install(driver)}"
            " (./run_local.sh onnxruntime MODEL gpu does both)"
        )
    elif driver is not None:
        missing += _too_new(ort, driver) or _libraries(ort, driver)
    return missing


def why_not(ort: Any, provider: str) -> str:
    """Why ONNX Runtime did not make one of ``PROVIDERS``: what its library does not find; empty where it finds all."""
    path = Path(ort.__file__).parent / "capi" / f"libonnxruntime_providers_{provider}.so"
    try:
        ctypes.CDLL(str(path))
    except OSError as error:
        return str(error)
    return ""


def _install(driver: Installed | None) -> str:
    version = _LAST_OF_CUDA.get(driver.major, "") if driver is not None else ""
    return f"pip install 'onnxruntime-gpu[cuda,cudnn]{version}'"


def _too_new(ort: Any, driver: Installed) -> list[str]:
    """A minor version newer than the driver's is no trouble (CUDA Compatibility, "minor version compatibility")."""
    built = str(ort.cuda_version)
    if int(built.partition(".")[0] or 0) <= driver.major:
        return []
    return [
        f"onnxruntime-gpu {ort.__version__} was built for CUDA {built}, and the driver has CUDA "
        f"{driver.major}.{driver.minor}: update the driver, or {_install(driver)}"
    ]


def _libraries(ort: Any, driver: Installed) -> list[str]:
    """Load CUDA's libraries from the packages beside ONNX Runtime, or from where the system has them.

    For good: where its provider looks for them later, it finds what this process has.
    """
    said = io.StringIO()
    with redirect_stdout(said):
        ort.preload_dlls()
    lines = [line for line in said.getvalue().splitlines() if line.startswith("Failed to load")]
    try:
        ctypes.CDLL(CUDNN)
    except OSError as error:
        # Without cuDNN there would be no convolution, but no error before the first one either.
        lines.append(f"Failed to load {CUDNN}: {error}")
    texts = list(dict.fromkeys(line.partition(": ")[2] for line in lines))
    if not texts:
        return []
    return [f"onnxruntime-gpu {ort.__version__} lacks libraries ({'; '.join(texts)}): {_install(driver)}"]
