"""Scores that only the model sees: where its labels are chosen from, and a file that shows them."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from backends.base import ModelFile
from backends.onnxruntime import OnnxRuntime
from sut.models.argmax import expose_scores, scores_behind
from tests.unit.odd_models import CLASSES, write_odd
from tests.unit.small_models import with_weights_outside


def a_graph(*nodes: tuple[str, list[str], str]) -> onnx.GraphProto:
    made = [onnx.helper.make_node(operator, inputs, [name]) for operator, inputs, name in nodes]
    made.append(onnx.helper.make_node("TopK", ["logits", "k"], ["values", "indices"]))
    return onnx.GraphProto(node=made)


@pytest.mark.parametrize(
    ("nodes", "behind"),
    [
        ([("ArgMax", ["logits"], "out")], "logits"),
        ([("ArgMax", ["logits"], "best"), ("Squeeze", ["best", "axis"], "one"), ("Cast", ["one"], "out")], "logits"),
        ([("Squeeze", ["indices", "axis"], "out")], "logits"),
        (
            [("ArgMax", ["scores"], "best"), ("Constant", [], "one"), ("Sub", ["best", "one"], "out")],
            "scores",
        ),
        ([("ArgMax", ["scores"], "best"), ("Constant", [], "one"), ("Add", ["one", "best"], "out")], "scores"),
        ([("Cast", ["logits"], "out")], None),
        ([("ArgMax", ["logits"], "best"), ("Mul", ["best", "one"], "out")], "logits"),
        ([("ArgMax", ["a"], "best"), ("Where", ["mask", "zero", "best"], "out")], "a"),
        (
            [("ArgMax", ["a"], "far"), ("ArgMax", ["b"], "near"), ("Neg", ["far"], "f"), ("Max", ["f", "near"], "out")],
            "b",
        ),
        ([("Add", ["out", "out"], "out")], None),
        ([], None),
    ],
)
def test_the_scores_that_labels_are_chosen_from(nodes: list[tuple[str, list[str], str]], behind: str | None) -> None:
    assert scores_behind(a_graph(*nodes), "out") == behind


def test_scores_are_shown_by_one_file_whatever_holds_the_weights(tmp_path: Path) -> None:
    outside = with_weights_outside(write_odd(tmp_path / "odd.onnx", "labels"))
    (tmp_path / "copy").mkdir()

    name = expose_scores(outside, "labels", tmp_path / "copy" / "shown.onnx")

    assert name == "sums"
    with OnnxRuntime.load(ModelFile(tmp_path / "copy" / "shown.onnx"), "cpu", 1, 1) as shown:
        assert [(spec.name, spec.dtype, spec.shape) for spec in shown.outputs] == [("sums", "float32", (None, CLASSES))]
