"""What a question came to: rows and sentences."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from sut.errors import short
from sut.mlperf.metrics import METRICS
from sut.pipeline.slowdown import NOT_STRETCHED
from sut.results.schema import Result
from sut.results.wording import RANDOM_WEIGHTS
from sut.studies.whatif.bench import PERCENTILES, Bench
from sut.studies.whatif.study import Found
from sut.studies.whatif.worlds import World


def rows_of(found: Found, bench: Bench) -> list[dict[str, Any]]:
    """A row for each world. ``gain`` is over 1 where it is better; changes are of the figure, in percent."""
    cost_ns = _middle([result.cost_ns for result in bench.results])
    before = [each for each in found.figures.get(World(), []) if each is not None]
    rows = []
    for world in found.worlds:
        [(stage, share)] = world.shares
        gain, by_amdahl = found.gain(world, bench.higher_is_better), world.amdahl(cost_ns)
        change = {key: _change(getattr(gain, name), bench) for key, name in _ends(bench).items()}
        law = _change(by_amdahl, bench)
        rows.append(
            {
                "scenario": bench.base.scenario,
                "stage": stage,
                "faster_percent": round(100 * (1 - share), 6),
                "figure": figure_name(bench),
                "higher_is_better": bench.higher_is_better,
                "baseline": statistics.median(before) if before else None,
                "predicted": [each for each in found.figures.get(world, []) if each is not None],
                "gain": asdict(gain),
                "change_percent": change,
                "share_of_busy_time": cost_ns.get(stage, 0) / sum(cost_ns.values()),
                "amdahl": by_amdahl,
                "amdahl_percent": law,
                "beyond_amdahl_percent": None if change["value"] is None or law is None else change["value"] - law,
                "slowdown": world.slowdown(bench.stages),
            }
        )
    return rows


def figure_name(bench: Bench) -> str:
    """What is compared, as a name with its unit."""
    if bench.finds_rate:
        return "queries_per_second_at_bound"
    scenario = bench.base.scenario
    return METRICS[scenario][0] if scenario == "Offline" else f"{PERCENTILES[scenario]}_latency_ns"


def figure_words(bench: Bench) -> str:
    """What is compared, in words."""
    base = bench.base
    if bench.finds_rate:
        return f"Server rate at {short((bench.bound_ns or 0) / 1e6)} ms"
    if base.scenario == "Offline":
        return "Offline rate"
    at = f" at {short(base.qps)} queries/s" if base.scenario == "Server" and base.qps else ""
    return f"{base.scenario} {PERCENTILES[base.scenario]}{at}"


def baseline_words(told: Mapping[str, Any], bench: Bench) -> str:
    """The figure of the system as it is, with its unit; the median of the rounds."""
    before = next((row["baseline"] for row in told["rows"] if row["baseline"]), None)
    if before is None:
        return "-"
    unit = "queries/s" if bench.finds_rate else "samples/s"
    return f"{short(before)} {unit}" if bench.higher_is_better else f"{short(before / 1e6)} ms"


def rounds_words(told: Mapping[str, Any]) -> str:
    """How many rounds there were."""
    return f"{told['rounds']} round{'s' * (told['rounds'] != 1)}"


def told_of(found: Found, bench: Bench) -> dict[str, Any]:
    """All of it, as study.json has it."""
    rows = rows_of(found, bench)
    last = bench.results[-1] if bench.results else None
    return {
        "figure_in_words": figure_words(bench),
        "sentences": [sentence(row, bench) for row in rows],
        "notes": [*found.words, *_doubts(rows, bench)],
        "bound_ns": bench.bound_ns,
        "model": last and last.model,
        "weights": last and last.weights,
        "config": bench.base.model_dump(mode="json"),
        "rounds": len(found.figures.get(World(), [])),
        "baseline": found.figures.get(World(), []),
        "rows": rows,
    }


def sentence(row: Mapping[str, Any], bench: Bench) -> str:
    """A row in a sentence."""
    said = f"{row['stage']} {row['faster_percent']:g} % faster: {figure_words(bench)} {change_words(row)}"
    return f"{said}; by Amdahl's law {percent(row['amdahl_percent'])} %"


def change_words(row: Mapping[str, Any]) -> str:
    """The change with its interval; of one that could be none, that.

    >>> change = {"value": 12.34, "low": 8.0, "high": 15.0}
    >>> change_words({"change_percent": change, "gain": {"verdict": "better", "pairs": 5}})
    '+12.3 % (+8 to +15)'
    >>> change_words({"change_percent": change | {"low": -1.0}, "gain": {"verdict": "open", "pairs": 5}})
    'cannot be told from 0 (-1 to +15)'
    """
    change, gain = row["change_percent"], row["gain"]
    if change["value"] is None:
        return "was not measured"
    if change["low"] is None:
        return f"{percent(change['value'])} %, no interval yet"
    ends = f"({percent(change['low'])} to {percent(change['high'])})"
    return f"cannot be told from 0 {ends}" if gain["verdict"] == "open" else f"{percent(change['value'])} % {ends}"


def percent(value: float | None) -> str:
    """A change with its sign and three digits, without the unit."""
    return "-" if value is None else f"{value:+.3g}"


def _change(ratio: float | None, bench: Bench) -> float | None:
    """A gain as a change of the figure: a latency falls where it is better."""
    if ratio is None:
        return None
    return 100 * (ratio - 1 if bench.higher_is_better else 1 / ratio - 1)


def _ends(bench: Bench) -> dict[str, str]:
    """Which end of a gain's interval is which of the change's."""
    low, high = ("low", "high") if bench.higher_is_better else ("high", "low")
    return {"value": "ratio", "low": low, "high": high}


def _middle(all_ns: Sequence[Mapping[str, int]]) -> dict[str, float]:
    """The median busy time of each stage over runs."""
    return {stage: statistics.median(each[stage] for each in all_ns) for stage in (all_ns[0] if all_ns else ())}


def _doubts(rows: Sequence[Mapping[str, Any]], bench: Bench) -> list[str]:
    """What a reader must know: what was not stretched, random weights."""
    if not bench.results or not rows:
        return []
    last, told = bench.results[-1], []
    fixed_ns, all_ns = _not_stretched(last)
    if fixed_ns > 0.01 * all_ns:
        most = max(row["faster_percent"] for row in rows)
        told.append(
            f"{100 * fixed_ns / all_ns:.2g} % of a sample's time ({', '.join(NOT_STRETCHED)}, LoadGen's own) cannot be "
            f"stretched: a gain may be too high by up to {fixed_ns / all_ns * most:.2g} % at {most:g} % faster"
        )
    if last.weights == "random":
        told.append(RANDOM_WEIGHTS)
    return told


def _not_stretched(result: Result) -> tuple[float, float]:
    """Of a sample's work in ns what is not stretched, and all of it."""
    between = [max(0, result.stages_ns.get(name, {}).get("mean") or 0) for name in ("issue_delay", "residual")]
    queued = result.scenario in ("Server", "Offline")  # where LoadGen's delay is waiting, not work
    fixed = sum(result.cost_ns.get(name, 0) for name in NOT_STRETCHED) + (0 if queued else sum(between))
    return fixed, sum(result.cost_ns.values()) + (0 if queued else sum(between))
