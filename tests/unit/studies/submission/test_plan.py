"""What is still to be typed until a submission is made, and for how long."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from sut.config import RunConfig
from sut.errors import InputError
from sut.mlperf import official
from sut.mlperf.logs import ACCURACY
from sut.results.schema import FILE
from sut.run.planning import OVERHEAD_S
from sut.studies.submission.commands import command_of
from sut.studies.submission.plan import Step, plan
from sut.studies.submission.runs import ROLES
from tests.unit.studies.submission.loadgen_runs import ABOUT, PICTURES, edit

OPEN = ABOUT.model_copy(update={"division": "open"})


def places(steps: list[Step]) -> list[tuple[str | None, str | None]]:
    return [(step.scenario, step.role) for step in steps]


def missing(steps: list[Step]) -> list[tuple[str | None, str | None]]:
    return places([step for step in steps[:-1] if step.done is None])


def test_where_all_is_run_only_the_submission_is_left(home: Path) -> None:
    steps = plan([home], ABOUT, rehearsal=False)

    assert places(steps) == [*[(scenario, role) for scenario in official.EDGE for role in ROLES], (None, None)]
    assert missing(steps) == []
    assert steps[0].done and str(home / "SingleStream/performance") in steps[0].why
    assert steps[-1].command == f"./run_local.sh submit {home} --about FILE --output FOLDER"
    assert steps[-1].why == "all runs are there"


def test_what_is_missing_or_does_not_count_is_to_be_run(home: Path) -> None:
    shutil.rmtree(home / "MultiStream/TEST01")
    edit(home / "Offline/performance", rules_broken=["min_duration 2 s < 600 s", "random weights"])
    edit(home / "SingleStream/TEST04", rules_broken=["an audit (TEST04) is no result", "min_duration 2 s < 600 s"])

    steps = plan([home], ABOUT, rehearsal=False)

    assert missing(steps) == [("SingleStream", "TEST04"), ("MultiStream", "TEST01"), ("Offline", "performance")]
    [again] = [step for step in steps if (step.scenario, step.role) == ("Offline", "performance")]
    assert again.why.endswith("does not count: rules_broken: min_duration 2 s < 600 s, and 1 more")
    assert steps[-1].why == "3 of 12 runs are missing"
    assert missing(plan([home], ABOUT, rehearsal=True)) == [("MultiStream", "TEST01"), ("Offline", "performance")]


def test_behind_a_rehearsal_of_another_model_all_is_to_be_run_at_no_known_speed_elsewhere(home: Path) -> None:
    for result in home.rglob(FILE):
        content = json.loads(result.read_text())
        settings = content["config"] | {"model": "efficientnet-lite0", "dataset": "demo", "dataset_path": None}
        result.write_text(json.dumps(content | {"model": "efficientnet-lite0", "config": settings}))

    steps = plan([home], ABOUT, rehearsal=False)

    assert len(missing(steps)) == 12 and all(step.at_least for step in steps[:-1])
    assert steps[2].command == "./run_local.sh audit FOLDER --test TEST01 --scenario SingleStream"
    assert steps[-1].command == "./run_local.sh submit FOLDER --about FILE --output FOLDER"
    assert all("--model resnet50" in step.command for step in (steps[0], steps[1]))
    assert "demo" not in " ".join(step.command for step in steps)


def test_what_is_missing_is_made_beside_what_is_there(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tmp_path / "elsewhere" / home.parent.name
    shutil.copytree(home, model / home.name)
    shutil.rmtree(model / home.name / "Offline/performance")
    monkeypatch.chdir(model / home.name)

    for where, output in ((model.parent, str(model.parent)), (Path(), "../..")):
        [once] = {step.command for step in plan([where], ABOUT, rehearsal=True)}
        assert once.startswith(f"./run_local.sh submit {output} --rehearse ")
        steps = plan([where], ABOUT, rehearsal=False)
        [run] = [step.command for step in steps if (step.scenario, step.role) == ("Offline", "performance")]
        assert f" --output {output} " in run


def test_an_audit_that_is_failed_does_not_count(home: Path) -> None:
    log = home / "Offline/TEST01" / ACCURACY
    log.write_text(log.read_text().replace("00003041", "0000803F"))

    steps = plan([home], ABOUT, rehearsal=False)

    assert missing(steps) == missing(plan([home], ABOUT, rehearsal=True)) == [("Offline", "TEST01")]
    [again] = [step for step in steps if (step.scenario, step.role) == ("Offline", "TEST01")]
    assert f"does not count: Offline TEST01/{ACCURACY}, sample 2" in again.why


@pytest.mark.parametrize(
    ("rate", "offline_s", "multistream_s"),
    [
        (100.0, 1.1 * 1.25 * 600, 600),  # Offline is asked more than the rate says, so as not to end early
        (5.0, 24576 / 5, 662 * 8 / 5),  # the fewest samples, the fewest queries of 8
    ],
)
def test_minutes_are_from_the_rates_that_were_measured(
    home: Path, rate: float, offline_s: float, multistream_s: float
) -> None:
    for other in ("SingleStream", "MultiStream", "Offline/accuracy", "Offline/TEST01"):
        shutil.rmtree(home / other)
    # An audit's run comes later, and is another's rate.
    slow = {"samples": 10, "duration_s": 10.0, "samples_per_second": 1.0, "queries": None, "queries_per_second": None}
    edit(home / "Offline/TEST04", **slow)
    rates = {"samples": 10 * int(rate), "duration_s": 10.0, "samples_per_second": rate}
    edit(home / "Offline/performance", **rates, queries=None, queries_per_second=None, rules_broken=["short"])

    steps = {(step.scenario, step.role): step for step in plan([home], ABOUT, rehearsal=False)[:-1]}

    assert not any(step.at_least for step in steps.values())
    for role, seconds in {"performance": offline_s, "TEST01": offline_s, "accuracy": PICTURES / rate}.items():
        assert steps["Offline", role].minutes == pytest.approx((seconds + OVERHEAD_S) / 60, rel=0.01)
    assert steps["MultiStream", "performance"].minutes == pytest.approx((multistream_s + OVERHEAD_S) / 60, rel=0.01)
    assert steps["SingleStream", "performance"].minutes == pytest.approx((600 + OVERHEAD_S) / 60, rel=0.01)


def test_before_anything_is_run_minutes_are_the_least(tmp_path: Path) -> None:
    config = RunConfig(model="resnet50", backend="openvino", dataset_path=Path("/data/my pictures"))

    steps = plan([], ABOUT, rehearsal=False, config=config)

    assert [step.minutes > 10 for step in steps[:4]] == [True, False, True, True]
    assert all(step.at_least and step.done is None for step in steps[:-1])
    first, second, third = (step.command for step in steps[:3])
    assert first == (
        "./run_local.sh --backend openvino --model resnet50 --rules closed --dataset-path '/data/my pictures' "
        "--scenario SingleStream"
    )
    assert second == f"{first} --accuracy"
    assert third == "./run_local.sh audit FOLDER --test TEST01 --scenario SingleStream"
    with pytest.raises(InputError, match="no result to go on from"):
        plan([tmp_path], ABOUT, rehearsal=False)


def test_open_needs_no_audits_and_no_scenario_but_what_was_run(home: Path) -> None:
    shutil.rmtree(home / "MultiStream")
    shutil.rmtree(home / "Offline/accuracy")

    steps = plan([home], OPEN, rehearsal=False)

    assert places(steps)[:-1] == [(each, role) for each in ("SingleStream", "Offline") for role in ROLES[:2]]
    assert missing(steps) == [("Offline", "accuracy")]


def test_what_is_inferred_is_not_run(home: Path) -> None:
    about = ABOUT.model_copy(update={"inferred": {"MultiStream": "SingleStream", "Offline": "SingleStream"}})

    assert places(plan([home], about, rehearsal=False))[:-1] == [("SingleStream", role) for role in ROLES]


def test_results_of_another_backend_are_no_part_of_it(home: Path) -> None:
    for role in ROLES:
        edit(home / "Offline" / role, backend="openvino", config=lambda old: {**old, "backend": "openvino"},
             started="2020-01-01T00:00:00+00:00")  # fmt: skip

    steps = plan([home], ABOUT, rehearsal=False)

    assert missing(steps) == [("Offline", role) for role in ROLES]
    assert "openvino" not in steps[8].command and steps[8].why == "not run yet"


def test_a_command_has_every_setting_that_matters_as_the_command_line_takes_it() -> None:
    config = RunConfig(
        model="resnet50", fold=True, backend_options={"hint": "latency", "streams": 2, "word": "true"}, threads=2,
        max_batchsize=8, qps=12.5, coalesce_queries=True, inputs=("a", "b"), known_models={"ab" * 16: "resnet50"},
    )  # fmt: skip

    command = command_of(config, "Server", "performance", Path("home"), rehearsal=False)

    assert command == (
        "./run_local.sh --model resnet50 --fold --set backend_options.hint=latency --set backend_options.streams=2 "
        f"""--set 'backend_options.word="true"' --set known_models.{"ab" * 16}=resnet50 --inputs a,b --qps 12.5 """
        "--max-batchsize 8 --threads 2 --set coalesce_queries=true --scenario Server"
    )
    alone = command_of(config, "SingleStream", "accuracy", Path("home"), rehearsal=False)
    assert "--qps" not in alone and "--max-batchsize" not in alone and alone.endswith("SingleStream --accuracy")
