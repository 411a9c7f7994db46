"""What is done on the nodes: classes whose objects are actors. Their process has this project, and nothing of a run.

Clocks of machines differ, so all times are durations.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backends.base import Attestation, Loaded, ModelFile, TensorSpec
from kernels.device import HOST_PLACES
from plugins.cache import cache_dir, entry
from plugins.errors import DeviceNotFound
from plugins.files import sha256_of, utf8_path
from preprocess.base import Geometry, Recipe
from sut.errors import SetupError, one_line
from sut.pipeline.cluster.member import Where, here, telling
from sut.pipeline.loading import load_backend, load_preprocessor
from sut.qsl.library import Rows
from sut.version import source_sha256


class Actor:
    """What all of them can do."""

    def where(self) -> Where:
        """On which node it is."""
        return here()


@dataclass(frozen=True, slots=True)
class ModelOrders:
    """What an actor is to load. ``files`` are those of the model by path, the first being its own, with SHA-256."""

    source_sha256: str
    backend: str
    device: str
    threads: int
    options: Mapping[str, Any]
    precision: str
    sample_shape: tuple[int, ...]
    quantised: bool
    largest_batch: int | None
    files: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Opened:
    """What an actor has loaded: the model as its backend has it, what that attests, and the files by name."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    batch_sizes: tuple[int, ...] | None
    attestation: Attestation
    version: str
    sha256: Mapping[str, str]


class Infer(Actor):
    """A model on a node."""

    @telling
    def load(self, orders: ModelOrders, *contents: bytes) -> Opened | None:
        """Load it from where the files are, or from the cache, into which ``contents`` are written.

        Returns None where the files are neither here nor given. Raises ``SutError`` or ``ModuleNotFoundError``.
        """
        _check_source(orders.source_sha256)
        files = _files(orders.files, contents)
        if files is None:
            return None
        path = files[0] if files else None
        model = ModelFile(path, orders.precision, orders.sample_shape, orders.quantised, orders.largest_batch)
        kind = load_backend(orders.backend)
        try:
            kind.check_device(orders.device)
            self._loaded = _load(partial(kind.load, options=orders.options), model, orders)
        except (DeviceNotFound, ValueError) as error:
            raise SetupError(one_line(error)) from error
        loaded = self._loaded
        places = [place for place in loaded.places if place in HOST_PLACES]
        self._runner = loaded.runner(*places[:1])
        sums = {each.name: sha256_of(each) for each in files}
        return Opened(loaded.inputs, loaded.outputs, loaded.batch_sizes, loaded.attest(), kind.version(), sums)

    @telling
    def infer(self, n: int, *tensors: NDArray[Any]) -> tuple[dict[str, NDArray[Any]], int, int]:
        """Outputs for ``n`` rows of each input in order; in ns what that took, and the process's CPU time so far."""
        return self._infer(n, lambda buffers: _copy(buffers, tensors))

    @telling
    def infer_rows(self, n: int, *rows: NDArray[Any]) -> tuple[dict[str, NDArray[Any]], int, int]:
        """The same for rows of the only input, which may be fewer than ``n``: a batch that is padded."""
        return self._infer(n, lambda buffers: np.stack(rows, out=buffers[0][: len(rows)]))

    def _infer(self, n: int, fill: Callable[[list[NDArray[Any]]], object]) -> tuple[dict[str, NDArray[Any]], int, int]:
        slot = self._runner.slot(n)
        fill([slot.buffers[each.name] for each in self._loaded.inputs])
        began = time.perf_counter_ns()
        outputs = {name: np.asarray(output) for name, output in self._runner.infer(slot).items()}
        return outputs, time.perf_counter_ns() - began, time.process_time_ns()


def _copy(buffers: list[NDArray[Any]], tensors: Sequence[NDArray[Any]]) -> None:
    for buffer, tensor in zip(buffers, tensors, strict=True):
        buffer[:] = tensor


def _load(load: Callable[..., Loaded], model: ModelFile, orders: ModelOrders) -> Loaded:
    rest = (orders.device, 1, orders.threads)
    if model.path is None:
        return load(model, *rest)
    with utf8_path(model.path) as path:
        return load(ModelFile(path, *_but_path(model)), *rest)


def _but_path(model: ModelFile) -> tuple[Any, ...]:
    return model.precision, model.sample_shape, model.quantised, model.largest_batch


def _files(files: Mapping[str, str], contents: Sequence[bytes]) -> list[Path] | None:
    """The files where they are on this node, each with its sum; None where one is not, and there are no contents."""
    paths = [Path(name) for name in files]
    with suppress(OSError):
        if all(sha256_of(path) == files[str(path)] for path in paths):
            return paths
    if not contents:
        return None

    def write(path: Path) -> None:
        for each, content in zip(paths, contents, strict=True):
            (path.parent / each.name).write_bytes(content)

    kept = entry(
        cache_dir() / "cluster", paths[0].name, " ".join(f"{path.name} {files[str(path)]}" for path in paths), write
    )
    return [kept.parent / path.name for path in paths]


def _check_source(wanted: str) -> None:
    """Raise ``SetupError`` where this node has another version of this project than who asks."""
    if (found := source_sha256()) != wanted:
        raise SetupError(
            f"it has other files of this project (SHA-256 {found[:12]}, here {wanted[:12]}): bring the same version to "
            "all nodes"
        )


@dataclass(frozen=True, slots=True)
class PreprocessOrders:
    """What an actor is to preprocess with."""

    source_sha256: str
    preprocess: str
    options: Mapping[str, Any]
    recipe: Recipe
    stages: tuple[str, ...]
    decoded: bool


@dataclass(frozen=True, slots=True)
class Made:
    """What was done to pictures: where each went, how long each stage took, the process's CPU time, and its counts."""

    geometries: list[Geometry]
    stages_ns: tuple[int, ...]
    cpu_ns: int
    counts: Mapping[str, int]


class Prepare(Actor):
    """A preprocessor on a node."""

    @telling
    def load(self, orders: PreprocessOrders) -> None:
        """Make it. Raises ``SutError`` or ``ModuleNotFoundError``."""
        _check_source(orders.source_sha256)
        self._orders = orders
        try:
            self._preprocessor = load_preprocessor(orders.preprocess, orders.options)(orders.recipe, **orders.options)
        except ValueError as error:
            raise SetupError(one_line(error)) from error

    @telling
    def prepare(self, *pictures: Any) -> tuple[Any, ...]:
        """Preprocess files' bytes, or pixels: what was done, then a tensor for each. Raises as a preprocessor does."""
        recipe, ends = self._orders.recipe, [time.perf_counter_ns()]
        tensors: NDArray[Any] = np.empty((len(pictures), *recipe.sample_shape), recipe.dtype)
        run = self._preprocessor.run_pixels if self._orders.decoded else self._preprocessor.run
        geometries = run(list(pictures), Rows.of(tensors), lambda stage: ends.append(time.perf_counter_ns()))
        if len(ends) != len(self._orders.stages) + 1:
            raise RuntimeError(f"{len(ends) - 1} stages were marked, expected {', '.join(self._orders.stages)}")
        taken = tuple(end - begin for begin, end in pairwise(ends))
        made = Made(geometries, taken, time.process_time_ns(), dict(self._preprocessor.counts()))
        return (made, *tensors)
