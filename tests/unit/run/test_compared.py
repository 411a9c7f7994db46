"""The comparison with FP32: when there is one, what its process may say, and how samples are run in it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backends.base import Attestation, Backend, Runner, Slot, TensorSpec
from preprocess.base import Geometry
from preprocess.opencv import OpenCV
from sut.config import RunConfig
from sut.datasets.demo import open_demo
from sut.errors import InputError, RunError, SetupError
from sut.models.base import ModelSpec
from sut.models.identity import Known
from sut.models.preparation import Prepared
from sut.pipeline.assembly import Assembly, assemble
from sut.process.messages import to_text
from sut.process.telling import Teller
from sut.run import compared
from sut.run.compared import compared_with_fp32, is_reduced, why_not_compared
from sut.tasks.base import Task
from sut.tasks.registry import TASKS
from tests.unit.small_models import RECIPE, unheard, write_classifier

CLASSES = 5
WHOLE = Geometry(4, 4, 1.0, 1.0, 0.0, 0.0)


class Rounded(Backend):
    """Scores that say which sample was given, in memory that the next batch overwrites."""

    name = "rounded"
    precisions = {"fp32": "fp32", "int8": "int8"}  # noqa: RUF012
    executes = "int8"
    axes: tuple[int, ...] = ()
    sizes: tuple[int, ...] | None = None

    def __init__(self) -> None:
        self.inputs = (TensorSpec("images", "float32", (None, *RECIPE.sample_shape), "NCHW"),)
        self.outputs = (TensorSpec("scores", "float32", (None, CLASSES, *self.axes), "NC"),)
        self.batch_sizes = self.sizes
        self.given: list[int] = []

    @classmethod
    def load(cls, model: Any, device: str, lanes: int, threads: int, options: Mapping[str, Any] = {}) -> Rounded:
        return cls()

    @classmethod
    def version(cls) -> str:
        return "1"

    def runner(self, place: str = "host") -> Runner:
        return RoundedRunner(self)

    def attest(self) -> Attestation:
        return Attestation("cpu", "", "a test", self.executes)


class RoundedRunner(Runner):
    def __init__(self, backend: Rounded) -> None:
        self.backend = backend
        self.images = np.zeros((32, *RECIPE.sample_shape), np.float32)
        self.scores = np.zeros((32, CLASSES, *backend.axes), np.float32)

    def slot(self, n: int) -> Slot:
        return Slot(n, {"images": self.images[:n]})

    def infer(self, slot: Slot) -> Mapping[str, Any]:
        self.backend.given.append(slot.n)
        scores = self.scores[: slot.n]
        scores[:] = 0
        scores.reshape(slot.n, CLASSES)[:, 0] = slot.buffers["images"][:, 0, 0, 0]
        return {"scores": scores}


def backend(**changes: Any) -> type[Rounded]:
    return type("Changed", (Rounded,), changes)


def parts_of(kind: type[Backend] = Rounded, known: Known = "trained", **settings: Any) -> Assembly:
    def build(weights: str, say: Any) -> Path:
        raise AssertionError("built")

    file = Path("small.onnx")
    spec = ModelSpec(name="small", recipe=RECIPE, build=build, classes=CLASSES)
    config = RunConfig(**{"precision": "int8", "backend": "rounded", **settings})
    return Assembly(config, spec, Prepared(file, file, file, weights=known), open_demo(), kind, OpenCV)


@pytest.fixture(autouse=True)
def a_task_that_brings_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TASKS, "maps", Task)


# When there is one


@pytest.mark.parametrize(
    ("settings", "reduced"),
    [
        ({}, False),
        ({"precision": "fp32"}, False),
        ({"precision": "int8"}, True),
        ({"precision": "bf16"}, True),
        ({"fold": True}, True),
    ],
)
def test_labels_can_differ_by_precision_and_by_folding(settings: dict[str, Any], reduced: bool) -> None:
    assert is_reduced(RunConfig(**settings)) is reduced


def quantised(parts: Assembly) -> Assembly:
    assert parts.model is not None
    return replace(parts, model=replace(parts.model, quantised=True))


@pytest.mark.parametrize(
    "parts",
    [
        parts_of(precision="fp32"),
        replace(parts_of(), model=None),
        quantised(parts_of()),
        quantised(parts_of(fold=True)),
        replace(parts_of(), spec=replace(parts_of().spec, task="maps")),
        parts_of(use_preprocessed_dataset=True),
        parts_of(known="random"),
        parts_of(agreement=0),
    ],
    ids=["not reduced", "no model", "quantised", "and folded", "another task", "no pictures", "random", "not wanted"],
)
def test_where_there_is_nothing_to_compare_with_nothing_is_run(
    parts: Assembly, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*anything: Any, **more: Any) -> Any:
        raise AssertionError("run")

    monkeypatch.setattr(compared, "measure", never)
    monkeypatch.setattr(subprocess, "Popen", never)

    assert compared_with_fp32(parts, never, never) is None


@pytest.mark.parametrize(
    ("parts", "why"),
    [
        (parts_of(use_preprocessed_dataset=True), "there are no pictures to compare on, only tensors"),
        (parts_of(precision="fp32", fold=True, use_preprocessed_dataset=True), "there are no pictures to compare on"),
        (
            replace(parts_of(), spec=replace(parts_of().spec, task="maps")),
            "the task maps has nothing to compare them by",
        ),
        (parts_of(known="random"), "those of random weights mean nothing (--agreement 1000 "),
        (parts_of(known="random", agreement=0), "--agreement 0"),
    ],
)
def test_why_there_is_no_comparison_is_told(parts: Assembly, why: str) -> None:
    what = "answers" if parts.spec.task == "maps" else "labels"
    assert str(why_not_compared(parts)).startswith(f"the {what} are not compared with fp32: {why}")


@pytest.mark.parametrize(
    "parts",
    [
        parts_of(),
        parts_of(use_preprocessed_dataset=True, boundary="jpeg"),
        parts_of(precision="fp32", use_preprocessed_dataset=True),
        quantised(parts_of(use_preprocessed_dataset=True)),
        replace(parts_of(use_preprocessed_dataset=True), model=None),
        parts_of(known="random", agreement=20),
    ],
    ids=["compared", "pictures are read", "not reduced", "quantised already", "no model", "asked for"],
)
def test_where_there_is_one_or_nothing_to_compare_no_reason_is_told(parts: Assembly) -> None:
    assert why_not_compared(parts) is None


# Its process


def say(monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Let another process take the place of the one that compares; ``tell`` writes a line to the pipe."""
    start = subprocess.Popen
    prologue = "import os, sys, time\ntell = lambda text: os.write(int(sys.argv[1]), text.encode() + b'\\n')\n"

    def popen(arguments: list[str], **more: Any) -> Any:
        assert arguments[1:4] == ["-P", "-m", "sut.run.compared"]
        return start([sys.executable, "-S", "-c", prologue + script, arguments[-1]], **more)

    monkeypatch.setattr(subprocess, "Popen", popen)


@pytest.mark.parametrize(
    ("script", "kind", "said"),
    [
        ("""tell('{"event": "failed", "message": "not that option", "code": 1}')""", InputError, "not that option"),
        ("""tell('{"event": "failed", "message": "executes in fp32", "code": 2}')""", SetupError, "executes in fp32"),
        (
            """tell('{"event": "failed", "message": "out of luck", "code": 3}')""",
            RunError,
            "comparing int8, folded, with fp32 failed: out of luck",
        ),
    ],
)
def test_what_ends_it_ends_the_run_with_the_same_code(
    monkeypatch: pytest.MonkeyPatch, script: str, kind: type[Exception], said: str
) -> None:
    say(monkeypatch, script)

    with pytest.raises(kind) as failed:
        compared._compare_in_child(parts_of(fold=True), unheard)

    assert str(failed.value) == said


def test_its_progress_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[int, int]] = []
    say(monkeypatch, """for done in (20, 40): tell(f'{{"event": "step", "done": {done}, "total": 40}}')""")

    compared._compare_in_child(parts_of(), lambda *now: told.append(now))

    assert told == [(20, 40), (40, 40)]


@pytest.mark.parametrize(
    ("batch_s", "said"),
    [(1.0, ["comparing int8 takes about 48 s more; --agreement N sets the number of crops"]), (0.01, [])],
)
def test_how_long_it_takes_is_told_once_where_it_is_long(
    monkeypatch: pytest.MonkeyPatch, batch_s: float, said: list[str]
) -> None:
    now = 100.0
    monkeypatch.setattr(compared.time, "monotonic", lambda: now)
    heard: list[str] = []
    step = compared._forecasting("comparing int8", unheard, heard.append, "crops")

    for done in range(20, 1001, 20):
        step(done, 1000)
        now += batch_s

    assert heard == said


# Running samples


def samples(count: int) -> np.ndarray:
    found = np.zeros((count, *RECIPE.sample_shape), np.float32)
    found[:, 0, 0, 0] = np.arange(1, count + 1)
    return found


@pytest.mark.parametrize("axes", [(), (1, 1)], ids=["[n, classes]", "[n, classes, 1, 1]"])
@pytest.mark.parametrize(
    ("sizes", "given"),
    [(None, [11]), ((4,), [4, 4, 4]), ((1, 8), [8, 8]), ((16,), [16]), ((1, 2, 4, 8, 16, 32), [16])],
)
def test_each_sample_has_its_scores_whatever_batches_the_backend_takes(
    sizes: tuple[int, ...] | None, given: list[int], axes: tuple[int, ...]
) -> None:
    kept: list[Rounded] = []
    kind = backend(sizes=sizes, axes=axes, runner=lambda self: kept.append(self) or RoundedRunner(self))

    with ExitStack() as stack:
        found = compared.scores_of(parts_of(kind), stack)(samples(11), [WHOLE] * 11)

    assert found.shape == (11, CLASSES)
    assert found[:, 0].tolist() == list(range(1, 12))
    assert kept[0].given == given


def test_a_model_that_executes_in_another_precision_is_not_compared() -> None:
    with ExitStack() as stack, pytest.raises(SetupError, match="asked rounded for int8, but it executes in fp32"):
        compared.scores_of(parts_of(backend(executes="fp32")), stack)


def test_of_several_devices_the_first_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    class Enough(Exception):
        pass

    def assembled(config: RunConfig, **more: Any) -> Assembly:
        assert (config.device, config.affinity, config.lanes) == ("cuda:1", None, 1)
        raise Enough

    parts = parts_of(device="cuda:1,cuda:0", affinity="lanes=0/1", lanes=8)
    assert parts.model is not None
    monkeypatch.setattr(compared, "assemble", assembled)

    with Path(os.devnull).open("wb") as nobody, pytest.raises(Enough):
        compared._compare(
            to_text(compared.ComparisonOrders(parts.config, parts.model)), Teller(os.dup(nobody.fileno()))
        )


def test_a_model_that_changed_since_it_was_prepared_is_not_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SUT_CACHE_DIR", str(tmp_path / "cache"))
    recipe = tmp_path / "small.yaml"
    recipe.write_text("fit: crop-resize\ninterpolation: linear\n")
    model = write_classifier(tmp_path / "small.onnx")
    parts = assemble(RunConfig(model=str(model), recipe=str(recipe), fold=True))
    write_classifier(model, weight_name="other")

    with pytest.raises(RunError, match=f"comparing fp32, folded, with fp32 failed: the model changed .*: {model} has"):
        compared_with_fp32(parts, lambda text: None, lambda done, total: None)
    assert not list(tmp_path.glob("cache/*/*.json"))
