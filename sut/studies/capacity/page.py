"""A plan on a page, from what its study.json says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sut.results.page.figures import Number, number
from sut.results.page.plots import Axis, curves, legend
from sut.results.page.study import Figure, Study
from sut.results.page.tables import Column, Shown, Table, figures

_BATCH = Axis("pictures in a batch")
_LAYOUTS = (
    "Each layout. Batches are of lanes that preprocess for themselves; samples/s is what is expected where there is "
    "always work, and the interval holds that of a run in 90 of 100 cases."
)
_PREPROCESSING = "What so many workers make ready in a second, alone and beside so many busy lanes."
Rows = Sequence[Mapping[str, Any]]


def study_of(content: Mapping[str, Any], key: str) -> Study:
    """See ``sut.studies.pages.Reader``."""
    rows: Rows = content["rows"]
    taken = content["plan"]["layout"] if content["plan"] is not None else {"lanes": 0, "workers": 0, "batch": 0}
    title = f"{content['model']} on {content['backend']}: what holds a rate within a latency"
    tables = [_layouts(rows, taken), *_preprocessing(content["preprocessing"])]
    return Study(title, content["words"], [*_drawn(rows, taken, key)], tables)


def _drawn(rows: Rows, taken: Mapping[str, int], key: str) -> Iterator[Figure]:
    """Throughput of the layouts that have as many workers as the plan has, and times of batches."""
    marks = {"the plan": taken["batch"]} if taken["batch"] else {}
    by_lanes = _by_lanes([row for row in rows if row["preprocess_workers"] == taken["workers"]])
    rates = {name: [(row["max_batchsize"], row["samples_per_second"]) for row in some] for name, some in by_lanes}
    values = {name: [(size, rate["value"]) for size, rate in each] for name, each in rates.items()}
    intervals = {
        name: [(size, rate["low"], rate["high"]) for size, rate in each if rate["high"] is not None]
        for name, each in rates.items()
    }
    workers = f", {taken['workers']} preprocessing" if taken["workers"] else ""
    caption = f"What is expected where there is always work{workers}" + "; the upright line is the plan" * bool(marks)
    axes = (_BATCH, Axis("samples per second"))
    svg = curves(f"{key}-rates", caption, values, *axes, marks=marks, intervals=intervals)
    yield Figure(caption, svg, legend([*values]))
    by_lanes = _by_lanes([row for row in rows if not row["preprocess_workers"]])
    times = {
        name: [(row["max_batchsize"], row["batch_ns"]["all_lanes"] / 1e6) for row in some] for name, some in by_lanes
    }
    caption = "What a batch takes while all lanes are at work, each preprocessing for itself"
    yield Figure(caption, curves(f"{key}-batches", caption, times, _BATCH, Axis("ms")), legend([*times]))


def _by_lanes(rows: Rows) -> list[tuple[str, Rows]]:
    """The rows of each number of lanes, in the order of the batch."""
    ordered = sorted(rows, key=lambda row: row["max_batchsize"])
    counts = sorted({row["lanes"] for row in rows})
    return [
        (f"{count} lane{'s' if count > 1 else ''}", [row for row in ordered if row["lanes"] == count])
        for count in counts
    ]


def _layouts(rows: Rows, taken: Mapping[str, int]) -> Table:
    names = {"lanes": "lanes", "preprocess_workers": "workers", "max_batchsize": "batch"}
    is_taken = [all(row[name] == taken[key] for name, key in names.items()) for row in rows]
    columns = [
        figures("batch", [number(row["max_batchsize"]) for row in rows]),
        figures("preprocessing", [number(row["preprocess_workers"]) for row in rows]),
        figures("one lane, ms a batch", [number(row["batch_ns"]["one_lane"], "ms") for row in rows]),
        figures("all lanes, ms a batch", [number(row["batch_ns"]["all_lanes"], "ms") for row in rows]),
        *(
            figures(heading, [number(row["samples_per_second"][name]) for row in rows])
            for name, heading in {"value": "samples/s", "low": "from", "high": "to"}.items()
        ),
        Column("plan", [Shown(("taken",) if each else ()) for each in is_taken], is_numeric=False),
    ]
    return Table(_LAYOUTS, Column("lanes", [Shown((Number(row["lanes"]),)) for row in rows]), columns)


def _preprocessing(rows: Rows) -> Iterator[Table]:
    if rows:
        columns = [
            figures("alone", [number(row["samples_per_second"]) for row in rows]),
            *(
                figures(f"beside {lanes}", [number(row["samples_per_second_beside_lanes"][lanes]) for row in rows])
                for lanes in rows[0]["samples_per_second_beside_lanes"]
            ),
        ]
        workers = Column("workers", [Shown((Number(row["workers"]),)) for row in rows])
        yield Table(_PREPROCESSING, workers, columns, is_sortable=False)
