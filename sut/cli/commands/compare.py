"""``sut compare``: a matrix of ways to run a model, one table, and a sentence that says which to use."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import RenderableType

from sut.cli.comparison import table_of
from sut.cli.console import BriefConsole, Console
from sut.cli.emit import print_parts, prose
from sut.cli.options import Options, configs_of
from sut.cli.parameters import like_run
from sut.config import RUN_FILES, RunConfig, read_config_file
from sut.config.words import parse_budget
from sut.errors import ExitCode, InputError
from sut.models.precision.calibration import OPTIMISTIC
from sut.process.streams import tell, tell_error
from sut.results.schema import COMPARISON, dump_json
from sut.run.runner import leave_page
from sut.studies.comparing.comparison import Comparison
from sut.studies.comparing.earlier import read_earlier
from sut.studies.comparing.matrix import AXES, Axes, from_file, split_list
from sut.studies.comparing.orders import Asked, Cells, base_of, find_cells, share_of, with_recipe
from sut.studies.comparing.page import read_comparison
from sut.studies.comparing.study import against, begin, keep, score
from sut.studies.tuning.space import parse_lists
from sut.text import printable

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
    app.command(cls=like_run("demo", "find_peak_performance", "from_", *RUN_FILES), help=HELP)(compare)


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
    comparison, bench, directory = begin(cells, base, asked, BriefConsole())
    try:
        comparison.run()
        if asked.accuracy:
            score(comparison, bench)
    except KeyboardInterrupt:
        _emit(comparison, keep(comparison, directory, asked), [], directory, as_json)
        tell(f"what was measured until then is in {directory / COMPARISON}")
        raise
    told = keep(comparison, directory, asked)
    code, words = against(cells.now, comparison, asked)
    _emit(comparison, told, words, directory, as_json)
    found = {path: bench.results[label] for label, path in bench.paths.items()}
    leave_page(directory, found, Console(as_json), lambda: [read_comparison(directory / COMPARISON, 0)])
    if not any(figures for contest in comparison.contests.values() for figures in contest.figures.values()):
        tell_error(f"every run failed: {told['sentence']}")
        return ExitCode.FAILED
    return code


def _emit(comparison: Comparison, told: dict[str, Any], words: list[str], directory: Path, as_json: bool) -> None:
    """What compare.json has, as it stands there; else the table."""
    if not as_json:
        print_parts(_shown(comparison, told, words, directory))
        return
    sys.stdout.write(dump_json(told))
    for text in words:
        tell(text)


def _shown(comparison: Comparison, told: dict[str, Any], words: list[str], directory: Path) -> Iterator[RenderableType]:
    yield table_of(comparison, told["rows"])
    runs = [run for runs in comparison.runs.values() for run in runs]
    if busy := sum(run.quiet is False for run in runs):
        yield prose(f"the machine was not quiet in {busy} of {len(runs)} runs")
    notes = (note for result in comparison.bench.results.values() for note in result.notes)
    yield from (prose(f"labels: {note}") for note in dict.fromkeys(notes) if note.endswith(OPTIMISTIC))
    yield from (prose(printable(text)) for text in (told["sentence"], *words))
    yield f"files: {directory}"
