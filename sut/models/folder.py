"""A folder as exporters leave it: which file in it is the model, and what the JSON files beside that say of pictures.

``preprocessor_config.json`` (image processors of transformers) or timm's ``pretrained_cfg`` tells the recipe and
``config.json`` the number of classes, in the folder or in its ``onnx/``. What a recipe cannot express is refused.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from kernels.placement import INTERPOLATIONS
from plugins.files import read_file
from sut.errors import InputError, one_line, reason_of
from sut.models.recipes import MAX_CLASSES, MAX_RESIZED, RecipeFile
from sut.text import as_name, shortened

_PROCESSOR = "preprocessor_config.json"
_CONFIG = "config.json"
_PLACES = ("", "onnx")
_MOST_BYTES = 2**25
"""The names of ImageNet-21k's classes, there and back, are 3 MB."""
_INSTEAD = "say how pictures are prepared with --recipe FILE"

_FILTERS = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}
"""Pillow's numbers of its filters; recipes have ``pillow-`` before the names of those they know."""
_BASE = {"do_resize": True, "resample": 2, "do_center_crop": False, "do_rescale": True, "rescale_factor": 1 / 255}
_BASE |= {"do_normalize": True, "image_mean": 0.5, "image_std": 0.5}
_SQUARE = {pixels: {"height": pixels, "width": pixels} for pixels in (224, 256, 346)}
_CROP = {"do_center_crop": True, "crop_size": 224}
_CLIP = {"size": {"shortest_edge": 224}, "resample": 3, "image_mean": [0.48145466, 0.4578275, 0.40821073]}
_CLIP |= {"image_std": [0.26862954, 0.26130258, 0.27577711], **_CROP}
_BGR = {"do_flip_channel_order": True, "do_normalize": False, "do_center_crop": True, "crop_size": 256}
_PROCESSORS: Mapping[str, Mapping[str, Any]] = {
    "ViT": _BASE | {"size": _SQUARE[224]},
    "DeiT": _BASE | {"size": _SQUARE[256], "resample": 3, **_CROP},
    "Beit": _BASE | {"size": _SQUARE[256], "resample": 3, **_CROP},
    "Siglip": _BASE | {"size": _SQUARE[224], "resample": 3},
    "CLIP": _BASE | _CLIP,
    "Bit": _BASE | _CLIP,
    "ConvNext": _BASE | {"size": {"shortest_edge": 384}, "crop_pct": 224 / 256},
    "EfficientNet": _BASE | {"size": _SQUARE[346], "resample": 0, "crop_size": 289, "include_top": True},
    "MobileNetV1": _BASE | {"size": {"shortest_edge": 256}, **_CROP},
    "MobileNetV2": _BASE | {"size": {"shortest_edge": 256}, **_CROP},
    "MobileViT": _BASE | {"size": {"shortest_edge": 224}, **_BGR},
}
"""What the image processors of transformers do where their file does not say, as their classes have it.

A ``size`` that is a number means the same sides as the default's.
"""
_TIMM = {"input_size": [3, 224, 224], "crop_pct": 0.875, "crop_mode": "center", "interpolation": "bicubic"}
_TIMM |= {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
"""The same of timm."""
_NEEDED = ("size", "resample", "do_resize", "do_center_crop", "do_rescale", "do_normalize")
_NO_MATTER = {*_NEEDED, "do_flip_channel_order", "do_convert_rgb", "do_reduce_labels"}
"""Switches that are expressed, and two that change nothing: pictures are RGB here, and no labels are made."""
_UNCROPPED = 384  # pixels from which on ConvNeXt's processor stretches the picture instead of cropping it


@dataclass(frozen=True, slots=True)
class _Told:
    """The keys of one processor, over the defaults of its class, and the file they are in."""

    path: Path
    values: Mapping[str, Any]

    def need(self, key: str) -> Any:
        if key not in self.values:
            raise InputError(
                f"{self.path}: the key {key} is missing, which is known of the classes {', '.join(_PROCESSORS)} only; "
                f"add it, or {_INSTEAD}"
            )
        return self.values[key]

    def flag(self, key: str) -> bool:
        if not isinstance(value := self.values.get(key, False), bool):
            raise self.wrong(key, "true or false")
        return value

    def number(self, key: str, low: float, high: float) -> float:
        if not _is_number(value := self.need(key)) or not low < value <= high:
            raise self.wrong(key, f"a number over {low:g}, at most {high:g}")
        return float(value)

    def three(self, key: str) -> list[float]:
        value = self.need(key)
        values = [value] * 3 if _is_number(value) else value
        if not isinstance(values, list) or len(values) != 3 or not all(map(_is_number, values)):
            raise self.wrong(key, "a number, or three")
        return values

    def sides(self, key: str, usual: str) -> tuple[str, int]:
        """What of a picture becomes how many pixels: its ``shortest_edge``, or ``height`` and width alike.

        A mere number is that of the ``usual`` side.
        """
        value = self.need(key)
        named = ("height", "width") if usual == "height" else (usual or "?",)
        given = value if isinstance(value, dict) else dict.fromkeys(named, value)
        sides = {side: pixels for side, pixels in given.items() if pixels is not None}
        if not all(type(pixels) is int and 1 <= pixels <= MAX_RESIZED for pixels in sides.values()):
            raise self.wrong(key, f"1 to {MAX_RESIZED} pixels, or a map of them")
        if set(sides) not in ({"shortest_edge"}, {"height", "width"}):
            raise self.cannot(key, "fit letterbox" if "longest_edge" in sides else "height and width, or shortest_edge")
        if len(set(sides.values())) > 1:
            raise self.cannot(key, "as many pixels high as wide")
        return next(iter(sides.items()))

    def wrong(self, key: str, expected: str) -> InputError:
        return InputError(f"{self.path}: {key} is {_shown(self.values[key])}, expected {expected}")

    def cannot(self, key: str, nearest: str, called: str = "") -> InputError:
        value = _shown(self.values[key]) + (f" ({called})" if called else "")
        return InputError(f"{self.path}: {key} {value} cannot be expressed; nearest: {nearest}, with --recipe FILE")


def model_in(folder: Path) -> Path:
    """The one .onnx file in a folder or its ``onnx/``. Raises ``InputError`` where there is none, or several."""
    found = sorted(path for place in _PLACES for path in (folder / place).glob("*.onnx") if not path.is_dir())
    if not found:
        raise InputError(f"folder {folder} has no .onnx file, nor has its onnx/; export the model, or give its file")
    if len(found) > 1:
        names = ", ".join(str(path.relative_to(folder)) for path in found)
        give = f"--model {found[0]} --recipe {folder}/"
        raise InputError(f"folder {folder} has {len(found)} models ({names}); give the file, as {give}")
    return found[0]


def recipe_in(folder: Path) -> tuple[RecipeFile, str]:
    """The recipe that a folder tells, and which file told what, as the rest of a sentence.

    Raises ``InputError``, with the file and the key, for a folder that tells none, files that cannot be read or
    disagree, and what a recipe cannot express.
    """
    found: dict[str, tuple[RecipeFile, str]] = {}
    counts: dict[str, int] = {}
    for path, content in _files(folder):
        name = str(path.relative_to(folder))
        counts |= {f"{name} {key}": count for key, count in _counts(path, content)}
        if "pretrained_cfg" in content:
            found[name] = _of_timm(path, content["pretrained_cfg"])
        elif path.name == _PROCESSOR:
            found[name] = _of_transformers(path, content)
    if not found:
        raise InputError(f"folder {folder} has no {_PROCESSOR}, nor a {_CONFIG} with a pretrained_cfg: {_INSTEAD}")
    (name, (told, how)), *others = found.items()
    for other, (also, _) in others:
        if differing := ", ".join(key for key, value in told if key != "name" and value != getattr(also, key)):
            raise InputError(f"folder {folder}: {name} and {other} disagree on {differing}; remove one, or {_INSTEAD}")
    if len(set(counts.values())) > 1:
        said = ", ".join(f"{source} {count}" for source, count in counts.items())
        raise InputError(f"folder {folder} disagrees on the number of classes: {said}; mend it, or {_INSTEAD}")
    source, count = next(iter(counts.items()), ("the model's file", None))
    words = f" from {name} ({how}), classes from {source}, size from {name}"
    return told.model_copy(update={"classes": count}), words


def _files(folder: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    paths = (folder / place / name for name in (_PROCESSOR, _CONFIG) for place in _PLACES)
    for path in filter(os.path.lexists, paths):
        try:
            content = json.loads(read_file(path, _MOST_BYTES))
        except (OSError, ValueError, RecursionError) as error:
            raise InputError(f"{path}: not a readable JSON file ({reason_of(error)}); mend it, or {_INSTEAD}") from None
        if not isinstance(content, dict):
            raise InputError(f"{path}: got {_shown(content)}, expected a JSON object; mend it, or {_INSTEAD}")
        yield path, content


def _counts(path: Path, content: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    """How many classes there are, by each key that tells it."""
    for key in ("id2label", "num_labels", "label_names", "num_classes"):
        if (value := content.get(key)) is not None:
            count = len(value) if isinstance(value, (dict, list)) else value
            if type(count) is not int or not 2 <= count <= MAX_CLASSES:
                raise InputError(
                    f"{path}: {key} tells {_shown(count)} classes, expected 2 to {MAX_CLASSES}; {_INSTEAD}"
                )
            yield key, count


def _of_transformers(path: Path, content: Mapping[str, Any]) -> tuple[RecipeFile, str]:
    """The recipe of an image processor of transformers, and in words what of it tells that."""
    word = str(content.get("image_processor_type") or content.get("feature_extractor_type") or "processor")
    defaults = _PROCESSORS.get(re.sub(r"(ImageProcessor(Fast|Pil)?|FeatureExtractor)$", "", word), {})
    # null stands for the class's own value; in a class that is not known here a switch is off then.
    off = {key: False for key, value in content.items() if value is None and key.startswith("do_")}
    told = _Told(path, off | {**defaults, **{key: value for key, value in content.items() if value is not None}})
    for key in _NEEDED:
        told.need(key)
    for key in told.values:
        if (key == "rescale_offset" or (key.startswith("do_") and key not in _NO_MATTER)) and told.flag(key):
            raise told.cannot(key, "fit letterbox" if key == "do_pad" else f"the same without {key}")
    if not told.flag("do_resize"):
        raise told.cannot("do_resize", "fit stretch")
    if "crop_pct" in told.values and "crop_pct" not in defaults:
        raise told.cannot("crop_pct", "fit resize-crop with short_side")
    interpolation, filtered = _filter(told, "resample")
    geometry, how = _geometry(told, next(iter(defaults.get("size", ())), ""))
    return _made(told, word, geometry | _levels(told) | interpolation), f"{filtered}, {how}"


def _geometry(told: _Told, usual: str) -> tuple[dict[str, Any], str]:
    """Which pixels go where, and what tells it; a ``size`` that is a number is of the ``usual`` side."""
    side, pixels = told.sides("size", usual)
    cropped, how = told.flag("do_center_crop"), f"{'height and width' if side == 'height' else side} {pixels}"
    if "crop_pct" in told.values:
        if cropped or side == "height":
            raise told.cannot("do_center_crop" if cropped else "size", "shortest_edge and crop_pct alone")
        share = told.number("crop_pct", 0.01, 1)
        if pixels >= _UNCROPPED:
            return {"fit": "stretch", "size": pixels}, f"{how}: not cropped from {_UNCROPPED} on"
        return {"fit": "resize-crop", "size": pixels, "short_side": int(pixels / share)}, f"{how}, crop_pct {share:g}"
    if not cropped:
        if side != "height":
            raise told.cannot("size", f"do_center_crop true with crop_size {pixels}")
        return {"fit": "stretch", "size": pixels}, how
    edge, size = told.sides("crop_size", "height")
    if edge != "height" or size > pixels:
        raise told.cannot("crop_size", f"{pixels}, all that is there")
    fit = "stretch" if side == "height" else "resize-crop"
    return {"fit": fit, "size": size, "short_side": pixels}, f"{how}, crop {size}"


def _levels(told: _Told) -> dict[str, Any]:
    """Mean and std in levels of 0 to 255, and the order of the channels.

    transformers computes (level * rescale_factor - mean) / std, with ``include_top`` divided by std once more, and
    turns the channels around after that.
    """
    scale = 1 / told.number("rescale_factor", 0, 1e9) if told.flag("do_rescale") else 1.0
    mean, std = [0.0] * 3, [1.0] * 3
    if told.flag("do_normalize"):
        mean, std = told.three("image_mean"), told.three("image_std")
        std = [each * each for each in std] if told.flag("include_top") else std
    is_bgr = told.flag("do_flip_channel_order")
    levels = {key: _levels_of(values[:: -1 if is_bgr else 1], scale) for key, values in (("mean", mean), ("std", std))}
    return {**levels, "colour_order": "BGR" if is_bgr else "RGB"}


def _levels_of(values: list[float], scale: float) -> tuple[float, ...]:
    """With the nine digits that tell any two float32 apart: 123.675, not 123.67500000000001."""
    return tuple(float(f"{value * scale:.9g}") for value in values)


def _of_timm(path: Path, content: object) -> tuple[RecipeFile, str]:
    """The recipe of timm's evaluation, which goes by torchvision's rules, and in words what of it tells that."""
    if not isinstance(content, dict):
        raise InputError(f"{path}: pretrained_cfg is {_shown(content)}, expected a JSON object")
    told = _Told(path, _TIMM | {key: value for key, value in content.items() if value is not None})
    channels, size, width = (*shape, 0, 0, 0)[:3] if isinstance(shape := told.values["input_size"], list) else (0, 0, 0)
    if channels != 3 or type(size) is not int or size != width:
        raise told.cannot("input_size", "[3, size, size]")
    interpolation, filtered = _filter(told, "interpolation")
    mode, share = told.values["crop_mode"], told.number("crop_pct", 0.01, 1)
    fit = {"center": "resize-crop", "squash": "stretch"}.get(str(mode))
    if fit is None:
        raise told.cannot("crop_mode", "fit letterbox" if mode == "border" else "center")
    keys = {"fit": fit, "size": size, "short_side": math.floor(size / share), "crop_offset": "round"}
    keys |= {key: _levels_of(told.three(key), 255) for key in ("mean", "std")}
    how = f"pretrained_cfg: {filtered}, input_size {size}, crop_pct {share:g}, crop_mode {mode}"
    return _made(told, "timm", keys | interpolation), how


def _filter(told: _Told, key: str) -> tuple[dict[str, str], str]:
    """What resizes, and how the file says it."""
    value = told.values[key]
    called = _FILTERS.get(value, "") if _is_number(value) else ""
    if (found := f"pillow-{called or value}") not in INTERPOLATIONS:
        raise told.cannot(key, "pillow-bilinear", called)
    return {"interpolation": found}, f"{key} {value} = {found}"


def _made(told: _Told, name: str, keys: Mapping[str, Any]) -> RecipeFile:
    try:
        made = RecipeFile(name=as_name(name), usual_layout="NCHW", **keys)
        made.recipe(keys["size"], "NCHW", "float32")
    except ValidationError as error:
        first = error.errors()[0]
        raise InputError(f"{told.path}: {first['loc'][0]}: {first['msg']}, got {_shown(first['input'])}") from None
    except InputError as error:
        raise InputError(f"{told.path}: {one_line(error)}") from None
    return made


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e30


def _shown(value: object) -> str:
    return shortened(value if isinstance(value, str) else json.dumps(value))
