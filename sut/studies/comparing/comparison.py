"""A comparison from its first run to its verdict: look at every cell, then spend what time is left where it is open."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from sut.errors import short
from sut.results.schema import Accuracy, Result, more_is_better
from sut.studies.bare import Bare
from sut.studies.comparing.automatic import like
from sut.studies.comparing.bench import CellBench, CellRun
from sut.studies.comparing.contest import LOOK, Contest
from sut.studies.comparing.matrix import Cell

SAME_LABELS = 0.95
"""Of a reduced precision's labels so many must be those of FP32 for it to be recommended. The Pareto line has it all
the same: who can bear more is told what it gains."""


@dataclass(slots=True)
class Comparison:
    """Compares ``cells``. ``later`` are cells that wait for a leader, and are run if they differ from one by the
    preprocessor only.

    ``budget_s`` is for all runs; where ``look_at_all`` the first look does not heed it. ``absent`` is what cannot be
    run and why, by name. ``say`` gets a line for each step, and ``keep`` is called after it.
    """

    cells: list[Cell]
    bench: CellBench
    budget_s: float
    say: Callable[[str], None]
    later: Sequence[Cell] = ()
    with_bare: bool = True
    look_at_all: bool = False
    at_least: Mapping[str, int] = field(default_factory=dict)
    """Rounds that a cell takes part in whatever is known of it: those that are held against figures of before."""
    keep: Callable[[], object] = lambda: None
    clock: Callable[[], float] = time.monotonic
    absent: dict[str, str] = field(default_factory=dict)
    runs: dict[str, list[CellRun]] = field(default_factory=dict)
    bares: dict[str, Bare] = field(default_factory=dict)
    accuracies: dict[str, Accuracy] = field(default_factory=dict)
    contests: dict[tuple[str, ...], Contest] = field(default_factory=dict)
    began: float | None = None

    def run(self) -> None:
        """All of it. Raises ``KeyboardInterrupt``; what was measured until then is here."""
        self.began = self.clock()
        self._look(self.cells)
        self._widen()
        number = LOOK + 1
        while self._round(number):
            self._widen()
            number += 1

    @property
    def left_s(self) -> float:
        """Seconds that are left of the budget."""
        return self.budget_s if self.began is None else self.budget_s - (self.clock() - self.began)

    def contest_of(self, cell: Cell) -> Contest:
        """The one that a cell takes part in."""
        return self.contests.setdefault(cell.group, Contest(cell.label, more_is_better(cell.config.scenario)))

    def _look(self, cells: Sequence[Cell]) -> None:
        for at, cell in enumerate(cells, 1):
            contest = self.contest_of(cell)
            if not self.look_at_all and self.left_s <= 0:
                self.absent[cell.label] = "the budget was spent before; --budget takes more"
                continue
            run = self._run(cell, LOOK)
            bare = self.bench.bare(cell) if self.with_bare and not run.failed else None
            if bare is not None:
                self.bares[cell.label] = bare
            self.say(f"look {at} of {len(cells)}: {cell.label}: {words_of(run, cell.config.scenario)}")
            if not contest.figures.get(contest.baseline):
                contest.baseline = cell.label  # the first that has a figure
            self.keep()

    def _widen(self) -> None:
        """Look at what has waited for those that are ahead now: who was ahead at first may have been so by chance."""
        for contest in list(self.contests.values()):
            known = {cell.label for cell in self.cells}
            leaders = [cell for cell in self.cells if cell.label == contest.leader]
            more = [cell for leader in leaders for cell in like(leader, self.later) if cell.label not in known]
            if more:
                self.say(f"{contest.leader} is ahead; what is left of its preprocessors comes next")
                self.cells = [*self.cells, *more]
                self._look(more)

    def _run(self, cell: Cell, number: int) -> CellRun:
        run = self.bench.run(cell, number)
        self.runs.setdefault(cell.label, []).append(run)
        contest = self.contest_of(cell)
        contest.add(cell.label, number, run.figure)
        contest.barred.pop(cell.label, None)
        if (why := bar_of(self.runs[cell.label], self.bench.results.get(cell.label))) is not None:
            contest.barred[cell.label] = why
        if run.failed and cell.label == contest.baseline:  # nothing more can be held against it
            able = (each for each in contest.figures if contest.figures[each] and each not in contest.barred)
            contest.baseline = next(able, contest.baseline)
        return run

    def _round(self, number: int) -> bool:
        """One round of each contest that is open; False where none is."""
        seconds = {label: sum(run.took_s for run in runs) / len(runs) for label, runs in self.runs.items()}
        by_label = {cell.label: cell for cell in self.cells}
        ran = False
        for contest in self.contests.values():
            chosen = contest.next_round(number, seconds, self.left_s)
            more = [label for label, rounds in self.at_least.items() if number < rounds and label not in chosen]
            more = [label for label in more if contest.figures.get(label)]
            if sum(seconds[label] for label in (*chosen, *more)) > self.left_s:
                more = []
            for label in (*chosen, *more):
                self._run(by_label[label], number)
                self.keep()
            if chosen or more:
                ran = True
                self.say(self._told(number, contest, [*chosen, *more]))
        return ran

    def _told(self, number: int, contest: Contest, chosen: Sequence[str]) -> str:
        rivals = contest.rivals
        state = f"{contest.leader} is ahead" if contest.leader is not None else "nothing works any more"
        still = f", {len(rivals)} still open" if rivals else ""
        runs = f"{len(chosen)} run{'s' * (len(chosen) > 1)}"
        return f"round {number}, {runs}: {state}{still}; {max(0.0, self.left_s):.0f} s left"


def bar_of(runs: Sequence[CellRun], result: Result | None) -> str | None:
    """Why nobody would choose a cell, however fast it is; None for most.

    A short run may be INVALID for its shortness alone, and its figure as good as any. In Server it is for its latency.
    """
    if failed := [run for run in runs if run.failed]:
        return f"failed: {failed[0].reason}"
    if result is None:
        return None
    if result.scenario == "Server" and not any(run.valid for run in runs):
        return f"INVALID: {runs[-1].reason}"
    if result.parity is not None and not result.parity.within_1_level:
        return f"other pictures than the reference's: {result.parity.line()}"
    agreement = result.agreement
    if agreement is not None and result.weights != "random" and agreement.value < SAME_LABELS:
        return f"{agreement.short} as fp32, less than {100 * SAME_LABELS:.0f} %"
    return None


def words_of(run: CellRun, scenario: str) -> str:
    """A run in a few words."""
    if run.failed:
        return f"FAILED: {run.reason}"
    if run.figure is None:
        return f"no figure: {run.reason}"
    text = f"{short(run.figure)} samples/s" if more_is_better(scenario) else f"{short(run.figure / 1e6)} ms"
    return text if run.valid else f"{text}, INVALID: {run.reason}"
