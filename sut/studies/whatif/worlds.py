"""Worlds in which some stages are faster, seen in slow motion.

A stage is made faster by comparison: to take 30 % off decoding, all else is stretched by s = 1 / 0.7 (C. Curtsinger and
E. Berger, "Coz: Finding Code that Counts with Causal Profiling", SOSP 2015, delay other threads to the same end). What
runs then is the world with the faster decoder on a clock that goes s times as slowly. So what the run is asked is put
into slow motion too (Server's rate, its bound and its patience, how long the run lasts), and what comes out is played
at the speed of our clock: times divided by s, rates multiplied. Queues, batches and lanes that wait for each other are
those of that world.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sut.config import RunConfig
from sut.errors import InputError


@dataclass(frozen=True, slots=True)
class World:
    """A world in which each stage of ``shares`` takes that share of its time, over 0; none of them: as it is."""

    shares: tuple[tuple[str, float], ...] = ()

    @classmethod
    def of(cls, stage: str, percent: float) -> World:
        """The world in which a stage is ``percent`` faster."""
        return cls(((stage, 1 - percent / 100),))

    @property
    def stretch(self) -> float:
        """How many times as slowly its clock goes in the run: so much that no stage need be faster than it is."""
        return max(1.0, 1 / min((share for _, share in self.shares), default=1.0))

    def slowdown(self, stages: Sequence[str]) -> dict[str, float]:
        """How many times as long each of all ``stages`` that can be stretched takes in the run."""
        shares = dict(self.shares)
        factors = {stage: round(self.stretch * shares.get(stage, 1.0), 9) for stage in stages}
        return {stage: factor for stage, factor in factors.items() if factor > 1}

    def config(self, base: RunConfig, stages: Sequence[str]) -> RunConfig:
        """The run of this world; ``base`` is that of the world as it is, with its ``time_s``."""
        slow = self.stretch

        def stretched(value: float | None) -> float | None:
            return None if value is None else value * slow

        return base.model_copy(
            update={
                "slowdown": self.slowdown(stages),
                "time_s": stretched(base.time_s),
                "watchdog_s": stretched(base.watchdog_s),
                "qps": None if base.qps is None else base.qps / slow,
                "max_latency_s": stretched(base.max_latency_s),
                "max_wait_ms": base.max_wait_ms * slow,
            }
        )

    def amdahl(self, cost_ns: Mapping[str, float]) -> float:
        """How many times as fast it is by Amdahl's law, from busy times a sample: as if stages followed each other."""
        saved = sum(cost_ns.get(stage, 0) * (1 - share) for stage, share in self.shares)
        return 1 / (1 - saved / sum(cost_ns.values()))


def worlds_of(stages: Sequence[str], percents: Sequence[float]) -> list[World]:
    """A world for each stage and speed-up, in the order in which they are to be run."""
    return [World.of(stage, percent) for percent in percents for stage in stages]


def read_percents(text: str) -> list[float]:
    """The speed-ups of a comma list, ascending. Raises ``InputError``.

    >>> read_percents("30,10")
    [10.0, 30.0]
    """
    try:
        found = sorted({float(word.strip().removesuffix("%")) for word in text.split(",")})
    except ValueError:
        found = []
    if not found or not all(1 <= percent <= 95 for percent in found):
        raise InputError(f"--faster takes percent from 1 to 95, such as 10,30,50, got '{text}'")
    return found
