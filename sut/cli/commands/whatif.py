"""``sut whatif``: what a scenario would gain if a stage were faster."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import RenderableType

from sut.cli.console import BriefConsole, Console
from sut.cli.emit import emit, grid, prose
from sut.cli.options import Options, configs_of
from sut.cli.parameters import like_run
from sut.config import RUN_FILES
from sut.config.words import parse_budget
from sut.errors import ExitCode
from sut.pipeline.assembly import assemble
from sut.process.streams import tell
from sut.run.folders import fresh
from sut.studies.kept import study_folder
from sut.studies.pages import keep_study, leave_study
from sut.studies.whatif import report
from sut.studies.whatif.bench import Bench
from sut.studies.whatif.study import (
    TIME_S,
    Found,
    check_config,
    chosen_stages,
    run_rounds,
    stages_of,
    usual_scenario,
    worth_asking,
)
from sut.studies.whatif.worlds import read_percents, worlds_of

HELP = """Say what a scenario would gain if a stage were faster, before anybody makes it faster.

Example: ./run_local.sh whatif --boundary jpeg --max-latency 0.1 --stage decode,infer --faster 30

All other stages are stretched, and what is measured is played at the speed of our clock: so queues, batches and lanes
that wait for each other count, of which Amdahl's law, which stands beside it, knows nothing. Takes the options of sut
run, in one scenario: Server where the model has a latency bound, of which the highest rate is found (with --qps: p99 at
that rate); else SingleStream. Runs in turns with the system as it is until --budget is spent, and leaves study.json
and report.html. The runs are none of the system's results: they break MLPerf's rules, and say so.

Exit code: 0 when there are figures, whether the runs were VALID or not; else that of sut run.
"""

_BUDGET = "9m"


def register(app: typer.Typer) -> None:
    """Add the command ``whatif`` to ``app``."""
    app.command(cls=like_run("demo", "accuracy", "find_peak_performance", *RUN_FILES), help=HELP)(whatif)


def whatif(
    context: typer.Context,
    stage: Annotated[str, typer.Option(help="Stages to make faster, one at a time: a comma list, or all.")] = "all",
    faster: Annotated[
        str | None, typer.Option(help="By how many percent: a comma list; default 10,30,50, to find a rate 30.")
    ] = None,
    rounds: Annotated[
        int | None, typer.Option(min=1, help="How often all is run; default: as often as the budget allows.")
    ] = None,
    budget: Annotated[str, typer.Option(help="Time for all runs but the first: 90s, 9m, 1h.")] = _BUDGET,
) -> None:
    """See HELP."""
    raise typer.Exit(_whatif(context.obj, stage, faster, rounds, parse_budget(budget)))


def _whatif(options: Options, stage: str, faster: str | None, rounds: int | None, budget_s: float) -> ExitCode:
    console = BriefConsole()
    base = check_config(configs_of(options))
    percents = read_percents(faster) if faster is not None else None
    with console.working("preparing the model") as progress:
        parts = assemble(base, console.note, progress)
    stages = chosen_stages(stage, stages_of(base, parts))
    if options.scenario is None and base.scenario == "SingleStream":
        base = base.model_copy(update={"scenario": usual_scenario(base, parts)})
    base = base.model_copy(update={"time_s": base.time_s or TIME_S})
    finds_rate = base.scenario == "Server" and base.qps is None
    worlds = worlds_of(stages, percents or ([30.0] if finds_rate else [30.0, 50.0, 10.0]))
    asked = [base.digest(), base.scenario, [world.shares for world in worlds]]
    directory = fresh(study_folder(base, f"whatif-{base.backend}", asked), base.overwrite)
    tell(f"whatif: {base.scenario}, {len(worlds)} of a faster stage; files: {directory}")
    bench = Bench(base, directory, console)
    cost_ns = bench.look().cost_ns
    found = Found(*(worth_asking(worlds, cost_ns) if stage == "all" else (worlds,)))
    try:
        run_rounds(bench, found, rounds, budget_s, tell, partial(_keep, bench, directory))
    except KeyboardInterrupt:
        if bench.results:
            _emit(_keep(bench, directory, found), bench, directory, options.as_json)
        raise
    told = _keep(bench, directory, found)
    _emit(told, bench, directory, options.as_json)
    leave_study(directory, "whatif", told, Console(options.as_json))
    return ExitCode.OK


def _keep(bench: Bench, directory: Path, found: Found) -> dict[str, Any]:
    told = report.told_of(found, bench)
    keep_study(directory, "whatif", told)
    return told


def _emit(told: Mapping[str, Any], bench: Bench, directory: Path, as_json: bool) -> None:
    rest = {name: value for name, value in told.items() if name != "rows"}
    emit("whatif", told["rows"], _shown(told, bench, directory), as_json, **rest)


def _shown(told: Mapping[str, Any], bench: Bench, directory: Path) -> Iterator[RenderableType]:
    yield prose(
        f"{report.figure_words(bench)}, {report.rounds_words(told)}, as it is: {report.baseline_words(told, bench)}"
    )
    headings = ("<stage", ">faster", "change", ">Amdahl\n%", ">beyond it\npoints", ">pairs")
    yield grid(headings, map(_line, told["rows"]))
    best = max(told["rows"], key=lambda row: row["gain"]["ratio"] or 0.0)
    yield prose(report.sentence(best, bench))
    yield from (prose(note) for note in told["notes"])
    yield f"files: {directory}"


def _line(row: Mapping[str, Any]) -> list[str]:
    law, beyond = (report.percent(row[key]) for key in ("amdahl_percent", "beyond_amdahl_percent"))
    return [
        row["stage"],
        f"{row['faster_percent']:g} %",
        report.change_words(row),
        law,
        beyond,
        str(row["gain"]["pairs"]),
    ]
