"""The finished runs that a submission is made of, as they lie in the folder of one configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sut.mlperf import official
from sut.results.schema import Result

ROLES = ("performance", "accuracy", *official.AUDITS)
"""What a run is for, and the name of its folder below that of its scenario."""


@dataclass(frozen=True, slots=True)
class Run:
    """One run: ``folder`` has its result.json, and LoadGen's logs as they were written."""

    folder: Path
    result: Result


@dataclass(frozen=True, slots=True)
class Entry:
    """One scenario: its runs by role, as far as they are there.

    ``inferred_from``: the scenario whose runs stand for this one's, which are then the same.
    """

    scenario: str
    runs: Mapping[str, Run]
    inferred_from: str | None = None


@dataclass(frozen=True, slots=True)
class Runs:
    """All runs of one configuration. ``home`` is their folder; ``entries`` by scenario, in MLPerf's order."""

    home: Path
    entries: Mapping[str, Entry]
