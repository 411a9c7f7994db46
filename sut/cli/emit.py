"""What a command has found, on standard output: its rows as one JSON object, or tables and lines for people.

Without ``rich`` JSON and lines can be printed all the same: ``sut doctor`` says what is wrong with that package too.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sut.text import encodable, printable, printable_lines

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table
    from rich.text import Text


def emit(
    command: str, rows: Sequence[Mapping[str, Any]], table: Iterable[RenderableType], as_json: bool, **more: object
) -> None:
    """Print rows, and ``more`` beside them, as one JSON object on a line; else what ``table`` makes of them.

    Of that, what is a ``str`` is a line, never folded: scripts read it, and paths are in it. All else is as wide as the
    terminal, or 80 columns.
    """
    if as_json:
        told = {"schema": 1, "command": command, "rows": rows, **more}
        sys.stdout.write(json.dumps(encodable(told)) + "\n")
    else:
        print_parts(table)


def print_parts(table: Iterable[RenderableType]) -> None:
    """Print for people."""
    for part in table:
        if isinstance(part, str):
            print(printable(part))
        else:
            paper().print(part)


def paper() -> Console:
    """Standard output as ``rich`` sees it, which knows its width."""
    from rich.console import Console

    return Console(highlight=False)


def prose(text: str, style: str = "") -> Text:
    """Words that are folded where the terminal ends."""
    from rich.text import Text

    return Text(printable_lines(text), style)


def grid(
    headings: Sequence[str],
    lines: Iterable[Sequence[str | Text]],
    widths: Sequence[int | None] = (),
    show_header: bool = True,
) -> Table:
    """A table. Cells are folded where room is short, but for columns whose heading begins with < or >, for left or
    right: names and figures that are of use only whole.
    """
    from rich.table import Table

    table = Table(box=None, pad_edge=False, show_header=show_header)
    for heading, width in zip(headings, widths or [None] * len(headings), strict=True):
        whole = heading.startswith(("<", ">"))
        table.add_column(
            prose(heading[whole:]),
            justify="right" if heading.startswith(">") else "left",
            no_wrap=whole,
            overflow="ellipsis" if whole else "fold",
            width=width,
        )
    for line in lines:
        table.add_row(*(prose(cell) if isinstance(cell, str) else cell for cell in line))
    return table
