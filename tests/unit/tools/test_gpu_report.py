"""The GPU report without a GPU: each part fails alone, and the page says why."""

from __future__ import annotations

import doctest
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, nullcontext
from dataclasses import make_dataclass
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from kernels import gpu
from preprocess import registry
from preprocess.cuda import BY_CPU
from preprocess.opencv import OpenCV
from preprocess.parts.jpeg import read_frame
from sut.models.registry import find
from sut.qsl import device_library
from sut.results import parity
from tests.children import CHECKOUT, load_tool, python_started
from tests.unit.device_form import PLACE, HostForm, Uploading, WatchedDevice

TOOLS = CHECKOUT / "tools"


@pytest.fixture(scope="module")
def report() -> ModuleType:
    return load_tool("gpu_report")


@pytest.fixture(scope="module")
def parts(report: ModuleType) -> ModuleType:
    return sys.modules["gpu_parts"]


@pytest.fixture(scope="module")
def preprocessing(report: ModuleType) -> ModuleType:
    return sys.modules["gpu_preprocess"]


@pytest.fixture(scope="module")
def rightness(report: ModuleType) -> ModuleType:
    return sys.modules["gpu_rightness"]


@pytest.fixture(scope="module")
def targets(report: ModuleType) -> ModuleType:
    return sys.modules[report.targets.__module__]


@pytest.mark.parametrize("name", ["report", "preprocessing", "targets"])
def test_its_examples_hold(request: pytest.FixtureRequest, name: str) -> None:
    found = doctest.testmod(request.getfixturevalue(name))
    assert found.failed == 0
    assert found.attempted > 0


def test_the_page_lists_what_was_found(report: ModuleType) -> None:
    parts = {
        "gpu": {"ok": True, "found": {"gpus": [{"name": "X"}]}},
        "doctor": {"ok": True, "found": {"rows": [{"name": "numpy", "status": "ok", "found": "2.4"}]}},
    }

    page = report.markdown({"made": "now", "parts": parts, "targets": report.judged(parts)})

    assert '- gpus: `[{"name": "X"}]`' in page
    assert "- numpy: ok, 2.4" in page
    assert page.index("## Targets") < page.index("## gpu")
    assert page.count("| not measured |") == len(report.judged(parts)) > 0


@pytest.mark.parametrize("part", ["imports", "doctor"])
def test_parts_that_need_no_gpu_run_here(report: ModuleType, part: str) -> None:
    found = report.run_part(part)

    assert found["ok"], found
    assert json.dumps(found)


def test_a_part_that_fails_says_why(report: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    broken = tmp_path / "gpu_report.py"
    broken.write_text("import sys; print('no json'); sys.exit(7)")
    monkeypatch.setattr(report, "__file__", str(broken))

    found = report.run_part("imports")

    assert (found["ok"], "ended with 7" in found["why"]) == (False, True)


def test_a_machine_without_a_gpu_is_refused(
    report: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(report, "run_part", lambda name: {"ok": False, "why": "no such program"})

    assert report.main([str(tmp_path / "out")]) == 2
    assert "error: no NVIDIA GPU here" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_part_that_takes_too_long_is_ended_with_all_it_started(
    report: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # It starts another that holds a pipe of this test, writes to it, and waits; then both must go.
    ours, theirs = os.pipe()
    child = f"import os, time; os.write({theirs}, b'x'); time.sleep(600)"
    slow = tmp_path / "gpu_report.py"
    slow.write_text(
        f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {child!r}], pass_fds=[{theirs}], check=True)\n"
    )
    monkeypatch.setattr(report, "__file__", str(slow))
    popen = subprocess.Popen

    def passing(*arguments: Any, **options: Any) -> Any:
        process = popen(*arguments, **options, pass_fds=[theirs])
        os.close(theirs)
        assert os.read(ours, 1) == b"x"
        return process

    monkeypatch.setattr(report.subprocess, "Popen", passing)
    monkeypatch.setattr(report, "PART_LIMIT_S", 0.1)

    assert report.run_part("imports") == {"ok": False, "why": "no end after 0.1 s"}
    assert os.read(ours, 1) == b"", "somebody still holds the pipe"
    os.close(ours)


@pytest.mark.parametrize(("ended_by", "code"), [(signal.SIGTERM, 130), (signal.SIGKILL, -signal.SIGKILL)])
def test_a_report_that_is_ended_leaves_no_part_behind(tmp_path: Path, ended_by: signal.Signals, code: int) -> None:
    # The first part asks nvidia-smi, which here tells who runs it and waits.
    asked, program = tmp_path / "asked", tmp_path / "nvidia-smi"
    os.mkfifo(asked)
    program.write_text(f"#!/bin/sh\necho $PPID $$ > {asked}\nexec sleep 600\n")
    program.chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    with python_started(TOOLS / "gpu_report.py", tmp_path / "out", cwd=tmp_path, PATH=path) as report:
        part, waiting = map(int, asked.read_text().split())
        report.signal(ended_by)

        assert report.process.wait(60) == code
        deadline = time.monotonic() + 60
        while part in (left := report.processes()) or (ended_by == signal.SIGTERM and waiting in left):
            assert time.monotonic() < deadline, "the part outlives the report"
            time.sleep(0.02)


def test_why_cuda_failed_is_said_by_onnx_runtime_itself(parts: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    class Session:
        def __init__(self, path: str, providers: list[str], enable_fallback: int = 1) -> None:
            if not enable_fallback:
                raise RuntimeError("libcudnn.so.9: cannot open shared object file")

        def get_providers(self) -> list[str]:
            return ["CPUExecutionProvider"]

    ort = ModuleType("onnxruntime")
    vars(ort).update(
        __version__="1.31.1", InferenceSession=Session, get_available_providers=lambda: ["CUDAExecutionProvider"]
    )
    monkeypatch.setitem(sys.modules, "onnxruntime", ort)
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.setattr("sut.models.registry.find", lambda name: SimpleNamespace(build=lambda weights, say: Path()))

    with pytest.raises(RuntimeError, match=r"^libcudnn\.so\.9: cannot open shared object file$"):
        parts.onnxruntime_cuda()


FINE = {"cases": 1, "wrong": [], "exit_code": 0}


def test_with_a_gpu_every_part_is_in_the_report(
    report: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(report, "run_part", lambda name: {"ok": name != "doctor", "why": "no", "found": FINE})

    assert report.main([str(tmp_path / "out")]) == 3
    assert capsys.readouterr().err.splitlines()[-1] == "error: doctor: no"
    written = json.loads((tmp_path / "out" / "report.json").read_text())
    assert list(written["parts"]) == list(report.PARTS)
    assert written["targets"][0]["verdict"] == "met"
    assert "Did not run: no" in (tmp_path / "out" / "report.md").read_text()


def test_parts_can_be_run_one_after_the_other(
    report: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gpu = ["first"]
    ran: list[str] = []

    def run_part(name: str) -> dict[str, Any]:
        ran.append(name)
        return {"ok": True, "found": {"name": gpu[0]} if name == "gpu" else {**FINE, "order": len(ran)}}

    monkeypatch.setattr(report, "run_part", run_part)

    def parts(*names: str) -> list[tuple[str, int | None]]:
        assert report.main([str(tmp_path), *names]) == 0
        written = json.loads((tmp_path / "report.json").read_text())["parts"]
        return [(name, part["found"].get("order")) for name, part in written.items()]

    assert parts("parity", "kernels_check") == [("gpu", None), ("kernels_check", 3), ("parity", 2)]
    assert parts("imports", "parity") == [("gpu", None), ("imports", 5), ("kernels_check", 3), ("parity", 6)]
    gpu[0] = "second"
    assert parts("doctor") == [("gpu", None), ("doctor", 8)], "another GPU's parts are not kept"

    assert report.main([str(tmp_path), "parities"]) == 1
    assert "error: no part 'parities', expected some of gpu, doctor," in capsys.readouterr().err


@pytest.mark.parametrize(
    ("found", "code", "said"),
    [
        ({"cases": 2, "wrong": [], "exit_code": 0}, 0, []),
        (
            {"cases": 2, "wrong": [{"kernel": "a"}], "exit_code": 3},
            3,
            [
                "error: kernels_check: 1 wrong of 2",
                "error: share of the kernels' cases equal to the oracle, to the bit: 0.5, expected at least 1",
            ],
        ),
        ({"cases": 0, "wrong": [], "exit_code": 0}, 3, ["error: kernels_check: ended with 0, 0 cases"]),
        ({"cases": 2, "wrong": [], "exit_code": 2}, 3, ["error: kernels_check: ended with 2, 2 cases"]),
    ],
)
def test_kernels_that_are_not_all_equal_fail_the_report(
    report: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    found: dict[str, Any],
    code: int,
    said: list[str],
) -> None:
    parts = {name: {"a": 1} for name in report.PARTS} | {"kernels_check": found}
    monkeypatch.setattr(report, "run_part", lambda name: {"ok": True, "found": parts[name]})

    assert report.main([str(tmp_path)]) == code
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert errors == said


@pytest.mark.parametrize(
    ("part", "missing", "code", "shown"),
    [
        ("kernels_profile", True, 0, "Not installed: no such thing"),
        ("onnxruntime_cuda", True, 0, "Not installed: no such thing"),
        ("kernels_profile", False, 3, "Did not run: no such thing"),
        ("kernels_bench", True, 3, "Did not run: no such thing"),
    ],
)
def test_what_is_there_only_to_compare_with_may_be_missing(
    report: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    part: str,
    missing: bool,
    code: int,
    shown: str,
) -> None:
    bad = {"ok": False, "why": "no such thing", "not_installed": missing}
    monkeypatch.setattr(report, "run_part", lambda name: bad if name == part else {"ok": True, "found": FINE})

    assert report.main([str(tmp_path)]) == code
    assert shown in (tmp_path / "report.md").read_text()
    assert (f"not installed: {part}: no such thing" in capsys.readouterr().err) == (code == 0)


@pytest.mark.parametrize(("error", "missing"), [(ModuleNotFoundError("no ncu"), True), (RuntimeError("bad"), False)])
def test_a_part_says_whether_something_is_not_installed(
    report: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: Exception,
    missing: bool,
) -> None:
    def part() -> None:
        raise error

    monkeypatch.setitem(report.PARTS, "imports", part)
    assert report.main(["--part", "imports"]) == 0
    assert json.loads(capsys.readouterr().out)["not_installed"] == missing


@pytest.mark.parametrize(("code", "kind"), [(2, ModuleNotFoundError), (3, RuntimeError)])
def test_a_command_without_rows_is_an_error(
    parts: ModuleType, monkeypatch: pytest.MonkeyPatch, code: int, kind: type[Exception]
) -> None:
    done = SimpleNamespace(returncode=code, stdout="", stderr="error: no ncu")
    monkeypatch.setattr(parts.subprocess, "run", lambda *given, **options: done)
    with pytest.raises(kind, match=f"sut kernels profile ended with {code}: error: no ncu"):
        parts.kernels_profile()


# Parity


def parity_rows(name: str, same: int = 98) -> list[dict[str, Any]]:
    return [
        {
            "preprocess": name,
            "pictures": pictures,
            "parity": {"pictures": 99, "max_levels": 2},
            "labels_same": labels and same,
            "labels": labels,
        }
        for pictures, labels in (("noise", None), ("crops", 99))
    ]


def same_rows(name: str, levels: int = 1) -> list[dict[str, Any]]:
    return [{"preprocess": name, "recipe": "resnet50", "pictures": 33, "max_levels": levels}]


def test_parity_is_measured_one_by_one_and_what_fails_leaves_the_others(
    report: ModuleType, parts: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def sut(*arguments: str) -> Any:
        asked.append(arguments)
        name = arguments[-1]
        if name == "dali-gpu":
            raise ModuleNotFoundError("no DALI")
        if name == "dali-gpu-resize":
            raise RuntimeError("sut parity ended\nwith 3")
        return 0, parity_rows(name), ""

    monkeypatch.setattr(parts, "_sut", sut)
    monkeypatch.setattr(parts, "same_pixels", same_rows)

    found = parts.parity()

    assert asked == [("parity", "--preprocess", name) for name in ("cuda", "dali-gpu", "dali-gpu-resize")]
    assert found["measured"] == parity_rows("cuda")
    assert found["same_pixels"] == same_rows("cuda")
    assert found["not_installed"] == {"dali-gpu": "ModuleNotFoundError: no DALI"}
    assert found["wrong"] == [{"preprocess": "dali-gpu-resize", "why": "RuntimeError: sut parity ended with 3"}]
    assert [row["labels"] for row in found["table"]] == [None, "98 of 99 the same", None]
    assert [row["max_levels"] for row in found["table"]] == [2, 2, 1]
    assert report.failed({"parity": {"ok": True, "found": found}}) == {
        "parity": "1 wrong, the first: RuntimeError: sut parity ended with 3"
    }


def test_cuda_that_is_not_installed_is_wrong(parts: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    def sut(*arguments: str) -> Any:
        raise ModuleNotFoundError("nothing here")

    monkeypatch.setattr(parts, "_sut", sut)
    found = parts.parity()
    assert [each["preprocess"] for each in found["wrong"]] == ["cuda"]
    assert set(found["not_installed"]) == {"dali-gpu", "dali-gpu-resize"}


# Targets


def bench_row(
    group: str, kernel: str, share: float | None = None, wall_ms: float | None = 1.0, **more: Any
) -> dict[str, Any]:
    return {"group": group, "kernel": kernel, "share_of_copy": share, "wall_ms": wall_ms, **more}


HOT = "32 pictures to float32 NCHW 224"
BENCH = [
    bench_row("copy", "device to device", 1.0),
    bench_row("transpose 8192 x 8192 float32", "naive", 0.2),
    bench_row("transpose 8192 x 8192 float32", "tiled", 0.95),
    bench_row("256 pictures to NHWC uint8", "tiled", 0.91),
    bench_row(HOT, "tiled", 0.3, 2.0),
    bench_row(HOT, "fused", 0.75, 0.5),
    bench_row(HOT, "a library", None, 4.0),
    bench_row(HOT, "another", None, 2.0),
    bench_row(HOT, "one that failed", None, None),
]


def rate_row(decoders: str, rate: float, of_sum: float | None = None, to: str = "cuda:0") -> dict[str, Any]:
    return {
        "preprocess": "cuda",
        "decoders": decoders,
        "to": to,
        "lanes": 1,
        "pictures_per_second": rate,
        "of_sum": of_sum,
        "each": {"x": 1} if ", " in decoders else None,
    }


RATES = [
    rate_row("CPU", 50_000, to="host"),
    rate_row("JPEG engine", 12_000),
    rate_row("JPEG engine and nvJPEG", 15_000, 0.99),
    rate_row("JPEG engine, nvJPEG, CPU", 21_000, 0.85),
    rate_row("JPEG engine, nvJPEG, CPU", 20_500, 0.92),
]
ALL_FOUND = {
    "kernels_check": {"cases": 5, "wrong": []},
    "parity": {"measured": parity_rows("cuda", 99), "same_pixels": [*same_rows("cuda"), *same_rows("dali-gpu", 0)]},
    "kernels_bench": {"table": BENCH},
    "preprocess": {"table": RATES},
}


def test_every_figure_is_judged(targets: ModuleType) -> None:
    found = targets.targets(ALL_FOUND)

    assert [(each.kind, each.measured, each.verdict) for each in found] == [
        ("result", 1, "met"),
        ("result", 1, "met"),
        ("result", 0, "met"),
        ("result", 1, "met"),
        ("speed", 0.91, "met"),
        ("speed", 0.75, "met"),
        ("speed", 4, "met"),
        ("speed", 21_000, "met"),
        ("speed", 0.92, "met"),
    ]
    assert found[4].of == "256 pictures to NHWC uint8"
    assert found[6].of == "the fastest: another"
    assert [each.verdict for each in targets.targets({})] == ["not measured"] * len(found)


@pytest.mark.parametrize(
    ("position", "part", "worse"),
    [
        (0, "kernels_check", {"cases": 5, "wrong": [{}]}),
        (1, "parity", {"same_pixels": [*same_rows("cuda"), *same_rows("cuda", 2)]}),
        (2, "parity", {"same_pixels": same_rows("dali-gpu", 3)}),
        (3, "parity", {"measured": parity_rows("cuda", 98)}),
        (4, "kernels_bench", {"table": [*BENCH, bench_row("transpose 8192 x 8192 uint8", "tiled", 0.89)]}),
        (5, "kernels_bench", {"table": [bench_row(HOT, "fused", 0.69)]}),
        (6, "kernels_bench", {"table": [*BENCH, bench_row(HOT, "a fast one", None, 1.4)]}),
        (7, "preprocess", {"table": [rate_row("nvJPEG", 19_999)]}),
        (8, "preprocess", {"table": [rate_row("JPEG engine, nvJPEG, CPU", 30_000, 0.89)]}),
    ],
)
def test_a_figure_that_is_worse_is_not_met(
    report: ModuleType,
    targets: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    position: int,
    part: str,
    worse: dict[str, Any],
) -> None:
    found = {**ALL_FOUND, part: worse}
    judged = targets.targets(found)
    assert judged[position].verdict == "NOT MET"
    assert "NOT MET" not in [each.verdict for at, each in enumerate(judged) if at != position]

    monkeypatch.setattr(report, "run_part", lambda name: {"ok": True, "found": found.get(name, {"a": 1})})
    assert report.main([str(tmp_path)]) == (3 if judged[position].kind == "result" else 0)
    assert "NOT MET" in (tmp_path / "report.md").read_text()


def test_a_transpose_without_a_time_leaves_the_target_unmeasured(targets: ModuleType) -> None:
    found = {"kernels_bench": {"table": [*BENCH, bench_row("transpose 8192 x 8192 uint8", "tiled")]}}
    assert targets.targets(found)[4].verdict == "not measured"


# Preprocessing


class OnGpu(OpenCV):
    """In the place of a preprocessor on a GPU, and counted like one."""

    by_cpu = 0
    options = make_dataclass("Options", [("hw_share", float, 0.65)])

    def __init__(self, recipe: Any, *, hw_share: Any = 0.65, threads: int = 1) -> None:
        if hw_share == 1.0 and self.name == "dali-gpu":
            raise ValueError("no JPEG\nengine")
        super().__init__(recipe)

    def counts(self) -> dict[str, int]:
        return {BY_CPU: self.by_cpu, "batches were copied": 5}


class Told:
    """Stands in for ``rate``: what it was asked, and rates in turn."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, Counter[str]]] = []

    def __call__(self, lanes: Any, pictures: Any, seconds: float) -> dict[str, float]:
        found = Counter(lane.decoder for lane in lanes)
        self.asked.append((len(lanes), found))
        assert all(lane.batch == (4 if lane.decoder == "CPU" else 32) for lane in lanes)
        with ExitStack() as stack:
            for lane in lanes:
                lane.start(stack)
        return {decoder: 100.0 * count for decoder, count in found.items()}


@pytest.fixture
def timed(preprocessing: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Iterator[Told]:
    """The plan of the timing without the time: 6 cores, and a GPU that lets anybody open it."""
    fakes = {name: type(name, (OnGpu,), {"name": name}) for name in ("cuda", "dali-gpu")}
    told = Told()
    memory = SimpleNamespace(alloc=lambda nbytes: SimpleNamespace(address=0), close=lambda: None)
    monkeypatch.setattr(registry, "load", lambda name: fakes.get(name, OpenCV))
    monkeypatch.setattr(gpu, "open_device", lambda name: nullcontext(memory))
    monkeypatch.setattr(preprocessing, "_only_cpu", lambda: OpenCV)
    monkeypatch.setattr(preprocessing, "_pictures", lambda: [b""])
    monkeypatch.setattr(preprocessing, "has_engine", lambda: True)
    monkeypatch.setattr(preprocessing, "rate", told)
    monkeypatch.setattr("sut.process.cgroup.usable_cores", lambda: 6)
    yield told


def test_each_decoder_is_timed_alone_and_all_together(preprocessing: ModuleType, timed: Told) -> None:
    found = preprocessing.preprocess(seconds=0)

    def rows(name: str) -> list[tuple[Any, ...]]:
        return [
            (row["decoders"], row["lanes"], row["hw_share"], row["threads"])
            for row in found["table"]
            if row["preprocess"] == name
        ]

    assert rows("opencv") == [("CPU", 6, None, 1)] * 2
    assert [row["to"] for row in found["table"][:2]] == ["host", "cuda:0"]
    both = "JPEG engine and nvJPEG"
    shared = "JPEG engine, nvJPEG, CPU"
    assert rows("cuda") == [
        *(("nvJPEG", lanes, 0.0, 1) for lanes in (1, 2, 4, 6)),
        *(("JPEG engine", lanes, 1.0, 1) for lanes in (1, 2, 4, 6)),
        *((both, lanes, share, threads) for lanes, threads in ((1, 6), (2, 3), (4, 2)) for share in (0.5, "adaptive")),
        *((shared, [6, kernels, 1], None, 1) for kernels in (1, 3, 6)),
    ]
    # The engine fails in dali-gpu, so there is nothing to hold its sum against.
    assert rows("dali-gpu") == [
        *(("nvJPEG", lanes, 0.0, 1) for lanes in (1, 2, 4, 6)),
        *((both, lanes, share, threads) for lanes, threads in ((1, 6), (2, 3), (4, 2)) for share in (0.5, 0.65)),
    ]
    assert [(row["preprocess"], row["hw_share"], row["why"]) for row in found["wrong"]] == [
        ("dali-gpu", 1.0, "ValueError: no JPEG engine")
    ] * 4
    assert timed.asked[-1] == (4, Counter({both: 4}))

    by_decoders = {(row["preprocess"], row["decoders"], str(row["lanes"])): row for row in found["table"]}
    assert by_decoders["cuda", both, "2"]["of_sum"] == pytest.approx(200 / 1200)
    together = by_decoders["cuda", shared, "[6, 3, 1]"]
    assert together["of_sum"] == pytest.approx(1000 / (600 + 600 + 600))
    assert together["each"] == {"JPEG engine": 600, "nvJPEG": 300, "CPU": 100}
    assert by_decoders["cuda", "nvJPEG", "1"]["of_sum"] is None
    assert by_decoders["dali-gpu", both, "1"]["of_sum"] is None, "one of the two has no rate"


def test_without_a_jpeg_engine_nobody_does_its_share(
    preprocessing: ModuleType, timed: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preprocessing, "has_engine", lambda: False)

    found = preprocessing.preprocess(seconds=0)

    assert not found["jpeg_engine"] and not found["wrong"]
    assert {row["decoders"] for row in found["table"]} == {"CPU", "nvJPEG", "nvJPEG, CPU"}
    shared = [row for row in found["table"] if row["decoders"] == "nvJPEG, CPU"]
    assert [row["lanes"] for row in shared if row["preprocess"] == "cuda"] == [[1, 5], [3, 3], [6, 1]]


def test_pictures_that_the_cpu_decoded_in_the_place_of_the_gpu_are_wrong(
    preprocessing: ModuleType, timed: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(OnGpu, "by_cpu", 3)

    found = preprocessing.preprocess(seconds=0)

    assert {row["preprocess"] for row in found["table"]} == {"opencv"}
    assert found["wrong"][0]["why"] == "the CPU decoded 3 pictures that cuda was given to decode on the GPU"
    assert {row["preprocess"] for row in found["wrong"]} == {"cuda", "dali-gpu"}


def test_preprocessing_that_is_not_installed_is_named(
    preprocessing: ModuleType, timed: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(name: str) -> type[OpenCV]:
        if name != "opencv":
            raise ModuleNotFoundError(f"{name} needs a GPU")
        return OpenCV

    monkeypatch.setattr(registry, "load", load)

    found = preprocessing.preprocess(seconds=0)

    assert {row["preprocess"] for row in found["table"]} == {"opencv"}
    assert [row["preprocess"] for row in found["wrong"]] == ["cuda"]
    assert found["not_installed"] == {"dali-gpu": "ModuleNotFoundError: dali-gpu needs a GPU"}


def lane(preprocessing: ModuleType, run: Callable[[list[bytes]], Any], decoder: str = "x", batch: int = 4) -> Any:
    return preprocessing.Lane(decoder, lambda stack: run, batch)


def test_a_rate_counts_the_pictures_of_all_lanes(preprocessing: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(1000))
    monkeypatch.setattr(preprocessing.time, "perf_counter", lambda: next(clock))
    runs: list[list[bytes]] = []

    found = preprocessing.rate([lane(preprocessing, runs.append)], [b"a", b"b", b"c"], seconds=3)

    # The clock goes on by one at each look: begin 0; looks at 1, 2 and 3 (the first batch needs none); the end 4.
    assert (len(runs) - 2, found) == (3, {"x": 4 * 3 / 4})
    assert b"".join(b"".join(batch) for batch in runs) == b"abcabcabcabcabcabcab"


def test_lanes_share_by_demand(preprocessing: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """One lane is held up until the other has taken five: each picture goes to one of them, whoever is free."""
    taken: dict[str, list[bytes]] = {"slow": [], "fast": []}
    enough = threading.Event()

    def slow(pictures: list[bytes]) -> None:
        taken["slow"] += pictures
        assert len(taken["slow"]) <= 2 or enough.wait(60)  # two go before the clock

    def fast(pictures: list[bytes]) -> None:
        taken["fast"] += pictures
        if len(taken["fast"]) >= 2 + 5:
            enough.set()

    # The clock goes on by one with each batch, of whichever lane.
    monkeypatch.setattr(preprocessing.time, "perf_counter", lambda: len(taken["slow"]) + len(taken["fast"]))
    lanes = [lane(preprocessing, slow, "slow", 1), lane(preprocessing, fast, "fast", 1)]

    found = preprocessing.rate(lanes, [bytes([at]) for at in range(256)], seconds=10)

    assert set(found) == {"slow", "fast"}
    assert len(taken["fast"]) >= 2 + 5
    everybody = taken["slow"] + taken["fast"]
    assert sorted(everybody) == [bytes([at]) for at in range(len(everybody))], "each once, and none left out"


def test_a_lane_that_fails_ends_the_others(preprocessing: ModuleType) -> None:
    def start(stack: ExitStack) -> Any:
        raise ValueError("too little memory")

    lanes = [lane(preprocessing, len), lane(preprocessing, len), preprocessing.Lane("x", start)]
    with pytest.raises(ValueError, match="too little memory"):
        preprocessing.rate(lanes, [b""], seconds=0)


def test_the_functions_that_were_called_are_named(rightness: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rightness, "exercise", lambda name: {"version": OpenCV.version()})
    monkeypatch.setattr(rightness, "has_engine", lambda: False)

    found = rightness.preprocess_ran()

    assert found["functions"] == ["preprocess.opencv.OpenCV.version"]
    assert set(found["parity"]) == {"cuda", "dali-gpu", "dali-gpu-resize"}
    assert (found["jpeg_engine"], found["wrong"], found["not_installed"]) == (False, [], {})


def test_one_that_cannot_be_exercised_leaves_the_others(rightness: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    errors = {"cuda": RuntimeError("rows\ndiffer"), "dali-gpu": ModuleNotFoundError("no DALI")}

    def exercise(name: str) -> dict[str, int]:
        if name in errors:
            registry.names()
            raise errors[name]
        OpenCV.version()
        return {"max_levels": 1}

    monkeypatch.setattr(rightness, "exercise", exercise)
    monkeypatch.setattr(rightness, "has_engine", lambda: False)

    found = rightness.preprocess_ran()

    assert found["parity"] == {"dali-gpu-resize": {"max_levels": 1}}
    assert found["wrong"] == [{"preprocess": "cuda", "why": "RuntimeError: rows differ"}]
    assert found["not_installed"] == {"dali-gpu": "ModuleNotFoundError: no DALI"}
    assert found["functions"] == ["preprocess.opencv.OpenCV.version"], "what failed has not shown that it works"


class Shared(WatchedDevice):
    """One device for all, as a GPU's primary context is: it outlives who uses it."""

    def close(self) -> None:
        """Ends with ``end``."""

    def end(self) -> None:
        super().close()


@pytest.fixture
def gpu_in_host_form(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[HostForm]]:
    if shutil.which("g++") is None:
        pytest.skip("the host form of the kernels needs g++")
    device = Shared()

    class Made(HostForm):
        def __init__(self, recipe: Any) -> None:
            super().__init__(recipe, device, Uploading(device), PLACE)

    monkeypatch.setattr(gpu, "open_device", lambda name: device)
    monkeypatch.setattr(registry, "load", lambda name: Made)
    yield Made
    device.end()


def test_rows_on_the_device_are_those_on_the_host(
    rightness: ModuleType, gpu_in_host_form: type[HostForm], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = rightness.exercise("cuda")

    assert found["max_levels"] <= 1
    assert sum(found["counts"].values()) > 0  # batches that went to host memory

    fill = device_library._DeviceGather.fill
    monkeypatch.setattr(
        device_library._DeviceGather, "fill", lambda self, indices, *others: fill(self, indices[::-1], *others)
    )
    with pytest.raises(RuntimeError, match="cuda: rows in the GPU's memory differ from those in host memory"):
        rightness.exercise("cuda")


def test_odd_pictures_go_the_cpus_way_before(rightness: ModuleType, gpu_in_host_form: type[HostForm]) -> None:
    png, progressive, half, header = rightness._odd(open_photo())

    assert png.startswith(b"\x89PNG")
    frame = read_frame(progressive)
    assert frame is not None and frame.coding == "progressive"
    assert read_frame(half) == read_frame(header) == read_frame(open_photo())
    assert rightness.exercise("cuda")["counts"][BY_CPU] >= 2


@pytest.mark.parametrize("wrong", [False, True])
def test_the_same_pixels_are_held_to_the_oracle(
    rightness: ModuleType, gpu_in_host_form: type[HostForm], monkeypatch: pytest.MonkeyPatch, wrong: bool
) -> None:
    monkeypatch.setattr(parity, "photos", lambda: [open_photo()])
    monkeypatch.setattr(parity, "sizes", lambda count: [])
    if wrong:
        run_pixels = gpu_in_host_form.run_pixels
        monkeypatch.setattr(
            gpu_in_host_form,
            "run_pixels",
            lambda self, pictures, target, mark: run_pixels(self, [each[::-1] for each in pictures], target, mark),
        )

    found = rightness.same_pixels("cuda")

    assert [(row["preprocess"], row["recipe"], row["pictures"]) for row in found] == [
        ("cuda", "resnet50", 3),
        ("cuda", "efficientnet-lite0", 3),
    ]
    assert all((row["max_levels"] > 1) == wrong for row in found)


def test_what_is_timed_writes_to_the_device(preprocessing: ModuleType, gpu_in_host_form: type[HostForm]) -> None:
    counted: Counter[str] = Counter()
    recipe = find("resnet50").recipe
    start = partial(preprocessing._start, gpu_in_host_form, recipe, {}, counted, 2, "cuda:0")

    assert preprocessing.rate([preprocessing.Lane("x", start, 2)], [open_photo()] * 2, seconds=0)["x"] > 0
    assert counted == Counter({BY_CPU: 0})


def test_the_cpus_lanes_decode_by_the_cpu_and_write_to_the_device(
    preprocessing: ModuleType, gpu_in_host_form: type[HostForm]
) -> None:
    recipe = find("resnet50").recipe
    counted: Counter[str] = Counter()
    start = partial(preprocessing._start, preprocessing._only_cpu(), recipe, {}, counted, 2, "cuda:0")

    assert preprocessing.rate([preprocessing.Lane("CPU", start, 2)], [open_photo()] * 2, seconds=0)["CPU"] > 0
    assert counted[BY_CPU] == 2 * 3


def open_photo() -> bytes:
    return next((TOOLS.parent / "sut/datasets/demo_photos").glob("*.jpg")).read_bytes()
