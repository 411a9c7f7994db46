"""Whether the system clock was set while something was measured by it.

LoadGen and the ledger count by the system clock, which anybody may set; nobody can set the monotonic one, and what NTP
slews it slews in both. So the difference of the two stays the same until the system clock is set, or the machine slept.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from sut.errors import InputError

CLOCKS: Mapping[str, Callable[[], int]] = {"system": time.time_ns, "monotonic": time.monotonic_ns}
"""Those that all processes of a machine read alike, in ns."""
_LOOKS = 5
_WIDEST_NS = 200_000
_STEP_NS = 1_000_000


@dataclass(frozen=True, slots=True)
class Pair:
    """The system clock between two readings of the monotonic one, all in ns."""

    before_ns: int
    system_ns: int
    after_ns: int

    @property
    def width_ns(self) -> int:
        """How long the readings took: the difference is known to half of it."""
        return self.after_ns - self.before_ns

    @property
    def difference_ns(self) -> int:
        """System clock minus monotonic clock."""
        return self.system_ns - (self.before_ns + self.after_ns) // 2


def look() -> list[Pair]:
    """Some pairs in a row: a process that is interrupted between two readings is so once, not each time."""
    return [Pair(time.monotonic_ns(), time.time_ns(), time.monotonic_ns()) for _ in range(_LOOKS)]


@dataclass(slots=True)
class Steps:
    """Follows the difference of the clocks. ``change_ns`` is the largest change between any two pairs, later minus
    earlier; None before the first pair that counts.
    """

    change_ns: int | None = None
    _lowest_ns: int = 0
    _highest_ns: int = 0

    def see(self, pairs: Iterable[Pair]) -> bool:
        """Take the narrowest of some pairs, which decides nothing if it is wider than 200 us.

        Returns whether the system clock has been set: by more than 1 ms between any two pairs so far.
        """
        pair = min(pairs, key=lambda pair: pair.width_ns)
        if pair.width_ns <= _WIDEST_NS:
            now = pair.difference_ns
            if self.change_ns is None:
                self.change_ns, self._lowest_ns, self._highest_ns = 0, now, now
            self.change_ns = larger_change(self.change_ns, now - self._lowest_ns, now - self._highest_ns)
            self._lowest_ns, self._highest_ns = min(self._lowest_ns, now), max(self._highest_ns, now)
        return is_step(self.change_ns)


def is_step(change_ns: int | None) -> bool:
    """Whether a change of the difference is one that the clocks do not make by themselves."""
    return change_ns is not None and abs(change_ns) > _STEP_NS


def larger_change(*changes_ns: int | None) -> int | None:
    """The change that goes furthest in either direction, None if none is known.

    >>> larger_change(None, 3, -7)
    -7
    """
    return max((each for each in changes_ns if each is not None), key=abs, default=None)


def name_of(clock: Callable[[], int]) -> str:
    """By which other processes know one of ``CLOCKS``. Raises ``InputError`` for one that they cannot read."""
    found = next((name for name, known in CLOCKS.items() if known is clock), None)
    if found is None:
        raise InputError(f"processes that work for this one stamp by a clock of the machine: {', '.join(CLOCKS)}")
    return found
