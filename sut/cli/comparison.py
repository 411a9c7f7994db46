"""A comparison as a table of 80 columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table

from sut.cli.emit import grid, prose
from sut.errors import short
from sut.results.wording import milliseconds
from sut.studies.comparing.comparison import Comparison
from sut.studies.comparing.matrix import group_of, within
from sut.studies.comparing.report import second_of
from sut.studies.comparing.sentence import title_of
from sut.text import printable, share_in_percent, shortened

_UNITS = {"Offline": "samples/s", "SingleStream": "p90 ms", "MultiStream": "p99 ms", "Server": "p99 ms"}
"""Of what cells are compared by."""


def table_of(comparison: Comparison, rows: Sequence[Mapping[str, Any]]) -> RenderableType:
    """A table for each group, two lines a cell, and why others did not run, of which compare.json says all."""
    parts: list[RenderableType] = []
    for group in comparison.contests:
        mine = [row for row in rows if "metric" in row and group_of(row) == group]
        if mine:
            title = title_of(group, comparison)
            parts += [prose(title, "bold")] * bool(title) + [_table(mine, bool(title))]
    for why, key in (("not chosen", "barred"), ("not VALID", "invalid_reason")):
        parts += [prose(printable(f"{why}: {row['cell']}: {row[key]}")) for row in rows if row.get(key)]
    parts += [prose(printable(line)) for line in _absent([row for row in rows if "metric" not in row])]
    return Group(*parts)


def _absent(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Why others do not run, in a line for all that have the same reason, their names aside."""
    alike: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        alike.setdefault(row["reason"].replace(f" {row['cell']}", "", 1), []).append(row)
    return [
        f"does not run: {', '.join(row['cell'] for row in mine)}: {shortened(why if mine[1:] else mine[0]['reason'])}"
        for why, mine in alike.items()
    ]


def _table(rows: Sequence[Mapping[str, Any]], apart: bool) -> Table:
    priced = any(row["price_per_million"] for row in rows)
    bare = any(row["bare"] for row in rows)
    headings = [_UNITS[rows[0]["scenario"]], "ratio\n(95 %)", "p50 ms\np99 ms", "labels\nparity", "CPU ms\nMiB"]
    headings += ["of bare" * bare + "\n" * (bare and priced) + "per\nmillion" * priced] * (bare or priced)
    lines = []
    for row in rows:
        label = within(group_of(row), row["cell"]) if apart else row["cell"]
        verdict = f"  {row['verdict']}" + (", Pareto" if row["pareto"] else "")
        share = f"~{row['bare']['share']:.2f}" if row["bare"] and row["bare"]["share"] else "-"
        price = f"{row['price_per_million']:.3g}" if row["price_per_million"] else "-"
        last = ["\n".join([share] * bare + [price] * priced)] * (bare or priced)
        words = (each(row) for each in (_figure, _ratio, _latency, _quality_words, _cost_words))
        lines.append([f"{label}\n{verdict}", *words, *last])
    return grid(["cell", *(f">{heading}" for heading in headings)], lines)


def _figure(row: Mapping[str, Any]) -> str:
    value = row["metric"]["value"] if row["metric"] else None
    if value is None:
        return "-"
    return short(value) if row["metric"]["higher_is_better"] else milliseconds(value)


def _ratio(row: Mapping[str, Any]) -> str:
    ratio = row["ratio"]
    if ratio is None:
        return "first" if row["cell"] == row["against"] else "-"
    if ratio["low"] is None or ratio["high"] is None:
        return f"{ratio['value']:.2f} x"
    return f"{ratio['value']:.2f} x\n{ratio['low']:.3g}-{ratio['high']:.3g}"


def _latency(row: Mapping[str, Any]) -> str:
    return "\n".join(milliseconds(row["latency_ns"].get(name)) for name in ("p50", "p99"))


def _quality_words(row: Mapping[str, Any]) -> str:
    accuracy, agreement, parity = row["accuracy"], row["agreement"], row["parity"]
    unknown = second_of(row)
    labels = "fp32" if row["precision"] == "fp32" and not unknown else "-"
    if accuracy:
        labels = f"{round(accuracy['value'] * accuracy['count'])}/{accuracy['count']}"
    elif agreement and not unknown and row["weights"] != "random":
        labels = f"{share_in_percent(agreement['value'])} %"
    levels = "-"
    if parity:
        levels = (
            "equal" if parity["psnr_db"] is None else f"{parity['max_levels']} level{'s' * (parity['max_levels'] > 1)}"
        )
    return f"{labels}\n{levels}"


def _cost_words(row: Mapping[str, Any]) -> str:
    cpu, memory = row["cpu_seconds_per_sample"], row["memory_bytes"].get("host_peak")
    return f"{'-' if cpu is None else f'{1000 * cpu:.3g}'}\n{'-' if memory is None else f'{memory / 2**20:.0f}'}"
