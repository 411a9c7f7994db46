"""What the user sees: a header, a line or a bar per run, a table. The table goes to stdout, all else to stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console as RichConsole
from rich.console import RenderableType
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as RichProgress
from rich.text import Text

from sut.cli.emit import emit, grid, prose
from sut.config import RunConfig
from sut.errors import ExitCode, short
from sut.mlperf.short import in_short
from sut.pipeline.assembly import Assembly
from sut.process.streams import tell_error
from sut.results.energy import POWER_LOG
from sut.results.schema import FILE, Result
from sut.results.wording import (
    ESTIMATE,
    agreement_lines,
    energy_lines,
    figure,
    identified_lines,
    is_estimate,
    kind,
    milliseconds,
    parity_lines,
    scaling_lines,
    verdict,
)
from sut.run.events import Planned
from sut.run.reporter import Progress
from sut.text import printable, printable_lines

_PLAIN_EVERY_S = 5.0
_PHASES = {
    "import": "starting",
    "choose": "trying lanes, threads and batch",
    "load": "loading the model",
    "samples": "preprocessing the samples",
    "calibrate": "warming up and calibrating",
    "generate": "LoadGen generates its queries",
    "run": "running",
    "finish": "writing LoadGen's logs",
}


class Console:
    """Where runs are shown. ``as_json`` prints one JSON object in the place of the table."""

    def __init__(self, as_json: bool = False) -> None:
        self._as_json = as_json
        self.told: set[str] = set()
        """Notes of the run that goes on that were shown already."""
        self.err = RichConsole(stderr=True, highlight=False)

    def note(self, text: str) -> None:
        """One line about something the user should know."""
        self._line(text)

    def error(self, text: str) -> None:
        """One line about what went wrong, never wrapped: scripts read it."""
        tell_error(text)

    def _line(self, text: str, style: str = "") -> None:
        self.err.print(Text(printable(text), style=style), soft_wrap=True)

    def header(self, parts: Assembly, home: Path) -> None:
        """What is about to run."""
        config = parts.config
        weights = ", random weights" if config.weights == "random" else ""
        self._line(
            f"{parts.spec.name}{weights} on {config.backend} {config.device}, {config.precision}, preprocess "
            f"{config.preprocess}, boundary {config.boundary}; data set {parts.dataset.name}, "
            f"{parts.dataset.count} picture{'s' if parts.dataset.count != 1 else ''}",
            "bold",
        )

    @contextmanager
    def working(self, what: str) -> Iterator[Callable[[int, int], None]]:
        """Show work of so many steps, where it turns out to have any: a bar on a terminal, a line elsewhere."""
        bar = Work(what, self)
        try:
            yield bar.step
        finally:
            bar.close()

    @contextmanager
    def watching(self, config: RunConfig) -> Iterator[Watcher]:
        """Show one run while it goes."""
        watcher = Watcher(config, self)
        try:
            yield watcher
        finally:
            watcher.close()

    def result(self, result: Result, directory: Path, code: ExitCode, trace: str | None) -> None:
        """What came out of one run, and why it does not count where it does not."""
        name = f"{result.scenario} {result.mode}"
        if trace:
            print(printable_lines(trace), file=sys.stderr)
        if code in (ExitCode.USAGE, ExitCode.SETUP, ExitCode.FAILED):
            self.error(f"{name}: {result.first_error or '; '.join(result.invalid_reasons)}")
            if result.failed_samples:
                self._line(f"  {result.failed_samples} samples failed; details in {directory / FILE}")
            return
        if code == ExitCode.INTERRUPTED:
            self.error(f"{name}: {'; '.join(result.invalid_reasons)}")
            return
        if result.mode != "accuracy" and result.quiet is not None and result.is_busy:
            self._line(f"{name}: {result.quiet.line()}", "yellow")
        for reason in result.invalid_reasons:
            self._line(f"{name}: INVALID: {reason}", "red")
        shown = {*(result.plan or {}).get("notes", ()), *self.told}
        for note in result.notes:
            if note.startswith(POWER_LOG):
                self.error(f"{name}: {note}")
            elif note not in shown:
                self.note(f"{name}: {note}")

    def summary(self, results: Sequence[Result], home: Path) -> None:
        """One table of all runs, what keeps them from being official, and where the files are."""
        rows = [result.model_dump(mode="json", by_alias=True) for result in results] if self._as_json else []
        emit("run", rows, _shown(results, home), self._as_json)

    def page(self, path: Path) -> None:
        """Where the page to look at is."""
        if not self._as_json:
            print(printable(f"page: {path}"))


class BriefConsole(Console):
    """Shows a run's bar where there is a terminal, and what was noted before it once; nothing else."""

    def __init__(self) -> None:
        super().__init__()
        self._noted: set[str] = set()
        self.running = False

    def note(self, text: str) -> None:
        if not self.running and text not in self._noted:
            self._noted.add(text)
            super().note(text)

    def header(self, parts: Assembly, home: Path) -> None:
        self.running = True  # the plan and its notes differ from run to run

    def result(self, result: Result, directory: Path, code: ExitCode, trace: str | None) -> None:
        self.running = False


class Work:
    """A piece of work before the runs on the screen."""

    def __init__(self, what: str, console: Console) -> None:
        self._what = what
        self._console = console
        self._bar: RichProgress | None = None
        self._last_line = time.monotonic()

    def step(self, done: int, total: int) -> None:
        """So many steps of so many are done."""
        if self._console.err.is_terminal:
            if self._bar is None:
                self._bar = RichProgress(console=self._console.err, transient=True)
                self._bar.start()
                self._bar.add_task(self._what)
            self._bar.update(self._bar.task_ids[0], completed=done, total=total)
        elif time.monotonic() - self._last_line >= _PLAIN_EVERY_S:
            self._last_line = time.monotonic()
            self._console.note(f"{self._what}: {done:,} of {total:,}")

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.stop()


class Watcher:
    """One run on the screen: a bar on a terminal, a plain line every few seconds elsewhere."""

    def __init__(self, config: RunConfig, console: Console) -> None:
        self._name = f"{config.scenario} {config.mode}"
        self._console = console
        self._bar: RichProgress | None = None
        self._last_line = time.monotonic()
        if console.err.is_terminal:
            self._bar = RichProgress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=None),
                TextColumn("{task.fields[now]}"),
                console=console.err,
                transient=True,
            )
            self._bar.start()
            self._bar.add_task(self._name, total=None, now="")

    def phase(self, name: str) -> None:
        """The run has come to another phase, or is in it still."""
        self._show(_PHASES.get(name, name), "")

    def loading(self, phase: str, done: int, total: int) -> None:
        """How far the model, or how many of the samples, are loaded, before the run."""
        text = f"{_PHASES[phase]} {done:,} of {total:,}"
        self._show(text, text, completed=done, total=total)

    def plan(self, planned: Planned) -> None:
        """The plan, before the run starts."""
        plan = planned.plan
        self._console.note(f"{self._name}: plan: {plan.line()}")
        self._console.note(f"{self._name}: {planned.settled.line(plan.scenario)}")
        for note in plan.notes:
            self._console.note(f"  {note}")
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=0, total=plan.samples)

    def generating(self, left_s: float) -> None:
        """LoadGen generates its queries, for so long still."""
        text = f"{_PHASES['generate']}, {left_s:.0f} s left"
        self._show(text, text if left_s >= 1 else "")

    def note(self, message: str) -> None:
        """Something about the run that shows only while it goes on."""
        self._console.told.add(message)
        self._console.note(f"{self._name}: {message}")

    def progress(self, now: Progress) -> None:
        """Where the run is."""
        p99 = "" if now.p99_ns is None else f"p99 {milliseconds(now.p99_ns)} ms, "
        failed = f", {now.failed} FAILED" if now.failed else ""
        text = f"{short(now.rate)}/s, {p99}{now.left_s:.0f} s left{failed}"
        line = f"{now.done:,} of about {now.planned:,}, {text}"
        self._show(text, line, completed=now.done, total=max(now.planned, now.done))

    def _show(self, now: str, line: str, **steps: int) -> None:
        """What is ``now``, on the bar; where there is none a line every few seconds."""
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], now=now, **steps)  # type: ignore[arg-type]
        elif line and time.monotonic() - self._last_line >= _PLAIN_EVERY_S:
            self._last_line = time.monotonic()
            self._console.note(f"{self._name}: {line}")

    def failure(self, message: str) -> None:
        """The first sample has failed; the run goes on, but cannot count any more."""
        self._console.note(f"{self._name}: a sample failed: {message}")

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.stop()


def _shown(results: Sequence[Result], home: Path) -> Iterator[RenderableType]:
    columns = ("<scenario", "<result", ">figure", ">p50 ms", ">p90 ms", ">p99 ms", ">samples", ">CPU ms")
    yield grid(columns, map(_row, results))
    yield from (*parity_lines(results), *agreement_lines(results), *identified_lines(results))
    yield from (*scaling_lines(results), *energy_lines(results))
    if any(is_estimate(result.metric) for result in results):
        yield prose(ESTIMATE)
    if broken := list(dict.fromkeys(rule for result in results for rule in result.rules_broken)):
        yield in_short(broken)
    yield f"files: {home}"


def _row(result: Result) -> list[str]:
    words = verdict(result.mode, result.valid, result.failed)
    latency = [milliseconds(result.latency_ns.get(name)) for name in ("p50", "p90", "p99")]
    shown = figure(result.accuracy, result.metric)
    cpu_s = result.cpu_seconds_per_sample
    return [
        kind(result),
        words,
        shown,
        *latency,
        f"{result.samples:,}",
        milliseconds(None if cpu_s is None else 1e9 * cpu_s),
    ]
