"""The price list of shortcuts, for people: the table of a terminal, and the study on a page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sut.results.page.figures import Number, number
from sut.results.page.study import Study
from sut.results.page.tables import Column, Shown, Table, figures
from sut.studies.shortcuts.study import in_percent, sentences_of
from sut.text import share_in_percent

COMMAND = "study shortcuts"
HEADINGS = ("<shortcut", "<size", ">speed", ">MB", ">mean", ">max", ">>1, %", ">labels, %")
"""Of the table in a terminal; mean, max and the share over 1 are of levels."""


def study_of(content: Mapping[str, Any], key: str) -> Study:
    """The study in a ``study.json``; ``key`` says where its figures stand. Raises as ``Reader`` does."""
    rows: Sequence[Mapping[str, Any]] = content["rows"]
    shown = [(at, row) for at, row in enumerate(rows) if row["pictures"] is not None]

    def column(heading: str, unit: str, *path: str) -> Column:
        return figures(heading, [_number(row, f"{key}:rows.{at}", unit, *path) for at, row in shown])

    first = Column("shortcut", [Shown((f"{row['shortcut']}, {row['pictures']}",)) for _, row in shown], False)
    columns = [
        Column("speed", [Shown((speed_words(row["speed"]),)) for _, row in shown]),
        column("exact, ms of CPU", "ms of s", "cpu_seconds_per_picture", "exact"),
        column("ms of CPU", "ms of s", "cpu_seconds_per_picture", "shortcut"),
        column("exact, MB at most", "MB", "memory_bytes", "exact"),
        column("MB at most", "MB", "memory_bytes", "shortcut"),
        column("levels, mean", "", "parity", "mean_levels"),
        column("levels, max", "", "parity", "max_levels"),
        column("pixels over 1 level, %", "%", "parity", "share_over_1"),
        Column("same labels, %", [Shown((in_percent(row["labels"]),)) for _, row in shown]),
    ]
    caption = "Each shortcut against the exact way, from JPEG to label"
    return Study("The price list of shortcuts", sentences_of(content), tables=[Table(caption, first, columns)])


def _number(row: Mapping[str, Any], of: str, unit: str, *path: str) -> Number | None:
    value: Any = row
    for name in path:
        value = value[name]
    return number(value, unit, ".".join([of, *path]))


def lines_of(rows: Sequence[Mapping[str, Any]]) -> Iterator[list[str]]:
    """The cells of each row under ``HEADINGS``, for 80 columns; memory is what the shortcut adds."""
    before = None
    for row in rows:
        if row["pictures"] is None:
            yield [row["shortcut"], *[""] * (len(HEADINGS) - 1)]
            continue
        exact, taken = row["memory_bytes"]["exact"], row["memory_bytes"]["shortcut"]
        parity, labels = row["parity"], row["labels"]
        share = share_in_percent(labels["value"]).removesuffix(".0")
        yield [
            row["shortcut"] if row["shortcut"] != before else "",
            row["pictures"],
            speed_words(row["speed"]),
            "" if exact is None or taken is None else f"{(taken - exact) / 1e6:+.0f}",
            f"{parity['mean_levels']:.2f}",
            str(parity["max_levels"]),
            f"{100 * parity['share_over_1']:.1f}",
            f"{share} ({100 * labels['low']:.0f}-{100 * labels['high']:.0f})",
        ]
        before = row["shortcut"]


def speed_words(speed: Mapping[str, Any]) -> str:
    """A ratio of CPU time and its interval, as far as there is one.

    >>> speed_words({"ratio": 1.524, "low": 1.48, "high": 1.563})
    '1.52 (1.48-1.56)'
    """
    if speed["ratio"] is None:
        return ""
    bounds = "" if speed["low"] is None else f" ({speed['low']:.2f}-{speed['high']:.2f})"
    return f"{speed['ratio']:.2f}{bounds}"
