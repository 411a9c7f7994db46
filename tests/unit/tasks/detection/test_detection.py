"""Detection: from each kind of outputs to boxes in the original picture, and what is refused, counted and doubted."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

import ml_dtypes
import numpy as np
import pytest
from numpy.typing import NDArray

import sut.tasks.detection
from backends.base import TensorSpec
from preprocess.base import Geometry, Recipe
from sut.errors import InputError
from sut.models.base import ModelSpec
from sut.models.files import ModelInfo
from sut.models.own import check_fit
from sut.tasks.classification import Classification
from sut.tasks.detection.categories import COCO80
from sut.tasks.detection.coco_map import MeanAP
from sut.tasks.detection.task import Detection
from sut.tasks.detection.truth import BoxTruth, TrueBox

SIZE = 64
RECIPE = Recipe(name="letterbox", size=SIZE, fit="letterbox", interpolation="linear")
WIDE = Geometry(width=128, height=64, scale_x=0.5, scale_y=0.5, left=0.0, top=-32.0)
TALL = Geometry(width=16, height=32, scale_x=2.0, scale_y=2.0, left=-8.0, top=0.0)
STRETCHED = Geometry(width=128, height=32, scale_x=0.5, scale_y=2.0, left=0.0, top=0.0)
CLASSES = 3

Box = tuple[float, float, float, float, float, int]
"""Corners in pixels of the model's input, score and class."""

IN_WIDE: Box = (16, 24, 32, 40, 0.75, 2)
"""In the picture ``WIDE``, of 128 x 64 pixels, at (32, 16) to (64, 48)."""
AS_SHARES = [0.25, 0.25, 0.75, 0.5]
"""Its ymin, xmin, ymax, xmax."""


def spec_of(classes: int = CLASSES, **options: Any) -> ModelSpec:
    return ModelSpec(
        name="detector",
        recipe=RECIPE,
        build=lambda weights, say: Path(),
        task="detection",
        task_options=options,
        classes=classes,
    )


@dataclass(frozen=True)
class Written:
    """Boxes of some pictures as a model would have them."""

    specs: list[TensorSpec]
    outputs: Mapping[str, NDArray[Any]]

    def answers(self, indices: Sequence[int], geometries: Sequence[Geometry], **options: Any) -> list[NDArray[Any]]:
        """What the task makes of them, picture by picture."""
        task = Detection.of(spec_of(**options), self.specs)
        raw = task.decode(self.outputs, indices, geometries, len(next(iter(self.outputs.values()))))
        return [np.frombuffer(each, "<f4").reshape(-1, 7) for each in raw]


def written(kind: str, pictures: Sequence[Sequence[Box]], dtype: Any = np.float32, room: int = 84) -> Written:
    """The boxes as outputs of a kind, with room for so many."""
    rows = np.zeros((len(pictures), room, 6), np.float32)
    for row, boxes in zip(rows, pictures, strict=True):
        row[: len(boxes)] = np.array(boxes, np.float32).reshape(-1, 6)
    name = np.dtype(dtype).name
    if kind == "nms":
        return Written([TensorSpec("found", name, (None, 60, 6))], {"found": rows[:, :60].astype(dtype)})
    if kind == "boxes":
        specs = [
            TensorSpec("labels", "int64", (None, room)),
            TensorSpec("boxes", name, (None, room, 4)),
            TensorSpec("scores", name, (None, room)),
        ]
        whole = rows[..., 5].astype(np.int64)
        return Written(
            specs, {"labels": whole, "boxes": rows[..., :4].astype(dtype), "scores": rows[..., 4].astype(dtype)}
        )
    first = 5 if kind == "objectness" else 4
    raw = np.zeros((len(pictures), room, first + CLASSES), np.float32)
    raw[..., :2], raw[..., 2:4] = (rows[..., :2] + rows[..., 2:4]) / 2, rows[..., 2:4] - rows[..., :2]
    if kind == "objectness":
        raw[..., 4] = 0.5
    np.put_along_axis(raw[..., first:], rows[..., 5:].astype(int), rows[..., 4:5] * (2 if first == 5 else 1), axis=2)
    if kind == "yolo":
        return Written(
            [TensorSpec("raw", name, (None, 4 + CLASSES, room))],
            {"raw": np.ascontiguousarray(raw.transpose(0, 2, 1)).astype(dtype)},
        )
    return Written([TensorSpec("raw", name, (None, room, first + CLASSES))], {"raw": raw.astype(dtype)})


KINDS = ("yolo", "objectness", "nms", "boxes")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16, np.float64])
def test_boxes_come_back_in_the_original_picture(kind: str, dtype: Any) -> None:
    pictures = [[IN_WIDE, (0, 16, 64, 48, 0.5, 0)], [], [(16, 0, 48, 64, 0.25, 1)]]

    wide, empty, tall = written(kind, pictures, dtype).answers((7, 4999, 3), (WIDE, WIDE, TALL))

    assert wide.tolist() == [[7, *AS_SHARES, 0.75, 2], [7, 0, 0, 1, 1, 0.5, 0]]
    assert empty.size == 0
    assert tall.tolist() == [[3, 0, 0, 1, 1, 0.25, 1]]


@pytest.mark.parametrize("kind", KINDS)
def test_a_picture_may_have_been_stretched(kind: str) -> None:
    [answer] = written(kind, [[IN_WIDE]]).answers((7,), (STRETCHED,))

    assert answer.tolist() == [[7, 0.375, 0.25, 0.625, 0.5, 0.75, 2]]


@pytest.mark.parametrize("kind", KINDS)
def test_a_score_at_the_threshold_is_not_above_it(kind: str) -> None:
    [answer] = written(kind, [[IN_WIDE, (0, 16, 64, 48, 0.5, 0)]]).answers((7,), (WIDE,), score_threshold=0.5)

    assert answer[:, 5].tolist() == [0.75]


@pytest.mark.parametrize("kind", KINDS)
def test_rows_that_pad_are_not_looked_at_but_must_be_there(kind: str) -> None:
    three = written(kind, [[IN_WIDE]] * 3)
    for values in three.outputs.values():
        if values.dtype.kind == "f":
            values[2] = np.nan

    assert [len(each) for each in three.answers((1, 2), (WIDE, WIDE))] == [1, 1]
    with pytest.raises(ValueError, match=r"not finite \(NaN or inf\) in row 2"):
        three.answers((1, 2, 3), (WIDE, WIDE, WIDE))
    task = Detection.of(spec_of(), three.specs)
    with pytest.raises(ValueError, match="returned 3 rows for a batch of 4"):
        task.decode(three.outputs, (1,), (WIDE,), 4)
    with pytest.raises(ValueError, match=r"the model returned no '.*'; got other"):
        task.decode({"other": np.zeros(1)}, (1,), (WIDE,), 1)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_is_an_error(kind: str, value: float) -> None:
    for name in written(kind, [[IN_WIDE]]).outputs:
        found = written(kind, [[IN_WIDE], [IN_WIDE]])
        if found.outputs[name].dtype.kind == "f":
            found.outputs[name][1, ..., 0] = value
            with pytest.raises(ValueError, match="not finite"):
                found.answers((0, 1), (WIDE, WIDE))


def test_a_picture_without_an_axis_for_the_batch() -> None:
    specs = [TensorSpec("boxes", "float32", (None, 4)), TensorSpec("s", "float32", (None,))]
    specs += [TensorSpec("l", "int64", (None,))]
    task = Detection.of(spec_of(), specs)
    boxes = {"boxes": np.array([IN_WIDE[:4]], np.float32), "s": np.float32([0.75]), "l": np.array([2])}
    none = {name: values[:0] for name, values in boxes.items()}

    [answer] = task.decode(boxes, (5,), (WIDE,), 1)

    assert np.frombuffer(answer, "<f4").tolist() == [5, *AS_SHARES, 0.75, 2]
    assert task.decode(none, (5,), (WIDE,), 1) == [b""]
    with pytest.raises(ValueError, match="no axis for the 2 pictures of a batch; run it with --max-batchsize 1"):
        task.decode(boxes, (5, 6), (WIDE, WIDE), 2)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [0.75, 0.5]),
        ({"score_threshold": 0.6}, [0.75]),
        ({"iou_threshold": 0.1}, [0.75]),
        ({"agnostic": True}, [0.75, 0.5]),
        ({"agnostic": True, "iou_threshold": 0.1}, [0.75]),
    ],
)
def test_what_a_recipe_may_say_of_suppression(options: dict[str, Any], expected: list[float]) -> None:
    near = (16, 30, 32, 46, 0.5, 1 if "agnostic" in options else 2)

    [answer] = written("yolo", [[IN_WIDE, near]]).answers((0,), (WIDE,), **options)

    assert answer[:, 5].tolist() == expected


def test_boxes_may_be_shares_of_the_models_input() -> None:
    box: Box = (*(value / SIZE for value in IN_WIDE[:4]), 0.75, 2)

    [answer] = written("nms", [[box]]).answers((0,), (WIDE,), boxes="unit")

    assert answer[0, 1:5].tolist() == AS_SHARES


def test_classes_become_categories() -> None:
    specs, outputs = [TensorSpec("raw", "float32", (None, 84, 100))], np.zeros((1, 84, 100), np.float32)
    outputs[0, :4] = 8
    outputs[0, 4 + np.arange(80), np.arange(80)] = 0.5

    def categories(**options: Any) -> list[float]:
        task = Detection.of(spec_of(80, **options), specs)
        [answer] = task.decode({"raw": outputs}, (0,), (WIDE,), 1)
        return np.frombuffer(answer, "<f4").reshape(-1, 7)[:, 6].tolist()

    assert categories() == categories(categories="coco80") == list(COCO80)
    assert categories(categories="index") == list(range(80))
    assert categories(categories="index1") == list(range(1, 81))
    assert (COCO80[0], COCO80[11], COCO80[79], len(COCO80)) == (1, 13, 90, 80)
    with pytest.raises(ValueError, match="categories is coco80, for 80 classes; the model has 3"):
        Detection.of(spec_of(categories="coco80"), written("yolo", [[]]).specs)


@pytest.mark.parametrize("kind", ["nms", "boxes"])
def test_a_class_that_the_model_does_not_have_is_an_error(kind: str) -> None:
    for wrong in (3, -1):
        with pytest.raises(ValueError, match=f"has a box of class {wrong}; expected 0 to 2"):
            written(kind, [[(*IN_WIDE[:5], wrong)]]).answers((0,), (WIDE,))
    fraction = written("nms", [[IN_WIDE]])
    fraction.outputs["found"][0, 0, 5] = 0.5
    with pytest.raises(ValueError, match=r"class 0\.5"):
        fraction.answers((0,), (WIDE,))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"outputs": "ssd"},
            "detection option outputs: got 'ssd', expected auto or yolo or objectness or nms or boxes",
        ),
        ({"iou_threshold": 1.5}, "option iou_threshold: got 1.5, expected a number from 0 to 1"),
        ({"threshold": 0.5}, "detection has no option 'threshold'; did you mean"),
    ],
)
def test_options_that_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as caught:
        Detection.of(spec_of(**options), written("yolo", [[]]).specs)

    assert message in str(caught.value)


@pytest.mark.parametrize("kind", KINDS)
def test_another_shape_than_told_is_an_error(kind: str) -> None:
    found = written(kind, [[IN_WIDE]])
    cut = {name: values[:, :2, :2] if values.ndim == 3 else values for name, values in found.outputs.items()}

    with pytest.raises(ValueError, match=r"shapes? \(1,.*expected \(n, "):
        Detection.of(spec_of(), found.specs).decode(cut, (0,), (WIDE,), 1)


def test_without_geometry_a_box_belongs_nowhere() -> None:
    with pytest.raises(ValueError, match="0 pictures were preprocessed for 1 samples"):
        written("yolo", [[IN_WIDE]]).answers((0,), ())


def test_boxes_beyond_the_picture_are_clipped_and_counted() -> None:
    pictures = [[(-4, 12, 32, 40, 0.9, 0), (0, 0, 60, 8, 0.8, 1), IN_WIDE], [(0, 16, 64, 48.001, 0.7, 0)]]
    found = written("nms", pictures)
    task = Detection.of(spec_of(), found.specs)

    first, other = task.decode(found.outputs, (0, 1), (WIDE, WIDE), 2)

    assert np.frombuffer(first, "<f4").reshape(-1, 7)[:, 1:5].tolist() == [
        [0, 0, 0.75, 0.5],
        [0, 0, 0, 0.9375],
        AS_SHARES,
    ]
    assert np.frombuffer(other, "<f4")[1:5].tolist() == [0, 0, 1, 1]
    assert task.notes() == [
        "2 boxes reached beyond their picture and were clipped",
        "1 of them lay outside altogether: is the recipe the model's?",
    ]


def test_no_box_at_all_is_told_until_there_is_one() -> None:
    nothing, something = written("yolo", [[], []]), written("yolo", [[], [IN_WIDE]])
    task = Detection.of(spec_of(), nothing.specs)
    assert task.notes() == []

    assert task.decode(nothing.outputs, (0, 1), (WIDE, WIDE), 2) == [b"", b""]
    assert task.notes() == ["2 pictures were answered, none with a box: is the recipe the model's?"]

    task.decode(something.outputs, (0, 1), (WIDE, WIDE), 2)
    assert task.notes() == []


def test_what_was_answered_before_a_run_is_not_told_of_it() -> None:
    found = written("nms", [[(-4, 12, 32, 40, 0.9, 0)]])
    task = Detection.of(spec_of(), found.specs)
    for _ in range(3):
        task.decode(found.outputs, (0,), (WIDE,), 1)

    task.start()
    task.decode(found.outputs, (0,), (WIDE,), 1)

    assert task.notes() == ["1 boxes reached beyond their picture and were clipped"]


def test_boxes_that_are_shares_and_not_said_to_be_are_told() -> None:
    found = written("nms", [[(0.1, 0.4, 0.5, 0.6, 0.9, 0)], []])
    task = Detection.of(spec_of(), found.specs)

    task.decode(found.outputs, (0, 1), (TALL, WIDE), 2)

    assert "1 pictures had all boxes within 2 pixels of a corner: are they shares (task_options boxes)?" in task.notes()


class Interrupted(Counter[str]):
    """Lets other threads go on between reading a number and writing it."""

    def __getitem__(self, key: str) -> int:
        value = super().get(key, 0)
        time.sleep(1e-4)
        return value


def test_lanes_count_together() -> None:
    found = written("nms", [[(-4, 12, 32, 40, 0.9, 0)]])
    task = Detection.of(spec_of(), found.specs)
    task._counted = Interrupted()
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda index: task.decode(found.outputs, (index,), (WIDE,), 1), range(40)))

    assert task.notes() == ["40 boxes reached beyond their picture and were clipped"]
    assert [np.frombuffer(answer, "<f4")[0] for [answer] in answers] == list(range(40))


TRUTH = BoxTruth(
    annotations=Path("instances.json"),
    image_ids=(11, 12, 13),
    sizes=((128, 64), (16, 32), (128, 64)),
    categories=(0, 1, 2),
    boxes=(
        TrueBox(1, 11, 2, (32, 16, 32, 32), 1024, 0),
        TrueBox(2, 12, 1, (2, 8, 10, 12), 120, 0),
        TrueBox(3, 13, 0, (0, 0, 64, 16), 1024, 0),
        TrueBox(4, 13, 2, (64, 32, 20, 30), 600, 0),
    ),
)
GEOMETRIES = (WIDE, TALL, WIDE)
PICTURES: list[list[Box]] = [
    [IN_WIDE],
    [(20, 16, 40, 40, 0.9, 1)],
    [(0, 16, 32, 24, 0.9, 0), (32, 32, 42, 47, 0.8, 2)],
]


def mean_ap(
    pictures: Sequence[Sequence[Box]] = PICTURES,
    geometries: Sequence[Geometry] = GEOMETRIES,
    indices: Sequence[int] = (0, 1, 2),
    **options: Any,
) -> MeanAP:
    """The score of all samples, answered in one batch."""
    found = written("yolo", pictures)
    answers = Detection.of(spec_of(**options), found.specs).decode(found.outputs, indices, geometries, 3)
    return Detection.score(dict(zip(indices, answers, strict=True)), TRUTH)


def test_what_is_right_has_an_map_of_1() -> None:
    score = mean_ap()

    assert (score.name, score.count, score.boxes) == ("mAP", 3, 4)
    assert score.value > 1 - 1e-9


def crooked(how: str) -> MeanAP:
    """The score with one thing wrong."""
    if how == "geometries swapped":
        return mean_ap(geometries=GEOMETRIES[::-1][1:] + GEOMETRIES[:1])
    if how == "xywh read as xyxy":
        as_xywh = [
            [((x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1, *rest) for x1, y1, x2, y2, *rest in boxes]
            for boxes in PICTURES
        ]
        found = written("nms", as_xywh)
        answers = Detection.of(spec_of(), found.specs).decode(found.outputs, (0, 1, 2), GEOMETRIES, 3)
        return Detection.score(dict(enumerate(answers)), TRUTH)
    if how == "a category shifted":
        truth = replace(TRUTH, categories=(0, 1, 2, 3))
        found = written("yolo", PICTURES)
        answers = Detection.of(spec_of(categories="index1"), found.specs).decode(
            found.outputs, (0, 1, 2), GEOMETRIES, 3
        )
        return Detection.score(dict(enumerate(answers)), truth)
    return mean_ap(indices=(1, 2, 0))


@pytest.mark.parametrize(
    "how", ["geometries swapped", "xywh read as xyxy", "a category shifted", "a sample index shifted"]
)
def test_what_is_wrong_costs_map(how: str) -> None:
    assert crooked(how).value < 0.6


def test_an_answer_that_names_another_sample_is_refused() -> None:
    found = written("yolo", PICTURES)
    answers = Detection.of(spec_of(), found.specs).decode(found.outputs, (1, 2, 3), GEOMETRIES, 3)

    with pytest.raises(ValueError, match="a box of sample 0 says that it is sample 1's"):
        Detection.score(dict(enumerate(answers)), TRUTH)


def test_no_box_is_a_score_and_a_doubt() -> None:
    score = mean_ap([[], [], []])

    assert score.value == 0
    [none] = Detection.doubts(score, spec_of(), False)
    assert none.startswith("no box was found in any of 3 pictures: check colour_order (")


def test_what_is_doubted() -> None:
    same = [[(*box[:5], 2) for box in boxes] for boxes in PICTURES]
    nowhere = [[(60, 60, 63, 63, 0.9, index)] for index in range(3)]

    assert Detection.doubts(mean_ap(), spec_of(), True) == []
    assert Detection.doubts(mean_ap(same), spec_of(), False) == ["all 4 boxes are of the category 2"]
    [near_nothing] = Detection.doubts(mean_ap(nowhere), spec_of(), True)
    assert near_nothing.startswith("mAP of 0.00% is next to nothing: check colour_order (")
    assert near_nothing.endswith("outputs, categories and boxes; see docs/detection.md")
    assert Detection.doubts(mean_ap(nowhere), spec_of(), False) == []


def test_a_category_that_the_model_never_answers_with_is_told() -> None:
    files = ("a", "b", "c")
    Detection.check_truth(spec_of(), TRUTH, files)

    with pytest.raises(ValueError, match=r"has the category 0, but detector answers 1 to 3 \(3 classes\); say by cat"):
        Detection.check_truth(spec_of(categories="index1"), TRUTH, files)
    with pytest.raises(ValueError, match=r"it has no boxes to score against, .* name one with --dataset-path"):
        Detection.check_truth(spec_of(), np.zeros(3, np.int32), files)
    for boxes in ((), (TRUTH.boxes[0]._replace(iscrowd=1),)):
        with pytest.raises(ValueError, match=r"instances\.json has no box, but for crowds, in any picture"):
            Detection.check_truth(spec_of(), replace(TRUTH, boxes=boxes), files)


def info(*outputs: TensorSpec) -> ModelInfo:
    return ModelInfo(Path("model.onnx"), (TensorSpec("images", "float32", (None, 3, SIZE, SIZE)),), outputs)


@pytest.mark.parametrize(
    "outputs",
    [
        (TensorSpec("o", "float32", (None, 84, 8400)),),
        (TensorSpec("o", "float32", (1, 300, 6)),),
        (
            TensorSpec("boxes", "float32", (None, 4)),
            TensorSpec("s", "float32", (None,)),
            TensorSpec("l", "int64", (None,)),
        ),
        (
            TensorSpec("boxes", "float32", (None, None, 4)),
            TensorSpec("s", "float32", (None, None)),
            TensorSpec("l", "int64", (None, None)),
        ),
    ],
)
def test_a_classifiers_recipe_does_not_fit_a_detector(outputs: tuple[TensorSpec, ...]) -> None:
    spec = replace(spec_of(1000), task="classification")
    with pytest.raises(ValueError):
        Classification.check(spec, info(*outputs))
    with pytest.raises(InputError, match="which look like those of detection: ") as caught:
        check_fit(spec, info(*outputs))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("outputs", [TensorSpec("s", "float32", (None, 1000)), TensorSpec("l", "int64", (None,))])
def test_a_detectors_recipe_does_not_fit_a_classifier(outputs: TensorSpec) -> None:
    with pytest.raises(InputError, match="which look like those of classification: no output fits detection") as caught:
        check_fit(spec_of(), info(outputs))
    assert "\n" not in str(caught.value)


def test_without_numba_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "sut.tasks.detection.nms", raising=False)
    monkeypatch.delattr(sut.tasks.detection, "nms", raising=False)
    monkeypatch.setitem(sys.modules, "numba", None)

    with pytest.raises(ModuleNotFoundError, match=r"^non-maximum suppression needs Numba: pip install numba$"):
        Detection.of(spec_of(), written("yolo", [[]]).specs)
    with pytest.raises(ModuleNotFoundError, match=r"^non-maximum suppression needs Numba: pip install numba$"):
        check_fit(spec_of(), info(*written("yolo", [[]]).specs))
    assert Detection.of(spec_of(), written("nms", [[]]).specs).form.kind == "nms"


def test_nothing_is_compiled_to_see_whether_a_file_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    def compiled() -> NoReturn:
        raise AssertionError("compiled")

    monkeypatch.setattr("sut.tasks.detection.nms.kernel", compiled)

    check_fit(spec_of(), info(*written("yolo", [[]]).specs))
    with pytest.raises(AssertionError, match="compiled"):
        Detection.of(spec_of(), written("yolo", [[]]).specs)
