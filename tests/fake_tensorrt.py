"""TensorRT's runtime that is not there: the CPU's ONNX Runtime, over the memory and streams of ``tests/fake_gpu.py``.

``plug_in`` puts it in the place of the module, and a builder beside it whose engines are the ONNX file with what they
were built for. An engine is loaded on the GPU and by the version that it was built for, or not at all; a context runs
what its profile covers, from the addresses that are set when it is started, once the stream comes to it, and writes
over the memory that it was given to work in. Its first run is in no graph. Where no GPU is
current, TensorRT takes the first, as CUDA's runtime does. What is refused returns None or False and is
told to the logger, as TensorRT does. A graph whose context has other shapes by now loses the GPU: TensorRT only says
that it may not be.
"""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np

from backends import tensorrt, tensorrt_kept
from backends.tensorrt_engine import Build, created
from plugins.driver import Installed
from tests import fake_gpu
from tests.fake_gpu import POISON, FakeDriver, FakeGpuError

NS_A_ROW = 40_000.0
_TYPES = {"tensor(float)": "float32", "tensor(float16)": "float16", "tensor(int64)": "int64", "tensor(uint8)": "uint8"}


@dataclass
class FakeTensorRt:
    """What the module is made of; the fields are for tests to set.

    ``builds`` are those so far, ``timings`` the timing cache that each was given; of ``steps`` each build tells. The
    ``name`` is what the module calls itself. What ``refuses`` says, no engine is loaded for.
    """

    drivers: tuple[FakeDriver, ...]
    name: str = "tensorrt"
    version: str = "11.4.0.106"
    bytes_a_row: int = 64
    has_builder: bool = True
    refuses: tuple[str, ...] = ()
    steps: int = 3
    timings: list[bytes] = field(default_factory=list)
    captures: Callable[[int], bool] = lambda rows: True
    fails_at: Callable[[int], bool] = lambda rows: False
    at_batch: Callable[[Mapping[str, Any]], None] = lambda feed: None
    builds: list[Build] = field(default_factory=list)

    @property
    def driver(self) -> FakeDriver:
        """Of the GPU that is current, or the first."""
        return next((each for each in self.drivers if each.is_current), self.drivers[0])

    def module(self) -> ModuleType:
        """What ``import tensorrt`` gives."""

        class ILogger:
            INTERNAL_ERROR, ERROR, WARNING = range(3)

        module = ModuleType(self.name)
        vars(module).update(
            __version__=self.version,
            ILogger=ILogger,
            IRuntimeConfig=FakeConfig,
            TensorIOMode=SimpleNamespace(INPUT="input", OUTPUT="output"),
            ExecutionContextAllocationStrategy=SimpleNamespace(USER_MANAGED="ours"),
            DynamicShapesKernelSpecializationStrategy=SimpleNamespace(EAGER="at once"),
            nptype=lambda name: np.dtype(name).type,
            Runtime=lambda logger: FakeRuntime(self, logger),
        )
        return module

    def build(
        self, trt: Any, path: Path, build: Build, timing: bytes, progress: Callable[[int, int], None]
    ) -> tuple[bytes, bytes]:
        """In the place of ``build_engine``."""
        if not self.has_builder:
            created(trt, "Builder", None)
        self.builds.append(build)
        self.timings.append(timing)
        for step in range(self.steps):
            progress(step + 1, self.steps)
        return self.plan(path, build), timing + b"timed "

    def plan(self, path: Path, build: Build, **other: str) -> bytes:
        """An engine, as it is here or as ``other`` says."""
        content = base64.b64encode(path.read_bytes()).decode()
        told = {"version": self.version, "gpu": self.driver.name, "sizes": build.sizes, "onnx": content}
        return json.dumps(told | other).encode()


def plug_in(*drivers: FakeDriver, **settings: Any) -> FakeTensorRt:
    """From now on TensorRT is this, in this process, and its GPUs those of ``drivers``."""
    fake = FakeTensorRt(drivers, **settings)
    fake_gpu.plug_in(*drivers)
    sys.modules["tensorrt"] = fake.module()
    vars(tensorrt)["installed_driver"] = lambda: Installed(13, 0, len(drivers))
    vars(tensorrt_kept)["build_engine"] = fake.build
    return fake


class _OnGpu:
    """What has memory on the GPU that was current when it was made, which is freed there alone."""

    _driver: FakeDriver

    def __del__(self) -> None:
        if not self._driver.is_current:
            self._driver.stray.append(type(self).__name__)


class FakeRuntime(_OnGpu):
    """A ``Runtime``."""

    def __init__(self, fake: FakeTensorRt, logger: Any) -> None:
        self.fake, self.logger, self._driver = fake, logger, fake.driver

    def deserialize_cuda_engine(self, plan: bytes) -> FakeEngine | None:
        told = json.loads(plan)
        if self.fake.refuses:
            for said in self.fake.refuses:
                self.logger.log(1, said)
            return None
        for what, here in (("version", self.fake.version), ("gpu", self.fake.driver.name)):
            if told[what] != here:
                self.logger.log(1, f"IRuntime::deserializeCudaEngine: Error Code 1: {what} {told[what]}, here {here}")
                return None
        return FakeEngine(self.fake, self.logger, base64.b64decode(told["onnx"]), tuple(told["sizes"]))


class FakeEngine(_OnGpu):
    """An ``ICudaEngine``."""

    num_layers = 1

    def __init__(self, fake: FakeTensorRt, logger: Any, onnx: bytes, sizes: tuple[int, ...]) -> None:
        import onnxruntime

        self.fake, self.logger, self.sizes, self._driver = fake, logger, sizes, fake.driver
        self.session = onnxruntime.InferenceSession(onnx, providers=["CPUExecutionProvider"])
        self.ports = {port.name: port for port in (*self.session.get_inputs(), *self.session.get_outputs())}
        self.inputs = [port.name for port in self.session.get_inputs()]
        self.num_io_tensors = len(self.ports)
        is_open = any(isinstance(self.ports[name].shape[0], str) for name in self.inputs)
        self.num_optimization_profiles = len(sizes) if is_open else 1

    def get_tensor_name(self, index: int) -> str:
        return list(self.ports)[index]

    def get_tensor_mode(self, name: str) -> str:
        return "input" if name in self.inputs else "output"

    def get_tensor_dtype(self, name: str) -> str:
        return _TYPES[self.ports[name].type]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return tuple(axis if isinstance(axis, int) else -1 for axis in self.ports[name].shape)

    def get_device_memory_size_for_profile_v2(self, index: int) -> int:
        return self.fake.bytes_a_row * (self.sizes[index] if self.num_optimization_profiles > 1 else 1)

    def create_runtime_config(self) -> FakeConfig:
        return FakeConfig()

    def create_execution_context(self, config: FakeConfig) -> FakeContext:
        assert config._allocation == "ours"
        assert self.fake.driver is self._driver, "another GPU is current than the engine's"
        if self.fake.name != "tensorrt":
            assert config._cache, "each context would compile its kernels"
            compiles = config.dynamic_shapes_kernel_specialization_strategy
            assert compiles == "at once", "a graph would have the kernels that run until those of its shapes are ready"
        return FakeContext(self)


class FakeConfig:
    """An ``IRuntimeConfig``, as TensorRT-RTX's is."""

    dynamic_shapes_kernel_specialization_strategy = "later"
    _allocation = "static"
    _cache = ""

    def set_execution_context_allocation_strategy(self, strategy: str) -> None:
        self._allocation = strategy

    def create_runtime_cache(self) -> str:
        return "compiled kernels"

    def set_runtime_cache(self, cache: str) -> bool:
        self._cache = cache
        return True


class FakeContext(_OnGpu):
    """An ``IExecutionContext``."""

    def __init__(self, engine: FakeEngine) -> None:
        self._driver = engine._driver
        self._engine, self._profile = engine, 0
        self._memory = (0, 0)
        self._has_run = False
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}

    def set_optimization_profile_async(self, index: int, stream: int) -> bool:
        self._profile = index
        self._shapes.clear()
        return 0 <= index < self._engine.num_optimization_profiles

    def set_device_memory(self, address: int, nbytes: int) -> None:
        self._memory = (address, nbytes)

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        engine, size = self._engine, self._engine.get_tensor_shape(name)[0]
        covered = engine.sizes[self._profile] if size == -1 else size
        if shape[0] != covered:
            return self._refuse(f"IExecutionContext::setInputShape: Error Code 3: {shape[0]} is not {covered}")
        self._shapes[name] = tuple(shape)
        return True

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        """Of an output, as it follows from the inputs'."""
        engine = self._engine
        feed = {each: np.zeros(shape, engine.get_tensor_dtype(each)) for each, shape in self._shapes.items()}
        return tuple(engine.session.run([name], feed)[0].shape)

    def set_tensor_address(self, name: str, address: int) -> bool:
        self._addresses[name] = address
        return True

    def execute_async_v3(self, stream: int) -> bool:
        engine, driver = self._engine, self._driver
        if {*self._shapes} != {*engine.inputs} or {*self._addresses} != {*engine.ports}:
            return self._refuse("IExecutionContext::enqueueV3: Error Code 3: a shape or an address is not set")
        shapes, addresses, (scratch, nbytes) = dict(self._shapes), dict(self._addresses), self._memory
        if nbytes < engine.get_device_memory_size_for_profile_v2(self._profile):
            return self._refuse("IExecutionContext::enqueueV3: Error Code 3: too little device memory was set")
        rows = next(iter(shapes.values()))[0]
        if engine.fake.fails_at(rows):
            return self._refuse(
                "IExecutionContext::enqueueV3: Error Code 2: OutOfMemory (no memory for the workspace)",
                "IExecutionContext::enqueueV3: Error Code 4: Internal Error (the batch was not started.)",
            )
        if stream in driver.capturing and not (self._has_run and engine.fake.captures(rows)):
            return self._refuse("IExecutionContext::enqueueV3: Error Code 1: not permitted when stream is capturing")
        self._has_run = True

        def work() -> float:
            if shapes != self._shapes:
                raise FakeGpuError("a graph of a context that has other shapes by now")
            driver.part(scratch, nbytes)[:] = POISON
            feed = {
                name: driver.array(addresses[name], shape, engine.get_tensor_dtype(name)).copy()
                for name, shape in shapes.items()
            }
            engine.fake.at_batch(feed)
            names = [name for name in engine.ports if name not in engine.inputs]
            for name, found in zip(names, engine.session.run(names, feed), strict=True):
                driver.array(addresses[name], found.shape, found.dtype.name)[:] = found
            return NS_A_ROW * rows

        driver.enqueue(stream, "model", work)
        return True

    def is_stream_capturable(self, stream: int) -> bool:
        return self._engine.fake.name == "tensorrt" or self._has_run

    def _refuse(self, *errors: str) -> bool:
        for said in errors:
            self._engine.logger.log(1, said)
        return False
