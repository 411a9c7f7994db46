"""``sut compare``: a matrix of ways to run a model, one table, and a sentence that says which to use."""

from __future__ import annotations

import hashlib
import json
import math
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console as RichConsole
from rich.text import Text

from sut.cli.console import BriefConsole, Console
from sut.cli.options import Options, configs_of
from sut.cli.parameters import like_run
from sut.config import RunConfig, model_stem, read_config_file
from sut.config.words import parse_budget
from sut.errors import ExitCode, InputError, SutError, one_line, worst, writing
from sut.files import write_text
from sut.models.precision.calibration import OPTIMISTIC
from sut.process.streams import tell, tell_error
from sut.results.machine import differs, system_facts
from sut.results.schema import COMPARISON, dump_json
from sut.run.runner import fresh, leave_page
from sut.studies.comparing.automatic import like
from sut.studies.comparing.bench import CellBench
from sut.studies.comparing.comparison import Comparison
from sut.studies.comparing.earlier import ROUNDS, read_earlier, since
from sut.studies.comparing.matrix import AXES, Axes, Cell, from_file, split_list
from sut.studies.comparing.orders import Asked, Cells, base_of, find_cells, share_of, with_recipe
from sut.studies.comparing.page import read_comparison
from sut.studies.comparing.report import rows_of, table_of
from sut.studies.comparing.sentence import sentence_of
from sut.studies.tuning.space import parse_lists, with_settings
from sut.text import as_name, duration, printable, shortened

HELP = """Compare ways to run a model, and say which to use here.

Example: ./run_local.sh compare --model efficientnet-lite0

Example: ./run_local.sh compare --backend onnxruntime,openvino --precision fp32,int8 --preprocess opencv,fused

Takes the options of sut run; --model, --backend, --precision, --preprocess, --boundary and --scenario take comma lists,
--vary any other setting. Without a list, or with one of models, boundaries or scenarios alone, it tries what works
here: every backend in every precision, then every preprocessor on the best of them. Unless told otherwise it runs
Offline at the boundary jpeg, which is what serving costs. Every cell is run once, then those that may still be the best
in turns with the first one, until the best is known or --budget is spent; making int8 files comes before. Writes
compare.json and report.html.

Exit code: 0 for a decision, and for "cannot be told"; 4 where --fail-if-slower says so, and 3 where a cell of the
baseline has no figure now; else that of sut run.
"""

_BUDGET = "5m"
_LISTS = AXES[:-1]


def register(app: typer.Typer) -> None:
    """Add the command ``compare`` to ``app``."""
    app.command(cls=like_run("demo", "find_peak_performance", "from_"), help=HELP)(compare)


def compare(
    context: typer.Context,
    vary: Annotated[
        list[str] | None, typer.Option(help="KEY=V1,V2: values of any setting of a YAML file to compare (repeatable).")
    ] = None,
    budget: Annotated[str, typer.Option(help="Time for all runs: 90s, 5m, 1h.")] = _BUDGET,
    bare: Annotated[
        bool, typer.Option("--bare/--no-bare", help="Also the backend's own loop, without LoadGen and harness.")
    ] = True,
    price_per_hour: Annotated[
        float | None, typer.Option(help="What the machine costs an hour; shows the price of a million pictures.")
    ] = None,
    baseline: Annotated[
        Path | None, typer.Option(help="A result.json or compare.json of before to hold the cells against.")
    ] = None,
    fail_if_slower: Annotated[
        str | None, typer.Option(help="3%: exit 4 where a cell is slower than --baseline by more.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Look at every cell, however long that takes.")] = False,
) -> None:
    """See HELP."""
    given, axes = _without_lists(context.obj)
    configs = configs_of(given)
    base = base_of(configs)
    if fail_if_slower is not None and baseline is None:
        raise InputError("--fail-if-slower says by how much, --baseline than what; give both")
    if price_per_hour is not None and not 0 < price_per_hour < math.inf:
        raise InputError(f"--price-per-hour takes a price over 0, got {price_per_hour:g}")
    earlier = read_earlier(baseline) if baseline is not None else []
    share = None if fail_if_slower is None else share_of(fail_if_slower)
    asked = Asked(parse_budget(budget), bare, yes, price_per_hour, earlier, share, context.obj.accuracy)
    if len(configs) > 1:
        axes = axes | {"scenario": [config.scenario for config in configs]}
    base = with_recipe(base, tell)
    cells, asked = find_cells(axes | parse_lists("--vary", vary or []), base, asked, tell)
    if earlier and not any(each.is_of(cell) for each in earlier for cell in cells.now):
        raise InputError(f"--baseline {baseline}: it has none of these cells; it has {'; '.join(map(str, earlier))}")
    raise typer.Exit(_run(cells, base, asked, given.as_json))


def _without_lists(given: Options) -> tuple[Options, Axes]:
    """The options of ``sut run`` with the first value of each list, and the lists, an option's before the file's."""
    path = given.config if isinstance(given.config, Path) else None
    content = read_config_file(path) if path is not None else {}
    axes = from_file(content.pop("matrix"), path) if "matrix" in content else {}
    settings = dict(given.settings)
    for key in (key for key in _LISTS if key in settings):
        axes.pop(key, None)
        values = split_list(settings[key])
        settings[key] = values[0]
        if len(values) > 1:
            axes[key] = values
    scenarios = axes.pop("scenario", content.pop("scenario", None))
    words = scenarios if isinstance(scenarios, list) else [scenarios]
    scenario = given.scenario or ",".join(str(word) for word in words if word is not None) or "Offline"
    told = {"settings": settings, "scenario": scenario, "config": content, "accuracy": False}
    return given.model_copy(update=told), axes


def _run(cells: Cells, base: RunConfig, asked: Asked, as_json: bool) -> ExitCode:
    directory = fresh(base.output / _name([*cells.now, *cells.later], base), base.overwrite)
    count = f"{len(cells.now)} cell{'s' if len(cells.now) > 1 else ''}"
    tell(f"compare: {count}, {duration(asked.budget_s)} for the runs; files: {directory}")
    tell("before the clock each model answers a picture; int8 files are made and labels compared, once, and kept")
    bench = CellBench(directory, BriefConsole(), tell, asked.budget_s)
    absent = dict(cells.absent)
    try:
        able = _prepared(bench, cells.now, absent)
    except (SutError, KeyboardInterrupt):
        with suppress(OSError):
            directory.rmdir()
        raise
    comparison = Comparison(able, bench, asked.budget_s, tell, with_bare=asked.bare, look_at_all=asked.yes)
    comparison.absent = absent
    comparison.later = [cell for cell in cells.later if _runs_like(cell, able) and bench.prepare(cell) is None]
    comparison.at_least = {cell.label: ROUNDS for cell in able if any(each.is_of(cell) for each in asked.earlier)}

    def keep() -> dict[str, Any]:
        told = _content(comparison, directory, asked)
        with writing(directory):
            write_text(directory / COMPARISON, dump_json(told))
        return told

    comparison.keep = keep
    try:
        comparison.run()
        if asked.accuracy:
            _accuracies(comparison, bench)
    except KeyboardInterrupt:
        _show(comparison, keep(), (), directory, as_json)
        tell(f"what was measured until then is in {directory / COMPARISON}")
        raise
    told = keep()
    code, words = _against(cells.now, comparison, asked)
    _show(comparison, told, words, directory, as_json)
    found = {path: bench.results[label] for label, path in bench.paths.items()}
    leave_page(directory, found, Console(as_json), lambda: [read_comparison(directory / COMPARISON, 0)])
    if not any(figures for contest in comparison.contests.values() for figures in contest.figures.values()):
        tell_error(f"every run failed: {told['sentence']}")
        return ExitCode.FAILED
    return code


def _name(cells: Sequence[Cell], base: RunConfig) -> str:
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


def _runs_like(cell: Cell, able: Sequence[Cell]) -> bool:
    """Whether the model runs as in one of the cells that can run."""
    return any(like(each, [cell]) for each in able)


def _accuracies(comparison: Comparison, bench: CellBench) -> None:
    """Score every cell that runs; on top of the budget."""
    for cell in comparison.cells:
        if comparison.contest_of(cell).figures.get(cell.label):
            scored = replace(cell, config=with_settings(cell.config, {"scenario": "Offline"}))
            run = bench.run(scored, 0, "accuracy")
            accuracy = bench.results[f"{cell.label}, accuracy"].accuracy if not run.failed else None
            if accuracy is not None:
                comparison.accuracies[cell.label] = accuracy
                tell(f"accuracy of {cell.label}: {accuracy.value * accuracy.count:.0f} of {accuracy.count}")
            else:
                tell(f"accuracy of {cell.label}: {run.reason}")
            comparison.keep()


def _content(comparison: Comparison, directory: Path, asked: Asked) -> dict[str, Any]:
    """compare.json."""
    contests = list(comparison.contests.values())
    return {
        "schema": 1,
        "command": "compare",
        "baseline": contests[0].baseline if contests else None,
        "sentence": sentence_of(comparison),
        "budget_s": asked.budget_s,
        "spent_s": asked.budget_s - comparison.left_s,
        "rows": rows_of(comparison, directory, asked.price_per_hour),
        "system": system_facts(),
    }


def _against(cells: Sequence[Cell], comparison: Comparison, asked: Asked) -> tuple[ExitCode, list[str]]:
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


def _show(
    comparison: Comparison, told: Mapping[str, Any], words: Sequence[str], directory: Path, as_json: bool
) -> None:
    if as_json:
        sys.stdout.write(dump_json(dict(told)))
        for text in words:
            tell(text)
        return
    out = RichConsole(highlight=False)
    out.print(table_of(comparison, told["rows"]))
    runs = [run for runs in comparison.runs.values() for run in runs]
    if busy := sum(run.quiet is False for run in runs):
        out.print(Text(f"the machine was not quiet in {busy} of {len(runs)} runs"))
    if any(OPTIMISTIC in result.notes for result in comparison.bench.results.values()):
        out.print(Text(f"labels: {OPTIMISTIC}"))
    for text in (told["sentence"], *words):
        out.print(Text(printable(text)))
    out.print(Text(printable(f"files: {directory}")), soft_wrap=True)
