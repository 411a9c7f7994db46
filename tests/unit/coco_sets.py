"""Small data sets in COCO's layout: pictures of noise, and annotations that say what a test wants."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

LICENCES = (
    "http://creativecommons.org/licenses/by-nc-sa/2.0/",
    "http://creativecommons.org/licenses/by-nc/2.0/",
    "http://creativecommons.org/licenses/by-nc-nd/2.0/",
    "http://creativecommons.org/licenses/by/2.0/",
    "http://creativecommons.org/licenses/by-sa/2.0/",
    "http://creativecommons.org/licenses/by-nd/2.0/",
    "http://flickr.com/commons/usage/",
    "http://www.usa.gov/copyright.shtml",
)
"""COCO's, whose ids are from 1."""
SIZES = ((40, 30), (30, 50), (33, 33), (64, 48))
LIST = "annotations/instances_val2017.json"


def jpeg(width: int, height: int, seed: int = 0) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    return cv2.imencode(".jpg", pixels)[1].tobytes()


def content(licences: Sequence[int] = (4, 1, 5, 8)) -> dict[str, Any]:
    """Annotations of four pictures, their ids and names in no order, each with a box."""
    images = [
        {"id": 100 - at, "file_name": f"{9 - at}.jpg", "width": width, "height": height, "license": licence}
        for at, ((width, height), licence) in enumerate(zip(SIZES, licences, strict=True))
    ]
    boxes = [
        {"id": at + 1, "image_id": 100 - at, "category_id": 1 + 2 * (at % 2), "bbox": [1, 2, 10.5, 20], "area": 200}
        | {"iscrowd": 0, "segmentation": []}
        for at in range(len(SIZES))
    ]
    return {
        "info": {"year": 2017},
        "licenses": [{"id": number, "url": url} for number, url in enumerate(LICENCES, 1)],
        "images": images,
        "categories": [{"id": 1, "name": "person"}, {"id": 3, "name": "car"}],
        "annotations": boxes,
    }


def write_coco(
    root: Path, told: object = None, folder: str = "val2017", list_name: str = LIST, pictures: bool = True
) -> Path:
    """The data set in ``root``: ``told`` in its annotation file, or what ``content`` has."""
    path = root / list_name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content() if told is None else told))
    if pictures:
        (root / folder).mkdir(parents=True, exist_ok=True)
        for at, (width, height) in enumerate(SIZES):
            (root / folder / f"{9 - at}.jpg").write_bytes(jpeg(width, height, at))
    return root
