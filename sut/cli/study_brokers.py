"""``sut study brokers``: what lies between two models, and from how many crops a frame on it pays."""

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
from sut.errors import ExitCode, worst
from sut.process.streams import tell
from sut.results.schema import STUDY
from sut.studies.pages import leave_study
from sut.text import duration

if TYPE_CHECKING:
    from rich.console import RenderableType

    from sut.studies.brokers.study import Study

HELP = """Two models, fused or with shared memory, Redis or Kafka between them, by crops a frame: which is faster.

Example: ./run_local.sh study brokers --redis redis://127.0.0.1:6379

Example: ./run_local.sh study brokers --kafka kafka://broker:9092 --durable

Measures every form at every fan-out, by turns: throughput at saturation, the latency of one frame alone and the
broker's share of it, bytes and CPU time of a frame; then N*, the fan-out from which a channel has more throughput than
the fused form, with its interval, and what Figs. 10 and 11 of "Beyond Inference" claim. Without --config it is
configs/detect-identify.yaml. A broker that is not there is left out with a line. Four rounds make an interval.
Interrupted, the same command goes on where it was; --overwrite starts anew. Writes study.json, report.html and
rounds.jsonl.

Exit code: 0 whatever the verdicts; 2 where no form but the fused one is there, 3 where one fails; else that of sut run.
"""
_NOT_TAKEN = (
    *(name for name in OF_LOADGEN if name != "time_s"),
    *("trace", "boundary", "from_", "rules", "audit_conf", "channel", "fan_out"),
    *("preprocess_workers", "preprocess_place", "preprocess_batch"),
)
_KEPT_ON_DISKS = "That Kafka keeps its messages on disks: its figures may stand beside the paper's."


def add_brokers(group: typer.Typer) -> None:
    """Add the command ``brokers`` to the group ``study``."""
    group.command("brokers", cls=like_run(*_NOT_TAKEN), help=HELP)(brokers)


def brokers(
    context: typer.Context,
    forms: Annotated[str | None, typer.Option(help="Of fused, memory, shared, redis, kafka; comma list.")] = None,
    fan_outs: Annotated[str | None, typer.Option(help="Crops a frame; default 1,3,5,9,15,25.")] = None,
    redis: Annotated[str | None, typer.Option(metavar="URL", help="Default redis://127.0.0.1:6379.")] = None,
    kafka: Annotated[str | None, typer.Option(metavar="URL", help="Default kafka://127.0.0.1:9092.")] = None,
    durable: Annotated[bool, typer.Option("--durable", help=_KEPT_ON_DISKS)] = False,
    rounds: Annotated[int, typer.Option(min=1, max=100, help="How often each cell is measured.")] = 7,
    budget: Annotated[str, typer.Option(help="Time for all of it: 90s, 30m, 1h.")] = "45m",
) -> None:
    """See HELP."""
    from sut.studies.brokers.forms import CONFIG, fan_outs_of, forms_of
    from sut.studies.brokers.study import open_study

    options, budget_s = context.obj, parse_budget(budget)
    chosen, numbers = forms_of(forms, redis, kafka, durable), fan_outs_of(fan_outs)
    configs = configs_of(options.model_copy(update={"config": options.config or CONFIG}))
    with open_study(configs, chosen, numbers, rounds, BriefConsole()) as study:
        _tell_plan(study, budget_s)
        try:
            study.go(budget_s, tell)
        except KeyboardInterrupt:
            tell(f"rounds kept: {len(study.kept.rows)}; the same command without --overwrite goes on behind them")
            raise
        finally:
            _leave(study, budget_s, options.as_json)
    raise typer.Exit(worst([*study.codes, *([] if study.kept.rows else [ExitCode.SETUP])]))


def _tell_plan(study: Study, budget_s: float) -> None:
    takes_s = len(study.todo()) * study.planned_s()
    tell(f"brokers: about {duration(takes_s)} of {duration(budget_s)}; files: {study.kept.path.parent}")
    if study.kept.rows:
        tell(f"rounds there already: {len(study.kept.rows)}; it goes on behind them; --overwrite starts anew")
    for name, why in study.absent.items():
        tell(f"{name} is left out: {why}")


def _leave(study: Study, budget_s: float, as_json: bool) -> None:
    from sut.studies.brokers.report import told_of
    from sut.studies.brokers.study import COMMAND

    told, directory = told_of(study, budget_s), study.kept.path.parent
    emit(COMMAND, table=_shown(told, directory), as_json=as_json, **told)
    leave_study(directory, COMMAND, told, Console(as_json))


def _shown(told: Mapping[str, Any], directory: Path) -> Iterator[RenderableType]:
    from sut.studies.brokers.report import HEADINGS, lines_of

    lines = lines_of(told["rows"])
    for caption, headings in HEADINGS.items():
        yield prose(caption)
        yield grid(headings, lines[caption])
    yield from map(prose, told["words"])
    yield f"files: {directory / STUDY}"
