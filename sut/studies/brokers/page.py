"""A study of brokers on a page: throughput over fan-out, where a frame's latency goes, the claims, the figures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from sut.results.page.plots import Axis, curves, legend
from sut.results.page.stage_bars import Stacked, stage_bars
from sut.results.page.study import Figure, Study
from sut.results.page.tables import Column, Shown, Table
from sut.studies.brokers.report import HEADINGS, lines_of
from sut.studies.brokers.rounds import GROUPS

Rows = Sequence[Mapping[str, Any]]
_BADGES: dict[str, Literal["", "good", "bad"]] = {"holds": "good", "does not hold": "bad"}
_SHOWN = (1, 9, 25)
"""Fan-outs whose latency is drawn, where they were measured."""
_COLOURS = dict(zip(GROUPS, ("st-preprocess", "st-normalize", "st-queue", "st-infer", "st-residual"), strict=True))


def study_of(content: Mapping[str, Any], key: str) -> Study:
    """See ``sut.studies.pages.Reader``."""
    rows: Rows = [row for row in content["rows"] if row["rounds"]]
    sentences = [f"{words[:1].upper()}{words[1:]}." for words in content["words"]]
    figures = [*_throughput(rows, content["crossing"], key), *_latency(rows, key)]
    tables = [_claims(content["claims"]), *(_table(*each, rows) for each in HEADINGS.items())]
    title = f"Between {content['model']} and {content['identify']}: fused, or through a channel"
    return Study(title, sentences, figures, tables)


def _throughput(rows: Rows, crossing: Mapping[str, Any], key: str) -> Iterator[Figure]:
    if not rows:
        return
    series = {
        form: [(float(row["fan_out"]), row["frames_per_second"]) for row in rows if row["form"] == form]
        for form in dict.fromkeys(row["form"] for row in rows)
    }
    marks = {} if crossing["at"] is None else {"N*": float(crossing["at"])}
    caption = "Throughput at saturation by crops a frame" + ("; the upright line is N*" if marks else "")
    svg = curves(f"{key}-rate", caption, series, Axis("crops a frame"), Axis("frames per second"), marks=marks)
    yield Figure(caption, svg, legend([*series]))


def _latency(rows: Rows, key: str) -> Iterator[Figure]:
    there = sorted({row["fan_out"] for row in rows})
    chosen = [each for each in _SHOWN if each in there] or [*dict.fromkeys((there[0], there[-1]))] if there else []
    bars = [
        Stacked(f"{row['fan_out']}, {row['form']}", {name: ns / 1e6 for name, ns in row["parts_ns"].items()})
        for row in rows
        if row["fan_out"] in chosen
    ]
    if bars:
        caption = "Latency of one frame alone, by crops a frame and form"
        svg = stage_bars(f"{key}-alone", caption, bars, classes=_COLOURS)
        yield Figure(caption, svg, [(css, name) for name, css in _COLOURS.items()])


def _claims(rows: Rows) -> Table:
    verdicts = [Shown((row["verdict"],), (), _BADGES.get(row["verdict"], "")) for row in rows]
    return Table(
        "What the paper says, held against this machine's figures where they are comparable.",
        Column("claim", [Shown((row["says"],), (f"Fig. {row['figure']}",)) for row in rows]),
        [
            Column("verdict", verdicts, False),
            Column("here, or why not", [Shown((row["ours"] or row["reason"] or "",)) for row in rows], False),
            Column("theirs", [Shown((row["theirs"],)) for row in rows], False),
            Column("command", [Shown((row["command"],)) for row in rows], False),
        ],
        is_sortable=False,
    )


def _table(caption: str, headings: Sequence[str], rows: Rows) -> Table:
    lines = lines_of(rows)[caption]
    columns = [
        Column(heading.lstrip("<>").replace("\n", " "), [Shown((line[at],)) for line in lines], heading[0] == ">")
        for at, heading in enumerate(headings)
        if heading != "<"
    ]
    return Table(caption, columns[0], columns[1:], is_sortable=False)
