"""The energy of a run: what its meters drew when idle, what they counted while LoadGen asked, and the log of another.

Everything happens in the process that watches the run. What cannot be read is a note, and fails no run.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from sut.errors import InputError, one_line
from sut.results.energy import Energy
from sut.run.energy.gpus import gpu_meters
from sut.run.energy.meters import MOST_GAP_S, Kind, Meter, Readings, Recording
from sut.run.energy.power_log import PowerLog, read_power_log
from sut.run.energy.rapl import POWERCAP, Cpu, counters
from sut.text import Say

IDLE_S = 5.0
_LOOK_S = 0.25

Window = tuple[float, float]
"""From when to when, seconds since 1970."""


@dataclass(frozen=True, slots=True)
class Idle:
    """What was drawn before anything ran: watts by a meter's name, and when; without any meter no window."""

    watts: Mapping[str, float]
    window: Window | None = None


class AtRest:
    """What one command knows of its machine at rest: measured for its first run, as later ones find it warm."""

    def __init__(self) -> None:
        self._idle: Idle | None = None

    def idle(self, gpus: Sequence[int], power_log: Path | None, say: Say) -> Idle:
        """As ``measure_idle`` has it the first time; of other meters that are asked for later it knows nothing."""
        if self._idle is None:
            self._idle = measure_idle(gpus, power_log, say)
        return self._idle


def measure_idle(gpus: Sequence[int], power_log: Path | None, say: Say) -> Idle:
    """Wait ``IDLE_S`` and read the meters of the CPU and of ``gpus``; without any meter do nothing.

    Raises ``InputError`` for a power log that is none, or on another clock. ``say`` is told where no line came to it.
    """
    with Recording(partial(opened, gpus)) as recording:
        window = None
        if recording.readings or power_log is not None:
            say(f"energy: {IDLE_S:g} s at rest first, for what the machine draws when idle")
            begin_s = time.time()
            time.sleep(IDLE_S)
            window = (begin_s, time.time())
    counted = {each.meter.name: each.between(*window) for each in recording.readings} if window else {}
    watts = {name: joules / _seconds(window) for name, joules in counted.items() if window and joules is not None}
    if power_log is not None and window is not None and _read_now(power_log).seconds[-1] < window[0]:
        say(f"power log {power_log}: no line came in {IDLE_S:g} s; a run is refused its energy where none does")
    return Idle(watts, window)


@contextmanager
def opened(gpus: Sequence[int]) -> Iterator[tuple[Sequence[Meter], Mapping[Kind, str]]]:
    """The meters of this machine's CPU and of GPUs by CUDA's numbers; why either has none."""
    meters: list[Meter] = []
    troubles: dict[Kind, str] = {}
    try:
        if packages := counters(POWERCAP):
            meters.append(Cpu(packages))
    except (OSError, ValueError) as error:
        troubles["cpu"] = one_line(error)
    with ExitStack() as stack:
        if gpus:
            try:
                meters += stack.enter_context(gpu_meters(gpus))
            except Exception as error:  # whatever a driver comes to
                troubles["gpu"] = one_line(error)
        yield meters, troubles


class Metering:
    """Meters of one run, for as long as its ``with`` lasts; ``energy`` is asked afterwards. Net is less ``idle``."""

    def __init__(self, idle: Idle, gpus: Sequence[int], power_log: Path | None) -> None:
        self._idle, self._gpus, self._power_log = idle, gpus, power_log
        self._recording = Recording(partial(opened, gpus))

    def __enter__(self) -> Metering:
        self._recording.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._recording.__exit__(*error)

    def energy(self, window: Window, samples: float) -> tuple[dict[str, Energy] | None, list[str]]:
        """Of each kind of meter the energy per sample of ``samples`` in a window, and notes on what is not known.

        None where there is nothing that could be read.
        """
        found: dict[str, Energy] = {}
        asked = {kind: why for kind, why in self._recording.troubles.items() if kind != "gpu" or self._gpus}
        notes = [f"energy of the {kind.upper()} is unknown: {why}" for kind, why in asked.items()]
        for kind in ("cpu", "gpu"):
            readings = [each for each in self._recording.readings if each.meter.kind == kind]
            try:
                if readings:
                    found[kind] = self._counted(readings, window, samples)
            except ValueError as error:
                notes.append(f"energy of the {kind.upper()} is unknown: {error}")
        if self._power_log is not None:
            try:
                found["external"], more = self._logged(self._power_log, window, samples)
                notes += more
            except InputError as error:
                notes.append(one_line(error))
        return found or None, notes

    def _counted(self, readings: Sequence[Readings], window: Window, samples: float) -> Energy:
        """Of all meters of one kind together. Raises ``ValueError`` where one does not know."""
        joules = 0.0
        for each in readings:
            counted = each.between(*window)
            if counted is None:
                raise ValueError(each.trouble or f"{each.meter.name} was not read at both ends of the run")
            joules += counted
        idle = [self._idle.watts.get(each.meter.name) for each in readings]
        known = [each for each in idle if each is not None]
        sources = dict.fromkeys(each.meter.source for each in readings)
        return _energy(", ".join(sources), joules, sum(known) if len(known) == len(idle) else None, window, samples)

    def _logged(self, path: Path, window: Window, samples: float) -> tuple[Energy, list[str]]:
        """Of an external meter. Raises ``InputError`` for a log that does not tell."""
        log, idle, notes = _read_to_the_end(path, window), None, []
        if self._idle.window is not None:
            try:
                idle = log.joules(*self._idle.window) / _seconds(self._idle.window)
            except InputError as error:
                notes.append(f"net energy is unknown: before the runs, {one_line(error)}")
        return _energy("power_log", log.joules(*window), idle, window, samples), notes


def _energy(source: str, joules: float, idle_w: float | None, window: Window, samples: float) -> Energy:
    net = None if idle_w is None else (joules - idle_w * _seconds(window)) / samples
    return Energy(source, joules / samples, net, idle_w)


def _read_to_the_end(path: Path, window: Window) -> PowerLog:
    """A log that may still be written: its line behind the window's end is waited for, as long as a gap may be."""
    while True:
        log = _read_now(path)
        behind_s = window[1] - float(log.seconds[-1])
        if not 0 < behind_s <= MOST_GAP_S or time.time() > window[1] + MOST_GAP_S:
            return log
        time.sleep(_LOOK_S)


def _read_now(path: Path) -> PowerLog:
    """A log as it is now. Raises ``InputError`` for one that is none, or on another clock."""
    log = read_power_log(path)
    log.check_clock(time.time())
    return log


def _seconds(window: Window) -> float:
    return window[1] - window[0]
