"""What nobody has set, from end to end: chosen, printed, written, and kept for the next start."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.children import Finished
from tests.integration.support import Sut
from tests.unit.small_models import SIZE, write_classifier

RECIPE = f"size: {SIZE}\nfit: crop-resize\ninterpolation: linear\ncrop_padding: 0\n"
AUTO = ("lanes", "threads", "max_batchsize")


def run(sut: Sut, *arguments: str) -> Finished:
    (sut.cwd / "recipe.yaml").write_text(RECIPE)
    model = write_classifier(sut.cwd / "small.onnx")
    # A short run may be INVALID: it ends before its time if the rate was told too low.
    return sut.run(
        *("--model", model, "--recipe", "recipe.yaml", "--scenario", "Offline", "--dataset", "demo", "--overwrite"),
        *arguments,
        wrapper=("taskset", "-c", str(min(os.sched_getaffinity(0)))),
    )


def kept(sut: Sut) -> Path:
    [file] = (sut.cache / "auto").iterdir()
    return file


@pytest.mark.slow
def test_on_one_core_there_is_one_lane_and_the_second_start_tries_nothing(sut: Sut) -> None:
    first = run(sut, "--time", "1")
    content = json.loads(kept(sut).read_text())
    content["trials"][0]["is_busy"] = False  # as on a quiet machine; else it would be tried again on one
    kept(sut).write_text(json.dumps(content))
    second = run(sut, "--time", "1")
    asked = run(sut, "--time", "0.1", "--lanes", "1", "--threads", "1", "--max-batchsize", "8")

    for done in (first, second):
        assert done.code in (0, 4), done.err
    [(place, result), *_] = first.results.items()
    assert [result["config"][name] for name in AUTO] == [None, None, None]
    plan = result["plan"]
    assert (plan["lanes"], plan["threads"]) == (1, 1)
    assert max(map(int, result["batch_sizes"])) == plan["max_batchsize"]
    assert plan["chosen"].endswith("; --lanes fixes it")
    assert f"1 lane x 1 thread, batch {plan['max_batchsize']}: {plan['chosen']}" in first.err
    assert json.loads(kept(sut).read_text())["trials"] == content["trials"]
    assert place in second.results
    assert "measured" not in second.err
    assert "no other" not in second.err
    assert "1 lane x 1 thread, batch 8: as asked" in asked.err
    assert len(asked.results) == 2  # the hash is over what was asked
