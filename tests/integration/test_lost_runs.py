"""Whatever happens to a run, to its directory or in the process that watches it: its result is written and says so."""

from __future__ import annotations

import pytest

from tests.children import Finished
from tests.integration.support import Sut


def run(sut: Sut, backend: str, prologue: str = "", **environment: str) -> Finished:
    arguments = ["--backend", backend, "--dataset-path", sut.pictures(), "--time", "0.3"]
    return sut.run(*arguments, prologue=prologue, **environment)


FULL_DISK = """
import errno, os, pathlib

real = pathlib.Path.write_text
kept_free = False

def write_text(path, text, **more):
    # Nothing has room but in the place of what was there when the run began.
    if [*pathlib.Path("output").rglob(".reserve")] or not kept_free:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    return real(path, text, **more)

import sut.run.runner

supervise = sut.run.runner.supervise

def supervise_on_a_full_disk(config, prepared, directory, *more):
    global kept_free
    kept_free = (directory / ".reserve").stat().st_blocks * 512 >= 65536
    supervise(config, prepared, directory, *more)
    pathlib.Path.write_text = write_text

sut.run.runner.supervise = supervise_on_a_full_disk
"""


def test_the_result_of_a_run_that_filled_the_disk_is_written(sut: Sut) -> None:
    done = run(sut, "disk-full", FULL_DISK)

    assert done.code == 3
    assert "LoadGen's log has no end: the run was cut short or the disk is full" in done.error
    assert done.result["valid"] is False
    assert list(sut.output.rglob(".reserve")) == []


@pytest.mark.first(2)
@pytest.mark.parametrize(
    "garbage",
    [
        "noise\n",
        "\udcff\udcfe\n",
        "[1]\n",
        '{"event": "phase"}\n',
        '{"event": "plan", "plan": 7}\n',
        '{"event": ["phase"]}\n',
        '{"event": "err',
    ],
)
def test_words_that_the_runs_process_cannot_mean_fail_the_run(sut: Sut, garbage: str) -> None:
    done = run(sut, "garbles", GARBAGE=garbage)

    assert done.code == 3
    assert "what the run's process told cannot be taken: " in done.error
    result = done.result
    assert (result["valid"], result["backend_version"]) == (False, "1.0")
    assert result["samples"] > 0


@pytest.mark.parametrize(
    ("where", "kind"), [("supervisor._Watch._show", "RuntimeError"), ("outcome.system_facts", "SystemExit")]
)
def test_a_fault_of_the_watching_process_itself_fails_the_run(sut: Sut, where: str, kind: str) -> None:
    fault = f"""
import sut.run.supervisor, sut.run.outcome

def fault(*anything):
    if not anything or anything[0]._outcome.phase in ("generate", "run"):
        raise {kind}("a fault\\nof our own")

sut.run.{where} = fault
"""

    done = run(sut, "plain", fault)

    assert done.code == 3
    said = f"the result could not be made: {kind}: a fault of our own; --debug shows where"
    assert done.error == f"SingleStream performance: {said}"
    result = done.result
    assert (result["valid"], result["invalid_reasons"], result["first_error"]) == (False, [said], said)


def test_a_result_is_written_although_its_folder_was_removed(sut: Sut) -> None:
    done = run(sut, "removes-output")

    assert done.code == 3
    assert "mlperf_log_detail.txt: No such file or directory" in done.error
    assert done.result["valid"] is False
    assert done.result["samples"] > 0
