"""Folders as exporters leave them, made by hand: the planted recipe comes out, or one line that says what is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sut.cli.options import Options, configs_of
from sut.config import model_stem
from sut.errors import InputError
from sut.models.folder import model_in, recipe_in
from sut.models.registry import for_file
from sut.studies.tuning.report import what_is_set
from tests.unit.small_models import quiet, write_means

PROCESSOR = "preprocessor_config.json"
IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
IMAGENET_LEVELS = ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
HALF = ((127.5,) * 3, (127.5,) * 3)
PIXELS = ((0.0,) * 3, (1.0,) * 3)
UNITS = ((0.0,) * 3, (255.0,) * 3)
CLIP_LEVELS = ((122.770938, 116.746013, 104.093666), (68.5005327, 66.6321579, 70.3231639))
TIMM = {"input_size": [3, 224, 224], "crop_pct": 0.95, "crop_mode": "center", "interpolation": "bicubic"}
WHOLE = {
    **{"image_processor_type": "NobodysImageProcessor", "do_resize": True, "size": {"height": 40, "width": 40}},
    **{"resample": 1, "do_center_crop": None, "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True},
    **IMAGENET,
}
"""All keys of a class that is not known."""


def of(kind: str, **keys: Any) -> dict[str, Any]:
    return {"image_processor_type": f"{kind}ImageProcessor", **keys}


def write(folder: Path, **files: Any) -> Path:
    """JSON files by the names ``processor`` and ``config``; a text stands as it is."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        path = folder / {"processor": PROCESSOR, "config": "config.json"}[name]
        path.write_text(content if isinstance(content, str) else json.dumps(content))
    return folder


PLANTED: dict[str, tuple[dict[str, Any], tuple[Any, ...], tuple[Any, ...]]] = {
    "ViT, size a number": (of("ViT", size=384), ("stretch", 384, None, "pillow-bilinear"), HALF),
    "ViT, size a map": (
        of("ViT", size={"height": 64, "width": 64}, resample=3, **IMAGENET),
        ("stretch", 64, None, "pillow-bicubic"),
        IMAGENET_LEVELS,
    ),
    "fast ViT, nulls": (
        of("ViT", crop_size=None, do_center_crop=None, do_pad=None, image_mean=None)
        | {"size": {"height": 32, "width": 32}},
        ("stretch", 32, None, "pillow-bilinear"),
        HALF,
    ),
    "no do_rescale": (of("ViT", do_rescale=False), ("stretch", 224, None, "pillow-bilinear"), ((0.5,) * 3, (0.5,) * 3)),
    "no do_normalize": (of("ViT", do_normalize=False), ("stretch", 224, None, "pillow-bilinear"), UNITS),
    "neither": (
        of("ViT", do_normalize=False, do_rescale=False),
        ("stretch", 224, None, "pillow-bilinear"),
        PIXELS,
    ),
    "another rescale_factor": (
        of("ViT", rescale_factor=1 / 127.5, image_mean=1, image_std=[1, 1, 0.5]),
        ("stretch", 224, None, "pillow-bilinear"),
        ((127.5,) * 3, (127.5, 127.5, 63.75)),
    ),
    "DeiT as its class has it": (of("DeiT"), ("stretch", 224, 256, "pillow-bicubic"), HALF),
    "BEiT without its crop": (
        of("Beit", size=224, do_center_crop=False),
        ("stretch", 224, None, "pillow-bicubic"),
        HALF,
    ),
    "CLIP as its class has it": (of("CLIP"), ("resize-crop", 224, 224, "pillow-bicubic"), CLIP_LEVELS),
    "CLIP, an old extractor": (
        {"feature_extractor_type": "CLIPFeatureExtractor", "size": 336, "crop_size": 300, "resample": 2, **IMAGENET},
        ("resize-crop", 300, 336, "pillow-bilinear"),
        IMAGENET_LEVELS,
    ),
    "CLIP, maps": (
        of("CLIP", size={"shortest_edge": 256}, crop_size={"height": 225, "width": 225}, do_convert_rgb=True),
        ("resize-crop", 225, 256, "pillow-bicubic"),
        CLIP_LEVELS,
    ),
    "ConvNeXt below 384": (of("ConvNext", size=224, resample=3), ("resize-crop", 224, 256, "pillow-bicubic"), HALF),
    "ConvNeXt, crop_pct told": (
        of("ConvNext", size={"shortest_edge": 288}, crop_pct=0.95),
        ("resize-crop", 288, 303, "pillow-bilinear"),
        HALF,
    ),
    "ConvNeXt at 384": (of("ConvNext", crop_pct=0.875), ("stretch", 384, None, "pillow-bilinear"), HALF),
    "MobileNetV1": (of("MobileNetV1"), ("resize-crop", 224, 256, "pillow-bilinear"), HALF),
    "EfficientNet": (
        of("EfficientNet", size=300, resample=3, image_std=[0.5, 0.25, 0.1]),
        ("stretch", 300, None, "pillow-bicubic"),
        ((127.5,) * 3, (63.75, 15.9375, 2.55)),
    ),
    "a class that is not known": (WHOLE, ("stretch", 40, None, "pillow-lanczos"), IMAGENET_LEVELS),
}


@pytest.mark.parametrize("what", PLANTED)
def test_what_image_processors_do(tmp_path: Path, what: str) -> None:
    content, (fit, size, short_side, interpolation), (mean, std) = PLANTED[what]

    told, _ = recipe_in(write(tmp_path / "vit", processor=content))

    assert (told.fit, told.size, told.short_side, told.interpolation) == (fit, size, short_side, interpolation)
    assert (told.mean, told.std) == (pytest.approx(mean), pytest.approx(std))
    assert (told.colour_order, told.crop_offset, told.classes) == ("RGB", "floor", None)


def test_channels_that_are_turned_round_after_they_were_normalised(tmp_path: Path) -> None:
    plain = of("MobileViT", size=288, crop_size=256)

    told, _ = recipe_in(write(tmp_path, processor=plain))
    normalised, _ = recipe_in(write(tmp_path, processor=plain | {"do_normalize": True, **IMAGENET}))

    assert (told.fit, told.size, told.short_side, told.colour_order) == ("resize-crop", 256, 288, "BGR")
    assert (told.mean, told.std) == UNITS
    assert (normalised.mean, normalised.std) == (IMAGENET_LEVELS[0][::-1], IMAGENET_LEVELS[1][::-1])


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({}, ("resize-crop", 224, 235, "pillow-bicubic", 123.675)),
        ({"crop_pct": None, "interpolation": "bilinear"}, ("resize-crop", 224, 256, "pillow-bilinear", 123.675)),
        ({"crop_mode": "squash", "crop_pct": 1.0}, ("stretch", 224, 224, "pillow-bicubic", 123.675)),
        ({"crop_mode": "squash", "interpolation": "lanczos"}, ("stretch", 224, 235, "pillow-lanczos", 123.675)),
        ({"input_size": [3, 288, 288], "mean": [0.5] * 3}, ("resize-crop", 288, 303, "pillow-bicubic", 127.5)),
    ],
)
def test_what_timm_does(tmp_path: Path, keys: dict[str, Any], expected: tuple[Any, ...]) -> None:
    config = {"architecture": "vit", "num_classes": 12, "pretrained_cfg": TIMM | keys}

    told, source = recipe_in(write(tmp_path, config=config))

    assert (told.fit, told.size, told.short_side, told.interpolation, told.mean[0]) == expected
    assert (told.name, told.crop_offset, told.classes) == ("timm", "round", 12)
    assert source.startswith(" from config.json (pretrained_cfg: ")
    assert source.endswith("classes from config.json num_classes, size from config.json")


def test_timm_as_transformers_wraps_it(tmp_path: Path) -> None:
    wrapped = of("TimmWrapper", pretrained_cfg=TIMM)

    assert (
        recipe_in(write(tmp_path / "one", processor=wrapped))[0]
        == recipe_in(write(tmp_path / "two", config={"pretrained_cfg": TIMM}))[0]
    )


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (None, (None, "the model's file")),
        ({"architectures": ["X"]}, (None, "the model's file")),
        ({"id2label": {"0": "cat", "1": "dog", "2": "bird"}}, (3, "config.json id2label")),
        ({"id2label": {"0": "a", "1": "b"}, "num_labels": 2}, (2, "config.json id2label")),
        ({"num_labels": 7}, (7, "config.json num_labels")),
        ({"label_names": ["a", "b"]}, (2, "config.json label_names")),
    ],
)
def test_what_tells_the_classes(tmp_path: Path, config: Any, expected: tuple[Any, str]) -> None:
    told, source = recipe_in(write(tmp_path, processor=of("ViT"), **({"config": config} if config else {})))

    assert (told.classes, source) == (
        expected[0],
        f" from {PROCESSOR} (resample 2 = pillow-bilinear, height and width 224), classes from {expected[1]}, "
        f"size from {PROCESSOR}",
    )


REFUSED: list[tuple[dict[str, Any] | str, str]] = [
    (of("ViT", resample=0), "resample 0 (nearest) cannot be expressed; nearest: pillow-bilinear, with --recipe FILE"),
    (of("EfficientNet"), "resample 0 (nearest) cannot be expressed"),
    (of("ViT", resample=4), "resample 4 (box) cannot be expressed"),
    (of("ViT", resample=5), "resample 5 (hamming) cannot be expressed"),
    (of("ViT", resample=None) | {"resample": True}, "resample true cannot be expressed"),
    (of("ViT", size={"longest_edge": 512}), 'size {"longest_edge": 512} cannot be expressed; nearest: fit letterbox'),
    (of("CLIP", size={"shortest_edge": 800, "longest_edge": 1333}), "cannot be expressed; nearest: fit letterbox"),
    (of("ViT", size={"height": 224, "width": 192}), "cannot be expressed; nearest: as many pixels high as wide"),
    (of("ViT", size={"shortest_edge": 224}), "nearest: do_center_crop true with crop_size 224"),
    (of("ViT", do_pad=True), "do_pad true cannot be expressed; nearest: fit letterbox"),
    (of("ViT", do_grayscale=True), "do_grayscale true cannot be expressed; nearest: the same without do_grayscale"),
    (of("EfficientNet", resample=2, rescale_offset=True), "rescale_offset true cannot be expressed"),
    (of("ViT", do_resize=False), "do_resize false cannot be expressed; nearest: fit stretch"),
    (of("MobileViT"), "crop_size 256 cannot be expressed; nearest: 224, all that is there"),
    (of("PoolFormer", **WHOLE | {"crop_pct": 0.9}) | {"image_processor_type": "Pool"}, "crop_pct 0.9 cannot be expr"),
    (of("ConvNext", do_center_crop=True), "do_center_crop true cannot be expressed"),
    (of("ConvNext", crop_pct=0), "crop_pct is 0, expected a number over 0.01, at most 1"),
    (of("ViT", size="large"), "size is large, expected 1 to 8192 pixels, or a map of them"),
    (of("ViT", size=10**9), "size is 1000000000, expected 1 to 8192 pixels"),
    (of("ViT", size=True), "size is true, expected 1 to 8192 pixels"),
    (of("ViT", size=5000), "size: Input should be less than or equal to 4096, got 5000"),
    (of("ViT", do_rescale="yes"), "do_rescale is yes, expected true or false"),
    (of("ViT", rescale_factor=0), "rescale_factor is 0, expected a number over 0"),
    (of("ViT", image_mean=[0.5]), "image_mean is [0.5], expected a number, or three"),
    (of("ViT", image_std=0), "std is (0.0, 0.0, 0.0), expected no zero in it"),
    ('{"image_processor_type": "ViTImageProcessor", "image_mean": NaN}', "image_mean is NaN, expected a number"),
    ('{"image_processor_type": "ViTImageProcessor", "image_std": 1e999}', "image_std is Infinity, expected a number"),
    ('{"image_processor_type": "ViTImageProcessor", "rescale_factor": 5e-324}', "Input should be a finite number"),
    (of("Nobodys"), "the key size is missing, which is known of the classes ViT, DeiT, Beit,"),
    ({key: value for key, value in WHOLE.items() if key != "do_center_crop"}, "the key do_center_crop is missing"),
    ({key: value for key, value in WHOLE.items() if key != "image_std"}, "the key image_std is missing"),
    (WHOLE | {"size": 40}, "size 40 cannot be expressed; nearest: height and width, or shortest_edge"),
    ({}, "the key size is missing"),
    ("[1, 2]", "got [1, 2], expected a JSON object"),
    ('{"size": 224', "not a readable JSON file (Expecting ',' delimiter"),
    ("", "not a readable JSON file"),
    ("[" * 100_000, "not a readable JSON file"),
    ('{"size": ' + "9" * 5000 + "}", "not a readable JSON file"),
    (" " * (2**25 + 1), "not a readable JSON file (More than 33,554,432 bytes)"),
]


@pytest.mark.parametrize(("content", "fragment"), REFUSED, ids=[fragment for _, fragment in REFUSED])
def test_what_cannot_be_expressed_or_read_is_one_line(
    tmp_path: Path, content: dict[str, Any] | str, fragment: str
) -> None:
    with pytest.raises(InputError) as refused:
        recipe_in(write(tmp_path, processor=content))

    message = str(refused.value)
    assert message.startswith(f"{tmp_path / PROCESSOR}: ")
    assert fragment in message
    assert "\n" not in message
    assert "--recipe FILE" in message or "expected" in message or "should" in message


@pytest.mark.parametrize(
    ("keys", "fragment"),
    [
        ({"crop_mode": "border"}, "crop_mode border cannot be expressed; nearest: fit letterbox"),
        ({"interpolation": "random"}, "interpolation random cannot be expressed; nearest: pillow-bilinear"),
        ({"interpolation": "nearest"}, "interpolation nearest cannot be expressed"),
        ({"input_size": [1, 28, 28]}, "input_size [1, 28, 28] cannot be expressed; nearest: [3, size, size]"),
        ({"input_size": [3, 224, 192]}, "input_size [3, 224, 192] cannot be expressed"),
        ({"input_size": 224}, "input_size 224 cannot be expressed"),
        ({"input_size": [3, 0, 0]}, "size: Input should be greater than or equal to 1, got 0"),
        ({"crop_pct": 1.5}, "crop_pct is 1.5, expected a number over 0.01, at most 1"),
        ({"mean": "imagenet"}, "mean is imagenet, expected a number, or three"),
    ],
)
def test_what_of_timm_cannot_be_expressed(tmp_path: Path, keys: dict[str, Any], fragment: str) -> None:
    with pytest.raises(InputError) as refused:
        recipe_in(write(tmp_path, config={"pretrained_cfg": TIMM | keys}))

    assert fragment in str(refused.value)


def test_two_files_must_agree(tmp_path: Path) -> None:
    write(tmp_path, processor=of("ViT", resample=3), config={"id2label": {"0": "a", "1": "b"}})
    write(tmp_path / "onnx", processor=of("ViT", resample=3), config={"num_labels": 2})
    assert recipe_in(tmp_path)[0].classes == 2

    write(tmp_path / "onnx", processor=of("ViT", resample=2, size=32))
    with pytest.raises(
        InputError, match=f"{PROCESSOR} and onnx/{PROCESSOR} disagree on interpolation, size; remove one"
    ):
        recipe_in(tmp_path)

    write(tmp_path / "onnx", processor=of("ViT", resample=3), config={"num_labels": 3})
    with pytest.raises(InputError, match=r"number of classes: config.json id2label 2, onnx/config.json num_labels 3"):
        recipe_in(tmp_path)


@pytest.mark.parametrize("count", [0, 1, "two", True, {}])
def test_a_number_of_classes_that_is_none(tmp_path: Path, count: Any) -> None:
    with pytest.raises(InputError, match=r"config.json: num_classes tells .* classes, expected 2 to"):
        recipe_in(write(tmp_path, config={"num_classes": count, "pretrained_cfg": TIMM}))


def test_which_file_is_the_model(tmp_path: Path) -> None:
    (tmp_path / "onnx").mkdir()
    with pytest.raises(InputError, match=r"has no \.onnx file, nor has its onnx/"):
        model_in(tmp_path)

    (tmp_path / "onnx" / "model.onnx").touch()
    assert model_in(tmp_path) == tmp_path / "onnx" / "model.onnx"

    (tmp_path / "model_fp16.onnx").touch()
    with pytest.raises(InputError) as refused:
        model_in(tmp_path)
    assert str(refused.value) == (
        f"folder {tmp_path} has 2 models (model_fp16.onnx, onnx/model.onnx); give the file, as --model "
        f"{tmp_path}/model_fp16.onnx --recipe {tmp_path}/"
    )


def test_a_folder_is_a_model_by_its_name(tmp_path: Path) -> None:
    folder = write(tmp_path / "cats.v2", processor=of("ViT", size=64), config={"num_labels": 9})
    path = write_means(folder / "model.onnx", axes=("n", "c", "h", "w"), classes="k")
    said: list[str] = []

    spec = for_file(folder, None, say=said.append)

    assert (spec.name, spec.classes, spec.recipe.layout, spec.recipe.size) == ("cats.v2", 9, "NCHW", 64)
    assert spec.build("trained", quiet) == path
    assert said == [
        "model.onnx as cats.v2: input images float32 NCHW, 64 pixels; 9 classes, label_offset 0; recipe "
        f"ViTImageProcessor from {PROCESSOR} (resample 2 = pillow-bilinear, height and width 64), classes from "
        f"config.json num_labels, size from {PROCESSOR}"
    ]
    assert for_file(folder, "dogs").name == "dogs"
    assert for_file(path, None, f"{folder}/").recipe == spec.recipe


def test_a_recipe_of_its_own_is_taken_where_the_folders_cannot_be_expressed(tmp_path: Path) -> None:
    write(tmp_path, processor=of("ViT", resample=0), config="no JSON at all")
    write_means(tmp_path / "model.onnx")

    assert for_file(tmp_path, "mine", "pytorch").recipe.name == "pytorch"


@pytest.mark.parametrize(
    ("model", "fragment"),
    [
        ({"axes": ("n", 3, 32, 32)}, "ViTImageProcessor has size 64, expected 32"),
        ({"axes": ("n", 3, 64, 64), "classes": 10}, "the recipe ViTImageProcessor has classes 9"),
        ({"axes": ("n", 3, 64, 64), "dtype": "uint8"}, "normalises by itself"),
    ],
)
def test_the_model_must_agree(tmp_path: Path, model: dict[str, Any], fragment: str) -> None:
    write(tmp_path, processor=of("ViT", size=64), config={"num_labels": 9})
    write_means(tmp_path / "model.onnx", **model)

    with pytest.raises(InputError) as refused:
        for_file(tmp_path, None)

    assert fragment in str(refused.value)
    assert f"; recipe from {PROCESSOR} (" in str(refused.value)
    assert str(refused.value).endswith(f"size from {PROCESSOR}: --recipe FILE overrides it")


def test_a_folder_that_tells_no_recipe(tmp_path: Path) -> None:
    write_means(write(tmp_path, config={"num_labels": 9}) / "model.onnx")

    with pytest.raises(InputError, match=f"has no {PROCESSOR}, nor a config.json with a pretrained_cfg: say how"):
        for_file(tmp_path, None)


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("vit", "./vit"),
        ("vit/", "vit/"),
        ("resnet50", "resnet50"),
        ("ResNet50", "ResNet50"),
        ("./resnet50", "./resnet50"),
        ("nothing", "nothing"),
        ("model.onnx", "model.onnx"),
    ],
)
def test_a_known_name_is_the_model_and_any_other_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, word: str, expected: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("vit", "resnet50", "ResNet50"):
        Path(name).mkdir()

    [config] = configs_of(Options(settings={"model": word}))

    assert (config.model, config.is_file) == (expected, "/" in expected or expected.endswith(".onnx"))


def test_a_folder_has_a_short_name_and_a_whole_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("cats.v2").mkdir()

    [config] = configs_of(Options(settings={"model": "cats.v2"}))

    assert model_stem(config.model) == "cats.v2"
    assert what_is_set(config)["model"] == str(tmp_path / "cats.v2")
