"""``sut verify``: judge what somebody else has measured."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sut.cli.emit import emit, grid, prose
from sut.errors import ExitCode

if TYPE_CHECKING:
    from rich.console import RenderableType

    from sut.studies.proof.verify import Judged

HELP = """Judge what somebody else has measured: does it agree with itself, with LoadGen's logs, and with this version?

Example: ./run_local.sh verify gpu-report.zip

FILE is what sut report gpu has made, or a folder that it or sut run has left, or a result.json. Nothing of it is run or
believed: figures are counted again from LoadGen's logs, accuracy is scored again, targets are judged again, models are
made again. What is wrong is named by file and field. Who forges all of it to agree is not found out (docs/proof.md).
Exit code: 0 accepted; 1 there is no such file; 4 not accepted.
"""


def register(app: typer.Typer) -> None:
    """Add the command ``verify`` to ``app``."""
    app.command(help=HELP)(verify)


def verify(
    file: Annotated[Path, typer.Argument(help="A report's file or folder, a folder with results, or a result.json.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")] = False,
) -> ExitCode:
    """See HELP."""
    from sut.studies.proof.verify import verify as judged_of

    judged = judged_of(file)
    emit("verify", [asdict(each) for each in judged.findings], _table(judged), as_json, **judged.facts())
    return ExitCode.OK if judged.accepted else ExitCode.INVALID


def _table(judged: Judged) -> Iterator[RenderableType]:
    for number, (file, group) in enumerate(groupby(judged.findings, lambda each: each.file)):
        yield file
        lines = [[f"  {each.field}", each.got, each.expected] for each in group]
        yield grid(["  field", "got", "expected"], lines, show_header=number == 0)
    for note in judged.notes:
        yield prose(f"not checked: {note}")
    if (report := judged.report) is not None:
        gpus = ", ".join(gpu.get("name", "a GPU without a name") for gpu in report.gpu) or "no GPU"
        yield prose(f"a report of {gpus}, made {report.made}, with {judged.results} results")
        if failed := [name for name, part in report.parts.items() if not part.ok]:
            yield prose(f"parts that did not come to their end: {', '.join(failed)}")
    if judged.digest:
        yield f"SHA-256 {judged.digest}"
    count = len(judged.findings)
    said = f"not accepted, {count} finding{'' if count == 1 else 's'}" if count else "accepted"
    yield f"{judged.path}: {said}"
