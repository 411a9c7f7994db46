"""A sweep on a page, from what its study.json says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sut.results.page.plots import Axis, curves, legend
from sut.results.page.study import Figure, Study
from sut.results.page.tables import Column, Shown, Table
from sut.studies.sweeping.grids import WAYS
from sut.studies.sweeping.points import Point, point_of
from sut.studies.sweeping.report import CAPTIONS, tables, usual_systems

_OUTSTANDING = Axis("requests outstanding", log=True)
_MS = Axis("ms")
Series = Mapping[str, Sequence[tuple[float, float]]]


def study_of(content: Mapping[str, Any], key: str) -> Study:
    """See ``sut.studies.pages.Reader``."""
    points = [point for point in map(point_of, content["rows"]) if point.ok]
    drawn = [*_closed(points, content["outcome"], key), *_open(content["outcome"], key), *_scaling(points, key)]
    shown = [_table(CAPTIONS[part], headings, lines) for part, headings, lines in tables(points)]
    title = f"{content['model']} on {content['backend']}: how much it can be asked"
    return Study(title, content["words"] or ["Nothing was measured."], drawn, shown)


def _closed(points: Sequence[Point], outcome: Mapping[str, Any], key: str) -> Iterator[Figure]:
    loop = [(float(each.concurrency or 0), each) for each in points if each.part == "closed" and each.round == 1]
    loop.sort(key=lambda pair: pair[0])
    if not loop:
        return
    knee = outcome.get("knee_concurrency")
    marks = {} if knee is None else {"95 % of the plateau": knee}
    rates = {"samples/s": [(n, each.samples_per_second or 0.0) for n, each in loop]}
    caption = "Throughput of the closed loop; the upright line is where 95 % of the plateau are reached"
    svg = curves(f"{key}-throughput", caption, rates, _OUTSTANDING, Axis("samples per second"), marks=marks)
    yield Figure(caption, svg)
    names = ("p50", "p99")
    latencies = {name: [(n, each.latency_ns[name] / 1e6) for n, each in loop] for name in names}
    caption = "Latency of the closed loop"
    yield Figure(caption, curves(f"{key}-latency", caption, latencies, _OUTSTANDING, _MS, marks=marks), legend(names))


def _open(outcome: Mapping[str, Any], key: str) -> Iterator[Figure]:
    rates = outcome.get("rate_p99")
    if not rates:
        return
    names = {"median of the rounds": "p99_ns", "lowest": "low_ns", "highest": "high_ns"}
    series = {words: [(each["rate"], each[name] / 1e6) for each in rates] for words, name in names.items()}
    marks = {} if outcome.get("safe_rate") is None else {"safe": outcome["safe_rate"]}
    caption = "p99 of the open loop; the upright line is the highest rate that held the bound in every round"
    svg = curves(f"{key}-rates", caption, series, Axis("requests per second"), _MS, marks=marks)
    yield Figure(caption, svg, legend([*series]))


def _scaling(points: Sequence[Point], key: str) -> Iterator[Figure]:
    systems = usual_systems(each for each in points if each.part == "scaling")
    what = "devices" if len({each.devices for each in systems}) > 1 else "cores"
    for size in dict.fromkeys(each.pictures for each in systems):
        series: Series = {
            way: sorted(
                (float(getattr(each, what) or 0), each.samples_per_second or 0.0)
                for each in systems
                if (each.pictures, each.way) == (size, way)
            )
            for way in WAYS
            if any((each.pictures, each.way) == (size, way) for each in systems)
        }
        caption = f"Throughput by {what}, {size} pictures"
        svg = curves(f"{key}-{size}", caption, series, Axis(what), Axis("samples per second"))
        yield Figure(caption, svg, legend([*series]))


def _table(caption: str, headings: Sequence[str], lines: Sequence[Sequence[str]]) -> Table:
    columns = [
        Column(heading.lstrip("<>").replace("\n", " "), [Shown((line[at],)) for line in lines], heading[0] == ">")
        for at, heading in enumerate(headings)
    ]
    return Table(caption, columns[0], columns[1:], is_sortable=False)
