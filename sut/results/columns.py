"""The columns of a table of results, as many as a terminal has room for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.cells import cell_len

from sut.config import TIMED_BOUNDARIES
from sut.errors import short
from sut.results.rows import Row
from sut.results.schema import Accuracy, Metric
from sut.results.wording import figure, milliseconds, verdict
from sut.text import printable, share_in_percent

_KEPT = ("model", "weights", "backend", "preprocess", "precision", "boundary", "scenario")
"""Settings that stay however narrow the terminal is, where they differ."""
_LEAST_TELLING = ("user_conf", "samples/s", "accuracy", "backend_version", "started", "p50 ms", "notes", "p99 ms")
"""Columns that are left out first, in this order; then settings, the last first."""
_TITLES = ("model", "weights", "boundary", "scenario")
"""What becomes a line above its results, where that is what it takes: results of several are not compared anyway."""
_WIDEST = 24
"""Of a setting; what is longer is folded."""
_GAP = 2


@dataclass(frozen=True, slots=True)
class ShownColumn:
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


def columns_of(rows: Sequence[Row], differ: Mapping[str, Sequence[str]]) -> list[ShownColumn]:
    """All columns: the settings that differ, what else tells the results apart, and what came out."""
    settings = [ShownColumn(name, [printable(text) for text in texts]) for name, texts in differ.items()]
    return [*settings, *_where(rows, settings), *_figures(rows)]


def laid_out(columns: Sequence[ShownColumn], width: int) -> tuple[list[ShownColumn], list[ShownColumn], list[str]]:
    """What becomes titles, what stands in the table below, and the names of what is left out for want of room."""
    kept, without = fitting(columns, width)
    if _total(kept) <= width:
        return [], kept, without
    titles = [column for column in columns if column.name in _TITLES]
    return titles, *fitting([column for column in columns if column not in titles], width)


def _where(rows: Sequence[Row], settings: Sequence[ShownColumn]) -> list[ShownColumn]:
    """What tells results apart beyond their settings: whose they are, where others' lie, and their time if needed."""
    sources = [row.source for row in rows]
    columns = [ShownColumn("source", sources)] if len(set(sources)) > 1 else []
    if set(sources) != {"result.json"}:
        folders = ["-" if row.source == "result.json" else printable(row.folder) for row in rows]
        columns.append(ShownColumn("folder", folders))
    telling = [column for column in (*settings, *columns) if column.name not in _LEAST_TELLING]
    told_apart = {*zip(*(column.cells for column in telling), strict=True)}
    if len(rows) > 1 and len(told_apart) < len(rows):
        times = [str(row.facts["started"] or "-")[:19].replace("T", " ") for row in rows]
        columns.append(ShownColumn("started", times))
    return columns


def _figures(rows: Sequence[Row]) -> list[ShownColumn]:
    """What came out. A column in which nothing would stand is not there, but for the verdict and the figure."""
    cells = [_cells(row) for row in rows]
    columns = [ShownColumn(name, [each[name] for each in cells], is_setting=False) for name in cells[0]]
    return [column for column in columns if column.name in ("result", "figure") or set(column.cells) != {"-"}]


def _cells(row: Row) -> dict[str, str]:
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


def fitting(columns: Sequence[ShownColumn], width: int) -> tuple[list[ShownColumn], list[str]]:
    """The columns for a terminal of ``width``, as far as some may go, and the names of those that had to."""
    settings = [column.name for column in columns if column.is_setting and column.name not in _KEPT]
    leaving = list(dict.fromkeys((*_LEAST_TELLING, *reversed(settings))))
    kept = {column.name for column in columns if column.name not in leaving}
    for name in reversed(leaving):
        if _total([column for column in columns if column.name in {*kept, name}]) <= width:
            kept.add(name)
    there = {column.name for column in columns}
    return [each for each in columns if each.name in kept], [name for name in leaving if name in there - kept]


def _total(columns: Sequence[ShownColumn]) -> int:
    return sum(column.width + _GAP for column in columns) - _GAP
