"""Who is told how runs go: what a run needs of the console, and of anything that takes its place."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from sut.config import RunConfig
from sut.errors import ExitCode
from sut.pipeline.assembly import Assembly
from sut.results.schema import Result
from sut.run.events import Planned


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a run is: samples done of planned, seconds, samples per second, p99 so far in ns, samples failed."""

    done: int
    planned: int
    elapsed_s: float
    left_s: float
    rate: float
    p99_ns: int | None
    failed: int


class Observer(Protocol):
    """Who is told how a run goes: the console."""

    def phase(self, name: str) -> None: ...
    def loading(self, phase: str, done: int, total: int) -> None: ...
    def plan(self, planned: Planned) -> None: ...
    def generating(self, left_s: float) -> None: ...
    def progress(self, now: Progress) -> None: ...
    def note(self, message: str) -> None: ...
    def failure(self, message: str) -> None: ...


class Reporter(Protocol):
    """Is told what comes of runs: before the first, around each, and after the last."""

    def note(self, text: str) -> None: ...
    def error(self, text: str) -> None: ...
    def header(self, parts: Assembly, home: Path) -> None: ...
    def working(self, what: str) -> AbstractContextManager[Callable[[int, int], None]]: ...
    def watching(self, config: RunConfig) -> AbstractContextManager[Observer]: ...
    def result(self, result: Result, directory: Path, code: ExitCode, trace: str | None) -> None: ...
    def summary(self, results: Sequence[Result], home: Path) -> None: ...
    def page(self, path: Path) -> None: ...
