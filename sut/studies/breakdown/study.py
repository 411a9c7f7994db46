"""The rounds of a breakdown: each cell under each load, as often as the budget allows, and what was left out."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sut.errors import ExitCode, RunError, SutError, one_line
from sut.pipeline.assembly import Assembly, assemble
from sut.pipeline.loading import load_preprocessor
from sut.results.samples import FILE as SAMPLES
from sut.results.samples import Samples
from sut.results.schema import FILE
from sut.results.wording import milliseconds
from sut.run.energy.metering import AtRest
from sut.run.folders import run_folder
from sut.run.planning import OVERHEAD_S
from sut.run.reporter import Reporter
from sut.run.runner import check_same_model, run_experiment
from sut.studies.breakdown.alone import is_on_device, run_parts
from sut.studies.breakdown.bottleneck import END_TO_END, bytes_moved, judged
from sut.studies.breakdown.cells import (
    BACK_TO_BACK,
    BASELINE,
    Cell,
    CellRun,
    Load,
    Plan,
    drives,
    outstanding,
    settled,
)
from sut.studies.breakdown.pictures import ladder, pixels_of, sizes_of
from sut.studies.breakdown.timed import Timings, time_preprocessors
from sut.studies.driving.drive import drive
from sut.studies.driving.driven import Drive, Driven
from sut.studies.driving.loads import Closed, FromFile
from sut.text import Say, as_name

COMMAND = "sut breakdown"
MOST_ROUNDS = 5
_TIMING_S = 20.0
_OVER_SIZES = "preprocessors over sizes"
_PART_S = 0.5


@dataclass(slots=True)
class Study:
    """What was measured so far. ``say`` gets a line for each step."""

    plan: Plan
    directory: Path
    console: Reporter
    say: Say
    budget_s: float
    rounds: int | None
    runs: dict[str, list[CellRun]] = field(default_factory=dict)
    parts: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What ``--bottleneck`` found, by cell."""
    failed: dict[str, str] = field(default_factory=dict)
    """Why a cell has no figures, or no more, by its label."""
    left_out: list[str] = field(default_factory=list)
    timings: Timings | None = None
    codes: list[ExitCode] = field(default_factory=list)
    model: str = ""
    weights: str | None = None
    _rest: AtRest = field(default_factory=AtRest)
    _begun: float = field(default_factory=time.monotonic)
    _took_s: dict[str, float] = field(default_factory=dict)

    @property
    def spent_s(self) -> float:
        """Seconds since it began."""
        return time.monotonic() - self._begun

    def run(self) -> None:
        """Go round the cells; then compare the preprocessors over sizes. Raises the first error where none can run."""
        names = {cell.preprocess for cell in self.plan.cells}
        has_sizes = len(names) > 1 and BASELINE in names
        self._go(self._measure, self.rounds or MOST_ROUNDS, _TIMING_S + OVERHEAD_S if has_sizes else 0.0)
        if has_sizes and self.spent_s + _TIMING_S > self.budget_s:
            self.left_out.append(_OVER_SIZES)
        elif has_sizes:
            self._time()

    def run_parts(self) -> None:
        """Measure the parts of each cell by themselves. Raises the first error where none can run."""
        self._go(self._measure_parts, 1, 0.0)

    def _go(self, measure: Callable[[Cell], None], rounds: int, reserved_s: float) -> None:
        first_error: SutError | ModuleNotFoundError | None = None
        for number in range(rounds):
            begin_s = self.spent_s
            for cell in self.plan.cells:
                if cell.label in self.failed:
                    continue
                if not self._has_time(cell, reserved_s):
                    self.left_out.append(f"{cell.label}, round {number + 1}" if number else cell.label)
                    continue
                cell_begin_s = self.spent_s
                try:
                    measure(cell)
                except (SutError, ModuleNotFoundError) as error:
                    first_error = first_error or error
                    if (why := one_line(error)) not in self.failed.values():
                        self.say(f"does not run: {cell.label}: {why}")
                    self.failed[cell.label] = why
                self._took_s[cell.label] = self.spent_s - cell_begin_s
            # More rounds than were asked for are begun only if there is time for a whole one.
            if self.rounds is None and self.spent_s + self.spent_s - begin_s + reserved_s > self.budget_s:
                break
        if first_error is not None and not (self.runs or self.parts):
            raise first_error

    def _has_time(self, cell: Cell, reserved_s: float) -> bool:
        """Whether a cell fits, by what it took or else the longest of the others; the first always does."""
        known_s = self._took_s.get(cell.label) or max(self._took_s.values(), default=0.0)
        return not self._took_s or self.spent_s + known_s + reserved_s <= self.budget_s

    def _measure(self, cell: Cell) -> None:
        """One round of a cell: LoadGen's run, then a process that is driven through the other loads."""
        folder = self._folder(cell)
        config = cell.config.model_copy(update={"output": folder, "overwrite": True})
        ran = run_experiment([config], self.console, COMMAND, rest=self._rest)
        self.codes += ran.codes
        if ExitCode.INTERRUPTED in ran.codes:
            raise KeyboardInterrupt
        [result] = ran.results
        if result.failed or result.first_error:
            raise RunError(f"LoadGen's run failed: {result.first_error or '; '.join(result.invalid_reasons)}")
        check_same_model([*(run.result for runs in self.runs.values() for run in runs[:1]), result])
        path = run_folder(ran.home, result.scenario, result.mode, result.audit)
        recorded = Samples.load(path / SAMPLES)
        loads = {BACK_TO_BACK: Load(recorded, result.samples_per_second)}
        parts = self._settled(cell, "Server")
        number = len(self.runs.get(cell.label, []))
        asked = drives(parts.config, number)
        driven = drive(parts, list(asked.values()), folder / f"driven-{number}", rest=self._rest)
        loads |= {name: _load(each) for name, each in zip(asked, driven, strict=True)}
        found = CellRun(loads, result, path / FILE, sizes_of(parts.dataset))
        self.runs.setdefault(cell.label, []).append(found)
        self.say(_line(cell, found))

    def _settled(self, cell: Cell, scenario: str) -> Assembly:
        """The parts of a cell; all are of one model."""
        parts = settled(cell.config, scenario)
        self.model, self.weights = parts.spec.name, parts.model.weights if parts.model else None
        return parts

    def _folder(self, cell: Cell) -> Path:
        """Where a cell's runs are kept."""
        return self.directory / "runs" / as_name(cell.label)

    def _measure_parts(self, cell: Cell) -> None:
        parts = self._settled(cell, "Offline")
        config = parts.config
        seconds, rounds = config.time_s or _PART_S, self.rounds or MOST_ROUNDS
        rates = run_parts(parts, rounds, min(seconds, _PART_S), f"the parts of {cell.label}")
        if config.preprocess_workers:
            whole = [Drive(Closed(outstanding(config)), seconds, _PART_S)] * rounds
            driven = drive(parts, whole, self._folder(cell), rest=self._rest)
            rates[END_TO_END] = [each.samples_per_second for each in driven]
        overlap = is_on_device(parts) and config.lane_count > 1
        files = [parts.dataset.read(index) for index in range(parts.dataset.count)]
        moved = bytes_moved(parts.spec.recipe, [(len(data), pixels_of(data)) for data in files])
        chosen = {name: getattr(config, name) for name in ("lanes", "threads", "max_batchsize", "preprocess_workers")}
        self.parts[cell.label] = {**judged(rates, overlap), "rates": rates, "bytes_per_sample": moved, **chosen}

    def _time(self) -> None:
        """Have the preprocessors that ran take turns over pictures of several sizes, the baseline first."""
        ran = {cell.preprocess: cell.config for cell in self.plan.cells if cell.label in self.runs}
        names = [name for name in ran if load_preprocessor(name).computes_pixels]
        if BASELINE not in names or len(names) < 2:
            return
        configs = [ran[name] for name in sorted(names, key=lambda name: name != BASELINE)]
        try:
            ladder(self.say)
            self.timings = time_preprocessors(configs, assemble(configs[0]).model, _TIMING_S)
        except (SutError, ModuleNotFoundError) as error:
            self.failed[_OVER_SIZES] = one_line(error)


def _load(driven: Driven) -> Load:
    rate = None if isinstance(driven.load, Closed | FromFile) else driven.load.rate
    concurrency = driven.load.concurrency if isinstance(driven.load, Closed) else None
    return Load(driven.per_sample(), driven.samples_per_second, rate, concurrency, driven.first_error)


def _line(cell: Cell, found: CellRun) -> str:
    times = [f"{name} {milliseconds(load.p50_ns)}" for name, load in found.loads.items()]
    return f"{cell.label}: p50 {', '.join(times)} ms"
