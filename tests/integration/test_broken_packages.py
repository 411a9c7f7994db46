"""A package that is gone or broken is named in one line with exit 2; ``sut doctor`` runs all the same and names it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.children import Finished, run_python
from tests.distributions import write_distribution
from tests.integration.support import Sut

BROKEN = {
    "gone": "raise ModuleNotFoundError(\"No module named '{name}'\", name='{name}')",
    "half": "raise ImportError('libhalf.so.1: cannot open shared object file')",
    "cut off": "def broken(",
    "leaves": "import sys; sys.exit(7)",
    "unreadable": "raise OSError(5, 'Input/output error')",
}
PACKAGES = {
    "numpy": "numpy",
    "yaml": "PyYAML",
    "pydantic": "pydantic",
    "rich": "rich",
    "typer": "typer",
    "mlperf_loadgen": "mlcommons-loadgen",
    "onnx": "onnx",
    "cv2": "opencv-python-headless",
}


def break_package(packages: Path, name: str, how: str) -> None:
    (packages / f"{name}.py").write_text(BROKEN[how].format(name=name) + "\n")


def doctor(packages: Path, *options: str) -> Finished:
    return run_python("-m", "sut", "doctor", *options, cwd=packages, plugins=packages, timeout_s=240)


@pytest.mark.parametrize(
    ("name", "how"),
    [(name, how) for name in PACKAGES for how in BROKEN if name == "typer"]
    + [
        ("numpy", "half"),
        ("yaml", "gone"),
        ("pydantic", "cut off"),
        ("rich", "unreadable"),
        ("rich", "leaves"),
        ("mlperf_loadgen", "half"),
        ("onnx", "cut off"),
        ("cv2", "half"),
    ],
)
def test_a_broken_package_is_named(tmp_path: Path, name: str, how: str) -> None:
    sut = Sut(tmp_path)
    break_package(sut.packages, name, how)
    backend = "onnxruntime" if name == "onnx" else "null"

    done = sut.run("--backend", backend, "--time", "0.3")

    assert done.code == 2, done.err
    assert f"the package {PACKAGES[name]} cannot be imported (" in done.error
    assert f"pip install --force-reinstall {PACKAGES[name]}" in done.error


@pytest.mark.first(2)
@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("typer", "cut off"),
        ("rich", "unreadable"),
        ("numpy", "half"),
        ("yaml", "gone"),
        ("typer", "leaves"),
        ("rich", "leaves"),
        ("numpy", "leaves"),
    ],
)
def test_doctor_runs_all_the_same_and_names_it(tmp_path: Path, name: str, how: str) -> None:
    break_package(tmp_path, name, how)

    done = doctor(tmp_path, "--json")

    assert (done.code, done.err) == (2, "")
    rows = {row["name"]: row for row in json.loads(done.out)["rows"]}
    assert "which cannot be imported" in rows[PACKAGES[name]]["found"]
    assert rows[PACKAGES[name]]["hint"] == f"pip install --force-reinstall {PACKAGES[name]}"
    assert rows["python"]["status"] == "ok"


@pytest.mark.first(1)
@pytest.mark.parametrize("how", ["leaves", "unreadable"])
def test_doctor_names_a_broken_optional_package(tmp_path: Path, how: str) -> None:
    break_package(tmp_path, "numba", how)
    write_distribution(tmp_path, "numba", version="9.9")

    done = doctor(tmp_path, "--json")

    [row] = [row for row in json.loads(done.out)["rows"] if row["name"] == "numba"]
    assert (row["status"], row["hint"]) == ("warning", "pip install --force-reinstall numba")
    assert row["found"].startswith("9.9, which cannot be imported: ")


def test_doctor_needs_no_table_to_be_read(tmp_path: Path) -> None:
    break_package(tmp_path, "rich", "half")

    done = doctor(tmp_path)

    assert (done.code, done.err) == (2, "")
    [line] = [line for line in done.out.splitlines() if line.startswith("missing ")]
    assert line.startswith("missing  packages: rich: ") and "libhalf.so.1" in line
