"""Tables as a page shows them: what no row has is no column."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sut.results.page.figures import Number

Said = tuple[str | Number, ...]
"""Words and figures in turn."""


@dataclass(frozen=True, slots=True)
class Shown:
    """What stands in a cell, and smaller below or behind it; a ``badge`` is a verdict, good or bad."""

    said: Said = ()
    small: Said = ()
    badge: Literal["", "good", "bad"] = ""


@dataclass(frozen=True, slots=True)
class Column:
    """A column: its heading and a cell for each row."""

    heading: str
    cells: Sequence[Shown]
    is_numeric: bool = True


@dataclass(frozen=True, slots=True)
class Table:
    """A table whose first column names its rows."""

    caption: str
    first: Column
    columns: Sequence[Column]
    is_sortable: bool = True
    file: Path | None = None

    @property
    def shown(self) -> list[Column]:
        """The columns in which anything stands."""
        return [column for column in self.columns if any(cell.said for cell in column.cells)]


def figures(heading: str, numbers: Sequence[Number | None]) -> Column:
    """A column of figures; None is an empty cell."""
    return Column(heading, [Shown((number,) if number else ()) for number in numbers])


def beside(numbers: Iterable[Number | None]) -> Shown:
    """Those that are figures, beside each other in one cell."""
    said: Said = tuple(part for each in numbers if each for part in (" | ", each))
    return Shown(said[1:])


@dataclass(frozen=True, slots=True)
class Decision:
    """One file's sentence and table, and where the result of its best cell should lie."""

    sentence: str
    table: Table
    best: Path | None
