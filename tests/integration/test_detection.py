"""Detection from end to end, by a detector and pictures of which every box is known: nothing on the way loses one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray

from backends.base import TensorSpec
from preprocess.base import Geometry, unmarked
from preprocess.opencv import OpenCV
from sut.datasets.registry import open_dataset
from sut.mlperf.logs import ACCURACY
from sut.models.registry import find
from sut.models.sources.planted import write_yolo
from sut.tasks.detection.task import Detection
from tests.children import CHECKOUT, Finished, results, run_python, run_sut
from tests.distributions import write_distribution

ALL = 1 - 1e-9
"""The mAP of all boxes found and no other: pycocotools divides by a little more than what there is."""


def check_all_found(child: Finished, cwd: Path) -> dict[str, Any]:
    """The one result, by which every box was found."""
    assert child.code == 0, child.err
    [result] = results(cwd).values()
    assert (result["failed_samples"], result["first_error"]) == (0, None)
    assert result["accuracy"]["name"] == "mAP"
    assert result["accuracy"]["value"] >= ALL
    return result


def test_one_command_finds_every_box_and_says_that_nobody_trained_the_model(tmp_path: Path) -> None:
    child = run_sut("--model", "planted", "--accuracy", cwd=tmp_path)

    result = check_all_found(child, tmp_path)
    assert (result["accuracy"]["count"], result["weights"]) == (64, "planted")
    assert "planted weights" in result["rules_broken"]
    assert "done" in child.out and "100.0 % mAP" in child.out
    page = (result["directory"].parents[1] / "report.html").read_text(encoding="utf-8")
    assert "planted, planted weights on onnxruntime" in page and "Planted weights:" in page
    assert (result["directory"] / "accuracy.txt").read_text().splitlines()[0].startswith("mAP=100.000%")


WAYS = (
    # Each scenario, boundary, preprocessor and backend, with batches of one, some and many, on one lane and two.
    "SingleStream jpeg opencv",
    "SingleStream pixels fused --backend openvino",
    "MultiStream jpeg fused --max-batchsize 3 --lanes 2",
    "MultiStream tensor opencv --max-batchsize 8 --lanes 1 --backend openvino",
    "Server jpeg fused --max-batchsize 4 --lanes 2 --qps 40",
    "Server pixels opencv --max-batchsize 1 --lanes 1 --qps 40",
    "Server tensor dali --max-batchsize 2 --lanes 2 --qps 40",
    "Offline jpeg dali --max-batchsize 5 --lanes 2",
    "Offline jpeg dali-resize --max-batchsize 16 --lanes 1",
    "Offline jpeg fused --max-batchsize 4 --lanes 1 --preprocess-workers 2",
    "MultiStream jpeg opencv --max-batchsize 8 --lanes 2 --preprocess-workers 2",
    "Server jpeg fused --max-batchsize 4 --qps 40 --preprocess-workers 2 --preprocess-place process",
    "Offline tensor opencv --max-batchsize 64 --lanes 1 --fold",
    "Offline tensor opencv --max-batchsize 7 --lanes 2 --backend pytorch",
    "Offline jpeg cuda-host --max-batchsize 3 --lanes 1 --count 16",
)


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_every_way_from_the_file_to_the_log_keeps_every_box(tmp_path: Path, way: str) -> None:
    scenario, boundary, preprocess, *more = way.split()
    if preprocess == "cuda-host" and shutil.which("g++") is None:
        pytest.skip("the host form of the kernels needs g++")
    plugins = tmp_path / "plugins"
    write_distribution(plugins, "cuda-host", {"sut.preprocessors": {"cuda-host": "tests.unit.device_form:CudaHost"}})

    child = run_sut(
        *("--model", "planted", "--accuracy", "--scenario", scenario, "--boundary", boundary),
        *("--preprocess", preprocess, *more),
        cwd=tmp_path,
        plugins=plugins,
    )

    check_all_found(child, tmp_path)


@pytest.mark.slow
def test_tensors_that_were_kept_still_know_where_boxes_belong(tmp_path: Path) -> None:
    arguments = ("--model", "planted", "--accuracy", "--count", "16", "--cache", "1", "--cache_dir", tmp_path / "kept")

    logs = []
    for _ in range(2):
        child = run_sut(*arguments, "--overwrite", cwd=tmp_path)
        result = check_all_found(child, tmp_path)
        logs.append(json.loads((result["directory"] / ACCURACY).read_text()))

    first, second = ({each["qsl_idx"]: each["data"] for each in log} for log in logs)
    assert first == second and len(first) == 16


@dataclass(frozen=True, slots=True)
class Seen:
    """What the planted detector put out for drawn pictures, and what detection is told with it."""

    outputs: NDArray[np.float32]
    indices: tuple[int, ...]
    geometries: tuple[Geometry, ...]


PICTURES = 16
SPEC = find("planted")


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Seen:
    path = tmp_path_factory.mktemp("planted") / "planted.onnx"
    write_yolo(path)
    dataset, preprocessor = open_dataset("rectangles", None, None, PICTURES), OpenCV(SPEC.recipe)
    row = np.empty((1, *SPEC.recipe.sample_shape), np.float32)
    target = type("Target", (), {"n": 1, "place": "host", "buffers": {"images": row}})()
    session, outputs, geometries = onnxruntime.InferenceSession(path), [], []
    for index in range(PICTURES):
        geometries += preprocessor.run([dataset.read(index)], target, unmarked)
        outputs += session.run(None, {"images": row})
    return Seen(np.concatenate(outputs), tuple(range(PICTURES)), tuple(geometries))


def score(seen: Seen) -> float:
    """mAP of what detection answers."""
    task = Detection.of(SPEC, [TensorSpec("output0", "float32", (None, *seen.outputs.shape[1:]))])
    answers = task.decode({"output0": seen.outputs}, seen.indices, seen.geometries, len(seen.outputs))
    truth = open_dataset("rectangles", None, None, PICTURES).truth
    return Detection.score(dict(zip(seen.indices, answers, strict=True)), truth).value


def corners_for_centres(outputs: NDArray[np.float32]) -> NDArray[np.float32]:
    """Predictions by which a reader of centre and size gets what a reader of corners would have got."""
    x1, y1, x2, y2 = outputs[:, :4].transpose(1, 0, 2)
    return np.concatenate([np.stack([(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1], 1), outputs[:, 4:]], axis=1)


MISTAKES: Mapping[str, Callable[[Seen], Seen]] = {
    "geometries are swapped": lambda seen: replace(seen, geometries=seen.geometries[::-1]),
    "xywh is read as xyxy": lambda seen: replace(seen, outputs=corners_for_centres(seen.outputs)),
    "a category is off by one": lambda seen: replace(
        seen, outputs=np.concatenate([seen.outputs[:, :4], np.roll(seen.outputs[:, 4:], 1, axis=1)], axis=1)
    ),
    "a sample's index is off by one": lambda seen: replace(
        seen, indices=tuple((index + 1) % PICTURES for index in seen.indices)
    ),
    "padding is forgotten": lambda seen: replace(
        seen, geometries=tuple(replace(each, left=0, top=0) for each in seen.geometries)
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_on_the_way_makes_map_fall(seen: Seen, mistake: str) -> None:
    assert score(seen) >= ALL
    assert score(MISTAKES[mistake](seen)) < 0.6


@pytest.mark.slow
def test_the_line_of_the_thesis_runs_on_a_planted_model_of_retinanets_shape(tmp_path: Path) -> None:
    models, data = tmp_path / "models", tmp_path / "data"
    made = run_python(CHECKOUT / "tools/plant_retinanet.py", models, data, cwd=tmp_path)
    assert made.code == 0, made.err

    child = run_sut(
        *("--backend", "onnxruntime", "--model", "retinanet", "--device", "cpu"),
        *("--accuracy", "--time", "60", "--scenario", "Server", "--qps", "100", "--max-latency", "0.2"),
        cwd=tmp_path,
        MODEL_DIR=str(models),
        DATA_DIR=str(data),
    )

    result = check_all_found(child, tmp_path)
    assert (result["scenario"], result["accuracy"]["count"], result["weights"]) == ("Server", 64, "unknown")
