"""A breakdown on a page, from what its study.json says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sut.results.page.figures import Number, number
from sut.results.page.stage_bars import Stacked, css_of, stage_bars
from sut.results.page.study import Figure, Study
from sut.results.page.tables import Column, Shown, Table, figures
from sut.results.stages import whole_stages

_AT = {"p50": "samples around the median (45th to 55th percentile)", "p99": "the slowest hundredth"}
_TAX = "tax: what of the latency is not inference; unexplained: by no stage. p99: means over the slowest hundredth."
_TAIL = (
    "The slowest hundredth by size: waiting is before a lane took them, working in the stages of their batch, alone "
    "what a picture of that size takes at zero load."
)
_SIZES = "One picture at a time, from the file's bytes to the tensor: medians of rounds in which all took turns."
_PARTS = "Each part by itself, and beside the other. Bytes are by arithmetic: of the files, three a pixel, the tensor."
Rows = Sequence[Mapping[str, Any]]


def study_of(content: Mapping[str, Any], key: str) -> Study:
    """See ``sut.studies.pages.Reader``."""
    rows: Rows = content["rows"]
    drawn: list[Figure] = []
    tables: list[Table] = []
    for place, pictures in enumerate(dict.fromkeys(row["pictures"] for row in rows)):
        some = [row for row in rows if row["pictures"] == pictures]
        drawn += _bars(pictures, some, f"{key}-{place}")
        tables.append(_loads(pictures, some))
    tables += [*_tails(rows), *_over_sizes(content["overtaking"]), *_parts(content["bottleneck"])]
    title = f"{content['model']}: where the time goes"
    return Study(title, [*content["sentences"], *content["warnings"]], drawn, tables)


def _bars(pictures: str, rows: Rows, key: str) -> list[Figure]:
    drawn = []
    for at, words in _AT.items():
        if some := [(row, whole_stages(row["at"][at]["stages_ns"])) for row in rows if row["at"][at]]:
            bars = [
                Stacked(f"{row['preprocess']}, {row['load']}", {name: ns / 1e6 for name, ns in stages.items()})
                for row, stages in some
            ]
            caption = f"{pictures} pictures: {words}"
            names = dict.fromkeys(name for _, stages in some for name in stages)
            svg = stage_bars(f"{key}-{at}", caption, bars)
            drawn.append(Figure(caption, svg, [(css_of(name), name) for name in names]))
    return drawn


def _loads(pictures: str, rows: Rows) -> Table:
    def at(name: str, unit: str, *places: str) -> list[Column]:
        return [figures(f"{name} at {place}, {unit}", [_cut(row, place, name) for row in rows]) for place in places]

    columns = [
        figures("asked, per second", [number(row["rate"]) for row in rows]),
        figures("per second", [number(row["samples_per_second"]) for row in rows]),
        *(figures(f"{name} ms", [number(row["latency_ns"][name], "ms") for row in rows]) for name in ("p50", "p99")),
        *at("tax", "%", *_AT),
        *at("unexplained", "%", *_AT),
        figures("samples", [number(row["samples"]) for row in rows]),
    ]
    names = Column("preprocessor", [Shown((row["preprocess"],), (row["load"],)) for row in rows])
    return Table(f"{pictures} pictures. {_TAX}", names, columns, is_sortable=False)


def _cut(row: Mapping[str, Any], place: str, name: str) -> Number | None:
    cut = row["at"][place]
    return number(cut[{"unexplained": "residual_share"}.get(name, name)], "%") if cut else None


def _tails(rows: Rows) -> list[Table]:
    some = [(row, tail) for row in rows for tail in row["tail_by_size"] or ()]
    if not some:
        return []
    names = [
        Shown((f"{row['preprocess']}, {tail['size']}",), (f"{row['pictures']}, {row['load']}",)) for row, tail in some
    ]
    columns = [
        figures("of all, %", [number(tail["share_of_all"], "%") for _, tail in some]),
        figures("of the slowest, %", [number(tail["share_of_tail"], "%") for _, tail in some]),
        *(
            figures(f"{name}, ms", [number(tail[f"{name}_ns"], "ms") for _, tail in some])
            for name in ("latency", "waiting", "working", "alone")
        ),
    ]
    return [Table(_TAIL, Column("size", names), columns, is_sortable=False)]


def _over_sizes(rows: Rows) -> list[Table]:
    if not rows:
        return []
    names = Column("pixels", [Shown((Number(size["pixels"]),)) for size in rows[0]["sizes"]])
    columns = [figures(f"{row['preprocess']}, ms", [number(size["ns"], "ms") for size in row["sizes"]]) for row in rows]
    return [Table(_SIZES, names, columns, is_sortable=False)]


def _parts(rows: Rows) -> list[Table]:
    if not rows:
        return []
    parts = dict.fromkeys(name for row in rows for name in row["samples_per_second"])
    columns = [
        *(
            figures(f"{name.replace('_', ' ')}, /s", [number(row["samples_per_second"].get(name)) for row in rows])
            for name in parts
        ),
        Column("limits", [Shown((row["limits"] or "not told",)) for row in rows], is_numeric=False),
        figures("of bound, %", [number(row["of_bound"]["ratio"], "%") for row in rows]),
        figures("both at once", [number(row["both_at_once"]) for row in rows]),
        *(
            figures(f"{name}, kB", [number(row["bytes_per_sample"][name] / 1e3) for row in rows])
            for name in ("jpeg", "pixels", "tensor")
        ),
    ]
    names = Column("preprocessor", [Shown((row["preprocess"],), (row["pictures"],)) for row in rows])
    return [Table(_PARTS, names, columns, is_sortable=False)]
