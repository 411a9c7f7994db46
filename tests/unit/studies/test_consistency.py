"""A compare.json whose figures do not bear out what it says is somebody's own work."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sut.studies.comparing.consistency import contradiction
from sut.studies.comparing.page import read_comparison
from tests.unit.report_results import a_comparison


def with_groups() -> dict[str, Any]:
    """The comparison at two boundaries, at the second of which nothing is better."""
    told = a_comparison()
    same = json.loads(json.dumps(told["rows"][:2]))
    for row in same:
        row |= {"cell": f"{row['cell']} at jpeg", "against": f"{row['against']} at jpeg", "boundary": "jpeg"}
    same[0] |= {"verdict": "best", "figures": same[1]["figures"], "samples_per_second": 566.5, "ratio": None}
    same[0]["metric"] = same[1]["metric"]
    same[1] |= {"verdict": "slower", "ratio": {"value": 1.0, "low": 0.9, "high": 1.1, "pairs": 4, "verdict": "open"}}
    for row in told["rows"][:2]:
        row |= {"cell": f"{row['cell']} at tensor", "against": f"{row['against']} at tensor"}
    told["rows"][2:2] = [*same, same[1] | {"cell": "tvm at jpeg"}]
    told["sentence"] = f"tensor: {told['sentence']}. jpeg: stay with onnxruntime fp32: nothing here is faster"
    return told


def latencies() -> dict[str, Any]:
    """The same figures as times, which the first cell has the least of."""
    told = a_comparison()
    for row in told["rows"][:2]:
        row["scenario"] = "SingleStream"
        row["metric"] = row["metric"] | {"higher_is_better": False}
    first, second, _ = told["rows"]
    first["verdict"], second["verdict"] = "best", "slower"
    second["ratio"] = {"value": 1 / 3.13, "low": 1 / 3.44, "high": 1 / 2.81, "pairs": 4, "verdict": "worse"}
    told["sentence"] = "stay with onnxruntime fp32: nothing here is faster"
    return told


def undecided() -> dict[str, Any]:
    """One look at each cell, before any pair."""
    told = a_comparison()
    for row in told["rows"][:2]:
        row["figures"] = {"0": row["figures"]["0"]}
        row["samples_per_second"] = row["figures"]["0"]
        row["metric"] = row["metric"] | {"value": row["figures"]["0"]}
    share = 470.25 / 150.5
    told["rows"][1]["ratio"] = {"value": share, "low": None, "high": None, "pairs": 0, "verdict": "open"}
    told["sentence"] = "the budget ended before any pair of runs: so far openvino int8 is 3.12 x onnxruntime fp32"
    return told


def none_runs() -> dict[str, Any]:
    return a_comparison() | {"rows": a_comparison()["rows"][2:], "sentence": "nothing can be recommended ()"}


@pytest.mark.parametrize("make", [a_comparison, with_groups, latencies, undecided, none_runs])
def test_what_is_written_agrees_with_itself(make: Callable[[], dict[str, Any]]) -> None:
    assert contradiction(make()) is None


def row(number: int, **changes: Any) -> Callable[[dict[str, Any]], object]:
    return lambda told: told["rows"][number].update(changes)


def ratio(**changes: Any) -> Callable[[dict[str, Any]], object]:
    return lambda told: told["rows"][1]["ratio"].update(changes)


def sentence(old: str, new: str) -> Callable[[dict[str, Any]], object]:
    return lambda told: told.update(sentence=told["sentence"].replace(old, new))


EDITS: dict[str, tuple[Callable[[], dict[str, Any]], Callable[[dict[str, Any]], object], str]] = {
    "a better metric": (a_comparison, row(1, metric={"value": 600, "higher_is_better": True}), "metric is 600, but"),
    "another metric": (a_comparison, row(1, metric={"value": 566.5, "higher_is_better": False}), "is not so in Off"),
    "a better rate": (a_comparison, row(1, samples_per_second=600), "samples_per_second is 600, but the median"),
    "figures cut away": (a_comparison, row(1, figures={}), "'openvino int8' has no figures"),
    "a figure of nothing": (a_comparison, row(1, figures={"0": 0}), "a figure is 0"),
    "a word for a figure": (a_comparison, row(1, figures={"0": "fast"}), "a row is none that is written (TypeError"),
    "a row of nothing": (a_comparison, row(1, figures=[3]), "a row is none that is written (AttributeError"),
    "another best": (
        a_comparison,
        lambda told: [row(0, verdict="best")(told), row(1, verdict="slower")(told)],
        "'onnxruntime fp32' is the best, but by its figures 'openvino int8' is",
    ),
    "the slower of two": (
        latencies,
        lambda told: [row(0, verdict="slower")(told), row(1, verdict="best")(told)],
        "'openvino int8' is the best, but by its figures 'onnxruntime fp32' is",
    ),
    "two best": (a_comparison, row(0, verdict="best"), "2 cells are the best against 'onnxruntime fp32'"),
    "none that is best": (a_comparison, row(1, verdict="slower"), "0 cells are the best"),
    "a best one that is barred": (a_comparison, row(1, barred="wrong labels"), "although it is not to be chosen"),
    "no ratio": (a_comparison, row(1, ratio=None), "it has no ratio to 'onnxruntime fp32'"),
    "a better ratio": (a_comparison, ratio(value=3.4), "its ratio is 3.4, but 3.08"),
    "a better share": (undecided, ratio(value=3.2), "its ratio is 3.2, but 3.12"),
    "more pairs": (a_comparison, ratio(pairs=7), "its ratio is of 7 pairs, its figures of 4"),
    "a ratio beside its interval": (a_comparison, ratio(low=3.2), "its ratio is 3.127 (3.2 to 3.44)"),
    "another verdict": (a_comparison, ratio(verdict="open"), "called open"),
    "a verdict of nothing": (undecided, ratio(verdict="better"), "is called better without an interval"),
    "a narrow interval": (a_comparison, ratio(low=3.12, high=3.13), "narrower than its figures allow"),
    "a better sentence": (a_comparison, sentence("3.13 x", "3.4 x"), "does not say to use 'openvino int8'"),
    "another sentence": (a_comparison, sentence("use openvino int8: ", "stay with openvino int8: "), "not say to use"),
    "a sentence of another": (a_comparison, sentence("openvino", "tvm"), "does not name the best, 'openvino int8'"),
    "use of another": (undecided, sentence("the budget", "use onnxruntime fp32: the budget"), "to use what is not the"),
    "a gain of none": (latencies, sentence("stay", "use onnxruntime fp32: 2 x (1.9 to 2.1), stay"), "which it is not"),
    "use of another at a boundary": (with_groups, sentence("jpeg: ", "jpeg: use tvm: or "), "to use 'tvm', which"),
    "a boundary cut away": (with_groups, sentence("use openvino int8: 3.13 x", "3.13 x"), "does not name the best"),
}  # fmt: skip


@pytest.mark.parametrize(("make", "edit", "what"), EDITS.values(), ids=EDITS)
def test_what_was_edited_is_found(
    make: Callable[[], dict[str, Any]], edit: Callable[[dict[str, Any]], object], what: str
) -> None:
    told = make()
    edit(told)

    assert what in str(contradiction(told))


def test_the_page_says_what_an_accuracy_is_of(tmp_path: Path) -> None:
    rows = [
        {"accuracy": {"name": "mAP", "value": 0.5}},
        {"accuracy": {"name": "top1", "value": 0.75}},
        {"agreement": {"value": 0.97}},
        {},
    ]
    told = {"command": "compare", "schema": 1, "sentence": "it is so", "rows": rows}
    (tmp_path / "compare.json").write_text(json.dumps(told))

    columns = read_comparison(tmp_path / "compare.json", 0).table.columns

    [shown] = [column.cells for column in columns if column.heading == "accuracy %"]
    assert [each.small for each in shown] == [(" mAP",), (" right",), (" as FP32",), ()]
