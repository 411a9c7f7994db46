"""Makes a comparison's runs through the product: what comes before the clock, each run, the bare loop beside it."""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from sut.config import RunConfig
from sut.errors import ExitCode, InputError, SetupError, SutError, one_line
from sut.pipeline.assembly import Assembly, assemble
from sut.process.cgroup import usable_cores
from sut.process.child import SILENCE_S
from sut.results.schema import FILE, Result, used
from sut.run.auto import fixed
from sut.run.compared import compared_with_fp32
from sut.run.energy.metering import AtRest
from sut.run.folders import run_folder
from sut.run.planning import EARLY_STOPPING_QUERIES
from sut.run.reporter import Reporter
from sut.run.runner import check_same_model, run_experiment
from sut.studies.bare import Bare, has_loop, run_bare
from sut.studies.comparing.matrix import Cell
from sut.text import duration

COMMAND = "sut compare"
_SAMPLES_PER_QUERY = 8
"""Of MultiStream, by MLPerf's rules."""
_WARM_UP_SAMPLES = 40
"""About so many are answered before the clock: alone, in batches, for calibration."""
_BARE_S = 2.0


@dataclass(frozen=True, slots=True)
class CellRun:
    """One run of a cell. ``figure`` is what cells are compared by; ``reason`` is why it failed or does not count."""

    number: int
    figure: float | None
    valid: bool
    failed: bool
    took_s: float
    reason: str | None = None
    cpu_seconds_per_sample: float | None = None
    latency_ns: Mapping[str, float | None] = field(default_factory=dict)
    quiet: bool | None = None
    """Whether nothing disturbed it; None where that is not known."""
    samples_per_second: float | None = None


def figure_of(result: Result) -> float | None:
    """What a run is compared by: the scenario's metric; in Server, where all are asked the same rate, p99 in ns.

    A latency for which LoadGen gives no early-stopping estimate is the percentile that was seen.
    """
    if result.scenario == "Server":
        return result.latency_ns.get("p99")
    if result.metric is not None and result.metric.value:
        return result.metric.value
    return result.latency_ns.get({"SingleStream": "p90", "MultiStream": "p99"}.get(result.scenario, ""))


class CellBench:
    """Runs cells in ``directory``. A cell's last result stays there; ``results`` has it, by label."""

    def __init__(self, directory: Path, console: Reporter, say: Callable[[str], None], limit_s: float) -> None:
        """``limit_s`` is what one run may take at the most."""
        self.results: dict[str, Result] = {}
        self.paths: dict[str, Path] = {}
        self._output = directory / "runs"
        self._console = console
        self._say = say
        self._limit_s = limit_s
        self._rest = AtRest()
        self._first: dict[tuple[str, str | None, bool], Result] = {}
        """Of each model, or two, and of what reads none of its files."""
        self._chosen: dict[str, dict[str, int]] = {}
        """What a cell's first run chose, by label: auto learns from every run, and all of a cell's do the same."""
        self._known: dict[str, SutError | float] = {}
        """Of a model on a backend in a precision: seconds for a picture, or why it cannot run."""

    def prepare(self, cell: Cell) -> SutError | None:
        """Do what a cell needs once: make its file, answer a picture, compare its labels. Returns why it cannot run."""
        try:
            with self._console.working(f"preparing {cell.label}") as progress:
                parts = assemble(cell.config, self._console.note, progress)
        except (SutError, ModuleNotFoundError) as error:
            return _told(error)
        key = _what_runs(cell.config)
        if key not in self._known:
            self._known[key] = self._tried(cell, parts)
        found = self._known[key]
        return found if isinstance(found, SutError) else self._too_slow(cell.config, found)

    def _tried(self, cell: Cell, parts: Assembly) -> SutError | float:
        """Seconds for one picture; or why that is not to be had."""
        try:
            alone = cell.config.model_copy(update={"lanes": 1, "threads": usable_cores(), "max_batchsize": 1})
            loaded = replace(parts, config=alone)
            took_s = run_bare(loaded, 1, 0, f"loading {cell.label}", min(SILENCE_S, self._limit_s)).first_s
            if (slow := self._too_slow(cell.config, took_s)) is None:
                with self._console.working("comparing answers") as progress:
                    compared_with_fp32(parts, self._console.note, progress)
        except (SutError, ModuleNotFoundError) as error:
            return _told(error)
        return slow or took_s

    def _too_slow(self, config: RunConfig, picture_s: float) -> InputError | None:
        per_query = (config.samples_per_query or _SAMPLES_PER_QUERY) if config.scenario == "MultiStream" else 1
        samples = _WARM_UP_SAMPLES + EARLY_STOPPING_QUERIES[config.scenario] * per_query
        if (needed_s := picture_s * samples / (config.lanes or 1)) <= self._limit_s:
            return None
        return InputError(
            f"one picture takes {picture_s:.3g} s, so a run would take about {duration(needed_s)}, longer than the "
            f"budget; --budget {2 * needed_s / 60:.0f}m would do"
        )

    def run(self, cell: Cell, number: int, mode: str = "performance") -> CellRun:
        """One run. Raises ``KeyboardInterrupt`` where it was interrupted, ``RunError`` where the model has changed."""
        begin = time.monotonic()
        config = self._config_of(cell, mode)
        try:
            ran = run_experiment([config], self._console, COMMAND, rest=self._rest)
        except (SutError, ModuleNotFoundError) as error:
            return CellRun(number, None, False, True, time.monotonic() - begin, reason=one_line(error))
        if ExitCode.INTERRUPTED in ran.codes:
            raise KeyboardInterrupt
        result, code = ran.results[0], ran.codes[0]
        models = (config.model, config.identify, result.model_sha256 is None)
        check_same_model([self._first.setdefault(models, result), result])
        failed = result.failed or code in (ExitCode.USAGE, ExitCode.SETUP, ExitCode.FAILED)
        if mode == "performance":
            self._keep(cell, result, ran.home, failed)
        else:
            self.results[f"{cell.label}, {mode}"] = result
        return CellRun(
            number,
            None if failed else figure_of(result),
            bool(result.valid),
            failed,
            time.monotonic() - begin,
            result.first_error or next(iter(result.invalid_reasons), None),
            result.cpu_seconds_per_sample,
            result.latency_ns,
            result.quiet.is_quiet if result.quiet is not None else None,
            None if failed else result.samples_per_second,
        )

    def _keep(self, cell: Cell, result: Result, home: Path, failed: bool) -> None:
        before, path = self.paths.get(cell.label), run_folder(home, result.scenario, result.mode, result.audit) / FILE
        if before is not None and before != path:  # of the first run, when what it chose was still open
            shutil.rmtree(before.parents[2], ignore_errors=True)
        self.results[cell.label], self.paths[cell.label] = result, path
        if not failed:
            self._chosen.setdefault(cell.label, fixed(used(result), result.scenario))

    def _config_of(self, cell: Cell, mode: str) -> RunConfig:
        """That of a cell's next run, in a folder of its own: what is chosen for one may be what another is told."""
        output = self._output / hashlib.sha256(cell.label.encode()).hexdigest()[:8]
        told: dict[str, Any] = {"output": output, "overwrite": True, "mode": mode}
        return cell.config.model_copy(update=self._chosen.get(cell.label, {}) | told)

    def bare(self, cell: Cell) -> Bare | None:
        """The bare loop with what the cell's last run used; None where there is no such loop, or it fails."""
        result = self.results[cell.label]
        if not has_loop(cell.config):
            return None
        config = cell.config.model_copy(update=used(result))
        samples = cell.config.samples_per_query or _SAMPLES_PER_QUERY
        try:
            parts = replace(assemble(config), config=config)
            return run_bare(parts, samples, min(_BARE_S, cell.config.time_s or _BARE_S), f"{cell.label}, bare")
        except (SutError, ModuleNotFoundError) as error:
            self._say(f"{cell.label}: no bare loop: {one_line(error)}")
            return None


def _told(error: SutError | ModuleNotFoundError) -> SutError:
    return error if isinstance(error, SutError) else SetupError(one_line(error))


def _what_runs(config: RunConfig) -> str:
    """The same for configs that run the same file in the same way, however its pictures are prepared."""
    words = (config.model, config.recipe, config.weights, config.backend, config.device, config.precision, config.fold)
    return repr((*words, sorted(config.backend_options.items())))
