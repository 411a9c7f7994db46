"""``--serve``: a run that puts its system behind a server of its own, and asks that."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from sut.config import SCENARIOS
from tests.children import python_started, results, run_sut
from tests.integration.test_truth import labels_in, right_labels
from tests.serving import SIMULATED

_WORKER = "sut.serve.worker"
PLANTED = (*SIMULATED, "--set", "backend_options.a_ms=1", "--set", "backend_options.b_ms=1", "--lanes", "2")


@pytest.mark.parametrize("protocol", ["grpc", pytest.param("http", marks=pytest.mark.slow)])
def test_the_system_is_the_same_behind_it(tmp_path: Path, protocol: str) -> None:
    done = run_sut(
        *("--serve", protocol, *PLANTED, "--boundary", "jpeg", "--scenario", "Offline", "--time", "0.5"), cwd=tmp_path
    )

    assert done.code in (0, 4), done.err
    assert done.left == []
    [result] = results(tmp_path).values()
    assert (result["backend"], result["device"], result["preprocess"]) == ("simulated", "cpu", "simulated")
    assert result["attested"]["device"] == "cpu" and result["attested"]["details"]["wire"] == "jpeg"
    assert result["failed_samples"] == 0 < result["traffic"]["sent_bytes"]
    assert result["stages_ns"]["infer"]["mean"] > result["stages_ns"]["infer/compute"]["mean"] > 1_000_000
    assert "the system is behind a server on LoadGen's own host" in result["rules_broken"]


@pytest.mark.slow
@pytest.mark.parametrize("boundary", ["tensor", "pixels", "jpeg"])
def test_labels_are_those_of_a_run_in_one_process(tmp_path: Path, boundary: str) -> None:
    done = run_sut("--serve", "grpc", "--boundary", boundary, "--accuracy", "--scenario", "all", cwd=tmp_path)

    assert done.code == 0, done.err
    found = results(tmp_path)
    assert {scenario for scenario, _ in found} == set(SCENARIOS)
    for result in found.values():
        assert labels_in(result["directory"]) == right_labels()


def ended_by(tmp_path: Path, which: signal.Signals, whom: str) -> Any:
    """A long run of which one process gets a signal once it is asked: how it ended, and its only result."""
    arguments = ("-m", "sut", "run", "--serve", "grpc", *PLANTED, "--scenario", "Server", "--qps", "20", "--time", "60")
    with python_started(*arguments, "--output", tmp_path / "output", cwd=tmp_path) as running:
        running.wait_until(lambda: list(tmp_path.rglob("mlperf_log_detail.txt")))
        [number] = [number for number, line in running.processes().items() if whom in line]
        os.kill(number, which)
        return running.finish()


@pytest.mark.slow
def test_a_server_that_is_killed_fails_the_run(tmp_path: Path) -> None:
    done = ended_by(tmp_path, signal.SIGKILL, _WORKER)

    assert done.code == 3 and done.left == []
    [result] = results(tmp_path).values()
    assert result["valid"] is False
    assert "server-0" in done.err or "grpc://127.0.0.1" in done.err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("which", "whom", "code"), [(signal.SIGINT, "sut run", 130), (signal.SIGKILL, "sut.run.worker", 3)]
)
def test_no_server_outlives_its_run(tmp_path: Path, which: signal.Signals, whom: str, code: int) -> None:
    done = ended_by(tmp_path, which, whom)

    assert done.code == code and done.left == [], done.err


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--backend", "kserve", "--device", "grpc://127.0.0.1:1"), "--serve starts a server, and the backend kserve"),
        (("--boundary", "device"), "--serve: at the boundary device"),
        (("--identify", "efficientnet-lite0", "--boundary", "jpeg", "--fan-out", "1"), "--serve: identify is for"),
        (
            ("--boundary", "jpeg", "--preprocess-workers", "1", "--preprocess-place", "process"),
            "--serve: a server preprocesses in threads",
        ),
    ],
)
def test_what_cannot_be_behind_it_is_said(tmp_path: Path, options: tuple[str, ...], told: str) -> None:
    backend = () if "--backend" in options else ("--backend", "simulated")
    done = run_sut("--serve", "grpc", *backend, *options, cwd=tmp_path)

    assert told in done.error and done.code in (1, 2)
