"""``sut boundary``: the same work at each timing boundary, and what each step costs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import RenderableType

from sut.cli.console import BriefConsole, Console
from sut.cli.emit import emit, grid, prose
from sut.cli.options import configs_of
from sut.cli.parameters import like_run
from sut.config import RUN_FILES, RunConfig
from sut.errors import ExitCode
from sut.pipeline.assembly import Assembly
from sut.results.schema import Result
from sut.results.statistics import Difference, in_words
from sut.results.wording import agreement_lines, milliseconds, parity_lines
from sut.studies.boundary import boundary_rows, ledger, middle, run_rounds

_STEP_HEADINGS = {"mean_latency": "step of\nmean ms", "time_per_sample": "step of\n1/rate ms"}

HELP = """Run the same work at the boundaries tensor, pixels and jpeg, and show what each step costs.

Example: ./run_local.sh boundary --model efficientnet-lite0

Takes the options of sut run, in one scenario (default SingleStream). Short runs over all boundaries, there and back
again, for two minutes; --time is the length of each run (default 2), --rounds how often. Starts with the boundary
device where the backend takes its input from a GPU's memory.
The price of a step is what its stages took in one and the same run from JPEG to label. The step beside it is the
difference between runs at two boundaries, with the interval that their pairs allow: of the mean latency, in Offline,
where latency grows with the run, of 1/(samples per second). "If inference were free" is what throughput would gain if
the model took no time at all, by the busy times of the jpeg run, its lanes and its workers.
"""


def register(app: typer.Typer) -> None:
    """Add the command ``boundary`` to ``app``."""
    app.command(cls=like_run("demo", "accuracy", "find_peak_performance", "boundary", *RUN_FILES), help=HELP)(boundary)


def boundary(
    context: typer.Context,
    rounds: Annotated[
        int | None, typer.Option(min=1, help="How often each boundary is run; default: as often as two minutes allow.")
    ] = None,
) -> None:
    """See HELP."""
    raise typer.Exit(_boundary(configs_of(context.obj), context.obj.as_json, rounds))


class _Rounds(BriefConsole):
    """Shows what is run once, and of each run only what is wrong with it."""

    _begun = False

    def header(self, parts: Assembly, home: Path) -> None:
        if not self._begun:
            Console.header(self, parts, home)
        self._begun = True
        super().header(parts, home)

    def result(self, result: Result, directory: Path, code: ExitCode, trace: str | None) -> None:
        super().result(result, directory, code, trace)
        Console.result(self, result, directory, code, trace)


def _boundary(configs: list[RunConfig], as_json: bool, rounds: int | None = None) -> ExitCode:
    ran, code = run_rounds(configs, rounds, _Rounds())
    if code in (ExitCode.OK, ExitCode.INVALID):
        rows = boundary_rows(ran)
        emit("boundary", rows, _shown(rows, ran), as_json)
    return code


def _shown(rows: Sequence[Mapping[str, Any]], measured: Sequence[Sequence[Result]]) -> Iterator[RenderableType]:
    results = middle(measured)
    last = rows[-1]
    which = f" (the median of {len(measured)})" if len(measured) > 1 else ""
    yield prose(f"Prices: the ledger of one run from JPEG to label{which}, ms a sample:")
    yield prose("  " + ", ".join(f"{name} {milliseconds(each)}" for name, each in ledger(results[-1])))
    columns = ("price\nms", _STEP_HEADINGS[rows[0]["step_of"]], "mean ms", "p99 ms", "infer ms", "samples/s")
    yield grid(("<clock\nstarts at", *(f">{heading}" for heading in columns)), map(_line, rows))
    for before, row in pairwise(rows):
        step, cost = Difference(**row["step"]), Difference(**row["step_cpu"])
        if step.verdict == "open":
            yield f"{row['boundary']} after {before['boundary']}: {in_words(step, cost)}"
    yield from (*parity_lines(results), *agreement_lines(results))
    if results[0].scenario == "Server":
        yield prose("in Server each boundary may have its own rate, and latency includes queueing: a step is no price")
    yield prose(
        f"From JPEG to label: if inference were free, {_gain(last, 'gain_without_inference')} throughput; "
        f"if preprocessing were free, {_gain(last, 'gain_without_preprocessing')}; "
        f"the limiting stage is {last['longest_stage']}"
    )
    if not all(row["valid"] for row in rows):
        yield prose("not every run was VALID: see above")


def _line(row: Mapping[str, Any]) -> list[str]:
    latency, infer = row["latency_ns"], row["stages_ns"]["infer"]
    times = map(milliseconds, (latency["mean"], latency["p99"], infer["mean"]))
    return [row["boundary"], milliseconds(row["price_ns"]), _step(row), *times, f"{row['samples_per_second']:.1f}"]


def _step(row: Mapping[str, Any]) -> str:
    """A step in words: never a figure that could be noise, nor one below zero, which nobody pays."""
    if row["step"] is None:
        return "-"
    verdict = row["step"]["verdict"]
    if verdict != "better":
        return "not told from 0" if verdict == "open" else "none, it is faster"
    found = row["step_pairs_ns"]
    return f"{milliseconds(found['value'])} ({milliseconds(found['low'])} to {milliseconds(found['high'])})"


def _gain(row: Mapping[str, Any], name: str) -> str:
    low, high = (_percent(gain).removesuffix(" %") for gain in row[f"{name}_range"])
    spread = "" if row["rounds"] == 1 else f" ({low} to {high} in {row['rounds']} runs)"
    return f"{_percent(row[name])}{spread}"


def _percent(gain: float | None) -> str:
    return "unbounded" if gain is None else f"{100 * gain:+.0f} %"
