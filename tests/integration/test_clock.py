"""A system clock that is set during a run: the run is stopped at once and says by how much. Time zones do no harm."""

from __future__ import annotations

import re
import subprocess
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from tests.integration.support import Sut

STEPS = r"""
/* Sets the system clock by STEP_S for everything in a process, once the file STEP_WHEN is there. */
#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int clock_gettime(clockid_t which, struct timespec *now) {
    int code = syscall(SYS_clock_gettime, which, now);
    if (code == 0 && which == CLOCK_REALTIME && access(getenv("STEP_WHEN"), F_OK) == 0)
        now->tv_sec += atol(getenv("STEP_S"));
    return code;
}
"""


@pytest.fixture(scope="module")
def steps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clock")
    (folder / "steps.c").write_text(STEPS)
    library = folder / "steps.so"
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", library, folder / "steps.c"], check=True)
    return library


@pytest.mark.first(1)
@pytest.mark.parametrize(
    ("scenario", "step_s"), [("SingleStream", "-5"), ("MultiStream", "3600"), ("Server", "-3600"), ("Offline", "2")]
)
def test_a_clock_that_is_set_fails_the_run(sut: Sut, steps: Path, scenario: str, step_s: str) -> None:
    arguments = ["--backend", "counts", "--dataset-path", sut.pictures(), "--scenario", scenario, "--time", "60"]

    done = sut.run(
        *arguments, "--qps", "500", STEP_WHEN=str(sut.folder / "reached"), STEP_S=step_s, LD_PRELOAD=str(steps)
    )

    assert done.code == 3
    set_by = rf"the system clock was set by {re.escape(f'{int(step_s):+d}')}\.000 s, \d+\.\d s into the run: .*"
    assert re.fullmatch(rf"{scenario} performance: {set_by}", done.error)
    result = done.result
    assert result["valid"] is False
    assert len(result["invalid_reasons"]) == 1
    assert re.fullmatch(set_by, result["invalid_reasons"][0])
    assert result["clock_change_ns"] == pytest.approx(int(step_s) * 10**9, abs=10**7)
    assert done.seconds < 60


def test_the_process_of_the_run_looks_at_its_clock_too(sut: Sut) -> None:
    done = sut.run("--backend", "sets-its-clock", "--dataset-path", sut.pictures(), "--time", "60")

    assert done.code == 3
    assert "the system clock was set by -5.000 s, " in done.error
    assert done.seconds < 60


def test_a_clock_that_nobody_sets_is_told_of(sut: Sut) -> None:
    done = sut.run("--backend", "plain", "--dataset-path", sut.pictures(), "--time", "0.3")

    assert (done.code, done.errors) == (0, [])
    assert abs(done.result["clock_change_ns"]) <= 1_000_000


def test_a_run_counts_in_any_time_zone(sut: Sut) -> None:
    done = sut.run("--backend", "plain", "--dataset-path", sut.pictures(), "--time", "0.3", TZ="Asia/Kolkata")

    assert (done.code, done.errors) == (0, [])
    log = next(sut.output.rglob("mlperf_log_detail.txt")).read_text()
    [local] = re.findall(r'"test_datetime", "value": "([^"]+)Z"', log)
    began = datetime.fromisoformat(done.result["started"])
    assert timedelta(hours=5) < datetime.fromisoformat(f"{local}+00:00") - began < timedelta(hours=6), (
        "LoadGen's is local"
    )
