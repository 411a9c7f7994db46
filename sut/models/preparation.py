"""From a model's name to the file that a backend loads: built or brought, folded, converted.

It takes from nothing to a minute, so the process that starts the runs does it once and tells its children the result.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from backends.base import Backend, ModelFile
from plugins.files import known_digest, sha256_of
from sut.config import RunConfig
from sut.datasets.base import DataSet
from sut.datasets.registry import open_dataset
from sut.errors import InputError, RunError, reason_of
from sut.models import ir, tflite, torch_files
from sut.models.base import ModelSpec
from sut.models.content import digest_of, sums_of
from sut.models.identity import Known, weights_of
from sut.models.precision.fold import fold, folded
from sut.models.size import ModelSize, size_of_file
from sut.tasks.registry import find_task
from sut.text import Progress, Say

_FORMATS = {
    ir.SUFFIX: ("OpenVINO's IR", "openvino"),
    tflite.SUFFIX: ("a TFLite file", "tflite"),
    **{suffix: (kind, "pytorch") for suffix, kind in torch_files.KINDS.items()},
}
"""What model files are that are not ONNX, and the backend that reads them."""
_QUANTISED_NOTES = ("the file is quantised already", "there is no FP32 form to compare with")


@dataclass(frozen=True, slots=True)
class Prepared:
    """A model's file in the form that a backend needs for a precision.

    ``onnx`` is the file with the same inputs and outputs that was not converted: an ONNX file, or one of ``_FORMATS``.
    ``source`` is the file that was brought or built, before it was folded or converted; ``quantised`` where that was
    in 8 bits already, so that there is no FP32 form of it.

    ``sources`` and ``loads`` are the files that ``source`` and ``file`` consist of, each with its SHA-256; ``sha256``
    is that of all of ``source``, and ``weights`` what is known of it. ``size`` is None where ``source`` is not ONNX.
    """

    file: Path
    onnx: Path
    source: Path
    form: str = "fp32"
    notes: tuple[str, ...] = ()
    quantised: bool = False
    sha256: str | None = None
    weights: Known = "unknown"
    size: ModelSize | None = None
    sources: Mapping[Path, str] = field(default_factory=dict)
    loads: Mapping[Path, str] = field(default_factory=dict)

    @property
    def loaded_sha256(self) -> dict[str, str]:
        """What a backend opens, by name: beside the model's file, in folders from there."""
        return {os.path.relpath(path, self.file.parent): found for path, found in self.loads.items()}

    def model_file(self, precision: str, spec: ModelSpec) -> ModelFile:
        """What the backend is given."""
        return ModelFile(self.file, precision, spec.recipe.sample_shape, self.form.startswith("int8"))


def form_for(backend: type[Backend], precision: str, device: str) -> str:
    """The form of file that a backend needs to execute ``precision``. Raises ``InputError`` where it never can."""
    known = backend.precisions_on(device)
    if precision not in known:
        where = f" on {device}" if precision in backend.precisions else ""
        raise InputError(f"backend {backend.name} cannot be asked for {precision}{where}; it has {', '.join(known)}")
    return known[precision]


def spec_to_run(spec: ModelSpec, config: RunConfig) -> ModelSpec:
    """The model as it is run: folding leaves less for the preprocessor to do."""
    return replace(spec, recipe=folded(spec.recipe)) if config.fold else spec


def prepare(
    config: RunConfig, spec: ModelSpec, backend: type[Backend], dataset: DataSet, say: Say, progress: Progress
) -> Prepared:
    """Make the file, or find it made. ``spec`` is the model as it is known, before folding.

    Raises ``InputError``, ``SetupError`` or ``RunError`` in one line; ``say`` is told what takes time.
    """
    from sut.models.precision.convert import convert, quantising_node

    form = form_for(backend, config.precision, config.devices[0])
    source = onnx = spec.build(config.weights, say)
    check_format(config, source, backend)
    if source.suffix in torch_files.CODE:
        say(f"{source.name} is {torch_files.KINDS[source.suffix]}, which is code: it is run with your rights")
    operator = quantising_node(source)
    if operator is not None:
        _check_quantised(config, source, operator)
    recipe = spec.recipe
    if config.fold:
        onnx, recipe = fold(source, recipe, say)
    if operator is not None:
        return Prepared(onnx, onnx, source, "int8", _QUANTISED_NOTES, quantised=True)
    if form == "fp32":
        return Prepared(onnx, onnx, source)
    if source.suffix == tflite.SUFFIX:
        raise InputError(
            f"model {source} is a TFLite file in floats, and --precision {config.precision} changes .onnx files: leave "
            "it out, or bring a .tflite that is quantised"
        )
    calibration = None
    if form.startswith("int8"):
        from sut.models.precision.calibration import calibrate_on

        files = (config.dataset, config.dataset_path, config.dataset_list)
        layout = find_task(spec.task).layout
        whole = (
            dataset if config.count is None else open_dataset(*files, None, True, spec.labels_end, layout, spec.dataset)
        )
        closed = config.rules is not None
        calibration = calibrate_on(dataset, whole, recipe, config.calibration_list, closed=closed)
    file = convert(onnx, form, calibration, say, progress, exact_behind=find_task(spec.task).exact_behind)
    notes = (f"calibrated on {calibration.source}", *calibration.notes) if calibration else ()
    return Prepared(file, file if file.suffix == onnx.suffix else onnx, source, form, notes)


def identified(
    config: RunConfig, spec: ModelSpec, backend: type[Backend], dataset: DataSet, say: Say, progress: Progress
) -> Prepared:
    """``prepare``, with what the content of the files says.

    Raises ``RunError`` where the source changed meanwhile, ``InputError`` for a wrong name in ``known_models``.
    """
    source = spec.build(config.weights, say)
    sources = sums_of(source)
    built = replace(spec, build=lambda weights, say: source)
    prepared = prepare(config, built, backend, dataset, say, progress)
    sha256 = digest_of(sources)
    weights, note = weights_of(spec, source, sources, sha256, config.weights, config.known_models)
    if {path: known_digest(path) for path in sources} != sources:
        raise RunError(f"the model {source} changed while it was prepared; run all of it again")
    return replace(
        prepared,
        notes=(*prepared.notes, note) if note else prepared.notes,
        sha256=sha256,
        weights=weights,
        size=size_of_file(source, spec.recipe.sample_shape, sha256) if source.suffix not in _FORMATS else None,
        sources=sources,
        loads=sources if prepared.file == source else sums_of(prepared.file),
    )


def check_unchanged(
    prepared: Prepared | None, since: str = "during the runs", remedy: str = "run all of it again"
) -> None:
    """Read all files again. Raises ``RunError`` where one is not what it was when the model was identified."""
    files = {**prepared.sources, **prepared.loads} if prepared is not None else {}
    for path, expected in files.items():
        try:
            found = f"has the SHA-256 {sha256_of(path)}"
        except OSError as error:
            found = f"cannot be read ({reason_of(error)})"
        if found != f"has the SHA-256 {expected}":
            raise RunError(f"the model changed {since}: {path} {found}, expected {expected}; {remedy}")


def check_format(config: RunConfig, source: Path, backend: type[Backend]) -> None:
    """Refuse a file that the backend does not read, and what is done with ONNX files only.

    Raises ``InputError`` by the file's name alone: one of any other name is ONNX, or none at all.
    """
    kind, reader = _FORMATS.get(source.suffix, ("an ONNX file", "onnxruntime"))
    what = f"model {source} is {kind}"
    suffix = source.suffix if source.suffix in _FORMATS else ".onnx"
    if suffix not in backend.reads:
        bring = "an .onnx" if ".onnx" in backend.reads else f"a {backend.reads[0]}"
        raise InputError(f"{what}, which backend {backend.name} cannot read: use --backend {reader}, or bring {bring}")
    if config.fold and source.suffix in _FORMATS:
        raise InputError(
            f"{what}, and --fold changes .onnx files: leave it out, or bring the .onnx that it is made from"
        )


def _check_quantised(config: RunConfig, source: Path, operator: str) -> None:
    """Refuse to run a quantised file as if it were known what has calibrated it."""
    what = f"model {source} is quantised already (it has a node {operator})"
    if config.calibration_list is not None:
        raise InputError(f"{what}, so --calibration-list has no effect: leave it out, or bring the float32 model")
    if config.rules is not None:
        raise InputError(
            f"{what}, and --rules {config.rules} asks which pictures have calibrated it: bring the float32 model and "
            "--calibration-list"
        )
