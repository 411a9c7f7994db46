"""Parts of the GPU report about the machine: the GPU, what is installed, and how fast memory is copied."""

from __future__ import annotations

import ctypes
import importlib
import platform
import statistics
import subprocess
from importlib.metadata import PackageNotFoundError, version
from typing import Any, TypeVar

from plugins.errors import DeviceNotFound
from sut.errors import one_line
from sut.studies.gpu_report.child import rows_of
from sut.version import NAME, own_version

_T = TypeVar("_T")

COPY_BYTES = 2**30
COPY_REPEATS = 20
BROUGHT = {
    "cv2": ("opencv-python-headless", "opencv-python"),
    "pydantic": ("pydantic",),
    "simplejpeg": ("simplejpeg",),
    "typer": ("typer",),
    "onnx": ("onnx",),
    "onnx2torch": ("onnx2torch",),
    "onnxruntime": ("onnxruntime-gpu", "onnxruntime"),
    "nvidia.dali": ("nvidia-dali-cuda130", "nvidia-dali-cuda120"),
    "nvidia.nvimgcodec": ("nvidia-nvimgcodec-cu13", "nvidia-nvimgcodec-cu12"),
    "pycuda": ("pycuda",),
    "tensorrt": ("tensorrt-cu13", "tensorrt-cu12", "tensorrt-rtx-cu13-bindings"),
    "cupy": ("cupy-cuda13x", "cupy-cuda12x"),
    "torch": ("torch",),
    "mlperf_loadgen": ("mlcommons-loadgen",),
}
"""Modules that a GPU host needs, and the distributions that they may come from."""


def gpu() -> dict[str, Any]:
    """Name, driver, memory and compute capability, as ``nvidia-smi`` says."""
    fields = ("name", "driver_version", "memory.total", "compute_cap", "power.limit")
    lines = _nvidia_smi(f"--query-gpu={','.join(fields)}")
    return {"gpus": [dict(zip(fields, line.split(", "), strict=True)) for line in lines]}


def gpu_processes() -> frozenset[str]:
    """Processes that compute on a GPU, as ``nvidia-smi`` lists them; none where it does not answer."""
    try:
        return frozenset(_nvidia_smi("--query-compute-apps=pid,process_name"))
    except DeviceNotFound:
        return frozenset()


def _nvidia_smi(query: str) -> list[str]:
    command = ["nvidia-smi", query, "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        raise DeviceNotFound(f"no NVIDIA GPU here: nvidia-smi does not answer ({one_line(error)})") from error
    return done.stdout.strip().splitlines()


def doctor() -> dict[str, Any]:
    """The rows of ``sut doctor``."""
    code, rows, _ = rows_of("doctor")
    return {"exit_code": code, "rows": rows}


def imports() -> dict[str, Any]:
    """Which of the packages can be imported, and why not."""
    found: dict[str, Any] = {}
    for module in BROUGHT:
        try:
            importlib.import_module(module)
            found[module] = "works"
        except Exception as error:
            found[module] = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    return found


def versions() -> dict[str, str | None]:
    """Of this project, Python, and each distribution that is installed, the first of those that would do."""
    found: dict[str, str | None] = {NAME: own_version(), "python": platform.python_version()}
    for names in BROUGHT.values():
        name = next((each for each in names if _version(each)), names[0])
        found[name] = _version(name)
    return found


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


class _Driver:
    """The few calls of the CUDA driver API that a copy needs, through ctypes: no package has to be there."""

    def __init__(self) -> None:
        self._cuda = ctypes.CDLL("libcuda.so.1")
        self("cuInit", 0)
        device = self.told(ctypes.c_int, "cuDeviceGet", 0)
        self("cuCtxSetCurrent", self.told(ctypes.c_void_p, "cuDevicePrimaryCtxRetain", device))

    def __call__(self, name: str, *arguments: Any) -> None:
        """Call a function; raises ``RuntimeError`` with its name and code if it fails."""
        if code := getattr(self._cuda, name)(*arguments):
            raise RuntimeError(f"{name} returned CUDA error {code}")

    def told(self, kind: type[_T], name: str, *arguments: Any) -> _T:
        """What a function writes where its first argument points."""
        found = kind()
        self(name, ctypes.byref(found), *arguments)  # type: ignore[arg-type]
        return found


def copy_bandwidth() -> dict[str, Any]:
    """Device-to-device copy: bytes read plus bytes written per second, median of single copies timed by events."""
    driver = _Driver()
    source, target = (driver.told(ctypes.c_uint64, "cuMemAlloc_v2", ctypes.c_size_t(COPY_BYTES)) for _ in range(2))
    begin, end = (driver.told(ctypes.c_void_p, "cuEventCreate", 0) for _ in range(2))
    rates = []
    for _ in range(COPY_REPEATS + 3):
        driver("cuEventRecord", begin, None)
        driver("cuMemcpyDtoDAsync_v2", target, source, ctypes.c_size_t(COPY_BYTES), None)
        driver("cuEventRecord", end, None)
        driver("cuEventSynchronize", end)
        took_ms = driver.told(ctypes.c_float, "cuEventElapsedTime", begin, end)
        rates.append(2 * COPY_BYTES / (took_ms.value / 1e3))
    return {"bytes": COPY_BYTES, "bytes_per_second": statistics.median(rates[3:]), "repeats": COPY_REPEATS}
