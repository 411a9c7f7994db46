"""How alike two detectors' boxes are: of the same picture asked twice, and of a reduced precision beside FP32."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from sut.tasks.agreement import Agreement, Tally
from sut.tasks.detection.answers import ANSWER_WIDTH, VALUE
from sut.tasks.detection.coco_map import check_pycocotools, score_boxes
from sut.tasks.detection.truth import BoxTruth, TrueBox
from sut.tasks.likeness import Look
from sut.text import share_in_percent

SHOWN = 0.25
"""The score from which a box is usually shown; suppression decides among those below by a hair."""
NEARLY = 0.1
"""A box may score as much less, or more, and be the same. Over ``SHOWN`` by less than this, it may be gone."""
SAME_PLACE = 0.5
"""Overlap from which two boxes are one: where suppression had the choice between neighbours, it takes either."""
_SIDE = 1000
"""Pixels of a side of every picture, as boxes are compared: overlaps do not depend on it."""
_THIN = 1 / _SIDE
"""Shares of a picture's side. What is left at its edge of a box that lay outside has no overlap to go by, not even with
itself where it has no area."""

Boxes = NDArray[np.float32]
"""(n, 7): sample's index, ymin, xmin, ymax, xmax as shares of the picture, score, category."""


def boxes_of(answer: bytes) -> Boxes:
    """What ``Detection.decode`` answers."""
    return np.frombuffer(answer, VALUE).reshape(-1, ANSWER_WIDTH)


@dataclass(frozen=True, slots=True)
class BoxLook(Look):
    """The boxes found in one picture."""

    boxes: Boxes

    answers: ClassVar[str] = "pictures' boxes"
    values: ClassVar[str] = "scores"

    def other_than(self, other: Self) -> str | None:
        """Whether a box of one that is worth showing has no partner in the other: of its category, at its place."""
        for mine, theirs, words in ((self, other, "is gone"), (other, self, "is new")):
            for box, best in mine._partners(theirs):
                if best is None or abs(box[5] - best[5]) > NEARLY:
                    rescored = "" if best is None else f": one there scores {best[5]:.2f}"
                    return f"a box of category {box[6]:g} that scores {box[5]:.2f} {words}{rescored}"
        return None

    def near_tie(self, other: Self) -> bool:
        """Whether all boxes without a partner score little more than what is worth showing."""
        lost = [
            box[5]
            for mine, theirs in ((self, other), (other, self))
            for box, best in mine._partners(theirs)
            if best is None or abs(box[5] - best[5]) > NEARLY
        ]
        return all(score < SHOWN + NEARLY for score in lost)

    def apart(self, other: Self) -> float:
        """The largest difference of two partners' scores, which reach from 0 to 1."""
        return max((abs(float(box[5] - best[5])) for box, best in self._partners(other) if best is not None), default=0)

    @property
    def gist(self) -> str | None:
        """That there is nothing to show."""
        return None if len(_shown(self.boxes)) else f"got no box that scores {SHOWN} or more"

    def _partners(self, other: Self) -> list[tuple[NDArray[np.float32], NDArray[np.float32] | None]]:
        """Each box that is worth showing, and of the other's boxes of its category the one that overlaps it most."""
        found: list[tuple[NDArray[np.float32], NDArray[np.float32] | None]] = []
        for box in _shown(self.boxes):
            candidates = other.boxes[other.boxes[:, 6] == box[6]]
            shares = overlaps(box, candidates)
            at = int(shares.argmax()) if len(shares) else 0
            found.append((box, candidates[at] if len(shares) and shares[at] > SAME_PLACE else None))
        return found


@dataclass(frozen=True, slots=True)
class BoxAgreement(Agreement):
    """mAP of a reduced model's boxes, with those that FP32 would show as the truth.

    There is no interval: mAP is no share of anything that could be drawn again.
    """

    kind = "boxes"

    boxes: int = 0
    """FP32's that score ``SHOWN`` or more. Where there are none, the value is 1 if the other model shows none either,
    else 0."""

    @property
    def words(self) -> str:
        """The verdict in words."""
        if not self.boxes:
            also = "and neither does it" if self.value else "and it does"
            return f"fp32 shows no box (none scores {SHOWN} or more) on {self.source}, {also}"
        return (
            f"mAP {share_in_percent(self.value)} % against the {self.boxes:,} boxes that fp32 shows (score {SHOWN} or "
            f"more) on {self.source}; no interval"
        )


@dataclass(slots=True)
class BoxTally(Tally):
    """Takes FP32's boxes for the truth and scores the others as COCO's are."""

    result = BoxAgreement
    whole = True
    default = 50  # pictures: half a minute for a model that takes 350 ms in FP32

    _reference: list[bytes] = field(default_factory=list)
    _reduced: list[bytes] = field(default_factory=list)

    @classmethod
    def check(cls) -> None:
        """Raise ``ModuleNotFoundError`` without pycocotools."""
        check_pycocotools()

    def add(self, reference: NDArray[Any], reduced: NDArray[Any]) -> None:
        """Keep answers to the same pictures: ``bytes`` each, as ``Detection.decode`` has them."""
        self._reference += reference.tolist()
        self._reduced += reduced.tolist()

    def agreement(self, source: str) -> BoxAgreement:
        """What was found on ``source``."""
        count = len(self._reference)
        answers = {number: _numbered(answer, number) for number, answer in enumerate(self._reduced)}
        others = {category for answer in self._reduced for category in boxes_of(answer)[:, 6].astype(int).tolist()}
        truth = _as_truth(self._reference, others)
        if truth.boxes:
            value = score_boxes(answers, truth).value
        else:
            value = float(all(BoxLook(boxes_of(answer)).gist is not None for answer in self._reduced))
        return BoxAgreement(value, None, None, count, source, boxes=len(truth.boxes))


def _as_truth(answers: list[bytes], others: set[int]) -> BoxTruth:
    """The boxes that are worth showing, as if an annotation file had them; categories of ``others`` are known, too."""
    boxes: list[TrueBox] = []
    for number, answer in enumerate(answers):
        for _, *corners, _score, category in _shown(boxes_of(answer)).tolist():
            top, left, bottom, right = (_SIDE * corner for corner in corners)
            place = (left, top, right - left, bottom - top)
            boxes.append(TrueBox(len(boxes) + 1, number, int(category), place, place[2] * place[3], 0))
    categories = {box.category_id for box in boxes} | others
    ids = tuple(range(len(answers)))
    sizes = ((_SIDE, _SIDE),) * len(answers)
    return BoxTruth(Path("the boxes of fp32"), ids, sizes, tuple(sorted(categories)), tuple(boxes))


def _numbered(answer: bytes, number: int) -> bytes:
    """The same boxes, but for thin ones, as those of another sample: each batch was asked for as if the first."""
    boxes = _broad(boxes_of(answer)).copy()
    boxes[:, 0] = number
    return boxes.tobytes()


def _shown(boxes: Boxes) -> Boxes:
    """Those that are worth showing."""
    return _broad(boxes[boxes[:, 5] >= SHOWN])


def _broad(boxes: Boxes) -> Boxes:
    """Those that are not thin."""
    return boxes[(boxes[:, 3:5] - boxes[:, 1:3] > _THIN).all(axis=1)]


def overlaps(box: NDArray[np.float32], others: Boxes) -> NDArray[np.float64]:
    """Intersection over union of a box with each of others; 0 where both are without area."""
    one, rest = box[1:5].astype(np.float64), others[:, 1:5].astype(np.float64)
    common = np.clip(np.minimum(one[2:], rest[:, 2:]) - np.maximum(one[:2], rest[:, :2]), 0, None).prod(axis=1)
    whole = (one[2:] - one[:2]).prod() + (rest[:, 2:] - rest[:, :2]).prod(axis=1) - common
    shares: NDArray[np.float64] = np.divide(common, whole, out=np.zeros_like(common), where=whole > 0)
    return shares
