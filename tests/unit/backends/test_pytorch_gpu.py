"""PyTorch on a GPU that is not there: real operators, which compute nothing until somebody waits for them."""

from __future__ import annotations

import inspect
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from backends import pytorch
from backends.base import ModelFile
from backends.pytorch import PyTorch
from backends.pytorch_gpu import PyTorchGpuRunner
from kernels.device import DeviceError
from plugins.driver import Installed
from plugins.errors import DeviceNotFound
from sut.models.precision.calibration import preprocessed
from sut.models.precision.fold import fold
from tests.core import module_needs
from tests.fake_gpu import FakeDriver, plug_in, unplug
from tests.unit.backends.gpu_batches import BATCHES, answers
from tests.unit.small_models import RECIPE, SIZE, pictures, quiet, write_classifier

module_needs("pytorch")

import torch  # noqa: E402

from tests.fake_torch import FakeCuda, FakeTorch, on_gpu  # noqa: E402


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ModelFile:
    return ModelFile(write_classifier(tmp_path_factory.mktemp("gpu") / "small.onnx"), "fp32", (3, SIZE, SIZE))


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeDriver]:
    made = FakeDriver()
    plug_in(made)
    monkeypatch.setattr(pytorch, "_import", pytorch._import)  # put back what ``on_gpu`` exchanges
    yield made
    unplug()


@pytest.fixture
def gpu(driver: FakeDriver) -> Iterator[type[PyTorch]]:
    yield on_gpu(driver)
    assert driver.lost or not driver.memory, "memory was left on the GPU"


def load(gpu: type[PyTorch], model: ModelFile, precision: str = "fp32", **options: Any) -> PyTorch:
    return gpu.load(ModelFile(model.path, precision, model.sample_shape), "cuda", 1, 1, options)


@pytest.mark.parametrize("place", ["cuda:0", "pinned", "host"])
@pytest.mark.parametrize("mode", ["eager", "graphs"])
def test_each_batch_has_its_own_answers(
    gpu: type[PyTorch], model: ModelFile, samples: Any, truth: Any, mode: str, place: str
) -> None:
    with load(gpu, model, mode=mode) as backend, backend.runner(place) as runner:
        np.testing.assert_allclose(answers(backend, runner, samples), truth, atol=1e-5 * np.ptp(truth))
        assert runner.transfers_ns[1] > 0

    assert backend.places == ("cuda:0", "pinned", "host")
    assert backend.transfers and not backend.reads_host_arrays


def test_another_gpu_than_the_first(driver: FakeDriver, model: ModelFile, samples: Any, truth: Any) -> None:
    second = FakeDriver(index=1)
    plug_in(second)
    with (
        on_gpu(second).load(model, "cuda:1", 1, 1, {"mode": "graphs"}) as backend,
        backend.runner("pinned") as runner,
    ):
        np.testing.assert_allclose(answers(backend, runner, samples), truth, atol=1e-5 * np.ptp(truth))
        assert (backend.attest().device, backend.places[0]) == ("cuda:1", "cuda:1")


@pytest.mark.parametrize(("precision", "within"), [("fp16", 0.01), ("bf16", 0.1)])
def test_half_precision_is_computed_in_and_answered_as_float32(
    gpu: type[PyTorch], model: ModelFile, samples: Any, truth: Any, precision: str, within: float
) -> None:
    with load(gpu, model, precision, mode="graphs") as backend, backend.runner("pinned") as runner:
        found, attested = answers(backend, runner, samples), backend.attest()

    assert (found.dtype.name, attested.precision, attested.device) == ("float32", precision, "cuda:0")
    assert 0 < np.abs(found - truth).max() < within * np.ptp(truth)


def test_graphs_are_captured_once_for_each_batch_size_until_the_buffers_grow(
    gpu: Any, model: ModelFile, samples: Any
) -> None:
    with load(gpu, model, mode="graphs") as backend, backend.runner("pinned") as runner:
        answers(backend, runner, samples)
        captures = gpu.torch.cuda.captures

    # 4 and 1; then, with larger buffers, 8, 2 and 4.
    assert [capture["pool"] is None for capture in captures] == [True, False, True, False, False]
    assert {capture["stream"] for capture in captures} == {runner.stream}
    assert {capture["capture_error_mode"] for capture in captures} == {"thread_local"}
    # The weights were loaded on the default stream, which those of the lanes do not wait for.
    assert gpu.torch.cuda.started == ["synchronize", *["replay"] * len(BATCHES)]


def test_what_no_graph_can_capture_is_refused_when_it_is_loaded(gpu: Any, tmp_path: Path) -> None:
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 3, 4, 4]) for name in ("images", "same")]
    shape = numpy_helper.from_array(np.array([-1, 3, 4, 4], np.int64), "shape")
    node = helper.make_node("Reshape", ["images", "shape"], ["same"])
    graph = helper.make_graph([node], "reshape", ends[:1], ends[1:], [shape])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), tmp_path / "reshape.onnx")
    model = ModelFile(tmp_path / "reshape.onnx", "fp32", (3, 4, 4))

    with load(gpu, model) as backend:
        assert backend.places[0] == "cuda:0"
    with pytest.raises(ValueError, match=r"reshape.onnx: .*CUDA graphs are for .*Reshape.*leave out --set"):
        load(gpu, model, mode="graphs")


def test_a_folded_input_is_bytes_on_the_gpu_too(gpu: Any, model: ModelFile, truth: Any, samples: Any) -> None:
    assert model.path is not None
    path, recipe = fold(model.path, RECIPE, quiet)
    given = preprocessed(pictures(sum(BATCHES), 9), sum(BATCHES), recipe)
    assert given.dtype == np.uint8

    with load(gpu, ModelFile(path, "fp32", given.shape[1:])) as backend, backend.runner("cuda:0") as runner:
        np.testing.assert_allclose(answers(backend, runner, given), truth, atol=0.02 * np.ptp(truth))


def test_lanes_capture_one_after_the_other_and_answer_at_once(
    gpu: type[PyTorch], model: ModelFile, samples: Any, truth: Any
) -> None:
    found: dict[int, Any] = {}
    with load(gpu, model, mode="graphs") as backend:

        def lane(number: int) -> None:
            with backend.runner("pinned") as runner:
                found[number] = answers(backend, runner, samples)

        threads = [threading.Thread(target=lane, args=(number,)) for number in range(3)]
        for each in threads:
            each.start()
        for each in threads:
            each.join(60)

    for number in range(3):
        np.testing.assert_allclose(found[number], truth, atol=1e-5 * np.ptp(truth))


@pytest.mark.parametrize("tf32", [False, True])
def test_tf32_is_off_unless_asked_for_and_what_pytorch_says_is_attested(
    gpu: type[PyTorch], model: ModelFile, tf32: bool
) -> None:
    with load(gpu, model, tf32=tf32) as backend:
        told = backend.attest().details["fp32_precision"]

    assert told == ("conv: tf32, matmul: tf32" if tf32 else "conv: ieee, matmul: ieee")
    assert torch.backends.cudnn.conv.fp32_precision == ("tf32" if tf32 else "none")
    assert torch.backends.cuda.matmul.fp32_precision == ("tf32" if tf32 else "ieee")
    assert torch.get_float32_matmul_precision() == ("high" if tf32 else "highest")


def test_a_batch_that_does_not_fit_names_one_that_does(gpu: Any, model: ModelFile) -> None:
    with load(gpu, model, mode="graphs") as backend, backend.runner("pinned") as runner:
        slot = runner.slot(8)
        left = iter([True] * 3)  # of 8, of 4 and of 2 rows

        def refuse() -> None:
            if next(left, False):
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nMore of it")

        gpu.torch.cuda.refuse = refuse
        with pytest.raises(
            ValueError, match=r"a batch of 8 does not .* Tried to allocate 2.00 GiB.; 1 fits: --max-batc"
        ):
            runner.infer(slot)
        assert np.isfinite(runner.infer(runner.slot(1))["scores"]).all()


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    ],
    ids=["PyTorch's", "cuDNN's"],
)
def test_what_a_batch_that_does_not_fit_had_is_free_before_less_is_tried(
    gpu: Any, model: ModelFile, error: RuntimeError
) -> None:
    class Activations: ...

    held: list[weakref.ref[Activations]] = []

    def forward(*given: Any) -> Any:
        assert not any(each() for each in held), "of the batch before"
        activations = Activations()
        held.append(weakref.ref(activations))
        raise type(error)(*error.args)

    with load(gpu, model) as backend:
        backend._forward = forward
        with backend.runner("pinned") as runner, pytest.raises(ValueError, match=rf"{error}.*not even one sample fits"):
            runner.infer(runner.slot(8))

    assert len(held) == 4


def test_a_model_that_does_not_fit_is_said_in_one_line(
    gpu: Any, model: ModelFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    def to(module: Any, *where: Any, **more: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 98.00 MiB.\nMore")

    monkeypatch.setattr(torch.nn.Module, "to", to)
    with pytest.raises(
        ValueError, match=r"small.onnx: pytorch cannot run it: CUDA out of memory. Tried .* 98.00 MiB.$"
    ):
        load(gpu, model)


@pytest.mark.parametrize(
    ("cuda", "gpus", "device", "said"),
    [
        ("14.0", 0, "cuda", "torch 2.14.1 is built for CUDA 14.0, and the driver has CUDA 13: pip uninstall -y torch"),
        ("13.0", 2, "cuda", None),
        ("13.0", 2, "cuda:1", None),
        ("13.0", 2, "cuda:2", "has no device 'cuda:2' here; it has cpu, cuda:0, cuda:1; .*cuda:2"),
        ("13.0", 0, "cuda", "has no device 'cuda' here; it has cpu$"),
        (
            None,
            0,
            "cuda",
            r"is the CPU build: pip uninstall -y torch, then pip install 'torch>=2.14,<2.15' \(\./run_local",
        ),
    ],
)
def test_the_gpus_that_pytorch_sees_are_the_devices(
    driver: FakeDriver, monkeypatch: pytest.MonkeyPatch, cuda: str | None, gpus: int, device: str, said: str | None
) -> None:
    made = FakeTorch(driver)
    monkeypatch.setattr(made.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(pytorch, "_import", lambda: made)
    monkeypatch.setattr(pytorch, "installed_driver", lambda: Installed(13, 0, 2))
    monkeypatch.setattr(PyTorch, "version", classmethod(lambda cls: "2.14.1"))
    made.version.cuda = cuda

    if said is None:
        PyTorch.check_device(device)
    else:
        with pytest.raises(DeviceNotFound, match=said):
            PyTorch.check_device(device)


@pytest.mark.parametrize(
    "name", ["ExternalStream", "CUDAGraph", "stream", "synchronize", "empty_cache", "get_device_name"]
)
def test_the_stand_ins_take_what_pytorch_takes(name: str) -> None:
    real, stand_in = getattr(torch.cuda, name), getattr(FakeCuda, name)
    real = inspect.signature(real.__new__ if isinstance(real, type) else real)
    names = [each for each in inspect.signature(stand_in).parameters][1:]

    real.bind(*([None] if name in ("ExternalStream", "CUDAGraph") else []), *names)
    assert {"pool", "stream", "capture_error_mode"} <= {*inspect.signature(torch.cuda.graph).parameters}
    assert {"replay", "pool"} <= {*dir(torch.cuda.CUDAGraph)}


class NoSynchronize(PyTorchGpuRunner):
    """Mistakes that CUDA does not tell: one class each, found by what they answer or do."""

    def _bind(self, n: int) -> None:
        self._torch_stream.synchronize = lambda: None
        super()._bind(n)


class OnTheDefaultStream(PyTorchGpuRunner):
    def _within(self, work: Callable[[], None]) -> None:
        with self._torch.inference_mode():
            work()


class OnAnotherStream(PyTorchGpuRunner):
    def __init__(self, *rest: Any) -> None:
        super().__init__(*rest)
        self._torch_stream.handle = self._gpu.device.new_stream()


class FreedBuffer(PyTorchGpuRunner):
    def _unbind(self) -> None:
        self.kept = getattr(self, "kept", {}) | self._starts
        super()._unbind()

    def _bind(self, n: int) -> None:
        super()._bind(n)
        self._starts[n] = getattr(self, "kept", {}).get(n, self._starts[n])


class BatchNotSet(PyTorchGpuRunner):
    def _start(self, n: int) -> None:
        super()._start(min(self._starts))


class WrongDtype(PyTorchGpuRunner):
    def __init__(self, torch: Any, gpu: Any, place: str, net: Any, forward: Any, graphs: bool) -> None:
        def half(*given: Any) -> Any:
            return forward(*(each.view(torch.int32).float() for each in given))

        super().__init__(torch, gpu, place, net, half, graphs)


class OutputsNotCopied(PyTorchGpuRunner):
    """The graph's own result is not where the runner reads."""

    def _bind(self, n: int) -> None:
        given = [self._torch.as_tensor(self.array(spec, n), device=self._on) for spec in self._specs]
        self._starts[n] = lambda: self._forward(*given)


class CapturedWithoutWarmUp(PyTorchGpuRunner):
    """The first answers are those of the capture, which computes nothing."""

    def _captured(self, run: Callable[[], None]) -> Callable[[], None]:
        super()._captured(run)
        return lambda: None


class TwoCapturesAtOnce(PyTorchGpuRunner):
    def _captured(self, run: Callable[[], None]) -> Callable[[], None]:
        def within() -> None:
            super(TwoCapturesAtOnce, self)._captured(run)

        return super()._captured(within)


@pytest.mark.parametrize(
    ("mistake", "mode"),
    [
        (NoSynchronize, "graphs"),
        (OnTheDefaultStream, "eager"),
        (OnTheDefaultStream, "graphs"),
        (OnAnotherStream, "eager"),
        (OnAnotherStream, "graphs"),
        (FreedBuffer, "eager"),
        (FreedBuffer, "graphs"),
        (BatchNotSet, "eager"),
        (BatchNotSet, "graphs"),
        (WrongDtype, "eager"),
        (OutputsNotCopied, "eager"),
        (CapturedWithoutWarmUp, "graphs"),
        (TwoCapturesAtOnce, "graphs"),
    ],
)
def test_a_mistake_shows(
    driver: FakeDriver,
    model: ModelFile,
    samples: Any,
    truth: Any,
    monkeypatch: pytest.MonkeyPatch,
    mistake: type[PyTorchGpuRunner],
    mode: str,
) -> None:
    monkeypatch.setattr(pytorch, "PyTorchGpuRunner", mistake)
    backend = load(on_gpu(driver), model, mode=mode)
    try:
        right = np.allclose(answers(backend, backend.runner("pinned"), samples), truth, atol=1e-5 * np.ptp(truth))
    except (DeviceError, AssertionError, RuntimeError, ValueError):
        right = False
    assert not right


def test_graphs_of_sizes_that_are_not_known_before_are_refused(gpu: type[PyTorch], model: ModelFile) -> None:
    with pytest.raises(ValueError, match="batches: graphs are captured before the clock"):
        load(gpu, model, mode="graphs", batches="any")


@pytest.mark.parametrize(("architecture", "is_emulated"), [("sm_75", True), ("sm_80", False)])
def test_bf16_without_instructions_for_it_is_told(
    driver: FakeDriver, model: ModelFile, architecture: str, is_emulated: bool
) -> None:
    driver.architecture = architecture
    with load(on_gpu(driver), model, precision="bf16") as backend:
        assert ("emulated" in backend.attest().details) is is_emulated
