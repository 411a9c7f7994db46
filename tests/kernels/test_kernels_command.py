"""sut kernels as a user starts it here, without a GPU, and what it does with one, on stand-ins."""

from __future__ import annotations

import doctest
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

import plugins.driver
from kernels import gpu
from kernels.device import DeviceError
from kernels.host import build
from kernels.lab import bench, check, profiler
from kernels.lab.bench import Timing
from kernels.lab.check import CaseResult
from kernels.lab.explain import CASES
from kernels.lab.profiler import (
    CONFLICTS,
    REQUESTS,
    SECTORS,
    TIME,
    beside,
    count,
    find_profiler,
    read_ncu,
    read_nsys,
    times_of,
)
from tests.children import CHECKOUT, load_tool, program
from tests.kernels.conftest import Done, Run

NCU = """\
==PROF== Connected to process 77 (/usr/bin/python3)
==PROF== Profiling "transpose_naive_f32" - 0: 0%....50%....100% - 3 passes
==PROF== Disconnected from process 77
"ID","Process ID","Process Name","Host Name","Kernel Name","Context","Stream","Block Size","Grid Size","Device","CC",\
"Section Name","Metric Name","Metric Unit","Metric Value"
"""
ROW = '"0","77","python3","127.0.0.1","{}","1","7","(16, 16, 1)","(256, 1, 1)","0","9.0","C","{}","","{}"\n'
NSYS = """\
Processing [report.sqlite] with [cuda_gpu_kern_sum.py]...

Time (%),Total Time (ns),Instances,Avg (ns),Med (ns),Min (ns),Max (ns),StdDev (ns),Name
60.0,3000,1,3000.0,3000.0,3000,3000,0.0,"transpose_naive_f32(const unsigned int *, unsigned int *, int, int)"
40.0,2000,1,2000.0,2000.0,2000,2000,0.0,transpose_tiled_f32
"""


def one_line(done: Done) -> str:
    assert done.err.count("\n") == 1, done.err
    assert done.err.startswith("error: ")
    return done.err


@pytest.mark.slow
def test_check_takes_the_host_form_where_there_is_no_gpu_and_all_kernels_are_equal_to_their_truth(sut: Run) -> None:
    done = sut("check", "--json")

    assert done.code == 0, done.err
    assert (
        done.err == "checking on the host form (no NVIDIA driver (libcuda.so.1 does not load): install one, or start "
        "the container with --gpus all)\n"
    )
    printed = json.loads(done.out)
    assert (printed["schema"], printed["command"]) == (1, "kernels check")
    rows = printed["rows"]
    assert [row for row in rows if not row["ok"]] == []
    assert {row["largest_difference"] for row in rows} == {0}
    assert {row["device"] for row in rows} == {"host"}
    assert {
        *("matmul_tiled_f32", "transpose_naive", "transpose_tiled", "nhwc_to_nchw_tiled"),
        *("normalize_f32", "normalize_f16", "resize fused", "resize naive"),
    } <= {row["kernel"] for row in rows}
    assert {row["dtype"] for row in rows} == {"float32", "float16", "uint8", "int8"}
    assert {row["layout"] for row in rows if row["kernel"] == "resize fused"} == {"NCHW", "NHWC"}
    for case in ("linear, letterbox 640, centred", "linear, letterbox 640, top left", "linear, stretch 800"):
        assert {row["dtype"] for row in rows if row["case"] == case} == {"float32", "float16", "uint8", "int8"}


def test_a_wrong_kernel_is_named_and_ends_with_3(sut: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    cases = (("area", 0.0), ("cubic", 2.5))
    rows = [CaseResult("resize fused", "float32", "NCHW", case, off, not off) for case, off in cases]
    monkeypatch.setattr(check, "check", lambda device, truth: iter(rows))

    done = sut("check", "--device", "host")

    assert done.code == 3
    assert re.search(r"^resize fused +float32 +NCHW +2 +2\.5 +WRONG: cubic", done.out, re.MULTILINE)
    assert "1 of 2 cases equal to the oracle on host" in done.out


def test_explain_says_what_the_literature_says(sut: Run) -> None:
    done = sut("explain", "--bandwidth", "1000", "--json")

    assert (done.code, done.err) == (0, "")
    rows = {row["kernel"]: row for row in json.loads(done.out)["rows"]}
    naive = rows["transpose_naive_f32"]
    assert (naive["read_sectors_per_request"], naive["write_sectors_per_request"]) == (4, 16)
    ways = {name: rows[f"transpose_{name}_f32"]["max_conflict_ways"] for name in ("tile16x16", "tile16x17", "tiled")}
    assert ways == {"tile16x16": 8, "tile16x17": 2, "tiled": 1}
    assert naive["predicted_us"] == pytest.approx(naive["moved_bytes"] / 1e6)
    assert set(rows) == {case.kernel for case in CASES}
    assert rows["resize_f32"]["shape"].startswith("500 x 375 uint8, area, short side 256, crop 224")
    assert all(rows[name]["predicted_us"] > 0 for name in ("resize_f32", "normalize_f32"))


def test_explain_as_a_table_fits_80_columns(sut: Run) -> None:
    done = sut("explain")

    assert done.code == 0
    assert max(map(len, done.out.splitlines())) <= 80
    assert re.search(r"^transpose_naive_f32 +4 +16 +- ", done.out, re.MULTILINE)
    assert " us" not in done.out.splitlines()[0]
    assert "Sectors asked for again come from a cache" in " ".join(done.out.split())


def test_bench_puts_libraries_to_their_groups_and_says_what_was_not_measured(
    sut: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    timings = [
        Timing("copy", "device to device", 1000, 1.0, 1.25, 30),
        Timing("turned", "tiled", 500, 1.0, 1.5, 30),
        Timing("resized", "fused", 500, None, 2.0, 30, "the host is too slow"),
        Timing("turned", "CuPy copyto", 500, None, None, 0, "CompileException: no headers"),
    ]

    @contextmanager
    def opened(name: str) -> Iterator[SimpleNamespace]:
        yield SimpleNamespace(details=f"a stand-in for {name}")

    monkeypatch.setattr(gpu, "open_device", opened)
    monkeypatch.setattr(bench, "check_memory", lambda device: None)
    monkeypatch.setattr(bench, "run", lambda device, repeats: iter(timings))

    table, printed = sut("bench"), sut("bench", "--json")

    assert (table.code, printed.code) == (0, 0)
    names = [line.split("  ")[1] for line in table.out.splitlines() if line.startswith("  ")]
    assert names == ["device to device", "tiled", "CuPy copyto", "fused"]
    assert re.search(r"^  tiled +1 +1\.5 +\d+ +0\.50$", table.out, re.MULTILINE)
    assert re.search(r"^  CuPy copyto +- +- *$", table.out, re.MULTILINE)
    assert "not measured: turned, CuPy copyto: CompileException: no headers" in table.out
    assert "not measured: resized, fused: the host is too slow" in table.out
    assert table.err.startswith("timing on a stand-in for cuda\n")
    rows = json.loads(printed.out)["rows"]
    assert [row["why"] for row in rows] == [timing.why for timing in timings]
    assert [row["share_of_copy"] for row in rows] == [1.0, 0.5, None, None]


@pytest.mark.parametrize(
    ("arguments", "code", "fragment"),
    [
        (["bench"], 2, "no NVIDIA driver (libcuda.so.1 does not load): install one, or start the container"),
        (["check", "--device", "cuda"], 2, "no NVIDIA driver"),
        (["check", "--device", "cuda:3"], 2, "no NVIDIA driver"),
        (["profile"], 2, "no NVIDIA driver"),
        (["check", "--device", "cpu"], 1, "unknown device 'cpu', expected cuda, cuda:N, or host"),
        (["check", "--device", "gpus"], 1, "unknown device 'gpus', expected cuda"),
        (["bench", "--device", "host"], 1, "unknown device 'host', expected cuda"),
        (["explain", "--bandwidth", "0"], 1, "--bandwidth is 0, expected a number of GB/s over 0"),
        (["explain", "--bandwidth", "nan"], 1, "--bandwidth is nan, expected a number of GB/s over 0"),
        (["bench", "--repeat", "0"], 1, "repeat"),
        (["chek"], 1, "chek"),
    ],
)
def test_what_cannot_be_done_is_one_line(sut: Run, arguments: list[str], code: int, fragment: str) -> None:
    done = sut(*arguments)

    assert done.code == code
    assert fragment in one_line(done)


@pytest.mark.parametrize("command", ["check", "explain"])
def test_no_compiler_for_the_host_form(sut: Run, command: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SUT_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(build, "which", lambda name: None)

    done = sut(command)

    assert done.code == 2
    assert "error: the host form of the kernels needs g++ (Debian: apt-get install g++)" in done.err
    assert "Traceback" not in done.err


def test_profile_says_all_that_is_missing(sut: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profiler.shutil, "which", lambda name: None)
    monkeypatch.setattr(profiler.os, "access", lambda path, mode: False)
    monkeypatch.setattr(build, "which", lambda name: None)

    done = sut("profile")

    assert done.code == 2
    assert re.search("profiling needs ncu .* or nsys .*; and .* needs g[+][+] .*; and no NVIDIA driver", one_line(done))


def test_profile_without_a_compiler_runs_no_profiler(sut: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    ncu = program(tmp_path, "ncu", f"touch {tmp_path}/ran")
    monkeypatch.setattr(profiler.shutil, "which", lambda name: str(ncu))
    monkeypatch.setattr(profiler, "installed_driver", lambda: plugins.driver.Installed(13, 0, 1))
    monkeypatch.setattr(build, "which", lambda name: None)

    done = sut("profile")

    assert done.code == 2
    assert one_line(done) == f"error: {build.MISSING}\n"
    assert not (tmp_path / "ran").exists()
    assert "needs a gpu, ncu and g++" in sut("profile", "--help").out.lower()


@pytest.mark.parametrize("command", ["", "check", "explain", "bench", "profile"])
def test_help_has_an_example(sut: Run, command: str) -> None:
    done = sut(*filter(None, [command]), "--help")

    assert done.code == 0
    assert "Example: ./run_local.sh kernels" in done.out


def ncu_text() -> str:
    values = {SECTORS: ("2,048", "8192"), REQUESTS: ("512", "512"), CONFLICTS: ("0", "16.0")}
    named = {name.format(way): pair[way == "st"] for name, pair in values.items() for way in ("ld", "st")}
    full = "transpose_naive_f32(const unsigned int *, unsigned int *, int, int)"
    rows = [ROW.format(full, name, value) for name, value in {**named, TIME: "3,456", "x": "n/a"}.items()]
    return NCU + "".join(rows) + ROW.format("void ns::other<float>(int)", TIME, "1")


def test_what_ncu_prints_is_read() -> None:
    found = read_ncu(ncu_text())

    assert found["transpose_naive_f32"][SECTORS.format("ld")] == 2048
    assert set(found) == {"transpose_naive_f32", "ns::other"}


def test_counters_stand_beside_predictions(counting: object) -> None:
    from kernels.lab.explain import explain

    cases = [case for case in CASES if case.kernel in ("transpose_naive_f32", "transpose_tile16x16_f32")]
    naive, tile = beside(explain(counting, cases), read_ncu(ncu_text()))  # type: ignore[arg-type]

    assert (naive.sectors_per_request("ld"), naive.sectors_per_request("st")) == (4, 16)
    assert naive.predicted.sectors_per_request("write") == 16
    assert (naive.conflicts, naive.predicted_conflicts, naive.time_us) == (16, 0, 3.456)
    assert (tile.sectors_per_request("ld"), tile.conflicts, tile.time_us) == (None, None, None)
    assert tile.predicted_conflicts == 7 * 256 * 256 // 32


def test_what_nsys_prints_is_read() -> None:
    assert times_of(read_nsys(NSYS)) == {"transpose_naive_f32": {TIME: 3000.0}, "transpose_tiled_f32": {TIME: 2000.0}}


@pytest.mark.parametrize("read", [read_ncu, read_nsys])
def test_a_profiler_that_saw_nothing(read: object) -> None:
    with pytest.raises(DeviceError, match="==ERROR== The application returned an error code"):
        read("==PROF== hello\n==ERROR== The application returned an error code (1).\n==PROF== bye\n")  # type: ignore[operator]


def test_ncu_is_started_with_the_cases_and_its_words_are_passed_on(tmp_path: Path) -> None:
    (tmp_path / "said").write_text(ncu_text())
    ncu = program(tmp_path, "ncu", f'echo "$PYTHONPATH $@" > {tmp_path}/arguments; cat {tmp_path}/said')

    assert count(ncu, "cuda:0")["transpose_naive_f32"][TIME] == 3456
    arguments = (tmp_path / "arguments").read_text()
    assert arguments.startswith(str(CHECKOUT)) and "--csv" in arguments
    assert arguments.rstrip().endswith("-P -m kernels.lab.profiler cuda:0")

    program(tmp_path, "ncu", "echo '==ERROR== ERR_NVGPUCTRPERM - The user does not have permission'; exit 1")
    with pytest.raises(DeviceError, match=r"may not read the GPU's counters \(ERR_NVGPUCTRPERM\): run as root"):
        count(ncu, "cuda:0")
    program(tmp_path, "ncu", "echo '==ERROR== no device' >&2; exit 9")
    with pytest.raises(DeviceError, match="ncu ended with 9: ==ERROR== no device"):
        count(ncu, "cuda:0")


def test_nsys_gives_times(tmp_path: Path) -> None:
    (tmp_path / "said").write_text(NSYS)
    nsys = program(tmp_path, "nsys", f'[ "$1" = profile ] || cat {tmp_path}/said')
    assert count(nsys, "cuda:0")["transpose_tiled_f32"] == {TIME: 2000.0}


def test_ncu_comes_before_nsys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bin").mkdir()
    nsys = program(tmp_path / "bin", "nsys", "")
    monkeypatch.setattr(profiler.shutil, "which", lambda name: str(nsys) if name == "nsys" else None)
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    monkeypatch.setattr(profiler, "_TOOLKIT", tmp_path / "none")
    monkeypatch.setattr(profiler, "_NSIGHT", tmp_path / "none")
    assert find_profiler() == nsys
    ncu = program(tmp_path / "bin", "ncu", "")
    assert find_profiler() == ncu
    for path in (ncu, nsys):
        path.unlink()
    monkeypatch.setattr(profiler.shutil, "which", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match="install nsight-compute"):
        find_profiler()


def test_the_examples_of_the_table_tool_hold() -> None:
    assert doctest.testmod(load_tool("kernel_table")) == (0, 1)
