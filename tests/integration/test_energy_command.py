"""``--power-log``: the log of an external meter that lay beside a run, which needs no hardware."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from sut.mlperf.logs import read_detail
from sut.results.schema import FILE
from tests.children import run_python

SIMULATED = ("--backend", "simulated", "--preprocess", "simulated", "--set", "backend_options.a_ms=10")
SLOPE = 0.5
"""Watts that the meter shows more each second: between any two moments the mean is that of the two."""


def log(path: Path, off_s: float = 0.0, slope: float = SLOPE) -> float:
    """What a meter writes before a run and for as long as that may take, from 100 W on; returns when that begins.

    Its clock is so far off.
    """
    begin = int(time.time()) - 30
    path.write_text("".join(f"{begin + at + off_s},{100 + slope * at}\n" for at in range(1200)))
    return begin


def test_a_run_has_the_area_below_the_log_in_loadgens_window(tmp_path: Path) -> None:
    begin_s = log(tmp_path / "meter.csv")

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


def test_a_log_on_another_clock_is_refused_with_the_offset_and_the_result_is_kept(tmp_path: Path) -> None:
    log(tmp_path / "meter.csv", off_s=-7200)

    done = run_python("-m", "sut", "run", *SIMULATED, "--time", "1", "--power-log", "meter.csv", cwd=tmp_path)

    [file] = (tmp_path / "output").rglob(FILE)
    result = json.loads(file.read_text())
    assert (done.code, len(done.errors)) == (1, 1)
    assert "its clock is off by -2 h, as from another time zone" in done.errors[0]
    assert (result["valid"], result["energy"]) == (True, None) and result["metric"]["value"]


def test_a_log_that_is_not_there_ends_a_command_before_it_begins(tmp_path: Path) -> None:
    for command in (("run",), ("study", "energy")):
        done = run_python("-m", "sut", *command, "--power-log", "none.csv", cwd=tmp_path)
        assert (done.code, done.out, len(done.errors)) == (1, "", 1)
        assert "power log none.csv: no such file; start the meter before the command" in done.errors[0]


@pytest.mark.slow
def test_the_study_has_rows_and_a_page(tmp_path: Path) -> None:
    log(tmp_path / "meter.csv", slope=0)
    words = ("--rounds", "1", "--seconds", "1", "--dataset", "demo", "--power-log", "meter.csv", "--json")
    own = ("--backend", "simulated", "--set", "backend_options.a_ms=50", "--lanes", "1", "--max-batchsize", "1")

    done = run_python("-m", "sut", "study", "energy", *own, "--preprocess", "simulated", *words, cwd=tmp_path)

    assert done.code == 0, done.err
    [row] = json.loads(done.out)["rows"]
    external = row["energy"]["external"]
    assert external["gross_joules_per_sample"] == pytest.approx(100 / row["samples_per_second"], rel=0.02)
    folder = tmp_path / "output/study-energy"
    assert json.loads((folder / "study.json").read_text())["rows"] == [row]
    assert "what a picture takes" in (folder / "report.html").read_text()
