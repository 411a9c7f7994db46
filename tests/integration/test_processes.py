"""Preprocessing in processes: the same labels, the same ledger, and nothing that a fault leaves behind."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import pytest

from tests import shared_memory
from tests.children import CHECKOUT, Finished, Running, python_started, results, run_sut
from tests.distributions import write_distribution
from tests.integration.test_truth import right_in_all_scenarios

SOON_S = 30
"""On an idle machine it takes a fraction of a second."""
PALACE = CHECKOUT / "sut" / "datasets" / "demo_photos" / "palace.jpg"
"""The last of the demo's photos, which warm-up does not look at."""
PROCESSES = ("--boundary", "jpeg", "--preprocess-workers", "2", "--preprocess-place", "process")
LONG = ("--scenario", "SingleStream", "--time", "60")

PLUGIN = '''
import os
import time
from pathlib import Path

from preprocess.base import BadPicture
from preprocess.opencv import OpenCV


def is_palace(data):
    return len(data) == int(os.environ["PALACE_BYTES"])


def in_a_worker():
    return b"sut.pipeline.preprocess_worker" in Path("/proc/self/cmdline").read_bytes()


class Reaching(OpenCV):
    """Says that it has come to the last photo."""

    name = "reaching"

    def run(self, encoded, target, mark):
        if in_a_worker() and any(map(is_palace, encoded)):
            Path(os.environ["FAULTS_FOLDER"], "reached").touch()
            self.met(encoded)
        return super().run(encoded, target, mark)

    def met(self, encoded):
        pass


class Failing(Reaching):
    """Cannot decode it."""

    name = "failing"

    def met(self, encoded):
        raise ValueError("will not decode this")


class Damaged(Reaching):
    """Knows which picture of a batch it is."""

    name = "damaged"

    def met(self, encoded):
        raise BadPicture([*map(is_palace, encoded)].index(True), "no such picture")


class Hanging(Reaching):
    name = "hanging"

    def met(self, encoded):
        time.sleep(3600)


class Exiting(Reaching):
    name = "exiting"

    def met(self, encoded):
        print("this is what a library said", flush=True)
        os._exit(7)


class Unready(OpenCV):
    """Cannot be made in a worker."""

    name = "unready"

    def __init__(self, recipe):
        super().__init__(recipe)
        if in_a_worker():
            raise OSError(5, "the decoder is not there")


class Counting(OpenCV):
    """Takes 5 ms of a core for each picture."""

    name = "counting"
    done = 0

    def run(self, encoded, target, mark):
        until = time.thread_time() + 0.005 * len(encoded)
        while in_a_worker() and time.thread_time() < until:
            pass
        self.done += len(encoded) if in_a_worker() else 0
        return super().run(encoded, target, mark)

    def counts(self):
        return {"pictures went through workers": self.done}
'''


@pytest.fixture
def plugins(tmp_path: Path) -> Path:
    folder = tmp_path / "plugins"
    names = ("reaching", "failing", "damaged", "hanging", "exiting", "unready", "counting")
    points = {"sut.preprocessors": {name: f"process_plugins:{name.capitalize()}" for name in names}}
    write_distribution(folder, "process-plugins", points)
    (folder / "process_plugins.py").write_text(PLUGIN)
    return folder


def variables(tmp_path: Path) -> dict[str, str]:
    return {"PALACE_BYTES": str(PALACE.stat().st_size), "FAULTS_FOLDER": str(tmp_path)}


def run(tmp_path: Path, plugins: Path, *arguments: str) -> Finished:
    return run_sut(
        *("--backend", "simulated", *PROCESSES, *arguments), cwd=tmp_path, plugins=plugins, **variables(tmp_path)
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("boundary", "batch"), [("jpeg", "1"), pytest.param("jpeg", "3", marks=pytest.mark.slow), ("pixels", "1")]
)
def test_labels_are_right_in_all_scenarios(tmp_path: Path, boundary: str, batch: str) -> None:
    before = shared_memory.files()

    child = run_sut(
        *(*PROCESSES, "--boundary", boundary, "--preprocess-batch", batch, "--lanes", "2", "--max-batchsize", "3"),
        *("--accuracy", "--scenario", "all"),
        cwd=tmp_path,
    )

    assert (child.code, child.left, shared_memory.left_since(before)) == (0, [], set()), child.err
    for result in right_in_all_scenarios(tmp_path):
        assert result["failed_samples"] == 0
        stages = {stage: times["mean"] for stage, times in result["stages_ns"].items()}
        assert ("decode" in stages) is (boundary == "jpeg")
        assert {"queue", "resize", "normalize", "channel", "gather", "infer", "complete"} <= set(stages)


@pytest.mark.timed
@pytest.mark.first(1)
@pytest.mark.parametrize("at_once", [1, 2])
def test_the_ledger_finds_every_planted_stage(tmp_path: Path, at_once: int) -> None:
    planted_ms = {"decode": 4.0, "resize": 2.0, "normalize": 1.0}
    planted = [word for name, ms in planted_ms.items() for word in ("--set", f"preprocess_options.{name}_ms={ms}")]

    child = run_sut(
        *("--backend", "simulated", *PROCESSES, "--preprocess", "simulated", *planted, "--max-batchsize", "4"),
        *("--set", "backend_options.a_ms=8", "--set", "backend_options.b_ms=2", "--set", "backend_options.jitter=0"),
        *("--scenario", "Offline", "--time", "1", "--preprocess-batch", str(at_once)),
        cwd=tmp_path,
    )

    [found] = results(tmp_path).values()
    assert found["failed_samples"] == 0, child.err
    for name, ms in planted_ms.items():
        assert ms <= found["cost_ns"][name] / 1e6, name
        assert found["stages_ns"][name]["p50"] / at_once / 1e6 <= 1.5 * ms + 0.3, name
    means = {stage: times["mean"] for stage, times in found["stages_ns"].items()}
    assert sum(means.values()) == pytest.approx(found["latency_ns"]["mean"], rel=0.001, abs=50)
    assert 0 <= found["stages_ns"]["residual"]["p50"] < 0.05 * found["latency_ns"]["p50"]
    # Rows of a whole batch follow each other, so nothing of it is copied: that would take 0.2 ms of four of 0.6 MB.
    assert found["stages_ns"]["gather"]["p50"] < 100_000


def test_workers_count_stay_on_their_cores_and_tell_what_happened_in_them(tmp_path: Path, plugins: Path) -> None:
    core = str(max(os.sched_getaffinity(0)))
    arguments = ("--preprocess", "counting", "--scenario", "Offline", "--time", "0.3")

    child = run(tmp_path, plugins, *arguments, "--affinity", f"preprocess={core}")

    [result] = results(tmp_path).values()
    cores = {name: where for name, where in result["thread_cores"].items() if name.startswith("preprocess-")}
    assert cores == {"preprocess-0": core, "preprocess-1": core}, child.err
    [note] = [note for note in result["notes"] if "went through workers" in note]
    assert int(note.split()[0].replace(",", "")) >= result["samples"]
    assert result["cpu_seconds_per_sample"] >= 0.005


@pytest.mark.first(1)
@pytest.mark.parametrize(
    ("preprocess", "batch", "said"),
    [
        ("failing", "1", "palace.jpg: ValueError: will not decode this"),
        ("damaged", "3", "palace.jpg: BadPicture: no such picture"),
    ],
)
def test_a_worker_that_raises_fails_the_run_with_the_pictures_name(
    tmp_path: Path, plugins: Path, preprocess: str, batch: str, said: str
) -> None:
    arguments = ("--preprocess", preprocess, "--preprocess-batch", batch, "--scenario", "Offline", "--accuracy")

    child = run(tmp_path, plugins, *arguments, "--max-batchsize", "3")

    assert child.code == 3
    assert said in child.error
    assert results(tmp_path)["Offline", "accuracy"]["failed_samples"] >= 1


@pytest.mark.first(1)
@pytest.mark.parametrize("which", [signal.SIGKILL, signal.SIGTERM])
def test_a_worker_that_is_killed_fails_the_run_at_once_and_is_named(
    tmp_path: Path, plugins: Path, which: signal.Signals
) -> None:
    with running(tmp_path, plugins, "--preprocess", "reaching", *LONG) as sut:
        sut.wait_until((tmp_path / "reached").exists)
        os.kill(workers(sut)[0], which)
        child = sut.finish(SOON_S)

    assert child.code == 3
    assert re.search(rf"preprocess-[01]: its process was killed by {which.name}; it said: nothing", child.error)
    [result] = results(tmp_path).values()
    assert result["valid"] is False and result["samples"] > 0


def test_a_worker_that_ends_by_itself_is_named_with_what_it_said(tmp_path: Path, plugins: Path) -> None:
    child = run(tmp_path, plugins, "--preprocess", "exiting", *LONG)

    assert child.code == 3
    assert "its process ended with exit code 7; it said: this is what a library said" in child.error


@pytest.mark.slow
def test_a_worker_that_hangs_is_ended_with_the_run(tmp_path: Path, plugins: Path) -> None:
    child = run(tmp_path, plugins, "--preprocess", "hanging", "--watchdog", "15", *LONG)

    assert child.code == 3
    assert "no progress for 15 s with 1 samples outstanding" in child.error


def test_a_worker_that_cannot_begin_ends_the_run_before_it_starts(tmp_path: Path, plugins: Path) -> None:
    child = run(tmp_path, plugins, "--preprocess", "unready", *LONG)

    assert child.code == 3
    assert re.search(r"preprocess-[01]: OSError: .*the decoder is not there", child.error)


NO_ROOM = """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (2**21, 2**21))
"""


def test_where_there_is_no_memory_to_share_it_is_said(tmp_path: Path, plugins: Path) -> None:
    start = f"{NO_ROOM}\nimport runpy; runpy.run_module('sut', run_name='__main__', alter_sys=True)"
    arguments = ("--backend", "simulated", *PROCESSES, "--max-batchsize", "8", "--scenario", "Offline")

    with python_started("-c", start, "run", *arguments, cwd=tmp_path, plugins=plugins) as sut:
        child = sut.finish()

    assert child.code == 3
    assert re.search(r"\d+ MiB that workers and lanes share cannot be had: File too large; take a smaller", child.error)


@pytest.mark.first(1)
@pytest.mark.parametrize(("which", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)])
def test_nothing_is_left_of_a_run_that_is_ended(
    tmp_path: Path, plugins: Path, which: signal.Signals, code: int
) -> None:
    before = shared_memory.files()
    with running(tmp_path, plugins, "--preprocess", "reaching", *LONG) as sut:
        sut.wait_until((tmp_path / "reached").exists)
        assert len(workers(sut)) == 2
        sut.signal(which)
        child = sut.finish(SOON_S)

    assert (child.code, child.left, shared_memory.left_since(before)) == (code, [], set())


def test_nothing_is_left_where_the_runs_process_is_killed(tmp_path: Path, plugins: Path) -> None:
    with running(tmp_path, plugins, "--preprocess", "hanging", *LONG) as sut:
        sut.wait_until((tmp_path / "reached").exists)
        [of_run] = [number for number, line in sut.processes().items() if "sut.run.worker" in line]
        os.kill(of_run, signal.SIGKILL)
        child = sut.finish(SOON_S)

    assert (child.code, child.left) == (3, [])
    assert "the run's process was killed by SIGKILL" in child.error


def running(tmp_path: Path, plugins: Path, *arguments: str):  # type: ignore[no-untyped-def]
    command = ("-m", "sut", "run", "--output", tmp_path / "output", "--backend", "simulated", *PROCESSES, *arguments)
    return python_started(*command, cwd=tmp_path, plugins=plugins, **variables(tmp_path))


def workers(sut: Running) -> list[int]:
    return [number for number, line in sut.processes().items() if "sut.pipeline.preprocess_worker" in line]


def test_a_place_without_workers_has_no_effect_and_it_is_said(tmp_path: Path) -> None:
    asked = ("--preprocess-place", "process", "--preprocess-batch", "2")

    child = run_sut("--backend", "simulated", "--boundary", "jpeg", "--time", "0.3", *asked, cwd=tmp_path)

    assert child.code == 0, child.err
    for flag in ("--preprocess-place process", "--preprocess-batch 2"):
        assert f"{flag} has no effect without --preprocess-workers" in child.err
