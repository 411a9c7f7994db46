"""The Python model in a server that is played, with the pipeline's real process behind it."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from sut.config import RunConfig
from sut.export.triton import export
from tests.unit.small_models import RECIPE_FILE, pictures, quiet, unheard, write_classifier

PICTURES = [*pictures(3)]
FILES = [cv2.imencode(".png", picture)[1].tobytes() for picture in PICTURES]


class TritonModelException(Exception):
    """As pb_utils has it."""


class Tensor:
    """As pb_utils has it."""

    def __init__(self, name: str, array: np.ndarray) -> None:
        self.name, self.array = name, array

    def as_numpy(self) -> np.ndarray:
        return self.array


class TritonError:
    """As pb_utils has it, its codes as words."""

    INVALID_ARG, INTERNAL, UNAVAILABLE = "invalid", "internal", "unavailable"

    def __init__(self, message: str, code: str) -> None:
        self.message, self.code = message, code


class InferenceResponse:
    """As pb_utils has it."""

    def __init__(self, tensors: list[Tensor] = [], error: TritonError | None = None) -> None:  # noqa: B006
        self.tensors, self.error = {each.name: each.array for each in tensors}, error


PB_UTILS = SimpleNamespace(
    Tensor=Tensor,
    TritonError=TritonError,
    TritonModelException=TritonModelException,
    InferenceResponse=InferenceResponse,
    get_input_tensor_by_name=lambda request, name: Tensor(name, request[name]),
)


@pytest.fixture
def home(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the small classifier, whose pipeline is exported there."""
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", PB_UTILS)  # type: ignore[arg-type]
    model = write_classifier(tmp_path / "small.onnx")
    (tmp_path / "small.yaml").write_text(RECIPE_FILE)
    config = RunConfig(
        model=str(model), recipe=str(tmp_path / "small.yaml"), boundary="jpeg", scenario="Server", threads=1
    )
    return export(config, "python", tmp_path / "models", overwrite=False, say=quiet, progress=unheard).folder


def module(home: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("model", home / "1/model.py")
    assert spec is not None and spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


@contextmanager
def served(home: Path, made: ModuleType | None = None) -> Iterator[Any]:
    model = (made or module(home)).TritonPythonModel()
    model.initialize({"model_config": json.dumps({"input": [{"name": "jpeg"}]})})
    try:
        yield model
    finally:
        model.finalize()


def request(*some: bytes) -> dict[str, np.ndarray]:
    rows = np.empty((len(some), 1), object)
    rows[:, 0] = some
    return {"jpeg": rows}


def test_any_python_that_a_server_may_have_reads_it(home: Path) -> None:
    ast.parse((home / "1/model.py").read_text(), feature_version=(3, 8))


def test_requests_go_to_the_pipeline_and_come_back_each_with_its_own(home: Path) -> None:
    with served(home) as model:
        three, broken, one = model.execute([request(*FILES), request(FILES[0], b"none"), request(FILES[1])])
        [again] = model.execute([request(FILES[1])])

    assert three.error is None and three.tensors["scores"].shape == (3, 10)
    np.testing.assert_array_equal(one.tensors["scores"], again.tensors["scores"])
    np.testing.assert_allclose(one.tensors["scores"][0], three.tensors["scores"][1], rtol=1e-5)
    assert (broken.error.code, broken.tensors) == ("invalid", {})
    assert broken.error.message.startswith("cannot decode: got text of 4 bytes that starts with 'none'")
    assert model.process.poll() == 0


def test_a_process_that_is_killed_fails_requests_with_what_to_do(home: Path) -> None:
    with served(home) as model:
        os.kill(model.process.pid, signal.SIGKILL)
        found = [model.execute([request(FILES[0]), request(FILES[1])]) for _ in range(2)]

    for answer in [each for answers in found for each in answers]:
        assert answer.error.code == "unavailable"
        assert answer.error.message.startswith("the pipeline's process has ended, exit code -9 (")
        assert answer.error.message.endswith("; load the model again, or start the server again")


def test_a_process_that_hangs_is_ended(home: Path) -> None:
    made = module(home)
    made.BATCH_S = 0.5  # type: ignore[attr-defined]
    with served(home, made) as model:
        os.kill(model.process.pid, signal.SIGSTOP)
        [answer] = model.execute([request(FILES[0])])

    assert answer.error.message == (
        "the pipeline's process has ended, exit code -9 (no answer within 0.5 s); "
        "load the model again, or start the server again"
    )


def test_why_a_pipeline_cannot_be_loaded_is_told(home: Path) -> None:
    model = home.parents[1] / "small.onnx"
    model.write_bytes(model.read_bytes() + b"\x12\x01x")  # the name of who made it

    with pytest.raises(TritonModelException) as raised, served(home):
        pass

    assert str(raised.value).startswith(f"the model changed since it was exported: {model} has the SHA-256 ")
    assert str(raised.value).endswith("; export it again")


def test_a_process_that_crashes_while_it_loads_is_told(home: Path) -> None:
    orders = json.loads((home / "1/pipeline.json").read_text())
    crash = [sys.executable, "-c", "import os; os._exit(7)"]
    (home / "1/pipeline.json").write_text(json.dumps(orders | {"command": crash}))

    with pytest.raises(TritonModelException) as raised, served(home):
        pass

    assert str(raised.value) in [
        f"the pipeline's process has ended, exit code {code} (its socket is closed)" for code in (7, -9)
    ]


def test_a_pipeline_whose_python_is_gone_is_told(home: Path) -> None:
    orders = json.loads((home / "1/pipeline.json").read_text())
    (home / "1/pipeline.json").write_text(json.dumps(orders | {"command": ["/no/python", "-P"]}))

    with pytest.raises(FileNotFoundError, match="/no/python"), served(home):
        pass
