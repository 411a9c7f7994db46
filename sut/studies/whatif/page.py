"""What a faster stage would gain, read again from its study.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sut.results.page.figures import number
from sut.results.page.plots import Axis, curves, legend
from sut.results.page.study import Figure, Study
from sut.results.page.tables import Column, Shown, Table, figures
from sut.studies.whatif.report import change_words

_NOTE = (
    "All other stages were stretched instead, and times divided by as much: queues and batches are those of a faster "
    "stage. Amdahl: what the stage's share of the busy time alone would give. An interval holds the truth in 95 of 100 "
    "cases."
)
_FORETOLD, _LAW = "foretold", "by Amdahl"


def study_of(content: Mapping[str, Any], key: str) -> Study:
    """The largest gain, all of them as curves and as a table."""
    rows = content["rows"]
    ranked = sorted(zip(rows, content["sentences"], strict=True), key=lambda each: -(each[0]["gain"]["ratio"] or 0.0))
    stages = dict.fromkeys(row["stage"] for row in rows if row["change_percent"]["value"] is not None)
    return Study(
        "What a faster stage would gain",
        [*(sentence for _, sentence in ranked), _NOTE, *content["notes"]],
        [_figure(stage, rows, content["figure_in_words"], f"{key}-{at}") for at, stage in enumerate(stages)],
        [_table(rows, content["figure_in_words"])],
    )


def _table(rows: Sequence[Mapping[str, Any]], figure: str) -> Table:
    return Table(
        caption=f"Change of the {figure}",
        first=Column("stage", [Shown((row["stage"],), (f"{row['faster_percent']:g} % faster",)) for row in rows]),
        columns=[
            Column("change", [Shown((change_words(row),)) for row in rows], is_numeric=False),
            figures("by Amdahl %", [number(row["amdahl_percent"]) for row in rows]),
            figures("beyond it, points", [number(row["beyond_amdahl_percent"]) for row in rows]),
            figures("share of busy time %", [number(row["share_of_busy_time"], "%") for row in rows]),
            figures("pairs", [number(row["gain"]["pairs"]) for row in rows]),
        ],
    )


def _figure(stage: str, rows: Sequence[Mapping[str, Any]], figure: str, key: str) -> Figure:
    """The change of a figure against how much faster a stage is, and what Amdahl's law says."""
    own = sorted((row for row in rows if row["stage"] == stage), key=lambda row: row["faster_percent"])
    known = [(row["faster_percent"], row["change_percent"], row["amdahl_percent"]) for row in own]
    series = {
        _FORETOLD: [(0.0, 0.0), *((at, each["value"]) for at, each, _ in known if each["value"] is not None)],
        _LAW: [(0.0, 0.0), *((at, law) for at, _, law in known if law is not None)],
    }
    open_ = [(at, each["low"], each["high"]) for at, each, _ in known if each["low"] is not None]
    title = f"{stage}: change of the {figure}"
    axes = (Axis("% faster", log=False), Axis("%", log=False))
    svg = curves(f"{key}-gain", title, series, *axes, intervals={_FORETOLD: open_})
    return Figure(title, svg, legend(list(series)))
