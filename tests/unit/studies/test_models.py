"""``sut study models``: what is run, what the results say of size, share and gain, and how it is told."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from sut.cli.console import Console
from sut.cli.emit import emit
from sut.cli.study_models import _shown
from sut.config import RunConfig, make_config
from sut.errors import ExitCode, InputError, SetupError
from sut.models.size import ModelSize
from sut.results.page.page import make_page
from sut.results.schema import Result
from sut.run.energy.metering import AtRest
from sut.run.runner import Ran
from sut.studies.models import study as models
from sut.studies.models.page import sentences_of, study_of
from sut.studies.models.study import Half, Measured, half_flops, half_of, model_rows, share_of, summary_of
from tests.unit.results.test_prices import measured as a_result

G = 1e9


def result(infer: int, rest: int = 100, rate: float = 10.0, **changes: Any) -> Result:
    """Of a run in which a sample took so many ms."""
    fields = {"samples_per_second": rate, "weights": "random", "mode": "performance"} | changes
    return a_result("jpeg", {"decode": rest, "infer": infer}, **fields)


def test_the_share_is_inferences_part_of_the_busy_time() -> None:
    assert share_of(result(25, 75)) == 0.25
    assert share_of(result(0)) == 0
    assert share_of(a_result("jpeg", {"decode": 3})) is None
    assert share_of(a_result("jpeg", {})) is None


@pytest.mark.parametrize(
    ("points", "flops"),
    [
        ([], None),
        ([(1e9, 0.4)], None),
        ([(1e9, 0.6)], None),
        ([(1e9, 0.5)], None),  # nothing is below
        ([(1e9, 0.25), (4e9, 0.75)], 2e9),
        ([(4e9, 0.75), (1e9, 0.25)], 2e9),  # in any order
        ([(1e9, 0.4), (1e10, 0.5)], 1e10),
        ([(1e9, 0.4), (1e10, 0.9)], 10**9.2),
        ([(1e9, 0.7), (2e9, 0.4), (8e9, 0.6)], 4e9),  # what is larger may have less
        ([(1e9, 0.7), (2e9, 0.4)], None),
        ([(1e9, 0.4), (4e9, 0.6), (5e9, 0.1), (9e9, 0.9)], 2e9),  # the first time
    ],
)
def test_where_inference_passes_a_half(points: list[tuple[float, float]], flops: float | None) -> None:
    found = half_flops(points)

    assert found == (None if flops is None else pytest.approx(flops))


SIZES = {"small": 1e9, "large": 4e9}


@pytest.mark.parametrize(
    ("rounds", "expected"),
    [
        ([], Half(None, None, None, "not measured")),
        ([{"small": 0.1, "large": 0.3}] * 2, Half(None, None, None, "not reached")),
        ([{"small": 0.6, "large": 0.7}] * 2, Half(None, None, None, "always")),
        ([{"small": 0.6, "large": 0.4}] * 2, Half(None, None, None, "not in order")),
        ([{"small": 0.25, "large": 0.75}], Half(2e9, None, None, "passed")),
        # One round goes without: the interval would be of the others only.
        (
            [{"small": 0.25, "large": 0.75}, {"small": 0.6, "large": 0.75}],
            Half(1e9 * 4 ** (0.075 / 0.325), None, None, "passed"),
        ),
        (
            [{"small": 0.25, "large": 0.75}, {"small": 0.0, "large": 1.0}, {"small": 0.4, "large": 0.6}],
            Half(2e9, 2e9, 2e9, "passed"),
        ),
        (
            [{"small": 0.25, "large": 0.75}, {"small": 0.25, "large": 0.5}, {"small": 0.25, "large": 1.0}],
            Half(2e9, 1e9 * 4 ** (1 / 3), 4e9, "passed"),
        ),
    ],
)
def test_its_interval_is_the_spread_of_the_rounds(rounds: list[Mapping[str, float]], expected: Half) -> None:
    found = half_of(rounds, SIZES)

    assert found.verdict == expected.verdict
    for name in ("flops", "low", "high"):
        wanted = getattr(expected, name)
        assert getattr(found, name) == (None if wanted is None else pytest.approx(wanted)), name


def four_rounds() -> Measured:
    """Two models by two preprocessors; ``fused`` doubles the small one's rate and does a tenth for the large one."""
    found = Measured(sizes={"large": ModelSize(40_000_000, int(4e9)), "small": ModelSize(3_000_000, int(1e9))})
    for number in range(4):
        slower = 1 - number / 100
        found.rounds.append(
            {
                ("small", "opencv"): result(33, 99, 100 * slower),
                ("small", "fused"): result(33, 33, 200 * slower),
                ("large", "opencv"): result(300, 100, 10 * slower),
                ("large", "fused"): result(300, 50, 11 * slower * (1 + number / 1000)),
            }
        )
    return found


def test_rows_are_from_few_flops_to_many_with_gains_by_pairs() -> None:
    rows = model_rows(four_rounds(), ["large", "small"], ["opencv", "fused"])

    assert [(row["model"], row["preprocess"]) for row in rows] == [
        (model, name) for model in ("small", "large") for name in ("opencv", "fused")
    ]
    small, doubled, _, tenth = rows
    assert (small["gain"], small["inference_share"], small["rounds"], small["valid"]) == (None, 0.25, 4, True)
    assert (small["model_parameters"], small["model_flops"]) == (3_000_000, 10**9)
    assert (small["infer_ns"], small["cost_ns"], small["samples_per_second"]) == (33e6, 132e6, 98.5)
    assert (doubled["gain"]["ratio"], doubled["gain"]["pairs"]) == (pytest.approx(2), 4)
    assert tenth["gain"]["low"] < tenth["gain"]["ratio"] < tenth["gain"]["high"]
    assert tenth["gain"]["verdict"] == "better"
    json.dumps(rows)


def test_the_summary_has_range_and_mean_of_the_gains_and_the_half() -> None:
    found = four_rounds()
    names = ["opencv", "fused"]
    rows = model_rows(found, ["small", "large"], names)

    summary = summary_of(found, rows, names)

    gain = summary["gains"]["fused"]
    assert (gain["low_model"], gain["high_model"], gain["models"]) == ("large", "small", 2)
    assert gain["mean"] == pytest.approx((gain["low"] + gain["high"]) / 2)
    assert gain["high"] == pytest.approx(2)
    half = summary["half"]["opencv"]
    assert (half["verdict"], half["flops"], half["low"], half["high"]) == ("passed", *[pytest.approx(2e9)] * 3)
    assert summary["half"]["fused"]["verdict"] == "always"
    assert "opencv" not in summary["gains"]


def test_a_share_that_varies_has_its_ends_in_order() -> None:
    found = Measured(sizes={"one": ModelSize(1, int(1e9))})
    found.rounds = [{("one", "opencv"): result(infer, 100 - infer)} for infer in (40, 20, 60)]

    [row] = model_rows(found, ["one"], ["opencv"])

    assert row["inference_share_range"] == [pytest.approx(0.2), pytest.approx(0.6)]


def test_models_are_names_files_and_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "clip").mkdir()
    (tmp_path / "resnet50").mkdir()

    chosen = models.chosen_models("clip, resnet50,ResNet50,./clip,./own.onnx")

    assert chosen == ("./clip", "resnet50", "./own.onnx")
    with pytest.raises(InputError, match="unknown model 'clib'"):
        models.chosen_models("clib")


def test_it_is_told_in_sentences_a_table_and_a_chart(capsys: pytest.CaptureFixture[str]) -> None:
    found = four_rounds()
    found.reasons["huge", "opencv"] = "it does not fit"
    rows = model_rows(found, ["small", "large", "huge"], ["opencv", "fused"])
    summary = summary_of(found, rows, ["opencv", "fused"])

    emit("study models", rows, _shown(rows, summary), as_json=False)
    html = make_page([], studies=[study_of({**summary, "rows": rows}, "s0")])

    out = " ".join(capsys.readouterr().out.split())
    assert "with opencv, inference passes 50 % of a sample's cost at 2 GFLOPs (2 to 2 in single rounds)" in out
    assert "with fused, inference is over 50 % of a sample's cost in all models, the smallest too" in out
    assert "fused against opencv: 1.10 x (large) to 2.00 x (small), mean 1.55 x over 2 models" in out
    assert "random weights, so speed only: small, large" in out
    assert "does not run: huge, opencv: it does not fit" in out
    assert html.count("<circle") == 4
    assert "opencv: 1, 25<" in html and "it does not fit" in html
    assert "With opencv, inference passes" in html


@pytest.mark.parametrize("verdict", ["not reached", "always", "not in order", "not measured"])
def test_each_way_not_to_pass_has_words(verdict: str) -> None:
    summary = {"half": {"fused": {"flops": None, "verdict": verdict}}, "gains": {}}

    assert next(sentences_of(summary, [])).startswith("with fused, inference")


# ---- the runs


class Runs:
    """Stands in for the product's runs: each takes 10 s by the clock, and what is asked for is put down."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.made: list[RunConfig] = []
        self.rests: set[AtRest] = set()
        self.raises: dict[tuple[str, str], Exception] = {}
        self.fails: set[tuple[str, str]] = set()
        monkeypatch.setattr(models, "run_experiment", self.run)
        monkeypatch.setattr(models, "_size", lambda config, console: ModelSize(1, 10**9))
        monkeypatch.setattr(models.time, "monotonic", lambda: 10.0 * len(self.made))

    def run(self, configs: list[RunConfig], console: Console, command: str, rest: AtRest) -> Ran:
        self.rests.add(rest)
        [config] = configs
        self.made.append(config)
        cell = (config.model, config.preprocess)
        if cell in self.raises:
            raise self.raises[cell]
        failed = cell in self.fails
        plan = {"lanes": 2, "threads": 1, "max_batchsize": 4}
        more = {"plan": plan, "scenario": "Offline", "first_error": "it broke" if failed else None}
        return Ran([result(10, **more)], [ExitCode.FAILED if failed else ExitCode.OK], Path("home"))

    @property
    def cells(self) -> list[tuple[str, str]]:
        return [(config.model, config.preprocess) for config in self.made]


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> Runs:
    return Runs(monkeypatch)


BASE = make_config({"scenario": "Offline"})
PAIR = (["mobilenet-v2", "efficientnet-lite0"], ["opencv", "fused"])


def test_rounds_go_there_and_back_and_hold_what_the_first_run_of_a_model_chose(runs: Runs) -> None:
    measured = models.run_models(BASE, *PAIR, rounds=2, budget_s=1e9, console=Console())

    there = [(model, name) for model in PAIR[0] for name in PAIR[1]]
    assert runs.cells == there + there[::-1]
    assert [each.lanes for each in runs.made[:4]] == [None, 2, None, 2]
    assert len(runs.rests) == 1, "the machine at rest is looked at once"
    assert all((each.lanes, each.max_batchsize) == (2, 4) for each in runs.made[4:])
    assert {each.model: each.weights for each in runs.made} == {
        "mobilenet-v2": "random",
        "efficientnet-lite0": "trained",
    }
    assert (len(measured.rounds), measured.reasons, models.code_of(measured)) == (2, {}, ExitCode.OK)


def test_the_budget_ends_it_between_rounds(runs: Runs) -> None:
    models.run_models(BASE, *PAIR, rounds=None, budget_s=100, console=Console())

    assert len(runs.made) == 8  # a third round would end at 120 s


def test_what_the_budget_does_not_reach_says_so(runs: Runs) -> None:
    measured = models.run_models(BASE, *PAIR, rounds=None, budget_s=25, console=Console())

    assert runs.cells == [("mobilenet-v2", "opencv"), ("mobilenet-v2", "fused"), ("efficientnet-lite0", "opencv")]
    assert measured.reasons == {("efficientnet-lite0", "fused"): "not reached within 25 s: give a longer --budget"}


def test_what_cannot_run_has_its_reason_and_is_not_tried_again(runs: Runs) -> None:
    runs.raises["mobilenet-v2", "fused"] = SetupError("fused is not installed")
    runs.fails.add(("efficientnet-lite0", "opencv"))

    measured = models.run_models(BASE, *PAIR, rounds=2, budget_s=1e9, console=Console())

    assert measured.reasons == {
        ("mobilenet-v2", "fused"): "fused is not installed",
        ("efficientnet-lite0", "opencv"): "it broke",
    }
    assert len(runs.made) == 4 + 2
    assert models.code_of(measured) == ExitCode.FAILED
    row = next(row for row in model_rows(measured, *PAIR) if row["reason"] == "it broke")
    assert (row["samples_per_second"], row["inference_share"], row["valid"]) == (None, None, None)


def test_where_nothing_runs_the_first_reason_is_the_error(runs: Runs) -> None:
    runs.raises = {(model, name): SetupError(f"no {model}") for model in PAIR[0] for name in PAIR[1]}

    measured = models.run_models(BASE, *PAIR, rounds=None, budget_s=1e9, console=Console())

    with pytest.raises(InputError, match="no model ran: no mobilenet-v2"):
        models.code_of(measured)
    assert len(runs.made) == 4


@pytest.mark.parametrize(
    ("settings", "fragment"),
    [
        ({"model": "resnet50"}, "does not take the setting model: leave it out; give --models A,B"),
        ({"preprocess": "fused"}, "does not take the setting preprocess: leave it out; give --preprocess A,B"),
        ({"boundary": "tensor"}, "does not take the setting boundary: leave it out; it runs at the boundary jpeg"),
        ({"mode": "accuracy"}, "runs one scenario in performance mode"),
    ],
)
def test_settings_that_it_does_not_take(settings: dict[str, Any], fragment: str) -> None:
    with pytest.raises(InputError, match=fragment):
        models.base_of([make_config(settings)])


def test_the_default_models_are_known_and_in_order_of_their_size() -> None:
    assert all(models.find(name).makes for name in models.MODELS)
    assert len(set(models.MODELS)) == len(models.MODELS) == 12
    assert math.isclose(models.base_of([BASE]).time_s or 0, 1.0)
