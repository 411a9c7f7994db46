"""Recipes by name, and recipes from a file of the user's: how pictures are prepared for a model we do not know."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StrictFloat, StrictInt, ValidationError

from kernels.placement import INTERPOLATIONS, Interpolation
from plugins.registry import suggest
from preprocess.base import Recipe
from preprocess.oracle import check_recipe
from sut.config import expanded, read_config_file
from sut.errors import InputError, one_line
from sut.models.sources import centerface, dpt, lraspp, resnet, retinanet, yolo11
from sut.models.sources.efficientnet_lite import VARIANTS
from sut.models.sources.random_network import IMAGENET_MEAN, IMAGENET_STD
from sut.tasks.registry import find_task
from sut.text import as_name, checked_name

MAX_SIZE = 4096
"""Largest input in pixels a side: one sample of float32 is 200 MB there."""
MAX_RESIZED = 8192
"""Longest short side in pixels that a picture may be resized to before the crop."""
MAX_CLASSES = 2**24
"""Answers are float32, which holds every whole number up to here."""

_Three = tuple[StrictFloat, StrictFloat, StrictFloat]


RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        *(
            Recipe(
                name=variant.name,
                size=variant.size,
                fit="crop-resize",
                interpolation="cubic",
                crop_padding=32,
                mean=(127.0, 127.0, 127.0),
                std=(128.0, 128.0, 128.0),
            )
            for variant in VARIANTS
        ),
        Recipe(
            name="resnet50",
            size=resnet.SIZE,
            fit="resize-crop",
            interpolation="area",
            crop_percent=87.5,
            mean=resnet.MEAN,
        ),
        # The reference's (x / 255 - 0.5) * 2, in levels.
        Recipe(
            name="mobilenet",
            size=224,
            fit="resize-crop",
            interpolation="linear",
            mean=(127.5, 127.5, 127.5),
            std=(127.5, 127.5, 127.5),
        ),
        # Short side 256, x / 255, then ImageNet's mean and std: MLPerf's reference for PyTorch, and torchvision's first
        # weights of its ResNets, MobileNetV2 and ViT-B/16.
        Recipe(
            name="pytorch",
            size=224,
            fit="resize-crop",
            interpolation="linear",
            mean=IMAGENET_MEAN,
            std=IMAGENET_STD,
        ),
        # torchvision's for its LRASPP, but for the shape of a picture: the input is square.
        Recipe(
            name="lraspp",
            size=lraspp.SIZE,
            fit="stretch",
            interpolation="linear",
            mean=IMAGENET_MEAN,
            std=IMAGENET_STD,
        ),
        # DPT's: (x / 255 - 0.5) / 0.5, in levels.
        Recipe(
            name="dpt",
            size=dpt.SIZE,
            fit="stretch",
            interpolation="cubic",
            mean=(127.5, 127.5, 127.5),
            std=(127.5, 127.5, 127.5),
        ),
        # x / 255, in a letterbox of grey 114.
        Recipe(name="yolo", size=yolo11.SIZE, fit="letterbox", interpolation="linear", std=(255.0, 255.0, 255.0)),
        # x / 255 in MLPerf's reference: mean and std are inside the model.
        Recipe(name="retinanet", size=800, fit="stretch", interpolation="linear", std=(255.0, 255.0, 255.0)),
        # Levels as they are. The authors stretch a picture's sides to multiples of 32, so that it hardly changes its
        # shape; of one size it keeps it by a border, of zeros as each convolution's own.
        Recipe(name="centerface", size=centerface.SIZE, fit="letterbox", interpolation="linear", pad_level=0),
    )
}
"""The published recipes. For a file of the user's they keep all but size, layout and dtype, which the file decides."""

_USUAL_CLASSES = {
    "resnet50": 1001,
    "mobilenet": 1001,
    "yolo": yolo11.CLASSES,
    "retinanet": retinanet.CLASSES,
    "centerface": centerface.CLASSES,
    "lraspp": lraspp.CLASSES,
}
_TASKS = {
    "yolo": "detection",
    "retinanet": "detection",
    "centerface": "detection",
    "lraspp": "segmentation",
    "dpt": "depth",
}
"""Of the models that a recipe is for, where they do not classify."""
_TASK_OPTIONS = {
    "yolo": {},
    "retinanet": {"score_threshold": retinanet.SCORE_THRESHOLD, "categories": "index"},
    "centerface": {
        "score_threshold": centerface.SCORE_THRESHOLD,
        "iou_threshold": centerface.IOU_THRESHOLD,
        "categories": "index1",
    },
}
"""Of the recipes for detectors."""
_EXPECTED = {
    "fit": "resize-crop, crop-resize, stretch or letterbox",
    "interpolation": f"{', '.join(INTERPOLATIONS[:-1])} or {INTERPOLATIONS[-1]}",
}


class RecipeFile(BaseModel):
    """A recipe as far as it is told: the keys of ``preprocess.base.Recipe`` and what the labels need.

    None is left to the model's file. ``usual_size``, ``usual_classes`` and ``usual_layout`` count where that does not
    tell either; they are no keys of a file.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: Annotated[str, AfterValidator(checked_name)]
    fit: Literal["resize-crop", "crop-resize", "stretch", "letterbox"]
    interpolation: Interpolation
    size: StrictInt | None = Field(default=None, ge=1, le=MAX_SIZE)
    """Height and width of the model's input in pixels."""
    crop_percent: StrictFloat = Field(default=87.5, gt=0, le=100)
    short_side: StrictInt | None = Field(default=None, ge=1, le=MAX_RESIZED)
    crop_offset: Literal["floor", "round"] = "floor"
    crop_padding: StrictInt = Field(default=32, ge=0, le=MAX_SIZE)
    pad_level: StrictInt = Field(default=114, ge=0, le=255)
    align: Literal["centre", "top-left"] = "centre"
    colour_order: Literal["RGB", "BGR"] = "RGB"
    mean: _Three = (0.0, 0.0, 0.0)
    std: _Three = (1.0, 1.0, 1.0)
    layout: Literal["NCHW", "NHWC"] | None = None
    dtype: Literal["float32", "float16", "uint8"] | None = None
    task: str | None = None
    """None is found out by the outputs."""
    task_options: dict[str, Any] = Field(default_factory=dict)
    """What ``Task.options`` of the task may have set."""
    label_offset: StrictInt | None = Field(default=None, ge=-MAX_CLASSES, le=MAX_CLASSES)
    classes: StrictInt | None = Field(default=None, ge=2, le=MAX_CLASSES)
    usual_size: int | None = None
    usual_classes: int | None = None
    usual_layout: Literal["NCHW", "NHWC"] | None = None

    def recipe(
        self, size: int, layout: Literal["NCHW", "NHWC"], dtype: Literal["float32", "float16", "uint8"]
    ) -> Recipe:
        """The whole recipe. Raises ``InputError``, with the key, for one that contradicts itself or is impossible."""
        recipe = Recipe(size=size, layout=layout, dtype=dtype, **_same(self))
        if self.fit == "resize-crop" and not self.short_side and 100 * size / self.crop_percent >= MAX_RESIZED + 1:
            raise InputError(
                f"recipe {self.name}: crop_percent: {self.crop_percent:g} at size {size} resizes pictures to "
                f"{100 * size / self.crop_percent:.3g} pixels, expected {MAX_RESIZED} at the most"
            )
        try:
            check_recipe(recipe)
        except ValueError as error:
            raise InputError(one_line(error)) from error
        with np.errstate(all="ignore"):
            mean, std = np.array(self.mean, np.float32), np.array(self.std, np.float32)
            ends = (np.array([[0], [255]], np.float32) - mean) / std
            finite = np.isfinite(ends.astype(dtype)).all()
        if not finite:
            raise InputError(f"recipe {self.name}: mean and std: (value - mean) / std is beyond what {dtype} holds")
        return recipe


def _same(recipe: Recipe | RecipeFile) -> dict[str, Any]:
    """What both have, but for what a model's file may decide."""
    keys = {field.name for field in fields(Recipe)} - {"size", "layout", "dtype"}
    return {key: getattr(recipe, key) for key in keys}


KEYS = tuple(key for key in RecipeFile.model_fields if not key.startswith("usual_"))
"""What a recipe file may set."""


def find_recipe(word: str) -> RecipeFile:
    """The recipe that ``--recipe`` means: a file where the word has a ``/`` or ends in .yaml or .yml, else a name.

    Raises ``InputError`` for an unknown name or a file that does not do.
    """
    if "/" in word or word.lower().endswith((".yaml", ".yml")):
        return read_recipe(expanded(word))
    name = word.lower().replace("_", "-")
    if name not in RECIPES:
        raise InputError(f"unknown recipe '{word}'; {suggest(name, RECIPES)}, or a YAML file")
    recipe = RECIPES[name]
    return RecipeFile(
        task=task_of(name),
        task_options=_TASK_OPTIONS.get(name, {}),
        usual_size=recipe.size,
        usual_classes=_USUAL_CLASSES.get(name, 1000),
        **_same(recipe),
    )


def task_of(name: str) -> str:
    """The task of the models that a named recipe is for."""
    return _TASKS.get(name, "classification")


def read_recipe(path: Path) -> RecipeFile:
    """A recipe from a YAML file with ``KEYS``; its name is the file's if it has none.

    Raises ``InputError``, in one line with the file and the key, for what cannot be read, unknown keys, missing ones,
    wrong types and impossible values.
    """
    hint = f"--recipe takes a YAML file or one of {', '.join(RECIPES)}"
    content = {"name": as_name(path.stem)} | read_config_file(path, hint)
    for key in content:
        if key not in KEYS:
            raise InputError(f"recipe {path}: unknown key '{key}'; {suggest(key, KEYS)}")
    try:
        told = RecipeFile(**content)
    except ValidationError as error:
        raise InputError(f"recipe {path}: {_first(error, content)}") from None
    if all(0 < value < 1 for value in told.std):
        levels = [f"[{', '.join(f'{255 * value:g}' for value in values)}]" for values in (told.mean, told.std)]
        raise InputError(
            f"recipe {path}: mean and std: got {list(told.mean)} and {list(told.std)}, parts of 1; expected levels "
            f"of 255: mean: {levels[0]} and std: {levels[1]}"
        )
    try:
        if told.task is not None:
            find_task(told.task).read_options(told.task_options)
        told.recipe(told.size or 1, told.layout or "NCHW", told.dtype or "float32")
    except (InputError, ValueError) as error:
        raise InputError(f"{path}: {one_line(error)}") from None
    return told


def _first(error: ValidationError, content: Mapping[str, Any]) -> str:
    """The first error: its key, what was expected and got."""
    first = error.errors()[0]
    key = str(first["loc"][0])
    if key not in content:
        return f"the key {key} is missing; expected {_EXPECTED[key]}"
    if key in ("mean", "std"):
        return f"{key}: got {content[key]}, expected three finite numbers, one per channel, as [0, 0, 0]"
    return f"{key}: {first['msg'].removeprefix('Value error, ')}, got {content[key]!r}"
