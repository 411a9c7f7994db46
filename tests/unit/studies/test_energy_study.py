"""``sut study energy`` on planted truth: a GPU of known power while devices sleep, and rows of known energies."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from sut.cli.console import BriefConsole
from sut.cli.study_energy import parts_of
from sut.config import make_config
from sut.errors import ExitCode, InputError, RunError, SetupError
from sut.pipeline.assembly import Assembly
from sut.results.energy import Energy
from sut.results.page.page import make_page
from sut.run.energy import metering
from sut.studies.breakdown.pictures import Pictures
from sut.studies.driving.driven import Drive, Driven
from sut.studies.driving.loads import Closed
from sut.studies.energy import study
from sut.studies.energy.cell import Cell
from sut.studies.energy.page import study_of
from sut.studies.energy.report import rows_of, words_of
from sut.studies.energy.study import base_of, run_energy
from tests.nvidia import FIRST, FakeNvml

PLANTED = {"backend": "simulated", "backend_options": {"a_ms": 50, "b_ms": 0}, "lanes": 1, "max_batchsize": 1}
DEMO = [Pictures("medium", {"dataset": "demo"})]


def driven(cpu_j: float | None, gpu_j: float | None, cpu_s: float = 1.0, **more: Any) -> Driven:
    """A hundred samples in ten seconds, at so much for each of them."""
    joules = {"cpu": cpu_j, "gpu": gpu_j}
    energy = {kind: Energy("planted", each, each / 2, 7.0) for kind, each in joules.items() if each is not None}
    counts = {"samples": 100, "failed": 0, "first_error": None, "samples_per_second": 10.0, "batch_sizes": {1: 100}}
    rest: dict[str, Any] = {"cost_ns": {}, "cpu_s": 100 * cpu_s, "host_bytes": None, "path": Path()}
    return Driven(0, Closed(1), 10.0, **counts, **rest, energy=energy or None, **more)


def cells(of: Mapping[tuple[str, str], list[Driven]]) -> list[Cell]:
    return [Cell(pictures, name, rounds=rounds) for (pictures, name), rounds in of.items()]


def told_of(rows: list[dict[str, Any]]) -> dict[str, Any]:
    told: dict[str, Any] = {"rows": rows, "model": "efficientnet-lite0", "weights": "trained"}
    return told | {"words": list(words_of(told))}


def test_planted_joules_are_the_medians_and_their_ratio(capsys: pytest.CaptureFixture[str]) -> None:
    spread = (0.98, 1.0, 1.01, 1.02, 0.99)
    planted = {
        ("medium", "opencv"): [driven(2.0 * each, 3.0) for each in spread],
        ("medium", "cuda"): [driven(0.5 * each, 3.0, 0.25) for each in spread],
        ("large", "opencv"): [driven(20.0 * each, 4.0) for each in spread],
        ("large", "cuda"): [driven(2.0 * each, 6.0) for each in spread],
    }
    found = cells(planted)
    found[3].reason = "it ended"

    told = told_of(rows_of(found))

    medium, on_gpu, large, _ = told["rows"]
    assert medium["energy"]["cpu"]["gross_joules_per_sample"] == pytest.approx(2.0, rel=0.02)
    assert large["energy"]["cpu"]["net_joules_per_sample"] == pytest.approx(10.0, rel=0.02)
    assert on_gpu["cpu_seconds_per_sample"] == 0.25 and (medium["first"], on_gpu["first"]) == (None, "opencv")
    assert on_gpu["against_first"]["cpu"]["ratio"] == pytest.approx(4.0, rel=0.02)
    assert any(each.startswith("large pictures, CPU energy: cuda against opencv: 10 x") for each in told["words"])
    assert "large pictures, cuda: does not run here: it ended" in told["words"]
    page = make_page([], studies=[study_of(told, "s0")])
    assert page.count('class="st-CPU"') == 8 and page.count('class="st-GPU"') == 4
    assert "medium, opencv: CPU 2 J, GPU 3 J" in page
    for part in parts_of(told):
        assert part


def test_without_meters_there_is_cpu_time_and_no_word_of_joules() -> None:
    told = told_of(rows_of(cells({("medium", "opencv"): [driven(None, None, 0.5)]})))

    assert told["rows"][0]["energy"] is None and told["rows"][0]["cpu_seconds_per_sample"] == 0.5
    assert told["words"][0] == "medium pictures with opencv take 500 ms of CPU time each"
    assert told["words"][1].startswith("energy is not measured: no counter")
    page = make_page([], studies=[study_of(told, "s0")])
    assert "joule" not in page.lower() and "medium, opencv: CPU 500 ms" in page


def test_a_meter_that_failed_in_one_round_leaves_no_median_and_its_reason() -> None:
    why = "energy of the GPU is unknown: cuda:0: its energy counter fell"
    rows = rows_of(cells({("medium", "opencv"): [driven(2.0, 3.0), driven(2.0, None, energy_notes=(why,))]}))

    assert rows[0]["energy"].keys() == {"cpu"} and rows[0]["notes"] == [why]
    assert why in told_of(rows)["words"]


def test_a_gpu_of_known_power_gives_its_power_by_the_rate(machine: FakeNvml, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Assembly, "gpus", [0])
    monkeypatch.setattr(metering, "IDLE_S", 0.2)
    machine.answers[f"GPU-{FIRST}"]["TotalEnergyConsumption"] = lambda: int(250_000 * (time.time() - 1.7e9))
    base = base_of([make_config({**PLANTED, "scenario": "Server"})])

    told, code = run_energy(base, DEMO, ["simulated"], Drive(Closed(1), 1.0), 1, BriefConsole())

    [row] = told["rows"]
    gpu = row["energy"]["gpu"]
    assert code == ExitCode.OK and row["energy"].keys() == {"gpu"} and row["notes"] == []
    assert gpu["gross_joules_per_sample"] == pytest.approx(250 / row["samples_per_second"], rel=0.02)
    assert gpu["idle_watts"] == pytest.approx(250, rel=0.02)


def test_cells_are_measured_by_turns_there_and_back_again(
    machine: FakeNvml, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def at_once(*_: object, ready: Callable[[object], None], **__: object) -> list[Driven]:
        ready(None)
        return [driven(None, None)]

    monkeypatch.setattr(study, "drive", at_once)
    base = base_of([make_config({**PLANTED, "scenario": "Server"})])
    sizes = [Pictures(name, {"dataset": "demo"}) for name in ("medium", "large", "small")]

    run_energy(base, sizes, ["simulated"], Drive(Closed(1), 1.0), 3, BriefConsole())

    told = [line.split(",") for line in capsys.readouterr().err.splitlines() if line.startswith("round ")]
    there = ["medium", "large", "small"]
    assert [line[1].strip() for line in told] == [*there, *reversed(there), *there]


@pytest.mark.parametrize("measured", [0, 1, 4])
def test_an_interrupt_keeps_what_was_measured(
    machine: FakeNvml, monkeypatch: pytest.MonkeyPatch, measured: int
) -> None:
    left = [None] * measured

    def until_then(*_: object, ready: Callable[[object], None], **__: object) -> list[Driven]:
        if not left:
            raise KeyboardInterrupt
        ready(left.pop())
        return [driven(None, None)]

    monkeypatch.setattr(study, "drive", until_then)
    base = base_of([make_config({**PLANTED, "scenario": "Server"})])
    sizes = [Pictures(name, {"dataset": "demo"}) for name in ("medium", "large")]
    begin = partial(run_energy, base, sizes, ["simulated"], Drive(Closed(1), 1.0), 3, BriefConsole())
    if not measured:
        with pytest.raises(KeyboardInterrupt):
            begin()
        return

    told, code = begin()

    assert code == ExitCode.INTERRUPTED and told["words"]
    assert [row["rounds"] for row in told["rows"]] == ([1, 0] if measured == 1 else [2, 2])


def test_a_log_that_is_refused_is_the_exit_code(machine: FakeNvml, monkeypatch: pytest.MonkeyPatch) -> None:
    why = "power log meter.csv does not cover the run: it ends 9.0 s before its end"

    def refused(*_: object, ready: Callable[[object], None], **__: object) -> list[Driven]:
        ready(None)
        return [driven(None, None, energy_notes=(why,))]

    monkeypatch.setattr(study, "drive", refused)
    base = base_of([make_config({**PLANTED, "scenario": "Server"})])

    told, found = run_energy(base, DEMO, ["simulated"], Drive(Closed(1), 1.0), 1, BriefConsole())

    assert found == ExitCode.USAGE and told["rows"][0]["notes"] == [why]


@pytest.mark.parametrize(
    ("error", "code"), [(SetupError("no GPU here"), ExitCode.SETUP), (RunError("it broke"), ExitCode.FAILED)]
)
def test_what_cannot_run_is_a_row_with_its_reason(
    error: Exception, code: ExitCode, machine: FakeNvml, monkeypatch: pytest.MonkeyPatch
) -> None:
    def raising(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(study, "assemble" if code == ExitCode.SETUP else "drive", raising)
    base = base_of([make_config({**PLANTED, "scenario": "Server"})])

    told, found = run_energy(base, DEMO, ["simulated"], Drive(Closed(1), 1.0), 2, BriefConsole())

    assert found == code
    assert [(row["reason"], row["rounds"], row["energy"]) for row in told["rows"]] == [(str(error), 0, None)]


def test_a_mode_or_a_log_that_cannot_be_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="leave out --accuracy"):
        base_of([make_config({"mode": "accuracy"})])
    with pytest.raises(InputError, match="no such file; start the meter"):
        base_of([make_config({"power_log": str(tmp_path / "nothing")})])
