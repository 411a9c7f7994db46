"""PyTorch in whole runs: the labels of ONNX Runtime in all scenarios, files of strangers, a GPU that is not there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backends.base import ModelFile
from backends.onnxruntime import OnnxRuntime
from backends.pytorch import PyTorch
from sut.config import SCENARIOS
from sut.datasets.demo import open_demo
from sut.models.precision.calibration import preprocessed, random_crops, read_picture
from sut.models.registry import find
from tests.children import results, run_sut
from tests.core import module_needs
from tests.distributions import plug_in
from tests.unit.small_models import RECIPE_FILE

module_needs("pytorch")

from tests.unit.torch_models import MAKER, write_torch  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")

SHORT = ("--time", "0.3", "--qps", "300", "--max-latency", "2")
CROPS = 300


def answers(result: dict[str, Any]) -> dict[int, str]:
    """What was answered for each picture, as LoadGen has it."""
    log = json.loads((result["directory"] / "mlperf_log_accuracy.json").read_text())
    return {row["qsl_idx"]: row["data"] for row in log}


@pytest.mark.slow
@pytest.mark.parametrize(("precision", "asked"), [("fp32", "all"), ("bf16", "Offline")])
def test_all_photos_get_the_labels_of_onnxruntime(tmp_path: Path, precision: str, asked: str) -> None:
    ours, onnx = tmp_path / "ours", tmp_path / "onnx"
    ours.mkdir()
    onnx.mkdir()
    chosen = ("--backend", "pytorch", "--precision", precision, "--agreement", "0")

    # A processor without instructions for bf16 takes half a minute and more for one scenario.
    done = run_sut(*chosen, "--accuracy", "--scenario", asked, cwd=ours, timeout_s=400)
    other = run_sut("--accuracy", cwd=onnx)

    assert (done.code, other.code) == (0, 0), done.err + other.err
    truth, found = results(onnx)["Offline", "accuracy"], results(ours)
    assert set(found) == {(scenario, "accuracy") for scenario in (SCENARIOS if asked == "all" else (asked,))}
    for result in found.values():
        assert answers(result) == answers(truth)
        assert result["accuracy"]["value"] == truth["accuracy"]["value"] == 1.0
        assert (result["attested"]["provider"], result["attested"]["precision"]) == ("PyTorch CPU, eager", precision)


@pytest.mark.slow
def test_all_crops_get_the_labels_of_onnxruntime() -> None:
    spec, dataset = find("efficientnet-lite0"), open_demo()
    file = ModelFile(spec.build("trained", lambda line: None), "fp32", spec.recipe.sample_shape)
    pictures = (read_picture(dataset, index, "comparing") for index in range(dataset.count))
    rows = preprocessed(random_crops(pictures, dataset.count, CROPS, 5), CROPS, spec.recipe)

    labels = []
    for backend in (OnnxRuntime, PyTorch):
        with backend.load(file, "cpu", 1, 2) as loaded, loaded.runner() as runner:
            found = []
            for at in range(0, CROPS, 20):
                slot = runner.slot(20)
                slot.buffers[loaded.inputs[0].name][:] = rows[at : at + 20]
                found.append(np.array(runner.infer(slot)["logits"]).argmax(1))
            labels.append(np.concatenate(found))

    np.testing.assert_array_equal(*labels)
    assert len(set(labels[0])) > 20


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        pytest.param(
            *("stranger.pt2", (), "stranger.pt2 is a graph of torch.export, which is code: it is run with your rights"),
            marks=pytest.mark.slow,
        ),
        pytest.param(
            *("stranger.pt", ("--set", "backend_options.batches=2"), "stranger.pt is TorchScript, which is code"),
            marks=pytest.mark.slow,
        ),
        pytest.param(
            *("stranger.pth", ("--set", f"backend_options.module={MAKER}"), "stranger.pth as stranger: input input0"),
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_strangers_file_runs_in_all_scenarios(tmp_path: Path, name: str, options: tuple[str, ...], said: str) -> None:
    write_torch(tmp_path / name)
    (tmp_path / "recipe.yaml").write_text(RECIPE_FILE + "classes: 10\nsize: 16\n")
    model = ("--backend", "pytorch", "--model", name, "--recipe", "recipe.yaml")

    done = run_sut(*model, "--scenario", "all", *SHORT, *options, cwd=tmp_path)

    found = results(tmp_path)
    assert set(found) == {(scenario, "performance") for scenario in SCENARIOS}, done.err
    for result in found.values():
        assert (result["failed_samples"], result["first_error"]) == (0, None), done.err
        assert (result["model"], result["precision"]) == ("stranger", "fp32")
        assert list(result["loaded_sha256"]) == [name]
    assert done.err.count(said) == 1


@pytest.mark.slow
def test_that_a_file_was_in_training_mode_is_said(tmp_path: Path) -> None:
    write_torch(tmp_path / "trained.pt", training=True)
    (tmp_path / "recipe.yaml").write_text(RECIPE_FILE + "classes: 10\nsize: 16\n")
    model = ("--backend", "pytorch", "--model", "trained.pt", "--recipe", "recipe.yaml")

    done = run_sut(*model, "--scenario", "SingleStream", "--time", "0.2", cwd=tmp_path)

    said = "training: the file was saved in training mode; it is run in evaluation mode"
    assert results(tmp_path)["SingleStream", "performance"]["notes"].count(said) == 1, done.err


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("--device", "gpu"), 2, "pytorch has no device 'cuda' here; it has cpu"),
        (("--precision", "fp16"), 1, "pytorch cannot be asked for fp16 on cpu; it has fp32, bf16"),
        (("--precision", "int8"), 1, "pytorch cannot be asked for int8; it has fp32, bf16"),
        (
            ("--model", "small.pth", "--recipe", "recipe.yaml"),
            1,
            "set it to the package.module:function that makes",
        ),
        (("--model", "small.pth", "--recipe", "recipe.yaml", "--fold"), 1, "and --fold changes .onnx files"),
        (("--backend", "onnxruntime", "--model", "small.pth", "--recipe", "recipe.yaml"), 1, "use --backend pytorch"),
        (("--set", "backend_options.mode=fast"), 1, "option mode: got 'fast', expected eager or compile or graphs"),
    ],
)
def test_what_does_not_go_is_one_line(tmp_path: Path, arguments: tuple[str, ...], code: int, said: str) -> None:
    write_torch(tmp_path / "small.pth")
    (tmp_path / "recipe.yaml").write_text(RECIPE_FILE + "classes: 10\nsize: 16\n")

    done = run_sut("--backend", "pytorch", "--time", "0.2", *arguments, cwd=tmp_path)

    assert (done.code, said in done.err.splitlines()[-1]) == (code, True), done.err


ON_GPU = """
from tests.fake_gpu import FakeDriver, plug_in
from tests.fake_torch import on_gpu

driver = FakeDriver()
plug_in(driver)
OnGpu = on_gpu(driver)
"""


@pytest.mark.parametrize(
    ("mode", "precision"),
    [pytest.param("graphs", "fp32", marks=pytest.mark.slow), pytest.param("eager", "fp16", marks=pytest.mark.slow)],
)
def test_on_a_gpu_that_is_not_there_all_scenarios_answer(tmp_path: Path, mode: str, precision: str) -> None:
    write_torch(tmp_path / "small.pt2")
    (tmp_path / "recipe.yaml").write_text(RECIPE_FILE)
    model = ("--backend", "ongpu", "--device", "cuda", "--model", "small.pt2", "--recipe", "recipe.yaml")
    options = ("--precision", precision, "--agreement", "0", "--set", f"backend_options.mode={mode}")

    done = run_sut(
        *(*model, *options, "--scenario", "all", "--lanes", "2", *SHORT),
        cwd=tmp_path,
        plugins=plug_in(tmp_path / "plugins", "ongpu", ON_GPU, "OnGpu"),
    )

    found = results(tmp_path)
    assert set(found) == {(scenario, "performance") for scenario in SCENARIOS}, done.err
    for result in found.values():
        assert (result["failed_samples"], result["first_error"]) == (0, None), done.err
        assert (result["attested"]["device"], result["attested"]["precision"]) == ("cuda:0", precision)
        assert {"h2d", "infer", "d2h"} <= set(result["stages_ns"])


@pytest.mark.slow
def test_on_a_gpu_that_is_not_there_labels_are_those_of_the_cpu(tmp_path: Path) -> None:
    gpu, cpu = tmp_path / "gpu", tmp_path / "cpu"
    gpu.mkdir()
    cpu.mkdir()
    plugins = plug_in(tmp_path / "plugins", "ongpu", ON_GPU, "OnGpu")

    done = run_sut(
        *("--backend", "ongpu", "--device", "cuda", "--accuracy", "--scenario", "Offline,Server"),
        *("--set", "backend_options.mode=graphs", "--qps", "5"),
        cwd=gpu,
        plugins=plugins,
    )
    other = run_sut("--backend", "pytorch", "--accuracy", cwd=cpu)

    assert (done.code, other.code) == (0, 0), done.err + other.err
    truth = answers(results(cpu)["Offline", "accuracy"])
    assert [answers(result) for result in results(gpu).values()] == [truth, truth]
