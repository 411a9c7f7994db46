"""The price list of shortcuts: what its rows say of labels, levels and time, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from sut.cli.console import BriefConsole
from sut.config import RunConfig
from sut.datasets.mosaics import SIZES
from sut.errors import InputError
from sut.results.schema import Parity
from sut.studies.pages import leave_study, read_study
from sut.studies.shortcuts import study
from sut.studies.shortcuts.bench import Examined, Timed
from sut.studies.shortcuts.page import COMMAND, HEADINGS, lines_of, study_of
from sut.studies.shortcuts.pictures import files, write_pictures
from sut.studies.shortcuts.study import Priced, Shortcut, base_of, chosen_of, rows_of, sentences_of
from tests.children import run_python

SCALED = Shortcut("scaled_decode", {"preprocess_options": {"scaled_decode": True}})


def parity(levels: int) -> Parity:
    return Parity(max_levels=levels, mean_levels=levels / 10, share_over_1=0.25, psnr_db=30.0, pictures=2)


def examined(levels: int, wrong: int, peak: int | None = 100_000_000) -> Examined:
    """Of a hundred labels for each size, of which so many are others than 7."""
    labels = (*[8] * wrong, *[7] * (100 - wrong))
    return Examined(dict.fromkeys(SIZES, labels), dict.fromkeys(SIZES, parity(levels)), dict.fromkeys(SIZES, peak))


def timed(**ratios: float) -> Timed:
    """Six pairs for each size, in which the shortcut takes 1 / ratio of the exact way's time, but for noise."""
    noise = (1.0, 1.01, 0.99, 1.02, 0.985, 1.004)
    return Timed({size: tuple((0.01, 0.01 * each / ratios[size]) for each in noise) for size in SIZES})


def content(*priced: Priced, weights: str = "trained") -> dict[str, Any]:
    rows = [row for each in priced for row in rows_of(each, examined(1, 0, 80_000_000))]
    return {"rows": rows, "model": "efficientnet-lite0", "backend": "onnxruntime", "weights": weights}


FOUND = content(
    Priced(SCALED, examined(20, 3), timed(small=1.0, medium=1.0, large=2.0)),
    Priced(Shortcut("bf16", {"precision": "bf16"}), reason="onnxruntime has no bf16 on cpu"),
    Priced(Shortcut("int8", {"precision": "int8"}), examined(1, 5), timed(small=1.5, medium=1.2, large=1.1)),
    Priced(Shortcut("together", {}), examined(20, 9), timed(small=9.0, medium=9.0, large=9.0)),
)


def test_a_row_has_the_planted_speed_labels_levels_and_memory() -> None:
    row = next(row for row in FOUND["rows"] if (row["shortcut"], row["pictures"]) == ("scaled_decode", "large"))

    assert row["speed"]["ratio"] == pytest.approx(2.0, rel=0.01)
    assert row["speed"]["verdict"] == "better" and row["speed"]["low"] < 2 < row["speed"]["high"]
    assert row["cpu_seconds_per_picture"] == {"exact": 0.01, "shortcut": pytest.approx(0.005, rel=0.01)}
    assert row["memory_bytes"] == {"exact": 80_000_000, "shortcut": 100_000_000}
    assert (row["parity"]["max_levels"], row["exact_parity"]["max_levels"]) == (20, 1)
    labels = row["labels"]
    assert labels["value"] == 0.97 and labels["count"] == 100
    assert labels["low"] == pytest.approx(0.9155, abs=1e-3), "Wilson's interval"


def test_the_decision_names_the_fastest_alone_for_each_size_and_what_it_costs() -> None:
    first, *more = sentences_of(FOUND)

    small, medium, large = first.removeprefix("efficientnet-lite0 on onnxruntime: ").split("; ")
    assert small.startswith("on small pictures int8 gains most alone, 1.5 x (1.4")
    assert small.endswith("at 95 (88.8 to 97.8) % same labels")
    assert medium.startswith("on medium pictures int8")
    assert large.startswith("on large pictures scaled_decode gains most alone, ")
    assert "bf16 is not priced: onnxruntime has no bf16 on cpu" in more


def test_what_cannot_be_told_apart_is_not_called_faster_and_random_weights_are_told() -> None:
    same = content(Priced(SCALED, examined(1, 0), timed(small=1.0, medium=1.0, large=1.0)), weights="random")

    first = sentences_of(same)[0]

    assert first.count("none alone is faster that can be told") == 3
    assert first.endswith("the weights are random, so that labels say nothing")


def test_the_table_has_a_line_for_each_row_and_fits_80_columns() -> None:
    lines = list(lines_of(FOUND["rows"]))

    assert len(lines) == len(FOUND["rows"]) == 10
    assert lines[2][:2] == ["", "large"] and lines[0][0] == "scaled_decode"
    assert lines[2][3:] == ["+20", "2.00", "20", "25.0", "97 (92-99)"]
    assert lines[3] == ["bf16", *[""] * 7]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEADINGS))]
    assert sum(widths) + 2 * (len(widths) - 1) <= 80


def test_memory_that_cannot_be_told_is_empty() -> None:
    rows = content(Priced(SCALED, examined(1, 0, None), timed(small=1.0, medium=1.0, large=1.0)))["rows"]

    assert rows[0]["memory_bytes"] == {"exact": 80_000_000, "shortcut": None}
    assert next(lines_of(rows))[3] == ""


def test_it_leaves_a_file_that_becomes_a_page(tmp_path: Path) -> None:
    leave_study(tmp_path, COMMAND, FOUND, BriefConsole())

    assert "scaled_decode, large" in (tmp_path / "report.html").read_text()
    found = read_study(tmp_path / "study.json", "s0")
    assert found.sentences[0] == sentences_of(FOUND)[0]
    [table] = found.tables
    assert len(table.first.cells) == 9, "what is not priced is a sentence"
    edited = json.loads((tmp_path / "study.json").read_text())
    del edited["rows"][0]["labels"]
    (tmp_path / "study.json").write_text(json.dumps(edited))
    with pytest.raises(ValueError, match="edited, or not written by sut study shortcuts"):
        read_study(tmp_path / "study.json", "s0")


def test_figures_of_a_page_stand_where_they_say() -> None:
    [table] = study_of(FOUND, "s3").tables
    cell = next(column for column in table.columns if column.heading == "levels, max").cells[3]
    [figure] = cell.said

    assert figure.of == "s3:rows.4.parity.max_levels"  # type: ignore[union-attr]
    assert FOUND["rows"][4]["parity"]["max_levels"] == figure.raw == 1  # type: ignore[union-attr]


def test_shortcuts_are_chosen_by_name() -> None:
    assert [each.name for each in chosen_of(None)] == [
        *("scaled_decode", "fast_chroma", "fast_dct", "bf16", "fp16", "int8", "together")
    ]
    assert [each.settings for each in chosen_of("int8, scaled_decode")] == [{"precision": "int8"}, SCALED.settings]
    with pytest.raises(InputError, match=r"--only: unknown shortcut 'fast_dtc'; did you mean fast_dct\?"):
        chosen_of("int8,fast_dtc")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"precision": "int8"}, "does not take the setting precision"),
        ({"preprocess": "fused"}, "does not take the setting preprocess"),
        ({"mode": "accuracy"}, "asks its pictures itself"),
    ],
)
def test_what_the_study_sets_itself_is_refused(settings: Mapping[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        base_of([RunConfig(**settings)])


def test_the_exact_way_is_one_picture_at_a_time_on_one_thread() -> None:
    base = base_of([RunConfig(backend="openvino", scenario="Offline")])

    assert (base.preprocess, base.precision, base.boundary, base.scenario) == ("fused", "fp32", "jpeg", "SingleStream")
    assert (base.lanes, base.threads, base.max_batchsize, base.preprocess_options) == (1, 1, 1, {})


def test_a_detector_has_no_labels_to_compare() -> None:
    base = base_of([RunConfig(model="planted", backend="null")])

    with pytest.raises(InputError, match="gives no labels to compare"):
        study.price(base, [], BriefConsole(), 1)


@pytest.mark.slow
def test_pictures_are_of_their_size_and_the_same_each_time(tmp_path: Path) -> None:
    few = {"small": 3, "medium": 2, "large": 1}
    for name in ("one", "two"):
        write_pictures(tmp_path / name, few, few)

    for size, wanted in SIZES.items():
        for kind in ("timed", "labelled"):
            found = files(tmp_path / "one", size, kind)
            assert found == files(tmp_path / "two", size, kind)
            assert len(found) == few[size] == len(set(found))
        assert abs(len(files(tmp_path / "one", size, "timed")[0]) / wanted.size_bytes - 1) < 0.15


@pytest.mark.slow
def test_the_command_prices_a_shortcut_from_end_to_end(tmp_path: Path) -> None:
    child = run_python(
        *("-m", "sut", "study", "shortcuts", "--only", "scaled_decode,bf16", "--pairs", "1", "--json"),
        *("--output", tmp_path / "output"),
        cwd=tmp_path,
        timeout_s=600,
        SUT_CACHE_DIR=str(tmp_path / "cache"),  # as on a new machine, where kernels are compiled first
    )

    assert child.code == 0, child.err
    told = json.loads(child.out)
    assert told["command"] == COMMAND and told["weights"] == "trained"
    rows = {(row["shortcut"], row["pictures"]): row for row in told["rows"]}
    assert rows["bf16", None]["reason"] == "onnxruntime has no bf16 on cpu"
    large, small = rows["scaled_decode", "large"], rows["scaled_decode", "small"]
    assert large["exact_parity"]["max_levels"] <= 1 < large["parity"]["max_levels"]
    assert small["parity"] == small["exact_parity"], "what grows is decoded whole"
    assert small["labels"]["value"] == 1.0
    assert small["memory_bytes"]["shortcut"] == pytest.approx(small["memory_bytes"]["exact"], abs=10_000_000)
    assert large["memory_bytes"]["shortcut"] < large["memory_bytes"]["exact"] - 20_000_000, (
        "29 MB of pixels are not held"
    )
    study_file = json.loads((tmp_path / "output/study-shortcuts/study.json").read_text())
    assert study_file["rows"] == told["rows"]
    assert "scaled_decode, large" in (tmp_path / "output/study-shortcuts/report.html").read_text()


def test_a_shortcut_that_is_none_is_refused_in_one_line(tmp_path: Path) -> None:
    child = run_python("-m", "sut", "study", "shortcuts", "--only", "int9", cwd=tmp_path)

    assert child.code == 1
    assert child.err.startswith("error: --only: unknown shortcut 'int9'; did you mean int8?")
    assert len(child.err.splitlines()) == 1
