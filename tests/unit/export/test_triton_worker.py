"""Requests as one batch: each has its own rows of the outputs, and what is wrong with one is no other's fault."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from backends.base import Runner, Slot
from preprocess.base import unmarked
from sut.config import RunConfig
from sut.export.triton_worker import Refusal, answers
from sut.pipeline.assembly import assemble
from sut.serve.engine import Engine
from tests.unit.small_models import RECIPE_FILE, SIZE, pictures, scores, write_classifier

PICTURES = [*pictures(6)]
FILES = [cv2.imencode(".png", picture)[1].tobytes() for picture in PICTURES]


class Bench:
    """The small classifier behind an engine, and what ONNX Runtime itself makes of the pictures."""

    def __init__(self, folder: Path, stack: ExitStack, batch: int | None = None, **settings: Any) -> None:
        model = write_classifier(folder / "small.onnx", batch=batch)
        (folder / "small.yaml").write_text(RECIPE_FILE)
        known = {"model": str(model), "recipe": str(folder / "small.yaml"), "scenario": "Server"}
        config = RunConfig(**{**known, "threads": 1, "lanes": 1, "max_batchsize": 8, **settings})
        parts = assemble(config)
        self.engine = stack.enter_context(Engine(config, parts))
        self.engine.warm(None)
        slot = Slot(6, {"images": np.empty((6, 3, SIZE, SIZE), np.float32)})
        parts.preprocessor_for(parts.spec.recipe).run(FILES, slot, unmarked)
        self.tensors = slot.buffers["images"]
        alike = write_classifier(folder / "any_batch.onnx")
        self.expected = np.concatenate([scores(alike, row[None]) for row in self.tensors])

    def check(self, requests: Sequence[np.ndarray], numbers: Sequence[Sequence[int]]) -> None:
        """Each request has the scores of these pictures, or none where there are none."""
        for answer, rows in zip(answers(self.engine, requests), numbers, strict=True):
            assert isinstance(answer, Refusal) is not bool(rows), answer
            if not isinstance(answer, Refusal):
                np.testing.assert_allclose(answer["scores"], self.expected[list(rows)], rtol=1e-4, atol=1e-5)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as opened:
        yield opened


def files(*numbers: int) -> np.ndarray:
    rows = np.empty((len(numbers), 1), object)
    rows[:, 0] = [FILES[number] for number in numbers]
    return rows


def test_each_request_has_the_outputs_of_its_own_rows(tmp_path: Path, cache: Path, stack: ExitStack) -> None:
    bench = Bench(tmp_path, stack, boundary="jpeg")
    bench.check([files(0, 1), files(2), files(5, 4, 3)], [[0, 1], [2], [5, 4, 3]])
    bench.check([files(3)], [[3]])


def test_what_comes_together_is_one_batch(
    tmp_path: Path, cache: Path, stack: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(tmp_path, stack, boundary="jpeg")
    sizes = list[int]()
    infer = type(bench.engine.backend.runner()).infer

    def noted(runner: Runner, slot: Slot) -> Any:
        sizes.append(slot.n)
        return infer(runner, slot)

    monkeypatch.setattr(type(bench.engine.backend.runner()), "infer", noted)
    bench.check([files(0, 1), files(2), files(5, 4, 3)], [[0, 1], [2], [5, 4, 3]])

    assert sizes == [6]


def test_tensors_and_pixels_are_asked_alike(tmp_path: Path, cache: Path, stack: ExitStack) -> None:
    bench = Bench(tmp_path, stack)
    bench.check([bench.tensors[:2], bench.tensors[4:5]], [[0, 1], [4]])

    (tmp_path / "pixels").mkdir()
    bench = Bench(tmp_path / "pixels", stack, boundary="pixels")
    rgb = [picture[..., ::-1] for picture in PICTURES]  # as a server is sent them; the files hold BGR
    bench.check([np.stack(rgb[:2]), np.stack(rgb[4:5])], [[0, 1], [4]])


def test_a_model_of_one_batch_size_is_padded(tmp_path: Path, cache: Path, stack: ExitStack) -> None:
    bench = Bench(tmp_path, stack, boundary="jpeg", batch=4)
    bench.check([files(0, 1), files(2)], [[0, 1], [2]])


def test_what_is_no_picture_fails_its_request_alone(tmp_path: Path, cache: Path, stack: ExitStack) -> None:
    bench = Bench(tmp_path, stack, boundary="jpeg")
    broken, cut_off = files(0), files(1, 2)
    broken[0, 0], cut_off[1, 0] = b"", FILES[2][:60]
    empty = np.empty((0, 1), object)
    requests = [broken, files(3), cut_off, files(4), empty]

    first, _, third, _, last = answers(bench.engine, requests)

    assert first == Refusal("cannot decode: got 0 bytes, expected a picture file", True)
    assert isinstance(third, Refusal) and third.of_request and third.reason.endswith("(row 1)")
    assert isinstance(last, Refusal) and last.of_request and last.reason.startswith("got an empty tensor")
    bench.check(requests, [[], [3], [], [4], []])
    bench.check([empty], [[]])


def test_a_pipeline_that_raises_fails_the_whole_batch_and_goes_on(
    tmp_path: Path, cache: Path, stack: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(tmp_path, stack)

    def broken(runner: Runner, slot: Slot) -> Any:
        raise RuntimeError("no more memory")

    with monkeypatch.context() as patch:
        patch.setattr(type(bench.engine.backend.runner()), "infer", broken)
        found = answers(bench.engine, [bench.tensors[:1], bench.tensors[1:3]])

    reason = "RuntimeError: no more memory"
    assert found == [Refusal(reason, False), Refusal(f"{reason} (row 0)", False)]
    bench.check([bench.tensors[:1]], [[0]])
