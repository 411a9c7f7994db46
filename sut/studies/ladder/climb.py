"""Measures the rungs of a ladder, by turns, within a budget of time."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sut.config import RunConfig
from sut.errors import ExitCode, RunError, SutError, one_line, short
from sut.mlperf.logs import Int64Array
from sut.pipeline.assembly import Assembly, assemble
from sut.process.telling import code_of
from sut.run.energy.metering import AtRest
from sut.run.reporter import Reporter
from sut.studies.driving.drive import drive
from sut.studies.driving.driven import Drive, Driven, Ready
from sut.studies.driving.loads import Closed
from sut.studies.ladder.rungs import Ladder, Rung
from sut.studies.tuning.space import DEFAULT, points_of, with_settings

LEAST = 12
"""Samples of a round, however long they take: of a model that does three a second, what a budget of minutes allows."""


@dataclass(frozen=True, slots=True)
class Round:
    """One rung under the load once; ``latency_ns`` of the samples that were answered in the time."""

    ready: Ready
    driven: Driven
    latency_ns: Int64Array


@dataclass(slots=True)
class Step:
    """A rung as it was climbed: ``rounds`` by their number from 1; ``reason`` why it has none, or no more of them.

    ``tried`` has the candidates of its search with their samples per second, ``found`` the settings of the best.
    """

    rung: Rung
    settings: dict[str, Any]
    parts: Assembly | None = None
    tried: dict[str, float] = field(default_factory=dict)
    found: dict[str, Any] = field(default_factory=dict)
    rounds: dict[int, Round] = field(default_factory=dict)
    reason: str | None = None
    failed: bool = False
    """Whether that is since something went wrong, and not for want of what it needs."""

    def stop(self, error: Exception) -> None:
        """It cannot be climbed."""
        self.reason, self.failed = one_line(error), code_of(error) == ExitCode.FAILED


class Climb:
    """One study while it goes on; ``steps`` are its rungs. ``base`` has what is set on all of them."""

    def __init__(self, ladder: Ladder, base: RunConfig, console: Reporter) -> None:
        self.steps: list[Step] = []
        self._ladder, self._base, self._console = ladder, base, console
        self._rest = AtRest()

    def go(self, rounds: int | None, budget_s: float) -> None:
        """Find what each rung is, then measure them there and back again, ``rounds`` times or within the budget.

        What a rung needs is made before the budget begins; searches are part of it.
        """
        for rung in self._ladder.rungs:
            self.steps.append(self._step(rung, {}))
        begin_s = time.monotonic()
        found: dict[str, Mapping[str, Any]] = {}
        for at, rung in enumerate(self._ladder.rungs):
            if self._ladder.settings_of(rung, found) != self.steps[at].settings:
                self.steps[at] = self._step(rung, found)
            if rung.search and self.steps[at].parts is not None:
                self._search(self.steps[at])
                found[rung.name] = self.steps[at].found
        number, round_s = 0, 0.0
        while number != rounds and time.monotonic() - begin_s + round_s <= budget_s:
            number, at_s = number + 1, time.monotonic()
            self._round(number, at_s, begin_s + budget_s)
            round_s = time.monotonic() - at_s

    def _step(self, rung: Rung, found: Mapping[str, Mapping[str, Any]]) -> Step:
        """A rung with its parts, or why it cannot have them here."""
        step = Step(rung, self._ladder.settings_of(rung, found))
        try:
            with self._console.working(f"preparing {rung.name}") as progress:
                step.parts = assemble(with_settings(self._base, step.settings), self._console.note, progress)
        except (SutError, ModuleNotFoundError) as error:
            step.stop(error)
        return step

    def _search(self, step: Step) -> None:
        """Give a rung the settings with the most throughput, each candidate measured once, as it is without them too.

        What is then told of the rung is measured anew, so that the luck of the best candidate is no part of it.
        """
        assert step.parts is not None
        best: tuple[float, Assembly] | None = None
        for point in points_of(step.rung.search, step.parts.config):
            label = "unchanged" if point == DEFAULT else point.label
            try:
                parts = assemble(point.apply(step.parts.config), self._console.note)
                rate = self._drive(parts).driven.samples_per_second
            except (SutError, ModuleNotFoundError) as error:
                self._console.note(f"{step.rung.name}: {label}: {one_line(error)}")
                continue
            self._console.note(f"{step.rung.name}: {label}: {short(rate)} samples/s")
            step.tried[label] = rate
            if best is None or rate > best[0]:
                best, step.found = (rate, parts), dict(point.settings)
        if best is None:
            step.stop(RunError("none of the candidates of its search runs"))
        else:
            step.parts = best[1]
            step.settings |= step.found

    def _round(self, number: int, begin_s: float, until_s: float) -> None:
        """All rungs once: of the first round what the budget does not reach has that as its reason."""
        for step in self.steps if number % 2 else reversed(self.steps):
            if step.reason is not None or step.parts is None:
                continue
            if number == 1 and time.monotonic() > until_s:
                step.reason = "not reached: give a longer --budget"
                continue
            try:
                step.rounds[number] = measured = self._drive(step.parts)
            except (SutError, ModuleNotFoundError) as error:
                step.stop(error)
                self._console.note(f"{step.rung.name}: {step.reason}")
            else:
                rate = short(measured.driven.samples_per_second)
                self._console.note(f"round {number}, {step.rung.name}: {rate} samples/s")

    def _drive(self, parts: Assembly) -> Round:
        """Load a rung's system and measure it once. Raises what ``drive`` does, ``RunError`` if it does not count."""
        load, loaded = Closed(self._ladder.concurrency), list[Ready]()
        with tempfile.TemporaryDirectory() as scratch:
            drives = [Drive(load, self._ladder.seconds, least=LEAST)]
            [driven] = drive(parts, drives, Path(scratch), ready=loaded.append, rest=self._rest)
            if not driven.ok:
                raise RunError(driven.first_error or f"{driven.failed} samples failed")
            return Round(loaded[0], driven, driven.per_sample().latency_ns)
