"""TensorRT's code in whole runs, over a GPU and a runtime that are not there; what a missing GPU says."""

from __future__ import annotations

from pathlib import Path

import pytest

from sut.errors import ExitCode
from tests.children import CHECKOUT, results, run, run_sut
from tests.distributions import write_distribution
from tests.integration.support import Sut
from tests.integration.test_truth import labels_in, right_in_all_scenarios, right_labels

BACKEND = "tensorrt-fake-gpu"
ON_GPU = ("--backend", BACKEND, "--lanes", "2", "--max-batchsize", "4", "--device")
ENTRY = {"sut.backends": {BACKEND: "tests.integration.tensorrt_plugin:OnFakeTensorRt"}}


def test_a_run_tells_how_far_its_engine_is_and_labels_are_right(sut: Sut) -> None:
    write_distribution(sut.packages, "fake-gpu", ENTRY)
    every_line = "import sut.cli.console; sut.cli.console._PLAIN_EVERY_S = 0.0"

    done = sut.run(*ON_GPU, "cuda:0,cuda:1", "--accuracy", "--scenario", "Offline", prologue=every_line)

    assert done.code == ExitCode.OK, done.err
    assert "Offline accuracy: loading the model 1 of 3\n" in done.err
    [place] = sut.output.rglob("accuracy")
    assert labels_in(place) == right_labels()
    assert done.result["attested"]["details"]["profiles"] == "1, 2, 4"
    assert done.result["scaling"]["units"] == ["cuda:0", "cuda:1"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("boundary", "graphs", "overlap", "fold"),
    [("tensor", True, True, False), ("device", True, True, True), ("device", False, False, False)],
)
def test_labels_are_right_in_every_scenario(
    tmp_path: Path, boundary: str, graphs: bool, overlap: bool, fold: bool
) -> None:
    write_distribution(tmp_path / "plugins", "fake-gpu", ENTRY)

    child = run_sut(
        *(*ON_GPU, "cuda", "--accuracy", "--scenario", "all", "--boundary", boundary),
        *("--set", f"backend_options.graphs={graphs}", "--set", f"backend_options.overlap={overlap}"),
        *(["--fold", "--agreement", "0"] if fold else []),
        cwd=tmp_path,
        plugins=tmp_path / "plugins",
        SUT_CACHE_DIR=str(tmp_path / "cache"),  # engines of a GPU that is not there are of no use to others
    )

    assert child.code == ExitCode.OK, child.err
    for result in right_in_all_scenarios(tmp_path):
        assert result["failed_samples"] == 0
        assert result["attested"]["provider"] == "TensorRT"
        assert {"h2d", "d2h"} <= result["stages_ns"].keys()


@pytest.mark.skipif(Path("/dev/nvidia0").exists(), reason="there is a GPU")
def test_without_a_gpu_one_line_says_what_to_do(tmp_path: Path) -> None:
    words = ("tensorrt", "resnet50", "gpu", "--weights", "random", "--output", tmp_path / "output")
    child = run(CHECKOUT / "run_local.sh", *words, cwd=tmp_path)

    assert child.code == ExitCode.SETUP, child.err
    [line] = child.err.splitlines()
    assert "the device gpu cannot be used: no NVIDIA driver" in line and "--gpus all" in line
    assert results(tmp_path) == {}
