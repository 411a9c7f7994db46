"""Measures pictures of some sizes with some preprocessors, by turns, under one closed loop."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sut.config import RunConfig
from sut.errors import ExitCode, InputError, RunError, SetupError, one_line, worst
from sut.pipeline.assembly import assemble
from sut.pipeline.slowdown import check_as_it_is
from sut.results.energy import POWER_LOG
from sut.run.energy.metering import AtRest
from sut.run.energy.power_log import check_power_log
from sut.run.reporter import Reporter
from sut.studies.breakdown.pictures import Pictures
from sut.studies.driving.drive import drive
from sut.studies.driving.driven import Drive, Ready
from sut.studies.driving.loads import Closed
from sut.studies.energy.cell import Cell
from sut.studies.energy.report import rows_of, words_of
from sut.studies.tuning.space import with_settings


def base_of(configs: Sequence[RunConfig]) -> RunConfig:
    """What pictures and preprocessors are put into. Raises ``InputError`` for one that cannot be."""
    base = configs[0]
    if len(configs) != 1 or base.mode != "performance":
        raise InputError("sut study energy asks its pictures itself; leave out --accuracy and several scenarios")
    check_as_it_is(base, "study energy")
    if base.power_log is not None:
        check_power_log(base.power_log)
    # A closed loop of requests for single pictures, as Server's are.
    return with_settings(base, {"scenario": "Server", "boundary": "jpeg"})


def run_energy(
    base: RunConfig,
    pictures: Sequence[Pictures],
    preprocessors: Sequence[str],
    load: Drive,
    rounds: int,
    console: Reporter,
) -> tuple[dict[str, Any], ExitCode]:
    """Measure every size with every preprocessor: the rows and what they say, as it is written down, and the exit code.

    That is of an interrupt, which keeps what was measured, of a failure where a cell failed, of wrong input where the
    power log was refused, of something missing where none runs. Raises ``InputError`` for what no machine could run,
    and ``KeyboardInterrupt`` where nothing was measured yet.
    """
    cells = [_cell(base, each, name, console) for each in pictures for name in preprocessors]
    known = [cell.parts for cell in cells if cell.parts is not None]
    rest = AtRest()
    if known:
        rest.idle(sorted({gpu for parts in known for gpu in parts.gpus}), base.power_log, console.note)
    interrupted = False
    try:
        for number in range(rounds):
            for cell in reversed(cells) if number % 2 else cells:
                _measure(cell, load, number + 1, console, rest)
    except KeyboardInterrupt:
        if not any(cell.rounds for cell in cells):
            raise
        interrupted = True
        console.note("interrupted: what was measured is kept")
    told: dict[str, Any] = {
        "rows": rows_of(cells),
        "model": base.model_name or base.model,
        "weights": base.weights,
        "backend": base.backend,
        "device": base.device,
        "concurrency": load.load.concurrency if isinstance(load.load, Closed) else None,
        "seconds": load.seconds,
    }
    told["words"] = list(words_of(told))
    codes = [ExitCode.FAILED for cell in cells if cell.failed]
    codes += [ExitCode.USAGE for row in told["rows"] for note in row["notes"] if note.startswith(POWER_LOG)]
    codes += [ExitCode.OK if any(cell.rounds for cell in cells) else ExitCode.SETUP]
    return told, ExitCode.INTERRUPTED if interrupted else worst(codes)


def _cell(base: RunConfig, pictures: Pictures, preprocess: str, console: Reporter) -> Cell:
    """A cell with its parts, or why it cannot have them here."""
    cell = Cell(pictures.name, preprocess)
    config = with_settings(pictures.of(base), {"preprocess": preprocess})
    try:
        with console.working("preparing the model") as progress:
            cell.parts = assemble(config, console.note, progress)
    except (SetupError, ModuleNotFoundError) as error:
        cell.reason = one_line(error)
    return cell


def _measure(cell: Cell, load: Drive, number: int, console: Reporter, rest: AtRest) -> None:
    if cell.parts is None or cell.reason is not None:
        return
    loaded: list[Ready] = []
    try:
        with tempfile.TemporaryDirectory() as scratch:
            [driven] = drive(cell.parts, [load], Path(scratch), ready=loaded.append, say=console.note, rest=rest)
        if not driven.ok:
            raise RunError(driven.first_error or f"{driven.failed} samples failed")
    except (RunError, SetupError, ModuleNotFoundError) as error:
        cell.reason, cell.failed = one_line(error), isinstance(error, RunError)
        console.note(f"{cell.pictures}, {cell.preprocess}: {cell.reason}")
    else:
        cell.ready = loaded[0]
        cell.rounds.append(driven)
        console.note(f"round {number}, {cell.pictures}, {cell.preprocess}: {driven.samples_per_second:.4g} samples/s")
