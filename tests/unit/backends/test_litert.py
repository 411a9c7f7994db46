"""LiteRT answers as ONNX Runtime does, at any batch size and in lanes at once, and says what executes."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from backends import registry
from backends.base import ModelFile, Runner, Slot
from backends.litert import LiteRt
from plugins.errors import DeviceNotFound
from tests.unit.small_models import SIZE, scores
from tests.unit.tflite_models import TfliteGraph, small_samples, write_tflite

COUNT = 40


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("tflite")
    kinds: dict[str, dict[str, Any]] = {
        "floats": {},
        "fixed": {"batch": 4},
        "labels": {"labels": True},
        "int8": {"int8": True},
        "int8 within": {"int8": True, "floats": True},
        "dynamic": {"dynamic": True},
    }
    return {kind: write_tflite(folder / f"{kind}.tflite", **told) for kind, told in kinds.items()}


@pytest.fixture(scope="module")
def samples() -> NDArray[np.float32]:
    return small_samples(COUNT, seed=9)


@pytest.fixture(scope="module")
def truth(files: dict[str, Path], samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """ONNX Runtime's scores from the file that the others are converted from."""
    return scores(files["floats"].with_suffix(".onnx"), np.ascontiguousarray(samples.transpose(0, 3, 1, 2)))


def load(path: Path, lanes: int = 1, threads: int = 1, **options: Any) -> LiteRt:
    return LiteRt.load(ModelFile(path), "cpu", lanes, threads, options)


def run(runner: Runner, rows: NDArray[np.float32], padded: int | None = None) -> NDArray[Any]:
    slot = runner.slot(padded or len(rows))
    [buffer] = slot.buffers.values()
    buffer[: len(rows)] = rows
    [found] = runner.infer(slot).values()
    return np.array(found[: len(rows)])


def test_scores_are_onnxruntimes_at_every_batch_size(files: dict[str, Path], samples: Any, truth: Any) -> None:
    with load(files["floats"]) as backend, backend.runner() as runner:
        assert backend.batch_sizes is None
        for rows in (1, 8, 3, 1, COUNT):
            found = run(runner, samples[:rows])
            np.testing.assert_allclose(found, truth[:rows], atol=1e-4 * np.ptp(truth))
            assert (found.argmax(1) == truth[:rows].argmax(1)).all()


def test_a_file_of_a_fixed_batch_has_one_batch_size(files: dict[str, Path], samples: Any, truth: Any) -> None:
    with load(files["fixed"]) as backend, backend.runner() as runner:
        assert backend.batch_sizes == (4,)
        assert (run(runner, samples[:3], padded=4).argmax(1) == truth[:3].argmax(1)).all()


def test_labels_that_it_computes_are_onnxruntimes(files: dict[str, Path], samples: Any, truth: Any) -> None:
    with load(files["labels"]) as backend, backend.runner() as runner:
        assert (run(runner, samples) == truth.argmax(1)).all()


@pytest.mark.parametrize("kind", ["int8", "int8 within", "dynamic"])
def test_integers_become_the_numbers_they_stand_for(
    files: dict[str, Path], samples: Any, truth: Any, kind: str
) -> None:
    with load(files[kind]) as backend, backend.runner() as runner:
        found = run(runner, samples)
        specs = (*backend.inputs, *backend.outputs)

    assert [spec.dtype for spec in specs] == ["float32", "float32"]
    assert np.abs(found - truth).max() < 0.05 * np.ptp(truth)
    assert (found.argmax(1) == truth.argmax(1)).mean() > 0.8


def test_inputs_are_rounded_and_cut_off_as_the_file_says(tmp_path: Path) -> None:
    graph = TfliteGraph()
    graph.tensor("small", "uint8", (None, 4))
    graph.scaled("small", 0.5, zero=100)
    graph.tensor("same", "uint8", (None, 4))
    graph.scaled("same", 0.5, zero=100)
    graph.tensor("shape", "int32", (2,), np.array([-1, 4]))
    graph.node("RESHAPE", ["small", "shape"], "same")

    with load(graph.save(tmp_path / "same.tflite", ["small"], ["same"])) as backend, backend.runner() as runner:
        found = run(runner, np.float32([[0.7, -0.3, 1000, -1000]]))

    assert found.tolist() == [[0.5, -0.5, 77.5, -50]]


@pytest.mark.parametrize(
    ("kind", "provider", "precision", "delegated"),
    [
        ("floats", "XNNPACK", "fp32", "5 of 5 operators"),
        ("labels", "XNNPACK+LiteRT kernels", "fp32", "5 of 6 operators"),
        ("int8", "XNNPACK", "int8", "5 of 5 operators"),
        ("dynamic", "XNNPACK+LiteRT kernels", "int8", "4 of 5 operators"),
    ],
)
def test_what_executes_is_attested(
    files: dict[str, Path], kind: str, provider: str, precision: str, delegated: str
) -> None:
    with load(files[kind], threads=2) as backend:
        found = backend.attest()

    assert (found.device, found.provider, found.precision) == ("cpu", provider, precision)
    assert found.details["delegated"] == delegated
    assert found.details["not_delegated"] == {"labels": "ARG_MAX: 1", "dynamic": "DEPTHWISE_CONV_2D: 1"}.get(
        kind, "none"
    )
    assert found.details["operators"] == "CONV_2D: 2, DEPTHWISE_CONV_2D: 1, FULLY_CONNECTED: 1"
    assert found.details["num_threads"] == "2"


def test_arithmetic_not_operators_decides_the_precision(tmp_path: Path) -> None:
    graph = TfliteGraph()
    graph.tensor("images", "float32", (None, SIZE, SIZE, 3))
    graph.tensor("axes", "int32", (2,), np.array([1, 2]))
    graph.tensor("mean", "float32", (None, 3))
    graph.node("MEAN", ["images", "axes"], "mean")
    graph.tensor("small", "int8", (2, 3), np.ones((2, 3)))
    graph.scaled("small", 1.0)
    graph.tensor("two", "float32", (None, 2))
    graph.node("FULLY_CONNECTED", ["mean", "small"], "two")
    graph.tensor("large", "float32", (100, 2), np.ones((100, 2)))
    graph.tensor("many", "float32", (None, 100))
    graph.node("FULLY_CONNECTED", ["two", "large"], "many")

    with load(graph.save(tmp_path / "mixed.tflite", ["images"], ["many"])) as backend:
        found = backend.attest()

    assert found.precision == "fp32+int8"
    assert found.details["multiply_accumulates"] == "fp32: 97.1 %, int8: 2.9 %"


def test_two_lanes_at_once_answer_as_one_alone(files: dict[str, Path], samples: Any) -> None:
    with load(files["floats"], lanes=2) as backend, backend.runner() as first, backend.runner() as second:
        alone = [run(first, samples[at : at + 4]) for at in range(0, COUNT, 4)]

        def all_of(runner: Runner) -> list[NDArray[Any]]:
            return [run(runner, samples[at : at + 4]) for at in range(0, COUNT, 4)]

        with ThreadPoolExecutor(2) as pool:
            found = list(pool.map(all_of, (first, second)))

    for answers in found:
        np.testing.assert_array_equal(answers, alone)


def test_host_arrays_are_read_that_it_did_not_lend(files: dict[str, Path], samples: Any, truth: Any) -> None:
    mine = samples[:2].copy()
    mine.flags.writeable = False

    with load(files["floats"]) as backend, backend.runner() as runner:
        found = runner.infer(Slot(2, {"images": mine}))["scores"]

    assert backend.reads_host_arrays
    assert (found.argmax(1) == truth[:2].argmax(1)).all()


def test_an_error_stays_in_its_batch(tmp_path: Path) -> None:
    """A graph that says it takes any batch, and reshapes to one row."""
    graph = TfliteGraph()
    graph.tensor("images", "float32", (None, 2, 2, 3))
    graph.tensor("shape", "int32", (2,), np.array([1, 12]))
    graph.tensor("flat", "float32", (None, 12))
    graph.node("RESHAPE", ["images", "shape"], "flat")
    row = np.arange(12, dtype=np.float32).reshape(1, 2, 2, 3)

    with load(graph.save(tmp_path / "picky.tflite", ["images"], ["flat"])) as backend, backend.runner() as runner:
        for _ in range(2):
            with pytest.raises((RuntimeError, ValueError)):
                run(runner, np.repeat(row, 2, axis=0))
            np.testing.assert_array_equal(run(runner, row), row.reshape(1, 12))


def test_axes_that_the_file_leaves_open_are_closed(tmp_path: Path) -> None:
    graph = TfliteGraph()
    graph.tensor("images", "float32", (None, None, None, 3))
    graph.tensor("axes", "int32", (2,), np.array([1, 2]))
    graph.tensor("mean", "float32", (None, 3))
    graph.node("MEAN", ["images", "axes"], "mean")
    path = graph.save(tmp_path / "open.tflite", ["images"], ["mean"])

    with LiteRt.load(ModelFile(path, sample_shape=(SIZE, SIZE, 3)), "cpu", 1, 1) as backend:
        assert backend.inputs[0].shape == (None, SIZE, SIZE, 3)
        with backend.runner() as runner:
            assert run(runner, np.ones((2, SIZE, SIZE, 3), np.float32)).tolist() == [[1, 1, 1], [1, 1, 1]]


def test_what_it_cannot_run_is_refused_in_one_line(tmp_path: Path, files: dict[str, Path]) -> None:
    graph = TfliteGraph()
    graph.tensor("one", "float32", (1, 4))
    graph.tensor("two", "float32", (1, 4))
    graph.node("NobodysOperator", ["one"], "two")
    unknown = graph.save(tmp_path / "unknown.tflite", ["one"], ["two"])
    cut = tmp_path / "cut.tflite"
    cut.write_bytes(files["floats"].read_bytes()[:2000])

    for path, said in (
        (unknown, "tflite cannot run it: .*NobodysOperator"),
        (cut, "tflite cannot run it: .*valid Flat"),
    ):
        with pytest.raises(ValueError, match=said) as refused:
            load(path)
        assert "\n" not in str(refused.value)


def test_devices_and_options_that_it_does_not_have_are_refused(files: dict[str, Path]) -> None:
    with pytest.raises(DeviceNotFound, match="tflite has no device 'cuda' here; it runs on cpu"):
        LiteRt.load(ModelFile(files["floats"]), "cuda", 1, 1)
    with pytest.raises(ValueError, match="tflite has no option 'hint'; it has none"):
        load(files["floats"], hint="latency")
    assert registry.load("tflite") is LiteRt


def test_a_missing_package_is_named(files: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "ai_edge_litert.interpreter", raising=False)
    monkeypatch.setitem(sys.modules, "ai_edge_litert", None)

    with pytest.raises(ModuleNotFoundError, match="the backend tflite needs LiteRT: pip install ai-edge-litert"):
        LiteRt.version()
    with pytest.raises(ModuleNotFoundError, match="needs LiteRT"):
        load(files["floats"])
