"""What boxes are scored against: an annotation file's boxes of the samples."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple


class TrueBox(NamedTuple):
    """A box as the file has it, by COCO's names: ``bbox`` is left, top, width and height in pixels."""

    id: int
    image_id: int
    category_id: int
    bbox: tuple[float, float, float, float]
    area: float
    iscrowd: int


@dataclass(frozen=True, slots=True)
class BoxTruth:
    """What an annotation file says of the samples, in their order: ``image_ids`` and ``sizes`` (width, height).

    ``categories`` are the ids of all that the file knows. ``boxes`` are those of the samples, in the file's order;
    some datasets' reach over the edge of their picture, and are kept as they are: so does the official score.
    """

    annotations: Path
    image_ids: tuple[int, ...]
    sizes: tuple[tuple[int, int], ...]
    categories: tuple[int, ...]
    boxes: tuple[TrueBox, ...]

    @property
    def outside(self) -> int:
        """How many boxes reach more than a pixel over the edge of their picture."""
        sizes = dict(zip(self.image_ids, self.sizes, strict=True))
        return sum(_is_outside(each.bbox, *sizes[each.image_id]) for each in self.boxes)


def _is_outside(bbox: tuple[float, float, float, float], width: int, height: int) -> bool:
    left, top, wide, high = bbox
    return left < -1 or top < -1 or left + wide > width + 1 or top + high > height + 1
