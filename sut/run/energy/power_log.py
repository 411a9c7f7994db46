"""The log of an external meter: lines of a time and watts, of which a run is one part.

Times are seconds since 1970, or ISO 8601 with a zone; the clock has to be that of the run's machine. Between two lines
power goes straight from one to the other (trapezoids).
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from plugins.files import LARGE_BYTES, open_file, read_file
from sut.errors import InputError, reason_of, refusing
from sut.run.energy.meters import MOST_GAP_S, widest_gap
from sut.text import duration, shortened

_ZONE_S = 900
"""Time zones differ by hours, or by halves or quarters of one."""
_WATTS = re.compile(r"w|watts?|power")
_NO_WATTS = re.compile(
    r"[uµμmkg]w|(micro|milli|kilo|mega|giga)watts?|[mk]?(va|var|[avj]|wh|ws)|(milli|kilo)?(amp|ampere|volt|joule)s?"
    r"|watt(hour|second)s?|dbm?|energy|current|voltage|factor|load|percent|%|time|timestamp|date"
)
"""Words, in small letters, that name no column of times, and none of watts."""


@dataclass(frozen=True, slots=True)
class PowerLog:
    """What a meter saw. ``seconds`` since 1970, ascending, and as many ``watts``; at ``written_s`` the machine's clock
    saw the file change last.
    """

    path: Path
    written_s: float
    seconds: NDArray[np.float64]
    watts: NDArray[np.float64]

    def check_clock(self, now_s: float) -> None:
        """Raise ``InputError`` where the meter's clock is not the machine's, which was at ``now_s`` when it was read.

        Its last line is in the future then, or older than its file is. Less than ``MOST_GAP_S`` cannot be told from
        a line that is still to come.
        """
        last = float(self.seconds[-1])
        ahead_s, behind_s = last - now_s, self.written_s - last
        if max(ahead_s, behind_s) <= MOST_GAP_S:
            return
        if 0.5 < last / 1000 / now_s < 2:
            raise InputError(f"power log {self.path}: its times are milliseconds, expected seconds since 1970")
        off_s = ahead_s if ahead_s > MOST_GAP_S else -behind_s
        zone_s = round(off_s / _ZONE_S) * _ZONE_S
        is_zone = zone_s and abs(off_s - zone_s) <= MOST_GAP_S
        about = f"{zone_s / 3600:+g} h, as from another time zone" if is_zone else f"{off_s:+.1f} s"
        raise InputError(
            f"power log {self.path}: its clock is off by {about}, as its last line is "
            f"{'in the future' if off_s > 0 else 'older than the file'}; it has to be that of the machine"
        )

    def joules(self, begin_s: float, end_s: float) -> float:
        """The energy from ``begin_s`` to ``end_s``, seconds since 1970.

        Raises ``InputError`` where the log does not cover that, with how much is missing, or has a gap in it.
        """
        self._check_covers(begin_s, end_s)
        inside = (self.seconds > begin_s) & (self.seconds < end_s)
        times = np.concatenate([[begin_s], self.seconds[inside], [end_s]])
        since_s, gap_s = widest_gap(self.seconds, begin_s, end_s)
        if gap_s > MOST_GAP_S:
            raise InputError(
                f"power log {self.path} has no line for {duration(gap_s)}, from {since_s - begin_s:.1f} "
                f"s after the run's begin; at most {MOST_GAP_S:g} s can be read across"
            )
        return float(np.trapezoid(np.interp(times, self.seconds, self.watts), times))

    def _check_covers(self, begin_s: float, end_s: float) -> None:
        first, last = float(self.seconds[0]), float(self.seconds[-1])
        if first <= begin_s and end_s <= last:
            return
        length = end_s - begin_s
        if last - first < length:
            raise InputError(
                f"power log {self.path} is {duration(last - first)} long, and the run {duration(length)}; it begins "
                f"{first - begin_s:+.1f} s from the run's begin"
            )
        off = f"begins {first - begin_s:.1f} s after its begin"
        if first <= begin_s:
            off = f"ends {end_s - last:.1f} s before its end"
        raise InputError(f"power log {self.path} does not cover the run: it {off}; the meter has to write throughout")


def check_power_log(path: Path) -> None:
    """Raise ``InputError``, before anything runs, for what no meter can be writing its log to."""
    if path == Path():  # so an empty word is read
        raise InputError("power log: its name is empty, or a full stop; expected a file that the meter writes")
    try:
        open_file(path).close()
    except FileNotFoundError:
        raise InputError(f"power log {path}: no such file; start the meter before the command") from None
    except OSError as error:  # a named pipe, say: it is read again after each run
        raise InputError(f"power log {path}: {reason_of(error)}; expected a file that the meter writes") from error


def read_power_log(path: Path) -> PowerLog:
    """A CSV file of time and watts; a first line of words may name them, and a last one without its end is passed over,
    which may be half written. Lines of one time are one of their mean. Raises ``InputError`` for what is none.
    """
    with refusing(f"power log {path} cannot be read"):
        written_s = path.stat().st_mtime  # before it is read: its last line may be younger then, and no older
        text = read_file(path, LARGE_BYTES).decode("utf-8-sig", "replace")
    try:
        lines = list(csv.reader(text[: text.rfind("\n") + 1].splitlines()))
    except csv.Error as error:
        raise InputError(f"power log {path} is no CSV file: {error}") from error
    rows: list[tuple[float, float]] = []
    for number, row in enumerate(lines, start=1):
        try:
            if number == 1 and row and re.match(r"\W*[^\W\d]", row[0]):
                _check_names(row)
            elif row:
                rows.append(_line(row))
        except ValueError as error:
            raise InputError(f"power log {path}, line {number}: {error}") from None
        if len(rows) > 1 and rows[-1][0] < rows[-2][0]:
            raise InputError(f"power log {path}, line {number}: its time is before that of the line before")
    times, watts = np.array(rows, np.float64).reshape(-1, 2).T
    seconds, which, counts = np.unique(times, return_inverse=True, return_counts=True)
    if len(seconds) < 2:
        raise InputError(f"power log {path} has {len(seconds)} times with watts, expected two or more")
    return PowerLog(path, written_s, seconds, np.bincount(which, watts) / counts)


def _check_names(row: Sequence[str]) -> None:
    """Raises ``ValueError`` where a column has, by its name, something else in it than a time, or than watts."""
    for name, expected, other in zip(row, ("times", "watts"), (_WATTS, _NO_WATTS), strict=False):
        if any(map(other.fullmatch, re.findall(r"[^\W\d_]+|%", name.lower()))):
            raise ValueError(f"column '{shortened(name.strip())}' is not of {expected}; expected time,watts")


def _line(row: Sequence[str]) -> tuple[float, float]:
    """A time and watts. Raises ``ValueError`` in words."""
    try:
        time, power = map(str.strip, row)
        seconds, watts = _seconds(time), float(power)
    except ValueError:
        given = shortened(",".join(row))
        raise ValueError(f"expected a time and watts, as 1764444444.5,231.7, got '{given}'") from None
    if seconds is None:
        raise ValueError(f"its time {time} has no zone; expected one behind it, as +01:00, or seconds since 1970")
    if not math.isfinite(watts) or watts < 0:
        raise ValueError(f"{power} is no power")
    return seconds, watts


def _seconds(text: str) -> float | None:
    """Raises ``ValueError``; None for a time without a zone, which is no moment."""
    try:
        found = float(text)
    except ValueError:
        moment = datetime.fromisoformat(text)
        return None if moment.tzinfo is None else moment.timestamp()
    if not math.isfinite(found):
        raise ValueError
    return found
