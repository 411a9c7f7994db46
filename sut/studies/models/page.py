"""What ``sut study models`` has found, in sentences and on a page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sut.results.page.figures import number
from sut.results.page.plots import Axis, curves, legend
from sut.results.page.study import Figure, Study
from sut.results.page.tables import Column, Shown, Table, figures

Row = Mapping[str, Any]
_GIGA = 1e9
_NOT_PASSED = {
    "not reached": "inference stays below 50 % of a sample's cost in all models: not reached",
    "always": "inference is over 50 % of a sample's cost in all models, the smallest too",
    "not in order": "inference passes 50 % of a sample's cost at no number of FLOPs: larger models have less",
    "not measured": "inference's share was not measured",
}


def sentences_of(summary: Mapping[str, Any], rows: Sequence[Row]) -> Iterator[str]:
    """What holds over all models, and what a reader must know."""
    if "pictures" in summary:
        yield f"pictures: {summary['pictures']}"
    for name, half in summary["half"].items():
        yield f"with {name}, {_half(half)}"
    for name, gain in summary["gains"].items():
        yield (
            f"{name} against {summary['against']}: {gain['low']:.2f} x ({gain['low_model']}) to {gain['high']:.2f} x "
            f"({gain['high_model']}), mean {gain['mean']:.2f} x over {gain['models']} models"
        )
    random = dict.fromkeys(row["model"] for row in rows if row["weights"] == "random")
    if random:
        yield f"random weights, so speed only: {', '.join(random)}"


def _half(half: Mapping[str, Any]) -> str:
    if half["flops"] is None:
        return _NOT_PASSED[half["verdict"]]
    around = f" ({gflops(half['low'])} to {gflops(half['high'])} in single rounds)" if half["low"] is not None else ""
    return f"inference passes 50 % of a sample's cost at {gflops(half['flops'])} GFLOPs{around}"


def gflops(flops: float | None) -> str:
    """FLOPs in 10^9, three digits; nothing known is a dash.

    >>> gflops(35_128_000_000), gflops(None)
    ('35.1', '-')
    """
    return "-" if flops is None else f"{flops / _GIGA:.3g}"


def study_of(content: Mapping[str, Any], key: str) -> Study:
    """The study on a page: sentences, the share against the FLOPs, a table."""
    rows = content["rows"]
    series: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        if row["model_flops"] and row["inference_share"] is not None:
            point = (row["model_flops"] / _GIGA, 100 * row["inference_share"])
            series.setdefault(row["preprocess"], []).append(point)
    shown = []
    if series:
        caption = "Inference's share of a sample's cost against the model's FLOPs"
        svg = curves(f"{key}-share", caption, series, Axis("GFLOPs", log=True), Axis("%", log=False), joined=False)
        shown.append(Figure(caption, svg, legend(list(series))))
    sentences = [f"{each[:1].upper()}{each[1:]}." for each in sentences_of(content, rows)]
    return Study("Inference's share by the size of the model", sentences, shown, [_table(rows)])


def _table(rows: Sequence[Row]) -> Table:
    gains = [(row["gain"] or {}).get("ratio") for row in rows]
    return Table(
        caption="Medians of the rounds; a gain over 1 is faster than the first preprocessor.",
        first=Column("model", [Shown((row["model"],), (row["reason"] or "",)) for row in rows]),
        columns=[
            Column("preprocessor", [Shown((row["preprocess"],)) for row in rows], is_numeric=False),
            figures("million parameters", [_scaled(row["model_parameters"], 1e6) for row in rows]),
            figures("GFLOPs", [_scaled(row["model_flops"], _GIGA) for row in rows]),
            figures("per second", [number(row["samples_per_second"]) for row in rows]),
            figures("inference, %", [number(row["inference_share"], "%") for row in rows]),
            figures("gain", [number(each) for each in gains]),
        ],
    )


def _scaled(value: int | None, by: float) -> Any:
    return number(None if value is None else value / by)
