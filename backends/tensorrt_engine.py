"""TensorRT's builder: from an ONNX file to an engine, for the GPU that is there or one that is named.

TensorRT 11 and TensorRT-RTX know strongly typed networks alone: an engine computes in what the file is written in, so
precision is a form of the file (``fp16``, or ``int8-signed`` with its Q/DQ). Their modules are alike but for the name.
TensorRT-RTX builds on a machine without a GPU for the architectures that it lists; TensorRT needs the GPU itself.
"""

from __future__ import annotations

import importlib
import re
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import get_ident
from typing import TYPE_CHECKING, Any, cast

from backends.tensorrt_onnx import with_casts_first
from plugins.errors import DeviceNotFound

if TYPE_CHECKING:
    import tensorrt

Progress = Callable[[int, int], None]
MODULES = ("tensorrt", "tensorrt_rtx", "tensorrt_rtx_bindings")
"""In the order in which they are taken: the second is a thin one over the third, and wheels have been without it."""
_KEPT = 100
"""Errors: a run of days has no end of them."""
_NOISE = re.compile(r"^(\[[^\]]*\]\s*)+")
_FAILED = re.compile(r"IBuilder::\w+: Error Code \d+: ")
_TOO_LITTLE = re.compile("out of memory|insufficient (memory|workspace)|OutOfMemory|workspace limit", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Build:
    """What an engine is built for. ``sizes`` are the batch sizes, each with an optimisation profile of its own."""

    sizes: tuple[int, ...]
    sample_shape: tuple[int, ...] | None = None
    workspace_bytes: int | None = None
    """What a layer may take beside its input and output; None: as much as the GPU has."""
    tf32: bool = False
    level: int | None = None
    """From 0 to 5, how long it looks for the fastest kernels; None: TensorRT's own."""
    graphs: bool = True
    """Of TensorRT-RTX alone: a run may not allocate, as CUDA graphs want it; NVIDIA says that models with shapes
    that depend on data are not built then."""
    architectures: tuple[str, ...] = ()
    """Of TensorRT-RTX alone, one engine for all of them: ``sm_89``; none: the GPU that is there."""


def import_tensorrt() -> Any:
    """TensorRT, or TensorRT-RTX where only that is there.

    Raises ``ModuleNotFoundError`` where neither is, and for one without what it makes contexts by: what is named is the
    oldest TensorRT whose types this was checked against.
    """
    for name in MODULES:
        try:
            module = importlib.import_module(name)
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] not in MODULES:
                raise
            continue
        if not hasattr(module, "__version__"):  # a folder of type stubs, which Python takes for a package
            continue
        if not hasattr(module, "IRuntimeConfig"):
            raise ModuleNotFoundError(
                f"{name} {module.__version__} is too old for the backend tensorrt, which needs TensorRT 10.13 or newer:"
                " pip install --upgrade tensorrt-cu13",
                name=name,
            )
        return module
    raise ModuleNotFoundError(
        "the backend tensorrt needs TensorRT: pip install tensorrt-cu13 (or tensorrt-rtx-cu13 for RTX GPUs)",
        name=MODULES[0],
    )


def is_rtx(trt: Any) -> bool:
    """Whether it is TensorRT-RTX: it compiles its kernels when an engine is loaded, not when it is built."""
    return str(trt.__name__).startswith("tensorrt_rtx")


def logger_of(trt: Any) -> Any:
    """A logger that keeps the last ``errors``, and warnings, each once, in ``warnings``: they are told by whoever
    knows what was asked for. TensorRT prints nothing then. ``said()`` are the errors of this thread alone since it was
    last asked: neither another lane's nor an earlier one is taken for them.
    """

    class Kept(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: deque[str] = deque(maxlen=_KEPT)
            self._of_threads: dict[int, deque[str]] = {}
            self.warnings: dict[str, None] = {}

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.INTERNAL_ERROR, trt.ILogger.ERROR):
                self.errors.append(message)
                self._of_threads.setdefault(get_ident(), deque(maxlen=_KEPT)).append(message)
            elif severity == trt.ILogger.WARNING:
                self.warnings[message] = None

        def said(self) -> deque[str]:
            return self._of_threads.pop(get_ident(), deque())

    return Kept()


def cause(errors: Iterable[str], kind: re.Pattern[str]) -> tuple[str, bool]:
    """What to tell of ``errors``, in a line: the first of a ``kind``, or the first; and whether there is one of it.

    TensorRT says first what went wrong, and then what came of that.
    """
    first = next(iter(errors), "it says nothing about why")
    of_kind = next(filter(kind.search, errors), None)
    return _line(_FAILED.sub("", of_kind or first)), of_kind is not None


def created(trt: Any, kind: str, logger: Any) -> Any:
    """TensorRT's ``Builder`` or ``Runtime``.

    Raises ``ModuleNotFoundError`` where this TensorRT is one without it (the lean and dispatch runtimes have no
    builder), and ``DeviceNotFound`` where it does not start.
    """
    if not hasattr(trt, kind):
        raise ModuleNotFoundError(
            f"{trt.__name__} {trt.__version__} has no {kind.lower()}, which this needs: pip install tensorrt-cu13",
            name=trt.__name__,
        )
    try:
        return getattr(trt, kind)(logger)
    except (TypeError, RuntimeError) as error:  # how its bindings tell of a null pointer
        said = _line(logger.errors[0]) if logger.errors else str(error)
        raise DeviceNotFound(f"TensorRT's {kind.lower()} does not start: {said}") from error


def architectures(trt: Any) -> list[str]:
    """Those that TensorRT-RTX builds for without a GPU: ``sm_75`` and so on; none of TensorRT."""
    known = getattr(trt, "ComputeCapability", None)
    names = known.__members__ if known else ()
    return [f"sm_{name[2:]}" for name in names if re.fullmatch(r"SM\d+", name)]


def build_engine(
    trt: Any, path: Path, build: Build, timing: bytes = b"", progress: Progress = lambda done, total: None
) -> tuple[bytes, bytes]:
    """The engine of an ONNX file, and the timing cache of this build, which makes the next one of such layers faster.

    ``timing`` is that of an earlier build; one that TensorRT does not take is left. TensorRT-RTX has none. How many
    steps there are ``progress`` is told phase by phase; what it raises (Ctrl-C) ends the build, and is raised on.

    Raises ``ValueError`` for a file that it cannot read, an operator that it has no kernel for, by name and node, and
    where memory is too little to try its kernels in; and as ``created`` does.
    """
    logger = logger_of(trt)
    builder: tensorrt.Builder = created(trt, "Builder", logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser: tensorrt.OnnxParser = trt.OnnxParser(network, logger)
    if not parser.parse(with_casts_first(path), str(path)):
        raise ValueError(f"{path}: {_unparsed(trt, parser)}")
    _refuse_unsigned(path, logger)
    config = builder.create_builder_config()
    configure(trt, config, build)
    _add_profiles(builder, config, network, build)
    config.progress_monitor = monitor = _monitor_of(trt, progress)
    cache = None if is_rtx(trt) else timing_cache(config, timing)
    plan = builder.build_serialized_network(network, config)
    if monitor.ended_by is not None:
        raise monitor.ended_by
    if plan is None:
        raise _unbuilt(path, logger.errors)
    return bytes(plan), bytes(cache.serialize()) if cache is not None else b""


def timing_cache(config: tensorrt.IBuilderConfig, timing: bytes) -> tensorrt.ITimingCache | None:
    """The cache that a build reads and fills: with ``timing`` where TensorRT takes that, else an empty one."""
    for known in (timing, b""):
        cache = config.create_timing_cache(known)
        if cache is not None and config.set_timing_cache(cache, False):
            return cache
    return None


def _monitor_of(trt: Any, progress: Progress) -> Any:
    """What TensorRT tells of its steps, in threads of its own too; ``ended_by`` is what ``progress`` has raised."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.done = self.total = 0
            self.ended_by: BaseException | None = None

        def phase_start(self, phase: str, parent: str | None, steps: int) -> None:
            self.total += steps

        def phase_finish(self, phase: str) -> None: ...

        def step_complete(self, phase: str, step: int) -> bool:
            self.done += 1
            try:
                progress(self.done, self.total)
            except BaseException as error:  # TensorRT would print it, and be silent about what it was
                self.ended_by = error
            return self.ended_by is None

    return Monitor()


def configure(trt: Any, config: tensorrt.IBuilderConfig, build: Build) -> None:
    """What is asked for, in the builder's own words."""
    if build.workspace_bytes is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, build.workspace_bytes)
    if build.tf32:
        config.set_flag(trt.BuilderFlag.TF32)
    else:
        config.clear_flag(trt.BuilderFlag.TF32)
    if build.level is not None:
        config.builder_optimization_level = build.level
    if is_rtx(trt) and build.graphs:
        config.set_flag(trt.BuilderFlag.REQUIRE_USER_ALLOCATION)
    if build.architectures:
        known, of_rtx = architectures(trt), cast("Any", config)
        of_rtx.num_compute_capabilities = len(build.architectures)
        for index, each in enumerate(build.architectures):
            if each not in known:
                raise ValueError(f"no engine can be built for {each} here, but for {', '.join(known)}")
            of_rtx.set_compute_capability(getattr(trt.ComputeCapability, f"SM{each[3:]}"), index)


def _add_profiles(
    builder: tensorrt.Builder, config: tensorrt.IBuilderConfig, network: tensorrt.INetworkDefinition, build: Build
) -> None:
    """One for each batch size, where the file leaves the batch open: kernels are chosen for that very size then. One
    of the file's own size where only other axes are open.
    """
    # Its Dims pass for tuples and tuples for its Dims, which no type of it says.
    inputs: list[Any] = [network.get_input(index) for index in range(network.num_inputs)]
    if all(-1 not in tuple(each.shape) for each in inputs):
        return
    fixed = next((each.shape[0] for each in inputs if each.shape[0] != -1), None)
    for size in build.sizes if fixed is None else (fixed,):
        profile = builder.create_optimization_profile()
        for each in inputs:
            shape: Any = (size, *_closed(tuple(each.shape)[1:], build.sample_shape))
            profile.set_shape(each.name, shape, shape, shape)
        if config.add_optimization_profile(profile) < 0:
            raise ValueError(f"a batch of {size} cannot be built: an axis has another size in the file")


def _closed(axes: Sequence[int], sample: tuple[int, ...] | None) -> tuple[int, ...]:
    """The axes behind the batch, those that are open as a sample has them."""
    if -1 in axes and (sample is None or len(sample) != len(axes)):
        raise ValueError(f"input axes {tuple(axes)}: only the batch may be dynamic, or a sample says what they are")
    return tuple(size if axis == -1 else axis for axis, size in zip(axes, sample or axes, strict=True))


def _unparsed(trt: Any, parser: tensorrt.OnnxParser) -> str:
    """Why the parser gave up: the operator and the node that it is."""
    error = parser.get_error(0)
    operator, node = error.node_operator(), error.node_name()
    if error.code() in (trt.ErrorCode.UNSUPPORTED_NODE, trt.ErrorCode.UNSUPPORTED_NODE_ATTR) and operator:
        return f"TensorRT has no {operator} as node '{node}' asks for it: {_line(error.desc())}"
    where = f"{operator} '{node}': " if operator else ""
    return f"TensorRT cannot read it: {where}{_line(error.desc())}"


def _refuse_unsigned(path: Path, logger: Any) -> None:
    """TensorRT reads unsigned 8-bit values as signed ones, with no more than a warning: labels would be wrong."""
    if any("UINT8 zero_point" in warning for warning in logger.warnings):
        raise ValueError(
            f"{path} is quantised to unsigned 8 bits, which TensorRT reads as signed: quantise it symmetrically "
            "(int8-signed), or give the float file and --precision int8"
        )


def _unbuilt(path: Path, errors: deque[str]) -> ValueError:
    """What to raise where nothing was built, by what TensorRT said of it in any thread."""
    said, is_memory = cause(errors, _TOO_LITTLE)
    if is_memory:
        return ValueError(
            f"{path}: there is too little memory to build its engine in: {said}; ask for smaller batches "
            "(--max-batchsize), or a larger backend_options.workspace, if that is set"
        )
    return ValueError(f"{path}: TensorRT cannot build an engine of it: {said}")


def _line(text: str) -> str:
    """A message without time, severity and line ends."""
    return " ".join(_NOISE.sub("", text).split())
