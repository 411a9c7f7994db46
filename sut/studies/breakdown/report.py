"""A breakdown as rows: what its study.json has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from sut.config import RunConfig
from sut.results.statistics import difference
from sut.studies.breakdown.cells import BACK_TO_BACK, BASELINE, FIFTH, ZERO, Cell, CellRun, Plan
from sut.studies.breakdown.overtaking import overtaking
from sut.studies.breakdown.pictures import nearest
from sut.studies.breakdown.split import closes, cuts, percentiles, shares, tail_by_size
from sut.studies.breakdown.study import Study
from sut.studies.breakdown.timed import Timings
from sut.studies.breakdown.words import sentences, warnings
from sut.studies.kept import study_folder

_NEAR = 0.1
"""How near the p50 at 20 % of the batch-1 rate must be to that of zero load for the two to be called the same."""


def folder_of(config: RunConfig, plan: Plan, what: str) -> Path:
    """Where a breakdown is kept: the same for the same one."""
    asked = [what, *([cell.label, cell.config.digest()] for cell in plan.cells)]
    return study_folder(config, f"{what}-{config.backend}", asked)


def told(study: Study) -> dict[str, Any]:
    """What study.json has of a breakdown."""
    found: dict[str, Any] = {
        "rows": [row for cell in study.plan.cells for row in rows_of(cell, study.runs.get(cell.label, []))],
        "zero_load": zero_load(study),
        "overtaking": overtaking_rows(study.timings),
        "bottleneck": [
            {"pictures": cell.pictures, "preprocess": cell.preprocess, **study.parts[cell.label]}
            for cell in study.plan.cells
            if cell.label in study.parts
        ],
        "left_out": study.left_out,
        "failed": study.failed,
        "absent": study.plan.absent,
        "budget_s": study.budget_s,
        "spent_s": study.spent_s,
        "model": study.model,
        "backend": study.plan.cells[0].config.backend,
        "weights": study.weights,
    }
    return {"sentences": sentences(found), "warnings": warnings(found), **found}


def rows_of(cell: Cell, runs: Sequence[CellRun]) -> list[dict[str, Any]]:
    """A row for each load of a cell, of the round whose zero load has the median p50; none of no rounds.

    ``at`` is what ``cuts`` finds, ``tail_by_size`` who makes the tail, by size, where there are several. ``by_round``
    has of every round the shares of the latency that intervals are made of.
    """
    if not runs:
        return []
    run = sorted(runs, key=lambda run: run.loads[ZERO].p50_ns or 0.0)[(len(runs) - 1) // 2]
    several = len({*run.size_of}) > 1
    rows = []
    for name, load in run.loads.items():
        at = cuts(load.samples)
        rows.append(
            {
                "pictures": cell.pictures,
                "preprocess": cell.preprocess,
                "load": name,
                "rate": load.rate,
                "concurrency": load.concurrency,
                "samples": len(load.samples.latency_ns),
                "samples_per_second": load.samples_per_second,
                "latency_ns": percentiles(load.samples.latency_ns),
                "at": at,
                "residual_ok": closes(at),
                "tail_by_size": tail_by_size(load.samples, run.size_of, run.loads[ZERO].samples) if several else None,
                "trouble": load.trouble,
                "rounds": len(runs),
                "by_round": [shares(each.loads[name].samples) for each in runs],
                "valid": run.result.valid if name == BACK_TO_BACK else None,
                "parity": run.result.parity.model_dump() if run.result.parity else None,
            }
        )
    return rows


def zero_load(study: Study) -> list[dict[str, Any]]:
    """Of each cell: p50 where requests come at random at 20 % of the batch-1 rate, against one at a time with the same
    mean gap, over the samples of all rounds, each by zero load of its own round: of large pictures a round has a few,
    and two that happen to meet are a third of its median. And by pairs of rounds how many times faster zero load is
    than with the baseline.
    """
    rows = []
    for cell in study.plan.cells:
        times = _zero_p50_ns(study, cell)
        fifth = [run.loads[FIFTH].p50_ns for run in study.runs.get(cell.label, [])]
        if not (ratios := [at / alone for at, alone in zip(fifth, times, strict=True) if at and alone]):
            continue
        typical = _pooled(study.runs[cell.label])
        base = [] if cell.preprocess == BASELINE else _zero_p50_ns(study, replace(cell, preprocess=BASELINE))
        pairs = min(len(base), len(times))
        against = difference(base[:pairs], times[:pairs], higher_is_better=False)
        rows.append(
            {
                "pictures": cell.pictures,
                "preprocess": cell.preprocess,
                "p50_at_20_percent_by_zero_load": typical,
                "in_rounds": [min(ratios), max(ratios)],
                "within_10_percent": abs(typical - 1) <= _NEAR,
                "against_baseline": asdict(against) if pairs else None,
            }
        )
    return rows


def _zero_p50_ns(study: Study, cell: Cell) -> list[float | None]:
    """A cell's median latency at zero load in each round."""
    return [run.loads[ZERO].p50_ns for run in study.runs.get(cell.label, [])]


def _pooled(runs: Sequence[CellRun]) -> float:
    """The median over the samples at 20 % of all rounds, each as a part of its round's median at zero load."""
    parts = [run.loads[FIFTH].samples.latency_ns / alone for run in runs if (alone := run.loads[ZERO].p50_ns)]
    return float(np.median(np.concatenate(parts)))


def overtaking_rows(timings: Timings | None) -> list[dict[str, Any]]:
    """Where each preprocessor is faster than the baseline, and what each took at every size."""
    if timings is None:
        return []
    times = {name: np.array(each, np.float64) for name, each in timings.taken_ns.items()}
    rows = []
    for name, taken in times.items():
        found = None if name == BASELINE else overtaking(timings.pixels, times[BASELINE], taken)
        sizes = [
            {
                "pixels": pixels,
                "nearest": nearest(pixels),
                "ns": float(np.median(own)),
                "against_baseline": asdict(difference(base.tolist(), own.tolist(), higher_is_better=False)),
            }
            for pixels, base, own in zip(timings.pixels, times[BASELINE], taken, strict=True)
        ]
        rows.append(
            {
                "preprocess": name,
                "rounds": taken.shape[1],
                "overtaking": asdict(found) if found else None,
                "words": found.words(BASELINE) if found else None,
                "sizes": sizes,
            }
        )
    return rows
