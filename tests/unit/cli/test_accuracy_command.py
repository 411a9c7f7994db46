"""``sut accuracy``: the lines of accuracy.txt, MLPerf's target where it applies, and one line on what is refused."""

from __future__ import annotations

import hashlib
import json
import os
import struct
from pathlib import Path

import pytest

from sut.cli import app as cli
from sut.datasets.imagenet import list_text, picture_names, validation_labels
from sut.errors import ExitCode
from sut.process.signals import Noted
from tests.unit.mlperf.test_accuracy import write_log
from tests.unit.mlperf.test_scoring import LABELS, answered, right, told


def accuracy(*words: object) -> int:
    return cli._main(["accuracy", *map(str, words)], Noted())


@pytest.fixture
def val_map(tmp_path: Path) -> Path:
    path = tmp_path / "list.txt"
    path.write_text("".join(f"{index}.JPEG {label}\n" for index, label in enumerate(LABELS)))
    return path


@pytest.fixture(scope="module")
def imagenet(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[int]]:
    labels = validation_labels()
    path = tmp_path_factory.mktemp("imagenet") / "val_map.txt"
    path.write_text(list_text({name: name for name in picture_names()}, labels))
    return path, list(labels[name] for name in picture_names())


def test_what_is_printed_begins_with_accuracy_txt(
    tmp_path: Path, val_map: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_log(tmp_path, *answered({**right(), 0: 999}, "int64"))
    told(tmp_path, test_mode="AccuracyOnly")

    assert accuracy(tmp_path, "--val-map", val_map) == ExitCode.OK

    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    assert capsys.readouterr().out.splitlines() == [
        "accuracy=97.500%, good=39, total=40",
        f"hash={sha256}",
        "labels in int64",
        "the list is not that of MLPerf's 50,000 pictures, so its target does not apply",
    ]
    assert accuracy(path, "--val-map", val_map, "--dtype", "int64", "--json") == ExitCode.OK
    [row] = json.loads(capsys.readouterr().out)["rows"]
    assert row == {
        "file": str(path),
        "name": "top1",
        "value": 0.975,
        "good": 39,
        "count": 40,
        "target": None,
        "met": None,
        "dtype": "int64",
        "sha256": sha256,
        "settings_known": True,
    }


@pytest.mark.parametrize(("good", "code", "word"), [(37848, ExitCode.OK, "met"), (37847, ExitCode.INVALID, "missed")])
def test_mlperfs_target_applies_to_its_list(
    tmp_path: Path,
    imagenet: tuple[Path, list[int]],
    good: int,
    code: ExitCode,
    word: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    val_map, labels = imagenet
    got = {index: label if index < good else (label + 1) % 1000 for index, label in enumerate(labels)}
    write_log(tmp_path, *answered(got))

    assert accuracy(tmp_path, "--val-map", val_map) == code

    assert f"MLPerf's 50,000 pictures: the target of 75.6954 % is {word}" in capsys.readouterr().out


def test_what_cannot_be_told_without_the_other_log_is_said(
    tmp_path: Path, val_map: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_log(tmp_path, *answered(dict.fromkeys(range(2), 0)))
    val_map.write_text("a.JPEG 0\nb.JPEG 0\n")

    assert accuracy(tmp_path, "--val-map", val_map) == ExitCode.OK

    said = capsys.readouterr().out
    assert "every answer is the label 0" in said
    assert "there is no mlperf_log_detail.txt beside it" in said


def test_what_is_refused_is_one_line(tmp_path: Path, val_map: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_log(tmp_path, *answered(right()))
    os.mkfifo(tmp_path / "pipe")
    for words, said in (
        (
            (tmp_path, "--val-map", val_map, "--dtype", "int32"),
            "the answers are float32 (4 bytes each), got --dtype int32",
        ),
        ((tmp_path / "none.json", "--val-map", val_map), "none.json: No such file or directory"),
        ((tmp_path / "pipe", "--val-map", val_map), "pipe: Is a named pipe, not a file"),
        ((val_map, "--val-map", val_map), "list.txt is cut off or not JSON"),
        ((tmp_path, "--val-map", tmp_path / "no" / "list.txt"), "per line, or name another list with --val-map"),
        ((tmp_path, "--val-map", tmp_path), "Is a directory"),
        ((tmp_path,), "give either --val-map FILE, for a classifier's log, or --annotations FILE"),
        ((tmp_path, "--val-map", val_map, "--annotations", val_map), "give either --val-map FILE"),
        ((tmp_path, "--val-map", val_map, "--model-name", "yolo-95"), "--model-name yolo-95 is a detector's"),
        ((tmp_path, "--annotations", val_map, "--dtype", "int32"), "--dtype int32 is of labels"),
        ((tmp_path, "--annotations", val_map), "list.txt is cut off or not JSON"),
        ((tmp_path, "--annotations", tmp_path / "no.json"), "no.json; expected one in COCO's form"),
    ):
        assert accuracy(*words) == ExitCode.USAGE
        printed = capsys.readouterr()
        assert said in printed.err
        assert (printed.out, len(printed.err.splitlines())) == ("", 1)


def annotated(folder: Path, pictures: int) -> Path:
    """A file of so many pictures, each with one box over its upper left quarter."""
    ids = range(1, pictures + 1)
    content = {
        "images": [{"id": each, "file_name": f"{each}.jpg", "width": 100, "height": 60} for each in ids],
        "categories": [{"id": 7}],
        "annotations": [
            {"id": each, "image_id": each, "category_id": 7, "bbox": [0, 0, 50, 30], "area": 1500, "iscrowd": 0}
            for each in ids
        ],
    }
    path = folder / "boxes.json"
    path.write_text(json.dumps(content))
    return path


def boxes(pictures: int, right: int) -> list[tuple[int, str]]:
    """Answers to so many pictures, the first of them right and the others empty."""
    found = [(index, struct.pack("<7f", index, 0, 0, 0.5, 0.5, 0.9, 7).hex()) for index in range(right)]
    return found + [(index, "") for index in range(right, pictures)]


def test_boxes_are_scored_by_their_annotations(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = (1, struct.pack("<7f", 1, 0, 0, 0.5, 1.25, 0.9, 7).hex())
    path = write_log(tmp_path, *boxes(4, 3), other)
    told(tmp_path, test_mode="AccuracyOnly")

    assert accuracy(tmp_path, "--annotations", annotated(tmp_path, 4)) == ExitCode.OK

    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    assert capsys.readouterr().out.splitlines() == [
        "mAP=75.248%",
        f"hash={sha256}",
        "3 boxes; 1 of 4 pictures have none",
        "samples with two different answers, of which the first counts: 1",
        "4 pictures are not as many as MLPerf's list has, so a detector's target does not",
        "apply",
    ]
    assert accuracy(path, "--annotations", tmp_path / "boxes.json", "--json") == ExitCode.OK
    [row] = json.loads(capsys.readouterr().out)["rows"]
    assert row.pop("value") == pytest.approx(76 / 101)
    assert row == {
        "file": str(path),
        "name": "mAP",
        "count": 4,
        "target": None,
        "met": None,
        "sha256": sha256,
        "settings_known": True,
        "boxes": 3,
        "empty": 1,
        "outside": 0,
        "contradicted": 1,
        "targets": {},
    }


@pytest.mark.parametrize(
    ("model_name", "code", "said"),
    [
        (None, ExitCode.OK, ["yolo-95's target of 50.73 % is met", "yolo-99's target of 52.866 % is missed"]),
        ("yolo-95", ExitCode.OK, ["yolo-95's target of 50.73 % is met"]),
        ("yolo-99", ExitCode.INVALID, ["yolo-99's target of 52.866 % is missed"]),
        ("retinanet", ExitCode.OK, ["retinanet's target does not apply"]),
    ],
)
def test_targets_of_detectors_apply_by_the_number_of_pictures(
    tmp_path: Path, model_name: str | None, code: ExitCode, said: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    write_log(tmp_path, *boxes(1525, 793))  # 52.0 %: 53 of the 101 points of the curve
    words = ["--model-name", model_name] if model_name else []

    assert accuracy(tmp_path, "--annotations", annotated(tmp_path, 1525), *words) == code

    out = " ".join(capsys.readouterr().out.split())
    assert [each for each in ("yolo-95's", "yolo-99's", "retinanet's") if each in out] == [
        each.split()[0] for each in said
    ]
    assert all(each in out for each in said)


def test_not_one_box_is_said_and_misses_every_target(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_log(tmp_path, *boxes(1525, 0))

    assert accuracy(tmp_path, "--annotations", annotated(tmp_path, 1525)) == ExitCode.INVALID

    out = capsys.readouterr().out
    assert out.startswith("mAP=0.000%\n")
    assert "not one box in any picture" in out


def test_logs_of_boxes_that_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    truth = annotated(tmp_path, 40)
    for entries, settings, fragment in (
        (boxes(10, 3), {"test_mode": "AccuracyOnly"}, "30 of 40 samples have no answer: 10, 11, 12, ...; expected one"),
        (boxes(41, 3), {"test_mode": "AccuracyOnly"}, "an answer for sample 40; the data set has 0 to 39"),
        (boxes(40, 3), {"test_mode": "PerformanceOnly"}, "has effective_test_mode PerformanceOnly"),
        ([*boxes(39, 3), (39, "00000000")], {"test_mode": "AccuracyOnly"}, "the answer of sample 39 has 4 bytes"),
    ):
        write_log(tmp_path, *entries)
        told(tmp_path, **settings)
        assert accuracy(tmp_path, "--annotations", truth) == ExitCode.USAGE
        printed = capsys.readouterr()
        assert fragment in printed.err
        assert (printed.out, len(printed.err.splitlines())) == ("", 1)
    assert accuracy(tmp_path, "--annotations", truth, "--model-name", "resnet50") == ExitCode.USAGE
