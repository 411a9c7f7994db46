"""sut kernels bench --api: planted times come out as they are, of stand-in calls and of real processes."""

from __future__ import annotations

import ctypes
import gc
import json
import os
import re
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest

from kernels import gpu
from kernels.device import DeviceError
from kernels.gpu_cupy import CuPyDriver
from kernels.gpu_driver import Driver
from kernels.gpu_pycuda import PyCudaDriver
from kernels.lab import api
from kernels.lab.profiler import API, KERNELS, Summary, read_nsys
from kernels.transpose import ImageVariant
from sut.errors import RunError
from sut.studies import api_calls
from sut.studies.api_calls import KERNEL, ApiOrders, Came, compared, findings
from tests.children import CHECKOUT, program, python_started, run_python
from tests.kernels.conftest import Run
from tests.kernels.fakes import FakeLibcuda, FakePyCuda, Gpu, fake_cupy
from tests.kernels.planted_gpu import FAULT, SIDE, Planted, Turning

pytestmark = pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")
US, MS = 1000, 1_000_000
PYCUDA = {
    "load": "cuModuleLoadDataEx",
    "lookup": "cuModuleGetFunction",
    "malloc": "cuMemAlloc",
    "up": "cuMemcpyHtoDAsync",
    "launch": "cuLaunchKernel",
    "down": "cuMemcpyDtoHAsync",
    "wait": "cuCtxSynchronize",
    "free": "cuMemFree",
}
CUPY = PYCUDA | {
    "load": "cuModuleLoadData",
    "malloc": "cudaMalloc",
    "up": "cudaMemcpyAsync",
    "down": "cudaMemcpyAsync",
    "wait": "cudaDeviceSynchronize",
    "free": "cudaFree",
}
NSYS = """\

NOTICE: Existing SQLite export found: report.sqlite
        Consider using --force-export=true if needed.

Processing [report.sqlite] with [/opt/nvidia/nsight-systems/2025.3.2/host-linux-x64/reports/cuda_api_sum.py]...
Time (%),Total Time (ns),Num Calls,Avg (ns),Med (ns),Min (ns),Max (ns),StdDev (ns),Name
95.4,53283433,1,53283433.0,53283433.0,53283433,53283433,0.0,cuDevicePrimaryCtxRetain
3.0,"1,010,000",2,505000.0,505000.0,"10,000","1,000,000",700035.7,cuMemAlloc_v2
n/a,n/a,n/a,n/a,n/a,n/a,n/a,n/a,cuUnknown

Processing [report.sqlite] with [/opt/nvidia/nsight-systems/2025.3.2/host-linux-x64/reports/cuda_gpu_kern_sum.py]...
"Time (%)","Total Time (ns)","Instances","Avg (ns)","Med (ns)","Min (ns)","Max (ns)","StdDev (ns)","Name"
100.0,62000,2,31000.0,31000.0,30000,32000,1414.2,"transpose_tiled_f32(const unsigned int *, unsigned int *, int, int)"
SKIPPED: report.sqlite does not contain CUDA memory data.
"""
SEEN = [
    Summary(API, "cuDevicePrimaryCtxRetain", 1, 53283433, 53283433, 53283433),
    Summary(API, "cuMemAlloc_v2", 2, 1010000, 10000, 1000000),
    Summary(KERNELS, "transpose_tiled_f32", 2, 62000, 30000, 32000),
]


def planted(names: dict[str, str], kernel_ns: int) -> Planted:
    """Start-up and the order of calls cost the same whatever the kernel."""
    return Planted(
        {
            ("context", 1): 200 * MS,
            (names["load"], 1): 300 * US,
            (names["lookup"], 1): 50 * US,
            (names["malloc"], 1): MS,
            (names["malloc"], 2): 10 * US,
            (names["up"], 1): 5 * MS,
            (names["launch"], 1): 400 * US,
            (names["launch"], 2): 4 * US,
            (names["wait"], 2): kernel_ns,
            (names["wait"], 3): kernel_ns,
            (names["down"], 1 + (names["up"] == names["down"])): 6 * MS,
            (names["free"], 1): 90 * US,
            (names["free"], 2): 30 * US,
        }
    )


def expected(kernel_ns: int) -> dict[str, int]:
    return {
        "context": 200 * MS,
        "module load": 300 * US,
        "function lookup": 50 * US,
        "first malloc": MS,
        "second malloc": 10 * US,
        "copy to GPU": 5 * MS,
        "first launch (call)": 400 * US,
        "first launch (done)": 400 * US + kernel_ns,
        "second launch (call)": 4 * US,
        "second launch (done)": 4 * US + kernel_ns,
        "copy from GPU": 6 * MS,
        "first free": 90 * US,
        "second free": 30 * US,
    }


def measured(library: str, variant: ImageVariant, kernel_ns: int) -> dict[str, int]:
    stand_in = planted(PYCUDA if library == "PyCUDA" else CUPY, kernel_ns)

    def make() -> Driver:
        return PyCudaDriver(FakePyCuda(stand_in), 0) if library == "PyCUDA" else CuPyDriver(fake_cupy(stand_in), 0)

    return api.measure(partial(stand_in.opened, make), b"cubin", variant, SIDE, lambda: stand_in.now_ns)


@pytest.mark.parametrize("variant", ["naive", "tiled"])
@pytest.mark.parametrize("library", ["PyCUDA", "CuPy"])
def test_each_call_takes_what_was_planted(
    library: str, variant: ImageVariant, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name: FakeLibcuda())
    took = measured(library, variant, 40 * US)
    gc.collect()

    assert took == expected(40 * US)
    assert tuple(took) == api.ROWS
    assert capfd.readouterr().err == ""  # nothing was freed without its context


def test_a_wrong_transpose_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Turning, "__init__", Gpu.__init__)
    with pytest.raises(DeviceError, match="transpose_tiled_f32 of 64 x 64 is wrong"):
        measured("CuPy", "tiled", 0)


@pytest.fixture
def of_stand_ins(monkeypatch: pytest.MonkeyPatch) -> dict[ImageVariant, int]:
    """The command over stand-ins; by kernel, what it takes in ns, which changes by a hundredth from pair to pair."""
    takes: dict[ImageVariant, int] = {"naive": 100 * US, "tiled": 25 * US}
    counts = Counter[str]()

    @contextmanager
    def opened(name: str) -> Iterator[SimpleNamespace]:
        yield SimpleNamespace(details=f"a stand-in for {name}")

    def came(orders: ApiOrders, doing: str, limit_s: float) -> Came:
        kind = orders.calls.variant
        counts[kind] += 1
        if orders.nsys:
            return Came(nsys=[*SEEN[:2], replace(SEEN[2], name=f"transpose_{kind}_f32")])
        return Came(took_ns=measured("CuPy", kind, takes[kind] + counts[kind] * takes[kind] // 100))

    def kernel_ns(device: object, side: int, passes: int) -> dict[ImageVariant, list[float]]:
        return {kind: [ns + number for number in range(passes)] for kind, ns in takes.items()}

    kinds: tuple[ImageVariant, ...] = ("naive", "tiled")
    orders = {kind: api.Orders(kind, 0, 13, "transpose.cubin", SIDE) for kind in kinds}
    monkeypatch.setattr(gpu, "open_device", opened)
    monkeypatch.setattr(api, "prepare", lambda device, folder, side: orders)
    monkeypatch.setattr(api, "kernel_ns", kernel_ns)
    monkeypatch.setattr(api_calls, "_came", came)
    monkeypatch.setattr(api_calls, "find_program", lambda name: None)
    return takes


def test_the_table_tells_start_up_and_order_from_the_kernel(sut: Run, of_stand_ins: object) -> None:
    done = sut("bench", "--api")

    assert done.code == 0, done.err
    assert max(map(len, done.out.splitlines())) <= 80
    for name, ns in expected(0).items():
        if not name.endswith("(done)"):
            us = f"{ns / US:.4g}" if ns < 10 * MS else f"{ns / US:,.0f}"
            assert re.search(rf"^{re.escape(name)} +{us} +0 +{us} +0 +cannot be told apart *$", done.out, re.M), name
    assert re.search(r"^second launch \(done\) +109\.5 +2\.5 +30\.38 +0\.625 +3\.6\d? x ", done.out, re.M)
    assert re.search(r"^kernel, by events +100 +0\.0025 +25 +0\.0025 +4 x \(4 to 4\) *$", done.out, re.M)
    told = " ".join(done.out.split())
    assert "the first malloc takes 100 x (100 to 100) as long as the second;" in told
    assert "the first free takes 3 x (3 to 3) as long as the second." in told
    assert "Kernel: tiled is faster in first launch (done), 1." in told
    assert "It is not to be told from naive in 11 of 14 rows." in told
    assert "Of the 213.1 ms of all calls, naive, 94 % are start-up (context, module load, function lookup)" in told
    assert "no rows of nsys: nsys (Nsight Systems) is not installed" in told
    assert done.err.splitlines()[:4] == [
        "timing on a stand-in for cuda",
        *(f"process {n} of 20 ({kind})" for n, kind in ((1, "naive"), (2, "tiled"), (3, "tiled"))),
    ]


def test_where_the_kernels_are_the_same_no_row_says_otherwise(
    sut: Run, of_stand_ins: dict[ImageVariant, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    of_stand_ins["tiled"] = of_stand_ins["naive"]
    monkeypatch.setenv("CUDA_MODULE_LOADING", "EAGER")
    done = sut("bench", "--api", "--json")

    printed = json.loads(done.out)
    assert {row["difference"]["verdict"] for row in printed["rows"]} == {"open"}
    assert [row["call"] for row in printed["rows"]] == [*api.ROWS, KERNEL]
    malloc = printed["rows"][3]
    assert malloc["naive"] == {"median_ns": MS, "spread_ns": 0}
    assert malloc["tiled_ns"] == [MS] * 10
    assert (printed["device"], printed["nsys"]) == ("a stand-in for cuda", {})
    assert printed["findings"][1] == "Kernel: tiled is not to be told from naive in 14 of 14 rows."
    assert printed["module_loading"] == "EAGER"


def test_what_is_said_of_the_order_is_what_was_measured() -> None:
    def said(first: list[float], second: list[float]) -> str:
        named = dict.fromkeys((*api.ROWS, KERNEL), [[1.0, 1.0, 1.0, 1.0]] * 2)
        return next(findings(compared(named | {"first malloc": [first] * 2, "second malloc": [second] * 2})))

    assert "the first malloc takes 0.5 x (0.5 to 0.5) as long as the second;" in said([5.0] * 4, [10.0] * 4)
    assert "the first and the second malloc cannot be told apart;" in said([5.0, 9.0, 7.0, 5.0], [9.0, 5.0, 5.0, 7.0])


def test_a_kernel_that_could_not_be_timed_has_no_figure(
    sut: Run, of_stand_ins: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api, "kernel_ns", lambda device, side, passes: dict.fromkeys(("naive", "tiled"), [None] * 10))
    done = sut("bench", "--api")

    assert re.search(r"^kernel, by events +- +- +- +- +cannot be told apart *$", done.out, re.M)
    assert " ms of all calls" not in done.out


def test_nsys_stands_beside_it_where_it_is_installed(
    sut: Run, of_stand_ins: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api_calls, "find_program", lambda name: Path("/opt") / name)
    done, printed = sut("bench", "--api"), json.loads(sut("bench", "--api", "--json").out)

    assert max(map(len, done.out.splitlines())) <= 80
    assert re.search(r"^cuMemAlloc_v2 +2 +1,?010 +1,?000 +2 +1,?010 +1,?000$", done.out, re.M)
    assert re.search(r"^transpose_naive_f32 +2 +62 +32 +- +- +-$", done.out, re.M)
    assert printed["nsys"]["tiled"][1]["total_ns"] == 1010000

    def fails(orders: ApiOrders, doing: str, limit_s: float) -> Came:
        if orders.nsys:
            raise RunError(f"{doing} failed: no space left")
        return Came(took_ns=expected(1))

    monkeypatch.setattr(api_calls, "_came", fails)
    done = sut("bench", "--api")
    assert (done.code, "no rows of nsys: the naive process under nsys failed: no space left" in done.out) == (0, True)


def test_what_nsys_prints_is_read() -> None:
    assert read_nsys(NSYS) == SEEN


def test_an_option_of_the_other_benchmark_is_refused(sut: Run) -> None:
    done = sut("bench", "--api", "--repeat", "3")
    assert (done.code, done.err) == (1, "error: --repeat has no effect with --api; leave it out\n")


def test_without_a_gpu_it_says_so(sut: Run) -> None:
    done = sut("bench", "--api")
    assert (done.code, done.err.partition(" (")[0]) == (2, "error: no NVIDIA driver")


@pytest.fixture
def stand_ins(tmp_path: Path) -> Path:
    """A folder for Python's path with which every process has a stand-in for PyCUDA and the driver."""
    (tmp_path / "path").mkdir()
    (tmp_path / "path" / "sitecustomize.py").write_text("from tests.kernels.planted_gpu import install\n\ninstall()\n")
    return tmp_path / "path"


BENCH = ("-m", "sut", "kernels", "bench", "--api")


def test_in_real_processes(stand_ins: Path, tmp_path: Path) -> None:
    (tmp_path / "said").write_text(NSYS)
    # It runs what it is to watch, which must end well by itself.
    script = f'[ "$1" = profile ] || exec cat {tmp_path}/said; while [ "$1" != -o ]; do shift; done; shift 2; "$@"'
    program(tmp_path, "nsys", script)

    path = f"{tmp_path}:{os.environ['PATH']}"
    done = run_python(*BENCH, "--json", cwd=tmp_path, plugins=stand_ins, SUT_CACHE_DIR=str(tmp_path), PATH=path)

    assert (done.code, done.left) == (0, []), done.err
    printed = json.loads(done.out)
    assert all(ns > 0 for row in printed["rows"] for ns in (*row["naive_ns"], *row["tiled_ns"]))
    assert {len(row["tiled_ns"]) for row in printed["rows"]} == {2}
    assert [row["name"] for row in printed["nsys"]["tiled"]] == [row.name for row in SEEN]
    assert "process 4 of 4 (naive)" in done.err


def test_a_process_that_fails_is_named_and_ends_the_command(stand_ins: Path, tmp_path: Path) -> None:
    variables = {FAULT: str(tmp_path / "fails"), "SUT_CACHE_DIR": str(tmp_path)}
    done = run_python(*BENCH, cwd=tmp_path, plugins=stand_ins, **variables)

    assert (done.code, done.out) == (3, "")
    assert done.error == "process 2 of 4 (tiled) failed: FakeError: cuMemAlloc failed: out of memory"


def test_a_process_that_hangs_is_named(stand_ins: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", f"{CHECKOUT}:{stand_ins}")
    monkeypatch.setenv(FAULT, str(tmp_path / "hangs"))
    (tmp_path / "cubin").touch()
    orders = ApiOrders(api.Orders("tiled", 0, 13, str(tmp_path / "cubin"), SIDE))

    with pytest.raises(RunError, match=r"^process 2 of 20 made no progress for 0 s and was stopped$"):
        api_calls._came(orders, "process 2 of 20", 0.4)


def test_an_interrupt_leaves_no_process(stand_ins: Path, tmp_path: Path) -> None:
    hangs = tmp_path / "hangs"
    variables = {FAULT: str(hangs), "SUT_CACHE_DIR": str(tmp_path)}
    with python_started(*BENCH, cwd=tmp_path, plugins=stand_ins, **variables) as running:
        running.wait_until(hangs.exists)
        running.signal(signal.SIGINT)
        done = running.finish(20)

    assert (done.code, done.error) == (130, "interrupted")
