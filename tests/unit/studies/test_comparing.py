"""``sut compare``: the matrix, what is run next, the sentence; on drawn figures, without a process."""

from __future__ import annotations

import json
import random
import re
import statistics
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
from rich.console import Console

from backends.null import Null
from sut.cli.commands import compare
from sut.cli.comparison import table_of
from sut.cli.console import BriefConsole
from sut.cli.options import Options, configs_of
from sut.config import RunConfig, make_config
from sut.config.words import parse_budget
from sut.errors import ExitCode, InputError, RunError, SetupError
from sut.results.schema import Agreement, Parity, Result
from sut.run.runner import Ran
from sut.studies.bare import Bare
from sut.studies.comparing import orders, study
from sut.studies.comparing.automatic import available, put_off
from sut.studies.comparing.bench import CellBench, CellRun, figure_of
from sut.studies.comparing.comparison import Comparison, bar_of, words_of
from sut.studies.comparing.contest import LOOK, Contest
from sut.studies.comparing.earlier import Earlier, Since, read_earlier, since
from sut.studies.comparing.matrix import Cell, cells_of, count_of, from_file
from sut.studies.comparing.orders import Asked, base_of, find_cells, share_of
from sut.studies.comparing.report import rows_of
from sut.studies.comparing.sentence import sentence_of
from sut.studies.tuning.space import parse_lists

BASE = make_config({"scenario": "Offline", "boundary": "jpeg", "time_s": 2.0})
ASKED = Asked(300.0, True, False, None, [], None, False)


def result_of(config: RunConfig, figure: float, **changes: Any) -> Result:
    return Result.model_validate(
        {
            "schema": 1,
            "model": config.model,
            "weights": "trained",
            **{name: getattr(config, name) for name in ("backend", "device", "preprocess", "precision", "boundary")},
            "recipe": {},
            "scenario": config.scenario,
            "mode": "performance",
            "valid": True,
            "invalid_reasons": [],
            "failed_samples": 0,
            "metric": {"name": "samples_per_second", "value": figure, "higher_is_better": True},
            "samples_per_second": figure,
            "samples": 100,
            "latency_ns": {"p50": 5_000_000, "p90": 6_000_000, "p99": 9_000_000},
            "cpu_seconds_per_sample": 0.002,
            "memory_bytes": {"host_peak": 2**28, "gpu_peak": None},
            "config": config.model_dump(mode="json"),
            "started": "2026-01-01T00:00:00+00:00",
            **changes,
        }
    )


class Drawn:
    """A bench whose rates are drawn around planted ones, by label; every run takes ``took_s`` of its clock."""

    def __init__(
        self, rates: Mapping[str, float], noise: float = 0.03, took_s: float = 5.0, seed: int = 1, **changes: Any
    ) -> None:
        self.rates, self.noise, self.took_s = rates, noise, took_s
        self.changes: Mapping[str, Mapping[str, Any]] = changes
        self.results: dict[str, Result] = {}
        self.paths: dict[str, Path] = {}
        self.now = 0.0
        self.order: list[str] = []
        self._draw = random.Random(seed)

    def run(self, cell: Cell, number: int) -> CellRun:
        self.now += self.took_s
        self.order.append(cell.label)
        rate = self.rates.get(cell.label)
        if rate is None:
            return CellRun(number, None, False, True, self.took_s, reason="the disk is on fire")
        figure = rate * (1 + self._draw.gauss(0, self.noise))
        self.results[cell.label] = result_of(cell.config, figure, **self.changes.get(cell.config.precision, {}))
        return CellRun(number, figure, True, False, self.took_s, None, 1 / figure, {"p50": 1e9 / figure})

    def bare(self, cell: Cell) -> Bare:
        self.now += self.took_s
        return Bare(0.01, 1.25 * self.rates[cell.label], 4_000_000, 5_000_000, 0.001)


def compared(
    bench: Drawn, axes: Mapping[str, list[Any]], budget_s: float = 400.0, base: RunConfig = BASE, **more: Any
) -> Comparison:
    comparison = Comparison(cells_of(axes, base), bench, budget_s, lambda text: None, clock=lambda: bench.now, **more)
    comparison.run()
    return comparison


BACKENDS = {"backend": ["onnxruntime", "openvino"]}


def test_the_matrix_names_cells_by_what_differs() -> None:
    axes = {
        "backend": ["onnxruntime", "openvino"],
        "precision": ["int8"],
        "preprocess": ["opencv", "fused"],
        "lanes": [2],
    }
    cells = cells_of(axes, BASE)

    assert [cell.label for cell in cells] == [
        "onnxruntime with opencv",
        "onnxruntime with fused",
        "openvino with opencv",
        "openvino with fused",
    ]
    assert {(cell.config.precision, cell.config.lanes) for cell in cells} == {("int8", 2)}
    assert count_of(axes) == 4
    assert [cell.label for cell in cells_of({"backend_options.streams": [1, 2]}, BASE)] == ["streams=1", "streams=2"]
    assert [cell.label for cell in cells_of({}, BASE)] == ["onnxruntime fp32 with opencv"]


@pytest.mark.parametrize(
    ("axes", "fragment"),
    [
        ({"lances": [1, 2]}, "unknown setting 'lances'; did you mean lanes?"),
        ({"precision": ["fp32", "int9"]}, "precision"),
        ({"output": ["a", "b"]}, "'output' is nothing to compare by"),
        ({"lanes": list(range(1, 200)), "threads": list(range(1, 200))}, "a matrix of 39,601 cells, at most 10,000"),
        ({"model": ["a/m.onnx", "b/m.onnx"]}, "two cells would both be called 'm'"),
    ],
)
def test_a_matrix_that_cannot_be_is_refused(axes: dict[str, list[Any]], fragment: str) -> None:
    with pytest.raises(InputError) as caught:
        cells_of(axes, BASE)

    assert fragment in str(caught.value)


def test_preprocessors_are_compared_only_where_they_are_timed() -> None:
    tensor = BASE.model_copy(update={"boundary": "tensor"})

    with pytest.raises(InputError, match="preprocessors are compared where they are timed"):
        cells_of({"preprocess": ["opencv", "fused"]}, make_config(tensor.model_dump(exclude_unset=True)))


def test_bad_words_are_refused_in_one_line() -> None:
    for words, fragment in ((["lanes"], "--vary takes KEY=V1,V2"), (["lanes=1", "lanes=2"], "--vary has lanes twice")):
        with pytest.raises(InputError, match=fragment):
            parse_lists("--vary", words)
    with pytest.raises(InputError, match="expected a list of plain values"):
        from_file({"backend": [["a"]]}, Path("a.yaml"))
    with pytest.raises(InputError, match="--budget takes a time"):
        parse_budget("5 days")
    for nothing in ("0m", "5"):
        with pytest.raises(InputError, match="--budget takes a time"):
            parse_budget(nothing)
    with pytest.raises(InputError, match="takes a percentage"):
        share_of("3")
    with pytest.raises(InputError, match="add --qps R"):
        base_of([make_config({"scenario": "Server"})])


def test_a_matrix_longer_than_the_budget_is_refused_with_how_long_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", None)
    axes = {"max_batchsize": list(range(1, 1001)), "lanes": [1, 2, 3]}

    with pytest.raises(InputError) as caught:
        find_cells(axes, BASE, ASKED, lambda text: None)

    assert str(caught.value).startswith(
        "3,000 cells: one look at each takes about 10 h, the budget is 5 min; name fewer"
    )


def test_whoever_is_there_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(orders, "_is_there_somebody", lambda: True)
    questions: list[str] = []
    answers = [True, False]
    monkeypatch.setattr("typer.confirm", lambda text, err: questions.append(text) or answers.pop(0))
    axes = {"max_batchsize": list(range(1, 101))}

    cells, asked = find_cells(axes, BASE, ASKED, lambda text: None)

    assert (len(cells.now), asked.yes) == (100, True)
    assert questions == ["100 cells: one look at each takes about 20 min, the budget is 5 min. Look at all of them?"]
    with pytest.raises(InputError, match=r"100 cells: .* name fewer values"):
        find_cells(axes, BASE, ASKED, lambda text: None)


@pytest.fixture
def kinds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two backends and two preprocessors that work here, and a backend that does not."""

    class Fast(Null):
        precisions: ClassVar[Mapping[str, str]] = {"fp32": "fp32", "int8": "int8"}

    class Lame(Null):
        @classmethod
        def version(cls) -> str:
            raise ModuleNotFoundError("the backend lame needs Lame: pip install lame")

    kinds = {"fast": Fast, "onnxruntime": Null, "lame": Lame, "null": Null, "simulated": Null}
    monkeypatch.setattr("backends.registry.names", lambda: list(kinds))
    monkeypatch.setattr("backends.registry.load", kinds.__getitem__)
    monkeypatch.setattr("preprocess.registry.names", lambda: ["fused", "opencv", "simulated"])
    monkeypatch.setattr("preprocess.registry.load", lambda name, options: object)


@pytest.mark.usefixtures("kinds")
def test_without_a_matrix_all_that_works_here_is_tried_and_the_rest_is_named() -> None:
    whole, _ = find_cells({}, BASE, replace(ASKED, budget_s=10_000), lambda text: None)
    cells, _ = find_cells({}, BASE, replace(ASKED, budget_s=120.0), lambda text: None)

    precisions = ["onnxruntime fp32", "fast fp32", "fast int8"]
    assert [cell.label for cell in cells.now] == [f"{each} with opencv" for each in precisions]
    assert [cell.label for cell in cells.later] == [f"{each} with fused" for each in precisions]
    assert cells.absent == {"lame": "the backend lame needs Lame: pip install lame"}
    assert len(whole.now) == 6 and not whole.later
    given = make_config(BASE.model_dump(exclude_unset=True) | {"backend": "fast", "precision": "int8"})
    assert [cell.label for cell in find_cells({}, given, ASKED, lambda text: None)[0].now] == [
        "opencv",
        "fused",
    ]


def test_a_backend_that_cannot_read_the_model_is_left_out_with_the_reason(tmp_path: Path) -> None:
    known = available(make_config({"model": "efficientnet-lite0"}))
    brought = available(make_config({"model": str(tmp_path / "my.tflite"), "model_name": "mobilenet"}))

    assert known.absent["tflite"].startswith("model efficientnet-lite0 is an ONNX file here, expected .tflite")
    assert "onnxruntime" in known.backends
    assert "tflite" in brought.backends and "which backend onnxruntime cannot read" in brought.absent["onnxruntime"]


def test_where_nothing_works_the_reasons_are_those_of_its_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> Any:
        raise ModuleNotFoundError(f"{name} is not installed")

    monkeypatch.setattr("sut.studies.comparing.automatic.load_backend", absent)
    monkeypatch.setattr("sut.studies.comparing.automatic.load_preprocessor", absent)
    given = make_config({**BASE.model_dump(exclude_unset=True), "backend": "openvino"})

    with pytest.raises(SetupError, match=r"^no backend works here: openvino: openvino is not installed$"):
        find_cells({}, given, ASKED, lambda text: None)


def test_unknown_names_are_refused_before_anything_runs() -> None:
    for axes, fragment in (
        ({"backend": ["openvino", "onnxruntme"]}, "did you mean onnxruntime"),
        ({"preprocess": ["opencv", "fusd"]}, "did you mean fused"),
        ({"backend": ["onnxruntme"]}, "did you mean onnxruntime"),
    ):
        with pytest.raises(InputError, match=fragment):
            find_cells(axes, BASE, ASKED, lambda text: None)
    alone = make_config(BASE.model_dump(exclude_unset=True) | {"backend": "onnxruntme"})
    with pytest.raises(InputError, match="did you mean onnxruntime"):
        find_cells({}, alone, ASKED, lambda text: None)


@pytest.mark.parametrize("name", ["backends", "preprocessors", "serving-tax"])
def test_the_shipped_matrices_are_for_compare_and_not_for_run(name: str) -> None:
    path = Path(compare.__file__).parents[3] / "configs" / f"{name}.yaml"
    with pytest.raises(InputError, match="it has a matrix, which sut compare takes"):
        configs_of(Options(config=path))
    first, axes = compare._without_lists(Options(config=path))
    [config] = configs_of(first)

    assert config.scenario == "Offline"
    assert len(cells_of(axes, base_of([config]))) in (3, 4)


def test_lists_of_the_options_win_over_those_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("matrix:\n  backend: [onnxruntime, openvino]\n  scenario: [Offline, Server]\n")
    lists = {"backend": "null,null", "precision": "fp32,int8"}

    first, axes = compare._without_lists(Options(config=tmp_path / "a.yaml", settings=lists, accuracy=True))

    assert axes == {"precision": ["fp32", "int8"]}
    assert (first.settings, first.scenario) == ({"backend": "null", "precision": "fp32"}, "Offline,Server")
    assert first.accuracy is False


def test_the_folder_of_a_comparison_has_a_name_that_is_one(tmp_path: Path) -> None:
    base = BASE.model_copy(update={"model": "<b>x & K\u00f6ln.onnx"})

    assert re.fullmatch("compare-b-x-K\u00f6ln-[0-9a-f]{8}", study.name_of(cells_of(BACKENDS, base), base))


@pytest.mark.parametrize(
    ("scenario", "figure", "words"),
    [("Offline", 469_200.4, "469,200 samples/s"), ("SingleStream", 2.5e6, "2.5 ms")],
)
def test_a_run_in_words_has_no_exponent(scenario: str, figure: float, words: str) -> None:
    assert words_of(CellRun(0, figure, True, False, 1.0), scenario) == words


def test_the_better_one_is_used_and_by_how_much() -> None:
    comparison = compared(Drawn({"onnxruntime": 100.0, "openvino": 300.0}), BACKENDS)

    sentence = sentence_of(comparison)

    assert sentence.startswith("use openvino: ") and sentence.endswith(" against onnxruntime")
    ratio = rows_of(comparison, Path())[1]["ratio"]
    assert ratio["low"] < 3 < ratio["high"] and ratio["verdict"] == "better"
    assert f"{ratio['value']:.2f} x ({ratio['low']:.2f} to {ratio['high']:.2f})" in sentence
    assert comparison.left_s > 300, "settled, so no more time was spent"


def test_equal_ones_cannot_be_told_apart_and_the_budget_ends_it() -> None:
    comparison = compared(Drawn({"onnxruntime": 100.0, "openvino": 100.0}, noise=0.2), BACKENDS)

    sentence = sentence_of(comparison)

    assert "cannot be told from" in sentence and "use " not in sentence
    assert 0 <= comparison.left_s < 10


def test_what_a_cell_s_first_run_chose_is_what_all_its_runs_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = iter([{"lanes": 2, "threads": 1, "max_batchsize": 4}, {"lanes": 1, "threads": 2, "max_batchsize": 8}])

    def run(configs: list[RunConfig], console: object, command: str, rest: object) -> Ran:
        [config] = configs
        plan = {name: getattr(config, name) for name in ("lanes", "threads", "max_batchsize")}
        result = result_of(config, 100.0, plan=next(chosen) if config.lanes is None else plan)
        home = config.output / config.digest()
        (home / "Offline" / "performance").mkdir(parents=True, exist_ok=True)
        (home / "Offline" / "performance" / "result.json").write_text(result.to_json())
        return Ran([result], [ExitCode.OK], home)

    monkeypatch.setattr("sut.studies.comparing.bench.run_experiment", run)
    bench = CellBench(tmp_path, BriefConsole(), lambda text: None, 60.0)
    auto, told = cells_of({"lanes": [None, 2]}, BASE)

    for number in range(3):
        bench.run(auto, number)
        assert bench.results[auto.label].plan == {"lanes": 2, "threads": 1, "max_batchsize": 4}
    bench.run(told, 0)

    assert set(tmp_path.rglob("result.json")) == set(bench.paths.values()) and len(set(bench.paths.values())) == 2


def test_who_cannot_be_told_from_the_best_is_never_far_behind() -> None:
    bench = Drawn({"onnxruntime": 100.0, "openvino": 100.0})
    plain = bench.run

    def run(cell: Cell, number: int) -> CellRun:
        share = 1.0 if cell.label == "onnxruntime" or number % 4 == 1 else 3.0
        return replace(plain(cell, number), figure=100.0 * share * (1 + 0.2 * (number % 3)))

    bench.run = run  # type: ignore[method-assign]
    comparison = compared(bench, BACKENDS, budget_s=75.0)

    words = {row["cell"]: row["verdict"] for row in rows_of(comparison, Path())}
    assert words == {"onnxruntime": "not told from the best", "openvino": "best"}
    assert sentence_of(comparison).startswith("stay with onnxruntime: openvino cannot be told from it here")


def test_where_speed_cannot_tell_cpu_time_may() -> None:
    bench = Drawn({"onnxruntime": 100.0, "openvino": 106.0}, noise=0.2)
    plain = bench.run

    def run(cell: Cell, number: int) -> CellRun:
        cpu = {"onnxruntime": 0.010, "openvino": 0.004}[cell.label] * (1 + 0.01 * (number % 3))
        return replace(plain(cell, number), cpu_seconds_per_sample=cpu)

    bench.run = run  # type: ignore[method-assign]
    comparison = compared(bench, BACKENDS)
    leader = comparison.contests[comparison.cells[0].group].leader

    assert leader == "openvino"
    assert sentence_of(comparison).startswith("use openvino: it takes 0.40 x the CPU time of onnxruntime; by speed")


def test_without_time_for_a_pair_nothing_is_decided() -> None:
    comparison = compared(Drawn({"onnxruntime": 100.0, "openvino": 300.0}), BACKENDS, budget_s=20.0)

    assert sentence_of(comparison).startswith("the budget ended before any pair of runs: so far openvino is 3")
    assert rows_of(comparison, Path())[1]["ratio"]["low"] is None


def test_who_is_far_from_the_leader_and_not_told_from_it_is_said_to_be() -> None:
    comparison = compared(Drawn({"onnxruntime": 100.0, "openvino": 60.0}), BACKENDS, budget_s=40.0)

    assert re.match(
        r"stay with onnxruntime; openvino \(0\.\d\d x so far\) cannot be told from onnxruntime", sentence_of(comparison)
    )


def test_time_goes_where_the_answer_is_open() -> None:
    bench = Drawn(
        {"max_batchsize=1": 40.0, "max_batchsize=2": 150.0, "max_batchsize=4": 200.0, "max_batchsize=8": 202.0}
    )

    comparison = compared(bench, {"max_batchsize": [1, 2, 4, 8]})

    runs = {label: bench.order.count(label) for label in bench.rates}
    assert 2 * runs["max_batchsize=2"] < min(runs["max_batchsize=4"], runs["max_batchsize=8"])
    words = {row["cell"]: row["verdict"] for row in rows_of(comparison, Path())}
    assert words["max_batchsize=2"] == "slower" and words["max_batchsize=1"] == "far behind"
    assert sorted(words.values())[:2] == ["best", "far behind"] and "not told from the best" in words.values()
    assert "cannot be told from max_batchsize=" in sentence_of(comparison)


def test_a_backend_that_reads_no_model_does_not_make_it_another_and_a_changed_file_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = iter((None, "ab", None, "ab", "cd"))

    def experiment(configs: list[RunConfig], *more: object, rest: object) -> Ran:
        made = result_of(configs[0], 100.0, model_sha256=next(content))
        return Ran(results=[made], codes=[ExitCode.OK], home=tmp_path)

    monkeypatch.setattr("sut.studies.comparing.bench.run_experiment", experiment)
    bench = CellBench(tmp_path, BriefConsole(), lambda text: None, 100.0)
    nothing, something = cells_of({"backend": ["null", "onnxruntime"]}, BASE)

    assert [bench.run(cell, LOOK).figure for cell in (nothing, something, nothing, something)] == [100.0] * 4
    with pytest.raises(RunError, match="the model changed during the runs"):
        bench.run(something, LOOK)


def test_preprocessors_are_tried_with_who_is_ahead_later_too() -> None:
    rates = {"onnxruntime": 100.0, "openvino": 200.0}
    bench = Drawn({f"{name} with {how}": rate for name, rate in rates.items() for how in ("opencv", "fused")})
    bench.rates = {**bench.rates, "openvino with fused": 300.0}
    plain = bench.run

    def run(cell: Cell, number: int) -> CellRun:
        made = plain(cell, number)
        is_chance = number == LOOK and cell.label == "onnxruntime with opencv"
        return replace(made, figure=500.0) if is_chance else made

    bench.run = run  # type: ignore[method-assign]
    now, later = put_off(cells_of({**BACKENDS, "preprocess": ["opencv", "fused"]}, BASE))

    comparison = Comparison(now, bench, 600.0, lambda text: None, later=later, clock=lambda: bench.now)
    comparison.run()

    assert sentence_of(comparison).startswith("use openvino with fused: ")


def test_who_was_put_far_behind_by_chance_is_looked_at_again() -> None:
    bench = Drawn({"max_batchsize=1": 100.0, "max_batchsize=2": 300.0, "max_batchsize=4": 600.0})
    plain = bench.run

    def run(cell: Cell, number: int) -> CellRun:
        found = plain(cell, number)
        stalled = cell.label == "max_batchsize=4" and number == 0
        return replace(found, figure=found.figure / 5) if stalled and found.figure else found

    bench.run = run  # type: ignore[method-assign]

    comparison = compared(bench, {"max_batchsize": [1, 2, 4]}, budget_s=1000.0)

    assert sentence_of(comparison).startswith("use max_batchsize=4: 6")


def test_rounds_alternate_so_that_a_drift_hits_nobody_twice() -> None:
    bench = Drawn({"onnxruntime": 100.0, "openvino": 100.0}, noise=0.2)

    compared(bench, BACKENDS, budget_s=80.0)

    assert bench.order[2:8] == ["onnxruntime", "openvino", "openvino", "onnxruntime", "onnxruntime", "openvino"]


def test_identical_cells_are_rarely_called_different() -> None:
    wrong = 0
    for seed in range(100):
        contest = Contest("a", True)
        draw = random.Random(seed)
        for name in "abcd":
            contest.add(name, 0, draw.gauss(100, 5))
        number, left = 1, 80.0
        while chosen := contest.next_round(number, dict.fromkeys("abcd", 1.0), left):
            for name in chosen:
                contest.add(name, number, draw.gauss(100, 5))
            number, left = number + 1, left - len(chosen)
        found = contest.versus(contest.leader or "a", "a")
        wrong += found is not None and found.verdict != "open"

    assert wrong <= 5


def test_of_many_that_are_the_same_none_is_called_slower_than_the_one_that_luck_puts_ahead() -> None:
    wrong = 0
    for seed in range(60):
        contest = Contest("a", True)
        draw = random.Random(seed)
        open_to_the_last = True
        for number in range(12):
            contest.add("a", number, draw.gauss(50, 2.5))
            for name in "bcdefghi":
                contest.add(name, number, draw.gauss(100, 5))
            open_to_the_last = open_to_the_last and len(contest.rivals) >= 7
        wrong += not open_to_the_last

    assert wrong <= 3


def test_latencies_are_better_when_lower() -> None:
    contest = Contest("a", False)
    for number in range(6):
        contest.add("a", number, 10.0 + 0.1 * number)
        contest.add("b", number, 5.0 + 0.1 * number)

    assert contest.leader == "b"
    found = contest.versus("b", "a")
    assert found is not None and found.verdict == "better" and found.pairs == 5


def test_a_cell_that_fails_is_a_row_and_the_next_is_the_baseline() -> None:
    comparison = compared(Drawn({"openvino": 300.0, "null": 100.0}), {"backend": ["onnxruntime", "openvino", "null"]})

    rows = rows_of(comparison, Path())

    assert rows[0]["reason"] == "the disk is on fire" and rows[0]["barred"] == "failed: the disk is on fire"
    assert rows[1]["against"] == "openvino"
    assert sentence_of(comparison) == "stay with openvino: nothing here is faster"


SAME = {"low": 0.9, "high": 1.0, "count": 1000, "source": "a test", "words": "some"}


def test_labels_decide_too() -> None:
    rates = {"fp32": 100.0, "bf16": 200.0, "int8": 300.0}
    changes = {"bf16": {"agreement": SAME | {"value": 0.992}}, "int8": {"agreement": SAME | {"value": 0.4}}}

    comparison = compared(Drawn(rates, **changes), {"precision": ["fp32", "bf16", "int8"]})

    sentence = sentence_of(comparison)
    assert sentence.startswith("use bf16: ") and "fp32 at 99.2 % same labels" in sentence
    assert sentence.endswith("; int8 is faster, but 40.0 % same labels as fp32, less than 95 %")
    assert [row["pareto"] for row in rows_of(comparison, Path())] == [True, True, True]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "; its answers are not compared with fp32's"),
        ({"weights": "random", "agreement": SAME | {"value": 1.0}},
         "; its answers are not compared with fp32's, random weights"),
    ],
)  # fmt: skip
def test_labels_that_nobody_has_compared_are_not_taken_for_the_same(changes: dict[str, Any], said: str) -> None:
    comparison = compared(Drawn({"fp32": 100.0, "int8": 300.0}, int8=changes), {"precision": ["fp32", "int8"]})

    assert sentence_of(comparison).endswith(f" against fp32{said}")
    assert [row["pareto"] for row in rows_of(comparison, Path())] == [True, True]


def test_nor_are_those_of_a_second_model() -> None:
    base = make_config(BASE.model_dump(exclude_unset=True) | {"boundary": "jpeg", "identify": "efficientnet-lite0"})
    axes = {"identify_precision": ["fp32", "int8"]}
    comparison = compared(Drawn({"identify_precision=fp32": 100.0, "identify_precision=int8": 300.0}), axes, base=base)

    assert sentence_of(comparison).endswith("; int8 of the second model: its labels against fp32's are not known")
    rows = rows_of(comparison, Path())
    assert [(row["pareto"], row["reduced"]) for row in rows] == [(True, False), (True, True)]


def test_who_is_chosen_without_a_valid_run_is_said_to_be() -> None:
    bench = Drawn({"onnxruntime": 100.0, "openvino": 300.0})
    plain = bench.run
    bench.run = lambda cell, number: replace(  # type: ignore[method-assign]
        plain(cell, number), valid=cell.label != "openvino", reason="LoadGen logged an error"
    )

    said = sentence_of(compared(bench, BACKENDS))

    assert said.endswith(" against onnxruntime; no run of openvino was VALID: LoadGen logged an error")


def test_cells_that_were_not_looked_at_are_not_called_slower() -> None:
    bench = Drawn({"max_batchsize=1": 300.0, "max_batchsize=2": 100.0, "max_batchsize=4": 600.0})

    comparison = compared(bench, {"max_batchsize": [1, 2, 4]}, budget_s=15.0)

    assert sentence_of(comparison).endswith("; 1 cell was not looked at")
    alone = compared(bench, {"max_batchsize": [1, 2, 4]}, budget_s=5.0)
    assert sentence_of(alone).endswith("; 2 cells were not looked at")


def test_where_the_first_cell_fails_on_the_way_the_next_is_the_baseline() -> None:
    bench = Drawn({"max_batchsize=1": 100.0, "max_batchsize=2": 101.0, "max_batchsize=4": 300.0})
    plain = bench.run

    def run(cell: Cell, number: int) -> CellRun:
        fails = cell.label == "max_batchsize=1" and number == 2
        found = plain(cell, number)
        return replace(found, figure=None, failed=True, reason="out of memory") if fails else found

    bench.run = run  # type: ignore[method-assign]

    comparison = compared(bench, {"max_batchsize": [1, 2, 4]})

    assert sentence_of(comparison).startswith("use max_batchsize=4: ")
    assert " against max_batchsize=2" in sentence_of(comparison)
    assert bench.order.count("max_batchsize=1") == 3


def test_other_pictures_are_no_choice_and_not_on_the_pareto_line() -> None:
    off = Parity(max_levels=41, mean_levels=0.8, share_over_1=0.2, psnr_db=40.0, pictures=11)
    run = CellRun(0, 100.0, True, False, 1.0)

    assert bar_of([run], result_of(BASE, 100.0, parity=off.model_dump())) == (
        "other pictures than the reference's: max 41 levels, mean 0.8, 20 % of pixels over 1, 40.0 dB"
    )
    close = Parity(max_levels=1, mean_levels=0.1, share_over_1=0.0, psnr_db=60.0, pictures=11)
    assert bar_of([run], result_of(BASE, 100.0, parity=close.model_dump())) is None
    same = Agreement(value=0.1, **SAME).model_dump()
    assert bar_of([run], result_of(BASE, 100.0, agreement=same, weights="random")) is None
    late = CellRun(0, 100.0, False, False, 1.0, reason="late")
    server = BASE.model_copy(update={"scenario": "Server"})
    assert bar_of([late], result_of(server, 100.0)) == "INVALID: late" and bar_of([late], result_of(BASE, 9.0)) is None


def test_other_work_is_decided_apart() -> None:
    rates = {
        f"{backend} at {boundary}": rate
        for backend, rate in (("onnxruntime", 100.0), ("openvino", 300.0))
        for boundary in ("tensor", "jpeg")
    }

    comparison = compared(Drawn(rates), BACKENDS | {"boundary": ["tensor", "jpeg"]}, budget_s=800.0)

    sentence = sentence_of(comparison)
    assert sentence.startswith("tensor: use openvino: ") and ". jpeg: use openvino: " in sentence
    assert [row["against"] for row in rows_of(comparison, Path())] == [
        "onnxruntime at tensor",
        "onnxruntime at jpeg",
    ] * 2


def test_the_put_off_preprocessors_run_with_the_leader_alone() -> None:
    cells = cells_of({"backend": ["onnxruntime", "openvino"], "preprocess": ["opencv", "fused"]}, BASE)
    rates = {"onnxruntime with opencv": 100.0, "openvino with opencv": 300.0, "openvino with fused": 500.0}
    bench = Drawn(rates)
    comparison = Comparison(cells[::2], bench, 400.0, lambda text: None, cells[1::2], clock=lambda: bench.now)

    comparison.run()

    assert bench.order[:3] == list(rates) and "onnxruntime with fused" not in bench.order
    assert sentence_of(comparison).startswith("use openvino with fused: ")


def test_rows_have_price_bare_and_figures_and_the_table_fits_80_columns(capsys: pytest.CaptureFixture[str]) -> None:
    axes = {"backend": ["onnxruntime", "openvino"], "preprocess": ["opencv", "dali-resize"], "max_batchsize": [16, 32]}
    rates = {cell.label: 123.4 for cell in cells_of(axes, BASE)}
    comparison = compared(Drawn(rates), axes, budget_s=200.0)
    comparison.absent["cuda"] = "no GPU here"
    comparison.absent |= {name: f"the backend {name} needs what is not here: a GPU" for name in ("tensorrt", "cudnn")}

    rows = rows_of(comparison, Path(), price_per_hour=3.6)

    first = rows[0]
    assert first["price_per_million"] == pytest.approx(3.6 / 3600 / first["samples_per_second"] * 1e6)
    assert first["bare"]["share"] == pytest.approx(first["figures"]["0"] / (1.25 * 123.4))
    assert first["latency_ns"] == {"p50": statistics.median(1e9 / each for each in first["figures"].values())}
    assert rows[-3] == {"cell": "cuda", "settings": {}, "result": None, "reason": "no GPU here"}
    json.dumps(rows, allow_nan=False)
    Console(width=80, highlight=False).print(table_of(comparison, rows))
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    text = "\n".join(lines)
    assert "onnxruntime with" in text and "~0.80" in text and "does not run: cuda: no GPU here" in text
    assert "does not run: tensorrt, cudnn: the backend needs what is not here: a GPU" in text


def test_what_is_left_of_bare_is_by_the_run_before_it() -> None:
    base = BASE.model_copy(update={"scenario": "SingleStream"})
    bench = Drawn({"onnxruntime": 123.4, "openvino": 130.0}, noise=0.2)
    comparison = Comparison(cells_of(BACKENDS, base), bench, 100.0, lambda text: None, clock=lambda: bench.now)
    comparison.run()

    row = rows_of(comparison, Path())[0]

    assert len(row["figures"]) > 1
    assert row["bare"]["share"] == pytest.approx(4_000_000 / (1e9 / row["figures"]["0"]))


def test_a_server_run_is_compared_by_p99_and_a_missing_estimate_by_what_was_seen() -> None:
    assert figure_of(result_of(BASE.model_copy(update={"scenario": "Server"}), 50.0)) == 9_000_000
    nothing = {"metric": {"name": "early_stopping_p90_latency_ns", "value": None, "higher_is_better": False}}
    assert figure_of(result_of(BASE.model_copy(update={"scenario": "SingleStream"}), 50.0, **nothing)) == 6_000_000


def test_a_baseline_of_before_is_slower_or_not_or_cannot_be_told() -> None:
    [cell] = cells_of({}, BASE)
    steady = [100.0, 100.5, 99.5, 100.2, 99.8, 100.1, 99.9, 100.3]
    old = Earlier(BASE.model_dump(mode="json"), tuple(steady), {})

    slower = since(cell, [0.9 * each for each in steady[::-1]], old)
    same = since(cell, steady[::-1], old)
    few = since(cell, [90.0, 91.0], old)

    assert slower is not None and slower.slower_by(0.03) is True and "slower by more than 3 %" in slower.words(0.03)
    assert same is not None and same.slower_by(0.03) is False
    assert few is not None and few.slower_by(0.03) is None and "cannot be told" in few.words(0.03)


def test_one_old_run_has_a_spread_of_its_own() -> None:
    [cell] = cells_of({}, BASE)
    settings = BASE.model_dump(mode="json")
    now = [96.0, 104.0, 95.0, 103.0, 97.0, 101.0, 99.0, 105.0]

    many, one = (since(cell, now, Earlier(settings, figures, {})) for figures in ((115.0,) * 50, (115.0,)))

    assert many is not None and many.slower_by(0.03) is True
    assert one is not None and one.slower_by(0.03) is None


def test_the_baseline_is_a_result_or_a_comparison_and_of_the_same_cell(tmp_path: Path) -> None:
    comparison = compared(Drawn({"onnxruntime": 100.0, "openvino": 300.0}), BACKENDS)
    (tmp_path / "compare.json").write_text(
        json.dumps({"schema": 1, "command": "compare", "rows": rows_of(comparison, tmp_path), "system": {"cores": 2}})
    )
    (tmp_path / "result.json").write_text(result_of(BASE, 50.0, duration_s=2.0).to_json())
    first, second = comparison.cells

    for found in (read_earlier(tmp_path / "compare.json"), read_earlier(tmp_path / "result.json")):
        assert found[0].is_of(first) and not found[0].is_of(second)
    assert read_earlier(tmp_path / "result.json")[0].figures == (50.0,)
    for content in ("", "[]", '{"schema": 2}', '{"schema": 1, "command": "compare", "rows": [{"figures": 3}]}'):
        (tmp_path / "bad.json").write_text(content)
        with pytest.raises(InputError, match=r"--baseline .*bad.json"):
            read_earlier(tmp_path / "bad.json")


def test_a_cell_of_the_baseline_that_fails_now_is_not_as_fast_as_it_was() -> None:
    comparison = compared(Drawn({"openvino": 300.0}), BACKENDS, with_bare=False)
    ran, failed = ([Earlier(cell.config.model_dump(mode="json"), (1.0,), {})] for cell in comparison.cells[::-1])

    asked = replace(ASKED, earlier=failed, fail_if_slower=0.03)
    code, words = study.against(comparison.cells, comparison, asked)

    assert (code, words) == (3, ["onnxruntime: cannot be held against the baseline: the disk is on fire"])
    assert study.against(comparison.cells, comparison, replace(asked, earlier=ran))[0] == 0
    assert study.against(comparison.cells, comparison, replace(asked, fail_if_slower=None))[0] == 0


def test_other_pictures_or_another_rate_are_no_baseline(tmp_path: Path) -> None:
    comparison = compared(Drawn({"onnxruntime": 100.0, "openvino": 300.0}), BACKENDS)
    rows = rows_of(comparison, tmp_path)
    (tmp_path / "compare.json").write_text(json.dumps({"schema": 1, "command": "compare", "rows": rows}))
    (tmp_path / "result.json").write_text(result_of(BASE, 50.0, duration_s=2.0).to_json())
    cell = comparison.cells[0]

    others = ({"dataset_path": Path("others")}, {"qps": 3.0}, {"backend_options": {"hint": "latency"}})
    for found in (read_earlier(tmp_path / "compare.json")[0], read_earlier(tmp_path / "result.json")[0]):
        assert found.is_of(cell)
        for other in (*others, {"identify": "efficientnet-lite0"}):
            assert not found.is_of(replace(cell, config=cell.config.model_copy(update=other)))


def test_an_unknown_interval_fails_nothing() -> None:
    assert Since("a", 0.5, None, None, (1, 2)).slower_by(0.03) is None


def test_what_changes_the_question_is_no_alternative() -> None:
    stream = make_config(BASE.model_dump(exclude_unset=True) | {"scenario": "MultiStream"})
    asked = {"samples_per_query": [2, 8], "qps": [1, 2], "count": [3, 4], "dataset": ["demo", "folder"]}

    for axes in ({key: values} for key, values in asked.items()):
        with pytest.raises(InputError, match="it changes what is asked, so that its cells do not do the same work"):
            find_cells(axes, stream, ASKED, lambda text: None)
    [one, two] = cells_of({"samples_per_query": [8], "lanes": [1, 2]}, stream)
    assert (one.config.samples_per_query, two.label) == (8, "lanes=2")


def test_the_pareto_line_is_by_the_ratio_that_the_row_shows() -> None:
    first, second = cells_of(BACKENDS, BASE)
    bench = Drawn(dict.fromkeys((first.label, second.label), 100.0))
    comparison = Comparison([first, second], bench, 100.0, lambda text: None)
    contest = comparison.contest_of(first)
    for cell, figures in ((first, [100.0, 130.0, 101.0, 102.0]), (second, [120.0, 100.0, 120.0])):
        comparison.runs[cell.label] = [bench.run(cell, number) for number in range(len(figures))]
        for number, figure in enumerate(figures):
            contest.add(cell.label, number, figure)

    rows = rows_of(comparison, Path())

    assert rows[1]["metric"]["value"] > rows[0]["metric"]["value"] and rows[1]["ratio"]["value"] < 1
    assert [row["pareto"] for row in rows] == [True, False]


def test_the_price_is_of_all_runs_and_none_where_the_rate_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates = iter([50.0, 40.0, 10.0] * 2)

    def experiment(configs: list[RunConfig], *more: object, rest: object) -> Ran:
        made = result_of(configs[0], 20_000_000.0, samples_per_second=next(rates))
        return Ran(results=[made], codes=[ExitCode.OK], home=tmp_path)

    monkeypatch.setattr("sut.studies.comparing.bench.run_experiment", experiment)
    rows = []
    for scenario in ("SingleStream", "Server"):
        [cell] = cells_of({}, make_config(BASE.model_dump(exclude_unset=True) | {"scenario": scenario}))
        bench = CellBench(tmp_path, BriefConsole(), lambda text: None, 100.0)
        comparison = Comparison([cell], bench, 100.0, lambda text: None)
        for number in range(3):
            comparison._run(cell, number)
        rows += rows_of(comparison, tmp_path, price_per_hour=3.6)

    assert [row["samples_per_second"] for row in rows] == [40.0, 40.0]
    assert [row["price_per_million"] for row in rows] == [pytest.approx(25.0), None]


@pytest.mark.parametrize(
    ("content", "fragment"),
    [
        ("scenario: 5\n", "unknown scenario '5'"),
        ("scenario: no\n", "unknown scenario 'False'"),
        ("matrix:\n  scenario: [1, 2]\n", "unknown scenario '1'"),
    ],
)
def test_what_is_no_scenario_is_refused_in_one_line(tmp_path: Path, content: str, fragment: str) -> None:
    (tmp_path / "a.yaml").write_text(content)
    first, _ = compare._without_lists(Options(config=tmp_path / "a.yaml"))

    with pytest.raises(InputError, match=fragment):
        configs_of(first)


@pytest.mark.parametrize("word", ["backend_options={a: 1},{b: 2}", "lanes=[1],[2]"])
def test_a_value_that_is_no_plain_one_is_no_axis(word: str) -> None:
    with pytest.raises(InputError, match=r"is (\{'a': 1\}|\[1\]), expected a plain value; "):
        find_cells(parse_lists("--vary", [word]), BASE, ASKED, lambda text: None)


@pytest.mark.usefixtures("kinds")
def test_what_only_sets_groups_apart_is_no_matrix_and_all_is_tried_in_each() -> None:
    boundaries = {"boundary": ["tensor", "jpeg"]}
    said: list[str] = []

    whole, _ = find_cells(boundaries, BASE, replace(ASKED, budget_s=10_000), said.append)
    cells, _ = find_cells({"scenario": ["Offline", "SingleStream"]}, BASE, replace(ASKED, budget_s=140.0), said.append)

    forms = ["onnxruntime fp32", "fast fp32", "fast int8"]
    assert [cell.label for cell in whole.now] == [
        *(f"{each} with opencv at tensor" for each in forms),
        *(f"{each} with {how} at jpeg" for each in forms for how in ("opencv", "fused")),
    ]
    streamed = [each.label for each in cells.now if each.config.scenario == "SingleStream"]
    assert streamed == [f"{each} with opencv in SingleStream" for each in forms]
    assert (len(cells.now), len(cells.later)) == (6, 6)
    assert "in Offline at the boundary tensor and jpeg: " in said[0]
    assert "in Offline and SingleStream at the boundary jpeg: " in said[1]
    with pytest.raises(InputError, match=r"^8 cells: one look at each takes about "):
        find_cells({"scenario": ["Offline", "SingleStream"]}, BASE, replace(ASKED, budget_s=90.0), said.append)


def test_the_time_asked_for_knows_how_many_queries_server_needs() -> None:
    server = make_config(BASE.model_dump(exclude_unset=True) | {"scenario": "Server", "qps": 2.0})
    stream = make_config(BASE.model_dump(exclude_unset=True) | {"scenario": "MultiStream"})

    for base, lanes, told in (
        (server, [1, 2], "2 cells: one look at each takes about 11.6 min"),  # 690 queries at 2/s, and no bare loop
        (stream, list(range(1, 51)), "50 cells: one look at each takes at least 10 min"),
    ):
        with pytest.raises(InputError, match=f"^{told}, the budget is 5 min"):
            find_cells({"lanes": lanes}, base, ASKED, lambda text: None)


@pytest.mark.parametrize(
    ("given", "flag"),
    [
        ({"max_latency_s": 1.0}, "--max-latency"),
        ({"max_wait_ms": 2.0}, "--max-wait"),
        ({"samples_per_query": 2}, "--samples-per-query"),
        ({"boundary": "tensor", "preprocess_workers": 2}, "--preprocess-workers"),
    ],
)
@pytest.mark.parametrize("axes", [{"lanes": [1, 2]}, {}], ids=["matrix", "no matrix"])
@pytest.mark.usefixtures("kinds")
def test_an_option_that_no_cell_can_use_is_refused(given: dict[str, Any], flag: str, axes: dict[str, Any]) -> None:
    base = make_config(BASE.model_dump(exclude_unset=True) | given)

    with pytest.raises(InputError, match=f"^{flag} has no effect .*; leave it out$"):
        find_cells(axes, base, ASKED, lambda text: None)


def test_an_option_that_one_cell_can_use_is_taken() -> None:
    base = make_config(BASE.model_dump(exclude_unset=True) | {"preprocess_workers": 1, "calibration_list": Path("a")})
    axes = {"boundary": ["jpeg", "tensor"], "precision": ["int8", "fp32"]}

    cells, _ = find_cells(axes, base, ASKED, lambda text: None)

    assert len(cells.now) == 4
