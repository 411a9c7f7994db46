"""What is installed is installed by hash: constraints.txt has them all, and nothing gets past it."""

from __future__ import annotations

import json
import os
import re
import sys
from hashlib import sha256
from pathlib import Path
from types import ModuleType

import pytest

from plugins.extras import TABLE
from tests.children import CHECKOUT, load_tool, run

INDEXED = [
    ({"sha256": "cd"}, "https://index/wheel", "cd"),
    ({}, "file://{}/wheel", sha256(b"abc").hexdigest()),
    ({}, "https://index/wheel", None),
]


@pytest.fixture(scope="module")
def lock() -> ModuleType:
    return load_tool("lock")


def test_every_pin_has_a_hash(lock: ModuleType) -> None:
    sections = lock.sections()

    assert {"typing-extensions", "cloudpickle"} <= set(sections[""])
    assert [pin for pins in sections.values() for pin, hashes in pins.values() if not hashes] == []


def test_an_extra_may_have_versions_of_its_own(lock: ModuleType) -> None:
    everybody = lock.read()
    extras = {extra for entry in TABLE for extra in entry.extras}

    assert set(lock.sections()) <= {"", *extras}
    for extra in lock.sections():
        own = lock.read([extra])
        assert set(own) == set(everybody), "each takes the place of one"
    assert everybody["onnxruntime-gpu"][0].startswith("onnxruntime-gpu==1.31.")
    assert lock.read(["models", "onnxruntime-cu12"])["onnxruntime-gpu"][0].startswith("onnxruntime-gpu==1.26.")


def test_everything_that_the_table_names_is_pinned(lock: ModuleType) -> None:
    extras = {extra for entry in TABLE for extra in entry.extras}
    words = [lock.normalised(re.split(r"[\[<>=]", word)[0]) for word in lock.requirements(extras)]

    assert {"numpy", "pyyaml", "setuptools", "mlcommons-loadgen", "ruff"} <= set(words) <= set(lock.read())
    assert "onnx>=1.23,<2" in lock.requirements(["models"])


@pytest.mark.parametrize(
    ("asked", "installed"),
    [
        (["onnxruntime", "models"], ["models", "onnxruntime"]),
        (["onnxruntime", "onnxruntime-cu13"], ["onnxruntime-cu13"]),
        (["onnxruntime-cu13", "onnxruntime"], ["onnxruntime-cu13"]),
        (["gpu-cu13", "dali", "gpu-cu12", "dali-cu12"], ["dali-cu12", "gpu-cu12"]),
    ],
)
def test_of_the_builds_of_an_extra_one_is_installed(lock: ModuleType, asked: list[str], installed: list[str]) -> None:
    assert lock.settled(asked) == installed


@pytest.mark.parametrize(
    ("extras", "there", "wanted", "removed"),
    [
        (["onnxruntime"], set(), {"onnxruntime"}, set()),
        (["onnxruntime", "nncf"], {"onnxruntime-gpu"}, set(), set()),
        (["onnxruntime-cu13", "nncf"], {"onnxruntime"}, {"onnxruntime-gpu"}, {"onnxruntime"}),
        (["onnxruntime-cu12"], {"onnxruntime-gpu"}, {"onnxruntime-gpu"}, set()),
        (["dali-cu12"], {"nvidia-dali-cuda130"}, {"nvidia-dali-cuda120"}, {"nvidia-dali-cuda130"}),
        (["dali"], {"nvidia-dali-cuda120"}, set(), set()),
        (["gpu-cu12"], {"cupy-cuda13x", "nvidia-ml-py"}, {"cupy-cuda12x"}, {"cupy-cuda13x"}),
        (["pytorch-cu13"], {"torch"}, {"torch"}, set()),
    ],
)
def test_what_writes_the_same_files_is_never_there_twice(
    lock: ModuleType, extras: list[str], there: set[str], wanted: set[str], removed: set[str]
) -> None:
    builds = {"onnxruntime", "onnxruntime-gpu", "nvidia-dali-cuda120", "nvidia-dali-cuda130", "torch"}
    builds |= {"cupy-cuda12x", "cupy-cuda13x"}
    names = {re.split(r"[\[<>=]", word)[0] for word in lock.requirements(extras, there)}

    assert names & builds == wanted
    assert lock.to_remove(extras, there) == removed


@pytest.mark.parametrize("extra", ["onnxruntime", "onnxruntime-cu13"])
def test_two_builds_that_somebody_installed_are_refused(lock: ModuleType, extra: str) -> None:
    with pytest.raises(
        SystemExit, match=r"ERROR: onnxruntime and onnxruntime-gpu are .* -m pip uninstall -y onnxruntime"
    ):
        lock.requirements([extra], {"onnxruntime", "onnxruntime-gpu"})


def test_what_is_installed_bare_brings_what_it_needs(lock: ModuleType) -> None:
    wanted = {re.split(r"[\[<>=]", word)[0] for word in lock.requirements(["pycuda", "pytorch"])}

    assert {"torch", "onnx", "pytools", "mako"} <= wanted
    assert not {"onnx2torch", "pycuda"} & wanted
    lines = lock.hashed({}, lock.read(), ["pycuda", "pytorch"])
    assert [line.partition("==")[0] for line in lines] == ["onnx2torch", "pycuda"]


@pytest.mark.filterwarnings("ignore:pkg_resources is deprecated")
@pytest.mark.parametrize(
    ("extra", "there", "wheel", "said"),
    [
        ("pytorch", set(), "torch-{}-py3-none-any.whl", True),
        ("pytorch", set(), "torch-{}+cpu-py3-none-any.whl", False),
        ("pytorch", {"torch"}, "torch-{}-py3-none-any.whl", False),
        ("pytorch-cu13", set(), "torch-{}-py3-none-any.whl", False),
        ("pytorch", set(), "other-{}-py3-none-any.whl", False),
    ],
)
def test_a_cuda_build_for_a_cpu_is_told_by_its_name_in_the_index(
    lock: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    extra: str,
    there: set[str],
    wheel: str,
    said: bool,
) -> None:
    (tmp_path / wheel.format(lock.read()["torch"][0].partition("==")[2])).touch()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setattr(lock, "installed", lambda: there)

    assert ("the CUDA build, for a run on the CPU: some " in lock.cuda_build([extra])) == said


@pytest.mark.parametrize(("hashes", "url", "found"), INDEXED)
def test_a_build_with_a_label_is_held_against_its_own_index(
    lock: ModuleType, tmp_path: Path, hashes: dict[str, str], url: str, found: str | None
) -> None:
    (tmp_path / "wheel").write_bytes(b"abc")
    download = {"url": url.format(tmp_path), "archive_info": {"hashes": hashes}}
    report = {"install": [{"metadata": {"name": "torch", "version": "2.0+cpu"}, "download_info": download}]}
    pins = {"torch": ("torch==2.0", ["ab"])}

    if found:
        assert lock.hashed(report, pins) == [f"torch==2.0+cpu --hash=sha256:{found}"]
    else:
        with pytest.raises(SystemExit, match=r"torch==2\.0\+cpu is not in constraints\.txt with its hashes"):
            lock.hashed(report, pins)


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
