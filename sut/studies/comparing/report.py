"""What a comparison leaves: rows for compare.json and ``--json``."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sut.models.precision.agreement import second_unknown
from sut.results.schema import Result, more_is_better, used
from sut.results.statistics import FEWEST_PAIRS
from sut.run.compared import is_reduced
from sut.studies.bare import Bare
from sut.studies.comparing.bench import CellRun
from sut.studies.comparing.comparison import Comparison
from sut.studies.comparing.contest import Contest
from sut.studies.comparing.earlier import WHERE_TOLD
from sut.studies.comparing.matrix import APART, Cell, group_of


def rows_of(comparison: Comparison, directory: Path, price_per_hour: float | None = None) -> list[dict[str, Any]]:
    """A row for each cell in the order of the matrix, then for what could not be run, with the names of result.json.

    Paths are relative to ``directory``, prices in the unit of ``price_per_hour``.
    """
    ran = [cell for cell in comparison.cells if comparison.runs.get(cell.label)]
    rows = [_row(comparison, cell, directory, price_per_hour) for cell in ran]
    for row in rows:
        row["pareto"] = _on_pareto_line(row, rows)
    known = {cell.label: cell.settings for cell in comparison.cells}
    absent = [
        {"cell": label, "settings": dict(known.get(label, {})), "result": None, "reason": reason}
        for label, reason in comparison.absent.items()
    ]
    return [*rows, *absent]


def _row(comparison: Comparison, cell: Cell, directory: Path, price_per_hour: float | None) -> dict[str, Any]:
    contest, runs = comparison.contest_of(cell), comparison.runs[cell.label]
    result = comparison.bench.results.get(cell.label)
    path = comparison.bench.paths.get(cell.label)
    bare = comparison.bares.get(cell.label)
    accuracy = comparison.accuracies.get(cell.label)
    figure = contest.figure(cell.label)
    rate = figure if cell.config.scenario == "Offline" else _median([run.samples_per_second for run in runs])
    return {
        "cell": cell.label,
        "settings": dict(cell.settings),
        "used": used(result) if result else {},
        **{key: getattr(cell.config, key) for key in ("backend", "precision", "preprocess", *APART)},
        "config": cell.config.model_dump(mode="json", include=set(WHERE_TOLD)),
        "metric": _metric(result, cell.config.scenario, figure),
        "samples_per_second": rate,
        "latency_ns": _latencies(runs),
        "ratio": ratio_of(contest, cell.label),
        "cpu_seconds_per_sample": _median([run.cpu_seconds_per_sample for run in runs]),
        "memory_bytes": dict(result.memory_bytes) if result else {},
        "accuracy": accuracy.model_dump() if accuracy else None,
        "agreement": result.agreement.model_dump() if result and result.agreement else None,
        "parity": result.parity.model_dump() if result and result.parity else None,
        "bare": asdict(bare) | {"share": _share_of_bare(cell.config.scenario, runs[0], bare)} if bare else None,
        "price_per_million": _price(cell.config.scenario, price_per_hour, rate),
        "verdict": _verdict(contest, cell.label),
        "barred": contest.barred.get(cell.label),
        "against": contest.baseline,
        "figures": {str(number): value for number, value in contest.figures.get(cell.label, {}).items()},
        "runs": len(runs),
        "busy_runs": sum(run.quiet is False for run in runs),
        "valid": any(run.valid for run in runs),
        "invalid_reason": None if any(run.valid for run in runs) else runs[-1].reason,
        "model_sha256": result.model_sha256 if result else None,
        "backend_version": result.backend_version if result else None,
        "weights": result.weights if result else None,
        "reduced": is_reduced(cell.config)
        or bool(second_unknown(cell.config.identify, cell.config.identify_precision)),
        "result": str(path.relative_to(directory)) if path else None,
        "reason": runs[-1].reason if runs[-1].failed else None,
    }


def _price(scenario: str, price_per_hour: float | None, rate: float | None) -> float | None:
    """Of a million pictures; None in Server, where the rate is what was asked for, whatever could be done."""
    return price_per_hour / 3600 / rate * 1e6 if price_per_hour and rate and scenario != "Server" else None


def _metric(result: Result | None, scenario: str, figure: float | None) -> dict[str, Any] | None:
    if result is None or result.metric is None:
        return None
    name = "p99_latency_ns" if scenario == "Server" else result.metric.name
    return {"name": name, "value": figure, "higher_is_better": more_is_better(scenario)}


def ratio_of(contest: Contest, cell: str) -> dict[str, Any] | None:
    """A cell against the baseline: by pairs where there are any, else by medians, which says nothing of the spread."""
    found = contest.versus(cell, contest.baseline)
    if found is not None and found.ratio is not None:
        return {"value": found.ratio, **{key: getattr(found, key) for key in ("low", "high", "pairs", "verdict")}}
    share = contest.share(cell, contest.baseline)
    if not share or cell == contest.baseline:
        return None
    return {"value": share, "low": None, "high": None, "pairs": 0, "verdict": "open"}


def _median(values: Sequence[float | None]) -> float | None:
    found = [value for value in values if value is not None]
    return statistics.median(found) if found else None


def _latencies(runs: Sequence[CellRun]) -> dict[str, float | None]:
    """The medians of the runs, percentile by percentile, as the figure is."""
    return {name: _median([run.latency_ns.get(name) for run in runs]) for name in runs[-1].latency_ns}


def _share_of_bare(scenario: str, look: CellRun, bare: Bare) -> float | None:
    """How much of the bare loop's speed the run before it had left: in Offline by the rate, else by p50."""
    if scenario == "Offline":
        return look.figure / bare.samples_per_second if look.figure and bare.samples_per_second else None
    p50 = look.latency_ns.get("p50")
    return bare.p50_ns / p50 if p50 and bare.p50_ns else None


def _verdict(contest: Contest, cell: str) -> str:
    """How a cell stands to the best one, in a word or two."""
    if cell in contest.barred:
        return "not chosen"
    if cell == contest.leader:
        return "best"
    found = contest.versus(cell, contest.leader) if contest.leader is not None else None
    is_open = found is None or found.verdict == "open"
    if contest.is_behind(cell) and (found is None or found.pairs < FEWEST_PAIRS or not is_open):
        return "far behind"
    return "not told from the best" if is_open else "slower"


def second_of(row: Mapping[str, Any]) -> str | None:
    """What a row says of its second model's labels, where nothing is known of them."""
    return second_unknown(row["config"].get("identify"), row["config"].get("identify_precision", "fp32"))


def _quality(row: Mapping[str, Any]) -> float:
    """The share of right answers where they were scored, else of those that are FP32's, which has them all.

    That of a reduced precision which nobody has compared is not known, and so is no better than any other.
    """
    if row["accuracy"]:
        return float(row["accuracy"]["value"])
    if second_of(row):
        return 0.0
    if row["agreement"] and row["weights"] != "random":
        return float(row["agreement"]["value"])
    return 0.0 if row["reduced"] else 1.0


def _on_pareto_line(row: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> bool:
    """Whether no other cell of the group is as fast and as right, and one of the two more. Not by other pictures."""

    def at(each: Mapping[str, Any]) -> tuple[float, float] | None:
        able = each["metric"] and each["metric"]["value"] and _same_pictures(each) and each["reason"] is None
        # As the row shows it: the medians have the first look in them, which decides nothing.
        speed = 1.0 if each["cell"] == each["against"] else (each["ratio"] or {}).get("value")
        return (speed, _quality(each)) if able and speed is not None else None

    mine = at(row)
    if mine is None:
        return False
    others = [found for each in rows if group_of(each) == group_of(row) and (found := at(each)) is not None]
    return not any(other != mine and other[0] >= mine[0] and other[1] >= mine[1] for other in others)


def _same_pictures(row: Mapping[str, Any]) -> bool:
    parity = row["parity"]
    return parity is None or (parity["max_levels"] <= 1 and not parity.get("padding_levels"))
