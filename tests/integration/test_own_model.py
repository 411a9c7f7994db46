"""Strangers' classifiers from end to end: Lite0's trained network in other clothes, which must get all photos right."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import openvino
import pytest
from onnx import TensorProto, helper, numpy_helper

from sut.models.registry import find
from sut.models.sources.yolo11 import build_yolo11
from tests.children import CHECKOUT, Finished, results, run_sut
from tests.unit.odd_models import RECIPE, write_odd
from tests.unit.small_models import write_classifier, write_means

SIZE = 224
LITE = "fit: crop-resize\ninterpolation: cubic\n"
NORMALISED = LITE + "mean: [127, 127, 127]\nstd: [128, 128, 128]\n"
IMAGENET_RECIPE = CHECKOUT / "configs" / "recipes" / "imagenet-pytorch.yaml"
TYPES = {"float32": TensorProto.FLOAT, "float16": TensorProto.FLOAT16, "uint8": TensorProto.UINT8}


@pytest.fixture(scope="module")
def lite0(tmp_path_factory: pytest.TempPathFactory) -> Iterator[onnx.ModelProto]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SUT_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        yield onnx.load(find("efficientnet-lite0").build("trained", lambda line: None))


class Clothes:
    """Nodes around the network: in front of its float32 NCHW input ``images``, and behind its output ``logits``."""

    def __init__(self, network: onnx.ModelProto) -> None:
        self.model = onnx.ModelProto()
        self.model.CopyFrom(network)
        self._front: list[onnx.NodeProto] = []
        self._at = "picture"

    def then(self, operator: str, *constants: np.ndarray, **attributes: object) -> Clothes:
        """One more node in front of the network."""
        inputs = [self._at, *(self._constant(values) for values in constants)]
        self._at = f"front{len(self._front)}"
        self._front.append(helper.make_node(operator, inputs, [self._at], **attributes))
        return self

    def _constant(self, values: np.ndarray) -> str:
        name = f"constant{len(self.model.graph.initializer)}"
        self.model.graph.initializer.append(numpy_helper.from_array(values, name))
        return name

    def behind(self, operator: str, *constants: np.ndarray, first: bool = False, **attributes: object) -> Clothes:
        """A node behind the network, whose output becomes the only one; ``first`` puts its constants before it."""
        names = [self._constant(values) for values in constants]
        inputs = [*names, "logits"] if first else ["logits", *names]
        self.model.graph.node.append(helper.make_node(operator, inputs, ["answer"], **attributes))
        return self

    def save(self, path: Path, dtype: str, shape: list[int | str], output: tuple[int, list[int | str]] | None) -> None:
        """Write the file; ``output`` is type and shape of what ``behind`` added."""
        graph = self.model.graph
        nodes = [*self._front, helper.make_node("Identity", [self._at], ["images"]), *graph.node]
        del graph.node[:], graph.input[:]
        graph.node.extend(nodes)
        graph.input.append(helper.make_tensor_value_info("picture", TYPES[dtype], shape))
        if output is not None:
            del graph.output[:]
            graph.output.append(helper.make_tensor_value_info("answer", *output))
        elif isinstance(shape[0], int):
            graph.output[0].type.tensor_type.shape.dim[0].dim_value = shape[0]
        onnx.checker.check_model(self.model)
        path.write_bytes(self.model.SerializeToString())


def _uint8_nhwc(clothes: Clothes, path: Path, batch: int | str) -> None:
    clothes.then("Cast", to=TensorProto.FLOAT).then("Sub", np.float32([127])).then("Div", np.float32([128]))
    clothes.then("Transpose", perm=[0, 3, 1, 2]).save(path, "uint8", [batch, SIZE, SIZE, 3], None)


def _float16_nchw(clothes: Clothes, path: Path) -> None:
    clothes.then("Cast", to=TensorProto.FLOAT).save(path, "float16", [1, 3, SIZE, SIZE], None)


def _softmax_nhwc(clothes: Clothes, path: Path) -> None:
    clothes.then("Transpose", perm=[0, 3, 1, 2]).behind("Softmax", axis=1)
    clothes.save(path, "float32", ["n", SIZE, SIZE, 3], (TensorProto.FLOAT, ["n", 1000]))


def _with_background(clothes: Clothes, path: Path) -> None:
    clothes.behind("Concat", np.full((1, 1), -1e9, np.float32), first=True, axis=1)
    clothes.save(path, "float32", [1, 3, SIZE, SIZE], (TensorProto.FLOAT, [1, 1001]))


def _labels_only(clothes: Clothes, path: Path) -> None:
    clothes.behind("ArgMax", axis=1, keepdims=0)
    clothes.save(path, "float32", ["n", 3, SIZE, SIZE], (TensorProto.INT64, ["n"]))


def _bgr(clothes: Clothes, path: Path) -> None:
    clothes.then("Gather", np.int64([2, 1, 0]), axis=1).save(path, "float32", ["n", 3, SIZE, SIZE], None)


def _of_any_size(clothes: Clothes, path: Path) -> None:
    clothes.save(path, "float32", ["n", 3, "height", "width"], None)


STRANGERS: Mapping[str, tuple[Any, str, dict[str, Any]]] = {
    "uint8 NHWC, batch 4": (lambda *told: _uint8_nhwc(*told, 4), LITE, {"batches": {"4"}, "padded": 1}),
    "uint8 NHWC, any batch": (lambda *told: _uint8_nhwc(*told, "n"), LITE, {}),
    "float16 NCHW, batch 1": (_float16_nchw, NORMALISED, {"batches": {"1"}, "padded": 0}),
    "softmax, NHWC": (_softmax_nhwc, NORMALISED, {}),
    "1001 classes": (_with_background, NORMALISED, {"batches": {"1"}, "padded": 0}),
    "labels only": (_labels_only, NORMALISED + "classes: 1000\n", {}),
    "BGR": (_bgr, NORMALISED + "colour_order: BGR\n", {}),
    "any size": (_of_any_size, NORMALISED + "size: 224\n", {}),
}


def run_own(tmp_path: Path, recipe: str | Path, *more: str) -> Finished:
    return run_sut("--model", "stranger.onnx", "--recipe", recipe, "--accuracy", *more, cwd=tmp_path)


@pytest.mark.first(3)
@pytest.mark.parametrize("who", STRANGERS)
def test_a_strangers_model_gets_all_photos_right(tmp_path: Path, lite0: onnx.ModelProto, who: str) -> None:
    dress, recipe, expected = STRANGERS[who]
    dress(Clothes(lite0), tmp_path / "stranger.onnx")
    (tmp_path / "recipe.yaml").write_text(recipe)

    done = run_own(tmp_path, "recipe.yaml")

    assert done.code == 0, done.err
    result = results(tmp_path)["Offline", "accuracy"]
    assert (result["accuracy"]["value"], result["accuracy"]["count"]) == (1.0, 11)
    assert result["model"] == "stranger"
    assert not any("near chance" in note for note in result["notes"])
    if expected:
        # The last of three batches of four has three pictures; a size of one needs no padding.
        assert result["padded_samples"] == expected["padded"]
        assert set(result["batch_sizes"]) <= {"3", *expected["batches"]}


@pytest.mark.slow
def test_a_name_keeps_its_umlauts(tmp_path: Path) -> None:
    write_classifier(tmp_path / "Gro\u0308ße.onnx")
    (tmp_path / "mine.yaml").write_text(LITE)
    options = ("--recipe", "mine.yaml", "--scenario", "Offline", "--time", "0.1", "--json")

    own = run_sut("--model", "Gro\u0308ße.onnx", *options, cwd=tmp_path, LC_ALL="C")
    named = run_sut("--model", "Gro\u0308ße.onnx", "--model-name", "Öl+ग", *options, cwd=tmp_path, LC_ALL="C")

    assert [json.loads(each.out)["rows"][0]["model"] for each in (own, named)] == ["Größe", "Öl+ग"]
    assert sorted(each.name for each in (tmp_path / "output").iterdir()) == ["Größe", "Öl+ग"]


def test_a_folder_in_hugging_faces_layout_runs_as_its_files_say(tmp_path: Path) -> None:
    folder = tmp_path / "red-or-blue"
    (folder / "onnx").mkdir(parents=True)
    write_means(folder / "onnx" / "model.onnx", axes=("batch", 3, 32, 32), classes=3)
    processor = {"size": {"shortest_edge": 36}, "crop_size": 32, "image_processor_type": "MobileViTImageProcessor"}
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    (folder / "config.json").write_text(json.dumps({"id2label": {"0": "blue", "1": "green", "2": "red"}}))
    picture = np.zeros((48, 144, 3), np.uint8)
    picture[:, :, 0] = 255
    picture[:, 48:96] = 0, 0, 255  # BGR: red in the middle, which is all that the crop leaves
    for number in range(4):
        cv2.imwrite(str(tmp_path / f"{number}.png"), picture)
    (tmp_path / "val_map.txt").write_text("".join(f"{number}.png 2\n" for number in range(4)))

    options = ("--dataset", "imagenet", "--dataset-path", tmp_path, "--accuracy")
    done = run_sut("--model", "red-or-blue", *options, cwd=tmp_path)

    assert done.code == 0, done.err
    assert (
        "model.onnx as red-or-blue: input images float32 NCHW, 32 pixels; 3 classes, label_offset 0; recipe "
        "MobileViTImageProcessor from preprocessor_config.json (resample 2 = pillow-bilinear, shortest_edge 36, crop "
        "32), classes from config.json id2label, size from preprocessor_config.json\n"
    ) in done.err
    result = results(tmp_path)["Offline", "accuracy"]
    assert (result["model"], result["accuracy"]["value"], result["accuracy"]["count"]) == ("red-or-blue", 1.0, 4)
    planted = {"fit": "resize-crop", "short_side": 36, "size": 32, "interpolation": "pillow-bilinear"}
    planted |= {"colour_order": "BGR", "mean": [0.0] * 3, "std": [255.0] * 3, "crop_offset": "floor"}
    assert {key: result["recipe"][key] for key in planted} == planted


def test_a_folder_that_cannot_be_expressed_is_one_line(tmp_path: Path) -> None:
    write_means(tmp_path / "model.onnx")
    processor = {"image_processor_type": "EfficientNetImageProcessor", "size": 32}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(processor))

    done = run_sut("--model", ".", cwd=tmp_path)

    assert (done.code, done.out) == (1, "")
    assert done.err == (
        "error: preprocessor_config.json: resample 0 (nearest) cannot be expressed; nearest: pillow-bilinear, with "
        "--recipe FILE\n"
    )


def test_openvinos_own_file_gets_all_photos_right(tmp_path: Path, lite0: onnx.ModelProto) -> None:
    network = openvino.Core().read_model(lite0.SerializeToString(), b"")
    openvino.save_model(network, tmp_path / "stranger.xml", compress_to_fp16=True)
    (tmp_path / "recipe.yaml").write_text(NORMALISED)

    done = run_sut(
        *("--backend", "openvino", "--model", "stranger.xml", "--recipe", "recipe.yaml", "--accuracy"), cwd=tmp_path
    )

    assert done.code == 0, done.err
    result = results(tmp_path)["Offline", "accuracy"]
    assert (result["accuracy"]["value"], result["accuracy"]["count"]) == (1.0, 11)
    assert (result["model"], result["weights"]) == ("stranger", "unknown")
    assert result["precision"] == result["attested"]["precision"] == "fp32"
    assert list(result["loaded_sha256"]) == ["stranger.xml", "stranger.bin"]


def test_scores_behind_the_labels_of_openvinos_own_file_are_looked_at(tmp_path: Path) -> None:
    write_odd(tmp_path / "odd.onnx", "nan behind argmax")
    openvino.save_model(openvino.Core().read_model(tmp_path / "odd.onnx"), tmp_path / "odd.xml")
    (tmp_path / "recipe.yaml").write_text(RECIPE)

    done = run_sut(
        *("--backend", "openvino", "--model", "odd.xml", "--recipe", "recipe.yaml", "--time", "0.2"), cwd=tmp_path
    )

    assert done.code == 3
    assert "the scores behind labels are not finite (NaN or inf in spoilt)" in done.err


@pytest.mark.slow
@pytest.mark.parametrize("scenario", ["SingleStream", "MultiStream", "Server"])
def test_a_fixed_batch_is_padded_in_every_scenario(tmp_path: Path, lite0: onnx.ModelProto, scenario: str) -> None:
    _uint8_nhwc(Clothes(lite0), tmp_path / "stranger.onnx", 4)
    (tmp_path / "recipe.yaml").write_text(LITE)

    done = run_own(tmp_path, "recipe.yaml", "--scenario", scenario)

    assert done.code == 0, done.err
    result = results(tmp_path)[scenario, "accuracy"]
    assert result["accuracy"]["value"] == 1.0
    if scenario == "SingleStream":
        assert result["padded_samples"] == 3 * 11


def test_a_model_with_imagenet_mean_and_std_runs_from_the_documented_recipe(
    tmp_path: Path, lite0: onnx.ModelProto
) -> None:
    mean, std = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])
    clothes = Clothes(lite0)
    clothes.then("Mul", (255 * std).reshape(3, 1, 1)).then("Add", (255 * mean).reshape(3, 1, 1))
    clothes.then("Sub", np.float32([127])).then("Div", np.float32([128]))
    clothes.save(tmp_path / "stranger.onnx", "float32", ["n", 3, SIZE, SIZE], None)

    done = run_own(tmp_path, IMAGENET_RECIPE, "--model-name", "MobileNetV2")

    assert done.code == 0, done.err
    assert "NCHW, 224 pixels; 1000 classes, label_offset 0; recipe imagenet-pytorch" in done.err
    result = results(tmp_path)["Offline", "accuracy"]
    assert result["model"] == "MobileNetV2"
    # Lite0 was trained on cubic pictures, the recipe makes linear ones.
    assert result["accuracy"]["value"] >= 9 / 11


def test_the_documentation_shows_the_recipe_as_it_is() -> None:
    page = (CHECKOUT / "docs" / "own_model.md").read_text()
    recipe = IMAGENET_RECIPE.read_text()

    assert recipe in page
    assert len(recipe.splitlines()) <= 10


@pytest.mark.first(1)
@pytest.mark.parametrize("slip", ["label_offset: 1\n", "label_offset: -1\n"])
def test_a_wrong_offset_is_suspected(tmp_path: Path, lite0: onnx.ModelProto, slip: str) -> None:
    _of_any_size(Clothes(lite0), tmp_path / "stranger.onnx")
    (tmp_path / "recipe.yaml").write_text(NORMALISED + "size: 224\n" + slip)

    done = run_own(tmp_path, "recipe.yaml")

    assert done.code == 0, done.err
    result = results(tmp_path)["Offline", "accuracy"]
    assert result["accuracy"]["value"] == 0.0
    [note] = [note for note in result["notes"] if "near chance" in note]
    assert all(word in note for word in ("label_offset", "colour_order", "recipe"))
    assert f"Offline accuracy: {note}" in done.err


def test_labels_beyond_the_models_classes_are_refused_in_accuracy_mode_only(tmp_path: Path) -> None:
    write_means(tmp_path / "stranger.onnx", classes=5)

    refused = run_own(tmp_path, "pytorch")
    ran = run_sut("--model", "stranger.onnx", "--recipe", "pytorch", "--time", "0.3", cwd=tmp_path)

    assert refused.code == 1
    assert "but stranger answers 0 to 4 (5 classes, label_offset 0)" in refused.err
    assert ran.code == 0, ran.err


THESIS = (
    *("--backend", "onnxruntime", "--model", "resnet50", "--device", "gpu", "--accuracy", "--time", "60"),
    *("--scenario", "SingleStream", "--qps", "10000", "--max-latency", "0.2", "--max-batchsize", "32"),
)


@pytest.mark.skipif(Path("/proc/driver/nvidia/version").exists(), reason="there is a GPU here")
@pytest.mark.parametrize("arguments", [THESIS, tuple(word for word in THESIS if word != "--accuracy")])
def test_a_gpu_that_is_not_there_is_told_before_a_model_that_is_not(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    done = run_sut(*arguments, cwd=tmp_path)

    assert done.code == 2
    [line] = done.err.splitlines()
    assert line.startswith("error: onnxruntime has no device 'cuda' here")
    assert "no NVIDIA driver (libcuda.so.1 does not load): install one" in line
    assert "onnxruntime-gpu" in line
    assert "MODEL_DIR" not in line
    assert not (tmp_path / "output").exists()


def test_a_known_model_takes_no_recipe(tmp_path: Path) -> None:
    done = run_sut("--model", "efficientnet-lite0", "--recipe", "pytorch", cwd=tmp_path)

    assert done.code == 1
    assert "--recipe pytorch is for a file (--model my.onnx); efficientnet-lite0 has its own" in done.err


@pytest.mark.slow
def test_an_export_of_a_detector_runs_without_a_recipe(tmp_path: Path) -> None:
    build_yolo11(tmp_path / "mine.onnx", depth=0.5, width=0.25, size=320, classes=80, seed=11)

    # More than it can do: Offline is VALID then, however much faster the machine is in the run than before it.
    offline = ("--scenario", "Offline", "--time", "0.1", "--qps", "300")

    done = run_sut("--model", tmp_path / "mine.onnx", *offline, cwd=tmp_path)

    assert done.code == 0, done.err
    assert "mine.onnx as mine: input images float32 NCHW, 320 pixels; detection by output0 (yolo), 80 cl" in done.err
    assert "guessed from the outputs output0 float32 [?, 84, 2100]" in done.err
    found = results(tmp_path)["Offline", "performance"]
    assert (found["valid"], found["failed_samples"], found["weights"]) == (True, 0, "unknown")
    assert found["stages_ns"]["postprocess"]["p50"] > 0
