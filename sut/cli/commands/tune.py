"""``sut tune``: search the settings, find Server's highest VALID rate, write them down."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import RenderableType

from sut.cli.console import BriefConsole, Console
from sut.cli.emit import emit, prose
from sut.cli.options import configs_of
from sut.cli.parameters import like_run
from sut.config import RUN_FILES, RunConfig
from sut.config.words import parse_budget
from sut.errors import ExitCode, InputError, one_line
from sut.process.streams import tell, tell_error
from sut.studies.pages import leave_study
from sut.studies.tuning import report
from sut.studies.tuning.space import EFFECTS
from sut.studies.tuning.study import TuneResult, run_tune

HELP = """Find the settings that are best here, and Server's highest VALID rate.

Example: ./run_local.sh tune onnxruntime efficientnet-lite0 cpu --scenario Offline --time 8

Takes the options of sut run, in one scenario (default SingleStream), and up to three words: backend, model, device.
Short runs over a grid of settings, the better half longer and so on; the best against the default in interleaved pairs,
until they are told apart or more would not help; what is not is no gain. Server: brackets and bisects to the highest
VALID rate, confirms it, and says why the next one fails. --time is the length of the longest runs (default 8).
Interrupted, the same command goes on where it was; --overwrite starts anew. Writes tuned.yaml for --config, study.json,
report.html and search.svg, and the state runs.jsonl.

Exit code: that of sut run; 4 where no run was VALID.
"""


def register(app: typer.Typer) -> None:
    """Add the command ``tune`` to ``app``."""
    app.command(cls=like_run("demo", "accuracy", "find_peak_performance", *RUN_FILES), help=HELP)(tune)


def tune(
    context: typer.Context,
    words: Annotated[list[str] | None, typer.Argument(metavar="BACKEND MODEL DEVICE", show_default=False)] = None,
    space: Annotated[
        list[str] | None,
        typer.Option(
            help=f"KEY=V1,V2: what to try (repeatable): {', '.join(EFFECTS)}, backend_options.NAME; default: what has "
            "an effect in the scenario, without precision."
        ),
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option(help="Time for the search: 90s, 5m, 1h, or minutes; finding the rate and confirming come on top."),
    ] = None,
    rounds: Annotated[
        int | None, typer.Option(min=1, help="Rounds of halving at most; default: until two are left.")
    ] = None,
) -> None:
    """See HELP."""
    raise typer.Exit(_tune(configs_of(context.obj), context.obj.as_json, words, space, budget, rounds))


def _tune(
    configs: list[RunConfig],
    as_json: bool,
    words: list[str] | None = None,
    space: list[str] | None = None,
    budget: str | None = None,
    rounds: int | None = None,
) -> ExitCode:
    limit_s = _budget_s(budget) if budget is not None else math.inf
    tuned = run_tune(configs, words or [], space or [], limit_s, rounds, BriefConsole())
    outcome = tuned.outcome
    rows = [asdict(row) for row in tuned.rows]
    emit("tune", rows, _shown(tuned), as_json, **tuned.told)
    try:
        leave_study(tuned.directory, "tune", {"rows": rows, **tuned.told}, Console(as_json))
    except InputError as error:  # what was found is written already
        tell(f"no picture of the search: {one_line(error)}")
    if outcome.code != ExitCode.OK:
        tell_error(outcome.words[-1])
    return outcome.code


def _shown(tuned: TuneResult) -> Iterator[RenderableType]:
    yield report.picture(tuned.outcome)
    yield from map(prose, tuned.outcome.words if tuned.outcome.code == ExitCode.OK else ())
    if tuned.config is not None:
        yield f"run it: ./run_local.sh --config {tuned.directory / 'tuned.yaml'}"


def _budget_s(text: str) -> float:
    """The seconds of ``--budget``, where a bare number is minutes."""
    return 60 * float(text) if re.fullmatch(r"\d+(\.\d+)?", text) else parse_budget(text)
