"""From which size of picture on one preprocessor is faster than another."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Where = Literal["every", "none", "from", "up to"]
Times = NDArray[np.float64]

_RESAMPLES = 1000
_ENDS = (0.025, 0.975)
_SURE = 0.95


@dataclass(frozen=True, slots=True)
class Overtaking:
    """Where a candidate is faster: at ``every`` size that was measured, at ``none``, ``from`` or ``up to`` ``pixels``.

    [``low``, ``high`` ] holds the true size in 95 of 100 cases; an end that is None lies outside the sizes measured.
    ``agreeing`` is the share of the resampled rounds with the same answer, whatever the size.
    """

    where: Where
    pixels: float | None
    low: float | None
    high: float | None
    agreeing: float

    def words(self, baseline: str) -> str:
        """The answer in a few words.

        >>> Overtaking("from", 2e5, 1.5e5, None, 1.0).words("opencv")
        'faster than opencv from 0.2 Mpixel on (0.15 to beyond the sizes measured)'
        """
        if self.agreeing < _SURE:
            return f"not told from {baseline}: resampled rounds do not agree on where it is faster"
        if self.where in ("every", "none"):
            return f"faster than {baseline} at {self.where} of the sizes measured"
        low, high = (f"{end / 1e6:.2g}" if end else "beyond the sizes measured" for end in (self.low, self.high))
        on = " on" if self.where == "from" else ""
        return f"faster than {baseline} {self.where} {(self.pixels or 0) / 1e6:.2g} Mpixel{on} ({low} to {high})"


def crossing(pixels: Sequence[float], gain: Sequence[float]) -> tuple[Where, float | None]:
    """Where ``gain``, what a candidate saves at each of the ascending sizes, is over 0, and where that begins or ends.

    It is taken for a straight line between two sizes, as times are that grow with the pixels. Of several crossings the
    last: what holds for all larger sizes.
    """
    if all(each > 0 for each in gain):
        return "every", None
    if all(each <= 0 for each in gain):
        return "none", None
    lines = list(zip(pairwise(pixels), pairwise(gain), strict=True))
    (low, high), (before, after) = next(line for line in reversed(lines) if (line[1][0] > 0) != (line[1][1] > 0))
    return "from" if after > 0 else "up to", low + (high - low) * before / (before - after)


def overtaking(pixels: Sequence[float], baseline: Times, candidate: Times, seed: int = 0) -> Overtaking:
    """Where ``candidate`` is faster than ``baseline``, by the times of both: (sizes, rounds), sizes ascending.

    A round is a pair: what slowed it down slowed down both. The interval is the bootstrap's over rounds (B. Efron,
    "Bootstrap Methods: Another Look at the Jackknife", 1979), of medians, so that one stall does not decide. Raises
    ``ValueError`` for arrays that do not fit.
    """
    if baseline.shape != candidate.shape or baseline.shape[0] != len(pixels) or len(pixels) < 2:
        raise ValueError(f"times of {baseline.shape} and {candidate.shape} do not fit {len(pixels)} sizes")
    saved = baseline - candidate
    where, found = crossing(pixels, np.median(saved, axis=1).tolist())
    rounds = saved.shape[1]
    drawn = np.random.default_rng(seed).integers(0, rounds, (_RESAMPLES, rounds))
    again = [crossing(pixels, gain) for gain in np.median(saved[:, drawn], axis=2).T.tolist()]
    agreeing = sum(each == where for each, _ in again) / len(again)
    if found is None:
        return Overtaking(where, None, None, None, agreeing)
    places = sorted(_place(where, *each) for each in again)
    low, high = (places[min(len(places) - 1, int(end * len(places)))] for end in _ENDS)
    return Overtaking(where, found, _inside(low), _inside(high), agreeing)


def _inside(end: float) -> float | None:
    return end if math.isfinite(end) else None


def _place(where: Where, other: Where, pixels: float | None) -> float:
    """Where a resample has its crossing; beyond all sizes where it has none of that kind."""
    if other == where and pixels is not None:
        return pixels
    return -math.inf if (other == "every") == (where == "from") else math.inf
