"""What was measured, on disk after every run, so that a tune that was killed goes on where it was."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from pydantic import ConfigDict, TypeAdapter, ValidationError

from sut.results.schema import Metric
from sut.studies.kept import Kept
from sut.studies.tuning.space import DEFAULT, Point

FILE = "runs.jsonl"
_ADDED = ("backend", "model")
"""Of the header. A file of before they were added does not say, and is read all the same."""


@dataclass(frozen=True, slots=True)
class Job:
    """One run to be made: where in the tune it stands (``phase``, ``number`` from 1 ``of`` so many), what and how long.

    ``qps`` is the rate that Server is asked at; None elsewhere, and where calibration shall choose it.
    """

    phase: str
    number: int
    of: int
    point: Point
    time_s: float
    qps: float | None = None

    @property
    def key(self) -> str:
        """Tells this run from all others of a tune."""
        rate = "" if self.qps is None else f" at {self.qps:g}"
        return f"{self.phase}, {self.number}: {self.point.label}{rate}"


@dataclass(frozen=True, slots=True)
class Measured:
    """What one run came to; names and units are those of result.json. ``valid`` is False for a failed run, too.

    ``bound_ns`` and ``late`` are Server's latency bound and how many queries were over it; ``took_s`` is the run's
    wall time with all that belongs to it; ``agreement_line`` is what a run in a reduced precision says of its labels;
    ``used`` are its lanes, threads and batch.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    key: str
    phase: str
    settings: dict[str, bool | int | float | str | None]
    valid: bool
    failed: bool
    invalid_reasons: list[str]
    time_s: float
    qps: float | None = None
    metric: dict[str, Any] | None = None
    samples_per_second: float | None = None
    queries: int | None = None
    late: int | None = None
    bound_ns: float | None = None
    latency_ns: dict[str, int | None] = field(default_factory=dict)
    stages_ns: dict[str, dict[str, int]] = field(default_factory=dict)
    cost_ns: dict[str, int] = field(default_factory=dict)
    batch_sizes: dict[str, int] = field(default_factory=dict)
    idle_query_ns: int | None = None
    batch_ns: dict[str, int] = field(default_factory=dict)
    agreement_line: str | None = None
    cpu_seconds_per_sample: float | None = None
    used: dict[str, int] = field(default_factory=dict)
    took_s: float = 0.0
    started: str = ""

    @property
    def point(self) -> Point:
        """Which point was run."""
        return Point(tuple(self.settings.items())) if self.settings else DEFAULT

    @property
    def p99_ns(self) -> int | None:
        """The 99th percentile of the latency; None where the run has none."""
        return self.latency_ns.get("p99")

    @property
    def figure(self) -> float | None:
        """What points are ranked by: the scenario's metric; in Server, where all are asked the same rate, p99 in ns."""
        if self.failed:
            return None
        if self.qps is not None:
            return self.p99_ns
        return self.metric["value"] if self.metric else None

    @property
    def higher_is_better(self) -> bool:
        """Whether more of ``figure`` is better."""
        return self.qps is None and bool(self.metric and self.metric["higher_is_better"])

    def better_than(self, other: float) -> float | None:
        """The ratio of ``figure`` to another one, over 1 where this run was better; None without a figure."""
        if not self.figure or not other:
            return None
        return self.figure / other if self.higher_is_better else other / self.figure


_MEASURED = TypeAdapter(Measured)


def _row_of(line: str) -> Measured:
    """A run from its line. Raises ``ValueError`` for a line that is none."""
    try:
        row = _MEASURED.validate_python(json.loads(line))
        if row.metric is not None:
            Metric(**row.metric)
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(f"{'.'.join(map(str, first['loc'])) or 'a run'}: {first['msg']}") from None
    return row


class State(Kept[Measured]):
    """The runs of one tune."""

    @classmethod
    def open(cls, directory: Path, header: Mapping[str, Any], *, overwrite: bool) -> State:
        """The state in ``directory``, or a new one. Raises ``InputError`` if the one there has another header."""
        return cls.read(directory / FILE, header, _row_of, "a tune", overwrite=overwrite, added=_ADDED)
