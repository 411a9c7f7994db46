"""What a result says of the machine it was made on, and of an accuracy."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError
from pathlib import Path

import numpy as np
import pytest

from backends.onnxruntime import OnnxRuntime
from preprocess.opencv import OpenCV
from sut import outcome
from sut.assembly import Assembly
from sut.commands.dataset import names, validation_labels
from sut.config import RunConfig
from sut.datasets.base import DataSet
from sut.models.registry import find
from sut.outcome import _accuracy, versions
from sut.preparation import Prepared
from sut.tasks.base import Score


@pytest.mark.parametrize("package", ["onnxruntime", "openvino", "nncf"])
def test_the_runtimes_and_the_quantiser_are_told_with_their_versions(
    monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    def only(name: str) -> str:
        if name != package:
            raise PackageNotFoundError(name)
        return "1.2.3"

    monkeypatch.setattr(outcome, "version", only)

    found = versions()

    assert found.pop(package) == "1.2.3"
    assert found.pop("python")
    assert set(found.values()) == {None}, "what is not installed has no version"


@pytest.mark.parametrize(("label", "applies"), [(65, True), (66, False)])
def test_an_accuracy_is_held_against_the_target_on_imagenets_own_list_only(label: int, applies: bool) -> None:
    known = validation_labels()
    labels = np.array([known[name] for name in names()], np.int32)
    labels[0] = label
    dataset = DataSet("imagenet", Path(), tuple(names()), labels)
    config = RunConfig(model="resnet50", backend="onnxruntime", weights="trained", mode="accuracy")
    file = Path("resnet50.onnx")
    model = Prepared(file, file, file, weights="trained")
    parts = Assembly(config, find("resnet50"), model, dataset, OnnxRuntime, OpenCV)

    found = _accuracy(parts, Score(name="top1", value=0.8, good=40_000, count=50_000), data_broken=False)

    assert found is not None
    assert (found.target, found.met) == ((find("resnet50").accuracy_target, True) if applies else (None, None))
