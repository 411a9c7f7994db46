"""Parts of the GPU report about the CUDA kernels: equal to the oracle, counted as explained, timed, and launched."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from kernels import gpu
from kernels.device import DeviceError
from kernels.lab import api, bench, check, profiler
from preprocess.oracle import resize_fit
from sut.studies.gpu_report.child import last_line, rows_of, run, tell_so_far, told_by, watched

KERNELS = f"{Path(gpu.__file__).parent}/"
_FEW_ROWS = 256


def kernels_check() -> dict[str, Any]:
    """``sut kernels check`` on the GPU: how many cases of each kernel are equal to the oracle, to the bit."""
    code, rows, said = rows_of("kernels", "check", "--device", "cuda")
    cases: dict[str, list[bool]] = {}
    for row in rows:
        cases.setdefault(f"{row['kernel']} {row['dtype']} {row['layout']}", []).append(row["ok"])
    equal = {name: f"{sum(found)} of {len(found)} equal" for name, found in cases.items()}
    wrong = [{"why": f"{row['kernel']}: {row['case']} differs from the oracle"} | row for row in rows if not row["ok"]]
    if not rows or (code and not wrong):
        wrong.append({"why": f"ended with {code}, {len(rows)} cases"})
    return {"exit_code": code, "said": said.strip(), "cases": len(rows), "wrong": wrong, **equal}


def kernels_bench() -> dict[str, Any]:
    """``sut kernels bench``."""
    code, rows, _ = rows_of("kernels", "bench")
    table = [{key: row[key] for key in row if key != "device"} for row in rows]
    return {"exit_code": code, "device": rows[0]["device"], "table": table}


def kernels_api() -> dict[str, Any]:
    """``sut kernels bench --api``: what start-up and the order of calls cost, and what the kernel takes."""
    code, told, _ = told_by("kernels", "bench", "--api")
    table = [
        {"call": row["call"]}
        | {
            f"{kind}, {figure}": row[kind][figure]
            for kind in ("naive", "tiled")
            for figure in ("median_ns", "spread_ns")
        }
        | {f"tiled, {figure}": row["difference"][figure] for figure in ("ratio", "low", "high", "verdict")}
        for row in told["rows"]
    ]
    found = {"exit_code": code, "table": table, **{key: told[key] for key in ("findings", "nsys", "why")}}
    tell_so_far(found)
    # The command has it done in processes of its own, where nobody watches.
    with watched((KERNELS,)) as functions, TemporaryDirectory(prefix="kernels-") as folder:
        with gpu.open_device("cuda") as device:
            orders = api.prepare(device, Path(folder), _FEW_ROWS)
            api.kernel_ns(device, _FEW_ROWS, 1)
        for each in orders.values():
            api.carry_out(each)
    return found | {"functions": _in_kernels(functions)}


def kernels_profile() -> dict[str, Any]:
    """``sut kernels profile``: what ncu counts is what ``sut kernels explain`` does, sector by sector.

    A profiler that gives times alone leaves nothing to hold against each other: ``cases`` is 0 then.
    """
    code, rows, said = rows_of("kernels", "profile")
    pairs = [
        (row["kernel"], name, predicted, row["counted"][name])
        for row in rows
        for name, predicted in row["predicted"].items()
        if isinstance(predicted, int) and row["counted"][name] is not None
    ]
    wrong = [
        {"why": f"{kernel}: {predicted:,} {name} explained, {counted:,.0f} counted"}
        for kernel, name, predicted, counted in pairs
        if predicted != counted
    ]
    table = [
        {"kernel": row["kernel"]}
        | {f"{name}, {side}": row[side].get(name) for name in row["counted"] for side in ("predicted", "counted")}
        for row in rows
    ]
    metrics = {row["kernel"]: row["metrics"] for row in rows}
    return {
        "exit_code": code,
        "said": said.strip(),
        "cases": len(pairs),
        "wrong": wrong,
        "table": table,
        "metrics": metrics,
    }


def kernels_memcheck() -> dict[str, Any]:
    """The kernels' check under NVIDIA's compute-sanitizer."""
    program = shutil.which("compute-sanitizer")
    if program is None:
        raise ModuleNotFoundError("compute-sanitizer is not on the PATH: it comes with the CUDA toolkit")
    options = ["--tool", "memcheck", "--error-exitcode", "9"]
    done = run([program, *options, sys.executable, "-P", "-m", "sut", "kernels", "check", "--device", "cuda"])
    said = last_line(done.stdout)
    wrong = [{"why": f"ended with {done.returncode}: {said}"}] if done.returncode else []
    return {"exit_code": done.returncode, "said": said, "wrong": wrong}


def kernels_ran() -> dict[str, Any]:
    """Which kernels were launched, and which Python functions of kernels/ were called, on this GPU.

    ``tools/gpu_not_run.py`` lists what no report has here. Watching costs time, so nothing is timed in this part.
    """
    launched = set()
    start = gpu.GpuDevice.start

    def launch(device: Any, module: str, function: str, *others: Any) -> None:
        start(device, module, function, *others)
        device.synchronize()
        launched.add(f"{module}.{function}")

    gpu.GpuDevice.start = launch  # type: ignore[method-assign, assignment]
    try:
        with watched((KERNELS,)) as functions, gpu.open_device("cuda") as device:
            rows = list(check.check(device, resize_fit))
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
    return {"device": details, "kernels": sorted(launched), "functions": _in_kernels(functions)}


def _in_kernels(functions: Iterable[str]) -> list[str]:
    return sorted(each.removeprefix(KERNELS) for each in functions)
