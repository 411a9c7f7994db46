"""From the index of a class to the category that the annotations know."""

from __future__ import annotations

from typing import Literal

Categories = Literal["auto", "coco80", "index", "index1"]

_LEFT_OUT = {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}
COCO80 = tuple(each for each in range(1, 91) if each not in _LEFT_OUT)
"""The ids of COCO's 80 categories, in the order of the classes of models that were trained on them. COCO has numbered
91 kinds of things, and annotated all but eleven."""


def categories_of(how: Categories, classes: int) -> tuple[int, ...]:
    """The category of each class: ``coco80`` its id of COCO's, ``index`` the class's index, ``index1`` one more.

    ``auto`` takes 80 classes for COCO's, and others for the index. Raises ``ValueError`` for COCO's with other than 80.
    """
    if how == "coco80" and classes != len(COCO80):
        raise ValueError(f"task_options categories is coco80, for {len(COCO80)} classes; the model has {classes}")
    if how in ("auto", "coco80") and classes == len(COCO80):
        return COCO80
    first = int(how == "index1")
    return tuple(range(first, first + classes))
