"""``sut check-log``: judge logs that anybody has made."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sut.cli.emit import emit
from sut.cli.findings import finding_lines, finding_rows
from sut.errors import ExitCode
from sut.process.streams import tell

if TYPE_CHECKING:
    from sut.mlperf.judge_logs import Judged

HELP = """Judge logs that anybody has made: is what they say possible, and does it count?

Example: ./run_local.sh check-log results/box/resnet50

Takes LoadGen's logs and the reference harness's results.json below each DIR. A finding is a line: how bad it is, file,
field, what was got and expected, and why. A doubt may be as it should and is worth a look (docs/check-log.md). Exit
code: 0 sound, or only doubts; 1 something cannot be read, or there is no log; 4 impossible or invalid.
"""


def register(app: typer.Typer) -> None:
    """Add the command ``check-log`` to ``app``."""
    app.command(name="check-log", help=HELP)(check_log)


def check_log(
    folders: Annotated[list[Path], typer.Argument(metavar="DIR...", help="Folders with logs, or a log.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of lines.")] = False,
) -> ExitCode:
    """See HELP."""
    from sut.mlperf.judge_logs import judge_logs

    judged = judge_logs(folders)
    for each in judged.unread:
        tell(f"error: {each}")
    emit("check-log", finding_rows(judged.findings), _lines(judged), as_json, logs=judged.logs, unread=judged.unread)
    if judged.unread:
        return ExitCode.USAGE
    return ExitCode.OK if judged.sound else ExitCode.INVALID


def _lines(judged: Judged) -> Iterator[str]:
    yield from finding_lines(judged.findings)
    count, found = judged.logs, len(judged.findings)
    yield f"{count} log{'' if count == 1 else 's'}, {found} finding{'' if found == 1 else 's'}"
