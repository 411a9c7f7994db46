"""mAP of hand-made logs: bit for bit what MLPerf's script has, and one line for what it takes or stumbles over."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Sequence
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from sut.mlperf.accuracy import read_accuracy_log
from sut.tasks.detection.coco_map import score_boxes
from sut.tasks.detection.truth import BoxTruth, TrueBox
from tests.unit.mlperf.test_accuracy import write_log

CATEGORIES = (1, 3, 90)
SIZES = ((640, 480), (333, 500), (1, 7), (500, 375))
IMAGE_IDS = (139, 25, 1_000_003, 7)
"""Not in order: the order of the samples is the file's."""

Box = Sequence[float]
"""Sample, ymin, xmin, ymax, xmax, score, category."""


def true_boxes() -> list[TrueBox]:
    boxes = [
        (139, 1, (10.5, 20.25, 200.125, 100.0), 0),
        (139, 1, (300, 40, 120, 333), 0),
        (139, 3, (0, 0, 640, 480), 0),
        (139, 3, (5, 300, 600, 150), 1),
        (25, 90, (3, 3, 20, 25), 0),
        (25, 1, (100, 100, 400, 100), 0),  # over the edge
        (7, 3, (0.1, 0.2, 30.3, 40.4), 0),
    ]
    return [
        TrueBox(number, image, category, bbox, bbox[2] * bbox[3], crowd)
        for number, (image, category, bbox, crowd) in enumerate(boxes, 1)
    ]


def truth_at(folder: Path, boxes: Iterable[TrueBox] | None = None) -> BoxTruth:
    """A truth and its annotation file."""
    truth = BoxTruth(
        folder / "instances.json", IMAGE_IDS, SIZES, CATEGORIES, tuple(true_boxes() if boxes is None else boxes)
    )
    images = [
        {"id": image, "width": width, "height": height, "file_name": f"{image}.jpg"}
        for image, (width, height) in zip(IMAGE_IDS, SIZES, strict=True)
    ]
    content = {
        "images": images,
        "categories": [{"id": each, "name": str(each)} for each in CATEGORIES],
        "annotations": [each._asdict() for each in truth.boxes],
    }
    truth.annotations.write_text(json.dumps(content))
    return truth


def hexed(*boxes: Box) -> str:
    return np.array(boxes, "<f4").tobytes().hex()


def official(log: Path, annotations: Path) -> float:
    """The arithmetic of MLPerf's accuracy-coco.py, one value after the other, over pycocotools."""
    with redirect_stdout(StringIO()):
        truth = COCO(str(annotations))
        images = truth.dataset["images"]
        found: list[dict[str, Any]] = []
        answered: dict[int, None] = {}
        for entry in json.loads(log.read_text()):
            image = images[entry["qsl_idx"]]
            if image["id"] in answered:
                continue
            answered[image["id"]] = None
            values = np.frombuffer(bytes.fromhex(entry["data"]), np.float32)
            for start in range(0, len(values) if len(values) >= 7 else 0, 7):
                _, ymin, xmin, ymax, xmax, score, category = values[start : start + 7]
                top, bottom = ymin * image["height"], ymax * image["height"]
                left, right = xmin * image["width"], xmax * image["width"]
                bbox = [float(left), float(top), float(right - left), float(bottom - top)]
                found.append(
                    {"image_id": image["id"], "category_id": int(category), "bbox": bbox, "score": float(score)}
                )
        results = annotations.with_name("results.json")
        results.write_text(json.dumps(found))
        evaluation = COCOeval(truth, truth.loadRes(str(results)), iouType="bbox")
        evaluation.params.imgIds = list(answered)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return float(evaluation.stats[0])


def drawn_answers(draw: random.Random, truth: BoxTruth) -> list[tuple[int, str]]:
    """Each sample answered with boxes near true ones and others, some beyond the picture; the third with nothing."""
    answers = []
    for sample, (image, (width, height)) in enumerate(zip(truth.image_ids, truth.sizes, strict=True)):
        boxes: list[Box] = []
        for each in truth.boxes * 30:
            left, top, wide, high = (value + draw.gauss(0, 4) for value in each.bbox)
            category = each.category_id if draw.random() < 0.8 else draw.choice(CATEGORIES)
            if each.image_id == image or draw.random() < 0.1:
                place = (top / height, left / width, (top + high) / height, (left + wide) / width)
                boxes.append((sample, *place, draw.choice([0.25, draw.random()]), category))
        draw.shuffle(boxes)
        answers.append((sample, hexed(*boxes) if sample != 2 else ""))
    draw.shuffle(answers)
    return answers


@pytest.mark.parametrize("seed", range(6))
def test_a_log_has_the_official_arithmetics_map_to_the_bit(tmp_path: Path, seed: int) -> None:
    draw, truth = random.Random(seed), truth_at(tmp_path)
    answers = drawn_answers(draw, truth)
    padding = [(answers[0][0], hexed((answers[0][0], 0, 0, 1, 1, 1.0, 3))), answers[2]]  # as MultiStream's last query
    log = write_log(tmp_path, *answers, *padding)

    score = score_boxes(read_accuracy_log(log).answers, truth)

    assert 0 < score.value < 1
    assert score.value == official(log, truth.annotations)
    assert score.text == f"mAP={100 * score.value:.3f}%"
    assert (score.name, score.count, score.empty) == ("mAP", 4, 1)
    assert score.outside > 0


def test_places_are_multiplied_in_float32(tmp_path: Path) -> None:
    """0.95 of 640 pixels is 608 then, which overlaps by 0.95, and a little less in float64."""
    truth = truth_at(tmp_path, [TrueBox(1, 139, 1, (0, 0, 640, 480), 640 * 480, 0)])
    log = write_log(tmp_path, (0, hexed((0, 0, 0, 1, 0.95, 0.5, 1))))

    score = score_boxes(read_accuracy_log(log).answers, truth, whole=False)

    assert score.value == official(log, truth.annotations) == pytest.approx(1)


def test_pictures_that_were_not_asked_do_not_count(tmp_path: Path) -> None:
    truth = truth_at(tmp_path)
    log = write_log(tmp_path, (3, hexed((3, 0.2 / 375, 0.1 / 500, 40.6 / 375, 30.4 / 500, 0.5, 3))))
    answers = read_accuracy_log(log).answers

    assert score_boxes(answers, truth, whole=False).value == official(log, truth.annotations) > 0.99
    with pytest.raises(ValueError, match="3 of 4 samples have no answer: 0, 1, 2"):
        score_boxes(answers, truth)


def test_boxes_as_they_are_annotated_are_all_right(tmp_path: Path) -> None:
    truth = truth_at(tmp_path, [each for each in true_boxes() if not each.iscrowd])
    answers = dict.fromkeys(range(4), b"")
    for each in truth.boxes:
        sample = IMAGE_IDS.index(each.image_id)
        (width, height), (left, top, wide, high) = SIZES[sample], each.bbox
        place = (top / height, left / width, (top + high) / height, (left + wide) / width)
        answers[sample] += bytes.fromhex(hexed((sample, *place, 0.5, each.category_id)))

    score = score_boxes(answers, truth)

    assert score.value == pytest.approx(1, abs=1e-9)
    assert (score.boxes, score.empty, score.outside) == (6, 1, 1)
    assert truth.outside == 1


def test_no_box_anywhere_is_a_score_of_nought(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    score = score_boxes(dict.fromkeys(range(4), b""), truth_at(tmp_path))

    assert (score.value, score.text, score.boxes, score.empty) == (0.0, "mAP=0.000%", 0, 4)
    assert capfd.readouterr().out == ""


RIGHT = (0, 0.1, 0.1, 0.5, 0.5, 0.9, 1)


@pytest.mark.parametrize(
    ("answer", "fragment"),
    [
        (b"1234", "the answer of sample 0 has 4 bytes; expected 28 for each box"),
        (bytes(29), "has 29 bytes"),
        (bytes.fromhex(hexed(RIGHT, (1, *RIGHT[1:]))), "a box of sample 0 says that it is sample 1's"),
        (bytes.fromhex(hexed((0.5, *RIGHT[1:]))), "says that it is sample 0.5's"),
        (bytes.fromhex(hexed((*RIGHT[:5], float("nan"), 1))), "sample 0 is 0, 0.1, 0.1, 0.5, 0.5, nan, 1; expected 7"),
        (bytes.fromhex(hexed((0, float("-inf"), *RIGHT[2:]))), "is 0, -inf"),
        (bytes.fromhex(hexed((*RIGHT[:6], 2))), "has the category 2, which"),
        (bytes.fromhex(hexed((*RIGHT[:6], 1.5))), "has the category 1.5, which"),
    ],
)
def test_answers_that_are_refused(tmp_path: Path, answer: bytes, fragment: str) -> None:
    with pytest.raises(ValueError) as caught:
        score_boxes({0: answer, **dict.fromkeys(range(1, 4), b"")}, truth_at(tmp_path))

    assert fragment in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("boxes", [[], [each for each in true_boxes() if each.iscrowd]])
def test_without_a_true_box_there_is_no_score(tmp_path: Path, boxes: list[TrueBox]) -> None:
    answers = {0: bytes.fromhex(hexed(RIGHT)), **dict.fromkeys(range(1, 4), b"")}

    with pytest.raises(ValueError, match="has no box, but for crowds, in any of the 4 pictures"):
        score_boxes(answers, truth_at(tmp_path, boxes))


def test_without_pycocotools_one_line_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sut.tasks.detection.coco_map.find_spec", lambda name: None)

    with pytest.raises(ModuleNotFoundError, match="pip install pycocotools"):
        score_boxes(dict.fromkeys(range(4), b""), truth_at(tmp_path))
