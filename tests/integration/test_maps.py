"""Models whose answers are maps, from end to end: their speed, the copy as a stage, an answer's bytes, and no score."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.children import results, run_sut

SIZE = 48
RECIPE = "fit: stretch\ninterpolation: linear\nstd: [255, 255, 255]\n"
BYTES = {"segmentation": "uint8: 2,304 bytes", "depth": "float16: 4,608 bytes"}


def write_model(path: Path, task: str) -> None:
    """Five classes by the colours of a place, or how bright it is."""
    weights = np.random.default_rng(1).standard_normal((5, 3, 1, 1)).astype(np.float32)
    if task == "depth":
        weights = np.ones((1, 3, 1, 1), np.float32)
    nodes = [helper.make_node("Conv", ["images", "weights"], ["maps"])]
    axes = [("images", ["n", 3, SIZE, SIZE]), ("maps", ["n", len(weights), SIZE, SIZE])]
    image, maps = (helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in axes)
    graph = helper.make_graph(nodes, task, [image], [maps], [numpy_helper.from_array(weights, "weights")])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


@pytest.mark.first(1)
@pytest.mark.parametrize("task", BYTES)
def test_maps_are_answered_in_time_and_never_scored(tmp_path: Path, task: str) -> None:
    write_model(tmp_path / "mine.onnx", task)
    (tmp_path / "mine.yaml").write_text(f"{RECIPE}task: {task}\n")
    told = ("--model", "mine.onnx", "--recipe", "mine.yaml", "--time", "0.3")

    done = run_sut(*told, "--scenario", "SingleStream,Offline", cwd=tmp_path)
    refused = run_sut(*told, "--accuracy", cwd=tmp_path)

    assert done.code == 0, done.err
    for scenario in ("SingleStream", "Offline"):
        result = results(tmp_path)[scenario, "performance"]
        assert list(result["cost_ns"])[-3:] == ["postprocess", "copy", "complete"]
        assert result["cost_ns"]["copy"] > 0
        assert f"an answer is a map of {SIZE} x {SIZE} in {BYTES[task]}" in result["notes"]
    assert refused.code == 1
    assert f"{task} is measured for speed only: its maps are not scored; leave out --accuracy" in refused.err
