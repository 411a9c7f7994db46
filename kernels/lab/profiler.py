"""NVIDIA's profilers beside the predictions: what Nsight Compute counted of each kernel that ``explain`` explains.

The kernels of ``explain.CASES`` run once each, in a process that ncu (or, for times alone, nsys) watches; it is this
module, started as ``python -m kernels.lab.profiler cuda:0``.
"""

from __future__ import annotations

import csv
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import dropwhile, takewhile
from pathlib import Path
from typing import Any

from kernels.device import Device, DeviceError
from kernels.gpu import open_device
from kernels.gpu_library import one_line
from kernels.host.build import find_compiler
from kernels.lab.explain import CASES, Explanation
from plugins.driver import installed_driver
from plugins.errors import DeviceNotFound
from plugins.packages import CHECKOUT

LIMIT_S = 600
_TOOLKIT, _NSIGHT = Path("/usr/local/cuda"), Path("/opt/nvidia")
SECTORS = "l1tex__t_sectors_pipe_lsu_mem_global_op_{}.sum"
REQUESTS = "l1tex__t_requests_pipe_lsu_mem_global_op_{}.sum"
CONFLICTS = "l1tex__data_bank_conflicts_pipe_lsu_mem_shared_op_{}.sum"
TIME = "gpu__time_duration.sum"
READ, WRITTEN = "dram__bytes_read.sum", "dram__bytes_write.sum"
METRICS = (*(name.format(way) for name in (SECTORS, REQUESTS, CONFLICTS) for way in ("ld", "st")), TIME, READ, WRITTEN)
"""Names of Nsight Compute's metrics (its "Metrics Reference"); sectors and requests are those of the L1 cache."""

API, KERNELS = "cuda_api_sum", "cuda_gpu_kern_sum"
"""Nsight Systems' reports of the calls that the host made, and of the kernels that the GPU ran (its User Guide)."""

Counters = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Summary:
    """A row of one of Nsight Systems' reports: all calls of one function, or all runs of one kernel, of a process."""

    report: str
    name: str
    """Without the types of its arguments."""
    calls: float
    total_ns: float
    min_ns: float
    max_ns: float


@dataclass(frozen=True, slots=True)
class Profiled:
    """One kernel: what was predicted, and what a profiler counted (None: it did not)."""

    predicted: Explanation
    counted: Counters

    def sectors_per_request(self, way: str) -> float | None:
        """As counted; ``way`` is ld or st."""
        requests = self.counted.get(REQUESTS.format(way))
        return self.counted[SECTORS.format(way)] / requests if requests else None

    @property
    def conflicts(self) -> float | None:
        """Wavefronts that bank conflicts cost, loads and stores, as counted."""
        found = [self.counted[name] for way in ("ld", "st") if (name := CONFLICTS.format(way)) in self.counted]
        return sum(found) if found else None

    @property
    def predicted_conflicts(self) -> int:
        """The same, from the host form's counts."""
        return sum(site.wavefronts - site.phases for site in self.predicted.sites if site.space == "shared")

    @property
    def time_us(self) -> float | None:
        """Of the one launch, with the caches as the profiler leaves them."""
        return self.counted[TIME] / 1e3 if TIME in self.counted else None

    @property
    def row(self) -> dict[str, Any]:
        """As ``sut kernels profile --json`` prints it."""
        return {
            "kernel": self.predicted.case.kernel,
            "shape": self.predicted.case.shape,
            "predicted": {
                "read_sectors_per_request": self.predicted.sectors_per_request("read"),
                "write_sectors_per_request": self.predicted.sectors_per_request("write"),
                "read_sectors": self.predicted.sectors("read"),
                "write_sectors": self.predicted.sectors("write"),
                "conflicts": self.predicted_conflicts,
            },
            "counted": {
                "read_sectors_per_request": self.sectors_per_request("ld"),
                "write_sectors_per_request": self.sectors_per_request("st"),
                "read_sectors": self.counted.get(SECTORS.format("ld")),
                "write_sectors": self.counted.get(SECTORS.format("st")),
                "conflicts": self.conflicts,
                "time_us": self.time_us,
            },
            "metrics": dict(self.counted),
        }


def find_all() -> Path:
    """The profiler. Raises ``ModuleNotFoundError`` with all that is missing, the GPU and g++ too."""
    missing = []
    for find in (find_profiler, find_compiler, installed_driver):
        try:
            find()
        except (DeviceNotFound, ModuleNotFoundError) as error:
            missing.append(one_line(error))
    if missing:
        raise ModuleNotFoundError("; and ".join(missing))
    return find_profiler()


def find_profiler() -> Path:
    """Nsight Compute, else Nsight Systems. Raises ``ModuleNotFoundError`` where neither is there."""
    for name in ("ncu", "nsys"):
        if program := find_program(name):
            return program
    raise ModuleNotFoundError(
        "profiling needs ncu (Nsight Compute) or nsys on the PATH or in the CUDA toolkit: install nsight-compute"
    )


def find_program(name: str) -> Path | None:
    """``ncu`` or ``nsys``: on the PATH, else in a CUDA toolkit, else where NVIDIA installs it by itself."""
    places = [Path(home) / "bin" for home in map(os.environ.get, ("CUDA_HOME", "CUDA_PATH")) if home]
    places += [_TOOLKIT / "bin", *sorted(_NSIGHT.glob("nsight-*/*"), reverse=True)]
    on_path = shutil.which(name)
    for path in (*([Path(on_path)] if on_path else []), *(place / name for place in places)):
        if os.access(path, os.X_OK):
            return path
    return None


def count(profiler: Path, device: str) -> Mapping[str, Counters]:
    """Run the cases on ``device`` under ``profiler``; counters by kernel.

    Raises ``DeviceError`` with the profiler's own word where it or a kernel fails.
    """
    child = [sys.executable, "-P", "-m", "kernels.lab.profiler", device]
    if profiler.name == "nsys":
        return times_of(summarize(profiler, child, [KERNELS]))
    # The clocks stay as they are: locking them needs rights, and times are read beside bandwidths measured unlocked.
    options = ["--csv", "--print-units", "base", "--clock-control", "none", "--metrics", ",".join(METRICS)]
    return read_ncu(_run([str(profiler), *options, *child]))


def read_ncu(text: str) -> Mapping[str, Counters]:
    """Counters by kernel from ncu's CSV: one line per kernel and metric, among lines of other talk.

    Raises ``DeviceError`` where there is none.
    """
    lines = text.splitlines()
    found: dict[str, dict[str, float]] = {}
    for row in csv.DictReader(dropwhile(lambda line: not line.startswith('"ID"'), lines)):
        name = re.split(r"[(<]", row["Kernel Name"])[0].split()[-1]
        with suppress(ValueError):  # "n/a": this GPU has no such counter
            found.setdefault(name, {})[row["Metric Name"]] = _number(row["Metric Value"])
    if not found:
        raise DeviceError(f"ncu counted nothing: {_last(lines)}")
    return found


def summarize(nsys: Path, child: Sequence[str], reports: Sequence[str]) -> list[Summary]:
    """Run ``child`` under Nsight Systems; the rows of these of its reports.

    Raises ``DeviceError`` with its own word where it or the child fails, and where it saw nothing.
    """
    with tempfile.TemporaryDirectory(prefix="kernels-") as folder:
        file = f"{folder}/report.nsys-rep"
        _run([str(nsys), "profile", "--trace=cuda", "--sample=none", "--cpuctxsw=none", "-o", file, *child])
        return read_nsys(_run([str(nsys), "stats", "--report", ",".join(reports), "--format", "csv", file]))


def read_nsys(text: str) -> list[Summary]:
    """What ``nsys stats`` printed as CSV: a table per report, each behind its headings and before an empty line, among
    lines of other talk. Raises ``DeviceError`` where there is no row.
    """
    lines = text.splitlines()
    found = []
    for begin in (at for at, line in enumerate(lines) if line.lstrip('"').startswith("Time (%)")):
        for row in csv.DictReader(takewhile(str.strip, lines[begin:])):
            calls, report = (row["Num Calls"], API) if "Num Calls" in row else (row["Instances"], KERNELS)
            figures = (calls, *(row[f"{which} (ns)"] for which in ("Total Time", "Min", "Max")))
            with suppress(TypeError, ValueError):  # no row, but other talk
                found.append(Summary(report, re.split(r"[(<]", row["Name"])[0], *map(_number, figures)))
    if not found:
        raise DeviceError(f"nsys saw nothing of CUDA: {_last(lines)}")
    return found


def times_of(rows: Iterable[Summary]) -> Mapping[str, Counters]:
    """The mean times of kernels by their names."""
    return {row.name: {TIME: row.total_ns / row.calls} for row in rows if row.report == KERNELS}


def beside(explanations: Iterable[Explanation], counted: Mapping[str, Counters]) -> list[Profiled]:
    """Predictions and counters of the same kernels; no counters for one that the profiler did not see."""
    return [Profiled(e, counted.get(e.case.kernel, {})) for e in explanations]


def run_cases(device: Device) -> None:
    """Start each case once."""
    for case in CASES:
        case.run(device)
    device.synchronize()


def _run(command: Sequence[str]) -> str:
    root = str(CHECKOUT)
    path = os.pathsep.join(part for part in (root, os.environ.get("PYTHONPATH")) if part)
    try:
        done = subprocess.run(
            command,
            env=os.environ | {"PYTHONPATH": path},
            capture_output=True,
            text=True,
            errors="replace",
            timeout=LIMIT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise DeviceError(f"{Path(command[0]).name} did not end within {LIMIT_S} s") from None
    if "ERR_NVGPUCTRPERM" in done.stdout + done.stderr:
        raise DeviceError(
            "ncu may not read the GPU's counters (ERR_NVGPUCTRPERM): run as root, or load the driver with"
            " NVreg_RestrictProfilingToAdminUsers=0"
        )
    if done.returncode:
        said = _last((done.stdout + done.stderr).splitlines())
        raise DeviceError(f"{Path(command[0]).name} ended with {done.returncode}: {said}")
    return done.stdout


def _last(lines: Sequence[str]) -> str:
    """What went wrong, in one line: the last error, else the last thing said."""
    said = [line.strip() for line in lines if line.strip()]
    errors = [line for line in said if re.search(r"==ERROR==|error", line, re.IGNORECASE)]
    return (errors or said or ["it said nothing"])[-1][:300]


def _number(text: str) -> float:
    """``1,024.5`` as 1024.5."""
    return float(text.replace(",", ""))


if __name__ == "__main__":
    with open_device(sys.argv[1]) as opened:
        run_cases(opened)
