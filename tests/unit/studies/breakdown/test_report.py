"""From runs that are made up to rows, sentences, warnings and the page; and what a budget leaves out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from sut.cli.console import BriefConsole
from sut.config import make_config
from sut.errors import InputError, SetupError
from sut.results.page.stage_bars import Stacked, stage_bars
from sut.studies.breakdown.cells import BACK_TO_BACK, FIFTH, LOADED, ZERO, Cell, CellRun, Load, Plan
from sut.studies.breakdown.page import study_of
from sut.studies.breakdown.report import overtaking_rows, told
from sut.studies.breakdown.study import Study
from sut.studies.breakdown.timed import Timings
from tests.unit.report_results import a_result
from tests.unit.studies.breakdown.samples import samples

MS = 1_000_000


def study(folder: Path, *preprocessors: str, budget_s: float = 100.0) -> Study:
    cells = [Cell("mix", name, make_config({"preprocess": name})) for name in preprocessors]
    return Study(Plan(cells, {"dali": "it is not here"}), folder, BriefConsole(), lambda text: None, budget_s, None)


def a_run(decode_ms: float, fifth: float | NDArray[np.float64] = 1.0, residual_ms: float = 0.0) -> CellRun:
    """Two hundred samples of each load; every hundredth is large and decodes ten times as long."""
    index = (np.arange(200) % 100 == 0).astype(np.int32)
    decode = np.where(index, 10, 1) * decode_ms * MS
    rest = {"infer": np.full(200, 2 * MS), "residual": np.full(200, residual_ms * MS)}

    def load(times: float | NDArray[np.float64], waiting_ms: float = 0.0) -> Load:
        return Load(samples(index, queue=np.full(200, waiting_ms * MS), decode=times * decode, **rest), 100.0)

    loads = {BACK_TO_BACK: load(1), ZERO: load(1), FIFTH: load(fifth), LOADED: load(1, 20)}
    return CellRun(loads, a_result(), Path("result.json"), ["small", "large"])


def test_rows_sentences_and_page_say_the_same(tmp_path: Path) -> None:
    made = study(tmp_path, "opencv", "fused")
    made.runs = {"opencv, mix": [a_run(6)] * 5, "fused, mix": [a_run(2)] * 5}
    made.model = "a model"
    found = told(made)

    taxes = {(row["preprocess"], row["load"]): row["at"]["p50"]["tax"] for row in found["rows"]}
    assert taxes["opencv", ZERO] == pytest.approx(6 / 8) and taxes["fused", ZERO] == pytest.approx(1 / 2)
    loaded = next(row for row in found["rows"] if row["load"] == LOADED)
    assert loaded["by_round"] == [loaded["by_round"][0]] * 5
    assert loaded["by_round"][0]["p50"]["tax"] == loaded["at"]["p50"]["tax"]
    assert loaded["by_round"][0]["p99"]["waiting"] == pytest.approx(20 / 82, rel=0.01)
    assert taxes["opencv", LOADED] == pytest.approx(26 / 28)  # waiting is not the model
    assert found["sentences"][:2] == [
        "one request at a time, 50 % (fused, mix) to 75 % (opencv, mix) of a typical picture's time is not the model",
        "one request at a time, 91 % (fused, mix) to 97 % (opencv, mix) of the time of the slowest 1 % "
        "is not the model",
    ]
    assert "opencv, mix, loaded, the slowest 1 %: 100 % large (24 % of 82 ms waiting)" in found["sentences"]
    [opencv, fused] = found["zero_load"]
    assert opencv["against_baseline"] is None and fused["against_baseline"]["ratio"] == pytest.approx(2)
    assert (fused["p50_at_20_percent_by_zero_load"], fused["within_10_percent"]) == (1, True)
    page = study_of(found, "s0")
    assert page.title == "a model: where the time goes" and page.sentences[0] == found["sentences"][0]
    assert len(page.figures) == 2 and "fused, zero load: decode 2 ms, infer 2 ms" in page.figures[0].svg
    assert [table.first.heading for table in page.tables] == ["preprocessor", "size"]


@pytest.mark.parametrize(
    ("waiting", "is_near"),
    [((0.0, 0.0, 0.8), True), ((0.6, 0.6, 0.0), True), ((0.8, 0.8, 0.0), False)],
)
def test_zero_load_is_judged_by_the_samples_of_all_rounds(
    tmp_path: Path, waiting: tuple[float, ...], is_near: bool
) -> None:
    """In each round another part of the samples takes twice as long at random times."""
    made = study(tmp_path, "opencv")
    each = [np.where(np.arange(200) < 200 * share, 2.0, 1.0) for share in waiting]
    made.runs = {"opencv, mix": [a_run(6, fifth=times) for times in each]}

    [row] = told(made)["zero_load"]

    assert row["within_10_percent"] is is_near and row["in_rounds"][0] < 1.1 < row["in_rounds"][1]


def test_a_machine_that_is_slower_in_one_round_is_not_a_load_that_is(tmp_path: Path) -> None:
    made = study(tmp_path, "opencv")
    slow = a_run(6)
    few = {name: Load(samples(np.zeros(1, np.int32), infer=np.full(1, 90.0 * MS)), 100.0) for name in (ZERO, FIFTH)}
    made.runs = {"opencv, mix": [slow, replace(slow, loads={**slow.loads, **few}), a_run(60), a_run(600)]}

    [row] = told(made)["zero_load"]

    assert row["p50_at_20_percent_by_zero_load"] == 1


def test_what_makes_a_figure_doubtful_is_a_warning(tmp_path: Path) -> None:
    made = study(tmp_path, "opencv")
    made.runs = {"opencv, mix": [a_run(6, fifth=times, residual_ms=1) for times in (1.0, 1.2, 1.2)]}
    made.left_out, made.failed, made.weights = ["fused, mix"], {"dali, mix": "it broke"}, "random"
    warnings = told(made)["warnings"]

    for words in (
        "the weights are random",
        "the stages leave more than 2 % of the latency at p50 or 5 % of the latency at p99 unexplained: opencv, mix",
        "opencv, mix: p50 at 20 % of the batch-1 rate is 1.13 x that of zero load",
        "left out, as it did not fit into 1.7 min: fused, mix",
        "dali, mix: it broke",
        "not here: dali: it is not here",
    ):
        assert any(line.startswith(words) for line in warnings), (words, warnings)


def test_preprocessors_over_sizes_are_held_against_opencv() -> None:
    pixels = [10_000, 1_000_000]
    rows = overtaking_rows(Timings(pixels, {"opencv": [[2.0] * 5, [200.0] * 5], "fused": [[3.0] * 5, [100.0] * 5]}))

    assert rows[0]["overtaking"] is None and rows[1]["overtaking"]["where"] == "from"
    assert rows[1]["overtaking"]["pixels"] == pytest.approx(10_000 + 990_000 / 101)
    assert [size["against_baseline"]["ratio"] for size in rows[1]["sizes"]] == pytest.approx([2 / 3, 2])
    assert overtaking_rows(None) == []


def ran(monkeypatch: pytest.MonkeyPatch, made: Study, faults: dict[str, Exception], took_s: float = 1.0) -> list[str]:
    """What a study measured, where measuring takes virtual seconds and may raise."""
    measured: list[str] = []
    now = [0.0]
    monkeypatch.setattr(Study, "spent_s", property(lambda self: now[0]))

    def measure(self: Study, cell: Cell) -> None:
        now[0] += took_s
        measured.append(cell.preprocess)
        if cell.preprocess in faults:
            raise faults[cell.preprocess]
        self.runs.setdefault(cell.label, []).append(a_run(1))

    monkeypatch.setattr(Study, "_measure", measure)
    made.run()
    return measured


def test_what_the_budget_does_not_allow_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = study(tmp_path, "a", "b", "c", budget_s=2.5)

    assert ran(monkeypatch, made, {}) == ["a", "b"]
    assert made.left_out == ["c, mix"]


def test_rounds_that_nobody_asked_for_are_whole_or_not_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = study(tmp_path, "a", "b", budget_s=5.5)

    assert ran(monkeypatch, made, {}) == ["a", "b", "a", "b"]
    assert made.left_out == []


def test_rounds_that_were_asked_for_are_missed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = study(tmp_path, "a", "b", budget_s=3.5)
    made.rounds = 2

    assert ran(monkeypatch, made, {}) == ["a", "b", "a"]
    assert made.left_out == ["b, mix, round 2"]


def test_a_cell_that_fails_is_told_and_the_others_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = study(tmp_path, "a", "b", budget_s=4.5)

    assert ran(monkeypatch, made, {"a": SetupError("no a here")}) == ["a", "b", "b", "b"]
    assert made.failed == {"a, mix": "no a here"}


def test_where_nothing_runs_the_first_reason_is_the_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    faults: dict[str, Any] = {"a": InputError("a is wrong"), "b": SetupError("no b")}

    with pytest.raises(InputError, match="a is wrong"):
        ran(monkeypatch, study(tmp_path, "a", "b"), faults)


def test_bars_are_as_long_as_their_times_and_none_is_below_zero() -> None:
    svg = str(
        stage_bars("k", "t", [Stacked("one", {"decode": 30.0, "residual": -5.0}), Stacked("<two>", {"infer": 10.0})])
    )

    assert 'class="st-decode" d="M150.00 2h430.00' in svg and "h143.33" in svg
    assert "st-residual" not in svg and "&lt;two&gt;: infer 10 ms" in svg
