"""A picture without a box: an empty answer is one, through LoadGen, in every scenario and in accuracy mode."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

from tests.distributions import plug_in
from tests.integration.support import Sut

FINDER = """
import time
from dataclasses import replace
from typing import ClassVar

import numpy as np

from backends.base import Attestation, Backend, Runner, Slot, TensorSpec
from preprocess.base import Recipe
from sut.models.base import ModelSpec

RECIPE = Recipe(name="whole", size=32, fit="stretch", interpolation="linear", std=(255.0,) * 3)
MODEL = ModelSpec(
    name="finder", recipe=RECIPE, build=None, task="detection", task_options={"categories": "index1"}, classes=2
)


class Finder(Backend):
    name: ClassVar[str] = "finder"
    needs_model = False
    inputs = (TensorSpec("images", "float32", (None, 3, 32, 32), "NCHW"),)
    outputs = (TensorSpec("found", "float32", (None, 20, 6)),)

    @classmethod
    def load(cls, model, device, lanes, threads, options={}):
        return cls()

    @classmethod
    def version(cls):
        return "1.0"

    def runner(self, place="host"):
        return FinderRunner()

    def attest(self):
        return Attestation("cpu", "a test", "none", "fp32")


class FinderRunner(Runner):
    def slot(self, n):
        return Slot(n, {"images": np.zeros((n, 3, 32, 32), np.float32)})

    def infer(self, slot):
        time.sleep(0.001)
        found = np.zeros((slot.n, 20, 6), np.float32)
        found[:, 0, :4] = 0, 0, 32, 32
        found[:, 0, 4] = slot.buffers["images"].min(axis=(1, 2, 3)) > 0.9
        return {"found": found}
"""
PICTURES = 12


def install(sut: Sut, every: int) -> list[str]:
    """A detector that finds one box, the whole picture, in white pictures alone, and pictures: white are ``every``."""
    plug_in(sut.packages, "finder", FINDER, "Finder")
    plug_in(sut.packages, "finder_model", "from plugin_finder import MODEL\n", "MODEL", "sut.models")
    root = sut.cwd / "coco"
    (root / "annotations").mkdir(parents=True)
    (root / "val2017").mkdir()
    white = [at for at in range(PICTURES) if every and at % every == 0]
    for at in range(PICTURES):
        pixels = np.full((40, 64, 3), 255 if at in white else 10 * at, np.uint8)
        (root / "val2017" / f"{at}.jpg").write_bytes(cv2.imencode(".jpg", pixels)[1].tobytes())
    content = {
        "images": [{"id": 100 + at, "file_name": f"{at}.jpg", "width": 64, "height": 40} for at in range(PICTURES)],
        "categories": [{"id": 1, "name": "white"}, {"id": 2, "name": "never"}],
        "annotations": [
            {"id": 1 + at, "image_id": 100 + at, "category_id": 1, "bbox": [0, 0, 64, 40], "area": 2560, "iscrowd": 0}
            for at in (white or [0])
        ],
    }
    (root / "annotations" / "instances_val2017.json").write_text(json.dumps(content))
    return ["--backend", "finder", "--model", "finder_model", "--dataset", "coco", "--dataset-path", str(root)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("scenario", "options"),
    [
        ("SingleStream", []),
        ("MultiStream", []),
        ("Server", ["--qps", "200", "--max-latency", "60"]),
        ("Offline", ["--qps", "20000"]),
    ],
)
def test_pictures_without_a_box_are_answered(sut: Sut, scenario: str, options: list[str]) -> None:
    done = sut.run(*install(sut, every=3), "--scenario", scenario, "--time", "0.3", *options)

    result = done.result
    assert (done.errors, result["failed_samples"], result["first_error"]) == ([], 0, None)
    assert "Result is : VALID" in next(sut.output.rglob("mlperf_log_summary.txt")).read_text()
    assert (done.code, result["valid"], result["invalid_reasons"]) == (0, True, [])
    assert not [note for note in result["notes"] if "none with a box" in note]


def test_they_count_in_the_score(sut: Sut) -> None:
    done = sut.run(*install(sut, every=3), "--accuracy")

    assert done.code == 0, done.err
    accuracy = done.result["accuracy"]
    assert (accuracy["name"], accuracy["count"]) == ("mAP", PICTURES)
    assert accuracy["value"] > 1 - 1e-9
    log = json.loads(next(sut.output.rglob("mlperf_log_accuracy.json")).read_text())
    assert sorted(each["qsl_idx"] for each in log if not each["data"]) == [at for at in range(PICTURES) if at % 3]
    box = np.frombuffer(bytes.fromhex(next(each["data"] for each in log if each["qsl_idx"] == 9)), "<f4")
    assert box.tolist() == [9, 0, 0, 1, 1, 1, 1]


@pytest.mark.first(1)
@pytest.mark.parametrize("mode", ["--accuracy", "--scenario=Offline"])
def test_no_box_anywhere_is_said(sut: Sut, mode: str) -> None:
    done = sut.run(*install(sut, every=0), mode, "--time", "0.3", "--qps", "20000")

    assert done.code == 0, done.err
    [note] = [note for note in done.result["notes"] if "none with a box" in note]
    assert note.endswith("pictures were answered, none with a box: is the recipe the model's?")
