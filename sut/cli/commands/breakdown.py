"""``sut breakdown``: where a picture's time goes, by its size, its preprocessor and how much is asked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import RenderableType

from sut.cli.console import BriefConsole, Console
from sut.cli.emit import emit, grid, prose
from sut.cli.options import configs_of
from sut.cli.parameters import like_run
from sut.config import RUN_FILES, RunConfig
from sut.config.words import parse_budget
from sut.errors import ExitCode, InputError, worst
from sut.pipeline.identify.settings import check_one_model
from sut.pipeline.slowdown import check_as_it_is
from sut.process.streams import tell
from sut.results.prices import PREPROCESSING
from sut.results.schema import STUDY
from sut.results.wording import milliseconds
from sut.run.folders import fresh
from sut.studies.breakdown.cells import LOADED, ZERO, plan
from sut.studies.breakdown.report import folder_of, told
from sut.studies.breakdown.split import WAITING
from sut.studies.breakdown.study import COMMAND, Study
from sut.studies.pages import leave_study
from sut.text import duration, printable

HELP = """Take the latency apart, for each size of picture and each preprocessor, at zero load and loaded.

Example: ./run_local.sh breakdown --model efficientnet-lite0

Example: ./run_local.sh breakdown --pictures medium,mix --preprocess opencv,fused --bottleneck

Takes the options of sut run but for boundary and scenario: the clock starts at the JPEG file. Each preprocessor over
each set of pictures is asked back to back by LoadGen, then by this program: one request at a time with pauses (zero
load), at random at 20 % of the batch-1 rate and at 80 % of the highest, and as many at once as keep all lanes full.
The table has the means of the samples around the median, and of the slowest 1 %; tax is what is not inference.
Then all preprocessors take turns at seven sizes: from which on is each faster than opencv? --bottleneck measures
preprocessing and inference by themselves, together and end to end instead. Writes study.json and report.html.

Exit code: 0 where everything ran, 4 where LoadGen's runs are INVALID, 3 where a cell failed; else that of sut run.
"""

_BUDGET = "9m"


def register(app: typer.Typer) -> None:
    """Add the command ``breakdown`` to ``app``."""
    without = (
        *RUN_FILES,
        "demo",
        "accuracy",
        "find_peak_performance",
        "from_",
        "scenario",
        "boundary",
        "preprocess",
        "qps",
    )
    app.command(cls=like_run(*without), help=HELP)(breakdown)


def breakdown(
    context: typer.Context,
    pictures: Annotated[
        str | None,
        typer.Option(help="small, medium, large, mix, or a folder; a list. Default: --dataset-path, else all four."),
    ] = None,
    preprocess: Annotated[
        str | None, typer.Option(help="Preprocessors, comma list; default: all that work here.")
    ] = None,
    rounds: Annotated[
        int | None, typer.Option(min=1, help="How often each is measured; default: as often as the budget allows.")
    ] = None,
    budget: Annotated[str, typer.Option(help="Time for all of it: 90s, 5m, 1h.")] = _BUDGET,
    bottleneck: Annotated[
        bool, typer.Option("--bottleneck", help="Which part limits: each part by itself, together, and end to end.")
    ] = False,
) -> None:
    """See HELP."""
    configs = configs_of(context.obj)
    if len(configs) != 1:
        raise InputError("sut breakdown sets the scenario itself; leave it out of the file")
    check_as_it_is(configs[0], "breakdown")
    check_one_model(configs[0], "sut breakdown tells the share of")
    raise typer.Exit(_run(configs[0], (pictures, preprocess), rounds, parse_budget(budget), bottleneck, context.obj))


def _run(
    config: RunConfig,
    words: tuple[str | None, str | None],
    rounds: int | None,
    budget_s: float,
    bottleneck: bool,
    given: Any,
) -> ExitCode:
    cells = plan(config, *words, tell)
    directory = fresh(folder_of(config, cells, "bottleneck" if bottleneck else "breakdown"), config.overwrite)
    tell(f"{COMMAND}: {len(cells.cells)} cells, {duration(budget_s)} at the most; files: {directory}")
    study = Study(cells, directory, BriefConsole(), tell, budget_s, rounds)
    try:
        (study.run_parts if bottleneck else study.run)()
    except KeyboardInterrupt:
        _leave(study, given.as_json)
        tell(f"what was measured until then is in {directory / STUDY}")
        raise
    _leave(study, given.as_json)
    return worst([*study.codes, ExitCode.FAILED if study.failed else ExitCode.OK])


def _leave(study: Study, as_json: bool) -> None:
    found = told(study)
    beside = {name: value for name, value in found.items() if name != "rows"}
    emit("breakdown", found["rows"], _shown(found, study.directory), as_json, **beside)
    leave_study(study.directory, "breakdown", found, Console(as_json))


def _shown(found: Mapping[str, Any], directory: Path) -> Iterator[RenderableType]:
    for pictures in dict.fromkeys(row["pictures"] for row in found["rows"]):
        rows = [row for row in found["rows"] if row["pictures"] == pictures and row["load"] in (ZERO, LOADED)]
        yield prose(f"{pictures} pictures, ms:", "bold")
        headings = ("<with", "<load", "<at", ">ms", ">prep", ">infer", ">wait", ">rest", ">tax %", ">open %")
        yield grid(headings, [line for row in rows for line in _lines(row)])
    if found["bottleneck"]:
        yield _parts(found["bottleneck"])
    yield from (prose(printable(text)) for text in (*found["sentences"], *found["warnings"]))
    yield f"files: {directory}"


def _lines(row: Mapping[str, Any]) -> Iterator[list[str]]:
    for at, cut in row["at"].items():
        if at == "mean" or cut is None:
            continue
        stages = cut["stages_ns"]
        groups = {
            "prep": sum(stages.get(name, 0.0) for name in PREPROCESSING),
            "infer": stages.get("infer", 0.0),
            "wait": sum(stages.get(name, 0.0) for name in WAITING),
        }
        times = [cut["latency_ns"], *groups.values(), cut["latency_ns"] - sum(groups.values())]
        shares = [None if cut[name] is None else 100 * cut[name] for name in ("tax", "residual_share")]
        yield [
            *(row["preprocess"], row["load"], at),
            *map(milliseconds, times),
            *("-" if share is None else f"{share:.3g}" for share in shares),
        ]


def _parts(rows: Sequence[Mapping[str, Any]]) -> RenderableType:
    names = {"preprocess": ">P /s", "infer": ">I /s", "infer_on_device": ">I on GPU"}
    names = {name: heading for name, heading in names.items() if any(name in row["samples_per_second"] for row in rows)}
    headings = (*names.values(), ">end to\nend /s", ">of\nbound", "<limits", ">JPEG\nkB", ">tensor\nkB")
    return grid(["<with", *headings], [_part_line(row, list(names)) for row in rows])


def _part_line(row: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    rates, moved = row["samples_per_second"], row["bytes_per_sample"]
    rate, bound = rates.get("end_to_end", rates["in_turn"]), row["of_bound"]["ratio"]
    return [
        f"{row['preprocess']}\n  {row['pictures']}",
        *("-" if name not in rates else f"{rates[name]:.1f}" for name in names),
        f"{rate:.1f}",
        f"{bound:.2f} x",
        row["limits"] or "not told",
        *(f"{moved[name] / 1e3:.0f}" for name in ("jpeg", "tensor")),
    ]
