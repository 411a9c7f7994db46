"""Folding: the same scores from the pixels as from preprocessed samples, and one line where that cannot be."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import onnxruntime
import pytest

from preprocess.base import Recipe
from sut.errors import InputError
from sut.models.files import check_onnx
from sut.models.precision.calibration import preprocessed
from sut.models.precision.fold import fold
from tests.unit.small_models import CLASSES, RECIPE, SIZE, pictures, quiet, write_classifier

pytestmark = pytest.mark.usefixtures("cache")


def run(path: Path, samples: np.ndarray) -> Any:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: samples})


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize(
    ("mean", "std"),
    [
        ((127.0, 120.0, 110.0), (128.0, 64.0, 77.0)),
        ((123.68, 116.78, 103.94), (1.0, 1.0, 1.0)),
        ((0.0, 0.0, 0.0), (255.0, 255.0, 255.0)),
        ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    ],
)
@pytest.mark.parametrize("colour_order", ["RGB", "BGR"])
def test_the_folded_model_gives_the_same_scores_bit_for_bit(
    tmp_path: Path,
    layout: Literal["NCHW", "NHWC"],
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
    colour_order: Literal["RGB", "BGR"],
) -> None:
    recipe = replace(RECIPE, layout=layout, mean=mean, std=std, colour_order=colour_order)
    model = write_classifier(tmp_path / "small.onnx", layout=layout)

    path, left = fold(model, recipe, quiet)

    samples, pixels = preprocessed(pictures(40), 40, recipe), preprocessed(pictures(40), 40, left)
    assert pixels.dtype == np.uint8 and pixels.shape == (40, SIZE, SIZE, 3)
    [expected], [got] = run(model, samples), run(path, pixels)
    assert expected.std(0).max() > 0.01
    np.testing.assert_array_equal(got, expected)


def test_the_folded_file_takes_pixels_and_is_valid(tmp_path: Path) -> None:
    path, left = fold(write_classifier(tmp_path / "small.onnx"), RECIPE, quiet)

    info = check_onnx(path)
    onnx.checker.check_model(onnx.load(path), full_check=True)
    [image], [scores] = info.inputs, info.outputs
    assert (image.name, image.dtype, image.shape) == ("images.pixels", "uint8", (None, SIZE, SIZE, 3))
    assert (scores.name, scores.shape) == ("scores", (None, CLASSES))
    assert onnx.load(path).graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    assert left == replace(RECIPE, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), layout="NHWC", dtype="uint8")


def test_a_fixed_batch_stays(tmp_path: Path) -> None:
    path, _ = fold(write_classifier(tmp_path / "small.onnx", batch=4), RECIPE, quiet)

    assert check_onnx(path).inputs[0].shape == (4, SIZE, SIZE, 3)


def test_open_axes_take_the_size_of_the_recipe(tmp_path: Path) -> None:
    model = onnx.load(write_classifier(tmp_path / "small.onnx"))
    for axis in (2, 3):
        model.graph.input[0].type.tensor_type.shape.dim[axis].dim_param = f"axis{axis}"
    onnx.save(model, tmp_path / "open.onnx")

    path, _ = fold(tmp_path / "open.onnx", RECIPE, quiet)

    assert check_onnx(path).inputs[0].shape == (None, SIZE, SIZE, 3)


def test_a_file_that_lists_its_weights_among_its_inputs_folds(tmp_path: Path) -> None:
    model = onnx.load(write_classifier(tmp_path / "small.onnx"))
    for tensor in model.graph.initializer:
        model.graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    model.ir_version = 3
    onnx.save(model, tmp_path / "old.onnx")

    path, left = fold(tmp_path / "old.onnx", RECIPE, quiet)

    samples, pixels = preprocessed(pictures(2), 2, RECIPE), preprocessed(pictures(2), 2, left)
    np.testing.assert_array_equal(run(path, pixels)[0], run(tmp_path / "old.onnx", samples)[0])


def test_an_input_that_is_an_output_too_stays_what_it_was(tmp_path: Path) -> None:
    model = write_classifier(tmp_path / "small.onnx", extra_output=True)

    path, left = fold(model, RECIPE, quiet)

    samples, pixels = preprocessed(pictures(2), 2, RECIPE), preprocessed(pictures(2), 2, left)
    np.testing.assert_array_equal(run(path, pixels)[1], samples)


def test_weights_in_another_file_come_along(tmp_path: Path) -> None:
    model = onnx.load(write_classifier(tmp_path / "small.onnx"))
    onnx.save(model, tmp_path / "split.onnx", save_as_external_data=True, location="split.bin", size_threshold=0)

    path, left = fold(tmp_path / "split.onnx", RECIPE, quiet)

    samples, pixels = preprocessed(pictures(2), 2, RECIPE), preprocessed(pictures(2), 2, left)
    np.testing.assert_array_equal(run(path, pixels)[0], run(tmp_path / "small.onnx", samples)[0])


def test_folding_is_done_once_per_content_and_recipe(tmp_path: Path) -> None:
    said: list[str] = []
    model = write_classifier(tmp_path / "small.onnx")
    copy = tmp_path / "elsewhere" / "small.onnx"
    copy.parent.mkdir()
    copy.write_bytes(model.read_bytes())

    first, again = fold(model, RECIPE, said.append)[0], fold(copy, RECIPE, said.append)[0]
    other = fold(model, replace(RECIPE, mean=(1.0, 2.0, 3.0)), said.append)[0]
    changed = fold(write_classifier(copy, weight_name="other"), RECIPE, said.append)[0]

    assert first == again
    assert len({first, other, changed}) == len(said) == 3


def clash(path: Path) -> Path:
    return write_classifier(path, weight_name="images.fold1")


def vector(path: Path) -> Path:
    model = onnx.load(write_classifier(path))
    del model.graph.input[0].type.tensor_type.shape.dim[3:]
    onnx.save(model, path)
    return path


def old_operators(path: Path) -> Path:
    model = onnx.load(write_classifier(path))
    model.opset_import[0].version = 6
    onnx.save(model, path)
    return path


@pytest.mark.parametrize(
    ("write", "recipe", "said"),
    [
        (lambda path: write_classifier(path, dtype="float16"), RECIPE, r"images float16 .*, expected one float32 \[ba"),
        (write_classifier, replace(RECIPE, dtype="float16"), r"expected one float32"),
        (
            write_classifier,
            replace(RECIPE, size=24),
            r"images float32 \[\?, 3, 16, 16\], expected .*\[batch, 3, 24, 24\]",
        ),
        (write_classifier, replace(RECIPE, layout="NHWC"), r"expected one float32 \[batch, 16, 16, 3\]"),
        (vector, RECIPE, r"images float32 \[\?, 3, 16\], expected one float32"),
        (clash, RECIPE, r"has a tensor or node called images\.fold1, a name that folding needs"),
        (old_operators, RECIPE, r"operator set 6, expected 7 or later"),
    ],
)
def test_what_cannot_be_folded_is_told_in_one_line(
    tmp_path: Path, cache: Path, write: Any, recipe: Recipe, said: str
) -> None:
    model = write(tmp_path / "small.onnx")

    with pytest.raises(InputError, match=said) as caught:
        fold(model, recipe, quiet)

    assert "\n" not in str(caught.value)
    assert not list(cache.glob("*")), "nothing half-made is left"


def test_a_folded_model_is_not_folded_again(tmp_path: Path) -> None:
    path, left = fold(write_classifier(tmp_path / "small.onnx"), RECIPE, quiet)

    for recipe in (RECIPE, left):
        with pytest.raises(InputError, match=r"which are the pixels already .*leave --fold out"):
            fold(path, recipe, quiet)


def test_openvino_runs_the_folded_model_to_within_rounding(tmp_path: Path) -> None:
    import openvino

    model = write_classifier(tmp_path / "small.onnx")
    path, left = fold(model, RECIPE, quiet)

    compiled = openvino.Core().compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    got = compiled(preprocessed(pictures(40), 40, left))[0]

    expected = run(model, preprocessed(pictures(40), 40, RECIPE))[0]
    np.testing.assert_allclose(got, expected, atol=1e-5)
    assert len(set(expected.argmax(1).tolist())) > 3
    np.testing.assert_array_equal(got.argmax(1), expected.argmax(1))
