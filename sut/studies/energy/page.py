"""A study of energy on a page: what a picture takes of CPU and GPU, as bars and as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sut.results.page.figures import number
from sut.results.page.stage_bars import Stacked, css_of, stage_bars
from sut.results.page.study import Figure, Study
from sut.results.page.tables import Column, Shown, Table, figures
from sut.studies.energy.report import METERS

_STACKED = ("cpu", "gpu")
"""What an external meter sees has both in it, and more."""
Rows = Sequence[Mapping[str, Any]]


def study_of(content: Mapping[str, Any], key: str) -> Study:
    """See ``sut.studies.pages.Reader``."""
    rows: Rows = content["rows"]
    measured = [row for row in rows if row["rounds"]]
    gross = [(row, _gross(row)) for row in measured if _gross(row)]
    times = [(row, {"CPU": 1e3 * row["cpu_seconds_per_sample"]}) for row in measured if row["cpu_seconds_per_sample"]]
    drawn = [
        *_bars(f"{key}-energy", "Energy of a picture in J, idle included, by what took it", gross, "J"),
        *_bars(f"{key}-time", "CPU time of a picture", times, "ms"),
    ]
    sentences = [f"{words[:1].upper()}{words[1:]}." for words in content["words"]]
    return Study(f"{content['model']}: what a picture takes", sentences, drawn, [_table(rows)])


def _gross(row: Mapping[str, Any]) -> dict[str, float]:
    found = row["energy"] or {}
    return {METERS[kind]: found[kind]["gross_joules_per_sample"] for kind in _STACKED if kind in found}


def _bars(
    key: str, caption: str, rows: Sequence[tuple[Mapping[str, Any], Mapping[str, float]]], unit: str
) -> list[Figure]:
    if not any(value > 0 for _, parts in rows for value in parts.values()):
        return []
    bars = [Stacked(f"{row['pictures']}, {row['preprocess']}", parts) for row, parts in rows]
    names = dict.fromkeys(name for _, parts in rows for name in parts)
    return [Figure(caption, stage_bars(key, caption, bars, unit), [(css_of(name), name) for name in names])]


def _table(rows: Rows) -> Table:
    def joules(kind: str, which: str) -> Column:
        found = [(row["energy"] or {}).get(kind, {}) for row in rows]
        return figures(
            f"{METERS[kind]}, {which}, J", [number(each.get(f"{which}_joules_per_sample")) for each in found]
        )

    return Table(
        caption="A picture of each size with each preprocessor; net is above what was drawn when idle.",
        first=Column(
            "pictures", [Shown((f"{row['pictures']}, {row['preprocess']}",), (row["reason"] or "",)) for row in rows]
        ),
        columns=[
            figures("samples/s", [number(row["samples_per_second"]) for row in rows]),
            figures("CPU ms", [number(row["cpu_seconds_per_sample"], "ms of s") for row in rows]),
            *(joules(kind, which) for kind in METERS for which in ("gross", "net")),
        ],
    )
