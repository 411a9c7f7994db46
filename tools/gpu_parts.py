"""What the GPU report is made of: each part finds out one thing on this machine, and raises where it cannot."""

from __future__ import annotations

import ctypes
import importlib
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar

from gpu_preprocess import PREPROCESSORS, noted, preprocess, watched
from gpu_rightness import preprocess_ran, same_pixels

_T = TypeVar("_T")

SETUP = 2
"""Exit code of ``sut`` where something is not installed."""
COPY_BYTES = 2**30
COPY_REPEATS = 20
BATCHES = (1, 8, 32)
BROUGHT = {
    "cv2": "opencv-python-headless",
    "pydantic": "pydantic",
    "simplejpeg": "simplejpeg",
    "typer": "typer",
    "onnxruntime": "onnxruntime-gpu",
    "nvidia.dali": "nvidia-dali-cuda130",
    "nvidia.nvimgcodec": "nvidia-nvimgcodec-cu13",
    "tensorrt_rtx": "tensorrt-rtx-cu13",
    "pycuda": "pycuda",
    "cupy": "cupy-cuda13x",
    "torch": "torch",
    "mlperf_loadgen": "mlcommons-loadgen",
}
"""Modules that other sets of packages bring to a GPU host, and the distribution each comes from."""


def gpu() -> dict[str, Any]:
    """Name, driver, memory and compute capability, as ``nvidia-smi`` says."""
    fields = ("name", "driver_version", "memory.total", "compute_cap", "power.limit")
    command = ["nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    return {"gpus": [dict(zip(fields, line.split(", "), strict=True)) for line in done.stdout.strip().splitlines()]}


def _sut(*arguments: str) -> tuple[int, list[dict[str, Any]], str]:
    """Exit code, rows and standard error of a ``sut`` command.

    Where it printed no rows it raises ``RuntimeError``, or ``ModuleNotFoundError`` where it says that something is not
    installed.
    """
    done = subprocess.run(
        [sys.executable, "-m", "sut", *arguments, "--json"], capture_output=True, text=True, check=False
    )
    if not done.stdout:
        kind = ModuleNotFoundError if done.returncode == SETUP else RuntimeError
        raise kind(f"sut {' '.join(arguments)} ended with {done.returncode}: {done.stderr.strip()[-300:]}")
    return done.returncode, json.loads(done.stdout)["rows"], done.stderr


def doctor() -> dict[str, Any]:
    """The rows of ``sut doctor``."""
    code, rows, _ = _sut("doctor")
    return {"exit_code": code, "rows": rows}


def imports() -> dict[str, Any]:
    """Which of the packages that were brought along can be imported, and why not."""
    found: dict[str, Any] = {}
    for module, distribution in BROUGHT.items():
        try:
            importlib.import_module(module)
            found[module] = "works"
        except Exception as error:
            found[module] = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        with suppress(PackageNotFoundError):
            found[module] += f" ({distribution} {version(distribution)})"
    return found


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


def onnxruntime_cuda() -> dict[str, Any]:
    """EfficientNet-Lite0 on ONNX Runtime's CUDA provider: does it run, is it right, how long does a batch take."""
    import numpy as np
    import onnxruntime as ort

    from sut.models.registry import find

    if "CUDAExecutionProvider" not in ort.get_available_providers():
        raise ModuleNotFoundError(f"ONNX Runtime {ort.__version__} has no CUDA here: pip install onnxruntime-gpu")
    with suppress(ImportError):
        # Where the host has no CUDA libraries of its own, PyTorch's do: what is loaded already is found.
        importlib.import_module("torch")
    if hasattr(ort, "preload_dlls"):
        ort.preload_dlls()
    path = str(find("efficientnet-lite0").build("trained", lambda text: None))
    # Its own fallback would make a session on the CPU, and say on stdout alone why CUDA failed.
    session = ort.InferenceSession(path, providers=["CUDAExecutionProvider"], enable_fallback=0)
    found: dict[str, Any] = {"version": ort.__version__, "providers": session.get_providers(), "batches": {}}
    if session.get_providers()[0] != "CUDAExecutionProvider":
        raise RuntimeError(f"asked for CUDA, got {', '.join(session.get_providers())}")
    cpu = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    pictures = np.random.default_rng(1).uniform(-1, 1, (max(BATCHES), 3, 224, 224)).astype(np.float32)
    [expected], [got] = cpu.run(None, {"images": pictures}), session.run(None, {"images": pictures})
    found["max_logit_difference"] = float(np.abs(expected - got).max())
    found["same_labels"] = f"{int((expected.argmax(1) == got.argmax(1)).sum())} of {len(pictures)}"
    for batch in BATCHES:
        times = []
        for _ in range(50):
            start = time.perf_counter()
            session.run(None, {"images": pictures[:batch]})
            times.append(time.perf_counter() - start)
        found["batches"][batch] = {"median_ms": 1e3 * statistics.median(times[5:])}
    return found


def kernels_check() -> dict[str, Any]:
    """``sut kernels check`` on the GPU: how many cases of each kernel are equal to the oracle, to the bit."""
    code, rows, said = _sut("kernels", "check", "--device", "cuda")
    cases: dict[str, list[bool]] = {}
    for row in rows:
        cases.setdefault(f"{row['kernel']} {row['dtype']} {row['layout']}", []).append(row["ok"])
    equal = {name: f"{sum(found)} of {len(found)} equal" for name, found in cases.items()}
    wrong = [row for row in rows if not row["ok"]]
    return {"exit_code": code, "said": said.strip(), "cases": len(rows), "wrong": wrong, **equal}


def kernels_bench() -> dict[str, Any]:
    """``sut kernels bench``."""
    code, rows, _ = _sut("kernels", "bench")
    table = [{key: row[key] for key in row if key != "device"} for row in rows]
    return {"exit_code": code, "device": rows[0]["device"], "table": table}


def kernels_profile() -> dict[str, Any]:
    """``sut kernels profile``: predicted and counted, side by side."""
    code, rows, said = _sut("kernels", "profile")
    table = [
        {"kernel": row["kernel"]}
        | {f"{name}, {side}": row[side].get(name) for name in row["counted"] for side in ("predicted", "counted")}
        for row in rows
    ]
    return {
        "exit_code": code,
        "said": said.strip(),
        "table": table,
        "metrics": {r["kernel"]: r["metrics"] for r in rows},
    }


def kernels_ran() -> dict[str, Any]:
    """Which kernels were launched, and which Python functions of kernels/ were called, on this GPU.

    ``tools/gpu_not_run.py`` lists what no report has here. Watching costs time, so nothing is timed in this part.
    """
    from kernels import gpu
    from kernels.device import DeviceError
    from kernels.lab import bench, profiler
    from kernels.lab.check import check
    from preprocess.oracle import resize_fit

    launched = set()
    folder = f"{Path(gpu.__file__).parent}/"
    start = gpu.GpuDevice.start

    def launch(device: Any, module: str, function: str, *others: Any) -> None:
        start(device, module, function, *others)
        device.synchronize()
        launched.add(f"{module}.{function}")

    gpu.GpuDevice.start = launch  # type: ignore[method-assign]
    try:
        with watched((folder,)) as functions, gpu.open_device("cuda") as device:
            rows = list(check(device, resize_fit))
            profiler.run_cases(device)
            for _ in bench.run(device, repeats=1, rotation=1 << 26):
                pass
            with suppress(ModuleNotFoundError, DeviceError):
                profiler.count(profiler.find_profiler(), "cuda")
            details = device.details
    finally:
        gpu.GpuDevice.start = start  # type: ignore[method-assign]
    if wrong := [row for row in rows if not row.ok]:
        raise RuntimeError(f"{len(wrong)} of {len(rows)} cases differ from the oracle, the first: {wrong[0]}")
    names = sorted(each.removeprefix(folder) for each in functions)
    return {"device": details, "kernels": sorted(launched), "functions": names}


def parity() -> dict[str, Any]:
    """How far the preprocessors on the GPU are from the oracle, and how many labels agree, one after the other.

    ``sut parity`` begins with the files, so that it has the decoder's differences too; ``same_pixels`` with what OpenCV
    decoded.
    """
    found: dict[str, Any] = {"not_installed": {}, "wrong": [], "measured": [], "same_pixels": []}
    for name in PREPROCESSORS:
        with noted(name, found["wrong"], found["not_installed"]):
            _, rows, _ = _sut("parity", "--preprocess", name)
            same = same_pixels(name)
            found["measured"] += rows
            found["same_pixels"] += same
    rows = []
    for row in found["measured"]:
        labels = None if row["labels"] is None else f"{row['labels_same']} of {row['labels']} the same"
        rows.append((row["preprocess"], row["pictures"], *_picked(row["parity"]), labels))
    rows += [(r["preprocess"], f"decoded, {r['recipe']}", *_picked(r), None) for r in found["same_pixels"]]
    head = ("preprocess", "pictures", "n", "max_levels", "labels")
    return {**found, "table": [dict(zip(head, row, strict=True)) for row in rows]}


def _picked(parity: Mapping[str, Any]) -> tuple[int, int]:
    return parity["pictures"], parity["max_levels"]


PARTS: dict[str, Callable[[], dict[str, Any]]] = {
    "gpu": gpu,
    "doctor": doctor,
    "imports": imports,
    "copy_bandwidth": copy_bandwidth,
    "onnxruntime_cuda": onnxruntime_cuda,
    "kernels_check": kernels_check,
    "kernels_bench": kernels_bench,
    "kernels_profile": kernels_profile,
    "kernels_ran": kernels_ran,
    "parity": parity,
    "preprocess": preprocess,
    "preprocess_ran": preprocess_ran,
}
