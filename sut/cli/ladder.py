"""A ladder as a table of 80 columns, and what it says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import RenderableType

from sut.cli.emit import grid, prose
from sut.errors import short
from sut.results.schema import Parity
from sut.results.statistics import Difference, interval
from sut.results.wording import milliseconds

_HEADINGS = ("rung", ">samples/s", ">p50\nms", ">p99\nms", "against\nthe first", "against the\none before")


def parts_of(told: Mapping[str, Any]) -> Iterator[RenderableType]:
    """A line for each rung, the sentences, and what preprocessors' speeds are not shown without."""
    yield grid(_HEADINGS, [_line(row) for row in told["rows"]])
    yield from map(prose, told["words"])
    parities = {row["settings"].get("preprocess"): row["parity"] for row in told["rows"] if row["parity"]}
    for name, parity in parities.items():
        yield f"parity of {name}: {Parity(**parity).line()}"


def _line(row: Mapping[str, Any]) -> list[str]:
    return [
        f"{row['rung']} {row['name']}",
        "-" if row["samples_per_second"] is None else short(row["samples_per_second"]),
        *(milliseconds(row[name]) for name in ("p50_ns", "p99_ns")),
        *(_ratio(row[f"against_{name}"]) for name in ("first", "before")),
    ]


def _ratio(told: Mapping[str, Any] | None) -> str:
    if told is None or told["ratio"] is None:
        return "-"
    found = Difference(**told)
    return f"{found.ratio:.3g} x" if found.low is None else interval(found)
