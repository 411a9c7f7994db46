"""What is installed is installed by hash: constraints.txt has them all, and nothing gets past it."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

from plugins.extras import TABLE
from tests.children import CHECKOUT, load_tool, run


@pytest.fixture(scope="module")
def lock() -> ModuleType:
    return load_tool("lock")


def test_every_pin_has_a_hash(lock: ModuleType) -> None:
    pins = lock.read()

    assert {"typing-extensions", "cloudpickle"} <= set(pins)
    assert [pin for pin, hashes in pins.values() if not hashes] == []


def test_everything_that_the_table_names_is_pinned(lock: ModuleType) -> None:
    extras = {extra for entry in TABLE for extra in entry.extras}
    words = [lock.normalised(re.split(r"[\[<>=]", word)[0]) for word in lock.requirements(extras)]

    assert {"numpy", "pyyaml", "setuptools", "mlcommons-loadgen", "ruff"} <= set(words) <= set(lock.read())
    assert "onnx>=1.23,<2" in lock.requirements(["models"])


@pytest.mark.parametrize(
    ("file", "fits"),
    [
        ("six-1.17.0-py2.py3-none-any.whl", True),
        ("numpy-2.4.6-cp312-cp312-manylinux_2_27_x86_64.manylinux_2_28_x86_64.whl", True),
        ("numpy-2.4.6-cp312-cp312-manylinux_2_27_aarch64.manylinux_2_28_aarch64.whl", True),
        ("psutil-7.2.2-cp36-abi3-manylinux2014_x86_64.whl", True),
        ("nvidia_dali-2.4.0-py3-none-manylinux2014_x86_64.whl", True),
        ("numpy-2.4.6-cp314-cp314-manylinux_2_27_x86_64.whl", False),
        ("numpy-2.4.6-cp313-cp313t-manylinux_2_27_x86_64.whl", False),
        ("numpy-2.4.6-cp312-cp312-musllinux_1_2_x86_64.whl", False),
        ("numpy-2.4.6-cp312-cp312-macosx_14_0_arm64.whl", False),
        ("numpy-2.4.6-cp312-cp312-win_amd64.whl", False),
        ("numpy-2.4.6.tar.gz", False),
    ],
)
def test_which_files_are_hashed(lock: ModuleType, file: str, fits: bool) -> None:
    assert lock.fits(file) is fits


def test_what_pip_would_install_gets_its_hashes(lock: ModuleType) -> None:
    report = {"install": [{"metadata": {"name": "PyYAML", "version": "1.0"}}]}
    pins = {"pyyaml": ("PyYAML==1.0", ["ab", "cd"])}

    assert lock.hashed(report, pins) == ["PyYAML==1.0 --hash=sha256:ab --hash=sha256:cd"]


@pytest.mark.parametrize("pins", [{}, {"pyyaml": ("PyYAML==2.0", ["ab"])}, {"pyyaml": ("PyYAML==1.0", [])}])
def test_what_has_no_hash_is_not_installed(lock: ModuleType, pins: dict[str, tuple[str, list[str]]]) -> None:
    report = {"install": [{"metadata": {"name": "PyYAML", "version": "1.0"}}]}

    with pytest.raises(SystemExit, match=r"ERROR: PyYAML==1\.0 is not in constraints\.txt with its hashes"):
        lock.hashed(report, pins)


def test_nothing_but_the_standard_library_is_needed(tmp_path: Path) -> None:
    (tmp_path / "report").write_text(json.dumps({"install": [{"metadata": {"name": "rich", "version": "15.0.0"}}]}))

    def said(*arguments: str) -> str:
        done = run(sys.executable, "-I", "-S", CHECKOUT / "tools/lock.py", *arguments, cwd=tmp_path)
        assert done.code == 0, done.err
        return done.out

    assert "rich==15.0.0\n" in said("pins")
    assert said("hashed", str(tmp_path / "report")).startswith("rich==15.0.0 --hash=sha256:")
    assert "onnxruntime>=1.31,<2\n" in said("requirements", "onnxruntime")
