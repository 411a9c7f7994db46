"""Annotation files in COCO's form: pictures in their order, categories, boxes. Read as from a stranger."""

from __future__ import annotations

import json
import math
import os
import posixpath
import reprlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeGuard

from plugins.files import LARGE_BYTES, read_file
from sut.errors import InputError, reason_of
from sut.tasks.detection.truth import BoxTruth, TrueBox
from sut.text import printable, shortened

_MOST_PIXELS = 2**24
"""A side of a picture that a float32 still holds, in which boxes are scored."""
_MOST_ID = 2**53

Object = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Annotations:
    """What a file says: the names of its pictures in their order, the truth, and the whole of it as it was parsed."""

    names: tuple[str, ...]
    truth: BoxTruth
    content: Object

    def first(self, count: int) -> Annotations:
        """The same of the first ``count`` pictures only."""
        ids = self.truth.image_ids[:count]
        kept = set(ids)
        boxes = tuple(each for each in self.truth.boxes if each.image_id in kept)
        return replace(
            self,
            names=self.names[:count],
            truth=replace(self.truth, image_ids=ids, sizes=self.truth.sizes[:count], boxes=boxes),
        )


def read_annotations(path: Path, option: str = "--dataset-list") -> Annotations:
    """Read an annotation file; another is named with ``option``.

    Of its ``images`` are taken ``id``, ``file_name``, ``width`` and ``height``; of ``categories`` the ``id``; of
    ``annotations`` ``id``, ``image_id``, ``category_id``, ``bbox``, ``area`` and ``iscrowd``.

    Raises ``InputError``, which names the entry and the field, for what is missing, of another type or out of bounds,
    for ids and names that are there twice, and for boxes of pictures or categories that are not there.
    """
    content = _content(path, option)
    images, categories, boxes = (_objects(content, key, path) for key in ("images", "categories", "annotations"))
    known = tuple(_unique(((where, _id(each, "id", where)) for where, each in categories), "id"))
    ids = tuple(_unique(((where, _id(each, "id", where)) for where, each in images), "id"))
    names = tuple(_unique(((where, _name(each, where)) for where, each in images), "file_name"))
    for what, found in (("images", ids), ("categories", known)):
        if not found:
            raise InputError(f"{path} has no {what}; expected an annotation file in COCO's form")
    sizes = tuple((_side(each, "width", where), _side(each, "height", where)) for where, each in images)
    true = tuple(_boxes(boxes, set(ids), set(known)))
    return Annotations(names, BoxTruth(path, ids, sizes, known, true), content)


def _content(path: Path, option: str) -> Object:
    try:
        content = json.loads(read_file(path, LARGE_BYTES))
    except FileNotFoundError:
        raise InputError(
            f"there is no annotation file {path}; expected one in COCO's form (JSON), or name another with {option}"
        ) from None
    except OSError as error:
        raise InputError(f"cannot read the annotation file {path}: {reason_of(error)}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"the annotation file {path} is cut off or not JSON: {reason_of(error)}") from None
    if not isinstance(content, dict):
        raise InputError(
            f"{path} holds a JSON {type(content).__name__}; expected an object with images, annotations and categories"
        )
    return content


def _objects(content: Object, key: str, path: Path) -> list[tuple[str, Object]]:
    """The entries of one of its lists, each with the words for where it is."""
    found = content.get(key)
    if not isinstance(found, list):
        raise InputError(f"{path}: {key} is {_shown(found)}; expected a list of objects, as in COCO's form")
    entries = [(f"{path}: {key}[{at}]", each) for at, each in enumerate(found)]
    for where, each in entries:
        if not isinstance(each, dict):
            raise InputError(f"{where} is {_shown(each)}; expected an object")
    return entries


def _unique(found: Iterable[tuple[str, Any]], key: str) -> Iterator[Any]:
    seen: dict[Any, str] = {}
    for where, value in found:
        if seen.setdefault(value, where) != where:
            raise InputError(f"{where} has the {key} {_shown(value)} of {seen[value].rpartition(' ')[2]}; keep one")
        yield value


def _id(entry: Object, key: str, where: str, least: int = 0) -> int:
    value = entry.get(key)
    if type(value) is not int or not least <= value <= _MOST_ID:
        raise InputError(f"{where} has {key} {_shown(value)}; expected an integer from {least} to {_MOST_ID}")
    return value


def _side(entry: Object, key: str, where: str) -> int:
    value = entry.get(key)
    if type(value) is not int or not 0 < value <= _MOST_PIXELS:
        raise InputError(f"{where} has {key} {_shown(value)}; expected pixels, from 1 to {_MOST_PIXELS}")
    return value


def _name(entry: Object, where: str) -> str:
    listed = entry.get("file_name")
    if not isinstance(listed, str):
        raise InputError(f"{where} has file_name {_shown(listed)}; expected a text")
    name = posixpath.normpath(listed)
    try:
        os.fsencode(name)
    except UnicodeEncodeError:
        name = ".."
    if name.startswith(("/", "../")) or name in ("..", ".") or "\0" in name:
        raise InputError(f"{where} has file_name {_shown(listed)}: no file below the data set's folder")
    return name


def _boxes(entries: list[tuple[str, Object]], images: set[int], categories: set[int]) -> Iterator[TrueBox]:
    # pycocotools takes a match with the box of id 0 for none.
    ids = _unique(((where, _id(each, "id", where, least=1)) for where, each in entries), "id")
    for number, (where, entry) in zip(ids, entries, strict=True):
        image, category = _id(entry, "image_id", where), _id(entry, "category_id", where)
        for key, value, known in (("image_id", image, images), ("category_id", category, categories)):
            if value not in known:
                raise InputError(f"{where} has {key} {value}, which is not among the file's; was something left out?")
        bbox, area, crowd = (entry.get(key) for key in ("bbox", "area", "iscrowd"))
        if not (isinstance(bbox, list) and len(bbox) == 4 and all(map(_is_finite, bbox)) and min(bbox[2:]) >= 0):
            raise InputError(f"{where} has bbox {_shown(bbox)}; expected left, top, width and height in pixels")
        if not _is_finite(area) or area < 0:
            raise InputError(f"{where} has area {_shown(area)}; expected that of the object in pixels")
        if type(crowd) is not int or not -1 <= crowd <= 1:
            raise InputError(f"{where} has iscrowd {_shown(crowd)}; expected 0, or 1 for a crowd")
        left, top, width, height = map(float, bbox)
        yield TrueBox(number, image, category, (left, top, width, height), float(area), crowd)


def _is_finite(value: object) -> TypeGuard[float]:
    try:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:  # an integer beyond what a float can be
        return False


def _shown(value: object) -> str:
    """A value as JSON has it, as long as a line has room for it."""
    return "missing" if value is None else printable(shortened(reprlib.repr(value)))
