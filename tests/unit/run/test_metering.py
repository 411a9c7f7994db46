"""The energy of a run on planted truth: meters of a known power in a world of their own time, and runs over them."""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from sut.cli.console import Console
from sut.config import make_config
from sut.errors import ExitCode
from sut.mlperf.logs import read_detail
from sut.pipeline.assembly import Assembly
from sut.results.collected import read_result
from sut.results.energy import Energy
from sut.results.schema import FILE, PAGE, Result
from sut.run.energy import metering, meters
from sut.run.energy.metering import Idle, Metering
from sut.run.runner import run_all
from tests.nvidia import FIRST, FakeNvml
from tests.unit.run.test_energy import BEGIN, zone

IDLE_W, BUSY_W = {"cpu": 30.0, "gpu": 50.0}, {"cpu": 100.0, "gpu": 250.0}
STARTS = BEGIN + 20
"""When the machine gets busy."""
RANGE_J = 40.0
"""After so many joules the CPU's counter begins again: several times a second of the planted world's."""


class World:
    """A time of its own: a tenth of a second passes with each reading of the GPU's counter, which shows its middle."""

    def __init__(self, powercap: Path) -> None:
        self.now = BEGIN
        self._moved = threading.Condition()
        self._cpu = zone(powercap, "intel-rapl:0", "0", most=int(RANGE_J * 1e6))

    def time(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        until = self.now + seconds
        with self._moved:
            assert self._moved.wait_for(lambda: self.now >= until, 60)

    def joules(self, kind: str) -> float:
        busy_s = max(0.0, self.now - STARTS)
        return IDLE_W[kind] * (self.now - BEGIN - busy_s) + BUSY_W[kind] * busy_s

    def count(self) -> int:
        """Millijoules of the GPU; the CPU's counter goes on with it."""
        with self._moved:
            self.now += 0.05
            self._cpu.write_text(f"{int(1e6 * (self.joules('cpu') % RANGE_J))}\n")
            counted = int(1000 * self.joules("gpu"))
            self.now += 0.05
            self._moved.notify_all()
            return counted


@pytest.fixture
def world(machine: FakeNvml, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> World:
    made = World(tmp_path / "powercap")
    machine.answers[f"GPU-{FIRST}"]["TotalEnergyConsumption"] = made.count
    for module in (meters, metering):
        monkeypatch.setattr(module, "time", SimpleNamespace(time=made.time, sleep=made.sleep, monotonic=made.time))
    return made


def test_gross_and_net_of_cpu_and_gpu_are_what_was_planted(world: World, tmp_path: Path) -> None:
    said: list[str] = []
    log = tmp_path / "meter.csv"
    log.write_text("".join(f"{BEGIN + at},{400 if BEGIN + at < STARTS else 1000}\n" for at in range(200)))

    metered = Metering([0], log, said.append)
    again = Metering([0], log, said.append)
    with again:
        world.sleep(STARTS + 1.2 - world.now)
        window = (world.now, world.now + 7.3)
        world.sleep(8)
    energy, notes = again.energy(window, 50)

    assert said == ["energy: 5 s at rest first, for what the machine draws when idle"] and metered is not again
    assert notes == [] and energy is not None
    assert {kind: each.source for kind, each in energy.items()} == {
        "cpu": "RAPL, packages", "gpu": "NVML's energy counter", "external": "power log"
    }  # fmt: skip
    for kind, (idle, busy) in {
        "cpu": (30.0, 100.0), "gpu": (50.0, 250.0), "external": (400.0, 1000.0)
    }.items():  # fmt: skip
        found = energy[kind]
        assert found.gross_joules_per_sample == pytest.approx(busy * 7.3 / 50, rel=0.02)
        assert found.net_joules_per_sample == pytest.approx((busy - idle) * 7.3 / 50, rel=0.02)
        assert found.idle_watts == pytest.approx(idle, rel=0.02)


@pytest.mark.parametrize("trouble", ["fell silent", "fell"])
def test_a_gpu_whose_counter_wraps_or_fails_in_the_run_is_a_note(trouble: str, world: World, machine: FakeNvml) -> None:
    with Metering([0], None, lambda said: None) as metered:
        window, ends = (world.now, world.now + 5), world.now + 2

        def spoilt() -> int | None:
            counted = world.count()
            return counted if world.now < ends else None if trouble == "fell silent" else 1

        machine.answers[f"GPU-{FIRST}"]["TotalEnergyConsumption"] = spoilt
        world.sleep(2)
    energy, notes = metered.energy(window, 10)

    assert notes[-1] == f"energy of the GPU is unknown: cuda:0: its energy counter {trouble}"
    assert "gpu" not in (energy or {})


def test_one_of_two_gpus_that_tells_nothing_leaves_no_figure_of_the_other(machine: FakeNvml) -> None:
    with Metering([0, 2], None, lambda said: None) as metered:
        pass
    assert metered.energy((BEGIN, BEGIN + 1), 1) == (None, ["energy of the GPU is unknown: NVML does not know cuda:2"])


def test_without_nvml_and_its_package_there_is_a_note_what_to_install(
    machine: FakeNvml, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with Metering([0], None, lambda said: None) as metered:
        pass
    [note] = metered.energy((BEGIN, BEGIN + 1), 1)[1]
    assert note == "energy of the GPU is unknown: nvidia-ml-py is not installed: pip install nvidia-ml-py"


@pytest.mark.parametrize("comes", [True, False])
def test_the_last_line_of_a_log_is_waited_for(
    comes: bool, machine: FakeNvml, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    log, now = tmp_path / "meter.csv", [BEGIN + 10]

    def sleep(seconds: float) -> None:
        now[0] += seconds
        if comes and now[0] > BEGIN + 11:
            log.write_text(f"{BEGIN - 1},50\n{BEGIN + 4},50\n{BEGIN + 8},50\n{BEGIN + 11},50\n")

    monkeypatch.setattr(metering, "time", SimpleNamespace(time=lambda: now[0], sleep=sleep))
    monkeypatch.setattr(metering, "_IDLE", [Idle(frozenset(), {}, (BEGIN - 1, BEGIN))])
    log.write_text(f"{BEGIN - 1},50\n{BEGIN + 4},50\n{BEGIN + 8},50\n")
    metered = Metering([], log, lambda said: None)

    energy, notes = metered.energy((BEGIN, BEGIN + 9), 3)

    if comes:
        assert energy is not None and energy["external"].gross_joules_per_sample == pytest.approx(150) and notes == []
    else:
        assert energy is None and "its clock is off by -1.0 s at the least" in notes[0] and now[0] < BEGIN + 15


def test_a_log_that_begins_with_the_run_has_no_net(
    machine: FakeNvml, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    log = tmp_path / "meter.csv"
    log.write_text("".join(f"{BEGIN + at},50\n" for at in range(10)))
    monkeypatch.setattr(metering, "_IDLE", [Idle(frozenset(), {}, (BEGIN - 5, BEGIN))])

    energy, [note] = Metering([], log, lambda said: None).energy((BEGIN + 1, BEGIN + 4), 3)

    assert energy == {"external": Energy("power log", pytest.approx(50), None, None)}
    assert note.startswith("net energy is unknown: before the runs, power log ")


def run(tmp_path: Path, **more: object) -> tuple[ExitCode, Result, Path]:
    """A run on a device that sleeps, watched by this process; its result and where that lies."""
    planted = {"backend": "simulated", "preprocess": "simulated", "backend_options": {"a_ms": 5, "b_ms": 0}}
    config = make_config({**planted, "time_s": 0.3, "output": str(tmp_path / "out"), **more})
    code = run_all([config], Console(), "a test")
    [file] = (tmp_path / "out").rglob(FILE)
    return code, read_result(file), file.parent


def test_a_run_has_the_energy_of_loadgens_window(
    machine: FakeNvml, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Assembly, "gpus", [0])
    monkeypatch.setattr(metering, "IDLE_S", 0.2)
    machine.answers[f"GPU-{FIRST}"]["TotalEnergyConsumption"] = lambda: int(250_000 * (time.time() - 1.7e9))

    code, result, folder = run(tmp_path)

    assert (code, result.valid) == (ExitCode.OK, True)
    window = read_detail(folder).power_window
    assert window is not None and result.energy is not None and result.energy.keys() == {"gpu"}
    gpu = result.energy["gpu"]
    assert gpu.gross_joules_per_sample == pytest.approx(250 * (window[1] - window[0]) / result.samples, rel=0.02)
    assert gpu.idle_watts == pytest.approx(250, rel=0.02)
    line = f"energy per sample, SingleStream: GPU {gpu.gross_joules_per_sample:.4g} J, net "
    assert line in capsys.readouterr().out and line in next((tmp_path / "out").rglob(PAGE)).read_text()


def test_a_meter_that_fails_in_a_run_does_not_fail_it(
    machine: FakeNvml, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Assembly, "gpus", [0])
    monkeypatch.setattr(metering, "IDLE_S", 0.0)
    left: list[int | None] = [*range(30)]
    machine.answers[f"GPU-{FIRST}"]["TotalEnergyConsumption"] = lambda: left.pop(0) if left else None

    code, result, _ = run(tmp_path)

    why = "energy of the GPU is unknown: cuda:0: its energy counter fell silent"
    assert (code, result.valid, result.energy) == (ExitCode.OK, True, None) and why in result.notes
    assert f"SingleStream performance: {why}" in capsys.readouterr().err


def test_where_nothing_can_be_read_nobody_speaks_of_joules(
    machine: FakeNvml, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, result, folder = run(tmp_path)

    assert (code, result.energy) == (ExitCode.OK, None) and result.cpu_seconds_per_sample
    shown = capsys.readouterr()
    texts = [shown.out, shown.err, *(path.read_text() for path in (folder / FILE, *(tmp_path / "out").rglob(PAGE)))]
    assert len(texts) == 4 and not any("joule" in text.lower() for text in texts)
    assert "CPU ms" in shown.out and "at rest" not in shown.err
