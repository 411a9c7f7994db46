"""``--baseline``: which figures of before a cell may be held against, and which are refused."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from plugins.files import sha256_of
from sut.errors import InputError
from sut.studies.comparing import study
from sut.studies.comparing.earlier import read_earlier
from sut.studies.comparing.matrix import cells_of
from sut.studies.comparing.report import rows_of
from tests.unit.small_models import write_classifier
from tests.unit.studies.test_comparing import ASKED, BACKENDS, BASE, Drawn, compared, result_of

RATES = {"onnxruntime": 100.0, "openvino": 300.0}


def written(path: Path, rows: list[dict[str, Any]]) -> Path:
    """A compare.json."""
    path.write_text(json.dumps({"schema": 1, "command": "compare", "rows": rows}))
    return path


def said_of(before: Mapping[str, Any], now: Mapping[str, Any], folder: Path, forget: tuple[str, ...] = ()) -> list[str]:
    """What ``--baseline`` says where the result of a cell has these values."""
    rows = rows_of(compared(Drawn(RATES, fp32=before), BACKENDS), folder)
    kept = [{key: value for key, value in row.items() if key not in forget} for row in rows]
    comparison = compared(Drawn(RATES, fp32=now), BACKENDS)
    asked = replace(ASKED, earlier=read_earlier(written(folder / "compare.json", kept)))
    return study.against(comparison.cells, comparison, asked)[1]


def test_another_model_in_a_file_of_the_same_name_is_refused_before_anything_runs(tmp_path: Path) -> None:
    models = [tmp_path / name / "m.onnx" for name in ("one", "two")]
    for seed, model in enumerate(models, 1):
        model.parent.mkdir()
        write_classifier(model, seed=seed)
    one, two = (BASE.model_copy(update={"model": str(model)}) for model in models)
    (tmp_path / "result.json").write_text(
        result_of(one, 50.0, duration_s=2.0, model_sha256=sha256_of(models[0])).to_json()
    )
    [old] = read_earlier(tmp_path / "result.json")
    [same], [other] = cells_of({}, one), cells_of({}, two)

    assert old.is_of(same)
    with pytest.raises(InputError, match="cannot be held against the baseline: another model") as caught:
        old.is_of(other)

    assert all(str(word) in str(caught.value) for model in models for word in (model, sha256_of(model)))
    assert replace(old, model_sha256=None).is_of(other)


def test_a_known_model_that_is_another_now_is_refused_and_what_is_not_known_is_not(tmp_path: Path) -> None:
    old, new = ({"model_sha256": digit * 64} for digit in "ab")

    told = re.compile(f"another model; efficientnet-lite0 has SHA-256 {'b' * 64}, .* {'a' * 64}$")
    assert [bool(told.search(line)) for line in said_of(old, new, tmp_path)] == [True, True]
    for before, now, forget in ((old, old, ()), (old, {}, ()), ({}, new, ()), (old, new, ("model_sha256",))):
        assert all("x the baseline's speed" in line for line in said_of(before, now, tmp_path, forget))


def test_another_version_of_the_backend_is_said_where_both_are_known(tmp_path: Path) -> None:
    old, new = ({"backend_version": version} for version in ("1.30", "1.31"))
    words = "the backend's version is 1.31, was 1.30"

    assert all(words in line for line in said_of(old, new, tmp_path))
    for before, now, forget in ((new, new, ()), (old, {}, ()), (old, new, ("backend_version",))):
        assert not any("version" in line for line in said_of(before, now, tmp_path, forget))


def test_a_run_that_was_told_what_auto_chose_is_of_the_cell_that_leaves_it_open(tmp_path: Path) -> None:
    chosen = BASE.model_copy(update={"lanes": 2, "threads": 1, "max_batchsize": 8})
    (tmp_path / "result.json").write_text(result_of(chosen, 50.0, duration_s=2.0).to_json())
    rows = rows_of(compared(Drawn(RATES), BACKENDS | {"lanes": [2]}), tmp_path)
    [run], [asked, _] = read_earlier(tmp_path / "result.json"), read_earlier(written(tmp_path / "compare.json", rows))
    [is_open], [same], [auto, other] = (cells_of(axes, BASE) for axes in ({}, {"lanes": [2]}, {"lanes": [None, 3]}))

    assert [run.is_of(cell) for cell in (is_open, same, auto, other)] == [True, True, True, False]
    # A comparison says what was asked.
    assert [asked.is_of(cell) for cell in (is_open, same, auto, other)] == [False, True, False, False]


@pytest.mark.parametrize("edit", [2.0, 1 + 1e-8, 1 - 1e-8, float("nan")])
@pytest.mark.parametrize("part", ["figures", "metric"])
def test_figures_that_somebody_has_edited_are_no_baseline(tmp_path: Path, part: str, edit: float) -> None:
    first, second = rows_of(compared(Drawn(RATES), BACKENDS), tmp_path)
    read_earlier(written(tmp_path / "compare.json", [first, second]))
    if part == "figures":
        second["figures"] = {number: edit * value for number, value in second["figures"].items()}
    else:
        second["metric"]["value"] *= edit

    with pytest.raises(InputError, match=r"--baseline .*\(edited: 'openvino': \w+ is .*, but the median of its"):
        read_earlier(written(tmp_path / "compare.json", [first, second]))


def test_a_figure_beyond_all_bounds_is_refused_in_one_line(tmp_path: Path) -> None:
    [row, _] = rows_of(compared(Drawn(RATES), BACKENDS), tmp_path)

    with pytest.raises(InputError, match=r"--baseline .*: not a result.json or compare.json of this program"):
        read_earlier(written(tmp_path / "compare.json", [{**row, "figures": {"1": 10**400}}]))
