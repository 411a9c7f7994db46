"""``sut study shortcuts``: what shortcuts gain and cost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sut.cli.emit import emit, grid, prose
from sut.cli.options import configs_of
from sut.cli.parameters import like_run
from sut.config import RUN_FILES
from sut.errors import writing

if TYPE_CHECKING:
    from rich.console import RenderableType

HELP = """What each shortcut gains in speed and memory, and costs in levels and labels.

Example: ./run_local.sh study shortcuts --backend openvino

The shortcuts of the preprocessor fused (scaled_decode, fast_chroma, fast_dct), lower precisions that the backend has,
and all of it together, each against the exact way: fused and FP32, from JPEG to label, one picture at a time on one
thread. On small, medium and large pictures. Takes the options of sut run that choose backend, model and device, and
writes study-shortcuts/study.json and report.html. INT8 is made once, which takes some minutes more.

Exit code: 0 done, a shortcut that cannot be had here is a row with its reason; 1 wrong usage; 2 something is not
installed; 3 it failed.
"""
_NOT_TAKEN = (
    *(
        "demo",
        "accuracy",
        "find_peak_performance",
        "scenario",
        "boundary",
        "preprocess",
        "precision",
        "fold",
        *RUN_FILES,
    ),
    *("lanes", "threads", "max_batchsize", "rules", "audit_conf"),
    *("preprocess_workers", "preprocess_place", "preprocess_batch"),
)


def add_shortcuts(group: typer.Typer) -> None:
    """Add the command ``shortcuts`` to the group ``study``."""
    group.command("shortcuts", cls=like_run(*_NOT_TAKEN), help=HELP)(shortcuts)


def shortcuts(
    context: typer.Context,
    only: Annotated[str | None, typer.Option(help="Shortcuts, comma list; default: all.")] = None,
    pairs: Annotated[int, typer.Option(min=1, help="How often each is timed beside the exact way.")] = 8,
) -> None:
    """See HELP."""
    from sut.cli.console import Console
    from sut.studies.pages import leave_study
    from sut.studies.shortcuts.page import COMMAND
    from sut.studies.shortcuts.study import base_of, chosen_of, price

    options = context.obj
    base = base_of(configs_of(options))
    folder = base.output / "study-shortcuts"
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    console = Console(options.as_json)
    told = price(base, chosen_of(only), console, pairs)
    rows = told["rows"]
    emit(COMMAND, rows, _shown(told), options.as_json, **{name: told[name] for name in told if name != "rows"})
    leave_study(folder, COMMAND, told, console)


def _shown(told: Mapping[str, Any]) -> Iterator[RenderableType]:
    from sut.studies.shortcuts.page import HEADINGS, lines_of
    from sut.studies.shortcuts.study import sentences_of

    yield grid(HEADINGS, list(lines_of(told["rows"])))
    yield from map(prose, sentences_of(told))
