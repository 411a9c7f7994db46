"""Models by name: the ones built in, those other packages add, and a user's own file."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.metadata import EntryPoint
from operator import attrgetter
from pathlib import Path
from typing import Any

from plugins.registry import plugged
from sut.config import expanded, is_model_file
from sut.datasets.albums import ALBUMS
from sut.datasets.rectangles import RECTANGLES
from sut.errors import InputError, SetupError
from sut.models import tflite
from sut.models.base import Build, ModelSpec
from sut.models.content import check_model
from sut.models.files import ModelInfo
from sut.models.folder import model_in, recipe_in
from sut.models.own import describe, own_model, shown
from sut.models.recipes import RECIPES, RecipeFile, find_recipe
from sut.models.sources import (
    centerface,
    dpt,
    efficientnet_lite,
    lraspp,
    mobilenet,
    mobilenet_v2,
    planted,
    resnet,
    retinanet,
    tinyvit,
    vit,
    yolo11,
)
from sut.plugged import load_other
from sut.tasks.detection.categories import COCO80
from sut.tasks.registry import find_task, recognised
from sut.text import Say, as_name

GROUP = "sut.models"
"""Entry points of other packages: each is a ``ModelSpec``, under the model's name."""

MODELS: dict[str, ModelSpec] = {
    spec.name: spec
    for spec in (
        *(
            ModelSpec(
                name=variant.name,
                recipe=RECIPES[variant.name],
                build=efficientnet_lite.builder(variant),
                makes=("trained",),
                classes=efficientnet_lite.CLASSES,
            )
            for variant in efficientnet_lite.VARIANTS
        ),
        ModelSpec(
            name="mobilenet",
            recipe=RECIPES["mobilenet"],
            build=mobilenet.builder(".onnx"),
            other_builds={tflite.SUFFIX: mobilenet.builder(tflite.SUFFIX)},
            classes=mobilenet.CLASSES,
            label_offset=-1,
        ),
        ModelSpec(
            name="resnet50",
            recipe=RECIPES["resnet50"],
            build=resnet.build,
            makes=("random",),
            classes=resnet.CLASSES,
            label_offset=-1,
            # 99 % of the reference's 76.46 %, the target MLPerf sets for both divisions' FP32 model.
        ),
        *(
            ModelSpec(
                name=name,
                recipe=RECIPES["yolo"],
                build=yolo11.builder(name),
                makes=("random",),
                task="detection",
                classes=yolo11.CLASSES,
                loadgen_model="yolo",
                exports_differ=True,
            )
            for name in ("yolo11", "yolo-95", "yolo-99")
        ),
        *(
            ModelSpec(name=name, recipe=RECIPES["pytorch"], build=build, makes=("random",))
            for name, build in {
                "mobilenet-v2": mobilenet_v2.build,
                "resnet-18": resnet.builder(18),
                "resnet-101": resnet.builder(101),
                "tinyvit": tinyvit.build,
                "vit-b": vit.build,
            }.items()
        ),
        ModelSpec(
            name="lraspp",
            recipe=RECIPES["lraspp"],
            build=lraspp.build,
            makes=("random",),
            task="segmentation",
            classes=lraspp.CLASSES,
        ),
        ModelSpec(name="dpt", recipe=RECIPES["dpt"], build=dpt.build, makes=("random",), task="depth"),
        ModelSpec(
            name="retinanet",
            recipe=RECIPES["retinanet"],
            build=retinanet.build,
            task="detection",
            task_options=find_recipe("retinanet").task_options,
            classes=retinanet.CLASSES,
            loadgen_model="retinanet",
            exports_differ=True,
        ),
        ModelSpec(
            name="centerface",
            recipe=RECIPES["centerface"],
            build=centerface.build,
            adapt=centerface.adapt,
            makes=("trained",),
            task="detection",
            task_options=find_recipe("centerface").task_options,
            classes=centerface.CLASSES,
            loadgen_model="yolo",
        ),
        ModelSpec(
            name="planted",
            recipe=RECIPES["yolo"],
            build=planted.build,
            makes=("planted",),
            dataset=RECTANGLES,
            task="detection",
            classes=len(COCO80),
            loadgen_model="yolo",
        ),
        ModelSpec(
            name="planted-photos",
            recipe=RECIPES["yolo"],
            build=planted.build_photos,
            makes=("planted",),
            dataset=ALBUMS,
            task="detection",
            # Each anchor within a photo answers with it: they overlap almost wholly, and photos not at all.
            task_options={"outputs": "yolo", "iou_threshold": 0.5, "agnostic": True},
            classes=1,
            loadgen_model="yolo",
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
    spec, called = load_other("model", wanted, MODELS, _others())
    if not isinstance(spec, ModelSpec):
        raise SetupError(f"{called} is a {type(spec).__name__}, expected a ModelSpec")
    return spec


def find_for(name: str, reads: Sequence[str]) -> ModelSpec:
    """The model called ``name``, as a file of a format that a backend ``reads``: how the names of its files end.

    Raises what ``find`` does, and ``InputError`` for a model that is not to be had so.
    """
    spec = find(name)
    if ".onnx" in reads:
        return spec
    for suffix in reads:
        if suffix in spec.other_builds:
            return _built(spec, suffix, spec.other_builds[suffix])
    wanted = " or ".join(reads)
    raise InputError(
        f"model {spec.name} is an ONNX file here, expected {wanted} for this backend: use --backend onnxruntime, or "
        f"give a file with --model FILE{reads[0]} --model-name {spec.name}"
    )


def for_file(
    path: Path,
    model_name: str | None,
    recipe: str | None = None,
    say: Say = lambda text: None,
    outputs: Sequence[str] | None = None,
) -> ModelSpec:
    """The model that a user's file is, of which only these ``outputs`` are looked at, None for all of them.

    A folder stands for the file in it, by the folder's name and, where no other is told, its recipe.
    With a ``recipe`` (a name, a YAML file or a folder) it is the user's own, called ``model_name`` or as the file is;
    ``say`` is told what was worked out. Without, it is the known model ``model_name``, or else the one that the file's
    name has in it as a word of its own, and the file itself is only read where ``exports_differ``. A file that no name
    tells is the user's own by the usual recipe where its outputs speak for one. ``build`` of the answer gives ``path``.

    Raises ``InputError`` where the name is unknown or not told, and for a file and recipe that do not fit; and
    ``SetupError`` as ``find`` does.
    """
    if os.path.isdir(path):  # noqa: PTH112 - pathlib's raises for a path that is too long
        name = as_name(Path(os.path.abspath(path)).name)  # noqa: PTH100 - resolved, a link would lose its name
        return _prepared(model_in(path), model_name or name, recipe or f"{path}/", say, outputs)
    if recipe is not None:
        return _prepared(path, model_name, recipe, say, outputs)
    if model_name is None:
        known = (*MODELS, *_others())
        within = [name for name in known if _names(name, path)]
        if not within and (guessed := _guessed(path, outputs, say)):
            return guessed
        if len(within) != 1:
            if not path.exists():
                raise InputError(f"model {path} does not exist, expected an .onnx, .xml, .tflite or PyTorch file")
            got = f"names {' and '.join(within)}" if within else f"names no known model{_unlike_a_detector(path)}"
            raise InputError(
                f"model file {path.name} {got}; say which it is with --model-name ({', '.join(known)}), or how to "
                f"preprocess for it with --recipe (a YAML file, {', '.join(RECIPES)})"
            )
        model_name = within[0]
    spec = find(model_name)
    if spec.exports_differ:
        return exported(spec, path, outputs)
    adapt = spec.adapt if path.suffix == ".onnx" else None
    return _built(spec, path.suffix, lambda weights, say: adapt(path, say) if adapt else path)


def with_folder(settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """Settings of a run. Where ``model`` is a folder's name, and no model's, it becomes that folder's path."""
    model = settings.get("model")
    if not isinstance(model, str) or is_model_file(model) or _plain(model) in {*MODELS, *_others()}:
        return settings
    return {**settings, "model": f"./{model}"} if os.path.isdir(model) else settings  # noqa: PTH112 - as above


def exported(spec: ModelSpec, path: Path, outputs: Sequence[str] | None = None) -> ModelSpec:
    """A known model as somebody's export of it, which has a size, a layout and a dtype of its own.

    Raises ``InputError`` for a file that cannot be read, or is not that model.
    """
    told = find_recipe(spec.recipe.name).model_copy(update={"classes": spec.classes, "task_options": spec.task_options})
    own = own_model(told, check_model(path).only(outputs), spec.name)
    return replace(spec, recipe=own.recipe, build=own.build)


def _prepared(path: Path, name: str | None, recipe: str, say: Say, outputs: Sequence[str] | None) -> ModelSpec:
    """A file as the user's own, by the word for a recipe."""
    is_folder = "/" in recipe and expanded(recipe).is_dir()
    told, source = recipe_in(expanded(recipe)) if is_folder else (find_recipe(recipe), "")
    try:
        return _own(told, check_model(path).only(outputs), name, say, source)
    except InputError as error:
        raise InputError(f"{error}; recipe{source}: --recipe FILE overrides it" if source else error) from None


def _own(told: RecipeFile, info: ModelInfo, name: str | None, say: Say, why: str = "") -> ModelSpec:
    spec = _not_mistaken(own_model(told, info, name))
    say(describe(spec, info) + why)
    return spec


def _unlike_a_detector(path: Path) -> str:
    """Why nothing could be guessed from a file's outputs, as the rest of a sentence; nothing where they are unknown."""
    try:
        outputs = check_model(path).outputs
    except (InputError, SetupError):
        return ""
    return f", and its outputs ({shown(outputs)}) are not plainly a detector's" if outputs else ""


def _guessed(path: Path, outputs: Sequence[str] | None, say: Say) -> ModelSpec | None:
    """A file as the model that its outputs speak for; None where they do for none, and where it cannot be read."""
    try:
        info = check_model(path)
    except (InputError, SetupError):
        return None
    info = info.only(outputs)
    task = recognised(info.outputs)
    usual = find_task(task).usual_recipe(info.outputs) if task else None
    if usual is None:
        return None
    recipe = RECIPES[usual]
    padded = f", {recipe.align} on grey {recipe.pad_level}" if recipe.fit == "letterbox" else ""
    why = (
        f": {recipe.fit}, {recipe.interpolation}, {recipe.colour_order}, mean {recipe.mean}, std {recipe.std}{padded}; "
        f"guessed from the outputs {shown(info.outputs)}: say otherwise with --model-name, or --recipe"
    )
    return _own(find_recipe(usual), info, None, say, why)


def _built(spec: ModelSpec, suffix: str, build: Build) -> ModelSpec:
    """A known model as a file whose name ends so: TFLite's convolutions know NHWC only."""
    recipe = replace(spec.recipe, layout="NHWC") if suffix == tflite.SUFFIX else spec.recipe
    return replace(spec, recipe=recipe, build=build)


_works = attrgetter("recipe", "task", "task_options", "classes", "label_offset")
"""What makes a model work as it does, whichever file it is."""


def _names(name: str, path: Path) -> bool:
    """Whether a file's name has a model's in it as a word of its own: MobileNetV2 is not MobileNet."""
    stem = unicodedata.normalize("NFC", _plain(path.stem))
    return re.search(rf"(?<!\w){re.escape(name)}(?!\w|-?v(?!1(?!\d))\d)", stem) is not None


def _not_mistaken(spec: ModelSpec) -> ModelSpec:
    """An own model under a known one's name is that one if it works alike, and else is called otherwise.

    What its file may decide, such as the layout, is all the same. What a name promises, such as being MLPerf's model,
    holds for the known model only.
    """
    known = MODELS.get(_plain(spec.name))
    if known is None:
        return spec
    known = known.prepared_as(spec.recipe)
    if _works(known) == _works(spec):
        return replace(known, build=spec.build)
    return replace(spec, name=f"{spec.name}-{spec.recipe.name}")


def _plain(name: str) -> str:
    return name.lower().replace("_", "-")


def _others() -> dict[str, EntryPoint]:
    return {_plain(name): point for name, point in plugged(GROUP).items()}
