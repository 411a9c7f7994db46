"""Rows between two stages, on trays of as many as a batch has.

The rows of a tray follow each other in memory, so that whoever takes a whole tray reads its batch where it lies. Rows
are reserved one after another, so a tray's samples are those of one time. Not for several threads: a channel has a lock
around it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from operator import attrgetter

from preprocess.base import Geometry


@dataclass(slots=True)
class Filled:
    """One preprocessed sample on its way: its tensor is row ``row`` of a channel's storage."""

    id: int
    index: int
    number: int
    row: int
    geometry: Geometry


_by_row = attrgetter("row")


@dataclass(slots=True)
class _Tray:
    ready: list[Filled]
    reserved: int = 0
    """Rows that somebody is about to fill."""
    held: int = 0
    """Rows that are reserved, ready, or taken and not done."""


class Trays:
    """``trays`` of ``rows`` each. ``fill_up``: a tray is taken as a whole, and else what is ready, tray or not."""

    def __init__(self, trays: int, rows: int, fill_up: bool) -> None:
        self.capacity = trays * rows
        self._rows, self._fill_up = rows, fill_up
        self._trays = [_Tray([]) for _ in range(trays)]
        self._empty = list(range(trays))
        self._open: int | None = None
        self._next = 0
        self._ready: deque[Filled] = deque()
        """Where trays do not matter, in the order of coming."""
        self._whole: deque[list[Filled]] = deque()
        self._coming = 0

    def announce(self, samples: int) -> None:
        """So many more samples will come, or fail on the way."""
        self._coming += samples

    def reserve(self, most: int = 1) -> range:
        """Up to so many free rows that follow each other; none where all are held."""
        if self._open is None:
            if not self._empty:
                return range(0)
            self._open, self._next = self._empty.pop(), 0
        first, count = self._open * self._rows + self._next, min(most, self._rows - self._next)
        tray = self._trays[self._open]
        tray.reserved += count
        tray.held += count
        self._next += count
        if self._next == self._rows:
            self._open = None
        return range(first, first + count)

    def put(self, sample: Filled) -> None:
        """A sample that was announced is ready, in a row that was reserved."""
        at = sample.row // self._rows
        tray = self._trays[at]
        (tray.ready if self._fill_up else self._ready).append(sample)
        self._came(at, tray)

    def drop(self, row: int) -> None:
        """A sample that was announced failed; its row is free again."""
        at = row // self._rows
        self._came(at, self._trays[at])
        self._give_back(at)

    def cancel(self, samples: int) -> None:
        """So many that were announced, and for which no row was reserved, will not come."""
        self._coming -= samples
        if self._fill_up and not self._coming:
            self._finish_open()

    def _came(self, at: int, tray: _Tray) -> None:
        tray.reserved -= 1
        self._coming -= 1
        if not self._fill_up:
            return
        if at != self._open and not tray.reserved:
            self._finish(tray)
        if not self._coming:
            self._finish_open()

    def _finish_open(self) -> None:
        """Nothing is on its way any more: the tray that is being filled goes as it is."""
        if self._open is not None and (tray := self._trays[self._open]).ready:
            self._open = None
            self._finish(tray)

    def _finish(self, tray: _Tray) -> None:
        """A tray whose samples have all come."""
        if tray.ready:
            tray.ready.sort(key=_by_row)
            self._whole.append(tray.ready)
            tray.ready = []

    def take(self) -> list[Filled]:
        """The next batch, in the order of its rows; empty where there is none yet."""
        if self._fill_up:
            return self._whole.popleft() if self._whole else []
        found = [self._ready.popleft() for _ in range(min(self._rows, len(self._ready)))]
        found.sort(key=_by_row)
        return found

    def done(self, rows: Iterable[int]) -> None:
        """Rows that were taken are free again."""
        for row in rows:
            self._give_back(row // self._rows)

    def _give_back(self, at: int) -> None:
        tray = self._trays[at]
        tray.held -= 1
        if tray.held:
            return
        if at == self._open:
            self._next = 0
        else:
            self._empty.append(at)

    @property
    def waiting(self) -> int:
        """Samples that may be taken now, up to a batch: a tray that is taken as a whole counts as a full one."""
        if self._fill_up:
            return self._rows if self._whole else 0
        return min(self._rows, len(self._ready))

    @property
    def is_empty(self) -> bool:
        """Whether nothing is announced and everything is taken."""
        return self._coming <= 0 and not self.waiting
