"""Recipes by name and from a file: what is taken, and what is refused with the file and the key."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from preprocess.base import Recipe
from preprocess.oracle import oracle
from sut.errors import InputError
from sut.models.recipes import KEYS, MAX_RESIZED, MAX_SIZE, RECIPES, find_recipe, read_recipe
from tests.children import CHECKOUT

NEEDED = "fit: resize-crop\ninterpolation: linear\n"


def written(folder: Path, text: str) -> Path:
    path = folder / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_named_recipes_are_the_references() -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (300, 400, 3), np.uint8)
    mobilenet, kept = oracle(pixels, RECIPES["mobilenet"])
    pytorch, same = oracle(pixels, RECIPES["pytorch"])
    x = kept.transpose(2, 0, 1) / 255
    mean, std = (np.array(values).reshape(3, 1, 1) for values in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))

    np.testing.assert_allclose(mobilenet, (x - 0.5) * 2, atol=1e-6)
    np.testing.assert_allclose(pytorch, (x - mean) / std, atol=1e-6)
    np.testing.assert_array_equal(kept, same)
    assert {name: recipe.size for name, recipe in RECIPES.items()} == {
        "dpt": 384,
        "lraspp": 520,
        "efficientnet-lite0": 224,
        "efficientnet-lite1": 240,
        "efficientnet-lite2": 260,
        "resnet50": 224,
        "mobilenet": 224,
        "pytorch": 224,
        "yolo": 640,
        "retinanet": 800,
        "centerface": 640,
    }


@pytest.mark.parametrize("name", RECIPES)
def test_a_named_recipe_comes_back_whole(name: str) -> None:
    told = find_recipe(name.upper().replace("-", "_"))

    assert told.recipe(RECIPES[name].size, "NCHW", "float32") == RECIPES[name]
    assert (told.size, told.layout, told.dtype, told.classes, told.label_offset) == (None,) * 5
    assert told.usual_size == RECIPES[name].size


def test_the_shipped_file_is_the_recipe_called_pytorch() -> None:
    told = read_recipe(CHECKOUT / "configs" / "recipes" / "imagenet-pytorch.yaml")
    named = find_recipe("pytorch")

    assert told.name == "imagenet-pytorch"
    leave = {"name", "task", "usual_size", "usual_classes"}
    assert told.model_dump(exclude=leave) == named.model_dump(exclude=leave)


def test_a_file_may_leave_out_what_the_model_tells(tmp_path: Path) -> None:
    told = find_recipe(str(written(tmp_path, NEEDED)))

    assert (told.name, told.size, told.layout, told.dtype, told.usual_size) == ("mine", None, None, None, None)
    assert told.recipe(192, "NHWC", "uint8") == Recipe(
        name="mine", size=192, fit="resize-crop", interpolation="linear", layout="NHWC", dtype="uint8"
    )


def test_every_key_can_be_set(tmp_path: Path) -> None:
    everything = {
        "name": "all-of_it.2",
        "fit": "crop-resize",
        "interpolation": "cubic",
        "size": 192,
        "crop_percent": 90,
        "short_side": 193,
        "crop_offset": "round",
        "crop_padding": 0,
        "pad_level": 0,
        "align": "top-left",
        "colour_order": "BGR",
        "mean": [1, 2.5, -3],
        "std": [1, 2, 0.5],
        "layout": "NHWC",
        "dtype": "float16",
        "task": "detection",
        "task_options": {"outputs": "nms", "score_threshold": 0.25},
        "label_offset": -1,
        "classes": 12,
    }
    told = read_recipe(written(tmp_path, yaml.safe_dump(everything)))

    assert set(everything) == set(KEYS)
    assert told.model_dump(include=set(KEYS)) == everything | {"mean": (1, 2.5, -3), "std": (1, 2, 0.5)}


@pytest.mark.parametrize(
    ("text", "fragment"),
    [
        ("color_order: BGR", "unknown key 'color_order'; did you mean colour_order?"),
        ("usual_size: 3", "unknown key 'usual_size'; "),
        ("size: 0", "size: Input should be greater than or equal to 1, got 0"),
        ("size: -224", "size: Input should be greater than or equal to 1, got -224"),
        ("size: 1000000", f"size: Input should be less than or equal to {MAX_SIZE}, got 1000000"),
        ("size: 224.5", "size: Input should be a valid integer, got 224.5"),
        ("size: true", "size: Input should be a valid integer, got True"),
        ("size: [224, 224]", "size: Input should be a valid integer, got [224, 224]"),
        ("crop_percent: 0", "crop_percent: "),
        ("crop_percent: 101", "crop_percent: Input should be less than or equal to 100, got 101"),
        ("crop_percent: .nan", "crop_percent: Input should be "),
        ("crop_percent: 0.001\nsize: 224", "crop_percent: 0.001 at size 224 resizes pictures to 2.24e+07 pixels"),
        ("short_side: 0", "short_side: Input should be greater than or equal to 1, got 0"),
        ("short_side: 1000000", f"short_side: Input should be less than or equal to {MAX_RESIZED}, got 1000000"),
        ("short_side: 223\nsize: 224", "short_side is 223, less than size 224, expected at least that"),
        ("crop_offset: ceil", "crop_offset: Input should be 'floor' or 'round', got 'ceil'"),
        ("crop_padding: -1", "crop_padding: "),
        ("mean: [1, 2]", "mean: got [1, 2], expected three finite numbers"),
        ("mean: [1, 2, 3, 4]", "mean: got [1, 2, 3, 4], expected three finite numbers"),
        ("mean: 127", "mean: got 127, expected three finite numbers"),
        ("mean: [1, x, 3]", "mean: got [1, 'x', 3], expected three finite numbers"),
        ("std: [1, .inf, 1]", "std: got [1, inf, 1], expected three finite numbers"),
        ("std: [1, 0, 1]", "std is (1.0, 0.0, 1.0), expected no zero in it"),
        ("std: [1, 1.0e-60, 1]", "mean and std: (value - mean) / std is beyond what float32 holds"),
        ("dtype: float16\nstd: [1, 0.001, 1]", "beyond what float16 holds"),
        (
            "mean: [0.485, 0.456, 0.406]\nstd: [0.229, 0.224, 0.225]",
            "parts of 1; expected levels of 255: mean: [123.675, 116.28, 103.53] and std: [58.395, 57.12, 57.375]",
        ),
        ("colour_order: GRB", "colour_order: Input should be 'RGB' or 'BGR', got 'GRB'"),
        ("layout: CHW", "layout: Input should be 'NCHW' or 'NHWC', got 'CHW'"),
        ("dtype: int8", "dtype: Input should be 'float32', 'float16' or 'uint8', got 'int8'"),
        ("dtype: uint8\nmean: [1, 2, 3]", "dtype uint8 with mean (1.0, 2.0, 3.0)"),
        ("classes: 1", "classes: Input should be greater than or equal to 2, got 1"),
        ("label_offset: one", "label_offset: Input should be a valid integer, got 'one'"),
        ("name: ../../up", "name: got '../../up', expected a name"),
        (
            "interpolation: nearest",
            "interpolation: Input should be 'area', 'linear', 'cubic', 'pillow-bilinear', 'pillow-bicubic' or ",
        ),
    ],
)
def test_a_wrong_key_is_one_line_with_file_and_key(tmp_path: Path, text: str, fragment: str) -> None:
    keep = "" if text.startswith("interpolation") else NEEDED
    path = written(tmp_path, (keep or "fit: resize-crop\n") + text)

    with pytest.raises(InputError) as refused:
        read_recipe(path)

    message = str(refused.value)
    assert str(path) in message
    assert fragment in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("text", "fragment"),
    [
        ("", "the key fit is missing; expected resize-crop, crop-resize, stretch or letterbox"),
        ("fit: resize-crop", "the key interpolation is missing; expected area, linear, cubic, pillow-bilinear, "),
        ("- fit", "got list, expected 'setting: value' lines"),
        ("1: 2", "expected 'setting: value' lines"),
        ("fit: [", "not a readable YAML file"),
        ("\x00", "not a readable YAML file"),
    ],
)
def test_a_file_that_is_no_recipe(tmp_path: Path, text: str, fragment: str) -> None:
    with pytest.raises(InputError) as refused:
        read_recipe(written(tmp_path, text))

    assert fragment in str(refused.value)
    assert "mine.yaml" in str(refused.value)


@pytest.mark.parametrize(
    ("word", "fragment"),
    [
        ("pytorsh", "unknown recipe 'pytorsh'; did you mean pytorch? known: centerface, dpt, efficientnet-lite0"),
        ("none.yaml", "none.yaml: no such file; --recipe takes a YAML file or one of efficientnet-lite0"),
        ("./none", "none: no such file; --recipe takes"),
        ("/", "not a readable YAML file"),
    ],
)
def test_a_word_that_is_no_recipe(word: str, fragment: str) -> None:
    with pytest.raises(InputError) as refused:
        find_recipe(word)

    assert fragment in str(refused.value)


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from(KEYS), _VALUES, max_size=4))
def test_whatever_a_file_says_is_a_recipe_or_one_line(
    tmp_path_factory: pytest.TempPathFactory, content: dict[str, object]
) -> None:
    path = tmp_path_factory.mktemp("recipe") / "any.yaml"
    path.write_text(yaml.safe_dump({"fit": "resize-crop", "interpolation": "area"} | content), encoding="utf-8")

    try:
        told = read_recipe(path)
    except InputError as error:
        assert str(path) in str(error)
        assert "\n" not in str(error)
    else:
        assert set(content) <= set(KEYS)
        assert told.size is None or 1 <= told.size <= MAX_SIZE
