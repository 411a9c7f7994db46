"""``sut sweep``: throughput and latency the more is asked, and the more cores and devices there are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import RenderableType

from sut.cli.console import BriefConsole, Console
from sut.cli.emit import emit, grid, prose
from sut.cli.options import configs_of
from sut.cli.parameters import OF_LOADGEN, like_run
from sut.config import RUN_FILES
from sut.config.words import parse_budget
from sut.errors import ExitCode
from sut.process.streams import tell_error
from sut.studies.pages import leave_study
from sut.studies.sweeping.grids import Asked, parse_arrivals, parse_concurrency, parse_range, parse_rates
from sut.studies.sweeping.report import tables
from sut.studies.sweeping.study import SweepResult, run_sweep

HELP = """Ask more and more, and show where throughput ends and latency begins.

Example: ./run_local.sh sweep --backend openvino --boundary jpeg --latency 50

Takes the options of sut run; LoadGen has no part in it. A closed loop keeps 1, 2, 4, ... 4096 requests outstanding:
plateau, knee, where it declines. An open loop asks at random times whoever is answered, at rates up to the plateau:
the rate-p99 curve, and with --latency the highest rate within it. Latencies count from the time for which a request
was scheduled. Lanes, threads and batch that are auto are those that Offline begins with. With --cores or --devices
instead: systems of so many, which preprocess on the CPU, on a GPU, or not at all, with medium and large pictures.
Interrupted, the same command goes on where it was; --overwrite starts anew. Writes study.json, report.html and
points.jsonl.

Exit code: that of sut run; 3 where a point does not count.
"""


def register(app: typer.Typer) -> None:
    """Add the command ``sweep`` to ``app``."""
    app.command(cls=like_run(*RUN_FILES, *OF_LOADGEN), help=HELP)(sweep)


def sweep(
    context: typer.Context,
    concurrency: Annotated[
        str | None,
        typer.Option(help="Requests outstanding in the closed loop: 1,2,4..64, or none; default 1..4096 in doublings."),
    ] = None,
    rates: Annotated[
        str,
        typer.Option(help="Of the open loop, requests/s: auto (shares of the plateau), none, or R1,R2."),
    ] = "auto",
    arrivals: Annotated[
        str | None,
        typer.Option(metavar="FILE|burst:K", help="Times of arrival in s, one a line; or K at once. Default: random."),
    ] = None,
    seconds: Annotated[float, typer.Option(min=0.1, max=3600, help="How long each point is measured.")] = 4.0,
    budget: Annotated[str, typer.Option(help="Time for all of it: 90s, 5m, 1h.")] = "9m",
    cores: Annotated[str | None, typer.Option(help="1..N or a list: systems of so many cores.")] = None,
    devices: Annotated[str | None, typer.Option(help="1..4 or a list: systems of so many devices.")] = None,
    latency: Annotated[float | None, typer.Option(metavar="MS", min=0.001, help="The bound on p99.")] = None,
) -> None:
    """See HELP."""
    asked = Asked(
        concurrency=parse_concurrency(concurrency),
        rates=parse_rates(rates),
        arrivals=parse_arrivals(arrivals),
        seconds=seconds,
        budget_s=parse_budget(budget),
        cores=parse_range(cores, "--cores"),
        devices=parse_range(devices, "--devices"),
        limit_ns=None if latency is None else int(1e6 * latency),
    )
    found = run_sweep(configs_of(context.obj), asked, BriefConsole())
    rows, as_json = [asdict(point) for point in found.points], context.obj.as_json
    emit("sweep", rows, _shown(found), as_json, **found.told)
    leave_study(found.directory, "sweep", {"rows": rows, **found.told}, Console(as_json))
    bad = [point for point in found.points if point.first_error is not None]
    if bad:
        tell_error(f"{len(bad)} of {len(found.points)} points do not count: {bad[0].load}: {bad[0].first_error}")
    raise typer.Exit(ExitCode.FAILED if bad else ExitCode.OK)


def _shown(found: SweepResult) -> Iterator[RenderableType]:
    for _, headings, lines in tables(found.points):
        yield grid(headings, lines)
        yield ""
    yield from map(prose, found.told["words"])
    yield f"files: {found.directory}"
