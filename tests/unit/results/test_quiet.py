"""What others took of the cores and how long a process waited for one, from drawn counters of the kernel."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console as RichConsole

from sut.cli.console import Console
from sut.cli.doctor import report as doctor
from sut.errors import ExitCode
from sut.results import quiet
from sut.results.quiet import Look, Quiet, between, look
from sut.results.schema import Result
from tests.unit.process.test_cgroup import plant

PARENT, WORKER, HELPER, STRANGER = 10, 11, 12, 13
RAN_S = 10.0
TICKS = int(RAN_S * os.sysconf("SC_CLK_TCK"))
"""Of one core while a run goes on."""


def process(parent: int, *ticks: int) -> str:
    return f"7 (a (name) x) S {parent} {' '.join('0' * 9)} {' '.join(map(str, ticks))} 20 0 1 0"


@pytest.fixture
def moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Looks at a machine of which files are drawn; the process may run on cores 0 and 2."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 2})

    def at(seconds: float, files: dict[str, str]) -> Look:
        monkeypatch.setattr(quiet.time, "monotonic", lambda: 100 + seconds)
        return look(PARENT, plant(tmp_path, files))

    return at


START = {
    "proc/stat": f"cpu  9 9\ncpu0 5 0 0 0 0 0 0 7 0 0\ncpu1{10 * ' 0'}\ncpu2{10 * ' 0'}\n",
    f"proc/{PARENT}/stat": process(1, 50, 5, 7, 1),
    f"proc/{WORKER}/stat": process(PARENT, 0, 0, 0, 0),
    f"proc/{STRANGER}/stat": process(1, 77, 0, 0, 0),
    "proc/self/task/11/schedstat": "1000000 0 1\n",
}
IDLE = TICKS - 700
END = {
    "proc/stat": f"cpu  1 2 3\ncpu0 305 100 90 {IDLE} 100 60 50 107 40 9\ncpu1 {TICKS} 0 0 0 0 0 0 0 0 0\n"
    f"cpu2 0 0 0 {TICKS} 0 0 0 0 0 0\nintr 1 2\n",
    # Of a process that has ended its parent has the time.
    f"proc/{PARENT}/stat": process(1, 60, 5, 27, 1),
    f"proc/{WORKER}/stat": process(PARENT, 90, 10, 0, 0),
    f"proc/{HELPER}/stat": process(WORKER, 60, 10, 0, 0),
    f"proc/{STRANGER}/stat": process(1, 400, 0, 0, 0),
    "proc/self/task/11/schedstat": "1001000000 30000000 11\n",
}


def test_others_are_whoever_worked_on_our_cores_and_is_not_of_our_processes(moment: Any) -> None:
    found = between(moment(0, START), moment(RAN_S, END))

    ours = 30 + 100 + 70
    assert found.others_share == pytest.approx((600 - ours) / (2 * TICKS))
    assert found.steal_share == pytest.approx(100 / (2 * TICKS))
    assert found.busy_share == pytest.approx(600 / (2 * TICKS))


@pytest.mark.parametrize(
    ("others", "busy", "is_quiet"),
    [
        (0.007, 0.9, True),
        (0.07, 0.9, False),
        (0.05, 0.1, False),
        (0.0, 1.0, True),
        (0.05, None, False),
        (0.0, 0.0, False),
    ],
)
def test_waiting_for_threads_of_our_own_is_no_disturbance(others: float, busy: float | None, is_quiet: bool) -> None:
    assert Quiet(others, 0.28, 0.0, 500_000, busy).is_quiet is is_quiet


def test_the_wait_is_that_of_all_threads_that_are_still_there(moment: Any) -> None:
    first = {
        "proc/self/task/11/schedstat": "1000 500 1\n",
        "proc/self/task/12/schedstat": "7000000 9000000 900\n",
        "proc/self/task/13/schedstat": "5000 0 3\n",
    }
    before = moment(0, START | first)
    gone = {"proc/self/task/12/schedstat": ""}
    # Number 13 is another thread by now, and 14 a new one.
    last = {
        "proc/self/task/11/schedstat": "2001000 40500 3\n",
        "proc/self/task/13/schedstat": "1000 1000 1\n",
        "proc/self/task/14/schedstat": "1999000 79000 1\n",
    }

    found = between(before, moment(RAN_S, END | gone | last))

    assert (found.own_wait_share, found.own_wait_mean_ns) == (120_000 / 4_000_000, 30_000)


@pytest.mark.parametrize(
    ("start", "end", "seconds", "unknown"),
    [
        ({"proc/stat": ""}, {"proc/stat": ""}, RAN_S, {"others_share", "steal_share"}),
        ({}, {"proc/stat": START["proc/stat"]}, RAN_S, {"others_share", "steal_share"}),
        ({}, {"proc/stat": END["proc/stat"].replace("cpu2", "cpu3")}, RAN_S, {"others_share", "steal_share"}),
        ({}, {"proc/stat": END["proc/stat"].replace("cpu2", "cpu2 x")}, RAN_S, {"others_share", "steal_share"}),
        ({}, {}, 0.05, {"others_share", "steal_share"}),
        ({f"proc/{PARENT}/stat": ""}, {}, RAN_S, {"others_share"}),
        ({}, {f"proc/{PARENT}/stat": ""}, RAN_S, {"others_share"}),
        ({}, {f"proc/{PARENT}/stat": process(1, 60, 5, 27, 1).replace("27", "?")}, RAN_S, {"others_share"}),
        ({}, {"proc/self/task/11/schedstat": ""}, RAN_S, {"own_wait_share"}),
        ({}, {"proc/self/task/11/schedstat": "hidden"}, RAN_S, {"own_wait_share"}),
        ({}, {"proc/self/task/11/schedstat": START["proc/self/task/11/schedstat"]}, RAN_S, {"own_wait_share"}),
    ],
)
def test_what_cannot_be_told_is_unknown_and_not_quiet_by_default(
    moment: Any, start: dict[str, str], end: dict[str, str], seconds: float, unknown: set[str]
) -> None:
    idle = END["proc/stat"].replace("cpu0 305", "cpu0 55").replace(" 107 ", " 7 ")
    calm = END | {"proc/stat": idle, "proc/self/task/11/schedstat": "9000000 0 2"}

    found = between(moment(0, START | start), moment(seconds, calm | end))

    shares = ("others_share", "own_wait_share", "steal_share")
    assert {name for name in shares if getattr(found, name) is None} == unknown
    assert found.is_quiet is None
    assert "quiet or not is unknown: " in found.line()


def test_the_rest_is_told_where_it_can_be_read(moment: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    cpus = "sys/devices/system/cpu/"
    counters = {f"{cpus}cpu{core}/thermal_throttle/core_throttle_count": str(core) for core in range(3)}
    clocks = {f"{cpus}cpu{core}/cpufreq/scaling_cur_freq": str(1_000_000 * (core + 1)) for core in range(3)}
    plain = between(moment(0, START), moment(RAN_S, END))

    first = moment(0, START | counters)
    found = between(first, moment(RAN_S, END | clocks | {f"{cpus}cpu2/thermal_throttle/core_throttle_count": "9"}))

    assert (plain.thermal_throttles, plain.frequency_mhz) == (None, None)
    assert (found.thermal_throttles, found.frequency_mhz) == (7, 2000.0)
    assert found.involuntary_switches is not None and found.involuntary_switches >= 0


@pytest.mark.parametrize(
    ("others", "waited", "steal", "mean_ns", "is_quiet"),
    [
        (0.1, 0.02, 0.01, None, True),
        (0.1001, 0.0, 0.0, None, False),
        (0.0, 0.0201, 0.0, None, False),
        (0.0, 0.0, 0.0101, None, False),
        (0.0, 0.3, 0.0, quiet.WAKING_NS, True),
        (0.0, 0.3, 0.0, quiet.WAKING_NS + 1, False),
        (None, 0.0, 0.0, 1, None),
        (0.0, None, 0.0, None, None),
        (None, None, 0.5, None, False),
        (0.5, None, None, None, False),
    ],
)
def test_what_is_not_quiet(
    others: float | None, waited: float | None, steal: float | None, mean_ns: int | None, is_quiet: bool | None
) -> None:
    assert Quiet(others, waited, steal, mean_ns).is_quiet is is_quiet


@pytest.mark.parametrize(
    ("found", "line"),
    [
        (
            Quiet(0.371, 0.1249, 0.0),
            "not quiet: others used 37 % of the cores, own wait for one 12 % of its CPU time, steal 0 %",
        ),
        (
            Quiet(0.0, 0.002, 0.0144),
            "not quiet: others used 0 % of the cores, own wait for one 0.2 % of its CPU time, steal 1.4 %",
        ),
        (
            Quiet(0.04, 1.5, 0.0, 100),
            "quiet: others used 4 % of the cores, own wait for one 1.5 times its CPU time, steal 0 %",
        ),
        (
            Quiet(None, 0.0, None),
            "quiet or not is unknown: others used an unknown part of the cores, own wait for one 0 % of its CPU time, "
            "steal an unknown part",
        ),
    ],
)
def test_it_is_told_in_one_line(found: Quiet, line: str) -> None:
    assert found.line() == line


BURN = "import time\nwhile time.process_time() < 0.3: pass"


def test_what_our_own_children_use_is_not_of_others_however_they_end() -> None:
    before = look(os.getpid())
    subprocess.run([sys.executable, "-c", BURN], check=True)
    after = look(os.getpid())

    assert before.tree_ticks is not None and after.tree_ticks is not None
    assert (after.tree_ticks - before.tree_ticks) / os.sysconf("SC_CLK_TCK") >= 0.25


RESULT: dict[str, Any] = {
    **{"model": "m", "weights": None, "backend": "b", "device": "cpu", "preprocess": "p", "recipe": {}},
    **{"precision": "fp32", "boundary": "tensor", "scenario": "Offline", "valid": True, "invalid_reasons": []},
    **{"failed_samples": 0, "samples": 1, "config": {}, "started": "now"},
}
BUSY = Quiet(0.5, 0.2, 0.0, 3_000_000, 0.9, 17, before=Quiet(None, None, None))


def test_a_result_has_it_and_can_be_read_again() -> None:
    written = Result(schema=1, mode="performance", quiet=asdict(BUSY), **RESULT).to_json()

    assert Result.model_validate_json(written, strict=True).quiet == BUSY
    assert Result(schema=1, mode="performance", **RESULT).quiet is None


@pytest.mark.parametrize("change", [{"others_share": "0.1"}, {"others": 0.1}, {"before": {"others_share": "0"}}])
def test_a_result_in_which_it_was_edited_is_refused(change: dict[str, Any]) -> None:
    content = {"schema": 1, "mode": "performance", **RESULT, "quiet": asdict(BUSY) | change}

    with pytest.raises(ValueError, match="quiet"):
        Result.model_validate_json(json.dumps(content), strict=True)


@pytest.mark.parametrize(
    ("mode", "found", "shown"),
    [("performance", BUSY, [f"Offline performance: {BUSY.line()}"]), ("accuracy", BUSY, [])]
    + [("performance", each, []) for each in (None, Quiet(0.0, 0.0, 0.0), Quiet(None, None, None))],
)
def test_a_run_says_so_only_where_it_was_not_quiet_and_counts(mode: str, found: Quiet | None, shown: list[str]) -> None:
    console, text = Console(), io.StringIO()
    console.err = RichConsole(file=text, width=200)

    console.result(Result(schema=1, mode=mode, quiet=found, **RESULT), Path("output"), ExitCode.OK, None)

    assert text.getvalue().splitlines() == shown


@pytest.mark.parametrize(
    ("found", "status"), [(BUSY, "warning"), (Quiet(0.0, 0.0, 0.0), "ok"), (Quiet(None, None, None), "absent")]
)
def test_doctor_says_how_quiet_the_machine_is_now(monkeypatch: pytest.MonkeyPatch, found: Quiet, status: str) -> None:
    monkeypatch.setattr(doctor, "between", lambda *looks: found)

    check = next(check for check in doctor.check_machine(Path("/")) if check.name == "quiet now")

    assert (check.status, check.found, bool(check.hint)) == (status, found.line(), status == "warning")
