"""``sut parity``, the parity in results, and runs with DALI: all scenarios, a bad picture, DALI that is not there."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from sut.cli import app as cli
from sut.process.signals import Noted
from sut.studies import parity
from tests.children import results, run_python, run_sut
from tests.core import needs
from tests.distributions import write_distribution
from tests.integration.support import Sut
from tests.unit.small_models import SIZE, write_classifier

FIELDS = ["max_levels", "mean_levels", "share_over_1", "psnr_db", "pictures", "values", "padding_levels"]
WITHOUT_DALI = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "nvidia":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Blocker())
"""
ONLY_OPENCV_AND_DALI = """
from preprocess.registry import PREPROCESSORS
for name in {*PREPROCESSORS} - {"opencv", "dali"}:
    del PREPROCESSORS[name]
"""
NO_DECODER = """
from preprocess.opencv import OpenCV
from preprocess.parts.self_test import DecoderNotUsable
def broken(self, recipe):
    raise DecoderNotUsable("a decoder 1.0", RuntimeError("no luck"))
OpenCV.__init__ = broken
"""
START = "import runpy; runpy.run_module('sut', run_name='__main__', alter_sys=True)"

SPOILING = """
from pathlib import Path

from preprocess.dali import Dali
from sut_test_faults import FOLDER

BAD = (FOLDER / "bad").read_bytes()


class Spoiling(Dali):
    name = "spoiling"

    def run(self, encoded, target, mark):
        return super().run([data[: len(data) // 2] if data == BAD else data for data in encoded], target, mark)
"""


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "recipe efficientnet-lite0, for want of another: --model NAME takes that of a known model\n"),
        (["--model", "resnet50"], ""),
        (["--json"], ""),
    ],
)
def test_a_recipe_that_nobody_named_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], options: list[str], said: str
) -> None:
    monkeypatch.setattr(parity, "measure_all", lambda preprocessors, recipe: [])

    assert cli._main(["parity", "--preprocess", "opencv", *options], Noted()) == 0
    assert capsys.readouterr().err == said


@pytest.mark.slow
@needs("dali")
def test_json_has_a_row_per_preprocessor_and_set_of_pictures(tmp_path: Path) -> None:
    done = run_python("-m", "sut", "parity", "--preprocess", "opencv,dali,dali-resize", "--json", cwd=tmp_path)

    assert (done.code, done.err) == (0, "")
    printed = json.loads(done.out)
    assert (printed["schema"], printed["command"]) == (1, "parity")
    rows = {(row["preprocess"], row["pictures"]): row for row in printed["rows"]}
    assert list(rows) == [
        (name, pictures)
        for name in ("opencv", "dali", "dali-resize")
        for pictures in ("photos", "noise", "sizes", "crops")
    ]
    for (name, pictures), row in rows.items():
        assert list(row["parity"]) == FIELDS
        assert row["within_1_level"] is (name != "dali-resize")
        assert (row["labels"] is None) is (pictures != "crops")
    assert [rows[name, "crops"]["labels_same"] for name in ("opencv", "dali")] == [99, 99]
    assert 90 <= rows["dali-resize", "crops"]["labels_same"] < 99
    assert rows["dali-resize", "crops"]["labels"] == 99


def test_the_table_has_what_is_installed_and_fits_80_columns(tmp_path: Path) -> None:
    code = WITHOUT_DALI + ONLY_OPENCV_AND_DALI + START
    done = run_python("-c", code, "parity", "--model", "resnet50", cwd=tmp_path, COLUMNS="80")

    assert done.code == 0
    assert "left out: the preprocessor dali needs nvidia-dali-cuda130: pip install nvidia-dali-cuda130" in done.err
    lines = done.out.splitlines()
    assert max(map(len, lines)) <= 80
    assert any(line.startswith("opencv") and "equal" in line for line in lines)
    assert any("99 of 99" in line for line in lines)
    assert "opencv within 1 level: yes" in lines
    assert "dali" not in done.out


@pytest.mark.parametrize(
    ("arguments", "fragment"),
    [
        (["--preprocess", "dalli"], "unknown preprocessor 'dalli'; did you mean dali?"),
        (["--preprocess", ""], "unknown preprocessor ''"),
        (["--model", "resnet5"], "unknown model 'resnet5'"),
    ],
)
def test_a_word_that_does_not_do(tmp_path: Path, arguments: list[str], fragment: str) -> None:
    done = run_python("-m", "sut", "parity", *arguments, cwd=tmp_path)

    assert done.code == 1
    assert fragment in done.err
    assert done.err.count("\n") == 1


def test_a_named_preprocessor_that_is_not_installed(sut: Sut) -> None:
    done = sut.run("--backend", "null", "--preprocess", "dali", prologue=WITHOUT_DALI)

    assert done.code == 2
    assert "the preprocessor dali needs nvidia-dali-cuda130: pip install nvidia-dali-cuda130" in done.error
    parity = run_python("-c", WITHOUT_DALI + START, "parity", "--preprocess", "opencv,dali", cwd=sut.cwd)
    assert parity.code == 2
    assert "pip install nvidia-dali-cuda130" in parity.err


def test_a_decoder_that_does_not_work(tmp_path: Path) -> None:
    done = run_python("-c", NO_DECODER + START, "parity", "--preprocess", "opencv", cwd=tmp_path)

    assert done.code == 2
    assert "the preprocessor opencv: a decoder 1.0 does not decode a plain JPEG here: no luck" in done.err
    assert done.err.count("\n") == 1


@needs("dali")
@pytest.mark.parametrize(
    ("preprocess", "stages", "scenarios"),
    [
        pytest.param(
            *("dali", ["decode", "resize", "normalize"], "SingleStream,MultiStream,Server,Offline"),
            marks=pytest.mark.slow,
        ),
        ("dali-resize", ["decode", "preprocess"], "SingleStream,Offline"),
    ],
)
def test_dali_runs_and_its_parity_stands_with_its_speed(
    sut: Sut, preprocess: str, stages: list[str], scenarios: str
) -> None:
    pictures = sut.pictures()
    common = ("--backend", "plain", "--dataset-path", pictures, "--preprocess", preprocess, "--boundary", "jpeg")

    done = sut.run(*common, "--scenario", scenarios, "--time", "0.3", "--max-latency", "10")

    assert (done.code, done.errors, done.left) == (0, [], [])
    assert len(done.results) == len(scenarios.split(","))
    for result in done.results.values():
        assert result["valid"] is True
        assert list(result["parity"]) == FIELDS
        assert (result["parity"]["max_levels"] <= 1) is (preprocess == "dali")
        assert [
            name for name in result["stages_ns"] if name in ("decode", "resize", "normalize", "preprocess")
        ] == stages
        assert result["versions"]["nvidia-dali-cuda130"] == "2.4.0"
    assert done.out.count(f"parity of {preprocess}: max ") == 1


@pytest.mark.first(1)
@needs("dali")
@pytest.mark.parametrize("boundary", ["tensor", "pixels"])
def test_every_boundary_has_parity(sut: Sut, boundary: str) -> None:
    done = sut.run("--backend", "plain", "--preprocess", "dali-resize", "--boundary", boundary, "--time", "0.3")

    assert (done.code, done.errors) == (0, [])
    assert done.result["parity"]["max_levels"] > 1
    assert ("parity of dali-resize: max" in done.out) is (boundary == "pixels")


@pytest.mark.first(1)
@pytest.mark.parametrize(("fit", "padding"), [("letterbox", 0), ("stretch", None)])
@pytest.mark.parametrize("preprocess", ["opencv", pytest.param("fused", marks=pytest.mark.slow)])
def test_a_recipe_that_pads_has_parity_of_its_pictures(
    tmp_path: Path, preprocess: str, fit: str, padding: int | None
) -> None:
    write_classifier(tmp_path / "small.onnx")
    (tmp_path / "mine.yaml").write_text(f"fit: {fit}\ninterpolation: linear\nstd: [255, 255, 255]\n")
    own = ("--model", "small.onnx", "--recipe", "mine.yaml", "--preprocess", preprocess, "--boundary", "jpeg")

    ran = run_sut(*own, "--scenario", "Offline", "--time", "0.1", cwd=tmp_path)

    assert (ran.code, ran.out.count(f"parity of {preprocess}: equal to the oracle")) == (0, 1), ran.err
    [result] = results(tmp_path).values()
    parity = result["parity"]
    assert (parity["max_levels"], parity["padding_levels"]) == (0, padding)
    assert (parity["values"] == parity["pictures"] * 3 * SIZE**2) is (padding is None)


def test_what_preprocesses_nothing_has_no_parity(sut: Sut) -> None:
    done = sut.run("--backend", "null", "--boundary", "jpeg", "--time", "0.2")

    assert done.code == 0
    assert done.result["parity"] is None
    assert "parity" not in done.out


@pytest.mark.first(1)
@needs("dali")
@pytest.mark.parametrize("way", [(), ("--preprocess-workers", "2")], ids=["fused", "staged"])
def test_a_picture_that_goes_bad_is_named_whatever_its_batch(sut: Sut, way: tuple[str, ...]) -> None:
    pictures = sut.pictures()
    bad = pictures / "white picture 10.jpg"
    bad.write_bytes(cv2.imencode(".jpg", np.full((40, 32, 3), 250, np.uint8))[1].tobytes())
    (sut.folder / "bad").write_bytes(bad.read_bytes())
    (sut.packages / "sut_test_spoiling.py").write_text(SPOILING)
    write_distribution(
        sut.packages, "sut-test-spoiling", {"sut.preprocessors": {"spoiling": "sut_test_spoiling:Spoiling"}}
    )
    common = ("--backend", "plain", "--dataset-path", pictures, "--preprocess", "spoiling", "--boundary", "jpeg")

    done = sut.run(*common, "--scenario", "Offline", "--time", "0.5", *way)

    assert done.code == 3, done.err
    assert "white picture 10.jpg: BadPicture: cannot decode: got a JPEG of" in done.error
    if not way:  # staged, already the calibration comes upon it
        assert done.result["first_error"].startswith("white picture 10.jpg: BadPicture: cannot decode")
        assert 0 < done.result["failed_samples"] < done.result["samples"]


@pytest.mark.first(1)
@needs("dali")
@pytest.mark.parametrize("boundary", ["tensor", "jpeg"])
def test_a_truncated_file_is_named_before_the_clock(sut: Sut, boundary: str) -> None:
    pictures = sut.pictures()
    bad = pictures / "grey picture 5.jpg"
    bad.write_bytes(bad.read_bytes()[:-20])

    common = ("--backend", "plain", "--dataset-path", pictures, "--preprocess", "dali")
    done = sut.run(*common, "--boundary", boundary, "--time", "0.3")

    assert done.code == 1
    assert "grey picture 5.jpg (sample 5): " in done.error
