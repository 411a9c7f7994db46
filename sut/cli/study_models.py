"""``sut study models``: inference's share and the worth of a preprocessor by the size of the model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any

import typer
from rich.console import RenderableType

from sut.cli.console import BriefConsole, Console
from sut.cli.emit import emit, grid, prose
from sut.cli.options import configs_of
from sut.cli.parameters import like_run
from sut.config import RUN_FILES, RunConfig
from sut.config.words import parse_budget
from sut.errors import ExitCode, InputError, writing
from sut.studies.breakdown.pictures import Pictures, picture_sets
from sut.studies.models.page import gflops, sentences_of
from sut.studies.models.study import MODELS, base_of, chosen_models, code_of, model_rows, run_models, summary_of
from sut.studies.pages import leave_study
from sut.studies.parity import preprocessors_of

HELP = """How inference's share and the worth of a preprocessor go with the size of the model.

Example: ./run_local.sh study models --backend openvino --models mobilenet-v2,resnet50,vit-b

Takes the options of sut run, in one scenario (default Offline), at the boundary jpeg. Short runs of every model with
every preprocessor, there and back again, as often as --budget allows; --time is the length of each (default 1 s).
Shows, against the FLOPs counted from each model's graph: throughput, inference's share of a sample's cost by the
ledger, what each preprocessor gains against the first one, and the FLOPs at which inference passes 50 %. Models whose
trained weights are not made here have random ones: speed only. Writes study-models/report.html.

Exit code: that of sut run; a model that cannot run here is a row with its reason.
"""
_BUDGET = "9m"
_FIRST = "opencv"
"""The preprocessor that others are held against, if it is among them."""


def add_models(group: typer.Typer) -> None:
    """Add the command ``models`` to the group ``study``."""
    without = (
        *RUN_FILES,
        "demo",
        "accuracy",
        "find_peak_performance",
        "boundary",
        "model",
        "model_name",
        "recipe",
        "preprocess",
    )
    group.command("models", cls=like_run(*without), help=HELP)(models)


def models(
    context: typer.Context,
    names: Annotated[
        str | None,
        typer.Option("--models", help="Models by name, file or folder, comma list; default: all that are made here."),
    ] = None,
    preprocess: Annotated[
        str | None, typer.Option(help="Preprocessors, comma list; default: all that work here.")
    ] = None,
    pictures: Annotated[
        str | None, typer.Option(help="small, medium, large, mix, or a folder; default: by --dataset.")
    ] = None,
    rounds: Annotated[
        int | None, typer.Option(min=1, help="How often each is run; default: as often as the budget allows.")
    ] = None,
    budget: Annotated[str, typer.Option(help="Time for all runs: 90s, 9m, 1h.")] = _BUDGET,
) -> None:
    """See HELP."""
    options = context.obj
    scenario = options.scenario or (None if options.config or options.from_ else "Offline")
    base = base_of(configs_of(options.model_copy(update={"scenario": scenario})))
    chosen = chosen_models(names) if names else MODELS
    found = list(dict.fromkeys(each.name for each in preprocessors_of(preprocess)))
    if preprocess is None and _FIRST in found:
        found = [_FIRST, *(name for name in found if name != _FIRST)]
    taken = _taken(pictures, base)
    measured = run_models(taken.of(base), chosen, found, rounds, parse_budget(budget), BriefConsole())
    code = code_of(measured)
    if code == ExitCode.INTERRUPTED:
        raise typer.Exit(code)
    rows = model_rows(measured, chosen, found)
    summary = {**summary_of(measured, rows, found), "pictures": taken.name}
    emit("study models", rows, _shown(rows, summary), options.as_json, **summary)
    folder = base.output / "study-models"
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    leave_study(folder, "study models", {**summary, "rows": rows}, Console(options.as_json))
    raise typer.Exit(code)


def _taken(word: str | None, base: RunConfig) -> Pictures:
    """The pictures that are asked for; else those of the config, by the name of its data set."""
    if word is None:
        return Pictures(base.dataset or "those of each model's task", {})
    if "," in word:
        raise InputError("sut study models takes one set of --pictures")
    [found] = picture_sets(word, base, BriefConsole().note)
    return found


def _shown(rows: Sequence[Mapping[str, Any]], summary: Mapping[str, Any]) -> Iterator[RenderableType]:
    headings = ("<model", "<preprocess", ">million\nparams", ">GFLOPs", ">samples/s", ">inference\n%", ">gain")
    yield grid(headings, [_line(row) for row in rows if row["rounds"]])
    yield from (
        prose(f"does not run: {row['model']}, {row['preprocess']}: {row['reason']}") for row in rows if row["reason"]
    )
    yield from map(prose, sentences_of(summary, rows))
    if not all(row["valid"] for row in rows if row["rounds"]):
        yield prose("not every run was VALID: sut show has them all")


def _line(row: Mapping[str, Any]) -> list[str]:
    millions, rate, gain = row["model_parameters"], row["samples_per_second"], row["gain"]
    ratio = gain["ratio"] if gain else None
    spread = f" ({gain['low']:.2f}-{gain['high']:.2f})" if gain and gain["low"] is not None else ""
    return [
        row["model"],
        row["preprocess"],
        "-" if millions is None else f"{millions / 1e6:.1f}",
        gflops(row["model_flops"]),
        "-" if rate is None else f"{rate:.4g}",
        f"{100 * row['inference_share']:.0f}",
        "-" if ratio is None else f"{ratio:.2f} x{spread}",
    ]
