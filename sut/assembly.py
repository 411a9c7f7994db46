"""Turns a config into parts that fit: model, data set, backend, preprocessor, task."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import backends.registry
import preprocess.registry
from backends.base import Attestation, Backend, ModelFile
from preprocess.base import Preprocessor
from sut.config import RunConfig, usable_cores
from sut.datasets.base import DataSet
from sut.datasets.registry import open_dataset
from sut.errors import InputError, SetupError, one_line, suggest
from sut.library import Library
from sut.models.base import ModelSpec, Say
from sut.models.registry import MODELS, find, for_file
from sut.tasks.base import Task
from sut.tasks.registry import find_task

T = TypeVar("T")

PERFORMANCE_SAMPLES = 1024
"""Samples that the library holds at a time: performance_sample_count of resnet50 in mlperf.conf."""


@dataclass(frozen=True, slots=True)
class Assembly:
    """The parts of one run. ``model`` has no file for a backend that needs none."""

    config: RunConfig
    spec: ModelSpec
    model: ModelFile | None
    dataset: DataSet
    backend: type[Backend]
    preprocessor: type[Preprocessor]

    def load_backend(self) -> Backend:
        """Load the model. Raises ``InputError`` where backend and recipe do not fit together."""
        config = self.config
        model = self.model or ModelFile(Path("/nonexistent"))
        return self.backend.load(model, config.device, config.lanes, config.threads_per_lane)

    def check_attested(self, found: Attestation) -> None:
        """Raise ``SetupError`` where a backend executes on another device, or in another precision, than asked for."""
        config = self.config
        same = {config.device, "cuda:0"} if config.device == "cuda" else {config.device}
        if found.device not in same:
            raise SetupError(
                f"asked {config.backend} for the device {config.device}, but it executes on {found.device}"
            )
        if found.precision not in (config.precision, "none"):  # "none": there is no model to execute
            raise SetupError(f"asked {config.backend} for {config.precision}, but it executes in {found.precision}")

    def task_for(self, backend: Backend) -> Task:
        """The task that reads this backend's outputs."""
        spec = self.spec
        try:
            return find_task(spec.task).for_outputs(backend.outputs, spec.classes, spec.label_offset)
        except ValueError as error:
            raise InputError(f"the outputs of {spec.name} do not fit the task {spec.task}: {error}") from error

    def library(self, backend: Backend, capacity: int | None, loaded: Callable[[int], None]) -> Library:
        """The sample library at the config's boundary, for ``capacity`` samples at a time (None: MLPerf's 1024)."""
        return Library(
            self.dataset,
            self.spec.recipe if backend.inputs else None,
            lambda: self.preprocessor(self.spec.recipe),
            min(capacity or PERFORMANCE_SAMPLES, self.dataset.count),
            usable_cores(),
            loaded,
        )


def assemble(config: RunConfig, say: Say = lambda text: None) -> Assembly:
    """Find all parts, build the model's file if it is not there yet, and check that names and files are right.

    Raises ``InputError`` or ``SetupError`` in one line; ``say`` is told what takes time.
    """
    backend = _loaded(backends.registry.load, "backend", config.backend)
    preprocessor = _loaded(preprocess.registry.load, "preprocessor", config.preprocess)
    _check_device(config, backend)
    spec = _spec_of(config)
    model = None
    if backend.needs_model:
        model = ModelFile(spec.build(config.weights, say), config.precision)
    if config.data_format and config.data_format != spec.recipe.layout:
        raise InputError(
            f"--data-format {config.data_format}: the recipe of {spec.name} makes {spec.recipe.layout}; leave it out"
        )
    dataset = open_dataset(config.dataset, config.dataset_path, config.dataset_list, config.count)
    return Assembly(config, spec, model, dataset, backend, preprocessor)


def _loaded(load: Callable[[str], type[T]], kind: str, name: str) -> type[T]:
    """The class of a backend or preprocessor; whatever another package's module raises becomes one line."""
    try:
        return load(name)
    except ValueError as error:
        raise InputError(one_line(error)) from error
    except ModuleNotFoundError:
        raise
    except Exception as error:
        raise SetupError(f"{kind} {name} cannot be loaded: {type(error).__name__}: {one_line(error)}") from error


def _spec_of(config: RunConfig) -> ModelSpec:
    if not config.is_file:
        if config.model_name and config.model_name != config.model:
            raise InputError(f"--model-name {config.model_name} names a file's model, but --model is {config.model}")
        return find(config.model)
    if config.weights == "random":
        raise InputError(f"--weights random builds a model itself; with the file {config.model} leave it out")
    return for_file(Path(config.model).expanduser(), config.model_name)


def _check_device(config: RunConfig, backend: type[Backend]) -> None:
    """Refuse words that are no device at all; a GPU that is not there is for the backend to say."""
    known = {*backend.devices(), "cpu", "gpu", "cuda"}
    words = config.device.split(",")
    for word in words:
        kind, _, number = word.partition(":")
        if word in known or (kind == "cuda" and number.isdigit()):
            continue
        raise InputError(f"unknown device '{word}'; {suggest(word, known)}, cuda:N")


def known_models() -> list[str]:
    """Names that ``--model`` takes."""
    return sorted(MODELS)
