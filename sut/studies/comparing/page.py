"""What ``sut compare`` has decided, read from its ``compare.json``."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from plugins.files import LARGE_BYTES, read_file
from sut.errors import cut, one_line
from sut.results.collected import Skipped
from sut.results.page.figures import Number, number
from sut.results.page.tables import Column, Decision, Shown, Table, beside, figures
from sut.studies.comparing.consistency import contradiction

_SCHEMA = 1


def read_comparison(path: Path, position: int) -> Decision:
    """The comparison in a file, the page's number ``position``. Raises ``ValueError`` that says why it is none."""
    try:
        content = json.loads(read_file(path, LARGE_BYTES))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"cannot be read: {one_line(error)}") from None
    if not isinstance(content, dict) or content.get("command") != "compare":
        raise ValueError("it is not what sut compare writes")
    if (schema := content.get("schema")) != _SCHEMA:
        raise ValueError(
            f"it has schema {cut(str(schema))}, expected {_SCHEMA}; read it with the version that wrote it"
        )
    rows, sentence = content.get("rows"), content.get("sentence")
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows) or not isinstance(sentence, str):
        raise ValueError("it has no sentence or no rows")
    if what := contradiction(content):
        raise ValueError(f"edited, or not written by sut compare: {what}")
    against = [name for row in rows if (name := _text(row.get("against")))] or [_text(content.get("baseline"))]
    names = "; of other work ".join(dict.fromkeys(against)) or "the first row"
    best = next((result for row in rows if _verdict(row) == "best" and (result := _text(row.get("result")))), None)
    return Decision(cut(sentence), _table(rows, position, names, path), path.parent / best if best else None)


def read_comparisons(files: Sequence[Path]) -> tuple[list[Decision], list[Skipped]]:
    """The comparisons in files, each once, and what is none."""
    found: list[Decision] = []
    skipped: list[Skipped] = []
    for file in {os.path.realpath(file): file for file in files}.values():
        try:
            found.append(read_comparison(file, len(found)))
        except ValueError as error:
            skipped.append(Skipped(file, str(error)))
    return found, skipped


def _table(rows: Sequence[Mapping[str, Any]], position: int, against: str, path: Path) -> Table:
    def all_of(unit: str, *places: str) -> list[Number | None]:
        """Of each row the figure in the first of these places that has one."""
        return [
            next((found for place in places if (found := _figure(row, place, unit, f"c{position}:rows.{i}"))), None)
            for i, row in enumerate(rows)
        ]

    ratios = zip(*(all_of("", f"ratio.{name}") for name in ("value", "low", "high")), strict=True)
    latencies = (all_of("ms", f"latency_ns.{name}") for name in ("p50", "p99"))
    shares = zip(*(all_of("%", f"{name}.value") for name in ("accuracy", "agreement")), strict=True)
    return Table(
        caption=f"Against {against}: a ratio over 1 is better, and its interval is what the runs leave open.",
        first=Column("configuration", [Shown((_text(row.get("cell")),), (_doubt(row),)) for row in rows]),
        columns=[
            figures("per second", all_of("", "samples_per_second")),
            Column("ratio", [_ratio(*each) for each in ratios]),
            Column("verdict", [Shown((word,) if (word := _verdict(row)) else ()) for row in rows], is_numeric=False),
            Column("p50 | p99 ms", [beside(each) for each in zip(*latencies, strict=True)]),
            Column("accuracy %", [_accuracy(*each) for each in zip(rows, shares, strict=True)]),
            figures("parity, levels", all_of("", "parity.max_levels")),
            figures("CPU ms a picture", all_of("ms of s", "cpu_seconds_per_sample")),
            figures("memory MB", all_of("MB", "memory_bytes", "memory_bytes.host_peak")),
            figures("price of a million", all_of("", "price_per_million")),
            figures("bare, per second", all_of("", "bare", "bare.samples_per_second")),
        ],
        file=path,
    )


def _figure(row: Mapping[str, Any], place: str, unit: str, at: str) -> Number | None:
    value: Any = row
    for step in place.split("."):
        value = value.get(step) if isinstance(value, dict) else None
    return number(value, unit, f"{at}.{place}")


def _ratio(value: Number | None, low: Number | None, high: Number | None) -> Shown:
    return Shown((value,) if value else (), ("(", low, " to ", high, ")") if low and high else ())


def _accuracy(row: Mapping[str, Any], shares: tuple[Number | None, Number | None]) -> Shown:
    """The share that is right, or a detector's mAP; else how far the answers are those of FP32."""
    (right, same), scored = shares, row.get("accuracy")
    name = _text(scored.get("name")) if isinstance(scored, dict) else ""
    if right:
        return Shown((right,), (" right" if name in ("", "top1") else f" {name}",))
    return Shown((same,), (" as FP32",)) if same else Shown()


def _verdict(row: Mapping[str, Any]) -> str:
    ratio = row.get("ratio")
    return _text(row.get("verdict")) or (_text(ratio.get("verdict")) if isinstance(ratio, dict) else "")


def _doubt(row: Mapping[str, Any]) -> str:
    """Why a cell does not run, would not be chosen, or had no VALID run."""
    reason, barred, invalid = (_text(row.get(name)) for name in ("reason", "barred", "invalid_reason"))
    return reason or barred or (f"not VALID: {invalid}" if invalid else "")


def _text(value: object) -> str:
    return cut(value) if isinstance(value, str) else ""
