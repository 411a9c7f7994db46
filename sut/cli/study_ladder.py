"""``sut study ladder``: one optimisation after the other under one load."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import typer
from rich.console import RenderableType

from sut.cli.console import BriefConsole, Console
from sut.cli.emit import emit, grid, prose
from sut.cli.options import configs_of
from sut.cli.parameters import OF_LOADGEN, like_run
from sut.config import RUN_FILES
from sut.config.words import parse_budget
from sut.errors import short, writing
from sut.results.schema import Parity
from sut.results.statistics import Difference, interval
from sut.results.wording import milliseconds
from sut.studies.ladder.rungs import DEFAULT, read_ladder
from sut.studies.ladder.study import run_ladder
from sut.studies.pages import leave_study

HELP = """One optimisation after the other under one load: what each of them gains.

Example: ./run_local.sh study ladder

Example: ./run_local.sh study ladder --model efficientnet-lite0 --weights trained --concurrency 32

The rungs are in a file: configs/ladder.yaml has those of the paper's Fig. 3, configs/ladder-gpu.yaml the same on a GPU.
Each is loaded in a process of its own and asked by a closed loop of so many requests outstanding, from JPEG to label;
all of them by turns, there and back again, as often as --budget allows. Shows throughput, p50 and p99 of each rung, and
its ratio to the first and to the one before. What a rung needs (a file in INT8) is made before the budget begins.
Options of sut run hold on all rungs, but a rung's own settings win. Writes study-ladder/study.json and report.html.

Exit code: that of sut run; a rung that cannot run here is a row with its reason; 2 where none can, 3 where one fails.
"""
_BUDGET = "9m"
_HEADINGS = ("rung", ">samples/s", ">p50\nms", ">p99\nms", "against\nthe first", "against the\none before")


def add_ladder(group: typer.Typer) -> None:
    """Add the command ``ladder`` to the group ``study``."""
    rungs = ("backend", "preprocess", "precision", "lanes", "threads", "max_batchsize", "from_")
    workers = ("preprocess_workers", "preprocess_place", "preprocess_batch")
    group.command("ladder", cls=like_run(*RUN_FILES, *OF_LOADGEN, "boundary", *rungs, *workers), help=HELP)(ladder)


def ladder(
    context: typer.Context,
    rounds: Annotated[
        int | None, typer.Option(min=1, help="How often each rung is measured; default: as often as the budget allows.")
    ] = None,
    seconds: Annotated[float | None, typer.Option(min=0.1, max=3600, help="How long, each time.")] = None,
    concurrency: Annotated[int | None, typer.Option(min=1, max=65536, help="Requests outstanding.")] = None,
    budget: Annotated[str, typer.Option(help="Time for all of it: 90s, 9m, 1h.")] = _BUDGET,
) -> None:
    """See HELP."""
    options = context.obj
    rungs, settings = read_ladder(options.config or DEFAULT)
    given = {"seconds": seconds, "concurrency": concurrency}
    rungs = rungs.model_copy(update={name: value for name, value in given.items() if value is not None})
    [base] = configs_of(options.model_copy(update={"config": settings, "scenario": "Server"}))
    folder = base.output / "study-ladder"
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    told, code = run_ladder(rungs, base, rounds, parse_budget(budget), BriefConsole())
    emit("study ladder", table=parts_of(told), as_json=options.as_json, **told)
    leave_study(folder, "study ladder", told, Console(options.as_json))
    raise typer.Exit(code)


def parts_of(told: Mapping[str, Any]) -> Iterator[RenderableType]:
    """A line for each rung, the sentences, and what preprocessors' speeds are not shown without."""
    yield grid(_HEADINGS, [_line(row) for row in told["rows"]])
    yield from map(prose, told["words"])
    parities = {row["settings"].get("preprocess"): row["parity"] for row in told["rows"] if row["parity"]}
    for name, parity in parities.items():
        yield f"parity of {name}: {Parity(**parity).line()}"


def _line(row: Mapping[str, Any]) -> list[str]:
    return [
        f"{row['rung']} {row['name']}",
        "-" if row["samples_per_second"] is None else short(row["samples_per_second"]),
        *(milliseconds(row[name]) for name in ("p50_ns", "p99_ns")),
        *(_ratio(row[f"against_{name}"]) for name in ("first", "before")),
    ]


def _ratio(told: Mapping[str, Any] | None) -> str:
    if told is None or told["ratio"] is None:
        return "-"
    found = Difference(**told)
    return f"{found.ratio:.3g} x" if found.low is None else interval(found)
