"""TensorRT on a GPU that is not there: engines, contexts and graphs over its memory and streams."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from backends import tensorrt
from backends.base import ModelFile
from backends.tensorrt import TensorRt
from plugins.errors import DeviceNotFound
from sut.models.precision.calibration import preprocessed
from tests.fake_gpu import FakeDriver, unplug
from tests.fake_tensorrt import FakeTensorRt, plug_in
from tests.unit.small_models import RECIPE, SIZE, pictures, scores, write_classifier

BATCHES = (4, 1, 4, 8, 2, 4)
_REAL = {name: vars(tensorrt)[name] for name in ("installed_driver", "build_engine")}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ModelFile:
    return ModelFile(
        write_classifier(tmp_path_factory.mktemp("gpu") / "small.onnx"), "fp32", (3, SIZE, SIZE), largest_batch=8
    )


@pytest.fixture(scope="module")
def samples() -> NDArray[np.float32]:
    return preprocessed(pictures(sum(BATCHES), 9), sum(BATCHES), RECIPE)


@pytest.fixture(scope="module")
def truth(model: ModelFile, samples: NDArray[np.float32]) -> NDArray[np.float32]:
    assert model.path is not None
    return scores(model.path, samples)


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeTensorRt]:
    monkeypatch.setenv("SUT_CACHE_DIR", str(tmp_path / "cache"))
    made = plug_in(FakeDriver())
    yield made
    unplug()
    vars(tensorrt).update(_REAL)
    del sys.modules["tensorrt"]
    assert made.driver.lost or not made.driver.memory, "memory was left on the GPU"


def load(model: ModelFile, **options: Any) -> TensorRt:
    return TensorRt.load(model, "cuda", 1, 1, options)


def answers(backend: TensorRt, runner: Any, samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """Of all samples, in ``BATCHES``; those for a slot on the GPU come on another stream, behind an event."""
    found, at = [], 0
    for n in BATCHES:
        slot, rows = runner.slot(n), np.ascontiguousarray(samples[at : at + n])
        [buffer] = slot.buffers.values()
        if slot.place == "cuda:0":
            device = backend._gpu.device
            stream = device.new_stream()
            device.write(buffer.__cuda_array_interface__["data"][0], rows, stream)
            slot.ready = device.signal(stream)
        else:
            buffer[:] = rows
        found.append(np.array(runner.infer(slot)["scores"]))
        at += n
    return np.concatenate(found)


@pytest.mark.parametrize("place", ["cuda:0", "pinned", "host"])
@pytest.mark.parametrize("graphs", [True, False])
def test_each_batch_has_its_own_answers(
    fake: FakeTensorRt, model: ModelFile, samples: Any, truth: Any, graphs: bool, place: str
) -> None:
    with load(model, graphs=graphs) as backend, backend.runner(place) as runner:
        np.testing.assert_allclose(answers(backend, runner, samples), truth, atol=1e-5 * np.ptp(truth))
        assert runner.transfers_ns[1] > 0 and backend.batch_sizes == (1, 2, 4, 8)
        assert backend.attest().details["cuda_graphs"] == ("one for each batch size" if graphs else "off")


def test_an_engine_is_built_once_for_each_version_and_gpu(fake: FakeTensorRt, model: ModelFile) -> None:
    load(model).close()
    load(model).close()
    assert len(fake.builds) == 1
    load(model, tf32=True).close()
    other = plug_in(fake.driver, version="11.5.0")
    load(model).close()

    assert len(fake.builds) == 2 and len(other.builds) == 1


def test_a_batch_that_no_profile_covers_is_refused_with_what_to_set(fake: FakeTensorRt, model: ModelFile) -> None:
    with load(model) as backend, backend.runner("pinned") as runner:
        slot = runner.slot(16)
        with pytest.raises(
            ValueError, match=r"no profile .* covers a batch of 16, but 1, 2, 4, 8: load it with --max-batchsize 16"
        ):
            runner.infer(slot)


def test_a_batch_that_does_not_fit_names_one_that_does(fake: FakeTensorRt, model: ModelFile) -> None:
    fake.fails_at = lambda rows: rows > 2
    with load(model) as backend, backend.runner("pinned") as runner:
        slot = runner.slot(8)
        with pytest.raises(ValueError, match=r"a batch of 8 does not fit .*; 2 fits: --max-batchsize 2"):
            runner.infer(slot)


@pytest.mark.parametrize("device", ["cpu", "cuda:1", "gpu0"])
def test_another_device_is_refused(fake: FakeTensorRt, model: ModelFile, device: str) -> None:
    with pytest.raises(DeviceNotFound):
        TensorRt.load(model, device, 1, 1)
