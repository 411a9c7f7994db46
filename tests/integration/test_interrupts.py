"""Ctrl-C, SIGTERM, a closed terminal and worse at any time: the run ends soon, keeps what it had, leaves no process."""

from __future__ import annotations

import itertools
import os
import re
import signal
import time
from pathlib import Path

import pytest

from sut.process.signals import ENDING
from tests.children import Running
from tests.integration.support import Sut

SOON_S = 15
"""On an idle machine it takes a fraction of a second."""

LONG = ("--time", "60")


def logs(sut: Sut) -> set[str]:
    return {path.name for path in sut.output.rglob("mlperf_log_*")}


SWALLOWS = """
import atexit, signal
for which in [{ending}] * 20:
    try:
        signal.raise_signal(which)
    except BaseException as error:
        swallowed = error
atexit.register(signal.raise_signal, signal.SIGTERM)
raise RuntimeError("this is what a package made of it")
"""


@pytest.mark.parametrize("name", ["typer", "rich", "cv2"])
def test_while_a_package_is_imported_that_makes_something_else_of_it(sut: Sut, name: str) -> None:
    ending = ", ".join(str(int(which)) for which in ENDING)
    (sut.packages / f"{name}.py").write_text(SWALLOWS.format(ending=f"*({ending})"))

    done = sut.run("--backend", "null", "--time", "0.3")

    assert (done.code, done.err.split()) == (130, ["error:", "interrupted"])
    assert not sut.output.exists()


@pytest.mark.parametrize("which", [signal.SIGINT, signal.SIGHUP])
def test_while_the_model_is_built(sut: Sut, which: signal.Signals) -> None:
    with sut.started("--backend", "onnxruntime", "--model", "slow-to-build") as running:
        running.wait_until(sut.reached)
        running.signal(which)
        done = running.finish(SOON_S)

    assert (done.code, done.error) == (130, "interrupted")
    assert not sut.output.exists()


@pytest.mark.first(2)
@pytest.mark.parametrize(
    ("which", "backend", "phase"),
    [
        (signal.SIGINT, "load-hangs", "load"),
        (signal.SIGHUP, "load-hangs", "load"),
        (signal.SIGTERM, "warm-up-hangs", "calibrate"),
        (signal.SIGQUIT, "warm-up-hangs", "calibrate"),
    ],
)
def test_in_set_up(sut: Sut, which: signal.Signals, backend: str, phase: str) -> None:
    with sut.started("--backend", backend, "--dataset-path", sut.pictures(), *LONG) as running:
        running.wait_until(sut.reached)
        running.signal(which)
        done = running.finish(SOON_S)

    assert done.code == 130
    assert done.error == f"SingleStream performance: interrupted in the phase '{phase}'"
    result = done.result
    assert (result["valid"], result["samples"]) == (False, 0)
    assert result["invalid_reasons"] == [f"interrupted in the phase '{phase}'"]


@pytest.mark.first(2)
@pytest.mark.parametrize(
    ("which", "scenario", "options"),
    [
        (signal.SIGINT, "SingleStream", []),
        (signal.SIGTERM, "SingleStream", []),
        (signal.SIGHUP, "MultiStream", []),
        (signal.SIGQUIT, "Server", ["--qps", "500"]),
        (signal.SIGINT, "Offline", []),
    ],
)
def test_in_the_run(sut: Sut, which: signal.Signals, scenario: str, options: list[str]) -> None:
    arguments = ["--backend", "counts", "--dataset-path", sut.pictures(), "--scenario", scenario, *options, *LONG]
    with sut.started(*arguments) as running:
        running.wait_until(sut.reached)
        running.signal(which)
        done = running.finish(SOON_S)

    assert done.code == 130
    result = done.result
    [reason] = result["invalid_reasons"]
    assert done.error == f"{scenario} performance: {reason}"
    assert result["valid"] is False
    samples = result["samples"]
    assert re.fullmatch(rf"interrupted after \d+\.\d s, {samples} samples", reason)
    assert samples >= 100
    assert result["failed_samples"] == 0
    assert result["latency_ns"]["p50"] >= 1_000_000
    recorded = sum(int(size) * count for size, count in result["batch_sizes"].items())
    assert 0 <= samples - recorded <= 8  # a batch that is counted may not have been written down yet
    assert {"mlperf_log_detail.txt", "mlperf_log_summary.txt"} <= logs(sut)


@pytest.mark.first(1)
@pytest.mark.parametrize("backend", ["hangs", "hangs-with-the-gil"])
def test_in_a_run_that_hangs(sut: Sut, backend: str) -> None:
    with sut.started("--backend", backend, "--dataset-path", sut.pictures(), *LONG) as running:
        running.wait_until(sut.reached)
        running.signal(signal.SIGINT)
        done = running.finish(SOON_S)

    assert done.code == 130
    assert "interrupted after" in done.error
    assert done.result["samples"] > 0


@pytest.mark.first(1)
@pytest.mark.parametrize("which", [signal.SIGTERM, signal.SIGHUP])
def test_in_scoring(sut: Sut, which: signal.Signals) -> None:
    pictures = sut.pictures()
    with sut.started(
        "--backend", "plain", "--model", "slow-to-score", "--dataset-path", pictures, "--accuracy"
    ) as running:
        running.wait_until(sut.reached)
        running.signal(which)
        done = running.finish(SOON_S)

    assert done.code == 130
    assert done.error == "Offline accuracy: interrupted in the phase 'scoring'"
    result = done.result
    assert (result["valid"], result["accuracy"], result["samples"]) == (False, None, 12)
    assert "mlperf_log_accuracy.json" in logs(sut)


def test_again_and_again_until_it_has_ended(sut: Sut) -> None:
    with sut.started("--backend", "counts", "--dataset-path", sut.pictures(), *LONG) as running:
        running.wait_until(sut.reached)
        for which in itertools.cycle(ENDING):
            running.signal(which)
            time.sleep(0.002)
            if running.process.poll() is not None or list(sut.output.rglob("result.json")):
                break
        done = running.finish(SOON_S)

    assert done.code == 130
    assert "interrupted after" in done.error
    assert done.result["samples"] >= 100


def test_the_process_of_the_run_leaves_them_to_its_parent(sut: Sut) -> None:
    with sut.started("--backend", "gate", "--dataset-path", sut.pictures(), "--time", "0.3") as running:
        running.wait_until(sut.reached)
        [child] = set(running.processes()) - {running.process.pid}
        for which in ENDING:
            os.kill(child, which)
        (sut.folder / "go").touch()
        done = running.finish()

    assert (done.code, done.errors, done.left) == (0, [], [])
    assert done.result["valid"] is True


def test_under_nohup_the_terminal_may_go(sut: Sut) -> None:
    nohup = ("sh", "-c", 'trap "" HUP; exec "$@"', "sh")
    arguments = ["--backend", "gate", "--dataset-path", sut.pictures(), "--time", "0.3"]
    with sut.started(*arguments, wrapper=nohup) as running:
        running.wait_until(sut.reached)
        running.signal(signal.SIGHUP)
        (sut.folder / "go").touch()
        done = running.finish()

    assert (done.code, done.errors, done.left) == (0, [], [])
    assert done.result["valid"] is True


def test_the_reader_of_what_is_said_may_leave(sut: Sut) -> None:
    head = ("bash", "-c", 'set -o pipefail; "$@" 2>&1 | head -1', "bash")
    arguments = ["--backend", "plain", "--dataset-path", sut.pictures(), "--time", "0.3"]

    done = sut.run(*arguments, "--scenario", "SingleStream,Offline", "--qps", "20000", wrapper=head)

    assert (done.code, done.left) == (0, [])
    assert len(done.out.splitlines()) == 1
    assert [result["valid"] for result in done.results.values()] == [True, True]


def test_standard_streams_may_be_closed(sut: Sut) -> None:
    closed = ("sh", "-c", 'exec "$@" >&- 2>&-', "sh")

    done = sut.run("--backend", "plain", "--dataset-path", sut.pictures(), "--time", "0.3", wrapper=closed)

    assert (done.code, done.left) == (0, [])
    assert done.result["valid"] is True


NOBODY_READS = """
import os
unread, full = os.pipe()
os.set_blocking(full, False)
try:
    while True:
        os.write(full, bytes(4096))
except BlockingIOError:
    os.set_blocking(full, True)
os.dup2(full, 2)
"""


@pytest.mark.slow
def test_the_reader_of_what_is_said_may_stop_reading(sut: Sut) -> None:
    with sut.started("--backend", "counts", "--dataset-path", sut.pictures(), *LONG, prologue=NOBODY_READS) as running:
        running.wait_until(sut.reached)
        running.signal(signal.SIGTERM)
        done = running.finish(SOON_S)

    assert (done.code, done.left) == (130, [])
    assert "interrupted after" in done.result["invalid_reasons"][0]


def test_what_was_done_before_is_kept_and_what_comes_after_is_not_begun(sut: Sut) -> None:
    (sut.cwd / "user.conf").write_text("*.SingleStream.target_latency = 1\n")
    arguments = ["--backend", "gate-offline", "--dataset-path", sut.pictures(), "--user_conf", "user.conf"]
    with sut.started(*arguments, "--scenario", "SingleStream,Offline,MultiStream", "--time", "0.3") as running:
        running.wait_until(sut.reached)
        running.signal(signal.SIGINT)
        done = running.finish(SOON_S)

    assert done.code == 130
    assert done.error.startswith("Offline performance: interrupted after ")
    assert {place.parts[-3]: result["valid"] for place, result in done.results.items()} == {
        "SingleStream": True,
        "Offline": False,
    }
    assert "SingleStream  VALID" in done.out
    [page] = sut.cwd.rglob("report.html")
    assert "interrupted after" in page.read_text()
    assert f"page: {page.relative_to(sut.cwd)}\n" in done.out


@pytest.mark.first(2)
@pytest.mark.parametrize("backend", ["load-hangs", "counts", "hangs-with-the-gil"])
def test_no_process_outlives_its_parent(sut: Sut, backend: str) -> None:
    with sut.started("--backend", backend, "--dataset-path", sut.pictures(), *LONG) as running:
        running.wait_until(sut.reached)
        assert len(running.processes()) == 2
        running.signal(signal.SIGKILL)
        done = running.finish(SOON_S)

    assert done.code == -signal.SIGKILL
    assert done.left == []


def test_a_run_after_one_that_was_killed(sut: Sut) -> None:
    arguments = ["--backend", "gate", "--dataset-path", sut.pictures(), "--time", "0.3"]
    with sut.started(*arguments) as running:
        running.wait_until(sut.reached)
        running.signal(signal.SIGKILL)
        running.finish(SOON_S)
    (sut.folder / "go").touch()

    done = sut.run(*arguments)

    assert (done.code, done.errors, done.left) == (0, [], [])
    assert done.result["valid"] is True
    [aside] = sut.output.glob("*/*/SingleStream/performance.*")
    assert (aside / "mlperf_log_detail.txt").exists()


def test_two_runs_at_once_into_one_directory(sut: Sut) -> None:
    arguments = ["--backend", "gate", "--dataset-path", sut.pictures(), "--time", "0.3"]
    with sut.started(*arguments) as first:
        first.wait_until(sut.reached)
        before = files(sut)

        second = sut.run(*arguments, "--overwrite")

        assert second.code == 1
        assert "another run is writing there; wait for it, or choose another --output" in second.error
        assert files(sut) == before
        assert still_runs(first)
        (sut.folder / "go").touch()
        done = first.finish()

    assert (done.code, done.errors, done.left) == (0, [], [])
    assert done.result["valid"] is True


def test_two_runs_at_once_into_two_directories(sut: Sut) -> None:
    arguments = ["--backend", "gate", "--dataset-path", sut.pictures(), "--time", "0.3"]
    with sut.started(*arguments) as first:
        first.wait_until(sut.reached)
        (sut.folder / "go").touch()
        second = sut.run(*arguments, "--lanes", "2")
        done = first.finish()

    assert (second.code, second.errors) == (0, [])
    assert (done.code, done.errors, done.left) == (0, [], [])
    assert len(done.results) == 2


def files(sut: Sut) -> set[Path]:
    return {path for path in sut.output.rglob("*") if path.is_file()}


def still_runs(running: Running) -> bool:
    return running.process.poll() is None and len(running.processes()) == 2
