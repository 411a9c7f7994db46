"""The documented examples of a backend and a task, run as a user's own package would be."""

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.children import CHECKOUT, results, run_sut
from tests.distributions import write_distribution

EXAMPLE = CHECKOUT / "docs" / "examples" / "opencv_dnn.py"
TASK = CHECKOUT / "docs" / "examples" / "brightness.py"


def test_the_documented_backend_gets_all_demo_photos_right(tmp_path: Path) -> None:
    plugins = tmp_path / "plugins"
    write_distribution(plugins, "opencv-dnn", {"sut.backends": {"opencv-dnn": "opencv_dnn:OpenCVDnn"}})
    (plugins / "opencv_dnn.py").write_text(EXAMPLE.read_text())

    done = run_sut("--backend", "opencv-dnn", "--accuracy", cwd=tmp_path, plugins=plugins)

    assert done.code == 0, done.err
    found = results(tmp_path)["Offline", "accuracy"]
    assert found["directory"].match("efficientnet-lite0/opencv-dnn-*/Offline/accuracy")
    assert found["accuracy"]["value"] == 1.0
    assert found["accuracy"]["count"] == 11
    assert found["attested"]["provider"] == "OpenCV DNN"


@pytest.mark.first(1)
@pytest.mark.parametrize("mode", ["performance", "accuracy"])
def test_a_task_is_one_file_of_somebody_elses(tmp_path: Path, mode: str) -> None:
    plugins, pictures = tmp_path / "plugins", tmp_path / "pictures"
    points = {"tasks": "brightness:Brightness", "models": "brightness:MODEL"}
    groups = {f"sut.{group}": {"brightness": target} for group, target in points.items()}
    write_distribution(plugins, "brightness", {**groups, "sut.datasets": {"greys": "brightness:open_greys"}})
    shutil.copy(TASK, plugins)
    pictures.mkdir()
    for level in range(0, 256, 17):
        cv2.imwrite(str(pictures / f"{level:03}.png"), np.full((20, 30, 3), level, np.uint8))
    how = ("--accuracy",) if mode == "accuracy" else ("--scenario", "Offline", "--time", "0.1")

    done = run_sut("--model", "brightness", "--dataset-path", pictures, *how, cwd=tmp_path, plugins=plugins)

    assert done.code == 0, done.err
    found = results(tmp_path)["Offline", mode]
    assert (found["model"], found["failed_samples"]) == ("brightness", 0)
    if mode == "accuracy":
        assert (found["accuracy"]["name"], found["accuracy"]["value"], found["accuracy"]["count"]) == ("near", 1.0, 16)


def test_the_page_shows_the_example_as_it_is() -> None:
    page = (CHECKOUT / "docs" / "extending.md").read_text()
    code = EXAMPLE.read_text().partition("class OpenCVDnn")[2]

    assert "class OpenCVDnn" + code in page
    assert len([line for line in code.splitlines() if line.strip()]) <= 30
