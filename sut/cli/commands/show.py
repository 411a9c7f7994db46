"""``sut show``: the table again, from all results below a folder."""

from __future__ import annotations

import csv
import itertools
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.cells import cell_len
from rich.console import Console as RichConsole
from rich.table import Table
from rich.text import Text

from sut.errors import InputError, short
from sut.process.streams import print_json, tell
from sut.text import encodable, printable, share_in_percent, shortened

if TYPE_CHECKING:
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

_KEPT = ("model", "weights", "backend", "preprocess", "precision", "boundary", "scenario")
"""Settings that stay however narrow the terminal is, where they differ."""
_LEAST_TELLING = ("user_conf", "samples/s", "accuracy", "backend_version", "started", "p50 ms", "notes", "p99 ms")
"""Columns that are left out first, in this order; then settings, the last first."""
_TITLES = ("model", "weights", "boundary", "scenario")
"""What becomes a line above its results, where that is what it takes: results of several are not compared anyway."""
_UNTOLD = ("model_sha256", "user_conf")
"""Long, and of no interest where it is the same."""
_WIDEST = 24
"""Of a setting; what is longer is folded."""
_GAP = 2


@dataclass(frozen=True, slots=True)
class Column:
    """A column of the table: its name, and a text per result."""

    name: str
    cells: Sequence[str]
    is_setting: bool = True

    @property
    def heading(self) -> str:
        """The name's words below each other."""
        return self.name.rpartition(".")[2].replace("_", "\n").replace(" ", "\n")

    @property
    def width(self) -> int:
        """Of its longest line, in places of a terminal."""
        longest = max(map(cell_len, (*self.heading.split("\n"), *self.cells)))
        return min(longest, _WIDEST) if self.is_setting else longest


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
    if as_json:
        printed = [{"path": str(row.path), "source": row.source, **row.facts} for row in rows]
        print_json("show", printed)
    elif as_csv:
        names, flat = flat_rows(rows)
        writer = csv.DictWriter(sys.stdout, names, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(encodable(flat))
    else:
        _table(rows, RichConsole(highlight=False))


def _tell(skipped: Sequence[Skipped]) -> None:
    for each in skipped[:_NAMED]:
        tell(f"left out: {each.path}: {each.reason}")
    if len(skipped) > _NAMED:
        tell(f"left out: {len(skipped) - _NAMED:,} more")


def _table(rows: Sequence[Row], out: RichConsole) -> None:
    from sut.results.rows import differing
    from sut.results.wording import ESTIMATE

    differ, same = differing(rows)
    if same:
        words = ", ".join(f"{name} {text}" for name, text in same.items() if name not in _UNTOLD)
        out.print(Text(printable(f"all: {words}" if len(rows) > 1 else words)))
    settings = [Column(name, [printable(text) for text in texts]) for name, texts in differ.items()]
    columns = [*settings, *_where(rows, settings), *_figures(rows)]
    titles: list[Column] = []
    kept, without = fitting(columns, out.width)
    if _total(kept) > out.width:
        titles = [column for column in columns if column.name in _TITLES]
        kept, without = fitting([column for column in columns if column not in titles], out.width)
    before: tuple[str, ...] | None = None
    for title, group in itertools.groupby(range(len(rows)), lambda at: tuple(column.cells[at] for column in titles)):
        if titles:
            out.print(Text(", ".join(title), style="bold"))
        out.print(_lines(kept, list(group), show_header=before is None))
        before = title
    if without:
        out.print(Text(f"left out for want of room: {', '.join(without)}; --csv and --json have all"))
    if any(cell.endswith("*") for column in kept if column.name == "figure" for cell in column.cells):
        out.print(Text(ESTIMATE))
    if broken := sum(bool(row.facts["rules_broken"]) for row in rows):
        out.print(Text(f"not official: {broken} of {len(rows)}; rules_broken says why (--json)"))


def _lines(columns: Sequence[Column], rows: Sequence[int], show_header: bool) -> Table:
    table = Table(box=None, pad_edge=False, show_header=show_header)
    for column in columns:
        table.add_column(
            Text(column.heading),
            justify="left" if column.is_setting else "right",
            no_wrap=not column.is_setting,
            overflow="fold",
            width=column.width,
        )
    for at in rows:
        table.add_row(*(Text(column.cells[at]) for column in columns))
    return table


def _where(rows: Sequence[Row], settings: Sequence[Column]) -> list[Column]:
    """What tells results apart beyond their settings: whose they are, where others' lie, and their time if needed."""
    sources = [row.source for row in rows]
    columns = [Column("source", sources)] if len(set(sources)) > 1 else []
    if set(sources) != {"result.json"}:
        columns.append(
            Column("folder", ["-" if row.source == "result.json" else printable(row.folder) for row in rows])
        )
    telling = [column for column in (*settings, *columns) if column.name not in _LEAST_TELLING]
    told_apart = {*zip(*(column.cells for column in telling), strict=True)}
    if len(rows) > 1 and len(told_apart) < len(rows):
        times = [str(row.facts["started"] or "-")[:19].replace("T", " ") for row in rows]
        columns.append(Column("started", times))
    return columns


def _figures(rows: Sequence[Row]) -> list[Column]:
    """What came out. A column in which nothing would stand is not there, but for the verdict and the figure."""
    cells = [_cells(row) for row in rows]
    columns = [Column(name, [each[name] for each in cells], is_setting=False) for name in cells[0]]
    return [column for column in columns if column.name in ("result", "figure") or set(column.cells) != {"-"}]


def _cells(row: Row) -> dict[str, str]:
    from sut.config import TIMED_BOUNDARIES
    from sut.results.schema import Accuracy, Metric
    from sut.results.wording import figure, milliseconds, verdict

    facts = row.facts
    latency = facts["latency_ns"] or {}
    accuracy = Accuracy(**facts["accuracy"]) if facts["accuracy"] else None
    metric = Metric(**facts["metric"]) if facts["metric"] else None
    parity = facts["parity"] if facts["boundary"] in TIMED_BOUNDARIES else None
    said = len(facts["rules_broken"] or ()) + len(facts["notes"] or ())
    return {
        "result": verdict(facts["mode"], facts["valid"], row.failed),
        "figure": figure(accuracy, metric),
        "p50 ms": milliseconds(latency.get("p50")),
        "p99 ms": milliseconds(latency.get("p99")),
        "samples/s": "-" if facts["samples_per_second"] is None else short(facts["samples_per_second"]),
        "accuracy": "-" if accuracy is None else f"{100 * accuracy.value:.4g} %",
        "parity": "-" if parity is None else str(parity["max_levels"]),
        "same labels": _same_labels(facts),
        "notes": ", ".join([*(["busy"] if row.is_busy else []), *([str(said)] if said else [])]) or "-",
    }


def _same_labels(facts: Mapping[str, Any]) -> str:
    """How many labels are those of FP32, which no reduced precision is shown without, or without that nobody knows."""
    if facts["agreement"] is not None:
        return f"{share_in_percent(facts['agreement']['value'])} %"
    reduced = facts["precision"] not in (None, "fp32") or (facts["config"] or {}).get("fold")
    return "unknown" if reduced else "-"


def fitting(columns: Sequence[Column], width: int) -> tuple[list[Column], list[str]]:
    """The columns for a terminal of ``width``, as far as some may go, and the names of those that had to."""
    settings = [column.name for column in columns if column.is_setting and column.name not in _KEPT]
    leaving = list(dict.fromkeys((*_LEAST_TELLING, *reversed(settings))))
    kept = {column.name for column in columns if column.name not in leaving}
    for name in reversed(leaving):
        if _total([column for column in columns if column.name in {*kept, name}]) <= width:
            kept.add(name)
    there = {column.name for column in columns}
    return [each for each in columns if each.name in kept], [name for name in leaving if name in there - kept]


def _total(columns: Sequence[Column]) -> int:
    return sum(column.width + _GAP for column in columns) - _GAP
