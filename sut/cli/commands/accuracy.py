"""``sut accuracy``: score any LoadGen accuracy log."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from sut.cli.emit import emit, prose
from sut.errors import ExitCode, InputError, one_line

if TYPE_CHECKING:
    from rich.console import RenderableType

    from sut.mlperf.scoring import Scored

HELP = """Score a LoadGen accuracy log of a classifier, whoever made it, as MLPerf's script does, and more strictly.

Example: ./run_local.sh accuracy output/.../Offline/accuracy --val-map /data/imagenet/val_map.txt

LOG is an mlperf_log_accuracy.json, or the folder that holds it. The first two lines printed are those of a submission's
accuracy.txt. What is not the whole log of a run over that list is refused with the reason: missing samples, empty
answers, labels of another type, a score near chance, a log that an audit sampled or that is truncated.

Exit code: 0 scored; 1 refused; 4 the list is that of MLPerf's 50,000 pictures, and its target of 75.6954 % is missed.
"""


def register(app: typer.Typer) -> None:
    """Add the command ``accuracy`` to ``app``."""
    app.command(help=HELP)(accuracy)


def accuracy(
    log: Annotated[Path, typer.Argument(metavar="LOG", help="The accuracy log, or the folder that holds it.")],
    val_map: Annotated[
        Path, typer.Option(metavar="FILE", help="The data set's list, a 'name label' a line; no picture is needed.")
    ],
    dtype: Annotated[
        Literal["float32", "int32", "int64"] | None,
        typer.Option(help="What the labels are written in; default: what their bytes say."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of lines.")] = False,
) -> ExitCode:
    """See HELP."""
    from sut.datasets.imagenet import read_val_map
    from sut.mlperf import official
    from sut.mlperf.scoring import score_file
    from sut.tasks.top1 import MOST_CLASSES

    listed = read_val_map(val_map, MOST_CLASSES)
    assert listed.truth is not None
    try:
        scored = score_file(log, listed.truth, dtype)
    except ValueError as error:
        raise InputError(one_line(error)) from error
    target = official.ACCURACY_TARGET if listed.is_imagenet() else None
    met = None if target is None else scored.score.value >= target
    row = {
        "file": str(scored.path),
        "name": scored.score.name,
        "value": scored.score.value,
        "good": scored.score.good,
        "count": scored.score.count,
        "target": target,
        "met": met,
        "dtype": scored.dtype,
        "sha256": scored.sha256,
        "settings_known": scored.settings_known,
    }
    emit("accuracy", [row], _lines(scored, target, met), as_json)
    return ExitCode.INVALID if met is False else ExitCode.OK


def _lines(scored: Scored, target: float | None, met: bool | None) -> Iterator[RenderableType]:
    from sut.mlperf.accuracy import accuracy_file
    from sut.mlperf.logs import DETAIL

    yield from accuracy_file(scored.score, scored.sha256).splitlines()
    yield f"labels in {scored.dtype}"
    if scored.score.always is not None:
        yield f"every answer is the label {scored.score.always:g}"
    if not scored.settings_known:
        yield prose(f"there is no {DETAIL} beside it: whether an audit sampled it was told by the count alone")
    if target is None:
        yield prose("the list is not that of MLPerf's 50,000 pictures, so its target does not apply")
    else:
        yield prose(f"MLPerf's 50,000 pictures: the target of {100 * target:g} % is {'met' if met else 'missed'}")
