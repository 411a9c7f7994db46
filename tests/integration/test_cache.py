"""Runs on cached and on ready tensors, and on a plain folder: the same labels, and what was used is said."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from sut.datasets.demo import PHOTOS
from tests.children import results, run_sut
from tests.integration.support import PICTURES, Sut
from tests.integration.test_truth import labels_in, right_labels

HUMBLE = (
    "import ctypes\n"
    "header = (ctypes.c_uint32 * 2)(0x20080522, 0)\n"
    "assert ctypes.CDLL(None).capset(header, (ctypes.c_uint32 * 6)()) == 0"
)
"""Root may write anywhere by its capabilities, so the process gives up all of them."""


def note(result: dict[str, Any]) -> str:
    [found] = [text for text in result["notes"] if "came preprocessed" in text]
    return found


def arguments(root: Path, cache: Path) -> list[str | Path]:
    return [
        "--backend",
        "plain",
        "--dataset-path",
        root,
        "--cache",
        "1",
        "--cache_dir",
        cache,
        "--time",
        "0.3",
        "--overwrite",
    ]


@pytest.mark.slow
def test_labels_from_the_cache_are_the_labels_without_it(tmp_path: Path) -> None:
    found = []
    for options in (("--cache", "1"), ("--cache", "1"), ("--preprocessed_dir", "npy")):
        cwd = tmp_path / f"run{len(found)}"
        cwd.mkdir()
        more = [tmp_path / word if word == "npy" else word for word in options]
        child = run_sut("--accuracy", *more, cwd=cwd, SUT_CACHE_DIR=str(tmp_path / "cache"))
        assert child.code == 0, child.err
        found.append(results(cwd)["Offline", "accuracy"])
    ready = ("--dataset-path", PHOTOS, "--dataset-list", tmp_path / "list.txt", "--cache_dir", tmp_path / "npy")
    files = [line.split(",")[0] for line in (PHOTOS / "SOURCES.csv").read_text().splitlines()[1:]]
    (tmp_path / "list.txt").write_text("".join(f"{file} 0\n" for file in files))
    child = run_sut(
        "--accuracy", *ready, "--use_preprocessed_dataset", cwd=tmp_path, SUT_CACHE_DIR=str(tmp_path / "cache")
    )
    assert child.code == 0, child.err
    found.append(results(tmp_path)["Offline", "accuracy"] | {"directory": _newest(tmp_path / "output")})

    for result in found:
        assert labels_in(result["directory"]) == right_labels()
    # None came from the cache in the first run, so these are the labels without it.
    counts = [note(result).split(" from ")[0] for result in found]
    assert counts == [
        "0 of 11 samples came preprocessed",
        "11 of 11 samples came preprocessed",
        "0 of 11 samples came preprocessed",
        "11 of 11 samples came preprocessed",
    ]


def _newest(output: Path) -> Path:
    return max(output.rglob("result.json"), key=lambda path: path.stat().st_mtime_ns).parent


def test_two_runs_at_once_share_a_cache(sut: Sut, tmp_path: Path) -> None:
    common = arguments(sut.pictures(), tmp_path / "cache")
    with sut.started(*common, "--output", "one") as one, sut.started(*common, "--output", "two") as two:
        ended = [one.finish(), two.finish()]

    assert [run.code for run in ended] == [0, 0], [run.err for run in ended]
    third = sut.run(*common)
    assert third.code == 0
    assert note(third.result).startswith(f"{PICTURES} of {PICTURES} samples")
    assert f"{PICTURES} of {PICTURES} samples came preprocessed from the tensor cache {tmp_path}" in third.err


@pytest.mark.slow
def test_a_run_killed_while_it_fills_the_cache(sut: Sut, tmp_path: Path) -> None:
    root = sut.cwd / "many"
    root.mkdir()
    noise = np.random.default_rng(0).integers(0, 255, (600, 800, 3), np.uint8)
    picture = cv2.imencode(".jpg", noise)[1].tobytes()
    (root / "000.jpg").write_bytes(picture)
    for number in range(1, 600):
        (root / f"{number:03d}.jpg").hardlink_to(root / "000.jpg")
    common = [*arguments(root, tmp_path / "cache"), "--dataset", "folder"]
    with sut.started(*common) as running:
        deadline = time.monotonic() + 60
        while _written(tmp_path / "cache") < 20 * 602_112 and time.monotonic() < deadline:
            time.sleep(0.005)
        for process in running.processes():
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        assert running.finish().code == -9

    again = sut.run(*common)
    after = sut.run(*common)

    assert (again.code, after.code) == (0, 0)
    assert 10 <= int(note(again.result).split(" of ")[0]) < 600
    assert note(after.result).startswith("600 of 600")


def _written(folder: Path) -> int:
    return sum(512 * file.stat().st_blocks for file in folder.glob("*.tensors"))


def test_a_cache_that_may_not_be_written(sut: Sut, tmp_path: Path) -> None:
    common = arguments(sut.pictures(), tmp_path / "cache")
    assert sut.run(*common).code == 0
    for path in (*(tmp_path / "cache").iterdir(), tmp_path / "cache"):
        path.chmod(0o555 if path.is_dir() else 0o444)

    done = sut.run(*common, "--output", "other", prologue=HUMBLE)

    assert done.code == 1
    assert f"cannot keep tensors in {tmp_path}/cache: Permission denied; make it a folder with room" in done.error
    assert not (sut.cwd / "other").exists(), "nothing was run"


def test_a_cache_without_room(sut: Sut, tmp_path: Path) -> None:
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (4_000_000, 4_000_000))"

    done = sut.run(*arguments(sut.pictures(), tmp_path / "cache"), prologue=limit)

    assert done.code == 1
    assert f"cannot keep tensors in {tmp_path}/cache: File too large; " in done.error
    assert done.results == {}


def test_a_cache_flag_that_is_no_flag(sut: Sut) -> None:
    done = sut.run("--backend", "null", "--cache", "2")

    assert done.code == 1
    assert "'--cache'" in done.error


def test_the_cache_has_no_effect_where_preprocessing_is_timed(sut: Sut, tmp_path: Path) -> None:
    done = sut.run(*arguments(sut.pictures(), tmp_path / "cache"), "--boundary", "jpeg")

    assert done.code == 0
    assert "--cache 1 has no effect at the boundary jpeg: preprocessing is timed" in done.err
    assert not list((tmp_path / "cache").rglob("*.tensors"))


def test_a_plain_folder_has_speed_and_no_accuracy(sut: Sut, tmp_path: Path) -> None:
    root = sut.pictures()
    speed = sut.run("--backend", "plain", "--dataset", "folder", "--dataset-path", root, "--time", "0.3")
    assert (speed.code, speed.result["valid"]) == (0, True)

    refused = sut.run("--backend", "plain", "--dataset", "folder", "--dataset-path", root, "--accuracy")
    assert refused.code == 1
    assert f"data set folder ({root}) has no labels" in refused.error
    assert len(refused.results) == 1, "nothing was run"


def test_a_folder_without_pictures(sut: Sut, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()

    done = sut.run("--backend", "plain", "--dataset", "folder", "--dataset-path", tmp_path / "empty")

    assert done.code == 1
    assert f"{tmp_path}/empty has no pictures" in done.error


def test_ready_tensors_need_a_folder(sut: Sut) -> None:
    done = sut.run("--backend", "plain", "--use_preprocessed_dataset")

    assert done.code == 1
    assert "--use_preprocessed_dataset needs a folder of .npy files; add --preprocessed_dir DIR" in done.error


def test_ready_tensors_need_no_pictures(sut: Sut, tmp_path: Path) -> None:
    (tmp_path / "npy").mkdir()
    for number in range(3):
        np.save(tmp_path / "npy" / f"{number}.jpg", np.zeros((3, 224, 224), np.float32))
    (tmp_path / "npy" / "val_map.txt").write_text("".join(f"{number}.jpg {number}\n" for number in range(4)))
    common: list[str | Path] = ["--backend", "plain", "--dataset-path", tmp_path / "npy", "--accuracy"]
    common += ["--use_preprocessed_dataset", "--preprocessed_dir", tmp_path / "npy"]

    whole = sut.run(*common, "--count", "3")
    assert whole.code == 0
    assert whole.result["accuracy"]["count"] == 3
    assert note(whole.result) == f"3 of 3 samples came preprocessed from the preprocessed folder {tmp_path}/npy"

    missing = sut.run(*common)
    assert missing.code == 1
    assert f"1 of 4 tensors are missing in {tmp_path}/npy: 3.jpg.npy" in missing.error


def test_loading_is_shown(sut: Sut) -> None:
    every_line = "import sut.cli.console; sut.cli.console._PLAIN_EVERY_S = 0.0"

    done = sut.run("--backend", "plain", "--dataset-path", sut.pictures(), "--time", "0.3", prologue=every_line)

    assert done.code == 0
    assert "SingleStream performance: preprocessing the samples 8 of 12\n" in done.err
