"""What a result says of its data is what was read: damaged, changed, equal, dark and boundless pictures are found."""

from __future__ import annotations

import os
import shutil
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from sut.datasets.demo import PHOTOS
from sut.datasets.imagenet import list_text, picture_names, validation_labels
from tests.children import CHECKOUT, run_python
from tests.integration.support import PICTURES, Sut

QUICK = ("--backend", "plain", "--time", "0.3", "--scenario", "Offline")


def damage(file: Path) -> None:
    """Four hundred bytes of nothing in the middle: what decodes without a warning, to other pixels."""
    data = file.read_bytes()
    middle = len(data) // 2
    file.write_bytes(data[:middle] + bytes(400) + data[middle + 400 :])


def test_a_damaged_demo_photo_is_an_error_by_name(sut: Sut, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    for package in ("sut", "backends", "preprocess", "kernels", "plugins"):
        shutil.copytree(CHECKOUT / package, copy / package, ignore=shutil.ignore_patterns("__pycache__"))
    photo = copy / PHOTOS.relative_to(CHECKOUT) / "suspension_bridge.jpg"
    damage(photo)

    done = sut.run(*QUICK, PYTHONPATH=os.pathsep.join([str(copy), str(sut.packages)]))

    assert done.code == 1
    assert f"{photo} was changed: got 59224 bytes with CRC-32 " in done.error
    assert done.result["samples"] == 0


def test_a_picture_that_changed_since_its_sum_was_taken_is_an_error_by_name(sut: Sut) -> None:
    folder = sut.pictures()
    changed = folder / f"white picture {PICTURES - 1}.jpg"
    taken = run_python("-m", "sut", "dataset", "sums", folder, cwd=sut.cwd)
    assert (taken.code, taken.out) == (0, f"{folder}/val_map.txt.sums: written, {PICTURES} pictures\n")
    assert sut.run(*QUICK, "--dataset-path", folder).code in (0, 4)
    damage(changed)

    done = sut.run(*QUICK, "--dataset-path", folder)

    assert done.code == 1
    assert f"{changed} was changed: got {changed.stat().st_size} bytes" in done.error


def test_an_accuracy_run_checks_sums_while_it_goes_on(sut: Sut) -> None:
    folder = sut.pictures()
    assert run_python("-m", "sut", "dataset", "sums", folder, cwd=sut.cwd).code == 0
    damage(folder / f"white picture {PICTURES - 1}.jpg")

    done = sut.run(*QUICK, "--dataset-path", folder, "--accuracy")

    assert done.code == 1
    assert f"white picture {PICTURES - 1}.jpg was changed" in done.error
    assert done.result["accuracy"] is None


def test_sums_of_another_list_are_refused(sut: Sut) -> None:
    folder = sut.pictures()
    assert run_python("-m", "sut", "dataset", "sums", folder, cwd=sut.cwd).code == 0
    (folder / "new.jpg").write_bytes((folder / "grey picture 0.jpg").read_bytes())
    with (folder / "val_map.txt").open("a") as listed:
        listed.write("new.jpg 5\n")

    done = sut.run(*QUICK, "--dataset-path", folder)

    assert done.code == 1
    assert "val_map.txt.sums does not fit its list" in done.error
    assert "no sums of 1 of its pictures, such as 'new.jpg'" in done.error
    again = run_python("-m", "sut", "dataset", "sums", folder, cwd=sut.cwd)
    assert again.code == 1
    assert "val_map.txt.sums is there and differs in 1 lines, such as '" in again.err
    assert "new.jpg'; --overwrite replaces it" in again.err
    assert run_python("-m", "sut", "dataset", "sums", folder, "--overwrite", cwd=sut.cwd).code == 0
    assert sut.run(*QUICK, "--dataset-path", folder).code in (0, 4)


@pytest.mark.slow
def test_a_name_may_be_any_bytes(sut: Sut) -> None:
    folder = sut.pictures()
    odd = os.fsdecode(b"caf\xe9.jpg")
    (folder / odd).write_bytes((folder / "grey picture 0.jpg").read_bytes())
    with (folder / "val_map.txt").open("ab") as listed:
        listed.write(b"caf\xe9.jpg 5\n")

    written, again = (run_python("-m", "sut", "dataset", "sums", folder, cwd=sut.cwd) for _ in range(2))

    assert (written.code, written.err, again.code) == (0, "", 0)
    assert "already right" in again.out
    assert sut.run(*QUICK, "--dataset-path", folder).errors == []
    damage(folder / odd)
    assert "caf\\xe9.jpg was changed" in sut.run(*QUICK, "--dataset-path", folder, "--accuracy").error


def test_no_sum_is_taken_of_a_damaged_picture(sut: Sut) -> None:
    folder = sut.pictures()
    half = folder / "grey picture 3.jpg"
    half.write_bytes(half.read_bytes()[:300])
    own = folder / "own.txt"
    own.write_text("grey picture 3.jpg 1000\n")

    done = run_python("-m", "sut", "dataset", "sums", folder, "--list", own, cwd=sut.cwd)

    assert done.code == 1
    assert f"1 of 1 pictures are damaged, such as {half}: " in done.err
    assert "a JPEG of 300 bytes that ends without an end-of-image marker" in done.err
    assert not (folder / "own.txt.sums").exists()


@pytest.mark.slow
def test_fifty_thousand_links_to_one_picture_are_not_imagenet(sut: Sut) -> None:
    folder = sut.cwd / "links"
    folder.mkdir()
    (folder / "one.jpg").write_bytes(cv2.imencode(".jpg", np.full((8, 8, 3), 128, np.uint8))[1].tobytes())
    for name in picture_names():
        (folder / name).symlink_to("one.jpg")
    (folder / "val_map.txt").write_text(list_text({name: name for name in picture_names()}, validation_labels()))
    options = ("--dataset-path", folder, "--cache", "1", "--overwrite")
    said = "1,023 of 1,024 pictures that were loaded are equal to others (99.9 %)"

    read, cached = (sut.run(*QUICK, *options).result for _ in range(2))

    assert any(note.startswith("1,024 of 1,024 samples came preprocessed") for note in cached["notes"])
    for result in (read, cached):
        assert said in result["rules_broken"]
        assert said in result["notes"]
        assert not any("ImageNet" in rule for rule in result["rules_broken"]), "names, labels and order are right"


def test_equal_pictures_are_said_in_either_mode_and_no_list_of_twelve_is_imagenet(sut: Sut) -> None:
    folder = sut.pictures()

    sut.run(*QUICK, "--dataset-path", folder)
    results = sut.run(*QUICK, "--dataset-path", folder, "--accuracy").results.values()

    assert {result["mode"] for result in results} == {"performance", "accuracy"}
    for result in results:
        equal = f"{PICTURES - 2} of {PICTURES} pictures that were loaded are equal to others (83.3 %)"
        assert equal in result["rules_broken"]
        assert equal in result["notes"]
        assert "data set imagenet has 12 pictures, not ImageNet's 50000" in result["rules_broken"]


def png(width: int, height: int) -> bytes:
    """A PNG of a few bytes that claims to be of any size."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = (header, b"IDAT" + zlib.compress(bytes(1000)), b"IEND")
    written = (struct.pack(">I", len(each) - 4) + each + struct.pack(">I", zlib.crc32(each)) for each in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(written)


@pytest.mark.parametrize("boundary", ["tensor", "jpeg"])
def test_a_picture_that_unfolds_beyond_all_bounds_is_refused_by_name(sut: Sut, boundary: str) -> None:
    folder = sut.pictures()
    (folder / "zbomb.png").write_bytes(png(30_000, 30_000))

    done = sut.run(*QUICK, "--dataset", "folder", "--dataset-path", folder, "--boundary", boundary)

    assert done.code == 1
    assert f"{folder}/zbomb.png (sample {PICTURES}): too large to decode: got a PNG of " in done.error
    assert "30000 x 30000 pixels, which take 2,700,000,000 bytes; expected 1,000,000,000 at the most" in done.error


def test_a_calibration_picture_is_not_unfolded_either(sut: Sut) -> None:
    folder = sut.pictures()
    (folder / "zbomb.png").write_bytes(png(30_000, 30_000))
    script = (
        "import sys; from pathlib import Path; from sut.datasets.registry import open_dataset; "
        "from sut.models.precision.calibration import read_picture; "
        f"read_picture(open_dataset('folder', Path(sys.argv[1]), None, None), {PICTURES}, 'calibrate')"
    )

    done = run_python("-c", script, folder, cwd=sut.cwd)

    assert "zbomb.png, which is to calibrate: too large to decode" in done.err


def test_pictures_of_twelve_bits_in_sixteen_are_noted(sut: Sut) -> None:
    folder = sut.cwd / "deep"
    folder.mkdir()
    for number in range(6):
        pixels = np.random.default_rng(number).integers(0, 4096 if number % 2 else 65536, (20, 30, 3)).astype(np.uint16)
        (folder / f"{number}.png").write_bytes(cv2.imencode(".png", pixels)[1].tobytes())

    done = sut.run(*QUICK, "--dataset", "folder", "--dataset-path", folder)

    assert done.code in (0, 4)
    assert [note for note in done.result["notes"] if "16 bits" in note] == [
        "3 pictures of 16 bits use 12 or fewer, such as 1.png: OpenCV keeps the upper 8, so they are nearly black"
    ]
