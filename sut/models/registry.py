"""Models by name: the ones built in, those other packages add, and a user's own file."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

from backends.base import TensorSpec
from preprocess.base import Recipe
from sut.errors import InputError, SetupError, one_line, suggest
from sut.models import efficientnet_lite, resnet50
from sut.models.base import ModelSpec
from sut.models.files import OnnxInfo

GROUP = "sut.models"
"""Entry points of other packages: each is a ``ModelSpec``, under the model's name."""

MODELS: dict[str, ModelSpec] = {
    spec.name: spec
    for spec in (
        ModelSpec(
            name=efficientnet_lite.LITE0.name,
            recipe=Recipe(
                name=efficientnet_lite.LITE0.name,
                size=efficientnet_lite.LITE0.size,
                fit="crop-resize",
                interpolation="cubic",
                crop_padding=32,
                mean=(127.0, 127.0, 127.0),
                std=(128.0, 128.0, 128.0),
            ),
            build=efficientnet_lite.builder(efficientnet_lite.LITE0),
            classes=efficientnet_lite.CLASSES,
        ),
        ModelSpec(
            name="resnet50",
            recipe=Recipe(
                name="resnet50",
                size=resnet50.SIZE,
                fit="resize-crop",
                interpolation="area",
                crop_percent=87.5,
                mean=resnet50.MEAN,
            ),
            build=resnet50.build,
            classes=resnet50.CLASSES,
            label_offset=-1,
            # 99 % of the reference's 76.46 %, the target MLPerf sets for both divisions' FP32 model.
            accuracy_target=0.756954,
        ),
    )
}


def find(name: str) -> ModelSpec:
    """The model called ``name``; ``_`` counts as ``-`` and capitals as small letters.

    Raises ``InputError`` for an unknown name and ``SetupError`` for another package's model that cannot be loaded.
    """
    wanted = _plain(name)
    if wanted in MODELS:
        return MODELS[wanted]
    others = _others()
    if wanted not in others:
        raise InputError(f"unknown model {name!r}; {suggest(wanted, (*MODELS, *others))}")
    return _load(others[wanted])


def for_file(path: Path, model_name: str | None) -> ModelSpec:
    """The model that a user's file is: ``model_name``, or else the one known name within the file's.

    ``build`` of the answer gives ``path``; the file itself is not looked at. Raises ``InputError`` where the name is
    unknown or not told, and ``SetupError`` as ``find`` does.
    """
    if model_name is None:
        known = (*MODELS, *_others())
        within = [name for name in known if name in _plain(path.stem)]
        if len(within) != 1:
            got = f"names {' and '.join(within)}" if within else "names no known model"
            raise InputError(f"model file {path.name} {got}; say which it is with --model-name ({', '.join(known)})")
        model_name = within[0]
    return replace(find(model_name), build=lambda weights, say: path)


def check_fit(spec: ModelSpec, info: OnnxInfo) -> None:
    """Check that a file can be run as ``spec``: what its recipe produces fits the one input, and an output the classes.

    An output fits if it has float scores [batch, classes]; where there are none at all, integer labels [batch] will do.
    Dynamic axes fit. Raises ``InputError`` with what was got and expected.
    """
    _check_input(spec.recipe, info)
    floats = [output for output in info.outputs if output.dtype.startswith(("float", "bfloat"))]
    scores = [output for output in floats if len(output.shape) == 2]
    if any(output.shape[1] in (None, spec.classes) for output in scores):
        return
    labels = [out for out in info.outputs if out.dtype.startswith("int") and out.shape[1:] in ((), (1,)) and out.shape]
    if scores or not labels:
        raise InputError(
            f"model {info.path} has the outputs {_all(info.outputs)}, expected scores [batch, {spec.classes}] for"
            f" {spec.name}; is it another model (--model-name)?"
        )


def _check_input(recipe: Recipe, info: OnnxInfo) -> None:
    axes = ", ".join(("batch", *map(str, recipe.sample_shape)))
    expected = f"{recipe.dtype} [{axes}] ({recipe.layout}) for the recipe {recipe.name}"
    if len(info.inputs) != 1:
        raise InputError(
            f"model {info.path} has {len(info.inputs)} inputs ({_all(info.inputs)}), expected 1: {expected}"
        )
    got = info.inputs[0]
    wrong = []
    if got.dtype != recipe.dtype:
        wrong.append("dtype")
    if len(got.shape) != 4:
        wrong.append("number of axes")
    elif not _fits(got.shape[1:], recipe.sample_shape):
        channels = 1 if recipe.layout == "NCHW" else 3
        other = 4 - channels
        if got.shape[other] == 3 and got.shape[channels] != 3:
            wrong.append("layout")
        elif got.shape[channels] not in (None, 3):
            wrong.append("number of channels")
        else:
            wrong.append("size")
    if wrong:
        raise InputError(
            f"model {info.path} has an input of another {' and '.join(wrong)}: got {_all(info.inputs)},"
            f" expected {expected}; is it another model (--model-name)?"
        )


def _fits(got: tuple[int | None, ...], expected: tuple[int, ...]) -> bool:
    return all(size in (None, wanted) for size, wanted in zip(got, expected, strict=True))


def _all(tensors: Iterable[TensorSpec]) -> str:
    texts = []
    for tensor in tensors:
        axes = ", ".join("?" if size is None else str(size) for size in tensor.shape)
        texts.append(f"{tensor.name} {tensor.dtype} [{axes}]")
    return ", ".join(texts) or "none"


def _plain(name: str) -> str:
    return name.lower().replace("_", "-")


def _others() -> dict[str, EntryPoint]:
    return {_plain(point.name): point for point in entry_points(group=GROUP)}


def _load(point: EntryPoint) -> ModelSpec:
    try:
        spec = point.load()
    except Exception as error:  # another package's code may raise anything
        raise SetupError(f"model {point.name} ({point.value}) cannot be loaded: {one_line(error)}") from error
    if not isinstance(spec, ModelSpec):
        raise SetupError(f"model {point.name} ({point.value}) is a {type(spec).__name__}, expected a ModelSpec")
    return spec
