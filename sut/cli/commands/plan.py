"""``sut plan``: which lanes, batch, workers and devices hold a rate within a latency."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import typer
from rich.console import RenderableType

from sut.cli.console import BriefConsole, Console
from sut.cli.emit import emit, prose
from sut.cli.options import configs_of
from sut.cli.parameters import like_run
from sut.config import RUN_FILES
from sut.errors import ExitCode
from sut.studies.capacity import report
from sut.studies.capacity.choice import Planned
from sut.studies.capacity.model import Times
from sut.studies.capacity.study import run_plan
from sut.studies.pages import leave_study

HELP = """Say what holds a rate within a latency: lanes, batch, preprocessing workers, devices, cores per device.

Example: ./run_local.sh plan --rate 100 --p99 50ms --boundary jpeg

Takes the options of sut run that describe the system; --lanes, --max-batchsize and --preprocess-workers, where they are
set, are what is planned with. Measures for half a minute (--time says else): batches of all sizes with one lane and all
lanes at work, preprocessing by one worker and by all, alone and beside the lanes. Simulates which rate each layout of
them holds, and takes the one of fewest threads that holds --rate. Each figure has the interval that 90 of 100 runs
should lie in. What more devices or cores would hold is arithmetic, and is called so. Writes study.json, report.html,
and plan.yaml for --config.

Exit code: that of sut run; 4 where the rate cannot be had here.
"""


def register(app: typer.Typer) -> None:
    """Add the command ``plan`` to ``app``."""
    left_out = (*RUN_FILES, "demo", "accuracy", "find_peak_performance", "scenario", "qps", "max_latency_s")
    app.command(cls=like_run(*left_out), help=HELP)(plan)


def plan(
    context: typer.Context,
    rate: Annotated[float | None, typer.Option(help="Queries per second that shall be held.")] = None,
    p99: Annotated[
        str | None, typer.Option(help="What 99 % of them may take at the most: ms, or with a unit, as 15ms or 0.1s.")
    ] = None,
) -> None:
    """See HELP."""
    options = context.obj.model_copy(update={"scenario": "Server"})
    planned = run_plan(configs_of(options), rate, p99, BriefConsole())
    times = Times(planned.timed)
    told = report.told(planned, times)
    emit("plan", table=_shown(planned, times), as_json=options.as_json, **told)
    leave_study(planned.directory, "plan", told, Console(options.as_json))
    held = planned.plan is not None and planned.plan.verdict != "no"
    raise typer.Exit(ExitCode.OK if held else ExitCode.INVALID)


def _shown(planned: Planned, times: Times) -> Iterator[RenderableType]:
    yield from report.tables(times)
    yield from map(prose, report.sentences(planned, times))
    if planned.plan is not None:
        yield f"run it: ./run_local.sh --config {planned.directory / 'plan.yaml'}"
    yield f"files: {planned.directory}"
