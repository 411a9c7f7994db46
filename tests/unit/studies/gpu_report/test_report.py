"""The GPU report without a GPU: each part fails alone, by name and within the budget, and leaves nothing behind."""

from __future__ import annotations

import doctest
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from plugins.driver import installed_driver
from plugins.errors import DeviceNotFound
from sut.errors import ExitCode, InputError
from sut.studies.gpu_report import page, parts, report
from sut.studies.gpu_report.parts import PARTS, Part
from sut.studies.gpu_report.schema import FILE, PAGE, PartEnd, read_report
from sut.studies.gpu_report.targets import Target
from sut.studies.proof.verify import verify
from tests.children import CHECKOUT, python_started, run_python
from tests.unit.studies.gpu_report.figures import run_found

FINE = {"cases": 1, "wrong": []}
GPUS = {"gpus": [{"name": "a GPU"}]}
ONE_OF_EACH = tuple(
    {
        (getattr(part.work, "func", part.work), *part.variables): name for name, part in PARTS.items() if name != "gpu"
    }.values()
)
"""Parts that do other work than each other, or in another environment: most do the same with other models."""
Ends = Mapping[str, PartEnd]
Ran = Callable[[Ends], list[tuple[str, float]]]


def gpu_is_here() -> bool:
    try:
        return installed_driver().gpus > 0
    except DeviceNotFound:
        return False


without_gpu = pytest.mark.skipif(gpu_is_here(), reason="this machine has a GPU")


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> Ran:
    """Has every part end well but those that are given; the parts and their limits, as they run, are in the list."""

    def of(ends: Ends) -> list[tuple[str, float]]:
        begun: list[tuple[str, float]] = []

        def run_part(name: str, part: Part, folder: Path, limit_s: float) -> PartEnd:
            begun.append((name, limit_s))
            return ends.get(name) or PartEnd(ok=True, found=GPUS if name == "gpu" else FINE)

        monkeypatch.setattr(report, "run_part", run_part)
        monkeypatch.setattr(report, "targets", lambda found: [Target("it", "speed", "at least", 1, None)])
        monkeypatch.setattr(report, "gpu_processes", frozenset)
        return begun

    return of


def test_its_examples_hold() -> None:
    assert doctest.testmod(page).failed == 0


# One part


def test_a_part_that_needs_no_gpu_runs_here(tmp_path: Path) -> None:
    end = report.run_part("doctor", PARTS["doctor"], tmp_path, 60)

    assert end.ok and end.found["rows"], end
    assert end.took_s > 0 and end.limit_s == 60


def in_its_place(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str, process: Any = subprocess.Popen
) -> partial[PartEnd]:
    """What runs a part as a script with this ``text``."""
    script = tmp_path / "part.py"
    script.write_text(text)
    monkeypatch.setattr(
        report.subprocess, "Popen", lambda command, **options: process([sys.executable, script], **options)
    )
    return partial(report.run_part, "imports", PARTS["imports"], tmp_path)


def test_a_part_that_fails_says_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    text = "import sys; print('no json'); print('one', 'two words', sep='\\n', file=sys.stderr); sys.exit(7)"
    end = in_its_place(monkeypatch, tmp_path, text)(60)

    assert (end.ok, end.why) == (False, "ended with 7: two words")


def test_a_part_that_takes_too_long_is_ended_with_all_it_started_and_keeps_what_it_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    child = f"import time; pipe = open({str(fifo)!r}, 'w'); pipe.write('x'); pipe.flush(); time.sleep(600)"
    told = '{"ok": false, "found": {"rows": 1}}'
    text = f"import subprocess, sys\nprint({told!r}, flush=True)\nprint('a library says')\n"

    pipes: list[int] = []

    class LateOnce(subprocess.Popen[bytes]):
        """Time is up as soon as the child has written to the pipe."""

        def wait(self, timeout: float | None = None) -> int:
            if timeout is None:
                return super().wait()
            pipes.append(os.open(fifo, os.O_RDONLY))
            assert os.read(pipes[0], 1) == b"x"
            raise subprocess.TimeoutExpired("", timeout)

    run = in_its_place(
        monkeypatch, tmp_path, f"{text}subprocess.run([sys.executable, '-c', {child!r}], check=True)\n", LateOnce
    )

    end = run(5)

    assert (end.ok, end.why, end.found) == (False, "no end after 5 s", {"rows": 1})
    assert os.read(pipes[0], 1) == b"", "somebody still holds the pipe"
    os.close(pipes[0])


def test_what_runs_leave_is_kept_of_a_part_that_was_ended(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    text = "import os, pathlib; at = pathlib.Path(os.environ['OUTPUT_DIR'], 'a', 'Offline'); at.mkdir(parents=True)\n"
    end = in_its_place(monkeypatch, tmp_path, text + "(at / 'result.json').touch(); os.abort()")(60)

    assert end.results == ["results/imports/a/Offline"]
    assert (end.why or "").startswith(f"ended with {-signal.SIGABRT}")

    end = in_its_place(monkeypatch, tmp_path, text)(60)
    assert end.results == [], "what an earlier one has left is gone"


@pytest.mark.parametrize(("error", "missing"), [(ModuleNotFoundError("no\nncu"), True), (RuntimeError("bad"), False)])
def test_a_part_says_whether_something_is_not_installed(
    monkeypatch: pytest.MonkeyPatch, error: Exception, missing: bool
) -> None:
    def work() -> dict[str, Any]:
        raise error

    monkeypatch.setitem(PARTS, "imports", Part(work, 1, 1, needs_gpu=False))
    end = parts.carry_out("imports")

    assert (end.ok, end.not_installed) == (False, missing)
    assert end.why == f"{type(error).__name__}: {' '.join(str(error).split())}"


# All of them


def test_every_part_is_in_the_report_and_one_that_fails_fails_it(
    ran: Ran, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ran({"doctor": PartEnd(ok=False, why="no"), "copy_bandwidth": PartEnd(ok=True, found=run_found())})

    assert report.make_report(tmp_path / "out", (), None, None) == ExitCode.FAILED
    assert capsys.readouterr().err.splitlines()[-1] == "error: doctor: no"
    written = read_report(tmp_path / "out")
    assert list(written.parts) == list(PARTS)
    assert written.gpu == GPUS["gpus"] and written.versions["loadgen-vision-sut"] and written.machine["cores"]
    text = (tmp_path / "out" / PAGE).read_text()
    assert "## doctor\n\nDid not run: no\n" in text
    assert "| pytorch | resnet50 | fp16 | device | opencv | Offline | - | - | True | 9000 | 0.3 |" in text


def test_what_was_found_is_kept_after_every_part(ran: Ran, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    begun = ran({})
    run_part = report.run_part

    def interrupted(name: str, *others: Any) -> PartEnd:
        if len(begun) == 3:
            assert list(read_report(tmp_path).parts) == ["gpu", "kernels_check", "labels_pytorch"]
            raise KeyboardInterrupt
        return run_part(name, *others)

    monkeypatch.setattr(report, "run_part", interrupted)
    with pytest.raises(KeyboardInterrupt):
        report.make_report(tmp_path, (), None, None)
    assert len(read_report(tmp_path).parts) == 3


def test_a_budget_has_the_parts_that_fit_and_names_the_others(
    ran: Ran, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every part takes ten seconds of a clock of ours."""
    begun = ran({})
    monkeypatch.setattr(report.time, "monotonic", lambda: 10.0 * len(begun))

    assert report.make_report(tmp_path, ("kernels_check", "kernels_bench", "copy_bandwidth"), None, 43.0) == ExitCode.OK

    # 30 and 20 s are left for them; at 50 s copy_bandwidth has its 3 s, which kernels_bench never had.
    assert begun == [("gpu", 35.0), ("kernels_check", 30.0), ("copy_bandwidth", 20.0)]
    why = "20 s of the budget were left, it takes about 50 s"
    assert f"kernels_bench: left out: {why}" in capsys.readouterr().err
    left_out = read_report(tmp_path).parts["kernels_bench"]
    assert (left_out.ok, left_out.left_out, left_out.why) == (False, True, why)
    assert f"Left out: {why}" in (tmp_path / PAGE).read_text()


def test_parts_can_be_run_one_after_the_other(ran: Ran, tmp_path: Path) -> None:
    begun = ran({})
    report.make_report(tmp_path, ("parity", "kernels_check"), None, None)
    report.make_report(tmp_path, ("imports",), None, None)

    assert [name for name, _ in begun] == ["gpu", "parity", "kernels_check", "gpu", "imports"]
    assert list(read_report(tmp_path).parts) == ["gpu", "kernels_check", "parity", "imports"]

    ran({"gpu": PartEnd(ok=True, found={"gpus": [{"name": "another"}]})})
    with pytest.raises(InputError, match="has a report of a GPU, which is not what is here; choose another --output"):
        report.make_report(tmp_path, ("doctor",), None, None)
    (tmp_path / FILE).write_text("{}")
    with pytest.raises(InputError, match="no report to go on with"):
        report.make_report(tmp_path, ("doctor",), None, None)
    with pytest.raises(InputError, match="no part 'parities'; did you mean parity"):
        report.make_report(tmp_path, ("parities",), None, None)


def test_two_loads_make_one_report(ran: Ran, tmp_path: Path) -> None:
    begun = ran({"parity": PartEnd(ok=False, why="no")})
    report.make_report(tmp_path, (), "first", None)

    first = [name for name, _ in begun]
    assert first == [name for name, part in PARTS.items() if part.load == "first"]

    begun = ran({})
    report.make_report(tmp_path, (), "second", None)

    second = [name for name, _ in begun]
    assert second == ["gpu", *(name for name, part in PARTS.items() if part.load == "second"), "parity"]
    assert all(part.ok for part in read_report(tmp_path).parts.values())


def test_the_most_important_fit_a_quarter_of_an_hour() -> None:
    """The plan has the first load in 520 s, and in 900 s all that a target is of."""

    def fits(names: list[str], budget_s: float) -> set[str]:
        return {
            name for at, name in enumerate(names) if sum(PARTS[each].least_s for each in names[: at + 1]) < budget_s
        }

    first = fits([name for name, part in PARTS.items() if part.load == "first"], 520)
    assert {f"labels_{name}" for name in ("pytorch", "onnxruntime")} | {
        "kernels_bench",
        "parity",
        "preprocess",
    } <= first
    assert len([name for name in first if "_resnet50_" in name or "_lite0_" in name]) >= 9
    whole = fits(list(PARTS), 900)
    assert {"imports", "kernels_api", "kernels_profile", "preprocess_ran"} <= whole
    assert {f"pytorch_yolo11_fp16_{where}_batch32" for where in ("device", "jpeg_cuda")} <= whole
    assert all(part.least_s <= part.limit_s for part in PARTS.values())


@pytest.mark.parametrize(
    ("part", "end", "code", "shown"),
    [
        ("kernels_profile", PartEnd(ok=False, why="no such", not_installed=True), 0, "Not installed: no such"),
        ("kernels_profile", PartEnd(ok=False, why="no such"), 3, "Did not run: no such"),
        ("kernels_bench", PartEnd(ok=False, why="no such", not_installed=True), 3, "Not installed: no such"),
        ("kernels_check", PartEnd(ok=True, found={"cases": 2, "wrong": [{"why": "bad"}]}), 3, '"why": "bad"'),
    ],
)
def test_what_is_there_only_to_compare_with_may_be_missing(
    ran: Ran, tmp_path: Path, capsys: pytest.CaptureFixture[str], part: str, end: PartEnd, code: int, shown: str
) -> None:
    ran({part: end})

    assert report.make_report(tmp_path, (), None, None) == code
    assert shown in (tmp_path / PAGE).read_text()
    why = end.why or "1 wrong of 2, the first: bad"
    assert (f"error: {part}: {why}" in capsys.readouterr().err) == (code != 0)


@pytest.mark.parametrize(("kind", "code"), [("result", 3), ("speed", 0)])
def test_a_wrong_result_fails_the_report_and_a_missed_speed_does_not(
    ran: Ran, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: Any, code: int
) -> None:
    ran({})
    monkeypatch.setattr(report, "targets", lambda found: [Target("it", kind, "at least", 1, 0.5)])

    assert report.make_report(tmp_path, (), None, None) == code
    assert "NOT MET" in (tmp_path / PAGE).read_text()


def test_what_is_left_on_the_gpu_is_named(
    ran: Ran, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ran({})
    seen = iter([{"1, Xorg"}])
    monkeypatch.setattr(report, "gpu_processes", lambda: frozenset(next(seen, {"1, Xorg", "77, python3"})))
    monkeypatch.setattr(report, "GONE_S", 0.0)

    assert report.make_report(tmp_path, ("doctor",), None, None) == ExitCode.FAILED
    assert read_report(tmp_path).left_on_gpu == ["77, python3"]
    assert "error: left on the GPU: 77, python3" in capsys.readouterr().err


# The command


@pytest.mark.parametrize(("ended_by", "code"), [(signal.SIGTERM, 130), (signal.SIGKILL, -signal.SIGKILL)])
def test_a_report_that_is_ended_leaves_no_part_behind(tmp_path: Path, ended_by: signal.Signals, code: int) -> None:
    # The first part asks nvidia-smi, which here tells that it runs, and waits.
    asked, program = tmp_path / "asked", tmp_path / "nvidia-smi"
    os.mkfifo(asked)
    program.write_text(f"#!/bin/sh\necho $PPID $$ > {asked}\nexec sleep 600\n")
    program.chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    with python_started("-m", "sut", "report", "gpu", "-o", tmp_path / "out", cwd=tmp_path, PATH=path) as running:
        part, waiting = map(int, asked.read_text().split())
        running.signal(ended_by)

        assert running.process.wait(60) == code
        deadline = time.monotonic() + 60
        while part in (left := running.processes()) or (ended_by == signal.SIGTERM and waiting in left):
            assert time.monotonic() < deadline, "the part outlives the report"
            time.sleep(0.02)


@without_gpu
def test_without_a_driver_no_part_that_needs_a_gpu_is_begun() -> None:
    ends = {name: parts.carry_out(name) for name, part in PARTS.items() if part.needs_gpu}

    assert {"kernels_check", "ladder"} <= ends.keys() and not any(end.ok or end.found for end in ends.values())
    assert all("no NVIDIA driver" in (end.why or "") for end in ends.values())


@pytest.mark.slow
@without_gpu
@pytest.mark.parametrize(
    "names", [("kernels_check", "pytorch_resnet50_fp16_device", "labels_onnxruntime"), ONE_OF_EACH]
)
def test_without_a_gpu_it_comes_to_its_end_with_every_part_failing_by_name(
    tmp_path: Path, names: tuple[str, ...]
) -> None:
    options = [word for name in names for word in ("--part", name)]
    done = run_python("-m", "sut", "report", "gpu", "--output", "gpu", *options, cwd=tmp_path, timeout_s=600)

    assert done.code == ExitCode.SETUP
    said = dict(line.split(": ", 1) for line in done.errors)
    assert list(said) == ["gpu", *(name for name in PARTS if name in names and PARTS[name].needs_gpu)]
    assert "no NVIDIA GPU here" in said.pop("gpu")
    assert all("no NVIDIA driver" in why for why in said.values())
    written = json.loads((tmp_path / "gpu" / FILE).read_text())
    assert (written["schema"], written["gpu"], set(written["parts"])) == (3, [], {"gpu", *names})
    assert (tmp_path / "gpu" / PAGE).read_text().startswith("# GPU report\n")
    assert done.left == [] and "Traceback" not in done.err
    judged = verify(tmp_path / "gpu.zip")
    assert judged.findings == [] and f"SHA-256 {judged.digest}" in done.err


@without_gpu
def test_a_report_of_the_folder_where_one_is_leaves_its_file_beside_it(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()

    done = run_python("-m", "sut", "report", "gpu", "--output", ".", "--part", "gpu", cwd=tmp_path / "mine")

    assert done.code == ExitCode.SETUP
    assert verify(tmp_path / "mine.zip").findings == []


def test_a_folder_called_gpu_can_still_be_reported(tmp_path: Path) -> None:
    (tmp_path / "gpu").mkdir()
    done = run_python("-m", "sut", "report", "./gpu", cwd=tmp_path)

    assert done.code == ExitCode.USAGE and "./gpu: no result.json" in done.error.replace("gpu: no", "./gpu: no", 1)
    shown = run_python("-m", "sut", "report", "gpu", "--help", cwd=CHECKOUT).out
    assert "Example: ./run_local.sh report gpu" in shown and "--budget" in shown
