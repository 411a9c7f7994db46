"""A report as ``sut report gpu`` leaves it, of a GPU that nobody has: its runs are real ones, on the CPU.

That of TensorRT is over ``tests/fake_tensorrt.py``, in the place of the module in all processes of the run.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from sut.files import write_text
from sut.results.machine import system_facts
from sut.results.schema import Result, used
from sut.studies.gpu_report.machine import versions
from sut.studies.gpu_report.page import markdown
from sut.studies.gpu_report.schema import FILE, PAGE, RESULTS, PartEnd, Report
from sut.studies.gpu_report.served import Cell
from sut.studies.gpu_report.targets import targets
from sut.studies.proof.cases import case_counts
from tests.children import run_python

GPU = {
    "name": "Tesla T4",
    "driver_version": "550.54.15",
    "memory.total": "15360 MiB",
    "compute_cap": "7.5",
    "power.limit": "70.00 W",
}
DEVICE = "Tesla T4 (sm_75) through CuPy 14.2, driver with CUDA 12.4"
CELL = Cell("onnxruntime", "efficientnet-lite0", "fp32", "tensor")
TENSORRT = Cell("tensorrt", "efficientnet-lite0", "fp32", "tensor")
NULL = "onnxruntime_lite0_fp32_device"
RUNS = {
    CELL.name: ("--backend", "onnxruntime", "--scenario", "Offline", "--lanes", "1", "--max-batchsize", "4"),
    NULL: ("--backend", "null", "--scenario", "all"),
    "labels_onnxruntime": ("--backend", "onnxruntime", "--scenario", "Offline", "--accuracy"),
    "onnxruntime_lite0_fp32_jpeg_cuda": ("--backend", "onnxruntime", "--scenario", "SingleStream"),
    TENSORRT.name: (
        *("--backend", "tensorrt", "--device", "cuda", "--scenario", "Offline"),
        *("--lanes", "1", "--max-batchsize", "4"),
    ),
}
"""What is run, by the part that it stands for."""
_SITE = """
from importlib.metadata import version
from tests.fake_gpu import FakeDriver
from tests.fake_tensorrt import plug_in
plug_in(FakeDriver(name={name!r}, architecture="sm_75"), version=version("tensorrt-rtx-cu13-bindings"))
"""
"""What each process of TensorRT's run begins with."""
_TIME = ("--time", "0.2", "--model", CELL.model)


def make(folder: Path) -> None:
    """Run all of ``RUNS`` and write the report of them."""
    made = datetime.now(UTC).isoformat(timespec="seconds")
    for part, words in RUNS.items():
        timed = _TIME if "--accuracy" not in words else _TIME[2:]
        command = ("-m", "sut", "run", *words, *timed, "--output", folder / RESULTS / part)
        with TemporaryDirectory() as home:
            on_gpu = part == TENSORRT.name
            (Path(home) / "sitecustomize.py").write_text(_SITE.format(name=GPU["name"]) if on_gpu else "")
            more = {"SUT_CACHE_DIR": home} if on_gpu else {}
            ended = run_python(*command, cwd=folder, plugins=Path(home), **more)
        assert ended.code in (0, 4), ended.err
    report = Report(
        schema=3,
        made=made,
        versions=versions(),
        machine=system_facts(),
        gpu=[GPU],
        budget_s=560,
        parts=dict(parts(folder)),
    )
    write(folder, report)


def parts(folder: Path) -> Iterator[tuple[str, PartEnd]]:
    """The parts, in the order of a report: of a GPU, hand-made; those with runs, which failed by name."""
    yield "gpu", PartEnd(ok=True, found={"gpus": [GPU]}, took_s=0.3, limit_s=35)
    counts = case_counts()
    equal: dict[str, Any] = {name: f"{count} of {count} equal" for name, count in counts.items()}
    check = {"exit_code": 0, "said": "", "cases": counts.total(), "wrong": [], **equal}
    yield "kernels_check", PartEnd(ok=True, found=check, took_s=21.5, limit_s=90)
    yield "labels_onnxruntime", _ran(folder, "labels_onnxruntime")
    yield CELL.name, _ran(folder, CELL.name)
    rows = [bench("copy", "device to device", 2**30, 4.2), bench("transpose 8192 x 8192 float32", "tiled", 2**29, 2.2)]
    yield (
        "kernels_bench",
        PartEnd(ok=True, found={"exit_code": 0, "device": DEVICE, "table": rows}, took_s=31, limit_s=120),
    )
    yield TENSORRT.name, _ran(folder, TENSORRT.name).model_copy(update={"ok": True, "why": None, "limit_s": 600})
    yield "ladder", PartEnd(ok=True, found=_climbed(), took_s=190, limit_s=360)
    yield NULL, _ran(folder, NULL)
    yield "onnxruntime_lite0_fp32_jpeg_cuda", _ran(folder, "onnxruntime_lite0_fp32_jpeg_cuda")


def bench(group: str, kernel: str, nbytes: int, gpu_ms: float) -> dict[str, Any]:
    """A row of ``sut kernels bench``."""
    share = (nbytes / gpu_ms) / (2**30 / 4.2)
    times = {"bytes": nbytes, "gpu_ms": gpu_ms, "wall_ms": gpu_ms + 0.1, "passes": 30, "why": ""}
    rates = {"bytes_per_second": 1e3 * nbytes / gpu_ms, "share_of_copy": share}
    return {"group": group, "kernel": kernel, **times, **rates}


def _climbed() -> dict[str, Any]:
    """What the ladder's part tells, of two rungs one of which cannot run."""
    rates = {"against_first": None, "against_first_low": None, "against_first_high": None}
    row = {"rung": 1, "name": "one-by-one decode", "samples_per_second": 350.5, "p50_ns": 1.8e8, "p99_ns": 2.1e8}
    absent = {"rung": 2, "name": "batched decode", "samples_per_second": None, "p50_ns": None, "p99_ns": None}
    table = [row | rates | {"reason": None}, absent | rates | {"reason": "DALI is not installed"}]
    about = {"model": "vit-b", "weights": "random", "load": "64 outstanding, 2 s a round", "exit_code": 0}
    return about | {"words": ["only one-by-one decode runs here"], "wrong": [], "table": table}


def _ran(folder: Path, name: str) -> PartEnd:
    places = sorted(path.parent for path in (folder / RESULTS / name).rglob("result.json"))
    results = [str(path.relative_to(folder)) for path in places]
    cells = {cell.name: cell for cell in (CELL, TENSORRT)}
    found = _told(places[0], cells[name]) if name in cells else {}
    return PartEnd(ok=False, why="no NVIDIA GPU", found=found, took_s=70, limit_s=75, results=results)


def _told(place: Path, cell: Cell) -> dict[str, Any]:
    """What a part tells of its one run."""
    result = Result.model_validate_json((place / "result.json").read_bytes())
    latency = {name: result.latency_ns[name] for name in ("p50", "p90", "p99")}
    return {
        "cell": asdict(cell),
        "command": f"sut {' '.join(cell.command)}",
        "exit_code": 0,
        "valid": result.valid,
        "invalid_reasons": result.invalid_reasons,
        "attested": json.loads(json.dumps(result.attested)),
        "used": used(result),
        "samples_per_second": result.samples_per_second,
        "latency_ns": latency,
        "bare": None,
        "wrong": [],
    }


def write(folder: Path, report: Report) -> None:
    """The two files of a report, its targets judged again."""
    whole = report.model_copy(update={"targets": [each.row() for each in targets(report.found)]})
    write_text(folder / FILE, whole.model_dump_json(by_alias=True, indent=1) + "\n")
    write_text(folder / PAGE, markdown(whole))
