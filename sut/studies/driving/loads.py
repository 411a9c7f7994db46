"""What a system can be asked: how many requests at once, or when each of them comes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from plugins.files import LARGE_BYTES, read_file
from sut.errors import InputError, refusing, short
from sut.mlperf.logs import Int64Array
from sut.text import shortened

MOST_OUTSTANDING = 65_536
"""Requests that may be outstanding. They are numbers in a queue of this process, and cost neither threads nor file
handles, only some hundred bytes each; but all of them must be answered before a load is over."""
MOST_SAMPLES = 2_000_000
"""Of one load: what is recorded of them is some hundred bytes each."""


@dataclass(frozen=True, slots=True)
class Closed:
    """``concurrency`` requests outstanding at any time: each answer lets the next be asked."""

    concurrency: int
    kind: Literal["closed"] = "closed"

    def __post_init__(self) -> None:
        """Raises ``InputError`` for a number of requests that cannot be."""
        if not 1 <= self.concurrency <= MOST_OUTSTANDING:
            raise InputError(
                f"a closed loop of {self.concurrency} requests: from 1 to {MOST_OUTSTANDING:,} can be outstanding"
            )

    @property
    def words(self) -> str:
        """Itself in a few words."""
        return f"{self.concurrency} outstanding"


@dataclass(frozen=True, slots=True)
class Alone:
    """One request at a time, at ``rate`` a second on the average: zero load.

    Gaps are those of ``Poisson``, but what would come before the last answer waits for it: nothing ever queues, while
    caches and cores cool down between requests as they do under that rate.
    """

    rate: float
    seed: int = 0
    kind: Literal["alone"] = "alone"

    def __post_init__(self) -> None:
        """Raises ``InputError`` for a rate that cannot be."""
        _check_rate(self.rate)

    @property
    def words(self) -> str:
        """Itself in a few words."""
        return f"one at a time, {short(self.rate)}/s"


@dataclass(frozen=True, slots=True)
class Poisson:
    """Requests that come at random, ``rate`` a second on the average, whoever is answered: LoadGen's Server."""

    rate: float
    seed: int = 0
    kind: Literal["poisson"] = "poisson"

    def __post_init__(self) -> None:
        """Raises ``InputError`` for a rate that cannot be."""
        _check_rate(self.rate)

    @property
    def words(self) -> str:
        """Itself in a few words."""
        return f"{short(self.rate)}/s at random"


@dataclass(frozen=True, slots=True)
class Bursts:
    """``size`` requests at once, at equal intervals, so that ``rate`` a second come on the average."""

    size: int
    rate: float
    kind: Literal["bursts"] = "bursts"

    def __post_init__(self) -> None:
        """Raises ``InputError`` for a size or a rate that cannot be."""
        _check_rate(self.rate)
        if not 1 <= self.size <= MOST_OUTSTANDING:
            raise InputError(f"bursts of {self.size} requests: from 1 to {MOST_OUTSTANDING:,} can come at once")

    @property
    def words(self) -> str:
        """Itself in a few words."""
        return f"{short(self.rate)}/s in bursts of {self.size}"


@dataclass(frozen=True, slots=True)
class FromFile:
    """Requests that come when a file says: seconds from the start of the load, one a line, never going back."""

    path: Path
    kind: Literal["file"] = "file"

    @property
    def words(self) -> str:
        """Itself in a few words."""
        return f"as {self.path.name} says"


OpenLoad = Poisson | Bursts | FromFile
Load = Closed | Alone | OpenLoad


def _check_rate(rate: float) -> None:
    if not (math.isfinite(rate) and rate > 0):
        raise InputError(f"a rate of {rate} requests a second: expected a number over 0")


def arrivals_ns(load: OpenLoad, span_s: float) -> Int64Array:
    """When the requests of the first ``span_s`` seconds come: int64 (requests,), ascending, ns from the start.

    Raises ``InputError`` for more than can be recorded, and for a file that is no list of times.
    """
    if isinstance(load, FromFile):
        return _in_file(load.path, span_s)
    count = load.rate * span_s
    if count > MOST_SAMPLES:
        raise InputError(
            f"{load.words} for {span_s:g} s are {count:,.0f} requests, more than the {MOST_SAMPLES:,} that can be "
            "recorded; ask for a lower rate or fewer seconds"
        )
    if isinstance(load, Bursts):
        bursts = math.ceil(count / load.size)
        return np.repeat((np.arange(bursts) * load.size / load.rate * 1e9).astype(np.int64), load.size)
    # Six standard deviations more than there will be: the rest is cut off.
    drawn = np.random.default_rng(load.seed).exponential(1 / load.rate, int(count + 6 * math.sqrt(count) + 10))
    return _until(np.cumsum(drawn), span_s)


def _until(seconds: np.ndarray[tuple[int], np.dtype[np.float64]], span_s: float) -> Int64Array:
    found: Int64Array = (seconds[seconds < span_s] * 1e9).astype(np.int64)
    return found


def _in_file(path: Path, span_s: float) -> Int64Array:
    with refusing(f"{path}: cannot be read"):
        lines = read_file(path, LARGE_BYTES).decode(errors="replace").splitlines()
    times: list[float] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        times.append(_time_of(line.strip(), f"{path}, line {number}"))
        if len(times) > 1 and times[-1] < times[-2]:
            raise InputError(
                f"{path}, line {number}: {times[-1]:g} s comes after {times[-2]:g} s; times of arrival cannot go back"
            )
    if not times:
        raise InputError(f"{path}: no times of arrival; expected seconds from the start, one a line")
    if len(times) > MOST_SAMPLES:
        raise InputError(f"{path}: {len(times):,} arrivals, more than the {MOST_SAMPLES:,} that can be recorded")
    return _until(np.array(times), span_s)


def _time_of(word: str, where: str) -> float:
    try:
        time_s = float(word)
    except ValueError:
        time_s = math.nan
    if not (math.isfinite(time_s) and time_s >= 0):
        raise InputError(f"{where}: got '{shortened(word)}', expected a time of arrival in seconds, 0 or more")
    return time_s
