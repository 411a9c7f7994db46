"""ONNX Runtime sends no telemetry from any process of the project, in a home folder where nobody has forbidden it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests.children import CHECKOUT, run
from tests.core import needs
from tests.unit.openvino_models import write_model
from tests.unit.small_models import RECIPE_FILE


def left_by(tmp_path: Path, *arguments: str) -> list[str]:
    """Run Python with nothing of this process's variables but the path; the files that ONNX Runtime leaves."""
    places = {name: tmp_path / name for name in ("HOME", "XDG_CACHE_HOME", "TMPDIR")}
    for place in places.values():
        place.mkdir()
    variables = {"PATH": os.environ["PATH"], "PYTHONPATH": str(CHECKOUT), "SUT_CACHE_DIR": str(tmp_path / "cache")}
    own = {name: str(place) for name, place in places.items()}
    done = run(sys.executable, "-P", *arguments, cwd=tmp_path, environment=variables | own, timeout_s=300)
    assert done.code == 0, done.err
    files = [path for place in places.values() for path in place.rglob("*") if path.is_file()]
    # The session's file lies in the folder for temporary files, the others in a folder of the caches.
    return sorted(path.name for path in files if path.name == ".ses" or ".onnxruntime" in path.parts)


def test_alone_it_leaves_files(tmp_path: Path) -> None:
    assert "onnxruntime.db" in left_by(tmp_path, "-c", "import onnxruntime")


@pytest.mark.slow
@needs("nncf")
def test_a_run_leaves_none_nor_what_it_converts_and_compares_with(tmp_path: Path) -> None:
    write_model(tmp_path / "small.onnx")
    (tmp_path / "small.yaml").write_text(RECIPE_FILE)
    options = "--backend onnxruntime --precision int8 --model small.onnx --recipe small.yaml --count 3 --time 0.5"
    assert left_by(tmp_path, "-m", "sut", "run", *options.split(), "--output", "output") == []


@pytest.mark.parametrize(
    ("module", "use"),
    [
        ("backends.onnxruntime", "m.OnnxRuntime.version()"),
        ("sut.cli.doctor.report", "assert m.check_providers(None)"),
        ("sut.studies.gpu_report.machine", "assert m.imports()['onnxruntime'] == 'works'"),
    ],
)
def test_other_ways_to_it_leave_none(tmp_path: Path, module: str, use: str) -> None:
    assert left_by(tmp_path, "-c", f"import importlib; m = importlib.import_module('{module}'); {use}") == []
