"""A tune's search on a page, from what its study.json says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sut.results.page.figures import number
from sut.results.page.plots import Axis, curves, legend
from sut.results.page.study import Figure, Study
from sut.results.page.tables import Column, Shown, Table, figures
from sut.results.schema import Metric
from sut.results.wording import RANDOM_WEIGHTS, verdict
from sut.studies.tuning.bench import figure_words
from sut.studies.tuning.space import Point
from sut.studies.tuning.state import Measured

_ROUND = "round "


def study_of(content: Mapping[str, Any], key: str) -> Study:
    """See ``sut.studies.pages.Reader``."""
    rows, outcome = [Measured(**row) for row in content["rows"]], content["outcome"]
    chosen = None if outcome["chosen"] is None else Point(tuple(outcome["chosen"].items()))
    rate = outcome["queries_per_second"]
    drawn = [*_rounds(rows, chosen, f"{key}-rounds"), *_rates(rows, rate, f"{key}-rates")]
    title = f"{content['model']} on {content['backend']}, {content['scenario']}: the search for the best settings"
    words = [_decision(chosen, rate), *outcome["words"], *([RANDOM_WEIGHTS] * (content["weights"] == "random"))]
    return Study(title, words, drawn, [_table(rows)])


def _decision(chosen: Point | None, rate: float | None) -> str:
    if chosen is None:
        return "The search found no settings to take"
    at = "" if rate is None else f" at {rate:g} queries/s, the highest VALID rate"
    return f"Settings to take: {chosen.label}{at}"


def _rounds(rows: Sequence[Measured], chosen: Point | None, key: str) -> Iterator[Figure]:
    """What each point came to in each round of the search."""
    series: dict[str, list[tuple[float, float]]] = {"VALID": [], "INVALID": [], "what is taken": []}
    run = [row for row in rows if row.phase.startswith(_ROUND) and row.figure is not None]
    for row in run:
        name = "what is taken" if row.point == chosen else "VALID" if row.valid else "INVALID"
        series[name].append((float(row.phase.removeprefix(_ROUND)), _shown(row)))
    if run:
        caption = f"Each point in each round: {'p99' if run[0].qps is not None else 'the figure it is ranked by'}"
        y = Axis("ms" if _is_time(run[0]) else "samples per second")
        shown = {name: points for name, points in series.items() if points}
        svg = curves(key, caption, shown, Axis("round", log=False), y, joined=False)
        yield Figure(caption, svg, legend([*shown]))


def _is_time(row: Measured) -> bool:
    return row.qps is not None or (row.metric is not None and Metric(**row.metric).percentile is not None)


def _shown(row: Measured) -> float:
    assert row.figure is not None
    return row.figure / 1e6 if _is_time(row) else row.figure


def _rates(rows: Sequence[Measured], rate: float | None, key: str) -> Iterator[Figure]:
    """Each rate that Server was asked at when its highest was searched for and confirmed, and the bound."""
    asked = [row for row in rows if row.phase in ("rate", "confirm") and row.qps and row.p99_ns is not None]
    if not asked:
        return
    series = {
        name: sorted((row.qps or 0.0, (row.p99_ns or 0) / 1e6) for row in asked if row.valid is valid)
        for name, valid in (("VALID", True), ("INVALID", False))
    }
    ends = [end(row.qps or 0.0 for row in asked) for end in (min, max)]
    bound_ns = next((row.bound_ns for row in asked if row.bound_ns), None)
    series["the bound"] = [] if bound_ns is None else [(at, bound_ns / 1e6) for at in ends]
    shown = {name: points for name, points in series.items() if points}
    caption = "p99 at each rate" + ("" if rate is None else "; the upright line is the rate that was confirmed")
    marks = {} if rate is None else {"confirmed": rate}
    svg = curves(key, caption, shown, Axis("queries per second", log=False), Axis("ms"), marks=marks)
    yield Figure(caption, svg, legend([*shown]))


def _table(rows: Sequence[Measured]) -> Table:
    columns = [
        Column("part", [Shown((row.phase,)) for row in rows], is_numeric=False),
        figures("seconds", [number(row.time_s) for row in rows]),
        figures("queries/s asked", [number(row.qps) for row in rows]),
        Column("result", [_verdict(row) for row in rows], is_numeric=False),
        Column("figure", [Shown((figure_words(row),)) for row in rows]),
        figures("p99 ms", [number(row.p99_ns, "ms") for row in rows]),
    ]
    return Table("All runs, in their order", Column("settings", [Shown((row.point.label,)) for row in rows]), columns)


def _verdict(row: Measured) -> Shown:
    word = verdict("performance", row.valid, row.failed)
    return Shown((word,), tuple(row.invalid_reasons[:1]), badge="good" if row.valid else "bad")
