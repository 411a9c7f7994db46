"""Whose model it was: what is not MLPerf's says so, and a file that changes under a run fails it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from plugins.files import sha256_of
from sut.datasets.demo import PHOTOS
from tests.children import Finished, results, run_sut
from tests.distributions import plug_in
from tests.integration.support import Sut
from tests.unit.models.test_identity import VOUCHED, write
from tests.unit.small_models import CLASSES, RECIPE_FILE, with_weights_outside, write_classifier

AFTER_EACH_RUN = """
import glob, shutil
import sut.run.runner as runner

supervise = runner.supervise

def then_exchange(*arguments):
    outcome = supervise(*arguments)
    [old] = glob.glob({old!r}, recursive=True)
    shutil.copy({new!r}, old)
    return outcome

runner.supervise = then_exchange
"""

SWAPS = """
import os
import shutil

from backends.onnxruntime import OnnxRuntime


def exchange(now):
    if os.environ["WHEN"] == now:
        shutil.copy("new", "part")
        os.replace("part", os.environ["OLD"])


class Swaps(OnnxRuntime):
    name = "swaps"

    @classmethod
    def load(cls, *arguments, **named):
        loaded = super().load(*arguments, **named)
        exchange("while it is loaded")
        return loaded

    def runner(self, place="host"):
        runner = super().runner()
        infer = runner.infer

        def exchange_and_infer(slot):
            exchange("while it runs")
            return infer(slot)

        runner.infer = exchange_and_infer
        return runner
"""


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A small model with its weights beside it, its recipe, and weights and a model that are not the same."""
    (tmp_path / "small.yaml").write_text(RECIPE_FILE)
    (tmp_path / "other").mkdir()
    other = write_classifier(tmp_path / "other" / "small.onnx", weight_name="other", bias=np.arange(CLASSES))
    with_weights_outside(other)
    return with_weights_outside(write_classifier(tmp_path / "small.onnx"))


def arguments(model: Path, *more: str) -> list[str | Path]:
    return ["--model", model, "--recipe", model.with_suffix(".yaml"), "--count", "3", "--time", "0.3", *more]


# Who it was


@pytest.fixture
def one_picture(tmp_path: Path) -> Path:
    """Twelve links to one picture, which all have the label that the constant model answers with."""
    root = tmp_path / "pictures"
    root.mkdir()
    for number in range(12):
        (root / f"{number}.jpg").symlink_to(PHOTOS / "bee.jpg")
    (root / "val_map.txt").write_text("".join(f"{number}.jpg 5\n" for number in range(12)))
    return root


@pytest.mark.first(1)
@pytest.mark.parametrize("vouched", [False, True])
def test_a_constant_called_resnet50_is_not_mlperfs_unless_the_user_says_so(
    tmp_path: Path, one_picture: Path, vouched: bool
) -> None:
    model = write(tmp_path / "constant.onnx")
    digest = sha256_of(model)
    more = ("--set", f"known_models.{digest}=resnet50") if vouched else ()

    child = run_sut(
        *("--model", model, "--model-name", "resnet50", "--accuracy", "--dataset-path", one_picture, *more),
        cwd=tmp_path,
    )

    assert child.code == 0, child.err
    result = results(tmp_path)["Offline", "accuracy"]
    assert (result["accuracy"]["value"], result["accuracy"]["met"], result["rules_compliant"]) == (1.0, None, False)
    assert result["weights"] == ("trained" if vouched else "unknown")
    assert result["model_sha256"] == digest
    assert result["loaded_sha256"] == {"constant.onnx": digest}
    named = f"model resnet50 is constant.onnx with the SHA-256 {digest[:16]}..., not MLPerf's file"
    assert (named in result["rules_broken"]) is not vouched
    note = VOUCHED.replace("model.onnx", "constant.onnx")
    assert ((note in result["notes"]), (note in child.err)) == (vouched, vouched)


@pytest.mark.first(1)
@pytest.mark.parametrize(
    ("options", "weights", "loaded"),
    [
        (("--weights", "trained"), "trained", 1),
        pytest.param(("--model", "resnet50", "--weights", "random"), "random", 1, marks=pytest.mark.slow),
        (("--backend", "null"), None, 0),
    ],
)
def test_what_is_built_here_and_what_runs_no_model_are_told_apart(
    tmp_path: Path, options: tuple[str, ...], weights: str | None, loaded: int
) -> None:
    child = run_sut("--accuracy", *options, cwd=tmp_path)

    assert child.code == 0, child.err
    result = results(tmp_path)["Offline", "accuracy"]
    assert (result["weights"], len(result["loaded_sha256"])) == (weights, loaded)
    assert set(result["loaded_sha256"].values()) == ({result["model_sha256"]} if weights else set())


COARSE = """
from preprocess.opencv import OpenCV


class Coarse(OpenCV):
    name = "coarse"

    def run(self, encoded, target, mark):
        geometries = super().run(encoded, target, mark)
        for buffer in target.buffers.values():
            buffer[...] = buffer.round(1)
        return geometries
"""


def test_a_preprocessor_of_others_and_one_that_is_off_are_named(tmp_path: Path) -> None:
    plugins = plug_in(tmp_path / "plugins", "coarse", COARSE, "Coarse", "sut.preprocessors")

    child = run_sut("--preprocess", "coarse", "--accuracy", cwd=tmp_path, plugins=plugins)

    assert child.code == 0, child.err
    broken = results(tmp_path)["Offline", "accuracy"]["rules_broken"]
    assert "the preprocessor coarse is not this project's own" in broken
    assert "parity of coarse: 7 levels > 1 level" in broken


# That it stayed the same


@pytest.mark.first(1)
@pytest.mark.parametrize(
    ("changed", "options"),
    [
        ("small.onnx", ()),
        ("weights.bin", ()),
        pytest.param("small.onnx", ("--fold",), marks=pytest.mark.slow),
        pytest.param("cache/small-folded-*/small-folded.onnx", ("--fold",), marks=pytest.mark.slow),
    ],
)
def test_a_model_that_is_exchanged_between_two_scenarios_fails_the_second(
    tmp_path: Path, small: Path, changed: str, options: tuple[str, ...]
) -> None:
    new = tmp_path / "other" / ("weights.bin" if changed == "weights.bin" else "small.onnx")
    exchange = AFTER_EACH_RUN.format(old=str(tmp_path / changed), new=str(new))

    done = Sut(tmp_path).run(*arguments(small, "--scenario", "SingleStream,Offline", *options), prologue=exchange)

    assert done.code == 3
    assert "Traceback" not in done.err
    first, second = (result for _, result in sorted(done.results.items(), reverse=True))
    assert (first["scenario"], first["first_error"], second["scenario"]) == ("SingleStream", None, "Offline")
    assert second["valid"] is False and second["loaded_sha256"] == {}
    [path] = tmp_path.glob(changed)
    assert second["invalid_reasons"][0].startswith(f"the model changed during the runs: {path} has the SHA-256 ")


@pytest.mark.first(1)
@pytest.mark.parametrize(
    ("changed", "when"),
    [
        ("small.onnx", "while it is loaded"),
        ("weights.bin", "while it is loaded"),
        ("weights.bin", "while it runs"),
    ],
)
def test_a_model_that_is_exchanged_under_a_run_fails_it(tmp_path: Path, small: Path, changed: str, when: str) -> None:
    (tmp_path / "new").write_bytes((tmp_path / "other" / changed).read_bytes())

    child = run_sut(
        *arguments(small, "--backend", "swaps"),
        cwd=tmp_path,
        plugins=plug_in(tmp_path / "plugins", "swaps", SWAPS, "Swaps"),
        OLD=str(tmp_path / changed),
        WHEN=when,
    )

    assert child.code == 3
    [result] = results(tmp_path).values()
    assert result["valid"] is False
    assert f"the model changed during the runs: {tmp_path / changed} has the" in result["first_error"]
    assert "the backend swaps is not this project's own" in result["rules_broken"]


# That what is kept is what was made


@pytest.mark.slow
def test_a_damaged_file_of_the_cache_is_made_again(tmp_path: Path, small: Path) -> None:
    def run() -> tuple[Finished, dict[str, Any]]:
        child = run_sut(
            *arguments(small, "--fold", "--scenario", "Offline", "--overwrite"),
            cwd=tmp_path,
            SUT_CACHE_DIR=str(tmp_path / "cache"),
        )
        assert child.code in (0, 4), child.err  # a run this short may be too short
        return child, results(tmp_path)["Offline", "performance"]

    _, first = run()
    [kept] = tmp_path.glob("cache/*/small-folded.onnx")
    whole = kept.read_bytes()
    assert first["loaded_sha256"] == {"small-folded.onnx": sha256_of(kept)}

    for damaged in (b"", whole[: len(whole) // 2], whole[:-1] + bytes([whole[-1] ^ 1])):
        kept.write_bytes(damaged)
        child, again = run()
        assert child.err.count(f"making small-folded.onnx again: {kept.parent} is not as it was made") == 1
        assert "comparing" not in child.err, "that is kept by its content"
        assert (kept.read_bytes(), again["loaded_sha256"]) == (whole, first["loaded_sha256"])
    child, _ = run()
    assert "making" not in child.err
