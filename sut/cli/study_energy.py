"""``sut study energy``: what a picture takes of CPU and GPU."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sut.cli.console import BriefConsole, Console
from sut.cli.emit import emit, grid, prose
from sut.cli.options import configs_of
from sut.cli.parameters import OF_LOADGEN, like_run
from sut.errors import short, writing
from sut.results.schema import Parity
from sut.results.wording import milliseconds
from sut.studies.breakdown.pictures import picture_sets
from sut.studies.driving.driven import Drive
from sut.studies.driving.loads import Closed
from sut.studies.energy.report import METERS
from sut.studies.energy.study import base_of, run_energy
from sut.studies.pages import leave_study

if TYPE_CHECKING:
    from rich.console import RenderableType

HELP = """What a picture takes of CPU and GPU: medium and large, preprocessed on one and on the other.

Example: ./run_local.sh study energy --device gpu

Example: ./run_local.sh study energy --preprocess opencv,fused --power-log meter.csv

Each size with each preprocessor is loaded in a process of its own and asked by a closed loop of so many requests
outstanding, from JPEG to label; all of them by turns, there and back again. Shows CPU time per sample, and energy where
a meter can be read: the CPU's counters, NVIDIA's, and an external meter's log. What cannot run here is a row with its
reason. Writes study-energy/study.json and report.html.

Exit code: that of sut run; 1 where the power log is refused, 2 where nothing can run, 3 where something fails.
"""
_NOT_TAKEN = (
    *OF_LOADGEN,
    *("trace", "boundary", "preprocess", "from_", "rules", "audit_conf"),
)


def add_energy(group: typer.Typer) -> None:
    """Add the command ``energy`` to the group ``study``."""
    group.command("energy", cls=like_run(*_NOT_TAKEN), help=HELP)(energy)


def energy(
    context: typer.Context,
    preprocess: Annotated[
        str, typer.Option(help="Preprocessors, comma list; others are held against the first.")
    ] = "opencv,cuda",
    pictures: Annotated[
        str | None,
        typer.Option(help="small, medium, large, mix, or folders, comma list; default: medium,large, or the data set."),
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="How often each is measured.")] = 5,
    seconds: Annotated[float, typer.Option(min=0.1, max=3600, help="How long, each time.")] = 10.0,
    concurrency: Annotated[int, typer.Option(min=1, max=65536, help="Requests outstanding.")] = 16,
) -> None:
    """See HELP."""
    options = context.obj
    base = base_of(configs_of(options.model_copy(update={"scenario": "Server"})))
    folder = base.output / "study-energy"
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    console = BriefConsole()
    own = any(getattr(base, name) is not None for name in ("dataset", "dataset_path", "dataset_list"))
    sets = picture_sets(pictures or (None if own else "medium,large"), base, console.note)
    names = list(dict.fromkeys(name.strip() for name in preprocess.split(",")))
    told, code = run_energy(base, sets, names, Drive(Closed(concurrency), seconds), rounds, console)
    emit("study energy", table=parts_of(told), as_json=options.as_json, **told)
    leave_study(folder, "study energy", told, Console(options.as_json))
    raise typer.Exit(code)


def parts_of(told: Mapping[str, Any]) -> Iterator[RenderableType]:
    """A line for each size and preprocessor, the sentences, and what preprocessors' speeds are not shown without."""
    rows = told["rows"]
    meters = [kind for kind in METERS if any(row["energy"] and kind in row["energy"] for row in rows)]
    headings = [f">{METERS[kind]}\n{which}, J" for kind in meters for which in ("gross", "net")]
    yield grid(("<pictures", "<preprocess", ">samples/s", ">CPU\nms", *headings), [_line(row, meters) for row in rows])
    yield from map(prose, told["words"])
    for name, parity in {row["preprocess"]: row["parity"] for row in rows if row["parity"]}.items():
        yield f"parity of {name}: {Parity(**parity).line()}"


def _line(row: Mapping[str, Any], meters: list[str]) -> list[str]:
    rate, cpu_s = row["samples_per_second"], row["cpu_seconds_per_sample"]
    energies = [(row["energy"] or {}).get(kind, {}) for kind in meters]
    joules = [each.get(f"{which}_joules_per_sample") for each in energies for which in ("gross", "net")]
    return [
        row["pictures"],
        row["preprocess"],
        "-" if rate is None else short(rate),
        milliseconds(None if cpu_s is None else 1e9 * cpu_s),
        *("-" if each is None else f"{each:.3g}" for each in joules),
    ]
