"""mAP of boxes, as MLPerf's script (``tools/accuracy-coco.py`` and its twin for OpenImages) has it from pycocotools.

COCO's primary figure: average precision over ten overlaps (0.50 to 0.95), all sizes, a hundred boxes of a category in a
picture at the most, averaged over the categories of which some picture has a box. Pictures without an answer do not
count; pictures that were answered with no box do.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass
from importlib.util import find_spec
from io import StringIO
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sut.tasks.base import Score
from sut.tasks.detection.answers import rows_of
from sut.tasks.detection.truth import BoxTruth
from sut.tasks.top1 import sample_indices


@dataclass(frozen=True, slots=True)
class MeanAP(Score):
    """mAP over ``count`` pictures, from as many ``boxes``; ``empty`` of the pictures were answered with none.

    ``outside`` are boxes that reach over the edge of their picture. They count as they are, as in MLPerf's script.
    """

    boxes: int
    empty: int
    outside: int
    always: float | None = None
    """The category that every one of several boxes has; None where they differ."""


def check_pycocotools() -> None:
    """Raise ``ModuleNotFoundError`` where what mAP is computed with is not installed."""
    if find_spec("pycocotools") is None:
        raise ModuleNotFoundError(
            "mAP is computed with pycocotools, which is not installed; run: pip install pycocotools",
            name="pycocotools",
        )


def score_boxes(answers: Mapping[int, bytes], truth: BoxTruth, whole: bool = True) -> MeanAP:
    """mAP of answers by sample index, each n x 7 float32, little endian, or empty where no box was found.

    Bit for bit what MLPerf's script computes with NumPy 2, where it computes at all: it multiplies by the picture's
    size in float32, and gives up on a log without any box.

    Raises ``ModuleNotFoundError`` without pycocotools, and ``ValueError`` for a sample outside the data set, one
    without an answer unless not the ``whole`` was asked, for what is no such answer, and where the truth has no box.
    """
    check_pycocotools()
    samples = sample_indices(answers, len(truth.image_ids), whole)
    if not len(samples):
        raise ValueError("there is no answer to score")
    rows, of = rows_of(answers)
    _check_categories(rows, of, truth)
    found = np.array(truth.image_ids)[of]
    boxes = _in_pixels(rows, np.array(truth.sizes, np.float32)[of])
    evaluated = {truth.image_ids[sample] for sample in samples.tolist()}
    value = _evaluate(truth, evaluated, list(_as_annotations(found, rows, boxes)))
    corners, categories = rows[:, 1:5], rows[:, 6]
    one_category = len(rows) > 1 and (categories == categories[0]).all()
    return MeanAP(
        name="mAP",
        value=value,
        text=f"mAP={100.0 * value:.3f}%",
        count=len(samples),
        boxes=len(rows),
        empty=sum(not answer for answer in answers.values()),
        outside=int(((corners < 0) | (corners > 1)).any(axis=1).sum()),
        always=float(categories[0]) if one_category else None,
    )


def _check_categories(rows: NDArray[np.float32], of: NDArray[np.intp], truth: BoxTruth) -> None:
    """Raise ``ValueError`` for a category that the data set does not have."""
    known = np.isin(rows[:, 6], truth.categories)
    if not known.all():
        at = int(known.argmin())
        raise ValueError(
            f"a box of sample {of[at]} has the category {rows[at, 6]:g}, which {truth.annotations} does not have: it "
            f"has {len(truth.categories)}, from {min(truth.categories)} to {max(truth.categories)}; are the model's "
            "categories another list?"
        )


def _in_pixels(rows: NDArray[np.float32], sizes: NDArray[np.float32]) -> NDArray[np.float32]:
    """Left, top, width and height in float32, step by step as MLPerf's script computes them."""
    top, left, bottom, right = rows[:, 1:5].T * sizes[:, [1, 0, 1, 0]].T
    return np.stack([left, top, right - left, bottom - top], axis=1)


def _as_annotations(
    images: NDArray[np.int64], rows: NDArray[np.float32], boxes: NDArray[np.float32]
) -> Iterator[dict[str, Any]]:
    """Boxes as pycocotools' ``loadRes`` leaves them, numbered from 1."""
    columns = (images.tolist(), rows[:, 6].astype(int).tolist(), boxes.tolist(), rows[:, 5].tolist())
    for number, (image, category, box, score) in enumerate(zip(*columns, strict=True), 1):
        yield {
            "id": number,
            "image_id": image,
            "category_id": category,
            "bbox": box,
            "area": box[2] * box[3],
            "iscrowd": 0,
            "score": score,
        }


def _evaluate(truth: BoxTruth, images: set[int], found: list[dict[str, Any]]) -> float:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    def indexed(boxes: list[dict[str, Any]]) -> Any:
        coco = COCO()
        coco.dataset = {
            "images": [{"id": each} for each in truth.image_ids],
            "categories": [{"id": each} for each in truth.categories],
            "annotations": boxes,
        }
        coco.createIndex()
        return coco

    with redirect_stdout(StringIO()):  # it says what it does, at length
        evaluation = COCOeval(
            indexed([{**each._asdict(), "bbox": list(each.bbox)} for each in truth.boxes]),
            indexed(found),
            iouType="bbox",
        )
        settings = evaluation.params
        settings.imgIds = list(images)
        # The other ranges, of small, medium and large boxes, are for other figures: three quarters of the time.
        settings.areaRng, settings.areaRngLbl = settings.areaRng[:1], settings.areaRngLbl[:1]
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    value = float(evaluation.stats[0])
    if value < 0:
        raise ValueError(
            f"{truth.annotations} has no box, but for crowds, in any of the {len(images)} pictures: nothing to score "
            "against"
        )
    return value
