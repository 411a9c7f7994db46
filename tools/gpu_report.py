"""The report behind ``gpu_report.sh``: each part runs in a process of its own and may fail alone."""

from __future__ import annotations

import ctypes
import importlib
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PART_LIMIT_S = 240
COPY_BYTES = 2**30
COPY_REPEATS = 20
BATCHES = (1, 8, 32)
BROUGHT = {
    "onnxruntime": "onnxruntime-gpu",
    "nvidia.dali": "nvidia-dali-cuda130",
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


def doctor() -> dict[str, Any]:
    """The rows of ``sut doctor``."""
    done = subprocess.run(
        [sys.executable, "-m", "sut", "doctor", "--json"], capture_output=True, text=True, timeout=120, check=False
    )
    if not done.stdout:
        raise RuntimeError(f"sut doctor ended with {done.returncode}: {done.stderr.strip()[-300:]}")
    return {"exit_code": done.returncode, "rows": json.loads(done.stdout)["rows"]}


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
        device, context = ctypes.c_int(), ctypes.c_void_p()
        self("cuInit", 0)
        self("cuDeviceGet", ctypes.byref(device), 0)
        self("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
        self("cuCtxSetCurrent", context)

    def __call__(self, name: str, *arguments: Any) -> None:
        """Call a function; raises ``RuntimeError`` with its name and code if it fails."""
        if code := getattr(self._cuda, name)(*arguments):
            raise RuntimeError(f"{name} returned CUDA error {code}")

    def allocate(self, nbytes: int) -> ctypes.c_uint64:
        """Device memory."""
        pointer = ctypes.c_uint64()
        self("cuMemAlloc_v2", ctypes.byref(pointer), ctypes.c_size_t(nbytes))
        return pointer

    def event(self) -> ctypes.c_void_p:
        """An event for timing."""
        event = ctypes.c_void_p()
        self("cuEventCreate", ctypes.byref(event), 0)
        return event


def copy_bandwidth() -> dict[str, Any]:
    """Device-to-device copy: bytes read plus bytes written per second, median of single copies timed by events."""
    driver = _Driver()
    source, target = driver.allocate(COPY_BYTES), driver.allocate(COPY_BYTES)
    begin, end = driver.event(), driver.event()
    rates = []
    for _ in range(COPY_REPEATS + 3):
        driver("cuEventRecord", begin, None)
        driver("cuMemcpyDtoDAsync_v2", target, source, ctypes.c_size_t(COPY_BYTES), None)
        driver("cuEventRecord", end, None)
        driver("cuEventSynchronize", end)
        took_ms = ctypes.c_float()
        driver("cuEventElapsedTime", ctypes.byref(took_ms), begin, end)
        rates.append(2 * COPY_BYTES / (took_ms.value / 1e3))
    return {"bytes": COPY_BYTES, "bytes_per_second": statistics.median(rates[3:]), "repeats": COPY_REPEATS}


def onnxruntime_cuda() -> dict[str, Any]:
    """EfficientNet-Lite0 on ONNX Runtime's CUDA provider: does it run, is it right, how long does a batch take."""
    import numpy as np
    import onnxruntime as ort

    from sut.models.registry import find

    if hasattr(ort, "preload_dlls"):
        ort.preload_dlls()
    path = str(find("efficientnet-lite0").build("trained", lambda text: None))
    session = ort.InferenceSession(path, providers=["CUDAExecutionProvider"])
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


PARTS: dict[str, Callable[[], dict[str, Any]]] = {
    "gpu": gpu,
    "doctor": doctor,
    "imports": imports,
    "copy_bandwidth": copy_bandwidth,
    "onnxruntime_cuda": onnxruntime_cuda,
}


def run_part(name: str) -> dict[str, Any]:
    """One part in a process of its own: ``{"ok": True, ...}``, or ``ok`` False and why."""
    begin = time.monotonic()
    try:
        done = subprocess.run(
            [sys.executable, __file__, "--part", name],
            capture_output=True,
            text=True,
            timeout=PART_LIMIT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return {"ok": False, "why": f"no end after {PART_LIMIT_S} s"}
    took = round(time.monotonic() - begin, 1)
    try:
        return {**json.loads(done.stdout.splitlines()[-1]), "took_s": took}
    except (IndexError, ValueError):
        return {"ok": False, "why": f"ended with {done.returncode}: {done.stderr.strip()[-500:]}", "took_s": took}


def markdown(report: Mapping[str, Any]) -> str:
    """The report as a page.

    >>> print(markdown({"made": "now", "parts": {"gpu": {"ok": False, "why": "no driver"}}}))
    # GPU report
    <BLANKLINE>
    Made now.
    <BLANKLINE>
    ## gpu
    <BLANKLINE>
    Did not run: no driver
    <BLANKLINE>
    """
    lines = ["# GPU report", "", f"Made {report['made']}.", ""]
    for name, part in report["parts"].items():
        lines += [f"## {name}", ""]
        if not part["ok"]:
            lines += [f"Did not run: {part['why']}", ""]
            continue
        lines += [*_items(part["found"]), ""]
    return "\n".join(lines)


def _items(found: Mapping[str, Any]) -> Sequence[str]:
    if isinstance(found.get("rows"), list):
        rows = [row for row in found["rows"] if isinstance(row, dict)]
        return [f"- {row.get('name')}: {row.get('status')}, {row.get('found')}" for row in rows]
    return [f"- {key}: `{json.dumps(value)}`" for key, value in found.items()]


def main(arguments: Sequence[str]) -> int:
    """Write the report; 2 where there is no NVIDIA GPU."""
    if arguments[0] == "--part":
        try:
            print(json.dumps({"ok": True, "found": PARTS[arguments[1]]()}))
        except Exception as error:
            print(json.dumps({"ok": False, "why": f"{type(error).__name__}: {' '.join(str(error).split())}"}))
        return 0
    first = run_part("gpu")
    if not first["ok"]:
        print(f"error: no NVIDIA GPU here: nvidia-smi does not answer ({first['why']})", file=sys.stderr)
        return 2
    out = Path(arguments[0])
    out.mkdir(parents=True, exist_ok=True)
    report = {"schema": 1, "made": datetime.now(UTC).isoformat(timespec="seconds"), "parts": {"gpu": first}}
    for name in PARTS:
        if name != "gpu":
            print(f"{name} ...", file=sys.stderr, flush=True)
            report["parts"][name] = run_part(name)
    (out / "report.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    (out / "report.md").write_text(markdown(report), encoding="utf-8")
    failed = [name for name, part in report["parts"].items() if not part["ok"]]
    print(f"{out / 'report.md'}; did not run: {', '.join(failed) or 'none'}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
