"""The documented example of a backend, run as a user's own package would be."""

from pathlib import Path

from tests.children import CHECKOUT, results, run_sut
from tests.distributions import write_distribution

EXAMPLE = CHECKOUT / "docs" / "examples" / "opencv_dnn.py"


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


def test_the_page_shows_the_example_as_it_is() -> None:
    page = (CHECKOUT / "docs" / "extending.md").read_text()
    code = EXAMPLE.read_text().partition("class OpenCVDnn")[2]

    assert "class OpenCVDnn" + code in page
    assert len([line for line in code.splitlines() if line.strip()]) <= 30
