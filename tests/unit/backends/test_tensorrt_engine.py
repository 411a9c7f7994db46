"""TensorRT-RTX's builder for real, which needs no GPU: engines of the models, and what it refuses."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from threading import Thread
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest.mock import create_autospec

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from backends.tensorrt import context_config
from backends.tensorrt_engine import (
    Build,
    architectures,
    build_engine,
    cause,
    configure,
    created,
    import_tensorrt,
    logger_of,
    timing_cache,
)
from backends.tensorrt_onnx import with_casts_first
from plugins.errors import DeviceNotFound
from sut.models.precision.fold import fold
from tests import fake_tensorrt
from tests.core import module_needs
from tests.unit.small_models import RECIPE, SIZE, quiet, write_classifier

module_needs("tensorrt-rtx")

trt = import_tensorrt()
SHAPE = (3, SIZE, SIZE)


def test_a_profile_for_each_batch_size_and_smaller_weights_in_half(tmp_path: Path) -> None:
    path = write_classifier(tmp_path / "small.onnx")

    one, _ = build_engine(trt, path, Build((1,), SHAPE, architectures=("sm_89",)))
    four, timing = build_engine(trt, path, Build((1, 2, 4, 8), SHAPE, architectures=("sm_89",)))

    assert timing == b"" and len(four) > len(one) > 1000


def test_a_model_of_one_batch_size_whose_other_axes_are_open_has_one_profile(tmp_path: Path) -> None:
    path, opened = write_classifier(tmp_path / "small.onnx", batch=2), tmp_path / "open.onnx"
    model = onnx.load(path)
    for axis in model.graph.input[0].type.tensor_type.shape.dim[2:]:
        axis.dim_param = "open"
    onnx.save(model, opened)

    plans = [build_engine(trt, each, Build((1, 2, 4), SHAPE, architectures=("sm_89",)))[0] for each in (path, opened)]

    assert len(plans[1]) > 1000 and abs(len(plans[1]) - len(plans[0])) < 0.5 * len(plans[0])


def test_an_architecture_that_it_does_not_know_is_named_with_those_it_does(tmp_path: Path) -> None:
    path = write_classifier(tmp_path / "small.onnx")
    with pytest.raises(ValueError, match=r"no engine can be built for sm_90 here, but for sm_75, .*sm_89"):
        build_engine(trt, path, Build((1,), SHAPE, architectures=("sm_90",)))
    assert "sm_90" not in architectures(trt)


def test_a_folded_model_takes_bytes(tmp_path: Path) -> None:
    path, _ = fold(write_classifier(tmp_path / "small.onnx"), RECIPE, quiet)

    plan, _ = build_engine(trt, path, Build((1, 2), (SIZE, SIZE, 3), architectures=("sm_89",)))

    assert len(plan) > 1000
    swapped = onnx.load_from_string(with_casts_first(path))
    assert [node.op_type for node in swapped.graph.node[:2]] == ["Cast", "Transpose"]
    bytes_ = np.random.default_rng(1).integers(0, 256, (2, SIZE, SIZE, 3), np.uint8)
    name = swapped.graph.input[0].name
    found = [
        onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"]).run(None, {name: bytes_})
        for model in (path.read_bytes(), swapped.SerializeToString())
    ]
    np.testing.assert_array_equal(*found)


def test_a_model_that_takes_no_bytes_is_read_as_it_is_written(tmp_path: Path) -> None:
    path = write_classifier(tmp_path / "small.onnx", layout="NHWC")
    path.write_bytes(path.read_bytes() + onnx.ModelProto(producer_name="again").SerializeToString())

    assert with_casts_first(path) == path.read_bytes()


@pytest.mark.parametrize(("kind", "casts"), [(TensorProto.FLOAT, 1), (TensorProto.UINT8, 2)])
def test_no_other_transposes_are_swapped(tmp_path: Path, kind: int, casts: int) -> None:
    """Of what is no byte; and of what more than one node takes, as it is or as floats."""
    nodes = [helper.make_node("Transpose", ["x"], ["t"], perm=[0, 3, 1, 2])]
    nodes += [helper.make_node("Cast", ["t"], [f"y{n}"], to=TensorProto.FLOAT16) for n in range(casts)]
    given = [helper.make_tensor_value_info("x", kind, [1, 4, 4, 3])]
    made = [helper.make_tensor_value_info(f"y{n}", TensorProto.FLOAT16, [1, 3, 4, 4]) for n in range(casts)]
    onnx.save(helper.make_model(helper.make_graph(nodes, "other", given, made)), tmp_path / "other.onnx")

    assert with_casts_first(tmp_path / "other.onnx") == (tmp_path / "other.onnx").read_bytes()


def test_what_tensorrt_itself_misses_is_told_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> None:
        raise ModuleNotFoundError("No module named 'numpy.core'", name="numpy.core")

    monkeypatch.setattr("backends.tensorrt_engine.importlib.import_module", broken)

    with pytest.raises(ModuleNotFoundError, match=r"^No module named 'numpy.core'$"):
        import_tensorrt()


def test_an_operator_that_it_does_not_have_is_named_with_its_node(tmp_path: Path) -> None:
    given, found = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 4]) for name in ("given", "found"))
    node = helper.make_node("Bernoulli", ["given"], ["found"], name="the one")
    graph = helper.make_graph([node], "graph", [given], [found])
    onnx.save(helper.make_model(graph, ir_version=10), tmp_path / "odd.onnx")

    with pytest.raises(ValueError, match=r"odd\.onnx: TensorRT .*Bernoulli .*'the one'"):
        build_engine(trt, tmp_path / "odd.onnx", Build((1,), (4,), architectures=("sm_89",)))


def test_too_little_memory_to_build_in_says_what_to_ask_for(tmp_path: Path) -> None:
    path = write_classifier(tmp_path / "small.onnx")

    with pytest.raises(ValueError, match=r"small\.onnx: there is too little memory .*workspace limit.*--max-batchsize"):
        build_engine(trt, path, Build((1,), SHAPE, workspace_bytes=1, architectures=("sm_89",)))


def test_its_steps_are_told_and_what_that_raises_ends_the_build(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path, told = write_classifier(tmp_path / "small.onnx"), list[tuple[int, int]]()

    def tell(done: int, total: int) -> None:
        told.append((done, total))
        if len(told) == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_engine(trt, path, Build((1,), SHAPE, architectures=("sm_89",)), progress=tell)

    assert [done for done, _ in told] == [1, 2, 3, 4, 5]
    assert all(done <= total for done, total in told)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(("taken", "expected"), [((b"kept", b""), b"kept"), ((b"",), b""), ((), None)])
def test_a_timing_cache_that_tensorrt_does_not_take_is_left(taken: tuple[bytes, ...], expected: bytes | None) -> None:
    config: Any = SimpleNamespace(
        create_timing_cache=lambda timing: timing,
        set_timing_cache=lambda cache, ignore_mismatch: cache in taken and not ignore_mismatch,
    )
    assert timing_cache(config, b"kept") == expected


def test_what_does_not_start_says_why_or_what_to_install() -> None:
    logger: Any = SimpleNamespace(errors=["[E] CUDA initialization failure with error: 35"])

    def null(logger: Any) -> None:
        raise TypeError("pybind11::init(): factory function returned nullptr")

    lean: Any = ModuleType("tensorrt")
    lean.__version__, lean.Runtime = "11.0", null
    with pytest.raises(DeviceNotFound, match=r"TensorRT's runtime does not start: .*CUDA initialization failure"):
        created(lean, "Runtime", logger)
    with pytest.raises(ModuleNotFoundError, match=r"tensorrt 11\.0 has no builder, .*: pip install tensorrt-cu13"):
        created(lean, "Builder", logger_of(trt))


def test_what_a_lane_is_told_are_its_own_errors_and_they_are_told_once() -> None:
    logger = logger_of(trt)
    other = Thread(target=logger.log, args=(trt.ILogger.ERROR, "another lane's"))
    other.start()
    other.join()
    assert not logger.said()

    for number in range(1000):
        logger.log(trt.ILogger.ERROR, f"error {number}")

    assert [*logger.said()] == [f"error {number}" for number in range(900, 1000)], "a run of days keeps no more"
    assert not logger.said()
    assert len(logger.errors) == 100


@pytest.mark.parametrize(
    ("errors", "told"),
    [
        ([], ("it says nothing about why", False)),
        (["[E] no such\nkernel", "Error Code 4: Internal Error"], ("no such kernel", False)),
        (["a tactic was skipped", "[E] out of memory", "Error Code 4"], ("out of memory", True)),
    ],
)
def test_of_its_errors_the_cause_is_told(errors: list[str], told: tuple[str, bool]) -> None:
    assert cause(errors, re.compile("out of memory")) == told


@pytest.fixture
def config() -> Any:
    """The real builder's, as it is before anything is asked for."""
    return created(trt, "Builder", logger_of(trt)).create_builder_config()


def test_fp32_is_fp32_unless_tf32_is_asked_for(config: Any) -> None:
    assert config.get_flag(trt.BuilderFlag.TF32), "TensorRT's own"
    configure(trt, config, Build((1,)))
    assert not config.get_flag(trt.BuilderFlag.TF32)
    configure(trt, config, Build((1,), tf32=True))
    assert config.get_flag(trt.BuilderFlag.TF32)


def test_the_level_is_the_builders_own_unless_one_is_asked_for(config: Any) -> None:
    own = config.builder_optimization_level
    configure(trt, config, Build((1,)))
    assert config.builder_optimization_level == own
    configure(trt, config, Build((1,), level=0))
    assert config.builder_optimization_level == 0 != own


@pytest.mark.parametrize("graphs", [True, False])
def test_engines_allocate_nothing_in_a_run_where_graphs_are_captured(config: Any, graphs: bool) -> None:
    configure(trt, config, Build((1,), graphs=graphs))
    assert config.get_flag(trt.BuilderFlag.REQUIRE_USER_ALLOCATION) == graphs


def test_kernels_are_compiled_at_once_and_shared_by_calls_that_the_bindings_have() -> None:
    config = create_autospec(trt.IRuntimeConfig, spec_set=True, instance=True)
    engine: Any = SimpleNamespace(create_runtime_config=lambda: config)

    assert context_config(trt, engine) is config

    config.set_execution_context_allocation_strategy.assert_called_once_with(
        trt.ExecutionContextAllocationStrategy.USER_MANAGED
    )
    config.set_runtime_cache.assert_called_once_with(config.create_runtime_cache.return_value)
    eager = trt.DynamicShapesKernelSpecializationStrategy.EAGER
    assert config.dynamic_shapes_kernel_specialization_strategy == eager


@pytest.mark.parametrize(
    ("fake", "real"),
    [
        (fake_tensorrt.FakeRuntime, trt.Runtime),
        (fake_tensorrt.FakeEngine, trt.ICudaEngine),
        (fake_tensorrt.FakeConfig, trt.IRuntimeConfig),
        (fake_tensorrt.FakeContext, trt.IExecutionContext),
    ],
)
def test_the_bindings_have_all_that_the_fake_runtime_has(fake: type, real: type) -> None:
    assert {name for name in vars(fake) if not name.startswith("_")} <= {*dir(real)}


def test_a_folder_of_type_stubs_is_not_taken_for_tensorrt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tensorrt").mkdir()
    (tmp_path / "tensorrt" / "__init__.pyi").write_text("__version__: str\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "tensorrt", raising=False)

    assert import_tensorrt() is trt
    assert hasattr(sys.modules["tensorrt"], "__path__"), "Python imports it"
    del sys.modules["tensorrt"]


def test_a_file_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "no.onnx").write_bytes(b"no model")

    with pytest.raises(ValueError, match=r"no\.onnx: TensorRT cannot read it: "):
        build_engine(trt, tmp_path / "no.onnx", Build((1,), architectures=("sm_89",)))


def test_unsigned_8_bits_are_refused_because_they_would_be_read_as_signed(tmp_path: Path) -> None:
    given, found = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 4]) for name in ("given", "found"))
    scale, zero = numpy_helper.from_array(np.float32(0.1), "s"), numpy_helper.from_array(np.uint8(0), "z")
    nodes = [
        helper.make_node("QuantizeLinear", ["given", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"]),
        helper.make_node("Relu", ["d"], ["found"]),
    ]
    graph = helper.make_graph(nodes, "graph", [given], [found], [scale, zero])
    onnx.save(helper.make_model(graph, ir_version=10), tmp_path / "u8.onnx")

    with pytest.raises(ValueError, match="quantised to unsigned 8 bits, which TensorRT reads as signed"):
        build_engine(trt, tmp_path / "u8.onnx", Build((1,), (4,), architectures=("sm_89",)))


def test_without_either_of_them_the_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("tensorrt", "tensorrt_rtx", "tensorrt_rtx_bindings"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ModuleNotFoundError, match="pip install tensorrt-cu13"):
        import_tensorrt()


def test_of_one_that_is_too_old_both_versions_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    old: Any = ModuleType("tensorrt")
    old.__version__ = "10.0.1"
    monkeypatch.setitem(sys.modules, "tensorrt", old)
    with pytest.raises(ModuleNotFoundError, match=r"^tensorrt 10\.0\.1 is too old .* 10\.13 or newer: pip install"):
        import_tensorrt()
