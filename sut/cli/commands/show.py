"""``sut show``: the table again, from all results below a folder."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sut.cli.emit import emit, grid, paper, prose
from sut.errors import InputError
from sut.process.streams import tell
from sut.text import encodable, printable, shortened

if TYPE_CHECKING:
    from rich.console import RenderableType

    from sut.results.collected import Skipped
    from sut.results.rows import Row

HELP = """Show the table again, from all results below folders: what differs between them as columns.

Example: ./run_local.sh show output --csv > results.csv

Reads every result.json; where there is none, also the reference harness's results.json and LoadGen's logs. A file that
is half-written, edited or of another schema is named and left out. Without a folder: $OUTPUT_DIR, else ./output. Exit
code: 0 something was shown; 1 nothing was there.
"""

_NAMED = 10
"""Files left out that are named; of the others it is told how many there are."""

_UNTOLD = ("model_sha256", "user_conf")
"""Long, and of no interest where it is the same."""


def register(app: typer.Typer) -> None:
    """Add the command ``show`` to ``app``."""
    app.command(help=HELP)(show)


def show(
    folders: Annotated[
        list[Path] | None, typer.Argument(metavar="[DIR]...", help="Folders with results, or result files.")
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Also earlier results, in folders that a later run has renamed.")
    ] = False,
    as_csv: Annotated[
        bool, typer.Option("--csv", help="Print a line per result, with all names of result.json.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")] = False,
) -> None:
    """See HELP."""
    from sut.config import output_folder
    from sut.results.collected import collect
    from sut.results.rows import flat_rows, machines, rows_of

    if as_csv and as_json:
        raise InputError("--csv and --json are two forms of the same; give one of them")
    folders = folders or [output_folder()]
    collected = collect(folders, everything)
    rows, skipped = rows_of(collected)
    _tell(skipped)
    if count := collected.earlier:
        tell(f"left out: {count} folder{'s' if count > 1 else ''} of earlier results; --all shows them too")
    if not rows:
        where = ", ".join(printable(str(folder)) for folder in folders)
        raise InputError(f"no results in {where}; name a folder in which sut run has left some")
    if words := machines(rows):
        tell(f"results of several machines, whose figures cannot be compared: {'; '.join(map(shortened, words))}")
    if as_csv:
        names, flat = flat_rows(rows)
        writer = csv.DictWriter(sys.stdout, names, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(encodable(flat))
        return
    printed = [{"path": str(row.path), "source": row.source, **row.facts} for row in rows]
    emit("show", printed, _table(rows), as_json)


def _tell(skipped: Sequence[Skipped]) -> None:
    for each in skipped[:_NAMED]:
        tell(f"left out: {each.path}: {each.reason}")
    if len(skipped) > _NAMED:
        tell(f"left out: {len(skipped) - _NAMED:,} more")


def _table(rows: Sequence[Row]) -> Iterator[RenderableType]:
    from sut.results.columns import columns_of, laid_out
    from sut.results.rows import differing
    from sut.results.wording import ESTIMATE

    differ, same = differing(rows)
    if same:
        words = ", ".join(f"{name} {text}" for name, text in same.items() if name not in _UNTOLD)
        yield prose(printable(f"all: {words}" if len(rows) > 1 else words))
    titles, kept, without = laid_out(columns_of(rows, differ), paper().width)
    headings = [column.heading if column.is_setting else f">{column.heading}" for column in kept]
    widths = [column.width for column in kept]
    groups = groupby(range(len(rows)), lambda at: ", ".join(column.cells[at] for column in titles))
    for number, (title, group) in enumerate(groups):
        if titles:
            yield prose(title, "bold")
        yield grid(headings, [[column.cells[at] for column in kept] for at in group], widths, number == 0)
    if without:
        yield prose(f"left out for want of room: {', '.join(without)}; --csv and --json have all")
    if any(cell.endswith("*") for column in kept if column.name == "figure" for cell in column.cells):
        yield prose(ESTIMATE)
    if broken := sum(bool(row.facts["rules_broken"]) for row in rows):
        yield prose(f"not official: {broken} of {len(rows)}; rules_broken says why (--json)")
