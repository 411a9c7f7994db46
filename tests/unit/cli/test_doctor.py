"""The doctor: it tells what is there from what only seems to be, and survives whatever it finds."""

from __future__ import annotations

import io
import json
import shutil
import sys
from contextlib import redirect_stdout
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from types import SimpleNamespace

import onnx
import pytest

from plugins.driver import CudaGpu, Installed
from plugins.extras import TABLE
from sut.cli.doctor import gpus, seen
from sut.cli.doctor import installed as inventory
from sut.cli.doctor import report as doctor
from sut.cli.doctor.gpus import check_libraries, check_nvidia, look_through_libraries
from sut.cli.doctor.installed import (
    EXTRAS,
    Check,
    Status,
    check_cuda,
    check_gpu_packages,
    check_packages,
    check_tools,
    getting,
    gpu_build,
)
from sut.cli.doctor.report import check_cpu, check_names, check_providers
from sut.cli.emit import emit
from sut.errors import ExitCode
from tests.children import run_python
from tests.nvidia import CUDA, FIRST, SECOND, FakeNvml, answers
from tests.unit.process.test_cgroup import plant


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The distributions the doctor sees, all of the required ones at first."""
    versions = dict.fromkeys(inventory.PACKAGES, "1.2.3")

    def version(name: str) -> str:
        if name not in versions:
            raise PackageNotFoundError(name)
        return versions[name]

    monkeypatch.setattr(inventory, "version", version)
    return versions


def by_name(checks: list[Check]) -> dict[str, Check]:
    """The checks by their names."""
    return {check.name: check for check in checks}


@pytest.mark.parametrize(
    ("running", "status"),
    [((3, 10), "missing"), ((3, 11), "ok"), ((3, 13), "ok"), ((3, 14), "missing"), ((4, 0), "missing")],
)
def test_supported_pythons(running: tuple[int, int], status: str) -> None:
    check = doctor.check_python(running)

    assert check.status == status
    assert (check.hint == "install Python 3.11 to 3.13") == (status == "missing")


def test_every_package_by_its_version(installed: dict[str, str]) -> None:
    installed["numpy"] = "9.9"

    checks = check_packages()

    assert [check.name for check in checks] == [*inventory.PACKAGES, *inventory.OPTIONAL]
    assert {check.status for check in checks[: len(inventory.PACKAGES)]} == {"ok"}
    assert by_name(checks)["numpy"].found == "9.9"


def test_what_is_optional_says_what_it_is_for_and_is_no_fault(
    installed: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    installed["openvino"] = "2026.4"
    monkeypatch.setattr(inventory, "_import_troubles", lambda modules: {})

    checks = by_name(check_packages())

    said = "not installed; for: preprocessor fused"
    assert checks["numba"] == Check("packages", "numba", "absent", said, getting("numba"))
    assert checks["openvino"] == Check("packages", "openvino", "ok", "2026.4")


@pytest.mark.parametrize(("name", "extra"), [("simplejpeg", "opencv"), ("rich", None)])
def test_a_missing_package_comes_with_its_command(installed: dict[str, str], name: str, extra: str | None) -> None:
    del installed[name]

    check = by_name(check_packages())[name]

    assert check == Check("packages", name, "missing", "not installed", getting(extra))


def test_another_distribution_of_the_same_module_will_do(installed: dict[str, str]) -> None:
    for name, other in (("onnxruntime", "onnxruntime-gpu"), ("opencv-python-headless", "opencv-python")):
        del installed[name]
        installed[other] = "4.5"

    checks = by_name(check_packages())

    assert checks["onnxruntime"] == Check("packages", "onnxruntime", "ok", "onnxruntime-gpu 4.5")
    assert checks["opencv-python-headless"].found == "opencv-python 4.5"


def test_two_onnx_runtimes_exclude_each_other(installed: dict[str, str]) -> None:
    installed["onnxruntime-gpu"] = "1.0"

    check = check_packages()[-1]

    assert check.status == "warning"
    assert "pip uninstall -y onnxruntime onnxruntime-gpu" in check.hint


# A GPU and what it is used through

NO_DRIVER = "no NVIDIA driver (libcuda.so.1 does not load): install one, or start the container with --gpus all"


@pytest.fixture
def no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    """No CUDA toolkit beside the wheels."""
    monkeypatch.setattr(inventory, "_has_compiler", lambda cuda: False)


@pytest.mark.parametrize(
    ("driver", "expected", "row"),
    [
        (NO_DRIVER, False, None),
        (NO_DRIVER, True, ("warning", "cannot be used", NO_DRIVER)),
        (Installed(11, 4, 1), True, ("warning", "11.4, at least 12 is needed", "update the driver")),
        (Installed(13, 0, 0), False, ("absent", "13.0, but the driver shows no GPU", "")),
        (Installed(12, 8, 1), True, ("ok", f"12.8; its extra is {EXTRAS[12]}", "")),
        (Installed(13, 1, 2), True, ("ok", f"13.1; its extra is {EXTRAS[13]}", "")),
        (Installed(14, 0, 1), True, ("ok", f"14.0; its extra is {EXTRAS[13]}", "")),
    ],
)
def test_the_cuda_of_the_driver(driver: Installed | str, expected: bool, row: tuple[Status, str, str] | None) -> None:
    assert check_cuda(driver, expected) == ([Check("nvidia", "CUDA", *row)] if row else [])


@pytest.mark.parametrize("driver", [NO_DRIVER, Installed(13, 0, 0), Installed(11, 8, 1)])
def test_without_a_gpu_that_can_be_used_nothing_is_missed(installed: dict[str, str], driver: Installed | str) -> None:
    *checks, dali = check_gpu_packages(driver)

    assert {"cupy or pycuda", "nvidia-cuda-nvrtc", "nvimgcodec"} <= by_name(checks).keys()
    assert {(check.status, check.hint) for check in checks} == {("absent", getting(EXTRAS[13]))}
    assert (dali.name, dali.status, dali.hint) == ("nvidia-dali", "absent", getting("dali"))
    assert all(check.found.startswith("not installed; for: ") for check in (*checks, dali))


@pytest.mark.usefixtures("no_compiler")
@pytest.mark.parametrize(("cuda", "extra"), [(12, EXTRAS[12]), (13, EXTRAS[13]), (14, EXTRAS[13])])
def test_with_a_gpu_the_extra_of_its_cuda_is_named(installed: dict[str, str], cuda: int, extra: str) -> None:
    *checks, dali = check_gpu_packages(Installed(cuda, 0, 1))

    assert {(check.status, check.hint) for check in checks} == {("warning", getting(extra))}
    assert dali.status == "absent", "nvImageCodec does what it would"
    assert f"  {getting(extra)}" in shown(checks)


@pytest.mark.usefixtures("no_compiler")
@pytest.mark.parametrize(
    ("there", "cuda", "statuses"),
    [
        (("cupy-cuda13x", "nvidia-cuda-nvrtc", "nvidia-nvimgcodec-cu13", "nvidia-dali-cuda130"), 13, ["ok"] * 4),
        (("cupy-cuda12x", "nvidia-cuda-nvrtc-cu12", "nvidia-nvimgcodec-cu12", "nvidia-dali-cuda120"), 13, ["ok"] * 4),
        (
            ("cupy-cuda13x", "nvidia-cuda-nvrtc", "nvidia-nvimgcodec-cu13", "nvidia-dali-cuda130"),
            12,
            ["warning"] * 4,
        ),
        (("pycuda", "nvidia-cuda-nvrtc-cu12"), 12, ["ok", "ok", "warning", "absent"]),
    ],
)
def test_packages_of_a_newer_cuda_than_the_drivers_do_not_do(
    installed: dict[str, str], there: tuple[str, ...], cuda: int, statuses: list[str]
) -> None:
    installed.update(dict.fromkeys(there, "1.5"))

    # NVIDIA's own figures are for any driver.
    checks = [check for check in check_gpu_packages(Installed(cuda, 0, 1)) if check.name != "nvidia-ml-py"]

    assert [check.status for check in checks] == statuses
    newer = "; CUDA 12 is the newest that works here" if "warning" in statuses[:1] else ""
    assert checks[0].found == f"{there[0]} 1.5{newer}"
    dali = next(entry.extras[0] for entry in TABLE if entry.name == "nvidia-dali" and entry.extras[0].endswith("12"))
    extras = {12: [*3 * [EXTRAS[12]], dali]}.get(cuda, [])
    hints = [check.hint for check in checks]
    assert all(
        hint == ("" if status == "ok" else getting(extra))
        for hint, extra, status in zip(hints, extras, statuses, strict=False)
    )


@pytest.mark.usefixtures("no_compiler")
def test_a_gpu_that_cuda_13_has_no_code_for_takes_the_extra_of_12(installed: dict[str, str]) -> None:
    installed["cupy-cuda13x"] = "14.2"
    driver, gpus = Installed(13, 0, 2), [CudaGpu("a", (9, 0)), CudaGpu("b", (7, 0))]

    [row] = check_cuda(driver, True, gpus)
    cupy, nvrtc = check_gpu_packages(driver, gpus)[:2]

    assert row.found == f"13.0; its extra is {EXTRAS[12]}: newer ones have no code for sm_70"
    assert (cupy.status, cupy.hint) == ("warning", getting(EXTRAS[12]))
    assert cupy.found == "cupy-cuda13x 14.2; CUDA 12 is the newest that works here"
    assert (nvrtc.status, nvrtc.hint) == ("warning", getting(EXTRAS[12]))
    assert check_cuda(driver, True, [CudaGpu("c", (7, 5))])[0].found == f"13.0; its extra is {EXTRAS[13]}"


@pytest.mark.parametrize(("compiler", "status"), [(True, "absent"), (False, "warning")])
def test_a_toolkit_takes_the_place_of_nvrtc(
    installed: dict[str, str], monkeypatch: pytest.MonkeyPatch, compiler: bool, status: str
) -> None:
    monkeypatch.setattr(inventory, "_has_compiler", lambda cuda: compiler)

    assert by_name(check_gpu_packages(Installed(13, 0, 1)))["nvidia-cuda-nvrtc"].status == status


def test_compilers_are_looked_for_on_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiler = tmp_path / "g++"
    compiler.touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))

    found = by_name(check_tools())

    assert found["g++"] == Check("programs", "g++", "ok", str(compiler))
    assert found["nvcc"].status == "absent"
    assert found["nvcc"].found.startswith("not on PATH; for: ")


def test_memory_is_read_from_proc(tmp_path: Path) -> None:
    plant(tmp_path, {"proc/meminfo": "MemTotal:       16777216 kB\nMemAvailable:     524288 kB\n"})

    checks = by_name(doctor.check_memory(tmp_path))

    assert (checks["total"].found, checks["available"].found) == ("16.0 GiB", "512 MiB")
    assert checks["cgroup limit"].found == "none"


X86 = "processor : 0\nmodel name\t: Some CPU 5000\nflags\t\t: fpu avx2 amx_int8 avx512f avx\nprocessor : 1\n"
ARM = "processor : 0\nFeatures\t: fp asimd i8mm bf16\nCPU part\t: 0xd40\n"


@pytest.mark.parametrize(
    ("cpuinfo", "features", "status"),
    [(X86, "avx2 avx512f amx_int8", "ok"), (ARM, "asimd bf16 i8mm", "ok"), ("", "none of avx2", "absent")],
)
def test_the_features_that_matter(tmp_path: Path, cpuinfo: str, features: str, status: str) -> None:
    checks = by_name(check_cpu(plant(tmp_path, {"proc/cpuinfo": cpuinfo})))

    assert checks["features"].found.startswith(features)
    assert checks["features"].status == status
    assert checks["model"].found == "Some CPU 5000" or cpuinfo != X86


def test_energy_counters_that_may_not_be_read_are_told(tmp_path: Path) -> None:
    def check() -> Check:
        return by_name(check_cpu(tmp_path))["energy counters"]

    assert (check().status, check().found, check().hint) == ("absent", "none", "")
    package = "sys/class/powercap/intel-rapl:0"
    plant(tmp_path, {f"{package}/energy_uj": "", f"{package}/name": "package-0\n"})
    assert (check().status, check().found) == ("absent", "none that may be read") and "as root" in check().hint
    plant(tmp_path, {f"{package}/energy_uj": "5\n", f"{package}/max_energy_range_uj": "9\n"})
    assert (check().status, check().found) == ("ok", "of 1 package")
    plant(tmp_path, {f"{package[:-1]}1/energy_uj": "", f"{package[:-1]}1/name": "package-1\n"})
    assert check().status == "absent" and check().found.startswith("the counter of intel-rapl:1 cannot be read")


def test_cores_by_threads_affinity_and_quota(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    siblings = {
        f"sys/devices/system/cpu/cpu{i}/topology/thread_siblings_list": f"{i % 4},{i % 4 + 4}" for i in range(8)
    }
    plant(tmp_path, siblings)
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {1, 2, 3}, raising=False)

    checks = by_name(check_cpu(tmp_path))

    assert checks["logical cores"].found == "8"
    assert checks["physical cores"].found == "4"
    assert checks["usable cores"] == Check("cpu", "usable cores", "ok", "3")

    plant(tmp_path, {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "150000 100000\n"})
    quota = by_name(check_cpu(tmp_path))["usable cores"]

    assert quota.status == "warning"
    assert quota.found == "1.5 by the cgroup's quota, 3 by affinity"
    assert "--threads 1" in quota.hint


def test_caches_and_clocks_of_a_core_we_may_run_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {3}, raising=False)
    core = "sys/devices/system/cpu/cpu3"
    cache = {
        f"{core}/cache/index0/{name}": text for name, text in (("level", "2"), ("type", "Unified"), ("size", "2048K"))
    }
    clocks = {f"{core}/cpufreq/scaling_governor": "powersave\n", f"{core}/cpufreq/cpuinfo_max_freq": "3700000\n"}

    checks = by_name(check_cpu(plant(tmp_path, cache | clocks)))

    told = {name: checks[name].found for name in ("caches", "governor", "highest frequency", "sockets")}
    assert told == {
        "caches": "L2 2,048 KiB",
        "governor": "powersave",
        "highest frequency": "3,700 MHz",
        "sockets": "unknown",
    }
    assert (checks["governor"].status, checks["sockets"].status) == ("ok", "absent")


def test_the_tiny_model_is_a_model() -> None:
    model = onnx.load_from_string(doctor.TINY_MODEL)
    onnx.checker.check_model(model, full_check=True)

    assert [node.op_type for node in model.graph.node] == ["Add"]


def test_only_providers_that_do_the_work_are_ok() -> None:
    checks = by_name(check_providers(None))

    assert checks["CPUExecutionProvider"].status == "ok"
    if "AzureExecutionProvider" in checks:
        assert checks["AzureExecutionProvider"].found == "loads, but leaves the work to the CPU"


TRY_ALL = """
import json, os, sys, time
print("a library prints this")
for name in ("Bad", "CUDAExecutionProvider", "CPUExecutionProvider"):
    if name not in sys.argv[2:]:
        print(json.dumps({"provider": name, "trouble": None}), flush=True)
        trouble = ""
        if name == "Bad": ENDING
        if name == "CUDAExecutionProvider": trouble = "fails: no libcudnn"
        print(json.dumps({"provider": name, "trouble": trouble}), flush=True)
"""


def test_what_lies_in_the_users_folder_is_not_taken_for_a_runtime(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "onnxruntime.py").write_text("raise SystemExit('not the runtime')")
    monkeypatch.chdir(tmp_path)

    assert "not the runtime" not in str(check_providers(None))


@pytest.mark.parametrize(
    ("ending", "found"),
    [
        ("os.abort()", "crashes (SIGABRT)"),
        ("os._exit(0)", "ends the process"),
        ("sys.exit('out of memory')", "fails: out of memory"),
        ("time.sleep(60)", "no answer within 2 s"),
    ],
)
def test_a_provider_that_takes_its_process_down(monkeypatch: pytest.MonkeyPatch, ending: str, found: str) -> None:
    monkeypatch.setattr(doctor, "PROBE", TRY_ALL.replace("ENDING", ending))
    monkeypatch.setattr(doctor, "PROBE_LIMIT_S", 2.0 if "sleep" in ending else 60.0)

    checks = check_providers(13)

    assert checks == [
        Check("providers", "Bad", "absent", found),
        Check(
            "providers",
            "CUDAExecutionProvider",
            "warning",
            "fails: no libcudnn",
            f"pip uninstall -y onnxruntime; {gpu_build('onnxruntime', 13)}",
        ),
        Check("providers", "CPUExecutionProvider", "ok", "works"),
    ]


def test_without_a_gpu_a_dead_cuda_provider_is_no_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "PROBE", TRY_ALL.replace("ENDING", "pass"))

    assert by_name(check_providers(None))["CUDAExecutionProvider"].status == "absent"


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("ImportError('libfoo.so.1: cannot open')", "ImportError: libfoo.so.1: cannot open"),
        ("SystemExit(7)", "exit code 7, and not a word"),
    ],
)
def test_a_runtime_that_cannot_be_imported_is_missing(monkeypatch: pytest.MonkeyPatch, fault: str, said: str) -> None:
    monkeypatch.setattr(doctor, "PROBE", f"raise {fault}")

    (check,) = check_providers(None)

    assert (check.name, check.status) == ("onnxruntime", "missing")
    assert check.found == f"fails: {said}"


def test_a_crash_after_all_is_tried_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "PROBE", TRY_ALL.replace("ENDING", "pass") + "os.abort()\n")

    checks = by_name(check_providers(None))

    assert checks["CPUExecutionProvider"].status == "ok"
    assert (checks["onnxruntime"].status, checks["onnxruntime"].found) == ("warning", "crashes (SIGABRT)")


def test_no_runtime_no_providers(installed: dict[str, str]) -> None:
    del installed["onnxruntime"]

    assert check_providers(None) == []


CLOSED = (
    "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19 01:15:15 UTC 2023\nGCC version: 11.4.0\n"
)
OPEN = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.82  Release Build  (root@x)\n"


@pytest.mark.parametrize(("text", "number"), [(CLOSED, "535.104.05"), (OPEN, "580.82")])
def test_the_driver_by_proc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, number: str) -> None:
    monkeypatch.setenv("PATH", "")
    plant(tmp_path, {"proc/driver/nvidia/version": text})

    assert check_nvidia(tmp_path, []) == [
        Check("nvidia", "driver", "ok", number),
        Check("nvidia", "devices", "absent", "none"),
    ]

    plant(tmp_path, {"proc/driver/nvidia/gpus/0000:01:00.0/information": "Model: \t\t NVIDIA H200\nIRQ: 1\n"})

    assert check_nvidia(tmp_path, [])[1] == Check("nvidia", "GPU", "ok", "NVIDIA H200")


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        (
            "echo '0, NVIDIA H200, 143771, 580.82.07'; echo '1, NVIDIA H200, [N/A], 580.82.07'",
            ["580.82.07", "NVIDIA H200, 143771 MiB", "NVIDIA H200, [N/A] MiB"],
        ),
        (
            "echo 'NVIDIA-SMI has failed because it could not talk to the driver'; exit 9",
            ["no NVIDIA driver found"],
        ),
        ("echo 'No devices were found'", ["no NVIDIA driver found"]),
    ],
)
def test_devices_by_nvidia_smi(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, expected: list[str]
) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\n{script}\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))

    assert [check.found for check in check_nvidia(tmp_path, [])] == expected


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> FakeNvml:
    fake = FakeNvml()
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return fake


def test_gpus_by_cudas_numbers_with_all_that_nvml_tells(nvml: FakeNvml, tmp_path: Path) -> None:
    nvml.answers[f"GPU-{FIRST}"] = answers(used=3 * 2**30, CurrentClocksEventReasons=0x40)
    nvml.answers[f"GPU-{SECOND}"] = {"Name": "Fake 75", "JpgUtilization": (0, 0)}

    rows = check_nvidia(tmp_path, CUDA)

    assert [(row.name, row.status, row.found) for row in rows] == [
        ("driver", "ok", "580.1"),
        ("cuda:0", "ok", "Fake 90, sm_90"),
        ("cuda:0 memory", "warning", "16.0 GiB, 3.0 in use"),
        ("cuda:0 clocks", "ok", "SM 1,410 of 1,980 MHz, memory 2,619 of 2,619 MHz"),
        ("cuda:0 power", "ok", "70 of 700 W, 31 °C"),
        ("cuda:0 throttling", "warning", "hw_thermal_slowdown"),
        ("cuda:0 JPEG engines", "absent", "unknown"),
        ("cuda:1", "ok", "Fake 75, sm_75"),
        *[(f"cuda:1 {what}", "absent", "unknown") for what in ("memory", "clocks", "power", "throttling")],
        ("cuda:1 JPEG engines", "ok", "yes; nvjpeg counts them"),
    ]
    assert [row.name for row in rows if row.hint] == ["cuda:0 memory", "cuda:0 throttling"]
    assert nvml.open == 0


def test_a_gpu_that_cuda_does_not_show_is_told(nvml: FakeNvml, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def hidden(*shown: CudaGpu) -> list[str]:
        return sorted(row.found for row in check_nvidia(tmp_path, shown) if row.name == "GPU")

    assert hidden(*CUDA) == []
    assert hidden() == ["Fake 75: CUDA does not show it", "Fake 90: CUDA does not show it"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert hidden(CUDA[0]) == ["Fake 75: hidden by CUDA_VISIBLE_DEVICES=1"]

    nvml.answers = {f"MIG-{FIRST}": {"Name": "Fake MIG", "DeviceHandleFromMigDeviceHandle": f"GPU-{SECOND}"}}
    nvml.answers[f"GPU-{SECOND}"] = answers("Fake 75", MigMode=(1, 1))
    assert hidden(CUDA[0]) == ["Fake 75: MIG divides it"]
    assert by_name(check_nvidia(tmp_path, CUDA[:1]))["cuda:0 MIG"].found == "one part of a GPU that is divided"


def test_a_gpu_that_nvml_does_not_know(nvml: FakeNvml, tmp_path: Path) -> None:
    stranger = CudaGpu("e", (9, 0))

    assert by_name(check_nvidia(tmp_path, [stranger]))["cuda:0"] == Check(
        "nvidia", "cuda:0", "warning", "NVML does not know its UUID, e"
    )


def test_no_nvidia_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")

    assert [check.status for check in check_nvidia(tmp_path, [])] == ["absent"]
    device = "sys/bus/pci/devices/0000:01:00.0"
    plant(tmp_path, {f"{device}/vendor": "0x10de\n", f"{device}/class": "0x020000\n"})
    assert [check.status for check in check_nvidia(tmp_path, [])] == ["absent"], "no GPU, but a network card"
    plant(tmp_path, {f"{device}/class": "0x030200\n"})
    [row] = check_nvidia(tmp_path, [])
    assert (row.status, row.found) == ("warning", "no NVIDIA driver found, but a GPU is there")


# What libraries see


def test_without_a_gpu_no_library_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpus, "_ask", None)

    assert look_through_libraries(NO_DRIVER) == look_through_libraries(Installed(13, 0, 0)) == {}
    assert check_libraries(NO_DRIVER, [], {}) == []


TALKS = """
import os, sys, time
print("a library prints this", flush=True)
if sys.argv[1] == "cudnn": os.abort()
if sys.argv[1] == "nvjpeg": time.sleep(60)
if sys.argv[1] == "torch": os._exit(3)
print('{"library": "cupy", "gpus": 2, "words": "14.2"}')
"""


def test_a_library_that_takes_its_process_down_ends_only_that(
    installed: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed.update({"cupy-cuda13x": "14.2", "torch": "2.13"})
    program = tmp_path / "seen.py"
    program.write_text(TALKS)
    monkeypatch.setattr(seen, "__file__", str(program))
    monkeypatch.setattr(gpus, "_LIMIT_S", 5.0)

    assert look_through_libraries(Installed(13, 0, 2)) == {
        "cupy": {"library": "cupy", "gpus": 2, "words": "14.2"},
        "torch": {"trouble": "ends the process (3)"},
        "cudnn": {"trouble": "crashes (SIGABRT)"},
        "nvjpeg": {"trouble": "no answer within 5 s"},
    }


@pytest.mark.parametrize(
    ("name", "said", "row"),
    [
        ("cupy", {"gpus": 2, "words": "14.2"}, ("ok", "sees 2 of 2 GPUs; 14.2", "")),
        ("cupy", {"trouble": "CUDARuntimeError: no"}, ("warning", "CUDARuntimeError: no", "")),
        ("nvimgcodec", {"gpus": None, "words": "0.9"}, ("ok", "0.9", "")),
        ("torch", {"gpus": 0, "words": "CPU"}, ("warning", "sees 0 of 2 GPUs; CPU", gpu_build("torch", 13))),
        (
            "torch",
            {"gpus": 2, "words": "it has no code for sm_70"},
            ("warning", "sees 2 of 2 GPUs; it has no code for sm_70", gpu_build("torch", 13)),
        ),
        ("nvjpeg", {"trouble": "OSError: x"}, ("absent", "OSError: x", getting(EXTRAS[13]))),
        ("cudnn", {"trouble": "OSError: x"}, ("absent", "OSError: x", "pip install nvidia-cudnn-cu13")),
    ],
)
def test_what_a_library_sees(
    installed: dict[str, str], name: str, said: dict[str, object], row: tuple[Status, str, str]
) -> None:
    assert check_libraries(Installed(13, 0, 2), CUDA, {name: said}) == [Check("libraries", name, *row)]


def test_onnx_runtime_on_a_gpu_misses_cudnn(installed: dict[str, str]) -> None:
    installed["onnxruntime-gpu"] = "1.31"

    [row] = check_libraries(Installed(12, 4, 1), [], {"cudnn": {"trouble": "OSError: x"}})

    assert (row.status, row.hint) == ("warning", "pip install nvidia-cudnn-cu12")


def test_with_a_gpu_a_build_of_onnx_runtime_without_cuda_is_told() -> None:
    row = by_name(check_providers(13))["CUDAExecutionProvider"]

    assert (row.status, row.found) == ("warning", "this build has none")
    assert row.hint == f"pip uninstall -y onnxruntime; {gpu_build('onnxruntime', 13)}"


def test_another_package_with_one_of_our_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The last is what a program of that name is, such as our own script beside Python.
    plant(tmp_path, {"site/kernels/__init__.py": "", "site/sut.py": "", "site/backends/data.txt": "", "bin/sut": ""})
    monkeypatch.setattr(doctor, "packages_distributions", lambda: {"kernels": ["hf-kernels", "hf-kernels"]})

    checks = check_names([str(doctor.CHECKOUT), *(str(tmp_path / name) for name in ("bin", "site", "none"))])

    assert [(check.name, check.status) for check in checks] == [("sut", "warning"), ("kernels", "warning")]
    assert checks[0].found == f"also at {tmp_path}/site/sut.py"
    assert checks[1].found == f"also at {tmp_path}/site/kernels (hf-kernels)"


def test_our_own_checkout_is_no_clash(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(doctor.CHECKOUT)

    assert [check.status for check in check_names(["", str(doctor.CHECKOUT)])] == ["ok"]


def test_where_it_is_installed_another_distribution_may_have_written_into_its_folders(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    owners = {"kernels": ["loadgen-vision-sut", "hf-kernels"], "sut": ["loadgen-vision-sut"]}
    monkeypatch.setattr(doctor, "packages_distributions", lambda: owners)
    monkeypatch.setattr(doctor, "IS_CHECKOUT", False)

    [check] = check_names([str(doctor.CHECKOUT)])

    found = f"also at {doctor.CHECKOUT}/kernels (loadgen-vision-sut, hf-kernels)"
    assert (check.name, check.status, check.found) == ("kernels", "warning", found)


def test_where_it_is_installed_what_is_missing_is_got_by_its_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inventory, "IS_CHECKOUT", False)

    assert getting("numba") == f"{sys.executable} -m pip install 'numba>=0.68,<0.69'"


def test_little_disk_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SUT_CACHE_DIR", str(tmp_path / "cache"))
    plant(tmp_path, {"cache/a/b.onnx": "x" * 2**20})
    for free, status in ((doctor.LOW_DISK_BYTES, "ok"), (doctor.LOW_DISK_BYTES - 1, "warning")):
        monkeypatch.setattr(shutil, "disk_usage", lambda _, free=free: SimpleNamespace(free=free))

        here, cache = doctor.check_disk()

        assert here.status == status
        assert cache == Check("disk", "model cache", "ok", f"1 MiB in {tmp_path}/cache")


def shown(checks: list[Check]) -> list[str]:
    """The lines printed where there is no terminal, in 80 columns."""
    with redirect_stdout(io.StringIO()) as text:
        emit("doctor", [], doctor.table(checks), as_json=False)
    return text.getvalue().splitlines()


def test_hints_are_whole_lines_below_the_table() -> None:
    long = f"free some space in {'/very/long/path' * 8}"
    lines = shown(
        [
            Check("packages", "numpy", "missing", "not installed", getting(None)),
            Check("packages", "rich", "missing", "not installed", getting(None)),
            Check("packages", "numba", "absent", "not installed", getting("numba")),
            Check("python", "python", "missing", "3.9", "install Python 3.11 to 3.13"),
            Check("disk", "free [here]", "warning", "1 MiB", long),
            Check("nvidia", "driver", "absent", "none"),
        ]
    )

    assert lines.count(f"  {getting(None)}") == 1
    assert lines.index("To get what is optional (./run_local.sh sets up what its words ask for):") == len(lines) - 2
    assert lines[-1] == f"  {getting('numba')}"
    assert "  install Python 3.11 to 3.13" in lines
    assert f"  {long}" in lines
    assert any("free [here]" in line for line in lines)


def test_the_table_fits_80_columns_and_cuts_nothing() -> None:
    checks = doctor.examine()
    lines = shown(checks)
    text = "".join("".join(lines).split())

    assert max(len(line) for line in lines) <= 80
    assert "…" not in text
    for check in checks:
        assert check.name in "\n".join(lines)


@pytest.mark.parametrize(
    ("statuses", "code"),
    [(["ok", "absent", "warning"], ExitCode.OK), (["ok", "missing"], ExitCode.SETUP), ([], ExitCode.OK)],
)
def test_only_what_is_required_changes_the_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], statuses: list[Status], code: ExitCode
) -> None:
    monkeypatch.setattr(doctor, "examine", lambda: [Check("g", "n", status, "f", "h") for status in statuses])

    assert doctor.command(json=False) is code
    capsys.readouterr()
    assert doctor.command(json=True) is code
    assert json.loads(capsys.readouterr().out) == {
        "schema": 1,
        "command": "doctor",
        "rows": [{"group": "g", "name": "n", "status": status, "found": "f", "hint": "h"} for status in statuses],
    }


def test_it_needs_no_package_but_rich() -> None:
    blocked = ["numpy", "cv2", "onnx", "onnxruntime", "pydantic", "yaml", "simplejpeg", "mlperf_loadgen", "typer"]
    script = (
        f"import sys; sys.modules.update(dict.fromkeys({blocked}))\n"
        "from sut.cli.doctor import report, installed\n"
        "installed.version = lambda name: (_ for _ in ()).throw(installed.PackageNotFoundError(name))\n"
        "sys.exit(report.command(json=False))"
    )

    done = run_python("-c", script, cwd=doctor.CHECKOUT)

    assert done.code == ExitCode.SETUP, done.err
    assert "pip install -e" in done.out
