"""What is taken apart: each preprocessor over each set of pictures, and what each is asked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from sut.config import RunConfig
from sut.errors import InputError, SetupError
from sut.pipeline.assembly import Assembly, assemble
from sut.pipeline.choice import prior
from sut.results.samples import Samples
from sut.results.schema import Result
from sut.run.planning import check_effect
from sut.studies.breakdown.pictures import Pictures, picture_sets
from sut.studies.comparing.automatic import available
from sut.studies.comparing.matrix import split_list
from sut.studies.driving.driven import Drive, Relative
from sut.studies.driving.loads import Alone, Closed, Poisson
from sut.studies.tuning.space import with_settings
from sut.text import Say

BASELINE = "opencv"
"""The preprocessor that others are held against."""
BACK_TO_BACK, ZERO, FIFTH, LOADED, FULL = "back to back", "zero load", "at 20 %", "loaded", "full"
"""LoadGen's SingleStream; one at a time with the gaps of a rate of 20 % of the batch-1 rate; that rate at random; 80 %
at random of what ``full`` did; so many outstanding that every lane has two full batches."""
ZERO_SHARE, LOADED_SHARE = 0.2, 0.8

_TIME_S = 1.5
_WARM_S = 0.5
_WANTED = 120
"""Samples of an open load that a percentile wants."""
_FEWEST = 10
"""Of those that the batch-1 rate is of, however slow they are."""
_LONGEST, _LONGEST_LOADED = 4, 8
"""How many times longer slow pictures may make a load for them; loaded is where the slowest 1 % are of interest."""


@dataclass(frozen=True, slots=True)
class Cell:
    """A preprocessor over some pictures. ``config`` is that of LoadGen's run."""

    pictures: str
    preprocess: str
    config: RunConfig

    @property
    def label(self) -> str:
        """Its name."""
        return f"{self.preprocess}, {self.pictures}"


@dataclass(frozen=True, slots=True)
class Load:
    """What one load came to. ``rate`` is what was asked for, samples per second; None where answers set the pace."""

    samples: Samples
    samples_per_second: float | None
    rate: float | None = None
    concurrency: int | None = None
    trouble: str | None = None

    @property
    def p50_ns(self) -> float | None:
        """The median latency; None where no sample counts."""
        latency = self.samples.latency_ns
        return float(np.median(latency)) if len(latency) else None


@dataclass(frozen=True, slots=True)
class CellRun:
    """One round of a cell: the loads by name, LoadGen's result, and the size of each picture of its data set."""

    loads: Mapping[str, Load]
    result: Result
    path: Path
    size_of: list[str]


@dataclass(frozen=True, slots=True)
class Plan:
    """The cells in order, and why others cannot be, by name."""

    cells: list[Cell]
    absent: dict[str, str] = field(default_factory=dict)


def plan(config: RunConfig, pictures: str | None, preprocessors: str | None, say: Say) -> Plan:
    """What is to be taken apart. Raises ``InputError`` for what cannot be, ``SetupError`` where nothing works here."""
    if config.mode != "performance":
        raise InputError(f"sut breakdown takes latencies apart, got mode: {config.mode}; leave it out")
    usual = {"boundary": "jpeg", "scenario": "SingleStream", "qps": None}
    for name, value in usual.items():
        if name in config.model_fields_set and getattr(config, name) != value:
            raise InputError(f"sut breakdown sets {name} itself, got {getattr(config, name)}; leave it out")
    asked = {"boundary": "jpeg", "time_s": config.time_s or _TIME_S, "keep_samples": True}
    base = with_settings(config, asked)
    check_effect([base.model_copy(update={"scenario": "Server"})])
    names, absent = _preprocessors(base, preprocessors)
    sets = picture_sets(pictures, base, say)
    if len({each.name for each in sets}) < len(sets):
        raise InputError(f"--pictures {pictures}: two folders of one name; give folders of different names")
    return Plan([_cell(each, name, base) for each in sets for name in names], absent)


def _preprocessors(base: RunConfig, words: str | None) -> tuple[list[str], dict[str, str]]:
    """Those that are asked for, else all that work here, and why others do not."""
    if words is not None:
        return split_list(words), {}
    found = available(with_settings(base, {"backend": base.backend}))
    absent = {name: why for name, why in found.absent.items() if name != base.backend}
    if not found.preprocessors:
        raise SetupError(f"no preprocessor works here: {'; '.join(f'{name}: {why}' for name, why in absent.items())}")
    return found.preprocessors, absent


def _cell(pictures: Pictures, preprocess: str, base: RunConfig) -> Cell:
    return Cell(pictures.name, preprocess, with_settings(pictures.of(base), {"preprocess": preprocess}))


def settled(config: RunConfig, scenario: str) -> Assembly:
    """The parts for a scenario, with lanes, threads and batch set."""
    parts = assemble(config.model_copy(update={"scenario": scenario}))
    chosen = prior(parts.config, parts.lane_cores, parts.model_bytes).apply(parts.config)
    return replace(parts, config=chosen)


def outstanding(config: RunConfig) -> int:
    """Requests that keep every lane busy: two full batches each."""
    return 2 * config.lane_count * config.largest_batch


def drives(config: RunConfig, number: int) -> dict[str, Drive]:
    """What the loaded system is asked in a round, in order; the first finds the batch-1 rate, by which others go.

    Each round has its own times of arrival: in the same ones the same few requests would meet in every round.
    """
    seconds = config.time_s or _TIME_S
    full = outstanding(config)
    by_first, by_full = (Relative(to, _WANTED, times * seconds) for to, times in enumerate((_LONGEST, _LONGEST_LOADED)))
    return {
        "batch 1": Drive(Closed(1), seconds / 2, _WARM_S, least=_FEWEST),
        FULL: Drive(Closed(full), seconds, _WARM_S, least=full),
        ZERO: Drive(Alone(ZERO_SHARE, seed=number), seconds, _WARM_S, relative=by_first),
        FIFTH: Drive(Poisson(ZERO_SHARE, seed=number), seconds, _WARM_S, relative=by_first),
        LOADED: Drive(Poisson(LOADED_SHARE, seed=number), seconds, _WARM_S, relative=by_full),
    }
