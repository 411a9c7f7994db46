"""Figures as a page shows them: as text, and as the file has them."""

from __future__ import annotations

import math
from dataclasses import dataclass

from sut.errors import short

SCALES = {"ms": 1e-6, "ms of s": 1e3, "%": 100.0, "MB": 1e-6, "": 1.0}
"""What a raw value is multiplied by to be shown in a unit: times are ns (or s), shares fractions, sizes bytes."""


@dataclass(frozen=True, slots=True)
class Number:
    """A figure. ``of`` says where it stands, ``3:latency_ns.p50`` that of the page's fourth result; empty where it was
    worked out.
    """

    raw: int | float
    unit: str = ""
    of: str = ""

    @property
    def text(self) -> str:
        """Four digits in the unit, without it; three of what was worked out."""
        value = self.raw * SCALES[self.unit]
        return short(value) if self.of or abs(value) >= 1000 else f"{value:.3g}"


def finite(value: object) -> int | float | None:
    """``value`` if it is a number to reckon with, else None: what a file says may be anything.

    >>> finite(3), finite(True), finite("3"), finite(float("nan")), finite(10**400)
    (3, None, None, None, None)
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return value if abs(value) < 1e15 and math.isfinite(value) else None


def number(value: object, unit: str = "", of: str = "") -> Number | None:
    """``value`` as a figure; None where it is none."""
    found = finite(value)
    return None if found is None else Number(found, unit, of)
