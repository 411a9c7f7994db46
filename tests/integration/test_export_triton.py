"""``sut export triton --form python`` on the real Triton server: it answers as the pipeline does in our own process."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tritonclient.utils import InferenceServerException

from preprocess.base import unmarked
from preprocess.parts.decode import decode
from sut.config import SCENARIOS, RunConfig
from sut.datasets.demo import open_demo
from sut.pipeline.assembly import assemble
from tests.children import results, run_python, run_sut
from tests.integration.test_truth import right_in_all_scenarios
from tests.triton import Triton, triton_server
from tests.unit.small_models import RECIPE_FILE, write_classifier

pytestmark = pytest.mark.slow

MODEL = "efficientnet-lite0"
DEMO = open_demo()
FILES = [DEMO.read(index) for index in range(DEMO.count)]
KINDS = {"object": "BYTES", "uint8": "UINT8", "float32": "FP32"}
PROTOCOLS = ("grpc", "http")
BROKEN = {"grpc": "INVALID_ARGUMENT", "http": "[400]"}


@cache
def in_process() -> tuple[np.ndarray, np.ndarray]:
    """Tensors and logits of the demo photos, one after the other, without any server; all labels are right."""
    parts = assemble(RunConfig(model=MODEL))
    with ExitStack() as stack:
        backend = stack.enter_context(parts.load_backend())
        runner = stack.enter_context(backend.runner())
        preprocessor = stack.enter_context(parts.preprocessor_for(parts.spec.recipe))
        tensors, logits = list[np.ndarray](), list[np.ndarray]()
        for file in FILES:
            slot = runner.slot(1)
            preprocessor.run([file], slot, unmarked)
            tensors.append(slot.buffers["images"].copy())
            logits.append(np.array(runner.infer(slot)["logits"]))
    assert np.concatenate(logits).argmax(1).tolist() == np.asarray(DEMO.truth).tolist()
    return np.concatenate(tensors), np.concatenate(logits)


def export(tmp_path: Path, *options: str | Path, **environment: str) -> Path:
    """A model repository, or one more model in it."""
    repository = tmp_path / "models"
    command = ("-P", "-m", "sut", "export", "triton", "--output", repository)
    child = run_python(*command, *options, cwd=tmp_path, **environment)
    assert child.code == 0, child.err
    return repository


@contextmanager
def serving(tmp_path: Path, *options: str) -> Iterator[Triton]:
    with triton_server(export(tmp_path, *options), tmp_path) as triton:
        yield triton


class Client:
    """tritonclient's, over gRPC or HTTP."""

    def __init__(self, protocol: str, triton: Triton, model: str = MODEL) -> None:
        self.kinds = import_module(f"tritonclient.{protocol}")
        self.server: Any = self.kinds.InferenceServerClient(getattr(triton, protocol))
        self._model = model
        self._limits = {"client_timeout": 60} if protocol == "grpc" else {}  # HTTP has that by itself

    def infer(self, name: str, rows: np.ndarray) -> Any:
        return self.server.infer(self._model, [self._input(name, rows)], **self._limits)

    def infer_all(self, name: str, requests: Sequence[np.ndarray]) -> list[Any]:
        """Asked at once, over HTTP: what a request comes to, or its error."""
        waiting = [self.server.async_infer(self._model, [self._input(name, rows)]) for rows in requests]
        found = list[Any]()
        for each in waiting:
            try:
                found.append(each.get_result(timeout=60))
            except InferenceServerException as error:
                found.append(error)
        return found

    def refused(self, name: str, rows: np.ndarray) -> str:
        with pytest.raises(InferenceServerException) as raised:
            self.infer(name, rows)
        return str(raised.value)

    def _input(self, name: str, rows: np.ndarray) -> Any:
        asked = self.kinds.InferInput(name, rows.shape, KINDS[rows.dtype.name])
        asked.set_data_from_numpy(rows)
        return asked


def files(some: Sequence[bytes]) -> np.ndarray:
    rows = np.empty((len(some), 1), object)
    rows[:, 0] = some
    return rows


def check(logits: np.ndarray, expected: np.ndarray) -> None:
    assert logits.argmax(1).tolist() == expected.argmax(1).tolist()
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4)


def test_photos_are_answered_as_in_our_own_process_and_a_broken_one_fails_alone(tmp_path: Path) -> None:
    expected = in_process()[1]
    cut_off = FILES[1][:2000]

    with serving(tmp_path, "--boundary", "jpeg", "--max-batchsize", "4", "--max-wait", "20", "--lanes", "2") as triton:
        for protocol in PROTOCOLS:
            client = Client(protocol, triton)
            check(np.concatenate([client.infer("jpeg", files([file])).as_numpy("logits") for file in FILES]), expected)
            check(client.infer("jpeg", files(FILES[:4])).as_numpy("logits"), expected[:4])
            told = client.refused("jpeg", files([FILES[0], cut_off]))
            assert BROKEN[protocol] in told and "got a JPEG of 2000 bytes" in told and told.endswith("(row 1)")
            assert "batch-size must be <= 4" in client.refused("jpeg", files(FILES[:5]))
            assert "expects 'BYTES'" in client.refused("jpeg", np.zeros((1, 1), np.float32))
        at_once = [files([file]) for file in (FILES[0], cut_off, FILES[2], b"", FILES[4])]
        found = Client("http", triton).infer_all("jpeg", at_once)
        assert len(triton.pids("sut.export.triton_worker")) == 2

    check(np.concatenate([found[n].as_numpy("logits") for n in (0, 2, 4)]), expected[[0, 2, 4]])
    assert "got a JPEG of 2000 bytes" in str(found[1]) and "got 0 bytes" in str(found[3])


@pytest.mark.parametrize(
    ("boundary", "preprocess", "scenarios"), [("jpeg", "server", SCENARIOS), ("tensor", "opencv", SCENARIOS[:1])]
)
def test_loadgen_asks_it_in_all_scenarios(
    tmp_path: Path, boundary: str, preprocess: str, scenarios: Sequence[str]
) -> None:
    (tmp_path / "small.yaml").write_text(RECIPE_FILE)
    small = ("--model", write_classifier(tmp_path / "small.onnx"), "--recipe", tmp_path / "small.yaml")
    export(tmp_path, *small, "--boundary", boundary)

    with serving(tmp_path, "--boundary", boundary) as triton:
        kserve = ("--backend", "kserve", "--device", f"grpc://{triton.grpc}", "--boundary", boundary)
        how = (*kserve, "--preprocess", preprocess, "--scenario")
        timed = run_sut(*how, ",".join(scenarios), *small, "--time", "1", "--max-latency", "10", cwd=tmp_path)
        scored = run_sut(*how, "all", "--accuracy", cwd=tmp_path)

    assert (timed.code, scored.code) == (0, 0), timed.err + scored.err
    right_in_all_scenarios(tmp_path)
    found = results(tmp_path)
    assert {key[0] for key, result in found.items() if result["valid"] and key[1] == "performance"} == {*scenarios}


def test_tensors_are_answered_as_in_our_own_process(tmp_path: Path) -> None:
    tensors, expected = in_process()

    with serving(tmp_path, "--boundary", "tensor", "--max-batchsize", "8") as triton:
        for protocol in PROTOCOLS:
            client = Client(protocol, triton)
            check(client.infer("images", tensors[:8]).as_numpy("logits"), expected[:8])
            check(client.infer("images", tensors[8:]).as_numpy("logits"), expected[8:])
            told = client.refused("images", tensors[:1, :, :200])
            assert "unexpected shape" in told and "[-1,3,224,224]" in told


def test_pixels_of_any_size_are_answered_as_in_our_own_process(tmp_path: Path) -> None:
    pictures = [np.ascontiguousarray(decode(file)[None, ..., ::-1]) for file in FILES]  # RGB
    assert len({picture.shape for picture in pictures}) > 1

    with serving(tmp_path, "--boundary", "pixels", "--max-batchsize", "4", "--max-wait", "50") as triton:
        found = Client("http", triton).infer_all("pixels", pictures)
        one_by_one = [Client("grpc", triton).infer("pixels", picture) for picture in pictures]

    for answers in (found, one_by_one):
        check(np.concatenate([each.as_numpy("logits") for each in answers]), in_process()[1])


def test_a_model_of_labels_has_a_column_of_them(tmp_path: Path) -> None:
    with serving(tmp_path, "--model", "resnet50", "--weights", "random", "--max-batchsize", "2") as triton:
        found = Client("grpc", triton, "resnet50").infer("input_tensor:0", np.zeros((2, 3, 224, 224), np.float32))

    assert found.as_numpy("ArgMax:0").shape == (2, 1)
    assert found.as_numpy("softmax_tensor:0").argmax(1).tolist() == found.as_numpy("ArgMax:0")[:, 0].tolist()


def test_a_pipeline_whose_process_is_killed_fails_its_requests_and_not_the_server(tmp_path: Path) -> None:
    with serving(tmp_path, "--boundary", "jpeg") as triton:
        client = Client("grpc", triton)
        check(client.infer("jpeg", files(FILES[:1])).as_numpy("logits"), in_process()[1][:1])
        [worker] = triton.pids("sut.export.triton_worker")
        os.kill(worker, signal.SIGKILL)

        for _ in range(2):
            told = client.refused("jpeg", files(FILES[:1]))
            assert "the pipeline's process has ended, exit code -9" in told and "load the model again" in told
        assert client.server.is_server_live()


def test_a_model_that_was_changed_since_is_not_served(tmp_path: Path) -> None:
    repository = export(tmp_path, SUT_CACHE_DIR=str(tmp_path))
    [model] = tmp_path.rglob("*.onnx")
    model.write_bytes(model.read_bytes() + b"\x12\1x")  # the name of who made it

    told = r"the model changed since it was exported: \S+ has the SHA-256 \w+, expected \w+; export it again"
    with pytest.raises(AssertionError, match=told), triton_server(repository, tmp_path):
        pass
