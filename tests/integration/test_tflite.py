"""A .tflite file from end to end: a network converted from ONNX, which must answer as the ONNX file does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sut.models.registry import find
from tests.children import results, run_sut
from tests.unit.tflite_models import write_tflite

RECIPE = "fit: crop-resize\ninterpolation: linear\nmean: [127, 120, 110]\nstd: [128, 64, 77]\n"
SCENARIOS = ("SingleStream", "MultiStream", "Server", "Offline")


@pytest.fixture(scope="module")
def lite0(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The trained network, as a file of any batch size."""
    folder = tmp_path_factory.mktemp("lite0")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SUT_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        source = find("efficientnet-lite0").build("trained", lambda line: None)
        return write_tflite(folder / "lite0.tflite", source=source)


def answers(result: dict[str, Any]) -> dict[int, str]:
    """What was answered for each picture, as LoadGen has it."""
    log = json.loads((result["directory"] / "mlperf_log_accuracy.json").read_text())
    return {row["qsl_idx"]: row["data"] for row in log}


@pytest.mark.slow
def test_all_photos_get_the_labels_of_onnxruntime_in_every_scenario(tmp_path: Path, lite0: Path) -> None:
    ours, onnx = tmp_path / "ours", tmp_path / "onnx"
    ours.mkdir()
    onnx.mkdir()
    model = ("--model", lite0, "--model-name", "efficientnet-lite0")

    done = run_sut("--backend", "tflite", *model, "--accuracy", "--scenario", "all", cwd=ours)
    other = run_sut("--model", "efficientnet-lite0", "--accuracy", cwd=onnx)

    assert (done.code, other.code) == (0, 0), done.err + other.err
    truth, found = results(onnx)["Offline", "accuracy"], results(ours)
    assert set(found) == {(scenario, "accuracy") for scenario in SCENARIOS}
    for result in found.values():
        assert answers(result) == answers(truth)
        assert result["accuracy"]["value"] == truth["accuracy"]["value"] == 1.0
        assert (result["attested"]["provider"], result["attested"]["precision"]) == ("XNNPACK", "fp32")
        assert list(result["loaded_sha256"]) == ["lite0.tflite"]


@pytest.mark.slow
def test_a_strangers_file_runs_in_all_scenarios(tmp_path: Path) -> None:
    write_tflite(tmp_path / "stranger.tflite", batch=2)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    options = ("--scenario", "all", "--time", "0.3", "--qps", "500", "--max-latency", "1")

    done = run_sut(
        *("--backend", "tflite", "--model", "stranger.tflite", "--recipe", "recipe.yaml", *options), cwd=tmp_path
    )

    found = results(tmp_path)
    assert set(found) == {(scenario, "performance") for scenario in SCENARIOS}, done.err
    for (scenario, _), result in found.items():
        assert (result["failed_samples"], result["first_error"]) == (0, None), done.err
        assert (result["model"], result["precision"]) == ("stranger", "fp32")
        assert (result["padded_samples"] == result["samples"]) == (scenario == "SingleStream")


def test_a_quantised_file_is_run_in_8_bits(tmp_path: Path) -> None:
    write_tflite(tmp_path / "small.tflite", int8=True)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    told = ("--backend", "tflite", "--model", "small.tflite", "--recipe", "recipe.yaml", "--time", "0.2")

    refused = run_sut(*told, cwd=tmp_path)
    done = run_sut(*told, "--precision", "int8", cwd=tmp_path)

    assert refused.code == 2
    assert "executes in int8; the file is quantised already: run it with --precision int8" in refused.err
    assert done.code == 0, done.err
    assert "tflite executes the quantised file's multiply-accumulates in int8: 100.0 %" in done.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ("--backend", "tflite", "--model", "mobilenet"),
            "MODEL_DIR is not set; give --model FILE (mobilenet_v1_1.0_224.",
        ),
        (("--model", "cut.tflite", "--recipe", "pytorch"), "cut.tflite is cut off or damaged (1000 bytes), expected a"),
        (
            ("--model", "small.tflite", "--recipe", "pytorch"),
            "which backend onnxruntime cannot read: use --backend tflite",
        ),
        (
            ("--backend", "tflite", "--model", "small.onnx", "--recipe", "pytorch"),
            "is an ONNX file, which backend tflite",
        ),
        (("--backend", "tflite", "--model", "small.tflite", "--model-name", "mobilenet"), "input of another size"),
    ],
)
def test_what_does_not_fit_is_one_line_before_anything_runs(
    tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    whole = write_tflite(tmp_path / "small.tflite")
    (tmp_path / "cut.tflite").write_bytes(whole.read_bytes()[:1000])

    done = run_sut(*arguments, cwd=tmp_path)

    assert done.code == 1
    assert said in done.err.splitlines()[-1]
    assert not (tmp_path / "output").exists()
