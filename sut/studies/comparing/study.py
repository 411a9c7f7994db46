"""What ``sut compare`` does around its comparison: before the first run, to keep it, and against a baseline."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from sut.config import RunConfig, model_stem
from sut.errors import ExitCode, InputError, SutError, one_line, worst, writing
from sut.files import write_text
from sut.process.streams import tell
from sut.results.machine import differs, system_facts
from sut.results.schema import COMPARISON, dump_json
from sut.run.folders import fresh
from sut.run.reporter import Reporter
from sut.studies.comparing.automatic import like
from sut.studies.comparing.bench import CellBench
from sut.studies.comparing.comparison import Comparison
from sut.studies.comparing.earlier import ROUNDS, since
from sut.studies.comparing.matrix import Cell
from sut.studies.comparing.orders import Asked, Cells
from sut.studies.comparing.report import rows_of
from sut.studies.comparing.sentence import sentence_of
from sut.studies.tuning.space import with_settings
from sut.text import as_name, duration, shortened


def begin(cells: Cells, base: RunConfig, asked: Asked, console: Reporter) -> tuple[Comparison, CellBench, Path]:
    """The comparison, ready to run, what makes its runs, and where it is kept. Raises ``SutError`` where none can."""
    directory = fresh(base.output / name_of([*cells.now, *cells.later], base), base.overwrite)
    count = f"{len(cells.now)} cell{'s' if len(cells.now) > 1 else ''}"
    tell(f"compare: {count}, {duration(asked.budget_s)} for the runs; files: {directory}")
    tell("before the clock each model answers a picture; int8 files are made and answers compared, once, and kept")
    bench = CellBench(directory, console, tell, asked.budget_s)
    absent = dict(cells.absent)
    try:
        able = _prepared(bench, cells.now, absent)
    except (SutError, KeyboardInterrupt):
        with suppress(OSError):
            directory.rmdir()
        raise
    comparison = Comparison(
        able, bench, asked.budget_s, tell, with_bare=asked.bare, look_at_all=asked.yes, absent=absent
    )
    later = [cell for cell in cells.later if any(like(each, [cell]) for each in able)]
    comparison.later = [cell for cell in later if bench.prepare(cell) is None]
    comparison.at_least = {cell.label: ROUNDS for cell in able if any(each.is_of(cell) for each in asked.earlier)}
    comparison.keep = partial(keep, comparison, directory, asked)
    return comparison, bench, directory


def keep(comparison: Comparison, directory: Path, asked: Asked) -> dict[str, Any]:
    """Write compare.json; returns what is in it."""
    contests = list(comparison.contests.values())
    told = {
        "schema": 1,
        "command": "compare",
        "baseline": contests[0].baseline if contests else None,
        "sentence": sentence_of(comparison),
        "budget_s": asked.budget_s,
        "spent_s": asked.budget_s - comparison.left_s,
        "rows": rows_of(comparison, directory, asked.price_per_hour),
        "system": system_facts(),
    }
    with writing(directory):
        write_text(directory / COMPARISON, dump_json(told))
    return told


def name_of(cells: Sequence[Cell], base: RunConfig) -> str:
    """The folder of this comparison: the same for the same one."""
    words = json.dumps([[cell.label, cell.config.digest(), cell.config.scenario] for cell in cells])
    digest = hashlib.sha256(words.encode()).hexdigest()[:8]
    models = {cell.config.model for cell in cells}
    name = base.model_name or (model_stem(base.model) if len(models) == 1 else "models")
    return f"compare-{as_name(name)}-{digest}"


def _prepared(bench: CellBench, cells: Sequence[Cell], absent: dict[str, str]) -> list[Cell]:
    """The cells that can run; ``absent`` gets why others cannot. Raises the first one's error where none can."""
    able: list[Cell] = []
    errors = []
    for at, cell in enumerate(cells, 1):
        if (error := bench.prepare(cell)) is None:
            able.append(cell)
            tell(f"ready {at} of {len(cells)}: {cell.label}")
        else:
            errors.append(error)
            absent[cell.label] = one_line(error)
            tell(f"does not run: {cell.label}: {shortened(one_line(error))}")
    if not able:
        raise errors[0]
    return able


def score(comparison: Comparison, bench: CellBench) -> None:
    """Score every cell that runs; on top of the budget."""
    for cell in comparison.cells:
        if comparison.contest_of(cell).figures.get(cell.label):
            scored = replace(cell, config=with_settings(cell.config, {"scenario": "Offline"}))
            run = bench.run(scored, 0, "accuracy")
            accuracy = bench.results[f"{cell.label}, accuracy"].accuracy if not run.failed else None
            if accuracy is not None:
                comparison.accuracies[cell.label] = accuracy
                tell(f"accuracy of {cell.label}: {accuracy.share}")
            else:
                tell(f"accuracy of {cell.label}: {run.reason}")
            comparison.keep()


def against(cells: Sequence[Cell], comparison: Comparison, asked: Asked) -> tuple[ExitCode, list[str]]:
    """What ``--baseline`` says of the cells, and whether ``--fail-if-slower`` makes that an exit code.

    One that ran then and fails now, or that was not come to, is not as fast as it was.
    """
    words, codes = [], [ExitCode.OK]
    facts = system_facts()
    for cell in cells:
        old = next((each for each in asked.earlier if each.is_of(cell) and each.figures), None)
        if old is None:
            continue
        contest = comparison.contests.get(cell.group)
        figures = list(contest.figures.get(cell.label, {}).values()) if contest else []
        failed = next((run.reason for run in comparison.runs.get(cell.label, []) if run.failed), None)
        try:
            found = since(cell, figures, old, comparison.bench.results.get(cell.label))
        except InputError as error:  # it is known only now, and the runs are made: the table comes all the same
            words.append(one_line(error))
            codes.append(ExitCode.FAILED)
            continue
        if found is None or failed:
            why = failed or comparison.absent.get(cell.label) or "it has no figure"
            words.append(f"{cell.label}: cannot be held against the baseline: {why}")
            codes.append(ExitCode.FAILED)
            continue
        words.append(found.words(asked.fail_if_slower))
        if asked.fail_if_slower is not None and found.slower_by(asked.fail_if_slower):
            codes.append(ExitCode.INVALID)
        if other := differs(old.system, facts):
            words.append(f"the baseline is of another machine: {'; '.join(other)}")
    return (ExitCode.OK if asked.fail_if_slower is None else worst(codes)), list(dict.fromkeys(words))
