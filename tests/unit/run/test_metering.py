"""The energy of a run on planted truth: meters of a known power in a world of their own time, and runs over them."""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from sut.cli.console import Console
from sut.config import make_config
from sut.errors import ExitCode, InputError
from sut.mlperf.logs import read_detail
from sut.pipeline.assembly import Assembly
from sut.results.collected import read_result
from sut.results.energy import UNMEASURED, Energy, NotMeasured
from sut.results.schema import FILE, PAGE, Result
from sut.run import runner
from sut.run.energy import metering, meters
from sut.run.energy.metering import AtRest, Idle, Metering, measure_idle
from sut.run.runner import run_all
from tests.nvidia import FIRST, SECOND, FakeNvml
from tests.unit.run.test_energy import BEGIN, zone

IDLE_W = {"cpu": 30.0, "other cpu": 10.0, "gpu": 50.0, "other gpu": 20.0, "all": 400.0}
BUSY_W = {"cpu": 100.0, "other cpu": 45.0, "gpu": 250.0, "other gpu": 80.0, "all": 1000.0}
STARTS = BEGIN + 20
"""When the machine gets busy."""
RANGE_J = 40.0
"""After so many joules a CPU's counter begins again: several times a second of the planted world's."""


class World:
    """A time of its own: a tenth of a second passes with each reading of the GPU's counter, which shows its middle.

    There are two GPUs, two sockets, and a meter that writes a line each time.
    """

    def __init__(self, folder: Path) -> None:
        self.now = BEGIN
        self.log = folder / "meter.csv"
        self._moved = threading.Condition()
        names = {"cpu": "intel-rapl:0", "other cpu": "intel-rapl:1"}
        most = int(RANGE_J * 1e6)
        self.cpus = {kind: zone(folder / "powercap", name, "0", most=most) for kind, name in names.items()}

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
        """Millijoules of the GPU; the CPUs' counters go on with it, and the log."""
        with self._moved:
            self.now += 0.05
            for kind, counter in self.cpus.items():
                counter.write_text(f"{int(1e6 * (self.joules(kind) % RANGE_J))}\n")
            with self.log.open("a") as lines:
                lines.write(f"{self.now},{(IDLE_W if self.now < STARTS else BUSY_W)['all']}\n")
            os.utime(self.log, (self.now, self.now))
            counted = int(1000 * self.joules("gpu"))
            self.now += 0.05
            self._moved.notify_all()
            return counted


@pytest.fixture
def world(machine: FakeNvml, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> World:
    made = World(tmp_path)
    machine.answers[f"GPU-{FIRST}"]["TotalEnergyConsumption"] = made.count
    machine.answers[f"GPU-{SECOND}"]["TotalEnergyConsumption"] = lambda: int(1000 * made.joules("other gpu"))
    for module in (meters, metering):
        monkeypatch.setattr(module, "time", SimpleNamespace(time=made.time, sleep=made.sleep, monotonic=made.time))
    return made


def test_gross_and_net_of_cpus_and_gpus_are_what_was_planted(world: World) -> None:
    said: list[str] = []
    rest = AtRest()
    idle = rest.idle([0, 1], world.log, said.append)

    with Metering(rest.idle([0, 1], world.log, said.append), [0, 1], world.log) as metered:
        world.sleep(STARTS + 1.2 - world.now)
        window = (world.now, world.now + 7.3)
        world.sleep(8)
    energy, notes = metered.energy(window, 50)

    assert said == ["energy: 5 s at rest first, for what the machine draws when idle"]
    assert rest.idle([0, 1], world.log, said.append) is idle
    assert notes == [] and energy is not None
    assert {kind: each.source for kind, each in energy.items()} == {
        "cpu": "rapl", "gpu": "nvml", "external": "power_log"
    }  # fmt: skip
    for kind, (idle, busy) in {
        "cpu": (40.0, 145.0), "gpu": (70.0, 330.0), "external": (400.0, 1000.0)
    }.items():  # fmt: skip
        found = energy[kind]
        assert found.gross_joules_per_sample == pytest.approx(busy * 7.3 / 50, rel=0.02)
        assert found.net_joules_per_sample == pytest.approx((busy - idle) * 7.3 / 50, rel=0.02)
        assert found.idle_watts == pytest.approx(idle, rel=0.02)


def test_net_is_unknown_where_one_of_two_gpus_was_not_seen_idle(world: World) -> None:
    with Metering(Idle({"cuda:0": 50.0, "cpu": 40.0}, (BEGIN, BEGIN + 5)), [0, 1], None) as metered:
        window = (world.now, world.now + 2)
        world.sleep(3)
    energy, notes = metered.energy(window, 10)

    assert energy is not None and notes == []
    assert energy["gpu"].gross_joules_per_sample == pytest.approx(70 * 2 / 10, rel=0.02)
    assert (energy["gpu"].net_joules_per_sample, energy["gpu"].idle_watts) == (None, None)
    assert energy["cpu"].net_joules_per_sample == pytest.approx(0, abs=0.2)


def test_a_package_that_cannot_be_read_is_a_note_and_the_other_is_no_figure(world: World) -> None:
    world.cpus.pop("other cpu").write_text("no number")
    with Metering(Idle({}), [0], None) as metered:
        window = (world.now, world.now + 2)
        world.sleep(3)
    energy, [note] = metered.energy(window, 10)

    assert energy is not None and energy.keys() == {"gpu"}
    assert note.startswith("energy of the CPU is unknown: the counter of intel-rapl:1 cannot be read")


@pytest.mark.parametrize("trouble", ["fell silent", "fell"])
def test_a_gpu_whose_counter_wraps_or_fails_in_the_run_is_a_note(trouble: str, world: World, machine: FakeNvml) -> None:
    with Metering(Idle({}), [0], None) as metered:
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
    with Metering(Idle({}), [0, 2], None) as metered:
        pass
    assert metered.energy((BEGIN, BEGIN + 1), 1) == (None, ["energy of the GPU is unknown: NVML does not know cuda:2"])


def test_without_nvml_and_its_package_there_is_a_note_what_to_install(
    machine: FakeNvml, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with Metering(Idle({}), [0], None) as metered:
        pass
    [note] = metered.energy((BEGIN, BEGIN + 1), 1)[1]
    assert note == "energy of the GPU is unknown: nvidia-ml-py is not installed: pip install nvidia-ml-py"


def write(log: Path, *times: float) -> None:
    """Lines of 50 W, of which the last one is written now."""
    log.write_text("".join(f"{BEGIN + at},50\n" for at in times))
    os.utime(log, (BEGIN + times[-1], BEGIN + times[-1]))


@pytest.mark.parametrize("comes", [True, False])
def test_the_last_line_of_a_log_is_waited_for(
    comes: bool, machine: FakeNvml, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    log, now = tmp_path / "meter.csv", [BEGIN + 10]

    def sleep(seconds: float) -> None:
        now[0] += seconds
        if comes and now[0] > BEGIN + 11:
            write(log, -1, 4, 8, 11)

    monkeypatch.setattr(metering, "time", SimpleNamespace(time=lambda: now[0], sleep=sleep))
    write(log, -1, 4, 8)

    energy, notes = Metering(Idle({}, (BEGIN - 1, BEGIN)), [], log).energy((BEGIN, BEGIN + 9), 3)

    if comes:
        assert energy is not None and energy["external"].gross_joules_per_sample == pytest.approx(150) and notes == []
    else:
        assert energy is None and "it ends 1.0 s before its end" in notes[0] and now[0] < BEGIN + 15


def test_a_log_that_begins_with_the_run_has_no_net(machine: FakeNvml, tmp_path: Path) -> None:
    log = tmp_path / "meter.csv"
    write(log, *range(10))
    gross = {"external": Energy("power_log", pytest.approx(50), None, None)}

    energy, [note] = Metering(Idle({}, (BEGIN - 5, BEGIN)), [], log).energy((BEGIN + 1, BEGIN + 4), 3)

    assert energy == gross and note.startswith("net energy is unknown: before the runs, power log ")
    assert Metering(Idle({}), [], log).energy((BEGIN + 1, BEGIN + 4), 3) == (gross, [])


def test_a_log_on_another_clock_has_no_joules_though_it_covers_the_run(machine: FakeNvml, tmp_path: Path) -> None:
    log, now = tmp_path / "meter.csv", time.time()
    log.write_text("".join(f"{now + at},50\n" for at in range(-3600, 3600)))

    energy, [note] = Metering(Idle({}), [], log).energy((now - 10, now), 3)

    assert energy is None and "its clock is off by +1 h, as from another time zone" in note


def test_a_log_is_read_after_the_seconds_at_rest(
    machine: FakeNvml, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(metering, "IDLE_S", 0.01)
    log, said = tmp_path / "meter.csv", list[str]()
    write(log, 0, 1)  # long ago

    measure_idle([], log, said.append)

    assert "no line came in 0.01 s" in said[-1]
    for none in (b"", b"time,watts\n", b"\x00\xff\n\x01\n"):
        log.write_bytes(none)
        with pytest.raises(InputError, match="power log"):
            measure_idle([], log, said.append)
    log.write_text("".join(f"{time.time() + at},50\n" for at in range(-2, 600)))
    with pytest.raises(InputError, match=r"its clock is off by \+"):
        measure_idle([], log, said.append)


def run(tmp_path: Path, **more: object) -> tuple[ExitCode, Result, Path]:
    """A run on a device that sleeps, watched by this process; its result and where that lies."""
    planted = {"backend": "simulated", "preprocess": "simulated", "backend_options": {"a_ms": 5, "b_ms": 0}}
    config = make_config({**planted, "time_s": 0.3, "output": str(tmp_path / "out"), **more})
    code = run_all([config], Console(), "a test")
    [file] = (tmp_path / "out").rglob(FILE)
    return code, read_result(file), file.parent


def test_a_run_has_the_energy_of_loadgens_window_and_idle_is_from_before_the_machine_is_warm(
    machine: FakeNvml, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Assembly, "gpus", [0])
    monkeypatch.setattr(metering, "IDLE_S", 0.2)
    warm_s: list[float] = []
    monkeypatch.setattr(runner, "compared_with_fp32", lambda *_: warm_s.append(time.time()))
    begin_s = time.time()

    def millijoules() -> int:
        """50 W at first, and 250 from where labels are compared on."""
        now_s = time.time()
        return int(50_000 * (now_s - begin_s) + sum(200_000 * (now_s - each) for each in warm_s))

    machine.answers[f"GPU-{FIRST}"]["TotalEnergyConsumption"] = millijoules

    code, result, folder = run(tmp_path)

    assert (code, result.valid) == (ExitCode.OK, True)
    window = read_detail(folder).power_window
    gpu = result.energy["gpu"]
    assert window is not None and isinstance(gpu, Energy)
    assert result.energy == {"cpu": NotMeasured(), "gpu": gpu}
    assert gpu.gross_joules_per_sample == pytest.approx(250 * (window[1] - window[0]) / result.samples, rel=0.02)
    assert gpu.idle_watts == pytest.approx(50, rel=0.02)
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
    assert (code, result.valid, result.energy) == (ExitCode.OK, True, UNMEASURED) and why in result.notes
    assert f"SingleStream performance: {why}" in capsys.readouterr().err


def test_where_nothing_can_be_read_nobody_speaks_of_joules(
    machine: FakeNvml, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, result, folder = run(tmp_path)

    assert (code, result.energy) == (ExitCode.OK, UNMEASURED) and result.cpu_seconds_per_sample
    shown = capsys.readouterr()
    texts = [shown.out, shown.err, *(path.read_text() for path in (folder / FILE, *(tmp_path / "out").rglob(PAGE)))]
    assert len(texts) == 4 and not any("joule" in text.lower() for text in texts)
    assert "CPU ms" in shown.out and "at rest" not in shown.err
