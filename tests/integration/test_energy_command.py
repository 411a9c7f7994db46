"""``--power-log``: the log of an external meter that lay beside a run, which needs no hardware."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sut.mlperf.logs import read_detail
from sut.results.schema import FILE
from tests.children import run_python

SIMULATED = ("--backend", "simulated", "--preprocess", "simulated", "--set", "backend_options.a_ms=10")
NOTHING = {"cpu": {"source": "none"}, "gpu": {"source": "none"}}
SLOPE = 0.5
"""Watts that the meter shows more each second: between any two moments the mean is that of the two."""


@contextmanager
def meter(path: Path, slope: float = SLOPE) -> Iterator[float]:
    """A meter that has written for half a minute, from 100 W on, and goes on as long as it lasts; since when."""
    begin, over = time.time() - 30, threading.Event()

    def line() -> str:
        at = time.time() - begin
        return f"{begin + at},{100 + slope * at}\n"

    def write() -> None:
        while not over.wait(0.1):
            with path.open("a") as lines:
                lines.write(line())

    path.write_text(f"{begin},100\n" + "".join(f"{begin + at},{100 + slope * at}\n" for at in range(1, 30)))
    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield begin
    finally:
        over.set()
        thread.join()


def test_a_run_has_the_area_below_the_log_in_loadgens_window(tmp_path: Path) -> None:
    with meter(tmp_path / "meter.csv") as begin_s:
        done = run_python("-m", "sut", "run", *SIMULATED, "--time", "1", "--power-log", "meter.csv", cwd=tmp_path)

    assert done.code == 0, done.err
    [file] = (tmp_path / "output").rglob(FILE)
    result, window = json.loads(file.read_text()), read_detail(file.parent).power_window
    assert window is not None and result["energy"].keys() >= {"external"}
    external, seconds = result["energy"]["external"], window[1] - window[0]
    watts = 100 + SLOPE * ((window[0] + window[1]) / 2 - begin_s)
    assert external["gross_joules_per_sample"] == pytest.approx(watts * seconds / result["samples"], rel=0.02)
    assert 100 + SLOPE * 30 < external["idle_watts"] < watts
    net = (watts - external["idle_watts"]) * seconds / result["samples"]
    assert external["net_joules_per_sample"] == pytest.approx(net, rel=0.02)
    assert "at rest first" in done.err and "energy per sample, SingleStream: " in done.out


def test_a_log_on_another_clock_ends_a_command_with_the_offset_before_its_runs(tmp_path: Path) -> None:
    begin = time.time() - 3600
    (tmp_path / "meter.csv").write_text("".join(f"{begin + at},100\n" for at in range(7200)))

    done = run_python("-m", "sut", "run", *SIMULATED, "--time", "1", "--power-log", "meter.csv", cwd=tmp_path)

    assert (done.code, len(done.errors)) == (1, 1) and not [*tmp_path.rglob(FILE)]
    assert "its clock is off by +35" in done.errors[0] and "its last line is in the future" in done.errors[0]


def test_a_meter_that_has_stopped_is_told_of_and_the_result_is_kept(tmp_path: Path) -> None:
    with meter(tmp_path / "meter.csv"):
        pass

    done = run_python("-m", "sut", "run", *SIMULATED, "--time", "1", "--power-log", "meter.csv", cwd=tmp_path)

    [file] = (tmp_path / "output").rglob(FILE)
    result = json.loads(file.read_text())
    assert (done.code, len(done.errors)) == (1, 1)
    assert "does not cover the run: it ends " in done.errors[0] and "no line came in 5 s" in done.err
    assert (result["valid"], result["energy"]) == (True, NOTHING) and result["metric"]["value"]


def test_a_log_that_is_not_there_ends_a_command_before_it_begins(tmp_path: Path) -> None:
    for command in (("run",), ("study", "energy")):
        done = run_python("-m", "sut", *command, "--power-log", "none.csv", cwd=tmp_path)
        assert (done.code, done.out, len(done.errors)) == (1, "", 1)
        assert "power log none.csv: no such file; start the meter before the command" in done.errors[0]


@pytest.mark.slow
def test_the_study_has_rows_and_a_page(tmp_path: Path) -> None:
    words = ("--rounds", "1", "--seconds", "1", "--dataset", "demo", "--power-log", "meter.csv", "--json")
    own = ("--backend", "simulated", "--set", "backend_options.a_ms=50", "--lanes", "1", "--max-batchsize", "1")

    with meter(tmp_path / "meter.csv", slope=0):
        done = run_python("-m", "sut", "study", "energy", *own, "--preprocess", "simulated", *words, cwd=tmp_path)

    assert done.code == 0, done.err
    [row] = json.loads(done.out)["rows"]
    external = row["energy"]["external"]
    assert external["gross_joules_per_sample"] == pytest.approx(100 / row["samples_per_second"], rel=0.02)
    folder = tmp_path / "output/study-energy"
    assert json.loads((folder / "study.json").read_text())["rows"] == [row]
    assert "what a picture takes" in (folder / "report.html").read_text()
