"""``sut boundary``: which boundaries there are, how they are run, and what is said of their steps."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sut.cli.commands.boundary import _boundary, _shown
from sut.cli.console import Console
from sut.cli.emit import emit
from sut.config import RunConfig, make_config
from sut.errors import ExitCode, InputError
from sut.results.schema import Agreement, Result
from sut.run.energy.metering import AtRest
from sut.run.runner import Ran
from sut.studies import boundary
from sut.studies.boundary import device_left_out
from tests.unit.results.test_prices import measured


@pytest.mark.parametrize(
    ("places", "device", "why"),
    [
        (("cuda:0", "host"), "cuda", None),
        (("host", "cuda:1"), "cuda:1", None),
        (("host",), "cuda", "mine takes its input from host memory, not from a GPU's"),
        (("host", "pinned"), "cpu", "mine takes its input from host, pinned memory, not from a GPU's"),
        (("cuda:0", "host"), "cpu", "it needs a GPU's memory, and --device is cpu; add --device cuda"),
    ],
)
def test_why_the_boundary_device_is_left_out(places: tuple[str, ...], device: str, why: str | None) -> None:
    expected = None if why is None else f"boundary device left out: {why}"

    assert device_left_out("mine", places, device) == expected


def test_the_boundary_device_comes_first(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    class OnGpu:
        name, places = "mine", ("cuda:0", "host")

    monkeypatch.setattr(boundary, "load", lambda name: OnGpu)

    assert boundary.boundaries_of(make_config({"device": "cuda"}), Console()) == ("device", "tensor", "pixels", "jpeg")
    assert capsys.readouterr().err == ""
    assert boundary.boundaries_of(make_config({"device": "cpu"}), Console()) == ("tensor", "pixels", "jpeg")
    assert capsys.readouterr().err.count("\n") == 1


def test_a_backend_that_does_not_load_is_left_for_the_run_to_refuse(capsys: pytest.CaptureFixture[str]) -> None:
    assert boundary.boundaries_of(make_config({"backend": "nobody"}), Console()) == ("tensor", "pixels", "jpeg")
    assert capsys.readouterr().err == ""


# ---- prices, and the pairs beside them


def a_round(tensor: float, pixels: float, jpeg: float) -> list[Result]:
    """Results with these mean latencies in ms, of which decoding takes 5, resizing 2."""
    cost = {"decode": 5, "resize": 2, "infer": 4}
    latencies = zip(("tensor", "pixels", "jpeg"), (tensor, pixels, jpeg), strict=True)
    return [measured(where, cost, latency_ns={"mean": mean * 1e6, "p99": 2 * mean * 1e6}) for where, mean in latencies]


CLEAR = [a_round(4 + n / 10, 6 + n / 10, 11 + n / 9) for n in range(5)]
NOISY = [a_round(4, 6, 3), a_round(9, 2, 11), a_round(5, 7, 6), a_round(8, 6, 2), a_round(2, 3, 9)]
BACKWARDS = [a_round(6 + n / 10, 4 + n / 10, 1 + n / 90) for n in range(5)]


def shown(rounds: list[list[Result]], capsys: pytest.CaptureFixture[str]) -> tuple[list[dict[str, Any]], str]:
    rows = boundary.boundary_rows(rounds)
    emit("boundary", rows, _shown(rows, rounds), as_json=False)
    return json.loads(json.dumps(rows)), capsys.readouterr().out


def test_a_step_beyond_the_spread_is_told_with_its_interval(capsys: pytest.CaptureFixture[str]) -> None:
    (tensor, pixels, jpeg), out = shown(CLEAR, capsys)

    assert (tensor["step"], tensor["step_pairs_ns"], tensor["price_ns"]) == (None, None, None)
    assert (pixels["step"]["verdict"], jpeg["step"]["verdict"], jpeg["step"]["pairs"]) == ("better", "better", 5)
    ends = jpeg["step_pairs_ns"]
    assert ends["value"] == pytest.approx(5e6, rel=0.02)
    assert 4e6 < ends["low"] < ends["value"] < ends["high"] < 6e6
    assert (pixels["price_ns"], jpeg["price_ns"]) == (2e6, 5e6)
    assert jpeg["step_ns"] == jpeg["latency_ns"]["mean"] - pixels["latency_ns"]["mean"]
    assert "not told from 0" not in out and "(the median of 5)" in out


def test_where_the_pairs_cannot_tell_the_prices_of_one_run_stand(capsys: pytest.CaptureFixture[str]) -> None:
    (_, pixels, jpeg), out = shown(NOISY, capsys)

    assert jpeg["step_pairs_ns"]["low"] < 0 < jpeg["step_pairs_ns"]["high"]
    assert (pixels["price_ns"], jpeg["price_ns"]) == (2e6, 5e6)
    assert out.count("not told from 0") == 2
    assert out.count("cannot be told apart; about ") == 2
    assert "decode 5, resize 2, infer 4" in out


def test_cpu_time_is_compared_where_the_clock_cannot_tell(capsys: pytest.CaptureFixture[str]) -> None:
    dearer = [[each.model_copy(update={"cpu_seconds_per_sample": 1 + at}) for at, each in enumerate(r)] for r in NOISY]

    _, out = shown(dearer, capsys)

    assert "pairs would; by CPU time a sample 2 x (2 to 2)" in out
    assert "pairs would; by CPU time a sample 1.5 x (1.5 to 1.5)" in out


@pytest.mark.parametrize("rounds", [NOISY, BACKWARDS, BACKWARDS[:1]])
def test_nothing_is_said_to_cost_less_than_nothing(
    rounds: list[list[Result]], capsys: pytest.CaptureFixture[str]
) -> None:
    less = {"residual": {"mean": -9_700_000}}
    told = [[each.model_copy(update={"stages_ns": {**each.stages_ns, **less}}) for each in some] for some in rounds]

    rows, out = shown(told, capsys)

    assert "-9.7" not in out
    table = out[out.index("starts at") :].splitlines()[1:4]
    assert not any(character == "-" for line in table for character in line.replace(" - ", ""))
    assert ("none, it is faster" in out) == (rounds is BACKWARDS)
    assert all(row["price_ns"] is None or row["price_ns"] >= 0 for row in rows)


def test_the_gains_are_told_with_their_spread(capsys: pytest.CaptureFixture[str]) -> None:
    other = [each.model_copy(update={"cost_ns": {"decode": 2, "infer": 4}}) for each in a_round(4, 6, 99)]

    rows, out = shown([*CLEAR, other], capsys)

    assert rows[-1]["gain_without_inference_range"] == [pytest.approx(4 / 7), 2.0]
    assert "if inference were free, +57 % (+57 to +200 in 6 runs) throughput" in " ".join(out.split())


# ---- the command


def answering(monkeypatch: pytest.MonkeyPatch, **changes: Any) -> list[str]:
    """Answer the product's runs, each of which takes 10 s; the boundaries that are run are put down in a list."""
    made: list[str] = []

    def run_each(configs: list[RunConfig], console: Console, command: str, rest: AtRest) -> Ran:
        made.extend(each.boundary for each in configs)
        cost = {"decode": 5, "infer": 4}
        return Ran([measured(each.boundary, cost, **changes) for each in configs], [ExitCode.OK])

    monkeypatch.setattr(boundary, "run_each", run_each)
    monkeypatch.setattr(boundary.time, "monotonic", lambda: 10.0 * len(made))
    return made


def test_rounds_alternate_and_end_after_two_minutes(monkeypatch: pytest.MonkeyPatch) -> None:
    made = answering(monkeypatch)

    assert _boundary([make_config({})], as_json=True) == ExitCode.OK
    there = ["tensor", "pixels", "jpeg"]
    assert made == (there + there[::-1]) * 2


def test_so_many_rounds_are_run_as_were_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    made = answering(monkeypatch)

    _boundary([make_config({})], as_json=True, rounds=9)

    assert len(made) == 3 * 9


def test_what_the_first_run_chose_holds_at_each_boundary(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[RunConfig] = []
    rests: set[AtRest] = set()
    plan = {"lanes": 2, "threads": 1, "max_batchsize": 4}

    def run_each(configs: list[RunConfig], console: Console, command: str, rest: AtRest) -> Ran:
        made.extend(configs)
        rests.add(rest)
        return Ran([measured(configs[0].boundary, {"decode": 5, "infer": 4}, plan=plan)], [ExitCode.OK])

    monkeypatch.setattr(boundary, "run_each", run_each)

    _boundary([make_config({"scenario": "Offline"})], as_json=True, rounds=1)

    assert [(each.lanes, each.threads, each.max_batchsize) for each in made] == [(None, None, None), *[(2, 1, 4)] * 2]
    assert len(rests) == 1, "the machine at rest is looked at once"


def test_a_run_that_fails_ends_it(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    made: list[str] = []

    def run_each(configs: list[RunConfig], console: Console, command: str, rest: AtRest) -> Ran:
        made.extend(each.boundary for each in configs)
        return Ran([measured("tensor", {})], [ExitCode.FAILED if len(made) == 5 else ExitCode.INVALID])

    monkeypatch.setattr(boundary, "run_each", run_each)

    assert _boundary([make_config({})], as_json=True) == ExitCode.FAILED
    assert len(made) == 5
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"boundary": "jpeg"}, "sut boundary runs all boundaries; leave the setting boundary out"),
        ({"mode": "accuracy"}, "sut boundary runs one scenario in performance mode"),
        ({"qps": 5}, "--qps has no effect in SingleStream: the next query follows the answer; leave it out"),
        ({"cache_dir": "x"}, "--cache_dir has no effect "),
    ],
)
def test_a_setting_that_would_be_ignored_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        _boundary([make_config(settings)], as_json=False)


@pytest.mark.parametrize("settings", [{"cache": True}, {"preprocess_workers": 2}])
def test_a_setting_with_an_effect_at_one_boundary_is_taken(
    monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any]
) -> None:
    answering(monkeypatch)

    assert _boundary([make_config(settings)], as_json=True) == ExitCode.OK


def test_a_reduced_precision_is_not_shown_without_its_agreement(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = "97.4 % same labels (95 % interval 96.2 to 98.2 %) on 1,000 crops of 11 pictures"
    agreement = Agreement(value=0.974, low=0.962, high=0.982, count=1000, source="", words=words)
    config = make_config({"precision": "int8"})

    answering(monkeypatch, agreement=agreement, precision="int8")
    assert _boundary([config], as_json=False) == ExitCode.OK
    assert capsys.readouterr().out.splitlines().count(f"int8 against fp32: {words}") == 1
    assert _boundary([config], as_json=True) == ExitCode.OK
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [row["agreement"] for row in rows] == 3 * [agreement.model_dump()]
    answering(monkeypatch)
    assert _boundary([make_config({})], as_json=True) == ExitCode.OK
    assert [row["agreement"] for row in json.loads(capsys.readouterr().out)["rows"]] == [None, None, None]
