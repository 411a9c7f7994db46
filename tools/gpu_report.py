"""The report behind ``gpu_report.sh``: each part runs in a process of its own and may fail alone.

A part fails the report where it does not run or finds something wrong, and a result that is not as right as
``gpu_targets.py`` asks fails it too. What is not installed and is there only to compare with does not, and neither does
a speed that is missed: both are shown.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from gpu_preprocess import PREPROCESSORS, WITH_DALI, preprocess, preprocess_ran, same_pixels
from gpu_targets import targets

# The package has ONNX Runtime send nothing, which some parts import by themselves.
from sut.process.child import die_with_parent

SETUP = 2
"""Exit code of ``sut`` where something is not installed."""
INTERRUPTED = 130
"""Exit code after SIGTERM or SIGHUP."""
PART_LIMIT_S = 240
LONGER_S = {"preprocess": 420}
"""Limits of parts that take longer."""
MAY_BE_MISSING = frozenset({"onnxruntime_cuda", "kernels_profile"})
"""Parts that need what nothing else needs: ONNX Runtime for CUDA, ncu or nsys."""
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
    return {"exit_code": code, "device": rows[0]["device"], "table": [_without(row, "device") for row in rows]}


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
    from dataclasses import asdict

    from kernels import gpu
    from kernels.device import DeviceError
    from kernels.lab import bench, profiler
    from kernels.lab.check import check
    from preprocess.oracle import Fit, resize_fit

    functions, launched = set(), set()
    folder = str(Path(gpu.__file__).parent)
    start = gpu.GpuDevice.start

    def watch(frame: Any, event: str, argument: Any) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(folder):
            functions.add(
                f"{Path(frame.f_code.co_filename).relative_to(folder).with_suffix('')}.{frame.f_code.co_qualname}"
            )

    def launch(device: Any, module: str, function: str, *others: Any) -> None:
        start(device, module, function, *others)
        device.synchronize()
        launched.add(f"{module}.{function}")

    gpu.GpuDevice.start = launch  # type: ignore[method-assign]
    threading.setprofile(watch)
    sys.setprofile(watch)
    try:
        with gpu.open_device("cuda") as device:
            rows = list(check(device, lambda pixels, place, how: resize_fit(pixels, Fit(**asdict(place)), how)))
            profiler.run_cases(device)
            for _ in bench.run(device, repeats=1, rotation=1 << 26):
                pass
            with suppress(ModuleNotFoundError, DeviceError):
                profiler.count(profiler.find_profiler(), "cuda")
            details = device.details
    finally:
        sys.setprofile(None)
        threading.setprofile(None)  # type: ignore[arg-type]
        gpu.GpuDevice.start = start  # type: ignore[method-assign]
    if wrong := [row for row in rows if not row.ok]:
        raise RuntimeError(f"{len(wrong)} of {len(rows)} cases differ from the oracle, the first: {wrong[0]}")
    return {"device": details, "kernels": sorted(launched), "functions": sorted(functions)}


def parity() -> dict[str, Any]:
    """How far the preprocessors on the GPU are from the oracle, and how many labels agree, one after the other.

    ``sut parity`` begins with the files, so that it has the decoder's differences too; ``same_pixels`` with what OpenCV
    decoded.
    """
    found: dict[str, Any] = {"not_installed": {}, "wrong": [], "measured": [], "same_pixels": []}
    for name in PREPROCESSORS:
        try:
            _, rows, _ = _sut("parity", "--preprocess", name)
            same = same_pixels(name)
        except Exception as error:
            why = f"{type(error).__name__}: {' '.join(str(error).split())}"
            if name in WITH_DALI and isinstance(error, ModuleNotFoundError):
                found["not_installed"][name] = why
            else:
                found["wrong"].append({"preprocess": name, "why": why})
            continue
        found["measured"] += rows
        found["same_pixels"] += same
    table = [
        {
            "preprocess": row["preprocess"],
            "pictures": row["pictures"],
            "n": row["parity"]["pictures"],
            "max_levels": row["parity"]["max_levels"],
            "labels": None if row["labels"] is None else f"{row['labels_same']} of {row['labels']} the same",
        }
        for row in found["measured"]
    ]
    table += [
        {
            "preprocess": row["preprocess"],
            "pictures": f"decoded, {row['recipe']}",
            "n": row["pictures"],
            "max_levels": row["max_levels"],
            "labels": None,
        }
        for row in found["same_pixels"]
    ]
    return {**found, "table": table}


def _without(row: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key != name}


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


def run_part(name: str) -> dict[str, Any]:
    """One part in a process of its own: ``{"ok": True, ...}``, or ``ok`` False and why."""
    begin, limit_s = time.monotonic(), LONGER_S.get(name, PART_LIMIT_S)
    process = subprocess.Popen(
        [sys.executable, __file__, "--part", name],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # what it starts must not outlive it: it would take the GPU from the next
    )
    try:
        stdout, stderr = process.communicate(timeout=limit_s)
    except subprocess.TimeoutExpired:
        return {"ok": False, "why": f"no end after {limit_s} s"}
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    took = round(time.monotonic() - begin, 1)
    try:
        return {**json.loads(stdout.splitlines()[-1]), "took_s": took}
    except (IndexError, ValueError):
        return {"ok": False, "why": f"ended with {process.returncode}: {stderr.strip()[-500:]}", "took_s": took}


def is_missing(name: str, part: Mapping[str, Any]) -> bool:
    """Whether a part did not run for want of something that only it needs."""
    return name in MAY_BE_MISSING and bool(part.get("not_installed"))


def failed(parts: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Parts that did not run, or found something wrong: why, by name.

    >>> failed({"gpu": {"ok": True, "found": {}}, "kernels_check": {"ok": True, "found": {"cases": 2, "wrong": [{}]}}})
    {'kernels_check': '1 wrong of 2'}
    >>> failed({name: {"ok": False, "why": "no ncu", "not_installed": True} for name in ("kernels_profile", "parity")})
    {'parity': 'no ncu'}
    """
    found = {}
    for name, part in parts.items():
        if not part["ok"]:
            if not is_missing(name, part):
                found[name] = part["why"]
            continue
        wrong, cases = part["found"].get("wrong", ()), part["found"].get("cases")
        if wrong:
            first = f", the first: {wrong[0]['why']}" if "why" in wrong[0] else ""
            found[name] = f"{len(wrong)} wrong" + ("" if cases is None else f" of {cases}") + first
        elif name == "kernels_check" and (not cases or part["found"].get("exit_code")):
            found[name] = f"ended with {part['found'].get('exit_code')}, {cases or 0} cases"
    return found


def judged(parts: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The targets as rows, from the parts that ran."""
    return [each.row() for each in targets({name: part["found"] for name, part in parts.items() if part["ok"]})]


def markdown(report: Mapping[str, Any]) -> str:
    """The report as a page.

    >>> print(markdown({"made": "now", "targets": [], "parts": {"gpu": {"ok": False, "why": "no driver"}}}))
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
    if report["targets"]:
        lines += ["## Targets", "", "A result that is NOT MET fails the report, a speed does not.", ""]
        lines += [*_table(report["targets"]), ""]
    for name, part in report["parts"].items():
        lines += [f"## {name}", ""]
        if not part["ok"]:
            lines += [f"{'Not installed' if is_missing(name, part) else 'Did not run'}: {part['why']}", ""]
            continue
        lines += [*_items(part["found"]), ""]
    return "\n".join(lines)


def _items(found: Mapping[str, Any]) -> Sequence[str]:
    if isinstance(found.get("rows"), list):
        rows = [row for row in found["rows"] if isinstance(row, dict)]
        return [f"- {row.get('name')}: {row.get('status')}, {row.get('found')}" for row in rows]
    lines = [f"- {key}: `{json.dumps(value)}`" for key, value in found.items() if key != "table"]
    if table := found.get("table"):
        lines += ["", *_table(table)]
    return lines


def _table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    head = [f"| {' | '.join(rows[0])} |", f"|{' --- |' * len(rows[0])}"]
    return [*head, *(f"| {' | '.join(_cell(value) for value in row.values())} |" for row in rows)]


def _cell(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def main(arguments: Sequence[str]) -> int:
    """Write the report, all of it or the parts that are named; others are kept from the report that is there.

    1 for a part that is not known; 2 where there is no NVIDIA GPU; 3 where a part failed or found something wrong.
    """
    if arguments[0] == "--part":
        try:
            print(json.dumps({"ok": True, "found": PARTS[arguments[1]]()}))
        except Exception as error:
            why = f"{type(error).__name__}: {' '.join(str(error).split())}"
            missing = isinstance(error, ModuleNotFoundError)
            print(json.dumps({"ok": False, "why": why, "not_installed": missing}))
        return 0
    out, names = Path(arguments[0]), arguments[1:] or tuple(PARTS)
    if unknown := [name for name in names if name not in PARTS]:
        print(f"error: no part '{unknown[0]}', expected some of {', '.join(PARTS)}", file=sys.stderr)
        return 1
    first = run_part("gpu")
    if not first["ok"]:
        print(f"error: no NVIDIA GPU here: nvidia-smi does not answer ({first['why']})", file=sys.stderr)
        return 2
    out.mkdir(parents=True, exist_ok=True)
    parts = {**_earlier(out, first), "gpu": first}
    for name in names:
        if name != "gpu":
            print(f"{name} ...", file=sys.stderr, flush=True)
            parts[name] = run_part(name)
        # After each part: one that takes the machine down leaves what the others found.
        _write(out, {name: parts[name] for name in PARTS if name in parts})
    print(out / "report.md", file=sys.stderr)
    wrong = failed(parts)
    for name, part in parts.items():
        if is_missing(name, part):
            print(f"not installed: {name}: {part['why']}", file=sys.stderr)
    for row in judged(parts):
        print(f"{row['verdict']}: {row['target']}, {row['asked']}: {_cell(row['measured'])}", file=sys.stderr)
        if row["kind"] == "result" and row["verdict"] == "NOT MET":
            wrong[row["target"]] = f"{_cell(row['measured'])}, expected {row['asked']}"
    for name, why in wrong.items():
        print(f"error: {name}: {why}", file=sys.stderr)
    return 3 if wrong else 0


def _earlier(out: Path, gpu_now: Mapping[str, Any]) -> dict[str, Any]:
    """The parts of a report that is there and was made on this GPU."""
    with suppress(OSError, ValueError, KeyError):
        parts: dict[str, Any] = json.loads((out / "report.json").read_text(encoding="utf-8"))["parts"]
        if parts["gpu"]["found"] == gpu_now["found"]:
            return parts
    return {}


def _write(out: Path, parts: Mapping[str, Any]) -> None:
    made = datetime.now(UTC).isoformat(timespec="seconds")
    report = {"schema": 2, "made": made, "targets": judged(parts), "parts": parts}
    (out / "report.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    (out / "report.md").write_text(markdown(report), encoding="utf-8")


def _interrupted(which: int, frame: object) -> None:
    """Leave by way of ``run_part``, which ends the part that is running and all that it has started."""
    sys.exit(INTERRUPTED)


if __name__ == "__main__":
    if sys.argv[1] == "--part":
        die_with_parent()
    else:
        for each in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(each) is not signal.SIG_IGN:  # nohup
                signal.signal(each, _interrupted)
    sys.exit(main(sys.argv[1:]))
