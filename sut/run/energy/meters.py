"""Meters that are read while a run goes, and how much each counted between two moments.

A meter is read ten times a second in a thread of the process that watches the run, never of the one that is measured;
what it counted between LoadGen's ``power_begin`` and ``power_end`` is read off the line through these readings.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from sut.errors import one_line
from sut.text import duration

EVERY_S = 0.1
MOST_GAP_S = 5.0
"""Between two readings within a run, or two lines of a log: what was drawn meanwhile is not known, and a counter may
have come round. Meters at the wall log each second, or more often.
"""
_BEFORE_S = 2.0
"""How long a run waits for the first reading: a driver that nobody has open takes a while to start."""
_END_S = 1.0
Kind = Literal["cpu", "gpu"]


class Meter(Protocol):
    """Something that counts joules. ``name`` is that of what it measures: ``cpu``, ``cuda:0``."""

    kind: Kind
    name: str
    source: str

    def joules(self) -> float:
        """So far, from any beginning on. Whatever it raises ends it: what it counted is not known then."""


@dataclass
class Readings:
    """What a meter showed: seconds since 1970 and joules by then; ``trouble`` why it was given up."""

    meter: Meter
    shown: list[tuple[float, float]] = field(default_factory=list)
    trouble: str | None = None

    def read(self) -> None:
        """Once more. Of a reading that takes long the middle is its time."""
        if self.trouble is not None:
            return
        begin = time.time()
        try:
            joules = self.meter.joules()
        except Exception as error:  # of a driver or a file: no reason to fail a run
            self.trouble = one_line(error)
        else:
            self.shown.append(((begin + time.time()) / 2, joules))

    def between(self, begin_s: float, end_s: float) -> float | None:
        """Joules from one moment to another, seconds since 1970; None where its readings do not cover both, or have a
        gap between them, which is its ``trouble`` then.
        """
        shown = list(self.shown)  # its thread may be at work
        if self.trouble is not None or len(shown) < 2 or not shown[0][0] <= begin_s <= end_s <= shown[-1][0]:
            return None
        seconds, joules = np.array(shown).T
        if (gap_s := widest_gap(seconds, begin_s, end_s)[1]) > MOST_GAP_S:
            self.trouble = f"{self.meter.name} was not read for {duration(gap_s)} of the run"
            return None
        begin, end = np.interp([begin_s, end_s], seconds, joules)
        return float(end - begin)


def widest_gap(seconds: NDArray[np.float64], begin_s: float, end_s: float) -> tuple[float, float]:
    """Since when, and for how long, there is none of ``seconds`` at the longest, from one moment to another.

    They are ascending, two or more, and cover both.
    """
    inside = (seconds[1:] > begin_s) & (seconds[:-1] < end_s)
    gaps = np.where(inside, np.diff(seconds), 0)
    widest = int(np.argmax(gaps))
    return float(seconds[widest]), float(gaps[widest])


Opened = AbstractContextManager[tuple[Sequence[Meter], Mapping[Kind, str]]]
"""Meters that can be read while it lasts, and why those of a kind cannot."""


class Recording:
    """Reads meters for as long as its ``with`` lasts. They are opened and read in a thread of its own, so that a
    driver that does not answer keeps nobody waiting.
    """

    def __init__(self, opened: Callable[[], Opened], every_s: float = EVERY_S) -> None:
        self.readings: list[Readings] = []
        self.troubles: Mapping[Kind, str] = {"gpu": "the meters do not answer"}
        self._opened, self._every_s = opened, every_s
        self._begun, self._over = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)

    def __enter__(self) -> Recording:
        self._thread.start()
        self._begun.wait(_BEFORE_S)
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join(_END_S)

    def _work(self) -> None:
        try:
            with self._opened() as (meters, troubles):
                self.readings, self.troubles = [Readings(meter) for meter in meters], troubles
                self._read()
                self._begun.set()
                while self.readings and not self._over.wait(self._every_s):
                    self._read()
                self._read()
        except Exception as error:  # whatever it is, it is no reason to fail a run
            self.troubles = {"gpu": one_line(error)}
        finally:
            self._begun.set()

    def _read(self) -> None:
        for each in self.readings:
            each.read()
