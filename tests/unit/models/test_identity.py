"""Who a model is: by the content of all its files, whatever it is called, and for as long as it is run."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from backends.base import TensorSpec
from backends.onnxruntime import OnnxRuntime
from plugins.files import sha256_of
from sut.cli.console import Console
from sut.config import RunConfig
from sut.datasets.demo import open_demo
from sut.errors import ExitCode, InputError, RunError
from sut.mlperf import official
from sut.models import identity
from sut.models.base import ModelSpec
from sut.models.content import digest_of, sums_of
from sut.models.identity import weights_of
from sut.models.onnx_graph import OnnxGraph
from sut.models.preparation import Prepared, check_unchanged, identified
from sut.models.registry import MODELS
from sut.results.schema import Accuracy
from sut.run.energy.metering import AtRest
from sut.run.outcome import _accuracy
from sut.run.runner import Ran, run_each
from sut.tasks.top1 import top1_score
from tests.unit.small_models import quiet, with_weights_outside

RESNET50 = MODELS["resnet50"]
VOUCHED = "model.onnx counts as resnet50 by known_models: the user's word, not MLCommons'"


def write(path: Path, label: int = 5) -> Path:
    """A model in the form of MLPerf's resnet50 that answers with one label, whatever it sees."""
    graph = OnnxGraph("constant")
    weight = graph.weight("weight", np.zeros((3, 1001), np.float32))
    bias = graph.weight("bias", np.eye(1, 1001, label + 1, dtype=np.float32)[0])
    pooled = graph.node("Flatten", [graph.node("GlobalAveragePool", ["images"], "pool")], "features")
    graph.node("Gemm", [pooled, weight, bias], "scores")
    images = TensorSpec("images", "float32", (None, 3, 224, 224))
    graph.save(path, [images], [TensorSpec("scores", "float32", (None, 1001))])
    return path


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SUT_CACHE_DIR", str(tmp_path / "cache"))
    return write(tmp_path / "model.onnx")


@pytest.fixture
def published(model: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The model, as if MLCommons had published it."""
    monkeypatch.setattr(identity, "KNOWN", {md5(model): "resnet50"})
    return model


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


def as_spec(path: Path, known: ModelSpec = RESNET50) -> ModelSpec:
    return replace(known, build=lambda weights, say: path)


def judged(path: Path, spec: ModelSpec, known_models: dict[str, str] | None = None, asked: Any = "trained") -> Any:
    sums = sums_of(path)
    return weights_of(spec, path, sums, digest_of(sums), asked, known_models or {})


def made(path: Path, **settings: Any) -> Prepared:
    return identified(RunConfig(**settings), as_spec(path), OnnxRuntime, open_demo(), quiet, lambda done, total: None)


def test_a_published_file_is_that_model_whatever_it_is_called(published: Path) -> None:
    assert judged(published, as_spec(published)) == ("trained", None)
    assert judged(published, as_spec(published), {md5(published): "resnet50"}) == ("trained", None), "needs no word"


@pytest.mark.parametrize(
    "other",
    [
        MODELS["mobilenet"],
        replace(RESNET50, label_offset=0),
        replace(RESNET50, classes=1000),
        replace(RESNET50, name="theirs"),
    ],
)
def test_a_published_file_run_as_something_else_is_unknown(published: Path, other: ModelSpec) -> None:
    assert judged(published, as_spec(published, other)) == ("unknown", None)


def test_any_other_file_is_unknown(published: Path, tmp_path: Path) -> None:
    other = write(tmp_path / "resnet50_v1.onnx", label=6)

    assert judged(other, as_spec(other)) == ("unknown", None)


def test_a_published_file_with_other_weights_beside_it_is_unknown(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_weights_outside(model)
    monkeypatch.setattr(identity, "KNOWN", {md5(model): "resnet50"})

    assert judged(model, as_spec(model)) == ("unknown", None), "its MD5 says nothing of the weights"
    assert judged(model, as_spec(model), {digest_of(sums_of(model)): "resnet50"}) == ("trained", VOUCHED)


@pytest.mark.parametrize("digest", [md5, sha256_of])
def test_a_file_that_the_user_vouches_for_counts_and_the_result_says_so(
    model: Path, digest: Callable[[Path], str]
) -> None:
    assert judged(model, as_spec(model), {digest(model): "ResNet50"}) == ("trained", VOUCHED)
    assert judged(model, as_spec(model), {digest(model): "mobilenet"}) == ("unknown", None)
    assert VOUCHED in made(model, known_models={digest(model).upper(): "resnet50"}).notes
    with pytest.raises(InputError, match="unknown model 'resnet5'; did you mean resnet50"):
        judged(model, as_spec(model), {digest(model): "resnet5"})


def test_what_is_built_here_is_known_and_what_is_brought_is_not(model: Path) -> None:
    lite0 = MODELS["efficientnet-lite0"]

    assert judged(model, lite0) == ("trained", None), "its weights were checked when it was built"
    assert judged(model, as_spec(model, lite0)) == ("unknown", None)
    assert judged(model, RESNET50, asked="random") == ("random", None)
    assert judged(model, RESNET50) == ("unknown", None), "brought in $MODEL_DIR"
    assert judged(model, as_spec(model), asked="random") == ("unknown", None)


def test_what_is_folded_from_a_published_file_counts_as_it(published: Path) -> None:
    folded = made(published, fold=True)

    assert folded.weights == "trained" and folded.file != published
    assert folded.sha256 == sha256_of(published)
    assert folded.loaded_sha256 == {folded.file.name: sha256_of(folded.file)}
    assert set(folded.sources) == {published}


def test_weights_in_a_file_of_their_own_are_part_of_the_model(model: Path) -> None:
    before = made(with_weights_outside(model))
    weights = model.with_name("weights.bin")
    weights.write_bytes(bytes(reversed(weights.read_bytes())))
    after = made(model)

    assert before.sha256 != after.sha256
    assert before.loaded_sha256["model.onnx"] == after.loaded_sha256["model.onnx"]
    assert set(after.loaded_sha256) == {"model.onnx", "weights.bin"}


def test_a_source_that_changes_while_it_is_prepared_is_not_identified(model: Path) -> None:
    def exchange(line: str) -> None:
        write(model, label=6)

    with pytest.raises(RunError, match=f"the model {model} changed while it was prepared"):
        identified(RunConfig(fold=True), as_spec(model), OnnxRuntime, open_demo(), exchange, lambda done, total: None)


@pytest.mark.parametrize("which", ["model.onnx", "weights.bin", "model-folded.onnx"])
@pytest.mark.parametrize("gone", [False, True])
def test_no_file_of_a_model_may_change(model: Path, tmp_path: Path, which: str, gone: bool) -> None:
    prepared = made(with_weights_outside(model), fold=True)
    check_unchanged(prepared)
    [path] = tmp_path.rglob(which)
    path.unlink() if gone else path.write_bytes(path.read_bytes()[:-1] + b"?")

    said = "cannot be read (No such file or directory)" if gone else f"has the SHA-256 {sha256_of(path)}"
    with pytest.raises(RunError) as caught:
        check_unchanged(prepared)
    assert str(caught.value).startswith(f"the model changed during the runs: {path} {said}, expected ")


@pytest.mark.parametrize(("second", "fails"), [("0a", False), ("0b", True), (None, True)])
def test_experiments_that_are_compared_are_of_one_model(
    monkeypatch: pytest.MonkeyPatch, second: str | None, fails: bool
) -> None:
    digests = iter(["0a", second, second])

    def run(configs: Any, console: Any, command: str, rest: object) -> Ran:
        result: Any = SimpleNamespace(model_sha256=next(digests), identified=None)
        return Ran([result], [ExitCode.OK])

    monkeypatch.setattr("sut.run.runner.run_experiment", run)
    configs = [RunConfig(boundary=boundary) for boundary in ("tensor", "pixels", "jpeg")]

    with pytest.raises(RunError, match="the model changed during the runs") if fails else nullcontext():
        run_each(configs, Console(), "a test", AtRest())
    assert next(digests, "all") == (second if fails else "all"), "none is run after it"


@pytest.mark.parametrize(
    ("weights", "name", "official_data", "data_broken", "target"),
    [
        ("trained", "resnet50", True, False, official.BENCHMARKS["resnet50"].target),
        ("trained", "resnet50", True, True, None),
        ("trained", "resnet50", False, False, None),
        ("unknown", "resnet50", True, False, None),
        ("random", "resnet50", True, False, None),
        ("trained", "another", True, False, None),
        (None, "resnet50", True, False, None),
    ],
)
def test_only_mlperfs_model_on_mlperfs_data_can_meet_its_target(
    weights: Any, name: str, official_data: bool, data_broken: bool, target: float | None
) -> None:
    file = Path("model.onnx")
    parts: Any = SimpleNamespace(
        spec=replace(RESNET50, name=name),
        model=Prepared(file, file, file, weights=weights) if weights else None,
        dataset=SimpleNamespace(name="any", count=50_000, whole=True, is_imagenet=lambda: official_data),
    )

    found = _accuracy(parts, top1_score(11, 11), data_broken)

    assert found == Accuracy(name="top1", value=1.0, count=11, target=target, met=True if target else None)
