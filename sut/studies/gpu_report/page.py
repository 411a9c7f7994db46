"""The GPU report as a page to read."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from sut.studies.gpu_report.schema import PartEnd, Report
from sut.studies.gpu_report.targets import beside_anchors

_RUN = ("backend", "model", "precision", "boundary", "preprocess", "scenario", "batch")


def markdown(report: Report) -> str:
    """The whole page: the machine, what is asked, the runs, then part by part."""
    gpus = "; ".join(", ".join(gpu.values()) for gpu in report.gpu) or "no NVIDIA GPU"
    head = [f"Made {report.made} on {gpus}.", f"Versions: {_versions(report.versions)}."]
    if report.left_on_gpu:
        head.append(f"LEFT ON THE GPU: {'; '.join(report.left_on_gpu)}.")
    lines = ["# GPU report", "", *(line for text in head for line in (text, ""))]
    lines += ["## Targets", "", "A result that is NOT MET fails the report, a speed does not.", ""]
    lines += [*_table(report.targets), "", "## Beside published figures", "", *_table(beside_anchors(report.found)), ""]
    runs = [_run(name, part.found) for name, part in report.parts.items() if "cell" in part.found]
    if runs:
        lines += [
            "## Runs",
            "",
            "Short ones, some with random weights: for speed. Latencies in ms.",
            "",
            *_table(runs),
            "",
        ]
    for name, part in report.parts.items():
        lines += [f"## {name}", ""]
        if not part.ok:
            lines += [f"{why_not(part)}: {part.why}", ""]
        lines += [*_items(part.found), ""] if part.found else []
    return "\n".join(lines)


def why_not(part: PartEnd) -> str:
    """What became of a part that did not come to its end, in a word or two.

    >>> why_not(PartEnd(ok=False, why="no ncu", not_installed=True))
    'Not installed'
    """
    return "Left out" if part.left_out else "Not installed" if part.not_installed else "Did not run"


def cell(value: object) -> str:
    """A figure or a word in a table.

    >>> cell(0.123456), cell(None), cell([1, 2])
    ('0.1235', '-', '[1, 2]')
    """
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:,.0f}" if value >= 1e4 else f"{value:.4g}"
    return str(value).replace("|", "\\|")


def _versions(versions: Mapping[str, str | None]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items() if version)


def _run(name: str, found: Mapping[str, Any]) -> dict[str, Any]:
    """A run as a row, the bare loop's figures behind its own."""
    bare = found["bare"] or {}
    milliseconds = {key: value and value / 1e6 for key, value in found["latency_ns"].items()}
    return {
        **{key: found["cell"].get(key) for key in _RUN},
        "weights": found.get("weights"),
        "valid": found["valid"],
        "per second": found["samples_per_second"],
        **milliseconds,
        "bare, per second": bare.get("samples_per_second"),
        "bare p50": (value := bare.get("p50_ns")) and value / 1e6,
    }


def _items(found: Mapping[str, Any]) -> Sequence[str]:
    if isinstance(found.get("rows"), list):
        rows = [row for row in found["rows"] if isinstance(row, dict)]
        return [f"- {row.get('name')}: {row.get('status')}, {row.get('found')}" for row in rows]
    lines = [f"- {key}: `{json.dumps(value)}`" for key, value in found.items() if key != "table"]
    if table := found.get("table"):
        lines += ["", *_table(table)]
    return lines


def _table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    head = [f"| {' | '.join(rows[0])} |", f"|{' --- |' * len(rows[0])}"]
    return [*head, *(f"| {' | '.join(cell(value) for value in row.values())} |" for row in rows)]
