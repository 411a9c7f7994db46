"""TensorRT on a GPU that is not there: engines, contexts and graphs over its memory and streams."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from backends import tensorrt, tensorrt_kept
from backends.base import ModelFile, TensorSpec
from backends.tensorrt import TensorRt
from backends.tensorrt_engine import Build
from backends.tensorrt_kept import engine_file
from kernels.device import DeviceError
from plugins.cache import cache_dir
from plugins.errors import DeviceNotFound
from sut.models.onnx_graph import OnnxGraph
from tests.fake_gpu import FakeDriver, FakeGpuError, unplug
from tests.fake_tensorrt import FakeContext, FakeEngine, FakeTensorRt, plug_in
from tests.unit.backends.gpu_batches import answers
from tests.unit.small_models import SIZE, with_weights_outside, write_classifier


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ModelFile:
    return ModelFile(
        write_classifier(tmp_path_factory.mktemp("gpu") / "small.onnx"), "fp32", (3, SIZE, SIZE), largest_batch=8
    )


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeTensorRt]:
    monkeypatch.setenv("SUT_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(tensorrt, "installed_driver", None)
    monkeypatch.setattr(tensorrt_kept, "build_engine", None)
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    made = plug_in(FakeDriver())
    yield made
    unplug()
    assert made.driver.lost or not (made.driver.memory or made.driver.graphs), "something was left on the GPU"
    assert not made.driver.stray, "destroyed while the GPU was not current"


def load(model: ModelFile, **options: Any) -> TensorRt:
    return TensorRt.load(model, "cuda", 1, 1, options)


@pytest.mark.parametrize("place", ["cuda:0", "pinned", "host"])
@pytest.mark.parametrize("graphs", [True, False])
def test_each_batch_has_its_own_answers(
    fake: FakeTensorRt, model: ModelFile, samples: Any, truth: Any, graphs: bool, place: str
) -> None:
    with load(model, graphs=graphs) as backend, backend.runner(place) as runner:
        np.testing.assert_allclose(answers(backend, runner, samples), truth, atol=1e-5 * np.ptp(truth))
        assert runner.transfers_ns[1] > 0 and backend.batch_sizes == (1, 2, 4, 8)
        assert backend.attest().details["cuda_graphs"] == ("one for each batch size" if graphs else "off")


def test_the_contexts_of_rtx_share_what_it_compiles_for_one(fake: FakeTensorRt, model: ModelFile, samples: Any) -> None:
    plug_in(fake.driver, name="tensorrt_rtx_bindings", version="1.7.1.116")
    with load(model) as backend, backend.runner("pinned") as runner:
        answers(backend, runner, samples)
        assert backend.attest().provider == "TensorRT-RTX"


def test_each_of_two_gpus_has_its_engine_and_its_answers(
    fake: FakeTensorRt, model: ModelFile, samples: Any, truth: Any
) -> None:
    drivers = fake.driver, FakeDriver(name="Another GPU", index=1)
    both = plug_in(*drivers)
    with TensorRt.load(model, "cuda:1", 1, 1) as second, second.runner("cuda:1") as on_second:
        np.testing.assert_allclose(answers(second, on_second, samples), truth, atol=1e-5 * np.ptp(truth))
        assert second.attest().details["gpu"].startswith("Another GPU") and not drivers[0].log
        with TensorRt.load(model, "cuda:0", 1, 1) as first, first.runner("cuda:0") as on_first:
            np.testing.assert_allclose(answers(first, on_first, samples), truth, atol=1e-5 * np.ptp(truth))
            done = len(drivers[0].log)
            np.testing.assert_allclose(answers(second, on_second, samples), truth, atol=1e-5 * np.ptp(truth))
            assert len(drivers[0].log) == done
    assert len(both.builds) == 2 and not drivers[1].stray and not drivers[1].memory


def test_an_engine_is_built_once_for_each_version_and_gpu(fake: FakeTensorRt, model: ModelFile) -> None:
    load(model).close()
    load(model).close()
    assert len(fake.builds) == 1
    load(model, tf32=True).close()
    newer = plug_in(fake.driver, version="11.5.0")
    load(model).close()
    other = plug_in(FakeDriver(name="Another GPU"))
    load(model).close()

    assert [len(each.builds) for each in (fake, newer, other)] == [2, 1, 1]
    assert fake.timings == [b"", b"timed "], "the second build goes on with the timings of the first"
    assert newer.timings == other.timings == [b""], "which are of that version on that GPU"


@pytest.mark.parametrize(("name", "graphs"), [("tensorrt", [True]), ("tensorrt_rtx", [True, False])])
def test_an_engine_without_graphs_is_another_one_of_rtx_alone(
    fake: FakeTensorRt, model: ModelFile, name: str, graphs: list[bool]
) -> None:
    fake = plug_in(fake.driver, name=name)
    load(model).close()
    load(model, graphs=False).close()
    assert [build.graphs for build in fake.builds] == graphs


@pytest.mark.parametrize("other", [{"gpu": "Another GPU"}, {"version": "11.3.0"}])
def test_a_kept_engine_of_another_gpu_or_version_is_refused_and_made_again(
    fake: FakeTensorRt, model: ModelFile, monkeypatch: pytest.MonkeyPatch, other: dict[str, str]
) -> None:
    plan = fake.plan
    monkeypatch.setattr(fake, "plan", lambda path, build: plan(path, build, **({} if fake.builds[1:] else other)))

    load(model).close()

    assert len(fake.builds) == 2
    fake.builds.clear()
    load(model).close()
    assert fake.builds == [], "the second is kept"


def test_an_engine_that_is_refused_twice_is_an_error_in_what_tensorrt_says(
    fake: FakeTensorRt, model: ModelFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = fake.plan
    monkeypatch.setattr(fake, "plan", lambda path, build: plan(path, build, gpu="Another GPU"))

    with pytest.raises(ValueError, match=r"small.onnx: TensorRT does not load its engine: .*gpu Another GPU, here"):
        load(model)
    assert len(fake.builds) == 2


@pytest.mark.parametrize("said", ["cudaErrorDevicesUnavailable: busy", "Error Code 1: Cuda Runtime (out of memory)"])
def test_what_is_no_fault_of_the_engine_leaves_it(fake: FakeTensorRt, model: ModelFile, said: str) -> None:
    load(model).close()
    fake.refuses = said, "Error Code 4: Internal Error (Engine deserialization failed.)"

    with pytest.raises(ValueError, match=r"TensorRT does not load its engine: .*(busy|out of memory)\)?$"):
        load(model)

    fake.refuses = ()
    load(model).close()
    assert len(fake.builds) == 1


def test_what_was_loaded_goes_before_the_gpu_where_the_rest_fails(
    fake: FakeTensorRt, model: ModelFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(name: str) -> type:
        raise TypeError("no NumPy type for BF16")

    monkeypatch.setattr(sys.modules["tensorrt"], "nptype", unknown)
    with pytest.raises(TypeError, match="BF16") as raised:
        load(model)
    assert not fake.driver.stray
    del raised


def test_an_engine_that_was_changed_on_the_disk_is_made_again(fake: FakeTensorRt, model: ModelFile) -> None:
    load(model).close()
    [engine] = cache_dir().rglob("small.engine")
    engine.write_bytes(engine.read_bytes()[:-1])

    load(model).close()

    assert len(fake.builds) == 2


def write_branches(path: Path) -> Path:
    """A model whose weights are all within the branches of an ``If``."""
    given = helper.make_tensor_value_info("given", TensorProto.BOOL, [])
    found = helper.make_tensor_value_info("found", TensorProto.FLOAT, [2])
    kept = numpy_helper.from_array(np.arange(2, dtype=np.float32), "kept")
    branch = helper.make_graph([helper.make_node("Neg", ["kept"], ["found"])], "branch", [], [found], [kept])
    node = helper.make_node("If", ["given"], ["found"], then_branch=branch, else_branch=branch)
    onnx.save(helper.make_model(helper.make_graph([node], "graph", [given], [found]), ir_version=10), path)
    return path


@pytest.mark.parametrize("write", [write_classifier, write_branches])
def test_an_engine_is_of_the_weights_in_other_files_too(fake: FakeTensorRt, tmp_path: Path, write: Any) -> None:
    path = with_weights_outside(write(tmp_path / "small.onnx"))
    device: Any = SimpleNamespace(name="a GPU", architecture="sm_90")
    trt, build = fake.module(), Build((1,))
    first = engine_file(trt, device, ModelFile(path), build)
    assert engine_file(trt, device, ModelFile(path), build) == first

    weights = path.with_name("weights.bin")
    weights.write_bytes(weights.read_bytes()[::-1])

    assert engine_file(trt, device, ModelFile(path), build) != first
    assert len(fake.builds) == 2


def test_timings_that_are_cut_short_are_not_used(fake: FakeTensorRt, model: ModelFile) -> None:
    load(model).close()
    [kept] = cache_dir().glob("*.timings")
    kept.write_bytes(kept.read_bytes()[:-1])
    load(model, tf32=True).close()
    kept.write_bytes(b"")
    load(model, level=3).close()
    kept.unlink()
    kept.mkdir()
    load(model, level=4).close()

    assert fake.timings == [b""] * 4
    assert kept.is_dir() and not [*cache_dir().glob("*.part")], "what cannot be written is left"


def test_without_a_builder_a_kept_engine_is_enough(fake: FakeTensorRt, model: ModelFile) -> None:
    fake.has_builder = False
    with pytest.raises(
        ModuleNotFoundError, match=r"tensorrt 11\.4\.0\.106 has no builder, .*: pip install tensorrt-cu13"
    ):
        load(model)
    fake.has_builder = True
    load(model).close()
    fake.has_builder = False

    load(model).close()

    assert len(fake.builds) == 1


def test_how_far_the_build_is_is_told_and_ctrl_c_ends_it(fake: FakeTensorRt, model: ModelFile) -> None:
    told: list[tuple[int, int]] = []
    load(replace(model, progress=lambda *now: told.append(now))).close()
    assert told == [(1, 3), (2, 3), (3, 3)]

    def interrupted(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        load(replace(model, progress=interrupted), tf32=True)
    assert len([*cache_dir().rglob("small.engine")]) == 1, "nothing half made is kept"


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


def not_captured(driver: FakeDriver, stream: int, work: Any) -> Any:
    raise FakeGpuError("cuGraphInstantiateWithFlags failed: operation not supported")


NOT_CAPTURED = {
    "tensorrt": ({"captures": lambda rows: False}, "TensorRT refused a batch of 4: .*stream is capturing"),
    "tensorrt_rtx": ({}, "TensorRT refused to be captured: it says nothing about why"),
    "the driver": ({}, "cuGraphInstantiateWithFlags failed: operation not supported"),
}


@pytest.mark.parametrize("refused_by", NOT_CAPTURED)
def test_what_cannot_be_captured_is_not_taken_for_too_little_memory(
    fake: FakeTensorRt, model: ModelFile, monkeypatch: pytest.MonkeyPatch, refused_by: str
) -> None:
    settings, said = NOT_CAPTURED[refused_by]
    plug_in(fake.driver, name="tensorrt_rtx" if refused_by == "tensorrt_rtx" else "tensorrt", **settings)
    if refused_by == "tensorrt_rtx":
        monkeypatch.setattr(FakeContext, "is_stream_capturable", lambda context, stream: False)
    if refused_by == "the driver":
        monkeypatch.setattr(FakeDriver, "capture", not_captured)

    with load(model) as backend, backend.runner("pinned") as runner:
        slot = runner.slot(4)
        with pytest.raises(
            ValueError, match=rf"^a batch of 4 cannot be captured .*{said}.*: --set backend_options\.graphs=false$"
        ):
            runner.infer(slot)
    with load(model, graphs=False) as backend, backend.runner("pinned") as runner:
        runner.infer(runner.slot(4))


def test_no_memory_for_a_graph_is_too_little_memory(
    fake: FakeTensorRt, model: ModelFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    def capture(driver: FakeDriver, stream: int, work: Any) -> Any:
        raise FakeGpuError("cuGraphInstantiateWithFlags failed: out of memory")

    monkeypatch.setattr(FakeDriver, "capture", capture)
    with load(model) as backend, backend.runner("pinned") as runner:
        slot = runner.slot(4)
        with pytest.raises(ValueError, match=r"a batch of 4 does not fit .*out of memory.*not even one sample fits"):
            runner.infer(slot)


def test_open_axes_are_a_samples_and_outputs_follow(fake: FakeTensorRt, tmp_path: Path) -> None:
    graph = OnnxGraph("open")
    graph.node("Relu", [graph.node("AveragePool", ["images"], "pool", kernel_shape=[2, 2], strides=[2, 2])], "map")
    open_ = (None, 3, None, None)
    path = tmp_path / "open.onnx"
    graph.save(path, [TensorSpec("images", "float32", open_)], [TensorSpec("map", "float32", open_)])

    given = ModelFile(path, "fp32", (3, SIZE, SIZE), largest_batch=2)
    with load(given) as backend, backend.runner("pinned") as runner:
        assert [each.shape for each in backend.inputs] == [(None, 3, SIZE, SIZE)]
        assert [each.shape for each in backend.outputs] == [(None, 3, SIZE // 2, SIZE // 2)]
        slot = runner.slot(2)
        slot.buffers["images"][:] = np.arange(2 * 3 * SIZE * SIZE).reshape(2, 3, SIZE, SIZE)
        means = slot.buffers["images"].reshape(2, 3, SIZE // 2, 2, SIZE // 2, 2).mean((3, 5))
        np.testing.assert_allclose(runner.infer(slot)["map"], means)

    refused = pytest.raises(RuntimeError, match="no context, which alone knows how large")
    with pytest.MonkeyPatch.context() as patched, refused:
        patched.setattr(FakeEngine, "create_execution_context", lambda engine, config: None)
        load(given)


def test_of_a_gpu_that_fails_the_first_error_is_told_and_all_is_dropped(
    fake: FakeTensorRt, model: ModelFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lose(feed: object) -> None:
        monkeypatch.setattr(FakeDriver, "drop_graph", not_freed)
        fake.driver.part(1, 1)

    def not_freed(driver: FakeDriver, graph: object) -> None:
        raise FakeGpuError("the context was lost before")

    with load(model) as backend, pytest.raises(DeviceError, match="ILLEGAL_ADDRESS"), backend.runner() as runner:
        slot = runner.slot(2)
        runner.infer(slot)
        fake.at_batch = lose
        runner.infer(slot)
    assert fake.driver.lost and not runner._contexts


@pytest.mark.parametrize(("batch", "said"), [(4, "it takes no smaller batch"), (None, "not even one sample fits")])
def test_only_batches_that_the_engine_takes_are_tried_where_one_does_not_fit(
    fake: FakeTensorRt, tmp_path: Path, batch: int | None, said: str
) -> None:
    path, sample = write_classifier(tmp_path / "small.onnx", batch=batch), (3, SIZE, SIZE)
    fake.fails_at = lambda rows: True
    with load(ModelFile(path, "fp32", sample, largest_batch=4)) as backend, backend.runner("pinned") as runner:
        slot = runner.slot(4)
        with pytest.raises(ValueError, match=rf"a batch of 4 does not fit .*OutOfMemory.*; {said}$"):
            runner.infer(slot)


def test_halves_that_the_engine_does_not_take_are_not_tried(fake: FakeTensorRt, model: ModelFile) -> None:
    fake.bytes_a_row = fake.driver.memory_bytes // 3
    refused = pytest.raises(ValueError, match=r"a batch of 12 does not fit .*; 2 fits: --max-batchsize 2$")
    with load(model) as backend, backend.runner("pinned") as runner, refused:
        runner.slot(12)


@pytest.mark.parametrize(
    ("device", "said"), [("cpu", "; give --device gpu$"), ("gpu0", "; give --device gpu$"), ("cuda:1", "no GPU cuda:1")]
)
def test_another_device_is_refused(fake: FakeTensorRt, model: ModelFile, device: str, said: str) -> None:
    with pytest.raises(DeviceNotFound, match=said):
        TensorRt.load(model, device, 1, 1)


def test_no_memory_for_what_layers_work_in_names_a_batch_that_fits(fake: FakeTensorRt, model: ModelFile) -> None:
    fake.bytes_a_row = fake.driver.memory_bytes // 3
    refused = pytest.raises(ValueError, match=r"a batch of 8 does not fit .*; 2 fits: --max-batchsize 2")
    with load(model) as backend, backend.runner("pinned") as runner, refused:
        runner.slot(8)
