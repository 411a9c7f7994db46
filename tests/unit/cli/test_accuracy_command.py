"""``sut accuracy``: the lines of accuracy.txt, MLPerf's target where it applies, and one line on what is refused."""

from __future__ import annotations

import hashlib
import json
import os
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
    ):
        assert accuracy(*words) == ExitCode.USAGE
        printed = capsys.readouterr()
        assert said in printed.err
        assert (printed.out, len(printed.err.splitlines())) == ("", 1)
