"""The documented example of a backend, run as a user's own package would be."""

import json
import os
import subprocess
import sys
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]
EXAMPLE = CHECKOUT / "docs" / "examples" / "opencv_dnn.py"


def test_the_documented_backend_gets_all_demo_photos_right(tmp_path: Path) -> None:
    info = tmp_path / "plugins" / "opencv_dnn-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: opencv-dnn\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[sut.backends]\nopencv-dnn = opencv_dnn:OpenCVDnn\n")
    (tmp_path / "plugins" / "opencv_dnn.py").write_text(EXAMPLE.read_text())
    paths = os.pathsep.join([str(CHECKOUT), str(tmp_path / "plugins")])

    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "sut",
            "run",
            "--backend",
            "opencv-dnn",
            "--accuracy",
            "--output",
            "out",
        ],
        env={**os.environ, "PYTHONPATH": paths},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    [result] = (tmp_path / "out").glob("efficientnet-lite0/opencv-dnn-*/Offline/accuracy/result.json")
    found = json.loads(result.read_text())
    assert found["accuracy"]["value"] == 1.0
    assert found["accuracy"]["count"] == 11
    assert found["attested"]["provider"] == "OpenCV DNN"


def test_the_page_shows_the_example_as_it_is() -> None:
    page = (CHECKOUT / "docs" / "extending.md").read_text()
    code = EXAMPLE.read_text().partition("class OpenCVDnn")[2]

    assert "class OpenCVDnn" + code in page
    assert len([line for line in code.splitlines() if line.strip()]) <= 30
