"""OpenVINO's own files: read without the runtime as the runtime reads them, refused in one line where they are none."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import pytest

from backends.base import ModelFile
from backends.onnxruntime import OnnxRuntime
from backends.openvino import OpenVino
from sut.config import RunConfig
from sut.datasets.demo import open_demo
from sut.errors import InputError, RunError
from sut.models.content import content_digest, sums_of
from sut.models.ir import check_ir, expose_scores
from sut.models.precision.calibration import Calibration, preprocessed
from sut.models.precision.convert import convert, quantising_node
from sut.models.preparation import Prepared, check_unchanged, prepare
from sut.models.registry import for_file
from tests.core import needs
from tests.unit.ir_models import write_ir
from tests.unit.odd_models import write_odd
from tests.unit.quantised_models import write_quantised
from tests.unit.small_models import CLASSES, RECIPE, pictures

Change = Callable[[str], str]
NAMES = re.compile(r' (output_)?names="[^"]*"')


@pytest.fixture(scope="module")
def ir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_ir(tmp_path_factory.mktemp("ir") / "small.xml")


def changed(ir: Path, to: Path, change: Change) -> Path:
    """A copy of both files, the .xml changed."""
    shutil.copy(ir.with_suffix(".bin"), to.with_suffix(".bin"))
    to.write_text(change(ir.read_text()))
    return to


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text,
        lambda text: text.replace('version="11"', 'version="10"'),
        lambda text: NAMES.sub("", text),
        lambda text: NAMES.sub("", text).replace('version="11"', 'version="10"'),
        lambda text: text.replace('output_names="scores"', r'output_names="z,a\,b"'),
        lambda text: text.replace('output_names="scores"', 'output_names="z,scores,a"'),
        lambda text: text.replace(' output_names="scores"', "").replace(' names="images"', ' names="z,a"'),
        lambda text: text.replace('"images"', '"pictures &amp; more"'),
    ],
    ids=["as it is", "old", "no names", "old, no names", "comma in a name", "its own name", "several", "escaped"],
)
def test_tensors_are_what_the_runtime_says(ir: Path, tmp_path: Path, change: Change) -> None:
    path = changed(ir, tmp_path / "changed.xml", change)

    found = check_ir(path)

    with OpenVino.load(ModelFile(path, "fp32", RECIPE.sample_shape), "cpu", 1, 1) as backend:
        for told, expected in zip((*found.inputs, *found.outputs), (*backend.inputs, *backend.outputs), strict=True):
            assert (told.name, told.dtype, told.shape) == (expected.name, expected.dtype, expected.shape)
    assert found.beside == (path.with_suffix(".bin"),)


@pytest.mark.parametrize(
    ("model", "shape", "dtype"),
    [
        ({"shape": [4, *RECIPE.sample_shape]}, (4, 3, 16, 16), "float32"),
        ({"shape": [openvino.Dimension(1, 8), 3, 16, 16]}, (None, 3, 16, 16), "float32"),
        ({"dtype": "float16"}, (None, 3, 16, 16), "float16"),
        ({"layout": "NHWC"}, (None, 16, 16, 3), "float32"),
    ],
)
def test_shape_and_dtype_are_read(
    tmp_path: Path, model: dict[str, Any], shape: tuple[int | None, ...], dtype: str
) -> None:
    found = check_ir(write_ir(tmp_path / "some.xml", **model))

    assert [(spec.name, spec.dtype, spec.shape) for spec in found.inputs] == [("images", dtype, shape)]
    assert [(spec.name, spec.dtype, spec.shape) for spec in found.outputs] == [("scores", dtype, (shape[0], CLASSES))]


BOMB = '<!DOCTYPE net [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;">]><net name="&b;" version="11"></net>'


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda text: text[:5000], r"is cut off, damaged or no XML at all \(.*\), expected OpenVINO's IR"),
        (lambda text: "\udcff" * 9, "is cut off, damaged or no XML at all"),
        (lambda text: "", r"is empty \(0 bytes\), expected an .xml file of OpenVINO's"),
        (lambda text: BOMB, "is XML with a DOCTYPE, expected OpenVINO's IR, which has none"),
        (lambda text: "<!DOCTYPE html><html></html>", "is XML with a DOCTYPE"),
        (lambda text: "<feed/>", "is XML with <feed> of version none, expected OpenVINO's IR: <net> of version 10 or"),
        (lambda text: text.replace('version="11"', 'version="9"'), "is XML with <net> of version 9, expected"),
        (lambda text: "<net>" * 200_000, "is cut off, damaged or no XML at all"),
        (lambda text: " " * (2**25 + 1), "cannot be read: More than 33,554,432 bytes; expected an .xml file"),
        (lambda text: text.replace("<dim>10</dim>", "<dim>ten</dim>"), "is damaged: scores has an axis that is no num"),
        (lambda text: re.sub("<edge .*/>", "", text), "is damaged: scores/sink_port_0 is not connected"),
        (lambda text: text.replace('offset="0"', 'offset="x"'), "is damaged: a constant of it has no place in bad.bin"),
    ],
)
def test_what_is_no_ir_is_refused_in_one_line(ir: Path, tmp_path: Path, change: Change, said: str) -> None:
    path = tmp_path / "bad.xml"
    shutil.copy(ir.with_suffix(".bin"), path.with_suffix(".bin"))
    path.write_text(change(ir.read_text()), errors="surrogateescape")

    with pytest.raises(InputError, match=said) as refused:
        check_ir(path)

    assert "\n" not in str(refused.value) and len(str(refused.value)) < 400


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda file: file.unlink(),
            r"keeps its weights in .*small.bin, which does not exist; put it beside the model",
        ),
        (lambda file: file.write_bytes(file.read_bytes()[:-1]), r"which is cut off: \d+ bytes, expected at least \d+"),
        (lambda file: (file.unlink(), file.mkdir()), "which is no file"),
    ],
)
def test_weights_that_are_not_there_are_missed(
    ir: Path, tmp_path: Path, change: Callable[[Path], None], said: str
) -> None:
    path = changed(ir, tmp_path / "small.xml", str)
    change(path.with_suffix(".bin"))

    with pytest.raises(InputError, match=said):
        check_ir(path)


def test_it_is_both_of_its_files(ir: Path, tmp_path: Path) -> None:
    path = changed(ir, tmp_path / "small.xml", str)
    weights = path.with_suffix(".bin")
    before = content_digest(path)
    prepared = Prepared(path, path, path, loads=sums_of(path))
    check_unchanged(prepared)

    weights.write_bytes(weights.read_bytes() + b"more")

    assert list(sums_of(path)) == [path, weights]
    assert before == content_digest(ir) != content_digest(path)
    with pytest.raises(RunError, match=r"the model changed during the runs: .*small\.bin has the SHA-256"):
        check_unchanged(prepared)


def test_it_is_run_by_openvino_and_left_as_it_is(ir: Path) -> None:
    told: list[str] = []
    spec = for_file(ir, None, "pytorch", told.append)

    with pytest.raises(
        InputError, match=r"is OpenVINO's IR, which backend onnxruntime cannot read: use --backend openv"
    ):
        prepare(RunConfig(), spec, OnnxRuntime, open_demo(), str, lambda done, total: None)
    with pytest.raises(InputError, match=r"is OpenVINO's IR, and --fold changes .onnx files: leave it out, or bring"):
        prepare(RunConfig(fold=True), spec, OpenVino, open_demo(), str, lambda done, total: None)
    prepared = prepare(RunConfig(), spec, OpenVino, open_demo(), str, lambda done, total: None)

    assert told == [
        "small.xml as small: input images float32 NCHW, 16 pixels; 10 classes, label_offset 0; recipe pytorch"
    ]
    assert (prepared.file, prepared.source, prepared.quantised) == (ir, ir, False)


@pytest.mark.parametrize(("kind", "operator"), [("signed", "FakeQuantize"), ("dynamic", None)])
def test_a_quantised_one_is_known_by_its_layers(tmp_path: Path, kind: str, operator: str | None) -> None:
    path = write_ir(tmp_path / "small.xml", source=write_quantised(tmp_path / "small.onnx", kind))

    assert quantising_node(path) == operator
    with OpenVino.load(ModelFile(path, "fp32", RECIPE.sample_shape), "cpu", 1, 1) as backend:
        assert backend.attest().precision == ("int8" if operator else "fp32")


def test_weights_in_float16_are_computed_with_in_float32(ir: Path, tmp_path: Path) -> None:
    half = write_ir(tmp_path / "half.xml", half=True)
    samples = preprocessed(pictures(4), 4, RECIPE)
    scores = []

    for path in (ir, half):
        with OpenVino.load(ModelFile(path, "fp32", RECIPE.sample_shape), "cpu", 1, 1) as backend:
            assert (backend.attest().precision, backend.attest().details["layers"]) == ("fp32", "f32: 4")
            with backend.runner() as runner:
                slot = runner.slot(4)
                slot.buffers["images"][:] = samples
                scores.append(np.array(runner.infer(slot)["scores"]))

    assert 0 < np.abs(scores[0] - scores[1]).max() < 1e-2 * np.ptp(scores[0])


def test_the_scores_that_labels_are_chosen_from_can_be_shown(ir: Path, tmp_path: Path) -> None:
    labels = write_ir(tmp_path / "labels.xml", source=write_odd(tmp_path / "odd.onnx", "nan behind argmax"))
    shown = tmp_path / "shown.xml"

    assert expose_scores(labels, "labels", shown) == "spoilt"
    assert [(spec.name, spec.dtype) for spec in check_ir(shown).outputs] == [("spoilt", "float32")]
    assert expose_scores(ir, "scores", tmp_path / "none.xml") is None
    assert not (tmp_path / "none.xml").exists()


@pytest.mark.slow
@needs("nncf")
def test_int8_is_made_of_it(ir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUT_CACHE_DIR", str(tmp_path / "cache"))
    calibration = Calibration(preprocessed(pictures(24), 24, RECIPE), "24 pictures")

    made = convert(ir, "int8-openvino", calibration, lambda line: None, lambda done, total: None)

    assert quantising_node(made) == "FakeQuantize"
    assert check_ir(made).inputs == check_ir(ir).inputs
    with pytest.raises(InputError, match=r"is OpenVINO's IR, expected an .onnx file to make int8 of"):
        convert(ir, "int8", calibration, lambda line: None, lambda done, total: None)
