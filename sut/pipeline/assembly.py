"""Turns a config into parts that fit: model, data set, backend, preprocessor, task."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any, TypeVar

from backends.base import Attestation, Backend, Loaded, ModelFile
from kernels.device import HOST_PLACES, SENT_PLACES
from plugins.files import utf8_path
from plugins.options import shortcuts
from preprocess.base import Preprocessor, Recipe
from sut.config import RunConfig, expanded
from sut.datasets.base import DataSet
from sut.datasets.registry import open_dataset
from sut.errors import InputError, SetupError, one_line
from sut.mlperf.official import BENCHMARKS
from sut.models.base import ModelSpec
from sut.models.preparation import Prepared, identified, spec_to_run
from sut.models.registry import exported, find_for, for_file
from sut.pipeline.checks import check_together
from sut.pipeline.devices import Devices, Unit
from sut.pipeline.loading import load_backend, load_preprocessor
from sut.process.affinity import NOWHERE, Affinity
from sut.process.cgroup import usable_cores
from sut.qsl.device_library import DeviceLibrary, device_place
from sut.qsl.library import Library, Loading, NothingLibrary, TensorLibrary
from sut.qsl.picture_library import PictureLibrary
from sut.qsl.preprocessed import PreprocessedDir
from sut.qsl.shared_pictures import SharedPictures
from sut.qsl.tensor_cache import TensorCache
from sut.qsl.tensor_store import TensorStore
from sut.tasks.base import Task
from sut.tasks.registry import find_task
from sut.text import Progress, Say

T = TypeVar("T")

_PERFORMANCE_SAMPLES = 1024
"""Of models that MLPerf has no line for."""


@dataclass(frozen=True, slots=True)
class Assembly:
    """The parts of one run. A backend that needs no model has none. ``spec`` is as it is run: folded where asked.

    ``progress`` is told how far the backend is where loading it takes long.
    """

    config: RunConfig
    spec: ModelSpec
    model: Prepared | None
    dataset: DataSet
    backend: type[Backend]
    preprocessor: type[Preprocessor]
    affinity: Affinity = NOWHERE
    progress: Progress = lambda done, total: None
    second: Assembly | None = None
    """Those of the model that identifies what the first has found, where there is one."""

    @property
    def has_model(self) -> bool:
        """Whether answers come from a model, be it one that a server has loaded."""
        return self.model is not None or self.backend.model_elsewhere

    @property
    def scored_by(self) -> type[Task]:
        """What scores the answers."""
        return find_task("identification" if self.second is not None else self.spec.task)

    @property
    def units(self) -> tuple[Unit, ...]:
        """The devices that the lanes work on in turn, each with its cores."""
        if self.config.serve != "none":
            return (Unit(self.config.device),)  # a server, whatever it has
        devices, sets = self.config.devices, self.affinity.lanes or (None,)
        number = max(len(devices), len(sets))
        return tuple(Unit(devices[n % len(devices)], sets[n % len(sets)]) for n in range(number))

    @property
    def lane_cores(self) -> int:
        """Cores that the lanes can keep busy."""
        return min([usable_cores(), *(sum(map(len, sets)) for sets in [self.affinity.lanes] if sets)])

    @property
    def model_bytes(self) -> int | None:
        """Size of the files that the backend loads, so that a quantised model counts as the small one that it is."""
        return sum(path.stat().st_size for path in self.model.loads) if self.model is not None else None

    @property
    def performance_samples(self) -> int:
        """Samples that the library holds at a time unless told otherwise: performance_sample_count in mlperf.conf."""
        found = (each.performance_samples for each in BENCHMARKS.values() if each.conf == self.spec.loadgen_model)
        return next(found, _PERFORMANCE_SAMPLES)

    def load_backend(self) -> Loaded:
        """Load the model, once for each unit.

        Raises ``InputError`` where backend and recipe do not fit together, and for what a backend refuses by a
        ``ValueError``.
        """
        try:
            return self._load()
        except ValueError as error:
            raise InputError(one_line(error)) from error

    def _load(self) -> Loaded:
        if self.config.infer_place == "ray":
            raise InputError(
                "--infer-place ray: what loads the model in this process alone has no use for it; leave it out"
            )
        units, lanes = self.units, self.config.lane_count
        if self.config.serve != "none":
            from sut.pipeline.served import Behind  # which needs the extras of both sides

            spec = self.spec
            return Behind(self.config, self.model, spec.name, spec.recipe.sample_shape, self.progress)
        if len(units) == 1 and units[0].cores is None:
            return self._load_on(units[0].device, lanes)
        return Devices(units, self._load_on, lanes)

    def _load_on(self, device: str, lanes: int) -> Backend:
        config = self.config
        rest = (device, lanes, config.threads_per_lane, config.backend_options)
        if self.model is None:
            file = ModelFile(None, config.precision, self.spec.recipe.sample_shape, name=self.spec.name)
            return self.backend.load(file, *rest)
        file = self.model.model_file(config.precision, self.spec)
        with utf8_path(self.model.file) as path:
            file = replace(file, path=path, largest_batch=config.max_batchsize, progress=self.progress)
            return self.backend.load(file, *rest)

    def check_attested(self, found: Attestation) -> None:
        """Raise ``SetupError`` where a backend executes on another device, or in another precision, than asked for.

        A file that was quantised already has no other form: it may be asked for by what most of it executes in.
        """
        config = self.config
        same = {config.device, "cuda:0"} if config.device == "cuda" else {config.device}
        if found.device not in same:
            raise SetupError(
                f"asked {config.backend} for the device {config.device}, but it executes on {found.device}"
            )
        # "none": there is no model to execute; "unknown": somebody else executes it, and does not say.
        if found.precision in (config.precision, "none", "unknown"):
            return
        instead = ""
        if self.model is not None and self.model.quantised:
            most = found.precision.partition("+")[0]
            if most == config.precision:
                return
            if most in self.backend.precisions:
                instead = f"; the file is quantised already: run it with --precision {most}"
        elif config.precision == "int8" and self.model is not None:
            instead = "; it has integer kernels for too little of this model: run it in fp32, or on another backend"
        raise SetupError(
            f"asked {config.backend} for {config.precision}, but it executes in {found.precision}{instead}"
        )

    def task_for(self, backend: Loaded) -> Task:
        """The task that reads this backend's outputs, of a model only those that ``--outputs`` names."""
        spec = self.spec
        wanted = self.config.outputs if self.has_model else None
        outputs = [each for each in backend.outputs if not wanted or each.name in wanted]
        try:
            return find_task(spec.task).of(spec, outputs)
        except ValueError as error:
            raise InputError(f"the outputs of {spec.name} do not fit the task {spec.task}: {error}") from error

    def library(self, backend: Loaded, capacity: int | None, loaded: Callable[[int], None]) -> Library:
        """The sample library at the config's boundary, for ``capacity`` samples at a time (None: as MLPerf has it)."""
        at_a_time, recipe = min(capacity or self.performance_samples, self.dataset.count), self.spec.recipe
        make = partial(_forwarding if self._is_served_pictures else self.preprocessor_for, recipe)
        how = Loading(self.dataset, make, at_a_time, usable_cores(), loaded)
        if not backend.inputs:
            return NothingLibrary(how)
        self._check_wire(backend)
        if self.config.boundary == "tensor":
            return TensorLibrary(how, recipe, self.tensor_store())
        if self.config.boundary == "device":
            from kernels.gpu import open_device

            place = device_place(self.config.backend, backend.places)
            gpu = open_device(place, with_kernels=False)
            return DeviceLibrary(how, recipe, device=gpu, gather=gpu.gather, place=place)
        shared = SharedPictures() if self.config.shares_pictures else None
        return PictureLibrary(how, self.config.boundary, shared, shows_frames=self.second is not None)

    @property
    def _is_served_pictures(self) -> bool:
        """Whether the run's own server preprocesses."""
        return self.config.serve != "none" and self.config.times_preprocessing

    def _check_wire(self, backend: Loaded) -> None:
        """Raise ``InputError`` where a server takes something else than it is to be sent: a picture, or this tensor."""
        forwards = self.preprocessor.forwards() or self._is_served_pictures
        takes_pictures = backend.places[0] in SENT_PLACES
        if forwards and not takes_pictures:
            raise InputError(
                f"the server takes ready tensors (input {backend.inputs[0].name}): preprocess here, with --preprocess "
                "opencv"
            )
        if takes_pictures and not forwards:
            raise InputError(
                f"the server takes pictures (input {backend.inputs[0].name}), which it preprocesses itself: add "
                "--preprocess server --boundary jpeg"
            )
        got, recipe = backend.inputs[0], self.spec.recipe
        is_it = len(backend.inputs) == 1 and (got.dtype, got.shape[1:]) == (recipe.dtype, recipe.sample_shape)
        if self.backend.model_elsewhere and not takes_pictures and not is_it:
            told = ", ".join(f"{each.name} {each.dtype} {list(each.shape[1:])}" for each in backend.inputs)
            raise InputError(
                f"the server takes {told} for a sample, and the recipe {recipe.name} makes {recipe.dtype} "
                f"{list(recipe.sample_shape)}: choose --model or --recipe, and --fold for pixels as they are"
            )

    def place_for(self, backend: Loaded) -> str:
        """Where slots are to lie: on the GPU where what fills them can write there, else in the host's memory.

        Raises ``SetupError`` where the boundary is ``device`` and the backend takes no input there.
        """
        config = self.config
        if config.boundary == "device":
            return device_place(config.backend, backend.places)
        on_gpu = f"cuda:{self.preprocess_options_of().get('gpu', 0)}"
        writes_there = "cuda" in self.preprocessor.places and config.times_preprocessing
        if len(config.devices) > 1 and "gpu" in config.preprocess_options:
            writes_there = False  # one GPU cannot write into the slots of another
        if writes_there and not config.preprocess_workers and on_gpu in backend.places:
            return on_gpu
        return next((place for place in backend.places if place in HOST_PLACES), backend.places[0])

    def preprocessor_for(self, recipe: Recipe, lane: int = 0) -> Preprocessor:
        """A new preprocessor with the options that were asked for; one on a GPU is on that of the lane.

        Raises ``ValueError`` for a bad value of an option, and whatever else its constructor raises.
        """
        return self.preprocessor(recipe, **self.preprocess_options_of(lane))

    @property
    def shortcuts(self) -> tuple[str, ...]:
        """The preprocessor's options that change pixels, those that are taken."""
        return shortcuts(self.preprocessor.read_options(self.preprocess_options_of()))

    def preprocess_options_of(self, lane: int = 0) -> dict[str, Any]:
        """Options of the preprocessor that a lane or worker has; one on a GPU is on that of the lane."""
        devices = self.config.devices
        kind, _, number = devices[lane % len(devices)].partition(":")
        takes_gpu = any(each.name == "gpu" for each in fields(self.preprocessor.options))
        same_gpu = {"gpu": int(number)} if takes_gpu and kind == "cuda" and number else {}
        return {**same_gpu, **self.config.preprocess_options}

    @property
    def gpus(self) -> list[int]:
        """CUDA's numbers of the GPUs that the backend and the preprocessor work on."""
        devices = [word.partition(":") for word in self.config.devices]
        preprocessors = getattr(self.preprocessor.read_options(self.preprocess_options_of()), "gpu", None)
        numbers = {int(number or 0) for kind, _, number in devices if kind == "cuda"} | {preprocessors}
        return sorted(number for number in numbers if isinstance(number, int))

    def tensor_store(self) -> TensorStore | None:
        """Where the config wants ready tensors to come from and be kept; None away from boundary ``tensor``.

        Raises ``InputError`` for a folder that is not there, does not fit or cannot be written.
        """
        config, spec = self.config, self.spec
        if config.boundary != "tensor":
            return None
        if config.use_preprocessed_dataset and config.preprocessed_from is None:
            raise InputError("--use_preprocessed_dataset needs a folder of .npy files; add --preprocessed_dir DIR")
        if (config.preprocessed_from or config.cache) and self.shortcuts:
            raise InputError(
                f"kept tensors do not say by which shortcut they were made, and {', '.join(self.shortcuts)} of "
                f"{config.preprocess} is taken; leave out --cache and --preprocessed_dir, or the shortcut"
            )
        parts = (self.dataset, spec.recipe, self.preprocessor)
        if config.preprocessed_from is not None:
            if find_task(spec.task).needs_geometry:
                raise InputError(
                    f"--preprocessed_dir cannot be used with {spec.name}: .npy files do not say where boxes belong "
                    "in the picture; --cache 1 keeps that"
                )
            return PreprocessedDir(config.preprocessed_from, *parts, ready=config.use_preprocessed_dataset)
        return TensorCache(config.cache_dir, *parts) if config.cache else None


def assemble(
    config: RunConfig,
    say: Say = lambda text: None,
    progress: Progress = lambda done, total: None,
    prepared: Prepared | None = None,
) -> Assembly:
    """Find all parts, make the model's file if it is not there yet, and check that names and files are right.

    Raises ``InputError`` or ``SetupError`` in one line; ``say`` and ``progress`` are told what takes time. ``prepared``
    is the model's file where somebody has made it for this very config.
    """
    backend = load_backend(config.backend)
    preprocessor = load_preprocessor(config.preprocess, config.preprocess_options)
    affinity = check_together(config, backend, preprocessor)
    spec = _spec_of(config, backend, say)
    if config.data_format and config.data_format != spec.recipe.layout:
        raise InputError(
            f"--data-format {config.data_format}: the recipe of {spec.name} makes {spec.recipe.layout}; leave it out"
        )
    files = (config.dataset_path, config.dataset_list)
    task = find_task("identification" if config.identify is not None else spec.task)
    pictures, labels, layout = config.reads_pictures, spec.labels_end, task.layout
    dataset = open_dataset(config.dataset, *files, config.count, pictures, labels, layout, spec.dataset)
    if config.mode == "accuracy" and dataset.truth is not None:
        try:
            task.check_truth(spec, dataset.truth, dataset.files)
        except ValueError as error:
            raise InputError(f"data set {dataset.name}: {one_line(error)}") from error
    model = None
    if backend.needs_model:
        model = prepared or identified(config, spec, backend, dataset, say, progress)
    elif config.fold and not backend.model_elsewhere:
        raise InputError(f"--fold puts normalisation into the model, and backend {config.backend} has none")
    second = _second(config, spec, say, progress) if config.identify is not None else None
    return Assembly(
        config, spec_to_run(spec, config), model, dataset, backend, preprocessor, affinity, progress, second
    )


def _second(config: RunConfig, first: ModelSpec, say: Say, progress: Progress) -> Assembly:
    """The parts of the model that identifies, which takes pixels where its file can be made to: crops are smaller."""
    own = config.identifier
    backend = load_backend(own.backend)
    if not (own.is_file or find_for(own.model, backend.reads).recipe.dtype == "uint8"):
        own = own.model_copy(update={"fold": backend.needs_model and ".onnx" in backend.reads})
    parts = assemble(own, say, progress)
    if parts.spec.task != "classification":
        raise InputError(
            f"--identify {own.model}: its task is {parts.spec.task}, and what identifies a crop is a classifier"
        )
    if config.fan_out is None and first.task != "detection":
        raise InputError(
            f"--identify needs boxes, and {first.name} finds none (its task is {first.task}): take a detector such as "
            "planted-photos, or say by --fan-out how many crops a frame has"
        )
    return parts


def _forwarding(recipe: Recipe, lane: int = 0) -> Preprocessor:
    """What sends pictures to the run's own server."""
    return load_preprocessor("server")(recipe)


def _spec_of(config: RunConfig, backend: type[Backend], say: Say) -> ModelSpec:
    if not config.is_file:
        if config.recipe is not None:
            raise InputError(f"--recipe {config.recipe} is for a file (--model my.onnx); {config.model} has its own")
        if config.model_name and config.model_name != config.model:
            raise InputError(f"--model-name {config.model_name} names a file's model, but --model is {config.model}")
        spec = find_for(config.model, backend.reads)
        if spec.exports_differ and backend.needs_model and config.weights not in spec.makes:
            return exported(spec, spec.build(config.weights, say), config.outputs)
        return spec
    if config.weights == "random":
        raise InputError(f"--weights random builds a model itself; with the file {config.model} leave it out")
    return for_file(expanded(config.model), config.model_name, config.recipe, say, config.outputs)
