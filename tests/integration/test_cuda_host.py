"""The preprocessor ``cuda`` from end to end without a GPU: its kernels in host form, in whole runs; what it lacks."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from sut.errors import ExitCode
from tests.children import results, run_sut
from tests.distributions import plug_in, write_distribution

BACKEND = '''
import numpy as np

from backends.base import Attestation, Backend, Runner, Slot, TensorSpec


class Instant(Backend):
    """Answers class 0 at once."""

    name = "instant"
    inputs = (TensorSpec("images", "float32", (None, 3, 224, 224), "NCHW"),)
    outputs = (TensorSpec("label", "int64", (None,), "N"),)

    @classmethod
    def load(cls, model, device, lanes, threads, options=None):
        return cls()

    @classmethod
    def version(cls):
        return "1"

    def runner(self, place="host"):
        return InstantRunner()

    def attest(self):
        return Attestation("cpu", "", "none", "fp32")


class InstantRunner(Runner):
    def slot(self, n):
        return Slot(n, {"images": np.full((n, 3, 224, 224), np.nan, np.float32)})

    def infer(self, slot):
        assert np.isfinite(slot.buffers["images"]).all()
        return {"label": np.zeros(slot.n, np.int64)}
'''


@pytest.fixture
def plugins(tmp_path: Path) -> Path:
    folder = plug_in(tmp_path / "plugins", "instant", BACKEND, "Instant")
    write_distribution(folder, "cuda-host", {"sut.preprocessors": {"cuda-host": "tests.unit.device_form:CudaHost"}})
    return folder


@pytest.mark.skipif(shutil.which("g++") is None, reason="the host form of the kernels needs g++")
@pytest.mark.parametrize(
    "boundary", ["jpeg", *(pytest.param(each, marks=pytest.mark.slow) for each in ("tensor", "pixels"))]
)
def test_a_whole_run_through_the_kernels(tmp_path: Path, plugins: Path, boundary: str) -> None:
    child = run_sut(
        *("--backend", "instant", "--preprocess", "cuda-host", "--boundary", boundary, "--scenario", "SingleStream"),
        *("--time", "0.5"),
        cwd=tmp_path,
        plugins=plugins,
    )

    assert child.code in (ExitCode.OK, ExitCode.INVALID), child.err
    [result] = results(tmp_path).values()
    assert result["failed_samples"] == 0
    assert result["samples"] > 0
    assert result["parity"]["max_levels"] <= 1
    [told] = [note for note in result["notes"] if "pictures were preprocessed on" in note]
    assert told in child.out + child.err
    assert ("decode" in result["stages_ns"]) == (boundary == "jpeg")


@pytest.mark.skipif(Path("/dev/nvidia0").exists(), reason="there is a GPU")
@pytest.mark.parametrize("boundary", ["jpeg", "tensor"])
def test_without_a_gpu_the_run_ends_before_it_begins_and_says_what_is_missing(tmp_path: Path, boundary: str) -> None:
    child = run_sut("--preprocess", "cuda", "--boundary", boundary, "--time", "0.5", cwd=tmp_path)

    assert child.code == ExitCode.SETUP, child.err
    [line] = [line for line in child.err.splitlines() if line.startswith("error: ")]
    assert "NVIDIA driver" in line
    assert "GPU" in line
    assert "Traceback" not in child.err
    assert results(tmp_path) == {}
