"""The open loop against LoadGen's Server: the same arrivals at the same planted device give the same latencies."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from sut.config import make_config
from sut.pipeline.assembly import assemble
from sut.studies.driving.drive import drive
from sut.studies.driving.driven import Drive
from sut.studies.driving.loads import FromFile, Poisson
from tests.children import results, run_sut

_LANES = 3
"""Each with a device of its own: the more, the sooner have the requests come that LoadGen's early stopping asks for."""
_RATE = 25.0 * _LANES
_SCHEDULED = re.compile(r'"name":"Sample","cat":"default","ph":"b".*?"ts":([\d.]+)')


@pytest.mark.timed
@pytest.mark.slow
def test_the_open_loop_measures_what_loadgens_server_does(tmp_path: Path) -> None:
    """With LoadGen's own times of arrival; those that are drawn here are another sample of the same process."""
    planted = {"a_ms": 50, "b_ms": 5, "devices": _LANES}
    child = run_sut(
        *("--backend", "simulated", "--scenario", "Server", "--qps", str(_RATE), "--time", "2", "--max-latency", "1"),
        *("--max-batchsize", "4", "--lanes", str(_LANES), "--set", "batching=fifo", "--debug"),
        *(word for name, value in planted.items() for word in ("--set", f"backend_options.{name}={value}")),
        cwd=tmp_path,
    )
    assert child.code == 0, child.err
    [result] = results(tmp_path).values()
    trace = (result["directory"] / "mlperf_log_trace.json").read_text()
    seconds = sorted(float(found) / 1e6 for found in _SCHEDULED.findall(trace))
    assert len(seconds) == result["samples"] >= 500
    arrivals = tmp_path / "arrivals.txt"
    arrivals.write_text("".join(f"{each - seconds[0]:.9f}\n" for each in seconds))

    settings = {"backend": "simulated", "backend_options": planted, "max_batchsize": 4, "batching": "fifo"}
    settings |= {"lanes": _LANES}
    loads = [FromFile(arrivals), Poisson(_RATE, seed=1)]
    drives = [Drive(each, seconds) for each, seconds in zip(loads, (40.0 / _LANES, 20.0 / _LANES), strict=True)]
    same, drawn = drive(assemble(make_config(settings)), drives, tmp_path / "driven")

    assert same.ok and same.samples == result["samples"]
    # The tail is a few samples, and whom a busy machine holds up is another one each time.
    for driven, within in ((same, (0.05, 0.15)), (drawn, (0.25, 0.25))):
        found = np.percentile(driven.per_sample().latency_ns, (50, 99))
        for name, value, share in zip(("p50", "p99"), found, within, strict=True):
            assert value == pytest.approx(result["latency_ns"][name], rel=share), (driven.load.words, name)
