"""Which outputs are a detector's, of which kind; and what is said where that cannot be told."""

from __future__ import annotations

import pytest

from backends.base import TensorSpec
from sut.tasks.detection.kinds import Kind, form_of, told


def floats(name: str, *shape: int | None, dtype: str = "float32") -> TensorSpec:
    return TensorSpec(name, dtype, shape)


def labels(name: str, *shape: int | None) -> TensorSpec:
    return TensorSpec(name, "int64", shape)


YOLO = floats("output0", None, 84, 8400)
V5 = floats("output", 1, 25200, 85)
SUPPRESSED = floats("output0", 1, 300, 6)
TRIPLE = (labels("labels", None), floats("scores", None), floats("boxes", None, 4))


@pytest.mark.parametrize(
    ("outputs", "classes", "kind", "names"),
    [
        ([YOLO], 80, "yolo", "output0"),
        ([floats("o", 1, 8400, 84)], 80, "yolo", "o"),
        ([floats("o", None, 84, None, dtype="float16")], 80, "yolo", "o"),
        ([floats("o", None, 5, 8400)], 1, "yolo", "o"),
        ([floats("o", 1, 6, 8400)], 2, "yolo", "o"),
        ([floats("o", 1, 8400, 6)], 2, "yolo", "o"),
        ([V5], 80, "objectness", "output"),
        ([floats("o", None, None, 85, dtype="bfloat16")], 80, "objectness", "o"),
        ([floats("o", 1, 85, 8400)], 80, "objectness", "o"),
        ([floats("o", 1, 25200, 6)], 1, "objectness", "o"),
        # the heads that some exports show beside what they make of them
        ([V5, *(floats(f"head{side}", 1, 3, side, side, 85) for side in (80, 40, 20))], 80, "objectness", "output"),
        ([SUPPRESSED], 80, "nms", "output0"),
        ([floats("o", None, None, 6)], 80, "nms", "o"),
        ([floats("o", None, 100, 6)], 2, "nms", "o"),
        ([floats("o", None, 1000, 6)], 2, "nms", "o"),
        ([floats("o", None, 1001, 6)], 2, "yolo", "o"),
        (TRIPLE, 264, "boxes", "boxes scores labels"),
        (
            [floats("a", 8, 100, 4), labels("count", 8, 1), floats("b", 8, 100), labels("c", 8, 100)],
            80,
            "boxes",
            "a b c",
        ),
        (
            [floats("det_classes", 1, 9), floats("det_boxes", 1, 9, 4), floats("det_scores", 1, 9)],
            80,
            "boxes",
            "det_boxes det_scores det_classes",
        ),
    ],
)
def test_the_kind_is_told_by_names_and_shapes(outputs: list[TensorSpec], classes: int, kind: Kind, names: str) -> None:
    form = form_of(outputs, classes)

    assert (form.kind, " ".join(each.name for each in form.outputs)) == (kind, names)


@pytest.mark.parametrize("kind", ["yolo", "objectness", "nms"])
def test_what_a_file_leaves_open_can_be_said(kind: Kind) -> None:
    assert form_of([floats("o", None, None, None)], 80, kind).kind == kind


@pytest.mark.parametrize(
    ("outputs", "classes", "wanted", "fragment"),
    [
        (
            [],
            80,
            None,
            "no output fits detection: got none; expected with 80 classes yolo [n, 84, anchors], objectness",
        ),
        ([floats("s", None, 1000)], 80, None, "got s float32[?, 1000]; expected with 80 classes"),
        ([floats("o", None, 24, 8400)], 80, None, "got o float32[?, 24, 8400]"),
        ([floats("o", 1, 84, 20)], 80, None, "no output fits"),
        ([labels("o", 1, 84, 8400)], 80, None, "no output fits"),
        ([floats("o", None, None, None)], 80, None, "where axes are open, outputs in the recipe's task_options says"),
        ([YOLO], 80, "nms", "no output fits detection of the kind nms: got"),
        (TRIPLE, 80, "yolo", "of the kind yolo"),
        (
            [floats("o", None, None, 6)],
            2,
            None,
            "may be yolo or nms: say which in the recipe's task_options, as outputs",
        ),
        ([floats("o", None, None, 6)], 1, None, "may be objectness or nms"),
        (
            [YOLO, floats("again", 1, 84, 8400)],
            80,
            None,
            "several detectors, output0 (yolo) and again (yolo): name those",
        ),
        (
            [floats("raw", 1, 84, 8400), SUPPRESSED],
            80,
            None,
            "raw (yolo) and output0 (nms): name those of one with --out",
        ),
        ([*TRIPLE, YOLO], 80, None, "output0 (yolo) and boxes, scores, labels (boxes)"),
    ],
)
def test_what_cannot_be_told_is_said(
    outputs: list[TensorSpec], classes: int, wanted: Kind | None, fragment: str
) -> None:
    with pytest.raises(ValueError) as caught:
        form_of(outputs, classes, wanted)

    assert fragment in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("outputs", "expected"),
    [
        ([YOLO], ("yolo", 80)),
        ([floats("o", 1, 84, 33600)], ("yolo", 80)),
        ([floats("o", 1, 5, 2100)], ("yolo", 1)),
        ([floats("o", 1, 8400, 84)], ("yolo", 80)),
        ([floats("o", 1, 8400, 25)], ("yolo", None)),
        ([floats("o", 1, 8400, 85)], ("objectness", 80)),
        ([floats("o", 1, 85, 8400)], ("yolo", 81)),
        ([V5], ("objectness", 80)),
        ([floats("o", 1, 25200, 6)], ("objectness", 1)),
        ([SUPPRESSED], ("nms", None)),
        (TRIPLE, ("boxes", None)),
        ([floats("scores", None, 1000)], None),
        ([floats("tokens", None, 197, 768)], None),
        ([floats("wide", None, 4), labels("label", None), floats("confidence", None)], None),
    ],
)
def test_what_shapes_alone_tell(outputs: list[TensorSpec], expected: tuple[Kind, int | None] | None) -> None:
    assert told(outputs) == expected
