"""A ladder on a page: throughput by rung, p99 beside it, a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sut.results.page.figures import number
from sut.results.page.plots import Axis, curves
from sut.results.page.study import Figure, Study
from sut.results.page.tables import Column, Shown, Table, figures
from sut.studies.ladder.report import Row, words_of

_RUNG = Axis("rung", log=False)


def study_of(content: Mapping[str, Any], key: str) -> Study:
    """See ``sut.studies.pages.Reader``."""
    rows: Sequence[Row] = content["rows"]
    sentences = [f"{words[:1].upper()}{words[1:]}." for words in words_of(content)]
    measured = [row for row in rows if row["rounds"]]
    shown = []
    if measured:
        names = "; ".join(f"{row['rung']}: {row['name']}" for row in rows)
        rates = [(row["rung"], row["samples_per_second"]) for row in measured]
        tails = [(row["rung"], row["p99_ns"] / 1e6) for row in measured]
        rate, tail = Axis("samples/s", log=False), Axis("p99 in ms", log=False)
        shown = [
            Figure(
                f"Throughput by rung. {names}",
                curves(f"{key}-rate", "Throughput by rung", {"samples/s": rates}, _RUNG, rate),
            ),
            Figure("The 99th percentile", curves(f"{key}-p99", "p99 by rung", {"p99": tails}, _RUNG, tail)),
        ]
    return Study(f"The ladder: {content['model']}", sentences, shown, [_table(rows)])


def _table(rows: Sequence[Row]) -> Table:
    return Table(
        caption="Each rung, and against which it is held; a ratio over 1 is more throughput.",
        first=Column("rung", [Shown((f"{row['rung']} {row['name']}",), (row["reason"] or "",)) for row in rows]),
        columns=[
            figures("samples/s", [number(row["samples_per_second"]) for row in rows]),
            figures("p50", [number(row["p50_ns"], "ms") for row in rows]),
            figures("p99", [number(row["p99_ns"], "ms") for row in rows]),
            *(_ratios(f"against the {name}", [row[f"against_{name}"] for row in rows]) for name in ("first", "before")),
            figures("batch", [number(row["mean_batch"]) for row in rows]),
            Column("settings", [Shown((words_of_settings(row),)) for row in rows], is_numeric=False),
        ],
    )


def _ratios(heading: str, found: Sequence[Mapping[str, Any] | None]) -> Column:
    cells = []
    for each in found:
        ratio = number(each["ratio"]) if each else None
        between = f" ({each['low']:.3g} to {each['high']:.3g})" if each and each["low"] is not None else ""
        cells.append(Shown((ratio,) if ratio else (), (between,)))
    return Column(heading, cells)


def words_of_settings(row: Row) -> str:
    """What a rung runs with, as it is set."""
    return ", ".join(f"{key}={value}" for key, value in row["settings"].items())
