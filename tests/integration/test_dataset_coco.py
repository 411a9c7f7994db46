"""``sut dataset coco``: what is missing or of another size is named; MLPerf's subset is written whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sut.datasets.coco import SAFE_LIST
from sut.datasets.registry import open_dataset
from tests.children import Finished, run_python
from tests.unit.coco_sets import LIST, content, jpeg, write_coco


def coco(folder: Path, *options: str, command: str = "coco") -> Finished:
    return run_python("-m", "sut", "dataset", command, folder, *options, cwd=folder.parent)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_coco(tmp_path / "coco")


def test_the_subset_is_of_the_pictures_whose_licence_is_free(folder: Path) -> None:
    done = coco(folder)

    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines() == [
        f"{folder}: 4 pictures, 0 missing, 0 damaged",
        f"{folder / LIST}: 4 boxes in 2 categories",
        f"{folder / SAFE_LIST}: written, 3 pictures by their licence",
        "MLPerf's subset has 1,525 pictures, not 3",
    ]
    part = open_dataset("coco", folder, folder / SAFE_LIST, None)
    assert part.files == ("val2017/9.jpg", "val2017/7.jpg", "val2017/6.jpg")
    assert part.truth.image_ids == (100, 98, 97)
    assert [each.id for each in part.truth.boxes] == [1, 3, 4]
    kept = json.loads((folder / SAFE_LIST).read_text())
    assert [kept[key] for key in ("info", "licenses", "categories")] == [
        content()[key] for key in ("info", "licenses", "categories")
    ]

    again = coco(folder, "--json")
    [row] = json.loads(again.out)["rows"]
    assert (row["subset_state"], row["subset_pictures"], row["pictures"]) == ("already right", 3, 4)
    of_it = coco(folder, "--list", str(folder / SAFE_LIST))
    assert (of_it.code, of_it.out.splitlines()[-1]) == (0, "MLPerf's subset has 1,525 pictures, not 3")


def test_pictures_that_are_missing_or_of_another_size_are_named(folder: Path) -> None:
    (folder / "val2017/9.jpg").unlink()
    (folder / "val2017/7.jpg").write_bytes(jpeg(32, 33))

    done = coco(folder)

    assert done.code == 1
    assert (
        f"{folder}: 1 of 4 pictures are missing: val2017/9.jpg; 1 of 4 pictures are damaged: val2017/7.jpg" in done.err
    )
    assert done.err.count("\n") == 1
    assert "missing: val2017/9.jpg\ndamaged: val2017/7.jpg: is 32 x 33, annotated as 33 x 33\n" in done.out
    assert not (folder / SAFE_LIST).exists()


def test_the_subset_alone_may_be_there(folder: Path) -> None:
    (folder / "val2017/8.jpg").unlink()

    done = coco(folder)

    assert (done.code, done.err) == (0, "")
    assert "missing: val2017/8.jpg" in done.out
    assert open_dataset("coco", folder, folder / SAFE_LIST, None).count == 3


def test_another_subset_is_left_alone(folder: Path) -> None:
    (folder / SAFE_LIST).write_text("{}")

    refused = coco(folder)
    assert (refused.code, (folder / SAFE_LIST).read_text()) == (1, "{}")
    assert f"{folder / SAFE_LIST} is there and differs" in refused.err
    assert len(refused.err) < 600
    assert coco(folder, "--no-write").code == 0
    assert (coco(folder, "--overwrite").code, len((folder / SAFE_LIST).read_text()) > 100) == (0, True)


def test_sums_of_annotated_pictures(folder: Path) -> None:
    done = coco(folder, "--list", str(folder / LIST), command="sums")

    assert (done.code, done.err) == (0, "")
    sums = open_dataset("coco", folder, None, None).sums
    assert sums is not None
    assert set(sums.by_name) == {f"val2017/{number}.jpg" for number in (9, 8, 7, 6)}
