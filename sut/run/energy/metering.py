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
from sut.run.energy.meters import Meter, Readings, Recording
from sut.run.energy.power_log import MOST_GAP_S, PowerLog, read_power_log
from sut.run.energy.rapl import POWERCAP, Cpu, counters
from sut.text import Say

IDLE_S = 5.0
_LOOK_S = 0.25

Window = tuple[float, float]
"""From when to when, seconds since 1970."""


@dataclass(frozen=True, slots=True)
class Idle:
    """What was drawn before anything ran, asked of ``gpus``: watts by a meter's name, and when; no meter, no window."""

    gpus: frozenset[int]
    watts: Mapping[str, float]
    window: Window | None = None


_IDLE: list[Idle] = []
"""What this process has measured: once in a command, before its runs warm anything."""


def measure_idle(gpus: Sequence[int], power_log: Path | None, say: Say) -> Idle:
    """Wait ``IDLE_S`` and read the meters, the first time that they are asked for; without any meter do nothing."""
    for known in _IDLE:
        if known.gpus >= {*gpus} and (known.window or power_log is None):
            return known
    with Recording(partial(opened, gpus)) as recording:
        window = None
        if recording.readings or power_log is not None:
            say(f"energy: {IDLE_S:g} s at rest first, for what the machine draws when idle")
            begin_s = time.time()
            time.sleep(IDLE_S)
            window = (begin_s, time.time())
    counted = {each.meter.name: each.between(*window) for each in recording.readings} if window else {}
    watts = {name: joules / _seconds(window) for name, joules in counted.items() if window and joules is not None}
    _IDLE.append(Idle(frozenset(gpus), watts, window))
    return _IDLE[-1]


@contextmanager
def opened(gpus: Sequence[int]) -> Iterator[tuple[Sequence[Meter], Sequence[str]]]:
    """The meters of this machine's CPU and of GPUs by CUDA's numbers; why a GPU has none."""
    meters: list[Meter] = []
    troubles: list[str] = []
    if packages := counters(POWERCAP):
        meters.append(Cpu(packages))
    with ExitStack() as stack:
        if gpus:
            try:
                meters += stack.enter_context(gpu_meters(gpus))
            except Exception as error:  # whatever a driver comes to
                troubles.append(one_line(error))
        yield meters, troubles


class Metering:
    """Meters of one run, for as long as its ``with`` lasts; ``energy`` is asked afterwards."""

    def __init__(self, gpus: Sequence[int], power_log: Path | None, say: Say) -> None:
        self._gpus, self._power_log = gpus, power_log
        self._idle = measure_idle(gpus, power_log, say)
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
        notes = [f"energy of the GPU is unknown: {why}" for why in self._recording.troubles if self._gpus]
        for kind, words in (("cpu", "CPU"), ("gpu", "GPU")):
            readings = [each for each in self._recording.readings if each.meter.kind == kind]
            try:
                if readings:
                    found[kind] = self._counted(readings, window, samples)
            except ValueError as error:
                notes.append(f"energy of the {words} is unknown: {error}")
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
        return _energy("power log", log.joules(*window), idle, window, samples), notes


def _energy(source: str, joules: float, idle_w: float | None, window: Window, samples: float) -> Energy:
    net = None if idle_w is None else (joules - idle_w * _seconds(window)) / samples
    return Energy(source, joules / samples, net, idle_w)


def _read_to_the_end(path: Path, window: Window) -> PowerLog:
    """A log that may still be written: its line behind the window's end is waited for, as long as a gap may be."""
    while True:
        log = read_power_log(path)
        behind_s = window[1] - float(log.seconds[-1])
        if not 0 < behind_s <= MOST_GAP_S or time.time() > window[1] + MOST_GAP_S:
            return log
        time.sleep(_LOOK_S)


def _seconds(window: Window) -> float:
    return window[1] - window[0]
