"""Meters: counters that wrap or may not be read, and a meter's log of known area, with gaps or on another clock."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest

from sut.errors import InputError
from sut.run.energy import meters
from sut.run.energy.gpus import GpuCounter
from sut.run.energy.meters import Kind, Meter, Readings, Recording
from sut.run.energy.power_log import check_power_log, read_power_log
from sut.run.energy.rapl import Cpu, counters, unreadable

BEGIN = 1_764_444_444.0


def zone(folder: Path, name: str, counter: str, what: str = "package-0", most: int = 1000) -> Path:
    made = folder / name
    made.mkdir(parents=True)
    (made / "name").write_text(f"{what}\n")
    (made / "energy_uj").write_text(f"{counter}\n")
    (made / "max_energy_range_uj").write_text(f"{most}\n")
    return made / "energy_uj"


def test_packages_are_added_up_and_parts_of_them_are_not(tmp_path: Path) -> None:
    one, two = zone(tmp_path, "intel-rapl:0", "100"), zone(tmp_path, "intel-rapl:1", "900", "package-1")
    names = {"intel-rapl:0:0": "core", "intel-rapl:2": "psys", "intel-rapl:3": "dram"}
    others = [zone(tmp_path, name, "5", what) for name, what in names.items()]
    cpu = Cpu(counters(tmp_path))
    for other in others:
        other.write_text("700")
    one.write_text("300")
    two.write_text("50")  # came round at 1000

    assert cpu.joules() == pytest.approx((200 + 150) / 1e6)
    one.write_text("100")  # once more
    assert cpu.joules() == pytest.approx((350 + 800) / 1e6)


def test_counters_that_cannot_be_read_are_none(tmp_path: Path) -> None:
    assert counters(tmp_path) == [] and not unreadable(tmp_path)
    zone(tmp_path, "intel-rapl:0", "no number")
    assert counters(tmp_path) == [] and unreadable(tmp_path)


@pytest.mark.parametrize("how", ["no number", None])
def test_a_package_that_cannot_be_read_leaves_no_figure_of_the_others(tmp_path: Path, how: str | None) -> None:
    zone(tmp_path, "intel-rapl:0", "100")
    second = zone(tmp_path, "intel-rapl:1", how or "1", "package-1")
    if how is None:
        second.unlink()

    with pytest.raises(ValueError, match=r"^the counter of intel-rapl:1 cannot be read, and those of other packages"):
        counters(tmp_path)


@pytest.mark.timed
def test_zeus_counts_the_same_over_an_end_of_the_counter(tmp_path: Path) -> None:
    from zeus.device.cpu import rapl as zeus  # it needs a second

    counter = zone(tmp_path, "intel-rapl:0", "950000000", most=1_000_000_000)
    ours, theirs = Cpu(counters(tmp_path)), zeus.RAPLCPU(0, str(tmp_path))
    rounds = theirs.rapl_file.wraparound_tracker.get_num_wraparounds

    def both() -> tuple[float, float]:
        return ours.joules(), theirs.get_total_energy_consumption().cpu_mj / 1000

    def count(uj: str) -> None:
        """At once: a process of zeus's, which looks ten times a second, ends at an empty file."""
        written = counter.with_name("new")
        written.write_text(uj)
        written.replace(counter)
        ours.joules()

    def come_round() -> None:
        for uj in ("990000000", "910000000"):
            count(uj)
            time.sleep(0.3)

    until = time.monotonic() + 60
    while not rounds() and time.monotonic() < until:  # that process starts
        come_round()
    before, seen = both(), rounds()
    count("955000000")
    after = both()
    come_round()
    while rounds() == seen and time.monotonic() < until + 60:
        time.sleep(0.1)
    wrapped = both()

    assert after[0] - before[0] == pytest.approx(45) == after[1] - before[1]
    # 35 J to the place before the end, and 920 to that behind it.
    assert wrapped[0] - after[0] == pytest.approx(955) == wrapped[1] - after[1]


class FakeGpu:
    """What NVML tells: millijoules or milliwatts, None for what it does not; as many times as there are values."""

    def __init__(self, joules: list[float | None], watts: list[float | None] = ()) -> None:  # type: ignore[assignment]
        self.values = {"joules": [*joules], "watts": [*watts]}

    def joules(self) -> float | None:
        return self.values["joules"].pop(0) if self.values["joules"] else None

    def watts(self) -> float | None:
        return self.values["watts"].pop(0) if self.values["watts"] else None


def test_a_gpus_counter_counts_until_it_falls() -> None:
    meter = GpuCounter("cuda:0", FakeGpu([7.0, 7.5, 9.0, 0.5]))  # type: ignore[arg-type]

    assert (meter.joules(), meter.joules(), meter.source) == (7.5, 9.0, "nvml")
    with pytest.raises(ValueError, match=r"cuda:0: its energy counter fell$"):
        meter.joules()


def test_without_a_counter_power_is_integrated() -> None:
    clock = iter([0.0, 1.0, 3.0])
    meter = GpuCounter("cuda:0", FakeGpu([None], [100, 200, 100]), lambda: next(clock))  # type: ignore[arg-type]

    assert (meter.joules(), meter.joules(), meter.source) == (150, 450, "nvml_power")
    with pytest.raises(ValueError, match="tells neither"):
        GpuCounter("cuda:0", FakeGpu([None], [None]))  # type: ignore[arg-type]


def test_what_a_meter_counted_between_two_moments_is_read_off_its_line() -> None:
    meter = GpuCounter("cuda:0", FakeGpu([0.0]))  # type: ignore[arg-type]
    readings = Readings(meter, [(BEGIN, 0.0), (BEGIN + 1, 10.0), (BEGIN + 2, 40.0)])

    assert readings.between(BEGIN + 0.5, BEGIN + 1.5) == pytest.approx(20)
    assert readings.between(BEGIN - 0.1, BEGIN + 1) is None and readings.between(BEGIN, BEGIN + 2.1) is None
    readings.read()
    assert readings.trouble == "cuda:0: its energy counter fell silent" and readings.between(BEGIN, BEGIN + 1) is None


def test_a_meter_that_was_not_read_for_a_while_of_the_run_does_not_know() -> None:
    shown = [(BEGIN + at, 10.0 * at) for at in (0, 1, 2, 33, 34, 35)]
    readings = Readings(GpuCounter("cuda:0", FakeGpu([0.0])), shown)  # type: ignore[arg-type]

    assert readings.between(BEGIN, BEGIN + 2) == pytest.approx(20)
    assert readings.between(BEGIN + 35, BEGIN + 35) == 0
    assert readings.between(BEGIN + 33, BEGIN + 35) == pytest.approx(20) and readings.trouble is None
    assert readings.between(BEGIN + 1, BEGIN + 2.5) is None
    assert readings.trouble == "cuda:0 was not read for 31 s of the run"


def test_a_reading_that_takes_long_is_of_its_middle(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([BEGIN, BEGIN + 3])
    monkeypatch.setattr(meters, "time", SimpleNamespace(time=lambda: next(clock)))
    readings = Readings(GpuCounter("cuda:0", FakeGpu([0.0, 7.0])))  # type: ignore[arg-type]

    readings.read()

    assert readings.shown == [(BEGIN + 1.5, 7.0)]


def test_a_recording_reads_from_its_begin_to_its_end_and_beyond_a_meter_that_fails() -> None:
    good = GpuCounter("cuda:0", FakeGpu([float(at) for at in range(10_000)]))  # type: ignore[arg-type]
    bad = GpuCounter("cuda:1", FakeGpu([5.0, 6.0]))  # type: ignore[arg-type]

    with Recording(lambda: nullcontext(([good, bad], {})), every_s=0.001) as recording:
        begin = time.time()
        while len(recording.readings[0].shown) < 5:
            time.sleep(0.001)
        end = time.time()

    first, second = recording.readings
    joules = first.between(begin, end)
    assert joules is not None and joules > 0 and second.trouble is not None
    with Recording(lambda: nullcontext(([], {}))) as nothing:
        assert (nothing.readings, nothing.troubles) == ([], {})


def test_meters_that_do_not_answer_keep_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meters, "_BEFORE_S", 0.01)
    monkeypatch.setattr(meters, "_END_S", 0.01)
    answered = threading.Event()

    @contextmanager
    def opened() -> Iterator[tuple[list[Meter], dict[Kind, str]]]:
        answered.wait(30)
        yield [], {}

    with Recording(opened) as recording:
        assert recording.readings == [] and recording.troubles == {"gpu": "the meters do not answer"}
    answered.set()


def log(tmp_path: Path, watts: Callable[[float], float], times: list[float], head: str = "time,watts\n") -> Path:
    path = tmp_path / "meter.csv"
    path.write_text(head + "".join(f"{BEGIN + at},{watts(at)}\n" for at in times))
    return path


@pytest.mark.parametrize(("begin", "end", "joules"), [(0, 10, 1050), (2.5, 4.25, 180.90625), (9.5, 10, 54.875)])
def test_the_area_of_a_known_log(tmp_path: Path, begin: float, end: float, joules: float) -> None:
    found = read_power_log(log(tmp_path, lambda at: 100 + at, [float(at) for at in range(-3, 13)]))

    assert found.joules(BEGIN + begin, BEGIN + end) == pytest.approx(joules)


def test_times_may_be_written_out_with_their_zone(tmp_path: Path) -> None:
    path = tmp_path / "meter.csv"
    path.write_text("2025-11-29T20:27:24+01:00,50\n2025-11-29T19:27:28Z,50\n")

    assert read_power_log(path).joules(BEGIN, BEGIN + 2) == pytest.approx(100)


@pytest.mark.parametrize(
    ("times", "said"),
    [
        ([-1, 0, 1, 8, 11], r"no line for 7 s, from 1\.0 s after the run's begin"),
        ([1, 2, 3], r"is 2 s long, and the run 10 s; it begins \+1\.0 s from the run's begin"),
        ([each - 100 for each in range(-2, 15)], r"does not cover the run: it ends 96\.0 s before its end"),
        ([each + 2.5 for each in range(15)], r"does not cover the run: it begins 2\.5 s after its begin"),
    ],
)
def test_a_log_that_does_not_cover_the_run_is_refused(tmp_path: Path, times: list[float], said: str) -> None:
    found = read_power_log(log(tmp_path, lambda at: 1.0, times))
    with pytest.raises(InputError, match=said):
        found.joules(BEGIN, BEGIN + 10)


def test_a_log_in_milliseconds_is_said_to_be_that(tmp_path: Path) -> None:
    (tmp_path / "meter.csv").write_text(f"{1000 * BEGIN},1\n{1000 * BEGIN + 500},1\n")
    with pytest.raises(InputError, match=r"meter\.csv: its times are milliseconds, expected seconds since 1970$"):
        read_power_log(tmp_path / "meter.csv").check_clock(BEGIN)


@pytest.mark.parametrize(
    ("off_s", "said"),
    [
        (4.0, None),
        (-4.0, None),
        (6.0, r"its clock is off by \+6\.0 s, as its last line is in the future"),
        (-6.0, r"its clock is off by -6\.0 s, as its last line is older than the file"),
        (9 * 3600 - 3.0, r"its clock is off by \+9 h, as from another time zone, as its last line is in the future"),
        (-5.5 * 3600 - 3.0, r"its clock is off by -5\.5 h, as from another time zone, as its last line is older"),
        (3610.0, r"its clock is off by \+3610\.0 s, as"),
    ],
)
def test_a_log_on_another_clock_is_refused_with_the_offset(tmp_path: Path, off_s: float, said: str | None) -> None:
    path = log(tmp_path, lambda at: 1.0, [each + off_s for each in range(-7200, 1)])
    os.utime(path, (BEGIN, BEGIN))

    with pytest.raises(InputError, match=said) if said else nullcontext():
        read_power_log(path).check_clock(BEGIN)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "has 0 times"),
        ("time,watts\n", "has 0 times"),
        ("time,mW\n1,2\n2,2\n", "line 1: column 'mW' is not of watts; expected time,watts"),
        ("time,Power [mW]\n1,2\n2,2\n", r"line 1: column 'Power \[mW\]' is not of watts"),
        ("time, power_kw\n1,2\n2,2\n", "line 1: column 'power_kw' is not of watts"),
        ("time,apparent power (VA)\n1,2\n2,2\n", "line 1: column .* is not of watts"),
        *(
            (f"time,{name}\n1,2\n2,2\n", f"line 1: column '{name}' is not of watts")
            for name in (
                *("V", "A", "var", "kVA", "Wh", "Ws", "mJ", "GW", "uW", "kilowatts", "amps", "volt", "joules", "dBm"),
                *("energy", "current", "voltage", "power_factor", "load", "percent", "watthours", "date", "power %"),
            )
        ),
        *((f"{name},watts\n1,2\n2,2\n", f"line 1: column '{name}' is not of times") for name in ("w", "watt", "power")),
        ("Watts,Time\n1,2\n2,2\n", "line 1: column 'Watts' is not of times"),
        ("sample,timestamp\n1,2\n2,2\n", "line 1: column 'timestamp' is not of watts"),
        ("2025-11-29T20:27:24,4\n1,2\n2,2\n", "line 1: its time 2025-11-29T20:27:24 has no zone; expected one"),
        ("1,2\n3;4\n", "line 2: expected a time and watts, as 1764444444.5,231.7, got '3;4'"),
        ("1,2\n3,4,5\n", "line 2: expected a time and watts, .*, got '3,4,5'"),
        ("1,2\n3,100 W\n", "line 2: expected a time and watts, .*, got '3,100 W'"),
        (f"1,2\n{3_000 * 'x'},1\n", r"line 2: expected a time and watts, .*, got 'x{9,200}\.\.\.'"),
        ("1,2\n2025-11-29 20:27:24,4\n", "line 2: its time 2025-11-29 20:27:24 has no zone"),
        ("1,2\n" + 200_000 * "x" + "\n", "is no CSV file: "),
        ("1,2\n2,nan\n", "line 2: nan is no power"),
        ("1,2\n2,-1\n", "line 2: -1 is no power"),
        ("2,2\n1,2\n", "line 2: its time is before that of the line before"),
        ("1,2\n1,2\n", "has 1 times"),
    ],
)
def test_what_is_no_log_is_refused_with_its_line(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "meter.csv").write_text(text)
    with pytest.raises(InputError, match=said):
        read_power_log(tmp_path / "meter.csv")


@pytest.mark.parametrize(
    "head", ["time,W", "Time,Power [W]", "timestamp,power (w)", "# t , Watts", "zeit,leistung", ""]
)
def test_a_first_line_of_words_may_say_watts(tmp_path: Path, head: str) -> None:
    (tmp_path / "meter.csv").write_text(f"{head}\n1,2\n2,2\n")
    assert read_power_log(tmp_path / "meter.csv").watts.tolist() == [2, 2]


def test_lines_of_one_time_are_one_of_their_mean(tmp_path: Path) -> None:
    (tmp_path / "meter.csv").write_text("1,2\n1,4\n2,5\n3,6\n3,7\n3,11\n")
    found = read_power_log(tmp_path / "meter.csv")
    assert (found.seconds.tolist(), found.watts.tolist()) == ([1, 2, 3], [3, 5, 8])


def test_a_last_line_that_may_be_half_written_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "meter.csv").write_text("1,2\n2,2\n3,2")
    assert read_power_log(tmp_path / "meter.csv").seconds.tolist() == [1, 2]


def test_a_log_that_is_not_there_is_refused_before_anything_runs(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"meter\.csv: no such file; start the meter before the command"):
        check_power_log(tmp_path / "meter.csv")
    with pytest.raises(InputError, match="cannot be read"):
        read_power_log(tmp_path)


def test_what_no_meter_writes_to_is_said_to_be_that(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, what in {"": "Is a directory", "pipe": "Is a named pipe", "/dev/null": "Is a device"}.items():
        with pytest.raises(InputError, match=f"{what}.*; expected a file that the meter writes"):
            check_power_log(tmp_path / path)
    with pytest.raises(InputError, match=r"^power log: its name is empty"):
        check_power_log(Path())
