"""Backends that go wrong in every way they can: each ends the run in time, says so in one line, and counts for nothing.

Each is a plug-in registered by an entry point and run by ``python -m sut run`` in a child process.
"""

from __future__ import annotations

import pytest

from sut.version import NAME, own_version
from tests.children import Finished
from tests.distributions import write_distribution
from tests.integration.support import Sut

WATCHDOG_S = 10
"""Long enough for the start of Python and its imports on a busy machine, which it limits too."""

# LoadGen is told what cannot make a sound run INVALID, however busy the machine: a backend that takes a millisecond
# a batch is never faster than these, and no answer is late.
SURELY_VALID = ("--qps", 1000, "--max-latency", 60)
FASTER_THAN_OFFLINE = ("--qps", 20000)


def run(sut: Sut, backend: str, *options: object) -> Finished:
    arguments = ["--backend", backend, "--dataset-path", sut.pictures(), "--time", 0.3, *options]
    return sut.run(*map(str, arguments))


def summary_log(sut: Sut) -> str:
    [file] = sut.output.rglob("mlperf_log_summary.txt")
    return file.read_text()


def test_a_plug_in_that_works_is_valid(sut: Sut) -> None:
    done = run(sut, "plain")

    assert (done.code, done.errors, done.left) == (0, [], [])
    result = done.result
    assert result["valid"] is True
    assert (result["backend"], result["backend_version"], result["device_name"]) == ("plain", "1.0", "a test")
    assert (result["failed_samples"], result["first_error"], result["invalid_reasons"]) == (0, None, [])
    assert result["versions"][NAME] == own_version()


@pytest.mark.first(2)
@pytest.mark.parametrize(
    ("scenario", "options", "batch"),
    [
        ("SingleStream", ["--user_conf", "user.conf"], 1),
        ("MultiStream", ["--user_conf", "user.conf"], 8),
        ("Server", SURELY_VALID, None),
        ("Offline", FASTER_THAN_OFFLINE, 8),
    ],
)
def test_a_sample_that_raises_fails_a_run_that_loadgen_calls_valid(
    sut: Sut, scenario: str, options: list[object], batch: int | None
) -> None:
    (sut.cwd / "user.conf").write_text("*.SingleStream.target_latency = 1\n*.MultiStream.target_latency = 1\n")

    done = run(sut, "raises", "--scenario", scenario, *options)

    assert done.code == 3
    assert "Result is : VALID" in summary_log(sut)
    result = done.result
    assert result["valid"] is False
    failed = result["failed_samples"]
    assert failed == batch if batch else 1 <= failed <= 8
    of_many = f" (in a batch of {failed})" if failed > 1 else ""
    name, _, rest = result["first_error"].partition(".jpg")
    assert name in sut_names(white=failed == 1)
    assert rest == f"{of_many}: RuntimeError: out of luck at the third white picture"
    assert done.error == f"{scenario} performance: {result['first_error']}"
    assert f"{failed} samples failed" in done.err
    assert "says VALID" in result["invalid_reasons"][0]
    assert result["samples"] > failed


def test_a_server_that_does_not_say_its_name_fails_the_run(sut: Sut) -> None:
    done = run(sut, "unnamed", "--scenario", "Offline", *FASTER_THAN_OFFLINE)

    assert (done.code, sut.reached()) == (3, True)
    told = "the server does not say its name: ConnectionError: connection refused"
    assert done.error == f"Offline performance: {told}"
    assert done.result["valid"] is False and done.result["samples"] == 0


def sut_names(*, white: bool) -> list[str]:
    names = [f"white picture {number}" for number in range(8, 12)]
    return names if white else [f"grey picture {number}" for number in range(8)] + names


@pytest.mark.slow
def test_a_run_that_fails_does_not_keep_the_other_scenarios_from_running(sut: Sut) -> None:
    done = run(sut, "raises", "--scenario", "SingleStream,MultiStream,Offline")

    assert done.code == 3
    assert [line.partition(" ")[0] for line in done.errors] == ["SingleStream", "MultiStream", "Offline"]
    assert len(done.results) == 3
    assert all(result["failed_samples"] in (1, 8) for result in done.results.values())
    assert done.left == []


def test_a_sample_that_raises_leaves_no_accuracy(sut: Sut) -> None:
    done = run(sut, "always-raises", "--accuracy")

    assert done.code == 3
    assert "RuntimeError: never in luck" in done.error
    result = done.result
    assert (result["valid"], result["accuracy"]) == (False, None)
    assert result["failed_samples"] > 0
    assert list(sut.output.rglob("accuracy.txt")) == []


@pytest.mark.first(2)
@pytest.mark.parametrize(
    ("backend", "fragment"),
    [
        ("too-few-rows", "ValueError: output 'scores' returned 0 rows for a batch of 1"),
        ("not-finite", "ValueError: output 'scores' has scores that are not finite (NaN or inf) in row 0"),
        ("no-output", "ValueError: the model returned no output 'scores'"),
        ("wrong-label", "ValueError: output 'label' has label 1000 in row 0; expected 0 to 999"),
        ("sys-exits", "SystemExit: 0"),
        ("interrupts", "KeyboardInterrupt"),
    ],
)
def test_an_answer_that_is_none_fails_its_sample(sut: Sut, backend: str, fragment: str) -> None:
    done = run(sut, backend)

    assert done.code == 3
    assert fragment in done.error
    result = done.result
    assert result["valid"] is False
    assert 1 < result["failed_samples"] < result["samples"]
    assert result["first_error"].startswith("white picture ")
    assert fragment in result["first_error"]


@pytest.mark.first(1)
@pytest.mark.parametrize(
    ("backend", "fragment"),
    [
        ("too-few-rows", "(in a batch of 8): ValueError: output 'scores' returned 7 rows for a batch of 8"),
        ("not-finite", "(in a batch of 8): ValueError: output 'scores' has scores that are not finite"),
        ("sys-exits", "(in a batch of 8): SystemExit: 0"),
    ],
)
def test_a_lane_goes_on_after_a_batch_that_failed(sut: Sut, backend: str, fragment: str) -> None:
    done = run(sut, backend, "--scenario", "Offline", "--lanes", 2, *FASTER_THAN_OFFLINE)

    assert done.code == 3
    assert fragment in done.error
    result = done.result
    assert 8 < result["failed_samples"] <= result["samples"]
    assert "Result is : VALID" in summary_log(sut)


@pytest.mark.first(1)
@pytest.mark.parametrize(
    ("scenario", "options"), [("Offline", FASTER_THAN_OFFLINE), ("Server", SURELY_VALID), ("MultiStream", ())]
)
def test_one_of_two_devices_that_dies_is_named_and_no_sample_is_lost(
    sut: Sut, scenario: str, options: tuple[object, ...]
) -> None:
    done = run(sut, "one-of-two-dies", "--device", "left,right", "--scenario", scenario, *options)

    assert (done.code, done.left) == (3, [])
    assert "on right): RuntimeError: fell off the bus" in done.error
    result = done.result
    assert result["valid"] is False and result["device"] == "left,right"
    assert 0 < result["failed_samples"] < result["samples"] == result["recorded_samples"]
    assert "never answered" not in " ".join(result["invalid_reasons"])


@pytest.mark.first(6)
@pytest.mark.parametrize(
    ("backend", "fragment"),
    [
        ("exits-0", "the run's process ended by itself with exit code 0 in the phase 'run'"),
        ("exits-7", "the run's process ended by itself with exit code 7 in the phase 'run'"),
        ("killed", "the run's process was killed by SIGKILL (out of memory?) in the phase 'run'"),
        ("segfaults", "the run's process was killed by SIGSEGV in the phase 'run'"),
        ("aborts", "the run's process was killed by SIGABRT in the phase 'run'"),
        ("forks-and-dies", "the run's process ended by itself with exit code 7 in the phase 'run'"),
    ],
)
@pytest.mark.parametrize("scenario", ["SingleStream", "Offline"])
def test_a_process_that_dies_in_the_run_fails_it(sut: Sut, backend: str, fragment: str, scenario: str) -> None:
    done = run(sut, backend, "--scenario", scenario)

    assert done.code == 3
    assert done.error == f"{scenario} performance: {fragment}"
    result = done.result
    assert (result["valid"], result["first_error"], result["invalid_reasons"]) == (False, fragment, [fragment])
    assert result["metric"]["value"] is None


def test_what_the_ledger_had_survives_a_kill(sut: Sut) -> None:
    done = run(sut, "killed")

    assert done.code == 3
    result = done.result
    assert result["samples"] > 0
    assert result["samples"] == result["recorded_samples"] == result["batch_sizes"]["1"]
    assert result["latency_ns"]["min"] >= 1_000_000
    assert result["attested"]["device_name"] == "a test"
    assert result["plan"]["scenario"] == "SingleStream"


@pytest.mark.parametrize(
    ("backend", "scenario", "outstanding"),
    [
        ("hangs", "SingleStream", 1),
        pytest.param("hangs-with-the-gil", "SingleStream", 1, marks=pytest.mark.slow),
        pytest.param("hangs", "Offline", None, marks=pytest.mark.slow),
    ],
)
def test_a_backend_that_hangs_is_stopped_by_the_watchdog(
    sut: Sut, backend: str, scenario: str, outstanding: int | None
) -> None:
    done = run(sut, backend, "--scenario", scenario, "--watchdog", WATCHDOG_S)

    assert done.code == 3
    assert f"no progress for {WATCHDOG_S} s with " in done.error
    assert "--watchdog" in done.error
    result = done.result
    assert result["valid"] is False
    waiting = int(result["first_error"].split(" with ")[1].split()[0])
    assert waiting == outstanding if outstanding else waiting >= 8


@pytest.mark.slow
def test_one_of_two_devices_that_hangs_is_named(sut: Sut) -> None:
    arguments = ("--device", "left,right", "--scenario", "Offline", *FASTER_THAN_OFFLINE)

    done = run(sut, "one-of-two-hangs", *arguments, "--watchdog", WATCHDOG_S)

    assert done.code == 3
    assert "with 8 samples outstanding, the first of them on right: the run was stopped (--watchdog" in done.error


@pytest.mark.slow
def test_a_backend_that_hangs_is_stopped_though_server_asks_on(sut: Sut) -> None:
    done = run(sut, "hangs", "--scenario", "Server", "--qps", 20, "--max-latency", 1, "--watchdog", WATCHDOG_S)

    waiting = int(done.result["first_error"].split(" with ")[1].split()[0])
    assert (done.code, waiting < 400) == (3, True), "of 690 queries, asked in 35 s"


@pytest.mark.slow
@pytest.mark.parametrize(("backend", "phase"), [("load-hangs", "load"), ("warm-up-hangs", "calibrate")])
def test_a_backend_that_hangs_before_the_run_is_stopped_by_the_watchdog(sut: Sut, backend: str, phase: str) -> None:
    done = run(sut, backend, "--watchdog", WATCHDOG_S)

    assert done.code == 3
    assert f"no progress for {WATCHDOG_S} s in the phase '{phase}': the run was stopped" in done.error
    assert (done.result["valid"], done.result["samples"]) == (False, 0)


@pytest.mark.parametrize(
    ("backend", "code", "fragment"),
    [
        ("load-raises", 3, "RuntimeError: no luck in loading"),
        ("load-refuses", 1, "cannot run a model of this kind; convert it"),
        ("load-misses-module", 2, "No module named 'no_such_runtime'"),
        ("load-misses-device", 2, "no such accelerator here; it has cpu"),
        ("load-exits", 3, "the run's process ended by itself with exit code 0 in the phase 'load'"),
        ("warm-up-raises", 3, ".jpg: RuntimeError: cold"),
        ("other-outputs", 1, "got boxes float32[None, 100, 4]; expected float scores [n, 1000]"),
        ("other-device", 2, "asked other-device for the device cpu, but it executes on cuda:0"),
        ("other-precision", 2, "asked other-precision for fp32, but it executes in fp16"),
        ("no-backend", 1, "expected a class derived from backends.base.Backend"),
    ],
)
def test_a_backend_that_cannot_start(sut: Sut, backend: str, code: int, fragment: str) -> None:
    done = run(sut, backend)

    assert done.code == code
    assert fragment in done.error
    assert all(result["valid"] is False and result["samples"] == 0 for result in done.results.values())
    assert not list(sut.output.rglob("mlperf_log_*"))


def test_a_backend_that_raises_at_its_end_fails_the_run(sut: Sut) -> None:
    done = run(sut, "close-raises")

    assert done.code == 3
    assert done.error == "SingleStream performance: RuntimeError: stuck door"
    assert done.result["valid"] is False


def test_a_plug_in_whose_module_is_not_there(sut: Sut) -> None:
    write_distribution(sut.packages, "half-installed", {"sut.backends": {"half": "half_installed:Half"}})

    done = run(sut, "half")

    assert done.code == 2
    assert "No module named 'half_installed'" in done.error
    assert done.results == {}


def test_a_plug_in_that_is_not_asked_for_is_not_imported(sut: Sut) -> None:
    write_distribution(sut.packages, "half-installed", {"sut.backends": {"half": "half_installed:Half"}})

    done = run(sut, "plain")

    assert (done.code, done.errors) == (0, [])


def test_the_user_sees_the_traceback_of_a_backend_with_debug_only(sut: Sut) -> None:
    done = run(sut, "load-raises", "--debug")

    assert done.code == 3
    assert "in while_loading" in done.err
    assert done.errors == ["SingleStream performance: RuntimeError: no luck in loading"]


def test_what_a_backend_prints_goes_to_its_log_and_stops_nothing(sut: Sut) -> None:
    done = run(sut, "chatters")

    assert (done.code, done.errors, done.left) == (0, [], [])
    assert "babble" not in done.out + done.err
    [log] = sut.output.rglob("worker.log")
    said = log.read_text()
    assert len(said) < 1.5 * 2**20
    assert said.startswith("the first words\nbabble\n")
    assert "MiB left out" in said


@pytest.mark.first(1)
@pytest.mark.parametrize("backend", ["starts-helper", "forks", "daemonizes"])
def test_what_a_backend_leaves_running_is_ended_with_the_run(sut: Sut, backend: str) -> None:
    done = run(sut, backend)

    assert (done.code, done.errors, done.left) == (0, [], [])
    assert done.result["valid"] is True


@pytest.mark.first(1)
@pytest.mark.parametrize("options", [[], ["--scenario", "Offline"]])
def test_a_disk_that_fills_up_in_the_run_fails_it(sut: Sut, options: list[str]) -> None:
    done = run(sut, "disk-full", *options)

    assert done.code == 3
    assert "LoadGen's log has no end: the run was cut short or the disk is full" in done.error
    assert done.result["valid"] is False


def test_a_result_that_cannot_be_written_fails_the_run(sut: Sut) -> None:
    done = run(sut, "parents-disk-full")

    assert done.code == 3
    assert "the result cannot be written" in done.error
    assert "SingleStream/performance: " in done.error
    assert list(sut.output.rglob("*result*.json*")) == []


@pytest.mark.slow
def test_an_earlier_result_survives_a_run_that_is_killed(sut: Sut) -> None:
    (sut.folder / "go").touch()
    pictures = sut.pictures()
    arguments = ["--backend", "killed", "--dataset-path", pictures, "--time", "0.3"]
    first = sut.run(*arguments)
    assert first.code == 0
    (sut.folder / "go").unlink()

    second = sut.run(*arguments)

    assert second.code == 3
    assert "SIGKILL" in second.error
    [(place, kept)] = [(place, result) for place, result in second.results.items() if place not in first.results]
    assert place.parent.name.startswith("performance.")
    assert kept == first.result
    assert (sut.output / place).with_name("mlperf_log_summary.txt").exists()
    [(now, failed)] = [(place, result) for place, result in second.results.items() if place in first.results]
    assert now.parent.name == "performance"
    assert failed["valid"] is False
