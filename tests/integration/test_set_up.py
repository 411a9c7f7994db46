"""tools/setup_env.sh with a real pip, over packages of a few bytes: what is installed, makes way, is refused."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

from tests.children import CHECKOUT, Finished, run

pytestmark = pytest.mark.slow

EXTRAS = """
runtime    onnxruntime  -  onnxruntime       start  24    onnxruntime>=1.31,<2
instead    onnxruntime  -  onnxruntime-cu13  -      1645  onnxruntime-gpu>=1.31,<2
instead    onnxruntime  -  onnxruntime-cu12  -      1963  onnxruntime-gpu>=1.26,<1.27
precision  int8         -  nncf              tests  50    nncf>=3.4,<4 onnxruntime>=1.31,<2
runtime    torch        -  pytorch           tests  202   torch>=2.13,<2.14 onnx2torch>=1.5,<2
instead    torch        -  pytorch-cu13      -      3016  torch>=2.14,<2.15 onnx2torch>=1.5,<2
"""
MODULES = {"onnxruntime-gpu": "onnxruntime"}
MISMATCH = "THESE PACKAGES DO NOT MATCH THE HASHES"
SCRIPT = """
ROOT=$PWD
. tools/setup_env.sh
eval "real_$(declare -f run_pip)"
run_pip() { [[ " $* " == *" -e . "* ]] || real_run_pip "$@"; } # there is no project here
setup_env "$@"
"""


class Checkout:
    """A folder with a set-up of its own, and the index from which it installs."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.index = folder, folder / "index"
        for name in ("plugins/extras.py", "tools/lock.py", "tools/setup_env.sh"):
            (folder / name).parent.mkdir(exist_ok=True)
            shutil.copy(CHECKOUT / name, folder / name)
        (folder / "plugins/extras.txt").write_text(EXTRAS)
        (folder / "setup.py").touch()
        self.index.mkdir()

    def publish(self, name: str, version: str, requires: str = "") -> str:
        """Put a wheel into the index, whose module knows which it is of. Returns its line of constraints.txt."""
        module, stem = MODULES.get(name, name), f"{name.replace('-', '_')}-{version}"
        needs = f"Requires-Dist: {requires}\n" if requires else ""
        files = {
            f"{module}/__init__.py": f"build = '{name} {version}'\n",
            f"{stem}.dist-info/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}",
            f"{stem}.dist-info/WHEEL": "Wheel-Version: 1.0\nGenerator: t\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        }
        record = f"{stem}.dist-info/RECORD"
        path = self.index / f"{stem}-py3-none-any.whl"
        with ZipFile(path, "w") as wheel:
            for file, text in (files | {record: "".join(f"{file},,\n" for file in (*files, record))}).items():
                wheel.writestr(file, text)
        return f"{name}=={version} --hash=sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}\n"

    def pin(self, *lines: str) -> None:
        (self.folder / "constraints.txt").write_text("".join(lines))

    def set_up(self, *extras: str) -> Finished:
        """Run the set-up."""
        environment = {
            **{"PATH": os.environ["PATH"], "PYTHON": sys.executable},
            **{"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(self.index), "PIP_CONFIG_FILE": os.devnull},
        }
        script = ("bash", "-euo", "pipefail", "-c", SCRIPT, "set-up")
        return run(*script, *extras, cwd=self.folder, environment=environment)

    def build(self, module: str) -> str:
        """Which wheel an installed module is of."""
        code = f"import {module}; print({module}.build)"
        return run(self.folder / ".venv/bin/python", "-c", code, cwd=self.folder).out.strip()

    def installed(self) -> set[str]:
        """The distributions of the index that are installed."""
        found = (self.folder / ".venv").glob("lib/python3*/site-packages/*.dist-info")
        names = {path.name.removesuffix(".dist-info") for path in found}
        return {name for name in names if not name.startswith(("pip-", "setuptools-"))}


def tampered(pin: str) -> str:
    """The pin with the hash of another file."""
    return f"{pin.rstrip()[:-4]}beef\n"


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


def test_the_build_for_a_gpu_takes_the_place_of_the_other_once_it_is_there(checkout: Checkout) -> None:
    pins = [checkout.publish(*each) for each in (("setuptools", "84.0"), ("nncf", "3.4"), ("onnxruntime", "1.31.1"))]
    gpu, old = checkout.publish("onnxruntime-gpu", "1.31.1"), checkout.publish("onnxruntime-gpu", "1.26.0")
    checkout.pin(*pins, tampered(gpu), "[onnxruntime-cu12]\n", old)

    assert checkout.set_up("onnxruntime").code == 0
    assert checkout.installed() == {"onnxruntime-1.31.1"}

    failed = checkout.set_up("onnxruntime-cu13")
    assert (failed.code, MISMATCH in failed.err) == (2, True)
    assert checkout.build("onnxruntime") == "onnxruntime 1.31.1", "nothing goes before the other is here"

    checkout.pin(*pins, gpu, "[onnxruntime-cu12]\n", old)
    assert checkout.set_up("onnxruntime-cu13", "nncf").code == 0
    assert checkout.build("onnxruntime") == "onnxruntime-gpu 1.31.1"
    assert checkout.installed() == {"onnxruntime_gpu-1.31.1", "nncf-3.4"}, "NNCF is content with it"

    done = checkout.set_up("onnxruntime")
    assert (done.code, done.err) == (0, ""), "it serves the CPU as well"

    assert checkout.set_up("onnxruntime-cu12").code == 0
    assert checkout.installed() == {"onnxruntime_gpu-1.26.0", "nncf-3.4"}


def test_pytorch_is_the_build_that_the_index_has_for_the_device(checkout: Checkout) -> None:
    pins = [checkout.publish("setuptools", "84.0"), checkout.publish("onnx2torch", "1.5", requires="torchvision")]
    checkout.publish("torch", "2.13.0+cpu")
    checkout.publish("torch", "2.14.1+cpu")
    cuda = checkout.publish("torch", "2.14.1")
    checkout.pin(*pins, f"torch==2.13.0 --hash=sha256:{64 * '0'}\n", "[pytorch-cu13]\n", cuda)

    done = checkout.set_up("pytorch")
    assert (done.code, checkout.build("torch")) == (0, "torch 2.13.0+cpu")
    assert checkout.installed() == {"torch-2.13.0+cpu", "onnx2torch-1.5"}, "and no torchvision"
    assert "CUDA build" not in done.err

    refused = checkout.set_up("pytorch-cu13")
    assert (refused.code, checkout.build("torch")) == (2, "torch 2.13.0+cpu")
    assert "pip finds torch 2.14.1+cpu, a build for CPUs, where one for a GPU was asked for" in refused.err

    (checkout.index / "torch-2.14.1+cpu-py3-none-any.whl").unlink()
    assert checkout.set_up("pytorch-cu13").code == 0
    assert checkout.build("torch") == "torch 2.14.1"


def test_the_size_of_a_cuda_build_for_the_cpu_is_said_before_it_comes(checkout: Checkout) -> None:
    pins = [checkout.publish("setuptools", "84.0"), checkout.publish("onnx2torch", "1.5")]
    checkout.pin(*pins, tampered(checkout.publish("torch", "2.13.0")))

    done = checkout.set_up("pytorch")

    said, failed = done.err.splitlines()[-2:]
    assert "pip finds PyTorch 2.13.0, the CUDA build, for a run on the CPU: some 2740 MB" in said
    assert "PIP_EXTRA_INDEX_URL=" in said
    assert (done.code, MISMATCH in failed) == (2, True)
