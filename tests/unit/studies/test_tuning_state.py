"""What ``sut tune`` measures, keeps and leaves behind, and its command."""

from __future__ import annotations

import io
import itertools
import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console as RichConsole

from sut.cli.commands import tune as command
from sut.cli.console import BriefConsole
from sut.config import RUN_FILES, RunConfig, make_config
from sut.errors import ExitCode, InputError, RunError
from sut.pipeline.assembly import assemble
from sut.results.schema import Agreement, Metric, Result
from sut.run.runner import Ran
from sut.studies.kept import header_of, held
from sut.studies.tuning import report
from sut.studies.tuning.bench import Bench, line_of
from sut.studies.tuning.page import study_of
from sut.studies.tuning.space import DEFAULT, Point
from sut.studies.tuning.state import Job, Measured, State
from sut.studies.tuning.study import TuneResult, directory_of
from sut.studies.tuning.tuner import TuneOutcome, Tuner
from tests.unit.results.test_identified import FUSED
from tests.unit.small_models import RECIPE_FILE, write_classifier
from tests.unit.tuning_runs import HEADER, SAID, batched, p, planted, run_of, server_tuner

# ---- the bench


OFFLINE = RunConfig(scenario="Offline", time_s=2.0)


def a_result(config: RunConfig, **changes: Any) -> Result:
    fields: dict[str, Any] = {
        "scenario": config.scenario,
        "precision": config.precision,
        "valid": True,
        "invalid_reasons": [],
        "failed_samples": 0,
        "first_error": None,
        "metric": Metric(name="samples_per_second", value=10.0 * config.lane_count, higher_is_better=True),
        "samples_per_second": 10.0,
        "queries": 1,
        "latency_ns": {},
        "stages_ns": {},
        "cost_ns": {},
        "batch_sizes": {},
        "calibration": None,
        "config": config.model_dump(mode="json"),
        "started": "2026-01-01T00:00:00+00:00",
        "model_sha256": None,
    }
    return Result.model_construct(**fields | changes)


def runs_made(monkeypatch: pytest.MonkeyPatch, answer: Callable[[RunConfig], Result]) -> list[RunConfig]:
    """Answer the product's runs; the list they are put down in."""
    made: list[RunConfig] = []

    def run(configs: list[RunConfig], console: object, command: str, rest: object) -> Ran:
        made.extend(configs)
        return Ran([answer(configs[0])], [ExitCode.OK], Path("nowhere"))

    monkeypatch.setattr("sut.studies.tuning.bench.run_experiment", run)
    return made


def a_bench(tmp_path: Path) -> Bench:
    state = State.open(tmp_path, HEADER, overwrite=False)
    return Bench(OFFLINE, tmp_path / "runs", state, lambda text: None, BriefConsole())


def test_a_point_whose_preparation_dies_is_a_failed_run_unless_it_is_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answer(config: RunConfig) -> Result:
        if config.precision == "int8":
            raise RunError("quantising failed: its process was killed by SIGKILL")
        return a_result(config)

    runs_made(monkeypatch, answer)
    bench = a_bench(tmp_path)
    dying = Job("round 1", 2, 3, p(precision="int8"), 2.0)

    with pytest.raises(RunError, match="killed by SIGKILL"):
        bench(dying)
    bench(Job("round 1", 1, 3, DEFAULT, 2.0))
    row = bench(dying)

    assert (row.valid, row.failed) == (False, True)
    assert row.invalid_reasons == ["quantising failed: its process was killed by SIGKILL"]
    assert bench(Job("round 1", 3, 3, p(lanes=2), 2.0)).valid
    assert a_bench(tmp_path).rows == bench.rows


def test_a_run_keeps_what_became_of_its_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = Agreement(value=0.985, low=0.975, high=0.991, count=1000, source="", words=SAID)
    runs_made(monkeypatch, lambda each: a_result(each, agreement=found if each.precision == "int8" else None))
    bench = a_bench(tmp_path)

    plain, reduced = (bench(Job("round 1", 1, 2, point, 2.0)) for point in (DEFAULT, p(precision="int8")))

    assert plain.agreement_line is None
    assert reduced.agreement_line == f"int8 against fp32: {SAID}"
    assert a_bench(tmp_path).rows == [plain, reduced]


def test_a_point_stays_what_its_first_run_chose(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = {"lanes": 2, "threads": 1, "max_batchsize": 16}
    made = runs_made(monkeypatch, lambda each: a_result(each, plan=chosen))
    bench = a_bench(tmp_path)

    bench(Job("round 1", 1, 2, DEFAULT, 2.0))
    bench(Job("round 1", 2, 2, p(max_batchsize=4), 2.0))
    bench = a_bench(tmp_path)
    bench(Job("round 2", 1, 2, DEFAULT, 2.0))
    bench(Job("round 2", 2, 2, p(max_batchsize=4), 2.0))

    asked = [(each.lanes, each.threads, each.max_batchsize) for each in made]
    assert asked == [(None, None, None), (None, None, 4), (2, 1, 16), (2, 1, 4)]


def test_runs_of_a_model_that_changed_are_not_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs_made(monkeypatch, lambda each: a_result(each, model_sha256="0a" if each.lane_count == 1 else "0b"))
    bench = a_bench(tmp_path)
    first = bench(Job("round 1", 1, 2, DEFAULT, 2.0))

    with pytest.raises(RunError, match="the model changed during the runs: it has SHA-256 0b, expected 0a; run"):
        bench(Job("round 1", 2, 2, p(lanes=2), 2.0))
    assert a_bench(tmp_path).rows == [first]


def test_nor_are_those_of_a_second_model_that_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(config: RunConfig) -> Result:
        found = replace(FUSED, model_sha256=("0a", None, "0b")[config.lane_count - 1])
        return a_result(config, identified=found if config.lane_count < 4 else None)

    monkeypatch.setattr("sut.config.usable_cores", lambda: 1)
    runs_made(monkeypatch, answer)
    bench = a_bench(tmp_path)
    bench(Job("round 1", 1, 3, DEFAULT, 2.0))
    bench(Job("round 1", 2, 3, p(lanes=2), 2.0))  # reads no file

    with pytest.raises(RunError, match="the second model changed during the runs: it has SHA-256 0b, expected 0a; run"):
        bench(Job("round 1", 3, 3, p(lanes=3), 2.0))


# ---- the state


def test_a_state_of_another_machine_or_of_something_else_is_refused(tmp_path: Path) -> None:
    State.open(tmp_path, HEADER, overwrite=False).add(run_of())

    with pytest.raises(InputError, match="of machine 'a test', here it is 'another'; --overwrite starts anew"):
        State.open(tmp_path, {"machine": "another"}, overwrite=False)
    assert State.open(tmp_path, {"machine": "another"}, overwrite=True).rows == {}
    assert list(State.open(tmp_path, HEADER, overwrite=False).rows.values()) == [run_of()]


@pytest.mark.parametrize("key", ["backend", "model"])
def test_a_state_of_another_backend_version_or_model_file_is_refused(tmp_path: Path, key: str) -> None:
    header = HEADER | {"backend": "onnxruntime 1.0", "model": "small, sha256 0a"}
    State.open(tmp_path, header, overwrite=False).add(run_of())

    with pytest.raises(InputError, match=f"of {key} '{header[key]}', here it is 'another'; --overwrite starts anew"):
        State.open(tmp_path, header | {key: "another"}, overwrite=False)
    assert list(State.open(tmp_path, header, overwrite=False).rows.values()) == [run_of()]


def test_what_rows_have_in_common_is_of_both_models(tmp_path: Path) -> None:
    model = write_classifier(tmp_path / "small.onnx", bias=np.zeros(10))
    (tmp_path / "small.yaml").write_text(RECIPE_FILE)
    first = assemble(make_config({"backend": "simulated"}))
    second = make_config({"model": str(model), "recipe": str(tmp_path / "small.yaml")})
    before = header_of(replace(first, second=assemble(second)))
    write_classifier(model, bias=np.ones(10))

    after = header_of(replace(first, second=assemble(second)))

    assert [name for name in after if after[name] != before[name]] == ["identify model"]


def test_a_state_that_does_not_say_all_that_is_said_today_is_read(tmp_path: Path) -> None:
    row = asdict(run_of())
    del row["agreement_line"]
    header = HEADER | {"schema": 1}
    (tmp_path / "runs.jsonl").write_text(f"{json.dumps(header)}\n{json.dumps(row)}\n")

    state = State.open(tmp_path, header | {"backend": "onnxruntime 1.0", "model": "small"}, overwrite=False)

    assert list(state.rows.values()) == [run_of()]


@pytest.mark.parametrize("text", ["", "{", "[]\n", '{"machine": "a test", "schema": 1}\n{"key": "x"}\n', "\x00\xff"])
def test_a_damaged_state_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "runs.jsonl").write_text(text)

    with pytest.raises(InputError, match="--overwrite starts anew"):
        State.open(tmp_path, HEADER, overwrite=False)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"settings": 3}, "settings: "),
        ({"settings": {"lanes": [1]}}, "settings.lanes."),
        ({"invalid_reasons": None}, "invalid_reasons: "),
        ({"qps": "fast"}, "qps: "),
        ({"metric": {"value": 1.0}}, "name: Field required"),
        ({"latency_ns": {"p99": "long"}}, "latency_ns.p99: "),
        ({"stages_ns": [1]}, "stages_ns: "),
        ({"took_s": None}, "took_s: "),
        ({"odd": 1}, "odd: "),
    ],
)
def test_a_run_with_a_value_that_it_cannot_have_is_refused(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    lines = [HEADER | {"schema": 1}, asdict(run_of()) | changes]
    (tmp_path / "runs.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))

    with pytest.raises(InputError, match=rf"not a tune's state \({message}.*\); --overwrite starts anew") as caught:
        State.open(tmp_path, HEADER, overwrite=False)

    assert "\n" not in str(caught.value)


def test_a_line_that_is_no_run_is_refused(tmp_path: Path) -> None:
    (tmp_path / "runs.jsonl").write_text(f"{json.dumps(HEADER | {'schema': 1})}\n3\n")

    with pytest.raises(InputError, match=r"not a tune's state \(a run: .*\); --overwrite starts anew"):
        State.open(tmp_path, HEADER, overwrite=False)


def test_two_tunes_at_once_in_one_place_are_refused(tmp_path: Path) -> None:
    with (
        held(tmp_path / "x", "a tune"),
        pytest.raises(InputError, match="another tune is at work there"),
        held(tmp_path / "x", "a tune"),
    ):
        pass
    with held(tmp_path / "x", "a tune"):
        pass


@settings(deadline=None)
@given(st.lists(st.sampled_from([DEFAULT, p(lanes=2), p(lanes=2, threads=1)]), min_size=1, max_size=3))
def test_a_run_comes_back_from_its_line_as_it_was(points: list[Point]) -> None:
    for point in points:
        row = run_of(Job("rate", 2, 8, point, 2.0, 31.5))

        assert Measured(**json.loads(json.dumps(asdict(row)))) == row
        assert row.point == point


# ---- what is left behind


def an_outcome(tmp_path: Path) -> tuple[TuneOutcome, list[Measured]]:
    bench = planted(tmp_path, batched)
    return server_tuner(bench, p(threads=2), p(max_batchsize=4)).run(), bench.rows


def test_the_yaml_is_what_differs_and_can_be_read_back(tmp_path: Path) -> None:
    outcome, rows = an_outcome(tmp_path)
    base = make_config(
        {"scenario": "Server", "time_s": 3, "output": "somewhere", "dataset_path": "pictures", "lanes": 2}
    )
    config = Point((("max_batchsize", 16), ("max_wait_ms", 0.0))).apply(base, qps=61.5)

    text = report.yaml_text(config, outcome, rows)

    assert yaml.safe_load(text) == {
        "scenario": "Server",
        "dataset_path": str(Path("pictures").resolve()),
        "qps": 61.5,
        "max_batchsize": 16,
        "lanes": 2,
    }
    comments = [line for line in text.splitlines() if line.startswith("#")]
    assert comments[0] == f"# Found by sut tune, 2026-01-01T00:00:00+00:00, {len(rows)} runs."
    assert any("# Highest VALID rate" in line for line in comments)
    assert make_config(yaml.safe_load(text)).max_batchsize == 16


def test_the_shipped_user_conf_is_not_written_but_another_one_is(tmp_path: Path) -> None:
    shipped = Path(command.__file__).parents[3] / "user.conf"
    other = tmp_path / "user.conf"
    other.write_text("")

    assert "user_conf" not in report.what_is_set(RunConfig(user_conf=shipped))
    assert report.what_is_set(RunConfig(user_conf=other))["user_conf"] == str(other)


PATHS = {
    name for name, field in RunConfig.model_fields.items() if Path in (field.annotation, *get_args(field.annotation))
}


@pytest.mark.parametrize("name", sorted(PATHS - {"output", *RUN_FILES}))
def test_paths_are_written_whole(name: str) -> None:
    found = report.what_is_set(RunConfig(**{name: "some/file"}))

    assert found[name] == str(Path("some/file").resolve())


def test_the_picture_fits_a_terminal_and_its_svg_loads_nothing(tmp_path: Path) -> None:
    outcome, rows = an_outcome(tmp_path)
    screen = io.StringIO()

    RichConsole(file=screen, width=80).print(report.picture(outcome))

    lines = screen.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    assert any(f"{outcome.rate:g} *" in line and "█" in line for line in lines)
    assert any(line.startswith("threads=2") for line in lines)
    svg = report.svg(outcome, "sut tune")
    assert svg.startswith("<svg") and "url(" not in svg.replace("url(#", "")
    json.dumps([[asdict(row) for row in rows], report.outcome_of(outcome, RunConfig())])


def content_of(outcome: TuneOutcome, rows: list[Measured], scenario: str) -> dict[str, Any]:
    """As study.json has it."""
    told = {"model": "m", "backend": "b", "scenario": scenario, "weights": "random"}
    told |= {"rows": [asdict(row) for row in rows], "outcome": report.outcome_of(outcome, None)}
    found: dict[str, Any] = json.loads(json.dumps(told))
    return found


def test_the_page_has_each_round_and_each_rate_beside_the_bound(tmp_path: Path) -> None:
    outcome, rows = an_outcome(tmp_path)

    study = study_of(content_of(outcome, rows, "Server"), "s0")

    assert outcome.chosen is not None and outcome.rate is not None
    rate = f"{outcome.rate:g} queries/s, the highest VALID rate"
    assert study.sentences[0] == f"Settings to take: {outcome.chosen.label} at {rate}"
    assert study.sentences[1:-1] == outcome.words and "random" in study.sentences[-1]
    rounds, rates = study.figures
    assert "what is taken" in [name for _, name in rounds.legend]
    assert [name for _, name in rates.legend] == ["VALID", "INVALID", "the bound"]
    assert "confirmed: " in rates.svg and ", 15</title>" in rates.svg
    assert rates.svg.count("<circle") == len(outcome.probes) + len(outcome.confirmations) + 2
    assert len(study.tables[0].first.cells) == len(rows)


def test_the_page_of_a_search_without_a_valid_run_says_why(tmp_path: Path) -> None:
    def bad(job: Job) -> Measured:
        return run_of(job, valid=False, failed=job.point == DEFAULT, invalid_reasons=["no <luck>"])

    bench = planted(tmp_path, bad)
    outcome = Tuner(OFFLINE, [DEFAULT, p(lanes=2)], bench, lambda config, row: None).run()

    study = study_of(content_of(outcome, bench.rows, "Offline"), "s0")

    assert study.sentences[0] == "The search found no settings to take" and "no <luck>" in study.sentences[1]
    [rounds] = study.figures
    assert [name for _, name in rounds.legend] == ["INVALID"] and "samples per second" in rounds.svg
    [failed, invalid] = study.tables[0].columns[3].cells
    assert (failed.said, invalid.said, invalid.small) == (("FAILED",), ("INVALID",), ("no <luck>",))


def test_a_tune_that_is_done_does_not_fail_for_its_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    outcome, rows = an_outcome(tmp_path)
    tuned = TuneResult(tmp_path, None, outcome, rows, {"outcome": report.outcome_of(outcome, None)})
    monkeypatch.setattr(command, "run_tune", lambda *arguments: tuned)
    monkeypatch.setattr(command, "leave_study", refused)

    assert command._tune([OFFLINE], as_json=True) == outcome.code
    assert "no picture of the search: no room" in capsys.readouterr().err


def refused(*arguments: object) -> None:
    raise InputError("no room")


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({}, "lanes=2: 100 samples/s, VALID"),
        ({"valid": False, "invalid_reasons": ["why"]}, "lanes=2: 100 samples/s, INVALID: why"),
        ({"qps": 12.5}, "lanes=2 at 12.5 queries/s: p99 10 ms, VALID"),
        ({"qps": 12.5, "bound_ns": 8e6, "valid": False}, "lanes=2 at 12.5 queries/s: p99 10 ms, INVALID: over 8 ms"),
        ({"valid": False, "failed": True, "invalid_reasons": ["broke"]}, "lanes=2: FAILED: broke"),
    ],
)
def test_a_run_in_one_line(changes: dict[str, Any], text: str) -> None:
    assert line_of(run_of(settings={"lanes": 2}, **changes)) == text


# ---- the command


@pytest.mark.parametrize(
    ("configs", "options", "message"),
    [
        ([{}, {}], {}, "takes one scenario in performance mode"),
        ([{"mode": "accuracy"}], {}, "takes one scenario in performance mode"),
        (
            [{"scenario": "Offline", "lanes": 1}],
            {"space": ["lanes=1"]},
            r"nothing to search: the grid \(lanes=1\) is the default alone",
        ),
        ([{}], {"words": ["a", "b", "c", "d"]}, "takes BACKEND MODEL DEVICE at the most, got 'a b c d'"),
        ([{"qps": 5}], {}, "--qps has no effect in SingleStream: the next query follows the answer; leave it out"),
        ([{}], {"space": ["lanes=1"]}, "--space lanes has no effect in SingleStream"),
        ([{}], {"words": ["nul"]}, "unknown backend 'nul'; did you mean null?"),
        ([{"backend": "null"}], {"words": ["openvino"]}, "backend is 'openvino' as a word and 'null' as a setting"),
        ([{"backend": "null"}], {"words": ["null", "resnet5"]}, "unknown model 'resnet5'; did you mean resnet50?"),
        ([{"backend": "null", "device": "tpu"}], {}, "unknown device 'tpu'"),
    ],
)
def test_wrong_usage_is_refused_before_anything_is_run(
    tmp_path: Path, configs: list[dict[str, Any]], options: dict[str, Any], message: str
) -> None:
    made = [make_config({"output": tmp_path, **config}) for config in configs]

    with pytest.raises(InputError, match=message):
        command._tune(made, False, **options)

    assert list(tmp_path.iterdir()) == []


def test_another_space_or_config_is_another_tune() -> None:
    base = RunConfig(scenario="Offline", time_s=2)

    places = {
        directory_of(base, {"lanes": [1, 2]}, None),
        directory_of(base, {"lanes": [1, 3]}, None),
        directory_of(base, {"lanes": [1, 2]}, 1),
        directory_of(base.model_copy(update={"threads": 1}), {"lanes": [1, 2]}, None),
        directory_of(base.model_copy(update={"time_s": 3}), {"lanes": [1, 2]}, None),
        directory_of(base.model_copy(update={"scenario": "Server"}), {"lanes": [1, 2]}, None),
    }

    assert len(places) == 6
    assert directory_of(base, {"lanes": [1, 2]}, None) in places


def test_another_version_of_the_backend_asks_for_another_tune(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = runs_made(monkeypatch, a_result)
    configs = [make_config({"backend": "simulated", "scenario": "Offline", "output": tmp_path})]
    code = command._tune(configs, True, space=["lanes=2"])
    runs = len(made)

    monkeypatch.setattr("backends.simulated.Simulated.version", lambda: "2")

    with pytest.raises(InputError, match="of backend 'simulated none', here it is 'simulated 2'; --overwrite starts"):
        command._tune(configs, True, space=["lanes=2"])
    assert (code, runs, len(made)) == (ExitCode.OK, 2 + 8, runs)
    command._tune([configs[0].model_copy(update={"overwrite": True})], True, space=["lanes=2"])
    assert len(made) == 2 * runs


def test_another_file_in_the_models_place_asks_for_another_tune(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = runs_made(monkeypatch, a_result)
    model = write_classifier(tmp_path / "small.onnx", bias=np.zeros(10))
    (tmp_path / "small.yaml").write_text(RECIPE_FILE)
    settings = {"model": str(model), "recipe": str(tmp_path / "small.yaml"), "scenario": "Offline"}
    configs = [make_config({**settings, "output": tmp_path})]
    command._tune(configs, True, space=["lanes=2"])
    runs = len(made)
    command._tune(configs, True, space=["lanes=2"])
    assert len(made) == runs

    write_classifier(model, bias=np.ones(10))

    with pytest.raises(InputError, match=r"of model 'small, sha256 [0-9a-f]{16}', here it is 'small, sha256 "):
        command._tune(configs, True, space=["lanes=2"])
    assert len(made) == runs


def test_a_tune_with_a_budget_says_the_same_when_it_is_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = runs_made(monkeypatch, a_result)
    configs = [make_config({"backend": "simulated", "scenario": "Offline", "output": tmp_path})]

    told = []
    for budget in ("1", "60s"):
        # Every run takes half a minute.
        clock = SimpleNamespace(monotonic=itertools.count(step=30.0).__next__)
        monkeypatch.setattr("sut.studies.tuning.bench.time", clock)
        command._tune(configs, True, space=["lanes=2,3,4"], budget=budget)
        told.append(json.loads(capsys.readouterr().out))

    assert told[0] == told[1]
    assert told[0]["outcome"]["words"][0] == "the budget ended the search in round 1; the best until then counts"
    assert [row["phase"] for row in told[0]["rows"]] == ["round 1"] * 2 + ["pairs"] * 8
    assert len(made) == 2 + 8
