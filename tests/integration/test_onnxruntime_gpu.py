"""ONNX Runtime's CUDA code in whole runs, over a GPU and a runtime that are not there; what a missing GPU says."""

from __future__ import annotations

from pathlib import Path

import pytest

from sut.errors import ExitCode
from tests.children import results, run_sut
from tests.distributions import write_distribution
from tests.integration.support import Sut
from tests.integration.test_truth import labels_in, right_in_all_scenarios, right_labels

BACKEND = "onnxruntime-fake-gpu"
ENTRY = {"sut.backends": {BACKEND: "tests.integration.gpu_plugin:OnFakeGpu"}}


@pytest.mark.slow
def test_two_gpus_share_the_work_and_answer_alike(tmp_path: Path) -> None:
    write_distribution(tmp_path / "plugins", "fake-gpu", ENTRY)

    child = run_sut(
        *("--backend", BACKEND, "--device", "cuda:0,cuda:1", "--accuracy", "--scenario", "MultiStream,Server,Offline"),
        *("--max-batchsize", "4"),
        cwd=tmp_path,
        plugins=tmp_path / "plugins",
    )

    assert child.code == ExitCode.OK, child.err
    for (_, _), result in results(tmp_path).items():
        assert labels_in(result["directory"]) == right_labels()
        assert (result["device"], result["attested"]["device"]) == ("cuda:0,cuda:1", "cuda:0,cuda:1")
        assert (result["device_name"], result["plan"]["lanes"]) == ("Fake GPU", 2)
        assert result["scaling"]["units"] == ["cuda:0", "cuda:1"]


@pytest.mark.slow
def test_one_of_two_gpus_that_fails_is_named(sut: Sut) -> None:
    write_distribution(sut.packages, "fake-gpu", ENTRY)

    done = sut.run(
        *("--backend", BACKEND, "--device", "cuda:0,cuda:1", "--dataset-path", sut.pictures(), "--scenario", "Offline"),
        *("--time", "1", "--max-batchsize", "4"),
        FAKE_SECOND_GPU="fails",
    )

    assert done.code == ExitCode.FAILED, done.err
    assert "(in a batch of 4, on cuda:1): " in done.error and "CUDA_ERROR_ECC_UNCORRECTABLE" in done.error
    assert done.result["valid"] is False and 0 < done.result["failed_samples"] < done.result["samples"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("boundary", "graphs", "overlap"),
    [
        ("tensor", False, True),
        ("device", True, True),
        ("tensor", True, False),
        ("device", False, False),
    ],
)
def test_labels_are_right_in_every_scenario(tmp_path: Path, boundary: str, graphs: bool, overlap: bool) -> None:
    write_distribution(tmp_path / "plugins", "fake-gpu", ENTRY)

    child = run_sut(
        *("--backend", BACKEND, "--device", "cuda", "--accuracy", "--scenario", "all", "--boundary", boundary),
        *("--lanes", "2", "--max-batchsize", "4", "--set", f"backend_options.graphs={graphs}"),
        *("--set", f"backend_options.overlap={overlap}"),
        cwd=tmp_path,
        plugins=tmp_path / "plugins",
    )

    assert child.code == ExitCode.OK, child.err
    for result in right_in_all_scenarios(tmp_path):
        assert result["failed_samples"] == 0
        assert result["attested"]["provider"] == "CUDAExecutionProvider"
        assert {"h2d", "d2h"} <= result["stages_ns"].keys()


@pytest.mark.first(1)
@pytest.mark.parametrize("scenario", ["SingleStream", pytest.param("Offline", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("wrong", "said", "options"),
    [
        ("fails", "CUDA_ERROR_ECC_UNCORRECTABLE", ()),
        ("hangs", "no progress for 6 s with ", ("--watchdog", "6")),
    ],
)
def test_a_gpu_that_fails_in_the_run_ends_it(
    sut: Sut, scenario: str, wrong: str, said: str, options: tuple[str, ...]
) -> None:
    write_distribution(sut.packages, "fake-gpu", ENTRY)

    done = sut.run(
        *("--backend", BACKEND, "--device", "cuda", "--dataset-path", sut.pictures(), "--scenario", scenario),
        *("--time", "1", "--lanes", "1", "--max-batchsize", "4", *options),
        FAKE_GPU=wrong,
    )

    assert done.code == ExitCode.FAILED, done.err
    assert said in done.error
    assert done.result["valid"] is False


@pytest.mark.skipif(Path("/dev/nvidia0").exists(), reason="there is a GPU")
def test_without_a_gpu_all_that_is_missing_is_said_at_once(tmp_path: Path) -> None:
    child = run_sut("--backend", "onnxruntime", "--device", "cuda", "--time", "0.5", cwd=tmp_path)

    assert child.code == ExitCode.SETUP, child.err
    [line] = [line for line in child.err.splitlines() if line.startswith("error: ")]
    assert "no NVIDIA driver" in line
    assert "is the CPU build: pip uninstall -y onnxruntime, then pip install 'onnxruntime-gpu[cuda,cudnn]'" in line
    assert "Traceback" not in child.err
    assert results(tmp_path) == {}
