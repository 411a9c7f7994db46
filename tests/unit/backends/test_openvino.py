"""OpenVINO executes what it is asked to or says so, at any batch size, in two lanes at once; errors stay in a batch."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import openvino
import pytest
from numpy.typing import NDArray

from backends import openvino as module
from backends import registry
from backends.base import ModelFile, Runner, Slot, TensorSpec
from backends.executed import emulated, executed_precision
from backends.null import Null
from backends.onnxruntime import OnnxRuntime
from backends.openvino import OpenVino
from plugins.cpuinfo import CpuInfo
from plugins.errors import DeviceNotFound
from preprocess.opencv import OpenCV
from sut.datasets.base import DataSet
from sut.datasets.demo import open_demo
from sut.models.registry import MODELS
from tests.children import CHECKOUT, run_python
from tests.unit.odd_models import write_odd
from tests.unit.openvino_models import SAMPLE, write_model, write_picky

LITE0 = MODELS["efficientnet-lite0"]
FLAGS = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
HAS_BF16 = "avx512_bf16" in FLAGS or "amx_bf16" in FLAGS
REST = ("bf16", "bf16") if HAS_BF16 else ("fp32", "f32")
"""What an int8 file leaves unquantised executes in this; our word and OpenVINO's."""
needs_bf16 = pytest.mark.skipif(not HAS_BF16, reason="this CPU has no bfloat16 instructions")
needs_x86 = pytest.mark.skipif("avx2" not in FLAGS, reason="the limit is one of x86 instructions")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    return {
        "fp32": write_model(folder / "fp32.onnx"),
        "int8": write_model(folder / "int8.onnx", (True, True)),
        "int8 large": write_model(folder / "large.onnx", (False, True)),
        "int8 small": write_model(folder / "small.onnx", (True, False)),
        "picky": write_picky(folder / "picky.onnx"),
    }


def load(path: Path, precision: str = "fp32", lanes: int = 1, threads: int = 1, **options: Any) -> OpenVino:
    return OpenVino.load(ModelFile(path, precision, SAMPLE), "cpu", lanes, threads, options)


def run(runner: Runner, rows: NDArray[np.float32], padded: int | None = None) -> NDArray[np.float32]:
    slot = runner.slot(padded or len(rows))
    slot.buffers["images"][: len(rows)] = rows
    return np.array(runner.infer(slot)["scores"][: len(rows)])


def pictures(n: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((n, *SAMPLE)).astype(np.float32)


@pytest.fixture(scope="module")
def photos() -> Iterator[tuple[Path, NDArray[np.float32], NDArray[np.int64]]]:
    """The trained model, the demo photos as it takes them, and ONNX Runtime's scores for them."""
    path = LITE0.build("trained", lambda line: None)
    dataset: DataSet = open_demo()
    inputs = np.zeros((dataset.count, *LITE0.recipe.sample_shape), np.float32)
    with OpenCV(LITE0.recipe) as working:
        working.run(
            [(dataset.root / name).read_bytes() for name in dataset.files], Slot(len(inputs), {"images": inputs}), str
        )
    with OnnxRuntime.load(ModelFile(path), "cpu", 1, 2) as backend, backend.runner() as runner:
        scores = runner.infer(Slot(len(inputs), {"images": inputs}))["logits"]
    yield path, inputs, np.asarray(scores)


@pytest.mark.parametrize("shape", ["dynamic", 8])
@pytest.mark.parametrize("precision", ["fp32", pytest.param("bf16", marks=needs_bf16)])
def test_labels_are_those_of_onnxruntime(photos: Any, precision: str, shape: str | int) -> None:
    path, inputs, truth = photos
    model = ModelFile(path, precision, LITE0.recipe.sample_shape)

    with OpenVino.load(model, "cpu", 1, 2, {"shape": shape}) as backend, backend.runner() as runner:
        assert backend.batch_sizes == (None if shape == "dynamic" else (8,))
        for rows in (1, 3, 8):
            slot = runner.slot(rows if shape == "dynamic" else 8)
            slot.buffers["images"][:rows] = inputs[:rows]
            scores = np.array(runner.infer(slot)["logits"][:rows])
            assert (scores.argmax(axis=1) == truth[:rows].argmax(axis=1)).all()
            # Half a percent of the range is far from fp32's rounding and bf16 is far from fp32: neither is the other.
            wrong = np.abs(scores - truth[:rows]).max() / np.ptp(truth)
            assert wrong < 1e-5 if precision == "fp32" else 1e-4 < wrong < 0.05


@pytest.mark.parametrize(
    ("file", "asked", "executed", "layers"),
    [
        ("fp32", "fp32", "fp32", "f32: 3"),
        pytest.param("fp32", "bf16", "bf16", "bf16: 3", marks=needs_bf16),
        ("int8", "int8", "int8", f"{REST[1]}: 1, u8/i8: 2"),
        ("int8 large", "int8", "int8", f"{REST[1]}: 2, u8/i8: 1"),
        ("int8 small", "int8", f"{REST[0]}+int8", f"{REST[1]}: 2, u8/i8: 1"),
        # The hint is not what is attested.
        ("fp32", "int8", REST[0], f"{REST[1]}: 3"),
        ("int8", "fp32", "int8", "f32: 1, u8/i8: 2"),
        ("int8 small", "fp32", "fp32+int8", "f32: 2, u8/i8: 1"),
    ],
)
def test_what_executes_is_attested(files: dict[str, Path], file: str, asked: str, executed: str, layers: str) -> None:
    with load(files[file], asked) as backend:
        found = backend.attest()

    assert (found.device, found.provider, found.precision) == ("cpu", "OpenVINO CPU", executed)
    assert found.details["layers"] == layers
    assert found.device_name


@needs_x86
@pytest.mark.parametrize("asked", ["fp16", "bf16"])
def test_what_the_cpu_cannot_execute_is_not_attested(files: dict[str, Path], asked: str) -> None:
    script = (
        "import sys\n"
        "from pathlib import Path\n"
        "from backends.base import ModelFile\n"
        "from backends.openvino import OpenVino\n"
        "model = ModelFile(Path(sys.argv[1]), sys.argv[2], (3, 16, 16))\n"
        "try:\n"
        "    print(OpenVino.load(model, 'cpu', 1, 1).attest().precision)\n"
        "except ValueError as error:\n"
        "    print('refused', error)\n"
    )

    done = run_python("-c", script, files["fp32"], asked, cwd=CHECKOUT, ONEDNN_MAX_CPU_ISA="AVX2")

    assert done.code == 0, done.err
    assert done.out.startswith(("refused", "fp32"))
    assert len(done.out.splitlines()) == 1


@pytest.mark.parametrize(
    ("work", "word"),
    [
        ({"fp32": 1}, "fp32"),
        ({"int8": 51, "fp32": 49}, "int8"),
        ({"int8": 50, "fp32": 50}, "int8+fp32"),
        ({"int8": 60, "bf16": 30, "fp32": 10}, "int8"),
        ({"int8": 40, "bf16": 30, "fp32": 30}, "int8+bf16+fp32"),
        ({"bf16": 99, "int8": 1}, "bf16+int8"),
        ({"fp16": 99, "bf16": 1}, "fp16+bf16"),
        ({"fp16": 99, "fp32": 1}, "fp16"),
        ({"f64": 3}, "f64"),
        ({"fp32": 99, "u4": 1}, "fp32+u4"),
        ({}, "unknown"),
    ],
)
def test_the_rule_of_precision(work: Mapping[str, int], word: str) -> None:
    assert executed_precision(work) == word


@pytest.mark.parametrize(
    ("work", "flags", "is_emulated"),
    [
        ({"bf16": 1}, {"avx512f", "avx512_vnni"}, True),
        ({"int8": 9, "bf16": 1}, {"avx512f"}, True),
        ({"bf16": 1}, {"avx512f", "avx512_bf16"}, False),
        ({"bf16": 1}, {"amx_bf16"}, False),
        ({"fp32": 1}, {"avx512f"}, False),
        ({"bf16": 1}, set(), False),
    ],
)
def test_bf16_without_instructions_is_called_emulated(work: dict[str, int], flags: set[str], is_emulated: bool) -> None:
    assert bool(emulated(work, frozenset(flags))) is is_emulated


def test_an_int8_file_that_cannot_be_run_with_bf16_is_run_without(
    files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    hints: list[str] = []

    class Refusing(openvino.Core):
        def compile_model(self, network: Any, device: str, config: dict[str, Any]) -> Any:
            hints.append(config["INFERENCE_PRECISION_HINT"])
            if hints[-1] == "bf16":
                raise RuntimeError("Exception from src/plugin.cpp:7:\ncould not create a primitive")
            return super().compile_model(network, device, config)

    monkeypatch.setattr(openvino, "Core", Refusing)
    monkeypatch.setattr(module, "read_cpuinfo", lambda: CpuInfo(None, frozenset({"amx_bf16"})))

    with load(files["int8"], "int8") as backend:
        found = backend.attest()
    with pytest.raises(ValueError, match="openvino cannot run it: could not create a primitive"):
        load(files["fp32"], "bf16")

    assert hints == ["bf16", "f32", "bf16"]
    assert (found.precision, found.details["layers"]) == ("int8", "f32: 1, u8/i8: 2")
    assert found.details["fallback"].endswith("(could not create a primitive): it has fp32 there")


class OnGpu:
    """A compiled model as the plug-in for Intel GPUs shows it: fewer properties, and no constants in the graph."""

    def __init__(self, compiled: Any) -> None:
        self._compiled = compiled
        self.inputs, self.outputs = compiled.inputs, compiled.outputs
        self.create_infer_request = compiled.create_infer_request

    def get_property(self, name: str) -> Any:
        known = {"SUPPORTED_PROPERTIES", "EXECUTION_DEVICES", "NUM_STREAMS", "PERFORMANCE_HINT"}
        if name == "SUPPORTED_PROPERTIES":
            return dict.fromkeys(known, "RO")
        if name not in known:
            raise RuntimeError(f"Unsupported property: {name}")
        return ["GPU.0"] if name == "EXECUTION_DEVICES" else self._compiled.get_property(name)

    def get_runtime_model(self) -> Any:
        nodes = [NoConstants(node) for node in self._compiled.get_runtime_model().get_ordered_ops()]
        return SimpleNamespace(get_ordered_ops=lambda: nodes)


class NoConstants:
    """A layer of which only the first input is in the graph."""

    def __init__(self, node: Any) -> None:
        self._node = node
        self.get_rt_info, self.output = node.get_rt_info, node.output

    def input(self, index: int) -> Any:
        if index:
            raise RuntimeError("node index is out of range")
        return self._node.input(index)


@pytest.fixture
def on_gpu(files: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> Callable[[str], OpenVino]:
    """Loads a model by name as if the CPU were ``gpu.0``."""
    core = openvino.Core()

    def load_on_gpu(name: str) -> OpenVino:
        network = core.read_model(files[name])
        compiled = core.compile_model(network, "CPU", {"INFERENCE_PRECISION_HINT": "f32", "NUM_STREAMS": 1})
        fake = SimpleNamespace(get_property=lambda device, name: f"{name} of {device}")
        with monkeypatch.context() as patch:
            patch.setattr(openvino, "Core", lambda: fake)
            return OpenVino(OnGpu(compiled), "gpu.0", network)

    return load_on_gpu


@pytest.mark.parametrize("file", ["fp32", "int8", "int8 small"])
def test_a_gpu_is_attested_without_what_only_a_cpu_has(
    files: dict[str, Path], on_gpu: Callable[[str], OpenVino], file: str
) -> None:
    with load(files[file]) as on_cpu:
        expected = on_cpu.attest()

    backend = on_gpu(file)
    found = backend.attest()

    assert (found.device, found.device_name) == ("gpu.0", "FULL_DEVICE_NAME of GPU.0")
    assert found.precision == expected.precision
    assert dict(found.details) == {
        name: value for name, value in expected.details.items() if name != "inference_num_threads"
    }
    with backend.runner() as lane:
        assert run(lane, pictures(2)).shape == (2, 10)


def test_the_cpu_tells_all_its_properties(files: dict[str, Path]) -> None:
    with load(files["fp32"]) as backend:
        details = backend.attest().details

    assert (details["inference_num_threads"], details["num_streams"]) == ("1", "1")
    assert details["performance_hint"] == "LATENCY"


@pytest.mark.parametrize("file", ["fp32", "int8", "int8 large", "int8 small"])
def test_arithmetic_is_counted_from_the_model_as_from_the_graph(files: dict[str, Path], file: str) -> None:
    network = openvino.Core().read_model(files[file])
    graph = openvino.Core().compile_model(network, "CPU").get_runtime_model().get_ordered_ops()
    weights = module._weights(network)

    convolutions = [node for node in graph if node.get_rt_info()["layerType"].astype(str) == "Convolution"]

    assert len(convolutions) == len(weights) == 2
    for node in convolutions:
        told = module._multiply_accumulates(node, "Convolution", weights)
        assert told == module._multiply_accumulates(node, "Convolution", {}) > 0


def test_only_a_cpu_is_called_emulating(
    files: dict[str, Path], on_gpu: Callable[[str], OpenVino], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "emulated", lambda work, cpu_flags: "all of it")

    with load(files["fp32"]) as on_cpu:
        assert on_cpu.attest().details["emulated"] == "all of it"
    assert "emulated" not in on_gpu("fp32").attest().details


@pytest.mark.parametrize("streams", [1, 2])
def test_two_lanes_at_once_answer_as_one_alone(files: dict[str, Path], streams: int) -> None:
    batches = [pictures(n, seed) for seed, n in enumerate([1, 3, 8, 2, 8, 1] * 5)]
    with load(files["fp32"], lanes=2, streams=streams) as backend, backend.runner() as one, backend.runner() as two:
        alone = [run(one, batch) for batch in batches]

        with ThreadPoolExecutor(2) as pool:
            together = list(pool.map(lambda runner: [run(runner, batch) for batch in batches], (one, two)))

    for lane in together:
        for found, expected in zip(lane, alone, strict=True):
            np.testing.assert_array_equal(found, expected)


def test_an_error_stays_in_its_batch(files: dict[str, Path]) -> None:
    with load(files["picky"]) as backend, backend.runner() as lane, backend.runner() as other:
        good = run(lane, pictures(4))

        for _ in range(2):
            with pytest.raises(RuntimeError, match="shape infer input shapes"):
                run(lane, pictures(3))
            np.testing.assert_array_equal(run(lane, pictures(4)), good)
            np.testing.assert_array_equal(run(other, pictures(4)), good)
            with pytest.raises(RuntimeError, match="shape infer input shapes"):
                run(other, pictures(2))
            np.testing.assert_array_equal(run(lane, pictures(4)), good)


def test_no_answer_is_wrong_after_an_error(files: dict[str, Path]) -> None:
    rng = np.random.default_rng(1)
    with load(files["picky"], lanes=2) as backend, backend.runner() as lane, backend.runner() as other:
        good = run(lane, pictures(4))

        def answers(runner: Runner, sizes: list[int]) -> list[int]:
            right = []
            for n in sizes:
                try:
                    found = run(runner, pictures(n))
                except RuntimeError:
                    continue
                assert n != 4 or np.array_equal(found, good)
                right.append(n)
            return right

        with ThreadPoolExecutor(2) as pool:
            both = pool.map(answers, (lane, other), [rng.integers(1, 5, 200).tolist() for _ in range(2)])

        assert all(set(right) == {1, 4} for right in both)


def test_a_slot_that_does_not_fit_leaves_the_lane_alone(files: dict[str, Path]) -> None:
    with load(files["fp32"]) as backend, backend.runner() as lane:
        good = run(lane, pictures(2))

        for wrong in (np.zeros((2, 3, 8, 8), np.float32), np.zeros((2, *SAMPLE), np.float64), pictures(4)[::2]):
            with pytest.raises(RuntimeError):
                lane.infer(Slot(2, {"images": wrong}))
            np.testing.assert_array_equal(run(lane, pictures(2)), good)


def test_host_arrays_are_read_where_they_are(files: dict[str, Path]) -> None:
    many = pictures(6)
    with load(files["fp32"]) as backend, backend.runner() as lane:
        assert backend.reads_host_arrays
        expected = run(lane, many)

        read_only = many[4:5].view()
        read_only.flags.writeable = False
        for row, lent in ((3, many[3:4]), (4, read_only), (5, many[5:6].copy())):
            np.testing.assert_allclose(
                lane.infer(Slot(1, {"images": lent}))["scores"], expected[row : row + 1], rtol=1e-5
            )
        lent = Slot(1, {"images": many[:1]})
        first = np.array(lane.infer(lent)["scores"])
        many[0] = many[1]
        assert not np.allclose(lane.infer(lent)["scores"], first)


def test_an_output_that_copies_another_tensor_keeps_its_name(tmp_path: Path) -> None:
    path = write_odd(tmp_path / "odd.onnx", "two scores")

    with OpenVino.load(ModelFile(path), "cpu", 1, 1) as backend, backend.runner() as lane:
        assert [spec.name for spec in backend.outputs] == ["aux", "scores"]
        slot = lane.slot(1)
        slot.buffers["images"][:] = np.arange(3, dtype=np.float32)[:, None, None]
        with OnnxRuntime.load(ModelFile(path), "cpu", 1, 1) as other, other.runner() as same:
            for name, scores in same.infer(slot).items():
                np.testing.assert_allclose(lane.infer(slot)[name], scores, rtol=1e-4, atol=1e-5)


def test_outputs_are_views_and_slots_are_kept(files: dict[str, Path]) -> None:
    with load(files["fp32"]) as backend, backend.runner() as lane:
        assert backend.inputs == (TensorSpec("images", "float32", (None, *SAMPLE), "NCHW"),)
        assert backend.outputs == (TensorSpec("scores", "float32", (None, 10), "NC"),)
        assert lane.slot(3) is lane.slot(3)
        assert [lane.slot(n).buffers["images"].shape[0] for n in (3, 8, 1)] == [3, 8, 1]
        assert np.shares_memory(lane.slot(8).buffers["images"], lane.slot(1).buffers["images"])
        assert not lane.infer(lane.slot(2))["scores"].flags.owndata


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, {"num_streams": "2", "performance_hint": "THROUGHPUT"}),
        ({"hint": "auto", "streams": 1}, {"num_streams": "1", "performance_hint": "LATENCY"}),
        ({"streams": 1}, {"num_streams": "1"}),
        ({"streams": "1"}, {"num_streams": "1"}),
        ({"hint": "latency"}, {"num_streams": "1", "performance_hint": "LATENCY"}),
        ({"hint": "Throughput", "streams": 1}, {"num_streams": "1", "performance_hint": "THROUGHPUT"}),
    ],
)
def test_options_reach_the_runtime(files: dict[str, Path], options: dict[str, Any], expected: dict[str, str]) -> None:
    with load(files["fp32"], lanes=2, **options) as backend:
        details = backend.attest().details

    assert {key: details[key] for key in expected} == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"stream": 1},
            r"openvino has no option 'stream'; did you mean streams\? known: hint .*, streams .*, shape \(",
        ),
        ({"streams": 100_000}, "openvino option streams: got 100000, expected a whole number from 1 to 99999"),
        ({"streams": 0}, "option streams: got 0, expected a whole number from 1 to 99999"),
        ({"streams": "auto"}, "option streams: got 'auto', expected a whole number from 1 to 99999"),
        ({"streams": True}, "option streams: got True, expected a whole number"),
        ({"hint": "fast"}, "option hint: got 'fast', expected auto or latency or throughput"),
        ({"hint": 2}, "option hint: got 2, expected auto or latency or throughput"),
        ({"shape": "static"}, "option shape: got 'static', expected dynamic or a whole number from 1 to 99999"),
        ({"shape": -1}, "option shape: got -1"),
    ],
)
def test_a_bad_option_is_named(files: dict[str, Path], options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load(files["fp32"], **options)


def test_a_backend_without_options_refuses_any(files: dict[str, Path]) -> None:
    with pytest.raises(ValueError, match="null has no option 'streams'; it has none"):
        Null.load(ModelFile(files["fp32"]), "cpu", 1, 1, {"streams": 2})


def test_devices_are_openvinos(files: dict[str, Path]) -> None:
    assert OpenVino.devices()[0] == "cpu"
    OpenVino.check_device("CPU")
    with OpenVino.load(ModelFile(files["fp32"], "fp32", SAMPLE), "CPU", 1, 1) as backend:
        assert backend.attest().device == "CPU"
    with pytest.raises(DeviceNotFound, match=r"no device 'cuda:7' here; it has cpu.*Intel GPUs only, as gpu\.0"):
        OpenVino.check_device("cuda:7")
    with pytest.raises(DeviceNotFound, match=r"no device 'gpu\.7' here; it has cpu"):
        OpenVino.load(ModelFile(files["fp32"], "fp32", SAMPLE), "gpu.7", 1, 1)


@pytest.mark.parametrize(
    ("make", "fragment"),
    [
        (lambda path: path, "Could not open the file"),
        (lambda path: cut(write_model(path)), "Unable to read the model"),
        (lambda path: write_picky(path, reshape=True), "reshape"),
    ],
)
def test_what_openvino_cannot_run_is_refused_in_one_line(
    tmp_path: Path, make: Callable[[Path], Path], fragment: str
) -> None:
    path = make(tmp_path / "model.onnx")

    with pytest.raises(ValueError, match=fragment) as refused:
        load(path)
    assert "\n" not in str(refused.value)
    assert str(refused.value).startswith(f"{path}: openvino cannot run it: ")
    assert ".cpp:" not in str(refused.value)


def cut(path: Path) -> Path:
    path.write_bytes(path.read_bytes()[:10])
    return path


def test_axes_that_the_file_leaves_open_are_closed(tmp_path: Path) -> None:
    with load(write_model(tmp_path / "open.onnx", axes=("n", 3, "h", "w"))) as backend:
        assert backend.inputs[0].shape == (None, *SAMPLE)


def test_a_file_of_a_fixed_batch_has_one_batch_size(tmp_path: Path) -> None:
    with load(write_model(tmp_path / "fixed.onnx", axes=(4, *SAMPLE))) as backend, backend.runner() as lane:
        assert backend.batch_sizes == (4,)
        assert run(lane, pictures(3), padded=4).shape == (3, 10)


def test_it_is_in_the_registry() -> None:
    assert registry.load("openvino") is OpenVino
    assert OpenVino.precisions == {"fp32": "fp32", "bf16": "fp32", "fp16": "fp32", "int8": "int8-openvino"}
    assert OpenVino.version().count(".") == 2


def test_a_missing_openvino_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)

    with pytest.raises(ModuleNotFoundError, match="pip install openvino"):
        OpenVino.check_device("cpu")
