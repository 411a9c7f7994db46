"""The part of the GPU report that climbs the ladder of ``configs/ladder-gpu.yaml``, with ``sut study ladder``."""

from __future__ import annotations

from typing import Any

from sut.studies.gpu_report.child import told_by
from sut.studies.ladder.rungs import ON_GPU

ROUNDS = 4
"""Before four, the statistics give no interval."""
BUDGET = "200s"
"""Of the rounds and the search; what a rung needs is made before, and the last one begun may take longer."""
_SHOWN = ("rung", "name", "samples_per_second", "p50_ns", "p99_ns", "mean_batch", "rounds", "first", "before")
_ENDS = {"": "ratio", "_low": "low", "_high": "high"}


def ladder() -> dict[str, Any]:
    """Each rung with its throughput, tail and ratios; why those that cannot run here have none is in ``reason``.

    Wrong is a rung that failed. One for which something is not installed is not: it says so.
    """
    words = ("study", "ladder", "--config", str(ON_GPU), "--rounds", str(ROUNDS), "--budget", BUDGET)
    code, told, _ = told_by(*words)
    return {
        "model": told["model"],
        "weights": told["weights"],
        "load": f"{told['concurrency']} outstanding, {told['seconds']:g} s a round",
        "exit_code": code,
        "words": told["words"],
        "wrong": [{"of": row["name"], "why": row["reason"]} for row in told["rows"] if row["failed"]],
        "table": [_shown(row) for row in told["rows"]],
    }


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    """A row of the table: of the ratios to the first rung and the one before the figure and its interval."""
    ratios: dict[str, Any] = {}
    for name in ("first", "before"):
        found = row[f"against_{name}"] or {}
        ratios |= {f"against_{name}{end}": found.get(key) for end, key in _ENDS.items()}
    return {name: row[name] for name in _SHOWN} | ratios | {"reason": row["reason"]}
