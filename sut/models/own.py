"""A user's own model: what its file tells and its recipe says, put together as a model we can run.

The rules, in order: what the recipe sets must agree with the file; what it leaves out is read from the file; what the
file leaves open too is asked for by the name of the key.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, cast

from backends.base import TensorSpec
from preprocess.base import Recipe
from sut.errors import InputError, one_line
from sut.models.base import ModelSpec
from sut.models.files import ModelInfo
from sut.models.recipes import MAX_SIZE, RECIPES, RecipeFile, task_of
from sut.tasks.base import Task
from sut.tasks.classification import BACKGROUND_CLASSES, Classification
from sut.tasks.registry import find_task, recognised
from sut.text import as_name

_DTYPES = ("float32", "float16", "uint8")


def own_model(told: RecipeFile, info: ModelInfo, name: str | None) -> ModelSpec:
    """The model in ``info``'s file under ``name`` (None: the file's), prepared for as ``told``.

    Raises ``InputError`` for a model that takes no pictures or is none of the recipe's task, a recipe that contradicts
    it, and what neither of them tells; and ``SetupError`` for a task that cannot be loaded.
    """
    task = _task(told, info)
    return ModelSpec(
        name=name or as_name(info.path.stem),
        recipe=_recipe(told, info),
        build=lambda weights, say: info.path,
        task=task.name,
        task_options=told.task_options,
        classes=(classes := _classes(task, told, info)),
        label_offset=_offset(told, classes),
        loadgen_model=task.loadgen_model,
    )


def describe(spec: ModelSpec, info: ModelInfo) -> str:
    """One line about what was worked out."""
    recipe, image = spec.recipe, info.inputs[0]
    return (
        f"{info.path.name} as {spec.name}: input {image.name} {recipe.dtype} {recipe.layout}, {recipe.size} pixels; "
        f"{find_task(spec.task).outline(spec, info.outputs)}; recipe {recipe.name}"
    )


def check_fit(spec: ModelSpec, info: ModelInfo) -> None:
    """Check that a file can be run as ``spec``: what its recipe produces fits the one input, and its outputs the task.

    Dynamic axes fit. Raises ``InputError`` with what was got and expected, and where several outputs fit equally well.
    """
    _check_input(spec.recipe, info)
    try:
        find_task(spec.task).check(spec, info)
    except ValueError as error:
        other = recognised(info.outputs)
        looks = f", which look like those of {other}" if other not in (None, spec.task) else ""
        raise InputError(
            f"model {info.path} has the outputs {shown(info.outputs)}{looks}: {one_line(error)}"
        ) from error


def fits(got: Sequence[int | None], expected: Sequence[int]) -> bool:
    """Whether axes, of which None is any, take what has the ``expected`` ones."""
    return len(got) == len(expected) and all(axis in (None, size) for axis, size in zip(got, expected, strict=True))


def shown(tensors: Iterable[TensorSpec]) -> str:
    """Tensors as a message has them: ``images float32 [?, 3, 224, 224]``."""
    texts = []
    for tensor in tensors:
        axes = ", ".join("?" if size is None else str(size) for size in tensor.shape)
        texts.append(f"{tensor.name} {tensor.dtype} [{axes}]")
    return ", ".join(texts) or "none"


def _check_input(recipe: Recipe, info: ModelInfo) -> None:
    axes = ", ".join(("batch", *map(str, recipe.sample_shape)))
    expected = f"{recipe.dtype} [{axes}] ({recipe.layout}) for the recipe {recipe.name}"
    if len(info.inputs) != 1:
        raise InputError(
            f"model {info.path} has {len(info.inputs)} inputs ({shown(info.inputs)}), expected 1: {expected}"
        )
    got = info.inputs[0]
    wrong = []
    if got.dtype != recipe.dtype:
        wrong.append("dtype")
    if len(got.shape) != 4:
        wrong.append("number of axes")
    elif not fits(got.shape[1:], recipe.sample_shape):
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
            f"model {info.path} has an input of another {' and '.join(wrong)}: got {shown(info.inputs)},"
            f" expected {expected}; is it another model (--model-name), or one of your own (--recipe)?"
        )


def _recipe(told: RecipeFile, info: ModelInfo) -> Recipe:
    image = _image(info)
    where = f"model {info.path} takes {shown(info.inputs)}"
    if image.dtype not in _DTYPES:
        raise InputError(f"{where}; expected float32, float16 or uint8 pictures")
    _agree(told, "dtype", told.dtype, image.dtype, where)
    if image.dtype == "uint8" and (any(told.mean) or told.std != (1.0, 1.0, 1.0)):
        raise InputError(
            f"{where}, the pixels themselves, and so normalises by itself; but the recipe {told.name} has mean "
            f"{list(told.mean)} and std {list(told.std)}: leave mean and std out of the recipe file"
        )
    layout = _layout(told, image, where)
    size = _size(told, image.shape[2:4] if layout == "NCHW" else image.shape[1:3], where)
    return told.recipe(size, layout, cast(Literal["float32", "float16", "uint8"], image.dtype))


def _image(info: ModelInfo) -> TensorSpec:
    if len(info.inputs) != 1 or len(info.inputs[0].shape) != 4:
        raise InputError(
            f"model {info.path} has {(count := len(info.inputs))} input{'s' * (count != 1)} ({shown(info.inputs)}), "
            "expected 1 with 4 axes: pictures [batch, 3, height, width] or [batch, height, width, 3]"
        )
    return info.inputs[0]


def _layout(told: RecipeFile, image: TensorSpec, where: str) -> Literal["NCHW", "NHWC"]:
    fitting = [layout for layout, axis in (("NCHW", 1), ("NHWC", 3)) if image.shape[axis] in (3, None)]
    sure = [layout for layout, axis in (("NCHW", 1), ("NHWC", 3)) if image.shape[axis] == 3]
    if not fitting:
        raise InputError(f"{where}; expected 3 channels, on axis 1 (NCHW) or 3 (NHWC)")
    found = sure if len(sure) == 1 else fitting
    if told.layout in found:
        return told.layout
    if told.layout:
        raise _contradiction(told, "layout", told.layout, found[0], where)
    if told.usual_layout in found:
        return told.usual_layout
    if len(found) > 1:
        raise InputError(f"{where}, of which any axis may be the channels; set layout (NCHW or NHWC) in the recipe")
    return cast(Literal["NCHW", "NHWC"], found[0])


def _size(told: RecipeFile, axes: tuple[int | None, ...], where: str) -> int:
    known = {axis for axis in axes if axis is not None}
    if len(known) > 1:
        raise InputError(f"{where}; expected as many pixels high as wide")
    if not known:
        if size := told.size or told.usual_size:
            return size
        raise InputError(f"{where}, of any height and width; set size (in pixels) in the recipe {told.name}")
    [size] = known
    if not 1 <= size <= MAX_SIZE:
        raise InputError(f"{where}; expected a height and width of 1 to {MAX_SIZE} pixels")
    _agree(told, "size", told.size, size, where)
    return size


def _task(told: RecipeFile, info: ModelInfo) -> type[Task]:
    """The recipe's task; where it has none, that which the outputs look like.

    A recipe that cuts pictures is for classification then: a detector would never see what is cut off.
    """
    if told.task is not None:
        return find_task(told.task)
    cuts = told.fit in ("resize-crop", "crop-resize")
    return find_task((None if cuts else recognised(info.outputs)) or Classification.name)


def _classes(task: type[Task], told: RecipeFile, info: ModelInfo) -> int:
    try:
        return task.classes_of(told, info.outputs)
    except ValueError as error:
        where, other = f"model {info.path} has the outputs {shown(info.outputs)}", recognised(info.outputs)
        if other in (None, task.name):
            raise InputError(f"{where}, {one_line(error)}") from error
        usual = find_task(other).usual_recipe(info.outputs)
        fitting = [usual] if usual else [name for name in RECIPES if task_of(name) == other]
        named = f"one of its own (--recipe {', '.join(fitting)}), or " if fitting else ""
        raise InputError(
            f"{where}, which look like those of {other}, but the recipe {told.name} is for {task.name}; use {named}a "
            f"recipe file with task: {other}"
        ) from error


def _offset(told: RecipeFile, classes: int) -> int:
    if told.label_offset is not None:
        return told.label_offset
    return -1 if classes == BACKGROUND_CLASSES else 0


def _agree(told: RecipeFile, key: str, wanted: object, found: object, where: str) -> None:
    if wanted is not None and wanted != found:
        raise _contradiction(told, key, wanted, found, where)


def _contradiction(told: RecipeFile, key: str, wanted: object, found: object, where: str) -> InputError:
    return InputError(f"{where}; the recipe {told.name} has {key} {wanted}, expected {found}, or leave {key} out")
