"""ONNX Runtime on a GPU, over a GPU and an ONNX Runtime that are not there."""

from __future__ import annotations

import re
import sys
import threading
from contextlib import ExitStack
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backends import onnxruntime_cuda, onnxruntime_needs
from backends.base import ModelFile, Runner, Slot, TensorSpec
from backends.onnxruntime import OnnxRuntime
from plugins.driver import Installed
from plugins.errors import DeviceNotFound
from sut.config import make_config
from sut.models.onnx_graph import OnnxGraph
from sut.models.precision.fold import fold
from sut.pipeline.assembly import assemble
from sut.studies import bare
from tests import fake_onnxruntime
from tests.fake_gpu import FakeDriver
from tests.fake_onnxruntime import CPU, CUDA, FakeOrt
from tests.unit.small_models import RECIPE, quiet, scores, write_classifier

SHAPE = RECIPE.sample_shape
SPEC = TensorSpec("images", "float32", (None, *SHAPE))
PLACES = ("cuda:0", "pinned", "host")
SIZES = (4, 1, 4, 2, 8, 4, 1)


def loaded(model: Path, lanes: int = 1, device: str = "cuda", precision: str = "fp32", **options: Any) -> OnnxRuntime:
    return OnnxRuntime.load(ModelFile(model, precision, SHAPE), device, lanes, 1, options)


def rows_of(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, *SHAPE)).astype(np.float32)


def filled(ort: FakeOrt, runner: Runner, rows: np.ndarray) -> Slot:
    """The runner's slot with these rows in it; on the GPU they come on another stream, behind an event."""
    slot = runner.slot(len(rows))
    [buffer] = slot.buffers.values()
    if slot.place != "cuda:0":
        buffer[:] = rows
        return slot
    with ort.driver.current():
        stream, slot.ready = ort.driver.new_stream(), ort.driver.event()
        ort.driver.write(buffer.__cuda_array_interface__["data"][0], rows, stream)
        ort.driver.record(slot.ready, stream)
    return slot


def is_right(ort: FakeOrt, model: Path, runner: Runner, sizes: tuple[int, ...] = SIZES) -> bool:
    """Whether batches of these sizes get the answers that the CPU has for them."""
    for seed, n in enumerate(sizes):
        rows = rows_of(n, seed)
        found = runner.infer(filled(ort, runner, rows))["scores"]
        if not np.allclose(found, on_cpu(model, n, seed), atol=1e-5):
            return False
    return True


@lru_cache
def on_cpu(model: Path, n: int, seed: int) -> np.ndarray:
    return scores(model, rows_of(n, seed))


@pytest.mark.parametrize("graphs", [False, True])
@pytest.mark.parametrize("overlap", [False, True])
@pytest.mark.parametrize("place", PLACES)
def test_each_lane_answers_as_the_cpu_does_at_any_size(
    ort: FakeOrt, model: Path, place: str, overlap: bool, graphs: bool
) -> None:
    with (
        loaded(model, lanes=2, graphs=graphs, overlap=overlap) as backend,
        backend.runner(place) as one,
        backend.runner(place) as other,
    ):
        assert is_right(ort, model, one)
        assert is_right(ort, model, other)
        assert is_right(ort, model, one)

    del one, other
    assert not ort.driver.memory, "memory was left on the GPU"
    assert not any(each() for each in ort.sessions), "a session was left"


def test_another_gpu_than_the_first(ort: FakeOrt, model: Path) -> None:
    second = fake_onnxruntime.plug_in(FakeDriver(index=1))

    with loaded(model, device="cuda:1") as backend, backend.runner("pinned") as runner:
        assert is_right(second, model, runner)
        assert (backend.attest().device, backend.places[0]) == ("cuda:1", "cuda:1")


@pytest.mark.parametrize("place", PLACES)
def test_a_folded_input_is_bytes_on_the_gpu_too(ort: FakeOrt, model: Path, place: str) -> None:
    path, recipe = fold(model, RECIPE, quiet)
    rows = np.random.default_rng(0).integers(0, 256, (4, *recipe.sample_shape), np.uint8)
    expected = scores(path, rows)

    with loaded(path) as backend, backend.runner(place) as runner:
        assert backend.inputs[0].dtype == "uint8"
        np.testing.assert_allclose(runner.infer(filled(ort, runner, rows))["scores"], expected, atol=1e-5)


def test_a_session_is_gone_once_its_runner_was_closed(ort: FakeOrt, model: Path) -> None:
    with loaded(model) as backend:
        runner = backend.runner("pinned")
        assert is_right(ort, model, runner)
        runner.close()

        assert not any(each() for each in ort.sessions)


@pytest.mark.parametrize(("half", "precision"), [(False, "fp32"), (True, "fp16")])
def test_precision_is_that_of_what_executes_whatever_the_file_is_called(
    ort: FakeOrt, model: Path, half: bool, precision: str
) -> None:
    ort.half = half
    with loaded(model, precision="fp32" if half else "fp16") as backend:
        assert backend.attest().precision == precision


def test_lanes_answer_from_threads_of_their_own(ort: FakeOrt, model: Path) -> None:
    right = []
    with loaded(model, lanes=3) as backend:

        def lane() -> None:
            with backend.runner("pinned") as runner:
                right.append(is_right(ort, model, runner, SIZES * 3))

        threads = [threading.Thread(target=lane) for _ in range(3)]
        for each in threads:
            each.start()
        for each in threads:
            each.join(60)

    assert right == [True] * 3


def test_a_batch_is_started_on_one_stream_and_waited_for_once(ort: FakeOrt, model: Path) -> None:
    with loaded(model) as backend, backend.runner("pinned") as runner:
        runner.infer(filled(ort, runner, rows_of(4)))
        ort.driver.log.clear()
        slot = filled(ort, runner, rows_of(4, 1))
        runner.infer(slot)

        assert [name for name, _ in ort.driver.log if name != "record"] == ["h2d", "model", "d2h"]
        assert {stream for _, stream in ort.driver.log} == {slot.stream}


def test_a_size_is_bound_and_captured_once_whichever_thread_asks(ort: FakeOrt, model: Path) -> None:
    with loaded(model, graphs=True) as backend, backend.runner("pinned") as runner:
        assert is_right(ort, model, runner, (8, 1, 4))
        captured = list(ort.captures)
        right: list[bool] = []
        lane = threading.Thread(target=lambda: right.append(is_right(ort, model, runner, (4, 8, 1))))
        lane.start()
        lane.join(60)

    assert right == [True]
    assert ort.captures == captured
    assert len(captured) == 3


def test_what_executes_is_told_node_by_node(ort: FakeOrt, model: Path) -> None:
    ort.on_cpu = ("Flatten",)

    with loaded(model, lanes=2, device="cuda:0") as backend:
        found = backend.attest()

    assert (found.device, found.device_name, found.provider, found.precision) == ("cuda:0", "Fake GPU", CUDA, "fp32")
    assert found.details["fallback"] == f"not on {CUDA}: Flatten 'features' on {CPU}"
    assert found.details["nodes"].startswith(f"{CPU}: 1, {CUDA}: ")
    assert found.details["kernels"] == "Conv: 3, Gemm: 1"
    assert found.details["sessions"].startswith("2, ")
    assert (found.details["tf32"], found.details["cuda_graphs"]) == ("off", "off")
    assert backend.places == ("cuda:0", "pinned", "host")
    assert not backend.reads_host_arrays


@pytest.mark.parametrize(
    ("on_cpu", "options", "said"),
    [
        ("Conv", {}, "no kernel on the GPU for Conv 'first"),
        (
            "Flatten",
            {"graphs": True},
            "CUDA graphs need every node on the GPU, but the CPU executes Flatten 'features'",
        ),
        ("", {"graphs": True, "provider": "tensorrt"}, "graphs is for the provider cuda, got tensorrt"),
    ],
)
def test_a_model_that_would_execute_elsewhere_is_refused(
    ort: FakeOrt, model: Path, on_cpu: str, options: dict[str, Any], said: str
) -> None:
    ort.on_cpu = (on_cpu,)

    with pytest.raises(ValueError, match=re.escape(said)):
        loaded(model, **options)

    assert not ort.driver.memory


def test_tf32_is_told_as_the_session_has_it(ort: FakeOrt, model: Path) -> None:
    with loaded(model, tf32=True) as backend:
        assert backend.attest().details["tf32"] == "allowed"


def test_precision_is_what_the_kernels_compute_in(ort: FakeOrt, model: Path) -> None:
    ort.half = True

    with loaded(model, precision="fp16") as backend:
        assert backend.attest().precision == "fp16"

    assert "fp16" in OnnxRuntime.precisions_on("cuda")
    assert "fp16" not in OnnxRuntime.precisions_on("cpu")


def test_a_model_that_multiplies_nothing_is_in_the_precision_of_its_file(ort: FakeOrt, tmp_path: Path) -> None:
    graph = OnnxGraph("mean")
    graph.node("GlobalAveragePool", ["images"], "scores")
    graph.save(tmp_path / "mean.onnx", [SPEC], [TensorSpec("scores", "float32", (None, 3, 1, 1))])

    with loaded(tmp_path / "mean.onnx") as backend:
        assert backend.attest().precision == "fp32"


def test_tensorrt_stands_before_cuda_and_computes_as_the_file_is_written(ort: FakeOrt, model: Path) -> None:
    with loaded(model, provider="tensorrt") as backend, backend.runner("pinned") as runner:
        found = backend.attest()

        assert is_right(ort, model, runner)
    assert (found.provider, found.precision) == (fake_onnxruntime.TENSORRT, "fp32")
    assert found.details["providers"] == f"{fake_onnxruntime.TENSORRT},{CUDA},{CPU}"
    assert "is not told" in found.details["precision_of_tensorrt"]


def test_with_graphs_sizes_are_those_that_a_warm_up_meets(ort: FakeOrt, model: Path, tmp_path: Path) -> None:
    fixed = write_classifier(tmp_path / "fixed.onnx", batch=3)

    with loaded(model) as any_size, loaded(model, graphs=True) as doubled, loaded(fixed, graphs=True) as one:
        assert any_size.batch_sizes is None
        assert (doubled.batch_sizes or ())[:4] == (1, 2, 4, 8)
        assert one.batch_sizes == (3,)
        with one.runner("pinned") as runner:
            assert is_right(ort, fixed, runner, (3, 3))


def test_a_batch_that_does_not_fit_names_one_that_does(ort: FakeOrt, model: Path) -> None:
    with loaded(model) as backend, backend.runner("pinned") as runner:
        ort.bytes_a_row = 1 << 20
        ort.driver.memory_bytes = 10 << 20
        with pytest.raises(
            ValueError, match=r"a batch of 16 does not fit .*buffer of size 16777216.* --max-batchsize 8"
        ):
            runner.infer(runner.slot(16))


def test_weights_that_do_not_fit_once_a_lane_are_told(ort: FakeOrt, model: Path) -> None:
    ort.driver.memory_bytes = 3 * model.stat().st_size

    with pytest.raises(ValueError, match=r"takes 3 of 8 lanes.*buffer of size.*use fewer lanes"):
        loaded(model, lanes=8)

    assert not ort.driver.memory


def test_what_the_gpu_says_while_a_model_is_loaded_is_not_the_files_fault(
    ort: FakeOrt, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(session: Any, nbytes: int) -> None:
        raise RuntimeError("cuda_call.cc:154 [with bool THRW = true]\nCUDA failure 802: not yet ready ; GPU=0 ; line=3")

    monkeypatch.setattr(fake_onnxruntime.FakeSession, "_take_memory", fail)
    monkeypatch.setattr(onnxruntime_cuda, "why_not", lambda ort, provider: "")

    with pytest.raises(RuntimeError, match=r"small\.onnx on Fake GPU: CUDA failure 802: not yet ready$"):
        loaded(model)


@pytest.mark.parametrize(
    ("changed", "device", "said"),
    [
        ({"driver": Installed(13, 0, 2)}, "cuda:2", "no GPU cuda:2 here; there is: cuda:0, cuda:1"),
        ({"driver": Installed(12, 4, 1)}, "cuda", "was built for CUDA 13.0, and the driver has CUDA 12.4: update"),
        ({"driver": Installed(12, 4, 1)}, "cuda", "pip install 'onnxruntime-gpu[cuda,cudnn]==1.26.*'"),
        ({"providers": (CPU,)}, "cuda", "is the CPU build: pip uninstall -y onnxruntime, then pip install"),
        ({"cudnn": "libcudnn.so.none"}, "cuda", "libcudnn.so.none: cannot open shared object file"),
        ({"preloading": "libcublas.so.13: cannot open"}, "cuda", "lacks libraries (libcublas.so.13: cannot open)"),
        ({"beside": ["onnxruntime", "onnxruntime-gpu"]}, "cuda", "pip uninstall -y onnxruntime onnxruntime-gpu, then"),
        ({}, "npu", "it takes cpu, cuda and cuda:N"),
        ({}, "cuda:0,cuda:1", "it takes cpu, cuda and cuda:N"),
    ],
)
def test_what_is_missing_is_told_with_what_to_do(
    ort: FakeOrt, monkeypatch: pytest.MonkeyPatch, changed: dict[str, Any], device: str, said: str
) -> None:
    module: Any = sys.modules["onnxruntime"]
    monkeypatch.setattr(onnxruntime_needs, "installed_driver", lambda: changed.get("driver", Installed(13, 0, 1)))
    monkeypatch.setattr(onnxruntime_needs, "CUDNN", changed.get("cudnn", onnxruntime_needs.CUDNN))
    monkeypatch.setattr(onnxruntime_needs, "beside", lambda package: changed.get("beside", []))
    if "preloading" in changed:
        module.preload_dlls = lambda: print(f"Failed to load x: {changed['preloading']}\nPlease follow the manual")
    ort.providers = changed.get("providers", ort.providers)

    with pytest.raises(DeviceNotFound) as refused:
        OnnxRuntime.check_device(device)

    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_gpu_with_all_that_it_needs_is_a_device(ort: FakeOrt) -> None:
    OnnxRuntime.check_device("cuda:0")

    assert OnnxRuntime.devices() == ["cpu", "cuda:0"]


def test_a_provider_that_is_not_made_is_told_by_its_library(
    ort: FakeOrt, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ort.providers = (CPU,)
    monkeypatch.setattr(OnnxRuntime, "check_device", lambda device: None)

    with pytest.raises(DeviceNotFound, match=r"cannot make CUDAExecutionProvider: .*libonnxruntime_providers_cuda\.so"):
        loaded(model)


def test_options_of_a_gpu_are_refused_on_a_cpu(model: Path) -> None:
    with pytest.raises(ValueError, match=r"options of onnxruntime \(graphs\) are for a GPU: add --device cuda"):
        loaded(model, device="cpu", graphs=True)


def test_how_cudnn_searches_is_an_option(ort: FakeOrt, model: Path) -> None:
    for option, told in (({}, "EXHAUSTIVE"), ({"conv_search": "heuristic"}, "HEURISTIC")):
        with loaded(model, **option) as backend, backend.runner("pinned") as runner:
            assert runner._session.get_provider_options()["CUDAExecutionProvider"]["cudnn_conv_algo_search"] == told  # type: ignore[attr-defined]
            with pytest.raises(RuntimeError, match="all 1 lanes of this model have their runner"):
                backend.runner("pinned")


@pytest.mark.parametrize(("boundary", "copies"), [("device", False), ("tensor", True)])
def test_the_bare_loop_copies_what_the_boundary_has_it_copy(
    ort: FakeOrt, model: Path, tmp_path: Path, boundary: str, copies: bool
) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"size: {SHAPE[1]}\nfit: crop-resize\ninterpolation: linear\ncrop_padding: 0\n")
    told = {"model": str(model), "recipe": str(recipe), "device": "cuda", "boundary": boundary, "scenario": "Offline"}
    parts = assemble(make_config(told | {"count": 2, "lanes": 1, "threads": 1, "max_batchsize": 2}))

    with ExitStack() as stack:
        backend = stack.enter_context(parts.load_backend())
        found = bare.Loop(parts, backend, stack).measured(1, 0.01)

    assert found.samples_per_second
    assert ("h2d" in {name for name, _ in ort.driver.log}) is copies
