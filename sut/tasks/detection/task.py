"""Detection: boxes in a picture, answered as MLPerf does."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Literal, Self, assert_never

import numpy as np
from numpy.typing import NDArray

from backends.base import TensorSpec
from plugins.options import option
from preprocess.base import Geometry, Mark, unmarked
from sut.tasks.base import Info, Payloads, Score, Spec, Task, Told
from sut.tasks.detection.answers import ANSWER_WIDTH, VALUE
from sut.tasks.detection.categories import Categories, categories_of
from sut.tasks.detection.coco_map import MeanAP, check_pycocotools, score_boxes
from sut.tasks.detection.kinds import Form, Found, form_of, told
from sut.tasks.detection.likeness import BoxLook, BoxTally, boxes_of
from sut.tasks.detection.truth import BoxTruth

_ANSWER_BYTES = VALUE.itemsize * ANSWER_WIDTH
_BEYOND_ROUNDING = 0.01
"""Pixels of the picture: a box that ends at its edge may end a little behind it by rounding."""
_IN_THE_CORNER = 2
"""No model has all its boxes within so many pixels of its input's corner, but all fractions lie there."""
_CLIPPED = "boxes reached beyond their picture and were clipped"
_OUTSIDE = "of them lay outside altogether: is the recipe the model's?"
_CORNERED = f"pictures had all boxes within {_IN_THE_CORNER} pixels of a corner: are they shares (task_options boxes)?"
_EMPTY = "pictures were answered, none with a box: is the recipe the model's?"
_RAW = ("yolo", "objectness")
"""Kinds whose boxes are still to be suppressed."""
_NEAR_NOTHING = 0.01
"""An mAP that trained weights do not have: YOLO11-N, the smallest, has 0.39."""


@dataclass(frozen=True, slots=True)
class DetectionOptions:
    """What a recipe's ``task_options`` may set."""

    outputs: Literal["auto", "yolo", "objectness", "nms", "boxes"] = option(
        "auto", "what the model's outputs are, where the file leaves it open"
    )
    score_threshold: float = option(0.001, "a box has a higher score", least=0, most=1)
    iou_threshold: float = option(0.7, "of two boxes that overlap more, the worse one goes", least=0, most=1)
    agnostic: bool = option(False, "boxes of all classes compete, not only those of one")
    categories: Categories = option("auto", "the category of a class; auto is coco80 with 80 classes, else index")
    boxes: Literal["pixels", "unit"] = option("pixels", "whether boxes are in pixels of the model's input or shares")


class Detection(Task):
    """Boxes with a score and a category, by outputs of one of the kinds in ``kinds.py``.

    An answer is n x 7 float32, little endian: the sample's index, ymin, xmin, ymax, xmax as shares of the original
    picture, score, category; empty where no box was found. Boxes that reach beyond the picture are clipped to it, as
    MLPerf's reference does, and counted; one that is left without an area stays, as there.
    """

    name = "detection"
    options = DetectionOptions
    layout = "coco"
    loadgen_model = "yolo"
    needs_geometry = True
    inexact = True
    tally = BoxTally

    def __init__(self, form: Form, spec: Spec, options: DetectionOptions) -> None:
        """Read outputs of ``form``. Raises ``ModuleNotFoundError`` where suppression needs Numba, and has none."""
        self.form = form
        self.output = form.outputs[0] if len(form.outputs) == 1 else None
        self._options = options
        self._categories = np.array(categories_of(options.categories, spec.classes), np.float32)
        self._classes = spec.classes
        self._unit = spec.recipe.size if options.boxes == "unit" else 1
        self._find: Callable[[Mapping[str, Any], int, int], Found]
        self._counted: Counter[str] = Counter()
        self._lock = threading.Lock()
        match form.kind:
            case "yolo" | "objectness":
                nms = _suppression()
                nms.kernel()
                self._best_boxes: Callable[..., Found] = nms.best_boxes
                self._find = self._suppressed
            case "nms":
                self._find = self._in_rows
            case "boxes":
                self._find = self._apart
            case never:
                assert_never(never)

    @classmethod
    def of(cls, spec: Spec, outputs: Sequence[TensorSpec]) -> Self:
        """The task for a model with these outputs, as ``form_of`` tells them."""
        form, options = cls._read(spec, outputs)
        return cls(form, spec, options)

    @classmethod
    def _read(cls, spec: Spec, outputs: Sequence[TensorSpec]) -> tuple[Form, DetectionOptions]:
        options: DetectionOptions = cls.read_options(spec.task_options)
        return form_of(outputs, spec.classes, None if options.outputs == "auto" else options.outputs), options

    @classmethod
    def check(cls, spec: Spec, info: Info) -> None:
        """As of any task, but that suppression is not compiled: that takes seconds. Its package must be there."""
        form, options = cls._read(spec, info.outputs)
        categories_of(options.categories, spec.classes)
        if form.kind in _RAW:
            _suppression()

    @classmethod
    def recognises(cls, outputs: Sequence[TensorSpec]) -> bool:
        """Whether shapes and names alone are those of a detector."""
        return told(outputs) is not None

    @classmethod
    def usual_recipe(cls, outputs: Sequence[TensorSpec]) -> str:
        """Boxes with scores and labels are RetinaNet's, MLPerf's and torchvision's; all others are YOLO's."""
        found = told(outputs)
        return "retinanet" if found is not None and found[0] == "boxes" else "yolo"

    @classmethod
    def classes_of(cls, recipe: Told, outputs: Sequence[TensorSpec]) -> int:
        """The classes that a kind's width leaves room for, where it tells them; else what the recipe says."""
        options: DetectionOptions = cls.read_options(recipe.task_options)
        wanted = None if options.outputs == "auto" else options.outputs
        kind, found = told(outputs) or (None, None)
        classes = recipe.classes or (found if wanted in (None, kind) else None) or recipe.usual_classes
        if not classes:
            raise ValueError(f"which leave the number of classes open; set classes in the recipe {recipe.name}")
        form_of(outputs, classes, wanted)
        return classes

    @classmethod
    def outline(cls, spec: Spec, outputs: Sequence[TensorSpec]) -> str:
        """The kind of the outputs, and what is done with them."""
        form, options = cls._read(spec, outputs)
        how = f"categories {options.categories}, boxes in {options.boxes}, scores above {options.score_threshold:g}"
        if form.kind in _RAW:
            how += f", IoU at most {options.iou_threshold:g}"
        return f"detection by {form}, {spec.classes} classes, {how}"

    @classmethod
    def check_truth(cls, spec: Spec, truth: object, files: Sequence[str]) -> None:
        """Raise ``ValueError`` for what are no boxes, and for a category that the model can never answer with."""
        boxes = _boxes_in(truth)
        if all(box.iscrowd for box in boxes.boxes):
            raise ValueError(
                f"{boxes.annotations} has no box, but for crowds, in any picture: nothing to score against"
            )
        answered = categories_of(cls.read_options(spec.task_options).categories, spec.classes)
        unknown = sorted(set(boxes.categories).difference(answered))
        if unknown:
            raise ValueError(
                f"{boxes.annotations} has the category {unknown[0]}, but {spec.name} answers {answered[0]} to "
                f"{answered[-1]} ({spec.classes} classes); say by categories in the recipe's task_options which ids "
                "they have, or is it another model's data set?"
            )
        check_pycocotools()

    def decode(
        self,
        outputs: Mapping[str, Any],
        indices: Sequence[int],
        geometries: Sequence[Geometry],
        rows: int,
        mark: Mark = unmarked,
    ) -> list[bytes]:
        """The boxes of each of the n ``indices``, from the first n of the ``rows``; the others are not looked at.

        Raises ``ValueError`` for a missing output, fewer or more rows, another shape than told, values that are not
        finite, and a class that the model does not have.
        """
        n = len(indices)
        if len(geometries) != n:
            raise ValueError(f"{len(geometries)} pictures were preprocessed for {n} samples: boxes belong nowhere")
        try:
            found = self._find(outputs, n, rows)
        except ValueError as error:
            raise ValueError(f"output {self.form}: {error}") from None
        answers = np.empty((len(found.boxes), ANSWER_WIDTH), VALUE)
        answers[:, 0] = np.repeat(np.asarray(indices), found.counts)
        answers[:, [2, 1, 4, 3]] = self._in_picture(found, geometries)
        answers[:, 5] = found.scores
        answers[:, 6] = self._categories[found.classes]
        raw, ends = answers.tobytes(), (found.counts.cumsum() * _ANSWER_BYTES).tolist()
        return [raw[begin:end] for begin, end in zip([0, *ends], ends, strict=False)]

    def start(self) -> None:
        """Forget what was counted in warm-up and calibration."""
        with self._lock:
            self._counted.clear()

    def notes(self) -> list[str]:
        """How many boxes were clipped and pictures look wrong; and where no box was found at all."""
        with self._lock:
            found = dict(self._counted)
        answered, empty = found.pop("answered", 0), found.pop("empty", 0)
        told = [f"{count:,} {what}" for what, count in found.items() if count]
        return [*told, f"{answered:,} {_EMPTY}"] if answered and answered == empty else told

    def looks(self, payloads: Payloads, outputs: Mapping[str, Any]) -> list[BoxLook]:
        """The boxes of each picture."""
        return [BoxLook(boxes_of(bytes(answer))) for answer in payloads]

    @classmethod
    def score(cls, answers: Mapping[int, bytes], truth: Any, whole: bool = True) -> MeanAP:
        """mAP, as ``score_boxes`` has it."""
        return score_boxes(answers, _boxes_in(truth), whole)

    @classmethod
    def doubts(cls, score: Score, spec: Spec, trained: bool) -> list[str]:
        """No box in any picture, one category for all of them, and of a trained model an mAP near 0."""
        assert isinstance(score, MeanAP)
        to_check = (
            f"check colour_order ({spec.recipe.colour_order}), recipe ({spec.recipe.name}) and, in its task_options, "
            "outputs, categories and boxes; see docs/detection.md"
        )
        if not score.boxes:
            return [f"no box was found in any of {score.count} pictures: {to_check}"]
        found = (
            []
            if score.always is None or spec.classes == 1
            else [f"all {score.boxes:,} boxes are of the category {score.always:g}"]
        )
        if trained and score.value < _NEAR_NOTHING:
            found.append(f"mAP of {score.value:.2%} is next to nothing: {to_check}")
        return found

    def _suppressed(self, outputs: Mapping[str, Any], n: int, rows: int) -> Found:
        """By suppression of our own."""
        [predictions] = self._values(outputs, n, rows)
        objectness, told = self.form.kind == "objectness", self._options
        width = 4 + objectness + self._classes
        if predictions.ndim != 3 or width not in predictions.shape[1:]:
            raise ValueError(
                f"has the shape {predictions.shape}; expected (n, {width}, anchors) or (n, anchors, {width})"
            )
        thresholds = told.score_threshold, told.iou_threshold
        return self._best_boxes(np.ascontiguousarray(predictions), width, objectness, *thresholds, told.agnostic)

    def _in_rows(self, outputs: Mapping[str, Any], n: int, rows: int) -> Found:
        """From rows of corners, score and class."""
        [values] = self._values(outputs, n, rows)
        if values.ndim != 3 or values.shape[2] != 6:
            raise ValueError(f"has the shape {values.shape}; expected (n, boxes, 6)")
        return self._chosen(values[..., :4], values[..., 4], values[..., 5])

    def _apart(self, outputs: Mapping[str, Any], n: int, rows: int) -> Found:
        """From boxes, scores and labels; those of a single picture may have no axis for the batch."""
        boxes, scores, labels = self._values(outputs, n, rows)
        if not (boxes.ndim == 3 and boxes.shape[2] == 4 and boxes.shape[:2] == scores.shape == labels.shape):
            raise ValueError(
                f"have the shapes {boxes.shape}, {scores.shape} and {labels.shape}; expected (n, boxes, 4) and twice "
                "(n, boxes)"
            )
        return self._chosen(boxes, scores, labels)

    def _values(self, outputs: Mapping[str, Any], n: int, rows: int) -> list[NDArray[Any]]:
        """The first ``n`` rows of each output, floats as float32."""
        found = []
        of_one_picture = len(self.form.outputs[0].shape) == 2
        for name in (each.name for each in self.form.outputs):
            if name not in outputs:
                raise ValueError(f"the model returned no {name!r}; got {', '.join(outputs) or 'none'}")
            values = np.asarray(outputs[name])
            if of_one_picture:
                if rows != 1:
                    raise ValueError(f"has no axis for the {rows} pictures of a batch; run it with --max-batchsize 1")
                values = values[np.newaxis]
            got = values.shape[0] if values.ndim else 0
            if got != rows:
                raise ValueError(f"{name!r} returned {got} rows for a batch of {rows}")
            values = values[:n]
            found.append(values if values.dtype.kind in "iu" else values.astype(np.float32, copy=False))
        return found

    def _chosen(self, boxes: NDArray[Any], scores: NDArray[Any], labels: NDArray[Any]) -> Found:
        """Those above the threshold; rows that pad have a score of 0."""
        for values in (boxes, scores, labels):
            finite = np.isfinite(values).reshape(len(values), -1).all(axis=1)
            if not finite.all():
                raise ValueError(f"values that are not finite (NaN or inf) in row {finite.argmin()}")
        stay = scores > np.float32(self._options.score_threshold)
        named = labels[stay]
        wrong = (named < 0) | (named >= self._classes) | (named != np.rint(named))
        if wrong.any():
            raise ValueError(
                f"has a box of class {named[wrong][0]:g}; expected 0 to {self._classes - 1}: are the recipe's classes "
                "and categories right?"
            )
        return Found(stay.sum(axis=1), boxes[stay], scores[stay], named.astype(np.intp))

    def _in_picture(self, found: Found, geometries: Sequence[Geometry]) -> NDArray[np.float64]:
        """Corners as shares of the original picture, clipped to it: xmin, ymin, xmax, ymax."""
        places = [(each.width, each.height, each.scale_x, each.scale_y, each.left, each.top) for each in geometries]
        sizes, scales, offsets = np.hsplit(np.repeat(np.array(places).reshape(-1, 6), found.counts, axis=0), 3)
        corners = found.boxes.astype(np.float64).reshape(-1, 2, 2) * self._unit
        pixels = corners / scales[:, np.newaxis] + offsets[:, np.newaxis]
        inside = np.clip(pixels, 0, sizes[:, np.newaxis])
        self._count(found, corners, np.abs(pixels - inside), inside)
        shares: NDArray[np.float64] = (inside / sizes[:, np.newaxis]).reshape(-1, 4)
        return shares

    def _count(self, found: Found, corners: NDArray[Any], beyond: NDArray[Any], inside: NDArray[Any]) -> None:
        """Remember what ``notes`` tells, of one batch."""
        clipped = (beyond > _BEYOND_ROUNDING).any(axis=(1, 2))
        outside = clipped & (inside[:, 0] >= inside[:, 1]).any(axis=1)
        in_the_corner = len(corners) > 0 and bool(corners.max() < _IN_THE_CORNER)
        with self._lock:
            counted = self._counted
            counted["answered"] += len(found.counts)
            counted["empty"] += int((found.counts == 0).sum())
            counted[_CLIPPED] += int(clipped.sum())
            counted[_OUTSIDE] += int(outside.sum())
            counted[_CORNERED] += int((found.counts > 0).sum()) * in_the_corner


def _suppression() -> ModuleType:
    """The module of non-maximum suppression, whose code is compiled when it is asked for its kernel."""
    try:
        from sut.tasks.detection import nms
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("non-maximum suppression needs Numba: pip install numba", name=error.name) from error
    return nms


def _boxes_in(truth: object) -> BoxTruth:
    """A data set's truth as boxes. Raises ``ValueError`` where it is another task's."""
    if not isinstance(truth, BoxTruth):
        raise ValueError(
            "it has no boxes to score against, but another task's truth; expected a folder in COCO's layout: name one "
            "with --dataset-path (see docs/detection.md)"
        )
    return truth
