"""The CPU's own energy counters: RAPL, as Linux shows it in /sys/class/powercap.

A counter of microjoules for each package begins again at ``max_energy_range_uj`` (Linux, "Power Capping Framework"). In
most systems root alone may read it, since a fast reader learns what others compute (CVE-2020-8694).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sut.run.energy.meters import Kind

POWERCAP = Path("/sys/class/powercap")
_PACKAGE = re.compile(r"(intel|amd)-rapl:\d+")
"""A whole package; ``intel-rapl:0:0`` is a part of one, and would count twice."""


@dataclass(frozen=True, slots=True)
class Counter:
    """One package: where its counter is, and the microjoules at which it begins again."""

    path: Path
    range_uj: int

    def read_uj(self) -> int:
        """The counter. Raises ``OSError`` where it may not be read, and ``ValueError`` where it is no number."""
        return int(self.path.read_text())


def counters(powercap: Path = POWERCAP) -> list[Counter]:
    """Those of all packages, in order; none where none can be read, or there are none.

    Raises ``ValueError`` where some can be read and some cannot: what those use would be no CPU's figure.
    """
    found, silent = [], []
    for zone in sorted(each for each in powercap.glob("*-rapl:*") if _PACKAGE.fullmatch(each.name)):
        try:
            if not (zone / "name").read_text().startswith("package-"):
                continue
            counter = Counter(zone / "energy_uj", int((zone / "max_energy_range_uj").read_text()))
            counter.read_uj()
            if counter.range_uj <= 0:
                raise ValueError
        except (OSError, ValueError):
            silent.append(zone.name)
        else:
            found.append(counter)
    if found and silent:
        raise ValueError(f"the counter of {silent[0]} cannot be read, and those of other packages can")
    return found


def unreadable(powercap: Path = POWERCAP) -> bool:
    """Whether there are counters, of which none may be read."""
    return any(powercap.glob("*-rapl:*/energy_uj")) and not counters(powercap)


class Cpu:
    """The packages' joules since this was made. To be read more often than a counter takes to come round, which is
    minutes at full load: 32 bits in units of 15.3 uJ or more (Intel SDM, volume 3B, "RAPL Interfaces") are 65,536 J.
    """

    kind: Kind = "cpu"
    name = "cpu"
    source = "rapl"

    def __init__(self, found: list[Counter]) -> None:
        self._counters = found
        self._last = [each.read_uj() for each in found]
        self._uj = 0

    def joules(self) -> float:
        """So far. Raises ``OSError`` and ``ValueError`` as a counter does."""
        now = [each.read_uj() for each in self._counters]
        for counter, before, after in zip(self._counters, self._last, now, strict=True):
            # Smaller: it has begun again, once.
            self._uj += after - before if after >= before else after - before + counter.range_uj
        self._last = now
        return self._uj / 1e6
