"""``sut study beyond-inference``: the claims of the paper, each with a verdict and its number beside ours."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sut.cli.console import BriefConsole, Console
from sut.cli.emit import emit, grid, prose
from sut.cli.options import configs_of
from sut.cli.parameters import OF_LOADGEN, like_run
from sut.config.words import parse_budget
from sut.process.streams import tell
from sut.results.schema import STUDY
from sut.results.statistics import FEWEST_PAIRS
from sut.studies.beyond_inference.report import code_of_study, told_of
from sut.studies.beyond_inference.study import Study, claims_of, open_study
from sut.studies.claims import DECIDED
from sut.studies.pages import leave_study
from sut.text import duration

if TYPE_CHECKING:
    from rich.console import RenderableType

HELP = """The claims of the paper "Beyond Inference" (arXiv 2403.12981), each with a verdict for this machine.

Example: ./run_local.sh study beyond-inference

Example: ./run_local.sh study beyond-inference --backend tensorrt --model vit-b --weights random --device gpu

Measures what the claims need with the other studies: latency by size of picture, throughput by model, concurrency,
queueing, runtimes, energy, devices; --preprocess names what preprocesses on the CPU, on a GPU it is cuda. A part is
planned in whole or left out, which is told before; four rounds, by turns, are what an interval takes. What this machine
cannot decide says why. Interrupted, the same command goes on where it was; --overwrite starts anew. Writes study.json,
report.html and rounds.jsonl.

Exit code: 0 whatever the verdicts; 2 where nothing can be measured here, 3 where a part fails; else that of sut run.
"""
COMMAND = "study beyond-inference"
_NOT_TAKEN = (
    *(name for name in OF_LOADGEN if name != "time_s"),
    *("trace", "boundary", "from_", "rules", "audit_conf", "dataset", "dataset_path", "dataset_list", "count"),
)


def add_beyond_inference(group: typer.Typer) -> None:
    """Add the command ``beyond-inference`` to the group ``study``."""
    group.command("beyond-inference", cls=like_run(*_NOT_TAKEN), help=HELP)(beyond_inference)


def beyond_inference(
    context: typer.Context,
    figures: Annotated[str | None, typer.Option(help="Of the paper, comma list: 6,7; default: all.")] = None,
    rounds: Annotated[int, typer.Option(min=1, max=100, help="How often each part is measured.")] = FEWEST_PAIRS,
    budget: Annotated[str, typer.Option(help="Time for all of it: 90s, 30m, 1h.")] = "30m",
    ladder: Annotated[Path | None, typer.Option(metavar="FILE", help="Rungs of Fig. 3, else of configs/.")] = None,
) -> None:
    """See HELP."""
    options, budget_s = context.obj, parse_budget(budget)
    with open_study(configs_of(options), claims_of(figures), ladder, rounds, BriefConsole()) as study:
        chosen = study.plan(budget_s)
        _tell_plan(study, chosen, budget_s)
        try:
            study.go(chosen, budget_s, tell)
        except KeyboardInterrupt:
            tell(f"rounds kept: {len(study.kept.rows)}; the same command without --overwrite goes on behind them")
            raise
        finally:
            _leave(study, budget_s, options.as_json)
    raise typer.Exit(code_of_study(study))


def _tell_plan(study: Study, chosen: Mapping[str, float], budget_s: float) -> None:
    takes = duration(sum(chosen.values()))
    tell(f"beyond-inference: about {takes} of {duration(budget_s)}; files: {study.lab.directory}")
    if study.kept.rows:
        tell(f"rounds there already: {len(study.kept.rows)}; it goes on behind them; --overwrite starts anew")
    planned = {name: f"{len(study.todo(name))} rounds, about {duration(each)}" for name, each in chosen.items()}
    found = {"planned": planned, "left out": study.left_out, "cannot be tested here": study.absent}
    for what, parts in found.items():
        for name, why in parts.items():
            tell(f"{what}: {name}: {why}")


def _leave(study: Study, budget_s: float, as_json: bool) -> None:
    told, directory = told_of(study, budget_s), study.lab.directory
    emit(COMMAND, table=_shown(told, directory), as_json=as_json, **told)
    leave_study(directory, COMMAND, told, Console(as_json))


def _shown(told: Mapping[str, Any], directory: Path) -> Iterator[RenderableType]:
    names = ("figure", "says", "verdict", "ours", "theirs")
    if lines := [[row[name] or "-" for name in names] for row in told["rows"] if row["verdict"] in DECIDED]:
        yield grid(("<fig.", "they say", "<here", "measured", ">theirs"), lines)
    yield from map(prose, told["words"])
    yield f"files: {directory / STUDY}"
