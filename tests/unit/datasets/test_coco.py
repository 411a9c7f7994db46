"""Data sets in COCO's layout: the order is that of ``images``; what is wrong is one line before anything runs."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sut.datasets.registry import open_dataset
from sut.errors import InputError
from sut.models.registry import MODELS
from sut.tasks.classification import Classification
from sut.tasks.detection.truth import BoxTruth, TrueBox
from tests.unit.coco_sets import LIST, SIZES, content, jpeg, write_coco


def truth_of(root: Path, name: str = "coco", count: int | None = None, list_file: Path | None = None) -> BoxTruth:
    truth = open_dataset(name, root, list_file, count).truth
    assert isinstance(truth, BoxTruth)
    return truth


def test_the_order_is_that_of_the_images(tmp_path: Path) -> None:
    dataset = open_dataset("coco", write_coco(tmp_path), None, None)

    assert dataset.files == ("val2017/9.jpg", "val2017/8.jpg", "val2017/7.jpg", "val2017/6.jpg")
    assert dataset.read(1) == jpeg(*SIZES[1], 1)
    assert dataset.sizes == SIZES
    assert dataset.whole
    truth = dataset.truth
    assert (truth.image_ids, truth.sizes, truth.categories) == ((100, 99, 98, 97), SIZES, (1, 3))
    assert truth.annotations == tmp_path / LIST
    assert truth.boxes[1] == TrueBox(2, 99, 3, (1.0, 2.0, 10.5, 20.0), 200.0, 0)
    assert not dataset.is_imagenet()


def test_count_cuts_pictures_and_truth_alike(tmp_path: Path) -> None:
    write_coco(tmp_path)
    (tmp_path / "val2017/6.jpg").unlink()

    truth = truth_of(tmp_path, count=2)

    assert (truth.image_ids, truth.sizes, len(truth.boxes)) == ((100, 99), SIZES[:2], 2)
    assert truth.categories == (1, 3)
    assert [open_dataset("coco", tmp_path, None, count).whole for count in (2, 3)] == [False, False]
    with pytest.raises(InputError, match=r"count is 5, but .* has 4 entries"):
        truth_of(tmp_path, count=5)


def test_a_crowd_is_one_and_has_its_own_area(tmp_path: Path) -> None:
    told = content()
    told["annotations"][2] |= {"iscrowd": 1, "area": 17.5}

    truth = truth_of(write_coco(tmp_path, told))

    assert [(each.iscrowd, each.area) for each in truth.boxes] == [(0, 200), (0, 200), (1, 17.5), (0, 200)]


@pytest.mark.parametrize(
    ("name", "folder", "list_name"),
    [
        ("coco", "val2017_safe", LIST),
        ("coco", "val2017", "annotations/instances_val2017_safe.json"),
        ("coco", ".", LIST),
        ("openimages", "validation/data", "annotations/openimages-mlperf.json"),
        ("openimages", ".", "annotations/openimages-mlperf.json"),
    ],
)
def test_layouts_of_the_reference_are_known(tmp_path: Path, name: str, folder: str, list_name: str) -> None:
    dataset = open_dataset(name, write_coco(tmp_path, None, folder, list_name), None, None)

    assert dataset.read(2) == jpeg(*SIZES[2], 2)


def test_a_classifier_is_not_scored_against_boxes(tmp_path: Path) -> None:
    dataset = open_dataset("coco", write_coco(tmp_path), None, None)

    with pytest.raises(ValueError, match=r"it has no labels to score against, .* expected a label for each picture"):
        Classification.check_truth(MODELS["resnet50"], dataset.truth, dataset.files)


def test_another_list_and_the_task_s_layout(tmp_path: Path) -> None:
    write_coco(tmp_path, None, list_name="mine.json")

    assert open_dataset(None, tmp_path, tmp_path / "mine.json", None, layout="coco").name == "coco"
    assert open_dataset("coco", tmp_path, tmp_path / "mine.json", None, pictures=False).count == 4


def test_missing_pictures_are_named_and_stop_all(tmp_path: Path) -> None:
    write_coco(tmp_path)
    (tmp_path / "val2017/8.jpg").unlink()
    (tmp_path / "val2017/7.jpg").write_bytes(b"")

    with pytest.raises(InputError) as caught:
        truth_of(tmp_path)

    assert "2 of 4 files of " in str(caught.value)
    assert "'val2017/8.jpg' (images[1]: missing), 'val2017/7.jpg' (images[2]: empty)" in str(caught.value)


Change = Callable[[dict[str, Any]], object]


def put(key: str, at: int, field: str, value: object) -> Change:
    return lambda told: told[key][at].__setitem__(field, value)


def leave_out(key: str, at: int, field: str) -> Change:
    return lambda told: told[key][at].pop(field)


@pytest.mark.parametrize(
    ("change", "fragment"),
    [
        (put("images", 1, "file_name", "../8.jpg"), "images[1] has file_name '../8.jpg': no file below the data set's"),
        (put("images", 1, "file_name", "/etc/passwd"), "no file below"),
        (put("images", 1, "file_name", "a\0"), "no file below"),
        (put("images", 1, "file_name", "\ud800"), "no file below"),
        (put("images", 1, "file_name", 7), "images[1] has file_name 7; expected a text"),
        (put("images", 1, "file_name", "./9.jpg"), "images[1] has the file_name '9.jpg' of images[0]; keep one"),
        (put("images", 1, "id", 100), "images[1] has the id 100 of images[0]"),
        (put("images", 1, "id", True), "images[1] has id True; expected an integer from 0"),
        (put("images", 1, "id", 10**30), "has id 1000000"),
        (put("images", 1, "id", "99"), "images[1] has id '99'"),
        (leave_out("images", 1, "id"), "images[1] has id missing"),
        (put("images", 3, "width", 0), "images[3] has width 0; expected pixels, from 1"),
        (put("images", 3, "height", 48.5), "images[3] has height 48.5"),
        (put("annotations", 2, "image_id", 5), "annotations[2] has image_id 5, which is not among the file's"),
        (put("annotations", 2, "category_id", 2), "annotations[2] has category_id 2, which is not among the file's"),
        (put("annotations", 2, "id", 0), "annotations[2] has id 0; expected an integer from 1"),
        (put("annotations", 2, "id", 1), "annotations[2] has the id 1 of annotations[0]"),
        (put("annotations", 2, "bbox", [1, 2, float("nan"), 4]), "annotations[2] has bbox [1, 2, nan, 4]; expected"),
        (put("annotations", 2, "bbox", [1, 2, 3, -4]), "annotations[2] has bbox [1, 2, 3, -4]; expected left, top"),
        (put("annotations", 2, "bbox", [1, 2, 3]), "has bbox [1, 2, 3]"),
        (put("annotations", 2, "bbox", [10**400, 2, 3, 4]), "has bbox [1000"),
        (leave_out("annotations", 2, "bbox"), "annotations[2] has bbox missing"),
        (put("annotations", 2, "area", None), "annotations[2] has area missing; expected that of the object"),
        (put("annotations", 2, "iscrowd", "0"), "annotations[2] has iscrowd '0'; expected 0, or 1 for a crowd"),
        (put("categories", 0, "id", 3), "categories[1] has the id 3 of categories[0]"),
        (lambda told: told.pop("annotations"), "annotations is missing; expected a list of objects"),
        (lambda told: told.update(images={}), "images is {}; expected a list of objects"),
        (lambda told: told.update(images=[], annotations=[]), "has no images; expected an annotation file"),
        (lambda told: told.update(images=[[[[[[[]] * 500]]]]]), "images[0] is [[[[[[], [], "),
        (lambda told: told.update(categories=[], annotations=[]), "has no categories"),
    ],
)
def test_annotations_that_are_refused(tmp_path: Path, change: Change, fragment: str) -> None:
    told = content()
    change(told)
    write_coco(tmp_path, told)

    with pytest.raises(InputError) as caught:
        truth_of(tmp_path)

    assert fragment in str(caught.value)
    assert str(tmp_path / LIST) in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    assert len(str(caught.value)) < 400 + len(str(tmp_path))


@pytest.mark.parametrize(
    ("raw", "fragment"),
    [
        (b"", "is cut off or not JSON"),
        (json.dumps(content()).encode()[:-5], "is cut off or not JSON"),
        (b"\xff\xfe{", "is cut off or not JSON"),
        (b"[" * 100_000, "is cut off or not JSON"),
        (b'{"images": %s}' % (b"9" * 5000), "is cut off or not JSON"),
        (b"[]", "holds a JSON list; expected an object with images"),
    ],
)
def test_files_that_are_no_annotations(tmp_path: Path, raw: bytes, fragment: str) -> None:
    write_coco(tmp_path, pictures=False)
    (tmp_path / LIST).write_bytes(raw)

    with pytest.raises(InputError) as caught:
        truth_of(tmp_path)

    assert fragment in str(caught.value)
    assert len(str(caught.value)) < 400 + len(str(tmp_path))


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"there is no annotation file .*or name another with --dataset-list"):
        truth_of(tmp_path)
    (tmp_path / "annotations").mkdir()
    os.mkfifo(tmp_path / LIST)
    with pytest.raises(InputError, match="Is a named pipe, not a file"):
        truth_of(tmp_path)
    with pytest.raises(InputError, match="data set coco has no path"):
        open_dataset("coco", None, None, None)
