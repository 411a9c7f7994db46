"""PyTorch answers as ONNX Runtime does, whatever the file, the mode and the batch, and says what executes."""

from __future__ import annotations

import os
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from backends import registry
from backends.base import ModelFile, Runner, Slot, TensorSpec
from backends.pytorch import PyTorch
from backends.pytorch_models import _torchvision
from plugins.errors import DeviceNotFound
from sut.models.onnx_graph import OnnxGraph
from sut.models.precision.calibration import preprocessed
from sut.models.precision.fold import fold
from tests.core import module_needs
from tests.unit.small_models import RECIPE, SIZE, pictures, quiet, scores, write_classifier, write_means

module_needs("pytorch")

import torch  # noqa: E402

from tests.unit.torch_models import MAKER, Classifier, write_torch  # noqa: E402

COUNT = 40
FILES = ("small.onnx", "small.pt2", "small.pt", "small.pth")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("torch")
    for name in FILES[1:]:
        write_torch(made / name)
    return made


@pytest.fixture(scope="module")
def samples() -> NDArray[np.float32]:
    return preprocessed(pictures(COUNT, 9), COUNT, RECIPE)


@pytest.fixture(scope="module")
def truth(folder: Path, samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """ONNX Runtime's scores."""
    return scores(folder / "small.onnx", samples)


def load(path: Path, precision: str = "fp32", lanes: int = 1, threads: int = 1, **options: Any) -> PyTorch:
    if path.suffix == ".pth":
        options = {"module": MAKER} | options
    options = {name: value for name, value in options.items() if value is not None}
    return PyTorch.load(ModelFile(path, precision, (3, SIZE, SIZE)), "cpu", lanes, threads, options)


def run(runner: Runner, rows: NDArray[Any], padded: int | None = None) -> NDArray[Any]:
    slot = runner.slot(padded or len(rows))
    [buffer] = slot.buffers.values()
    buffer[: len(rows)] = rows
    [found] = runner.infer(slot).values()
    return np.array(found[: len(rows)])


pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")


@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize("name", FILES)
def test_scores_are_onnxruntimes_at_every_batch_size(
    folder: Path, samples: Any, truth: Any, name: str, channels_last: bool
) -> None:
    with load(folder / name, channels_last=channels_last) as backend, backend.runner() as runner:
        assert (backend.batch_sizes, backend.inputs[0].layout, len(backend.outputs)) == (None, "NCHW", 1)
        for rows in (1, 8, 3, 1, COUNT):
            found = run(runner, samples[:rows])
            np.testing.assert_allclose(found, truth[:rows], atol=1e-5 * np.ptp(truth))
            assert (found.argmax(1) == truth[:rows].argmax(1)).all()


@pytest.mark.parametrize("kind", ["float32", "folded"])
def test_what_executes_in_bf16_is_attested(folder: Path, samples: Any, truth: Any, cache: Path, kind: str) -> None:
    path, given = folder / "small.onnx", samples
    if kind == "folded":
        path, recipe = fold(path, RECIPE, quiet)
        given = preprocessed(pictures(COUNT, 9), COUNT, recipe)

    with PyTorch.load(ModelFile(path, "bf16", given.shape[1:]), "cpu", 1, 1) as backend, backend.runner() as runner:
        found, attested = run(runner, given), backend.attest()

    assert backend.outputs[0].dtype == "float32" == found.dtype.name
    assert attested.precision == "bf16"
    assert attested.details["multiply_accumulates"] == "bf16: 100.0 %"
    assert 0 < np.abs(found - truth).max() < 0.05 * np.ptp(truth)
    assert (found.argmax(1) == truth.argmax(1)).mean() > 0.8


def test_what_pytorch_says_of_itself_is_attested(folder: Path) -> None:
    with load(folder / "small.onnx", lanes=2, threads=3) as backend:
        found = backend.attest()

    assert (found.device, found.provider, found.precision) == ("cpu", "PyTorch CPU, eager", "fp32")
    assert found.details["parameters"] == "float32: 8"
    assert found.details["fp32_precision"] == "conv: ieee, matmul: ieee"
    assert (found.details["num_threads"], found.details["layout"]) == ("3", "channels-last")
    assert torch.get_num_threads() == 3


def test_all_outputs_have_the_names_and_shapes_of_the_file(tmp_path: Path) -> None:
    path = write_means(tmp_path / "many.onnx", outputs=("labels", "scores", "features", "map", "ordered"))
    shapes = {"labels": (None,), "scores": (None, 1000), "features": (None, 7), "map": (None, 3, 1, 1)}
    shapes["ordered"] = (None, 3, 32, 32)

    with PyTorch.load(ModelFile(path, "fp32", (3, 32, 32)), "cpu", 1, 1) as backend, backend.runner() as runner:
        found = runner.infer(runner.slot(3))

    assert {spec.name: spec.shape for spec in backend.outputs} == shapes
    assert [spec.dtype for spec in backend.outputs] == ["int64", *["float32"] * 4]
    assert {name: values.shape[0] for name, values in found.items()} == dict.fromkeys(shapes, 3)
    assert all(values.flags.c_contiguous for values in found.values())


def test_one_of_the_outputs_of_a_node_is_found(tmp_path: Path) -> None:
    values = [onnx.helper.make_tensor_value_info(name, 1, ["n", axis]) for name, axis in (("x", 3), ("right", 2))]
    halves = onnx.numpy_helper.from_array(np.array([1, 2]), "halves")
    node = onnx.helper.make_node("Split", ["x", "halves"], ["left", "right"], axis=1)
    graph = onnx.helper.make_graph([node], "split", values[:1], values[1:], [halves])
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)]), tmp_path / "split.onnx")

    with PyTorch.load(ModelFile(tmp_path / "split.onnx"), "cpu", 1, 1) as backend, backend.runner() as runner:
        assert run(runner, np.float32([[1, 2, 3]])).tolist() == [[2, 3]]


def test_a_dict_of_outputs_has_their_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Named(Classifier):
        def forward(self, images: torch.Tensor) -> Any:
            return {"logits": super().forward(images), "size": (images.sum((1, 2, 3)),)}

    monkeypatch.setattr("tests.unit.torch_models.Classifier", Named)
    with load(write_torch(tmp_path / "named.pth")) as backend:
        assert [(spec.name, spec.shape) for spec in backend.outputs] == [("logits", (None, 10)), ("output1", (None,))]


@pytest.mark.parametrize(
    ("name", "batch", "options", "sizes"),
    [
        ("small.pt2", 4, {}, (4,)),
        ("small.pt2", 4, {"batches": "doubling"}, (4,)),
        ("small.pt", None, {"batches": 3}, (3,)),
        ("small.onnx", None, {"batches": "doubling"}, (*(2**n for n in range(13)),)),
    ],
)
def test_batch_sizes_are_the_files_or_those_that_were_asked_for(
    tmp_path: Path,
    samples: Any,
    truth: Any,
    name: str,
    batch: int | None,
    options: dict[str, Any],
    sizes: tuple[int, ...],
) -> None:
    path = write_torch(tmp_path / name, batch=batch)

    with load(path, **options) as backend, backend.runner() as runner:
        assert backend.batch_sizes == sizes
        size = min(4, sizes[-1])
        found = run(runner, samples[:2], padded=size)

    np.testing.assert_allclose(found, truth[:2], atol=1e-5 * np.ptp(truth))


def test_lanes_at_once_answer_as_one_alone(folder: Path, samples: Any) -> None:
    with load(folder / "small.onnx", lanes=2) as backend, backend.runner() as first, backend.runner() as second:
        alone = [run(first, samples[at : at + 4]) for at in range(0, COUNT, 4)]

        def all_of(runner: Runner) -> list[NDArray[Any]]:
            return [run(runner, samples[at : at + 4]) for at in range(0, COUNT, 4)]

        with ThreadPoolExecutor(2) as pool:
            found = list(pool.map(all_of, (first, second)))

    for answers in found:
        np.testing.assert_array_equal(answers, alone)


def test_slots_are_read_where_they_are_and_so_are_arrays_that_it_did_not_lend(
    folder: Path, samples: Any, truth: Any, recwarn: pytest.WarningsRecorder
) -> None:
    mine = samples[:2].copy()
    mine.flags.writeable = False

    with load(folder / "small.onnx") as backend, backend.runner() as runner:
        slot, larger = runner.slot(2), runner.slot(5)
        found = runner.infer(Slot(2, {"images": mine}))["scores"]
        assert slot is not runner.slot(2) is runner.slot(2)
        assert larger.buffers["images"].ctypes.data == runner.slot(1).buffers["images"].ctypes.data

    assert backend.reads_host_arrays
    np.testing.assert_allclose(found, truth[:2], atol=1e-5 * np.ptp(truth))
    assert not [each for each in recwarn if "writable" in str(each.message)]


def test_torchscript_in_training_mode_is_run_in_evaluation_mode_and_that_is_said(
    tmp_path: Path, samples: Any, truth: Any
) -> None:
    with load(write_torch(tmp_path / "train.pt", training=True)) as backend, backend.runner() as runner:
        np.testing.assert_allclose(run(runner, samples), truth, atol=1e-5 * np.ptp(truth))
        assert "saved in training mode" in backend.attest().details["training"]


def test_names_in_an_onnx_file_are_no_code(tmp_path: Path, samples: Any) -> None:
    """The name of a node becomes Python where a graph becomes a module."""
    model = onnx.load(write_classifier(tmp_path / "small.onnx"))
    exploded = tmp_path / "exploded"
    model.graph.node[0].name = f"""x", open("{exploded}", "w")) or getattr(self, "x"""
    onnx.save(model, tmp_path / "evil.onnx")

    with load(tmp_path / "evil.onnx") as backend, backend.runner() as runner:
        assert np.isfinite(run(runner, samples)).all()
    assert not exploded.exists()


def test_a_pickled_module_is_not_run(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "exploded",))

    torch.save(Bomb(), tmp_path / "bomb.pth")
    torch.save(Classifier(), tmp_path / "whole.pth")

    with pytest.raises(ValueError, match=r"whole.pth: is a pickle of tests.unit.torch_models.Classifier, and pickles"):
        load(tmp_path / "whole.pth")
    with pytest.raises(ValueError, match=r"bomb.pth: is a pickle of"):
        load(tmp_path / "bomb.pth")
    assert not (tmp_path / "exploded").exists()


class More(Classifier):
    """Not what the files have the weights of."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = torch.nn.Linear(16, 11)
        self.more = torch.nn.Linear(2, 2)


def nothing() -> int:
    return 3


HERE = "tests.unit.backends.test_pytorch"


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("small.pth", {"module": None}, "a state dict .*: set it to the package.module:function"),
        ("small.onnx", {"module": MAKER}, "small.onnx: backend option module goes with a state dict"),
        (
            "small.pth",
            {"module": f"{HERE}:More"},
            r"it lacks more.weight, more.bias; it has of another shape dense.weight",
        ),
        ("small.pth", {"module": f"{HERE}:nothing"}, "returned a int"),
        ("small.pth", {"module": f"{HERE}:nobody"}, "has no attribute 'nobody'"),
        ("small.pth", {"module": "torch"}, "backend option module: torch: expected package.module:function"),
        ("checkpoint.pth", {}, "is a dict of epoch, state_dict, expected a state dict"),
        ("in_place.pth", {"module": f"{HERE}:spoiling", "channels_last": False}, "it writes into its input"),
        ("unknown.onnx", {}, r"cannot convert the operator Det \(operator set 17\) of node 'volume'"),
        ("passed.onnx", {}, "takes no output that no node computes: images; leave it out"),
        ("cut.pt", {}, "cut.pt: pytorch cannot load it"),
        ("small.pt2", {"batches": 3}, "its batch is fixed at 2, but backend option batches is 3"),
        ("traced.pt", {}, r"of 2 rows it makes output0 \[1, 3, 512\]; .* say which: --set backend_options.batches=N"),
        ("picky.pt", {}, "does not run with 2 rows: .*say which: --set backend_options.batches=N"),
        ("small.pt", {"mode": "compile"}, "torch.compile takes no TorchScript"),
        ("small.onnx", {"mode": "graphs"}, "graphs are for GPUs"),
    ],
)
def test_what_it_cannot_run_is_refused_in_one_line(
    tmp_path: Path, name: str, options: dict[str, Any], said: str
) -> None:
    path = tmp_path / name
    match name:
        case "checkpoint.pth":
            torch.save({"epoch": 3, "state_dict": Classifier().state_dict()}, path)
        case "unknown.onnx":
            graph = OnnxGraph("unknown")
            graph.node("Det", ["x"], "volume")
            graph.save(path, [TensorSpec("x", "float32", (None, 3, 3))], [TensorSpec("volume", "float32", (None,))])
        case "passed.onnx":
            write_classifier(path, extra_output=True)
        case "cut.pt":
            whole = write_torch(tmp_path / "small.pt").read_bytes()
            path.write_bytes(whole[:3000])
        case "traced.pt" | "picky.pt":
            axes = (1, 3, -1) if name == "traced.pt" else (1, 3, SIZE * SIZE)
            torch.jit.trace(lambda x: x.reshape(axes), torch.zeros(1, 3, SIZE, SIZE)).save(str(path))
        case _:
            write_torch(path, batch=2 if path.suffix == ".pt2" else None)

    with pytest.raises(ValueError, match=said) as refused:
        load(path, **options)
    assert "\n" not in str(refused.value)


def spoiling() -> Classifier:
    return Classifier(in_place=True)


def test_fp16_is_for_gpus() -> None:
    assert list(PyTorch.precisions_on("cpu")) == ["fp32", "bf16"]
    assert "fp16" in PyTorch.precisions_on("cuda:1")


def test_a_gpu_that_is_not_there_is_said_with_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    said = (
        r"pytorch has no device 'cuda' here; it has cpu; .* is the CPU build: pip uninstall -y torch, then pip install"
    )
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(DeviceNotFound, match=said):
        PyTorch.check_device("cuda")
    with pytest.raises(DeviceNotFound, match="no device 'npu'"):
        PyTorch.check_device("npu")
    assert registry.load("pytorch") is PyTorch


def test_a_missing_package_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for package, said in (("torch", "needs PyTorch: pip install torch"), ("onnx2torch", "pip install onnx2torch")):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, package, None)
            with pytest.raises(ModuleNotFoundError, match=said):
                load(folder / "small.onnx")


def test_compiling_needs_a_compiler_and_says_so(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(ModuleNotFoundError, match="there is no no-such-compiler: apt install g"):
        load(folder / "small.onnx", mode="compile")


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="there is no g++")
def test_compiled_it_answers_alike_and_is_compiled_once_for_each_batch_size(
    folder: Path, samples: Any, truth: Any, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(cache))
    if sys.version_info < (3, 12):  # where another test has imported Python's own distutils, setuptools wants no other
        monkeypatch.setenv("SETUPTOOLS_USE_DISTUTILS", "stdlib")
    stats = torch._dynamo.utils.counters["stats"]
    stats.clear()

    with load(folder / "small.onnx", mode="compile") as backend, backend.runner() as one, backend.runner() as other:
        for rows in (1, 2, 4):
            np.testing.assert_allclose(run(one, samples[:rows]), truth[:rows], atol=1e-5 * np.ptp(truth))
        compiled = stats["unique_graphs"]
        with ThreadPoolExecutor(1) as pool:
            found = pool.submit(run, other, samples[:4]).result()
            pool.submit(other.infer, Slot(4, {"images": samples[:4]})).result()

    np.testing.assert_allclose(found, truth[:4], atol=1e-5 * np.ptp(truth))
    assert (compiled, stats["unique_graphs"]) == (3, 3)
    assert backend.batch_sizes is not None and backend.batch_sizes[:3] == (1, 2, 4)
    assert backend.attest().provider == "PyTorch CPU, compile"


@pytest.mark.parametrize("source", ["", "raise RuntimeError('operator torchvision::nms does not exist')", "hidden"])
def test_without_torchvision_its_operators_say_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    if source == "hidden":
        monkeypatch.setitem(sys.modules, "torchvision", None)
    elif source:
        (tmp_path / "torchvision").mkdir()
        (tmp_path / "torchvision" / "__init__.py").write_text(source)
        monkeypatch.syspath_prepend(tmp_path)
    before = {name: each for name, each in sys.modules.items() if name.startswith("torchvision")}

    with _torchvision():
        import torchvision

        with pytest.raises(ModuleNotFoundError, match="NonMaxSuppression and RoiAlign need torchvision"):
            torchvision.ops.nms(1, 2, 3)

    assert {name: each for name, each in sys.modules.items() if name.startswith("torchvision")} == before


def test_torchvision_is_used_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "__init__.py").touch()
    (tmp_path / "torchvision" / "ops.py").write_text("nms = 'theirs'")
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("torchvision", "torchvision.ops"):
        monkeypatch.setitem(sys.modules, name, None)
        monkeypatch.delitem(sys.modules, name)

    with _torchvision():
        import torchvision

        assert torchvision.ops.nms == "theirs"
    assert "torchvision" in sys.modules


def threads_on() -> dict[int, set[int]]:
    """The cores of each of this process's threads."""
    return {int(task.name): os.sched_getaffinity(int(task.name)) for task in Path("/proc/self/task").iterdir()}


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="two core sets need two cores")
def test_a_lane_s_team_is_on_the_cores_of_the_lane(folder: Path, samples: Any) -> None:
    """As ``sut.pipeline.devices`` loads, one after the other in one thread, and lanes run, each in its own."""
    sets = [{core} for core in sorted(os.sched_getaffinity(0))[:2]]

    def lane(cores: set[int], runner: Runner) -> set[int]:
        os.sched_setaffinity(0, cores)
        before = threads_on()
        run(runner, samples)
        made = {thread: where for thread, where in threads_on().items() if thread not in before}
        assert all(where == cores for where in made.values())
        return {*made}

    with load(folder / "small.onnx", threads=2) as one, load(folder / "small.onnx", threads=2) as other:
        for cores, backend in zip(sets, (one, other), strict=True):
            with backend.runner() as runner, ThreadPoolExecutor(1) as pool:
                assert len(pool.submit(lane, cores, runner).result()) == 1, "of two threads one is the lane's own"
