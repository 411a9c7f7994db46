"""Which runs can be audited: what is missing, what does not belong together, and how it is made."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sut.cli.console import Console
from sut.config import make_config
from sut.errors import InputError
from sut.mlperf.audit import Audit
from sut.mlperf.logs import DETAIL
from sut.mlperf.metrics import METRICS
from sut.results.schema import Metric, Result
from sut.studies.audits import audit
from tests.unit.results.test_collected import put
from tests.unit.results.test_results import a_result

SHA256 = "ab" * 32


def run(scenario: str = "SingleStream", mode: str = "performance", **changes: Any) -> Result:
    config = make_config({"backend": "null", "scenario": scenario, "mode": mode, **changes.pop("settings", {})})
    metric = None
    if mode == "performance":
        metric = Metric(name=METRICS[scenario][0], value=12.5, higher_is_better=METRICS[scenario][2])
    valid = None if mode == "accuracy" else True
    told = {"scenario": scenario, "mode": mode, "metric": metric, "valid": valid, "model_sha256": SHA256}
    return a_result(**told | {"config": config.model_dump(mode="json")} | changes)


def refused(folder: Path, **options: Any) -> str:
    with pytest.raises(InputError) as error:
        audit(folder, Console(), "sut audit", **options)
    return str(error.value)


def test_all_that_is_missing_is_named_with_the_command_that_makes_it(tmp_path: Path) -> None:
    home = tmp_path / "out put" / "model" / "config"
    for scenario in ("SingleStream", "Offline"):
        put(home / scenario / "performance", run(scenario))

    said = refused(home)

    assert said.startswith(f"{home}: SingleStream/accuracy: no finished run; Offline/accuracy: no finished run; ")
    made_by = f"./run_local.sh run --from '{home}/SingleStream/performance/result.json' --accuracy --output"
    assert said.endswith(f"{made_by} '{tmp_path / 'out put'}'")
    assert "Server/performance: no finished run" in refused(home, scenarios=["Server"], tests=["TEST04"])
    assert "SingleStream/TEST04: no finished run; leave --verify-only out" in refused(
        home / "SingleStream", tests=["TEST04"], verify_only=True
    )


def test_a_run_that_does_not_count_is_left_out_or_refused_where_it_is_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put(tmp_path / "Offline" / "performance", run("Offline", valid=False, invalid_reasons=["too short"]))

    assert "no VALID performance run" in refused(tmp_path)
    assert "Offline is left out: the run does not count: too short" in capsys.readouterr().err
    assert "Offline/performance: the run does not count: too short" in refused(tmp_path / "Offline", tests=["TEST04"])


def test_a_run_that_obeyed_an_audit_is_no_reference(tmp_path: Path) -> None:
    obeyed = Audit(file="audit.config", test=None, settings={})
    put(tmp_path / "Offline" / "performance", run("Offline", audit=obeyed))

    assert "the run obeyed an audit.config itself" in refused(tmp_path / "Offline", tests=["TEST04"])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model_sha256": "cd" * 32}, f"model_sha256 is {'cd' * 32}, in the performance run {SHA256}"),
        ({"settings": {"count": 5}}, "SingleStream/accuracy: count is 5, in the performance run None"),
    ],
)
def test_runs_of_two_models_or_configurations_are_refused(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    put(tmp_path / "SingleStream" / "performance", run(settings={"time_s": 1}))
    put(tmp_path / "SingleStream" / "accuracy", run(mode="accuracy", **changes))

    assert said in refused(tmp_path)


def test_a_folder_that_is_not_the_configurations_own_is_refused(tmp_path: Path) -> None:
    home = tmp_path / "model" / "config"
    put(home / "SingleStream" / "performance", run(settings={"dataset": "demo"}))

    said = refused(home, tests=["TEST04"])

    assert said.startswith(
        f"{home}: SingleStream's performance run would lie in {tmp_path}/efficientnet-lite0/null-cpu"
    )
    assert sorted(path.name for path in home.iterdir()) == ["SingleStream"]


@pytest.mark.parametrize(("log", "said"), [(None, "No such file"), ("", "it is cut off")])
def test_a_log_that_cannot_be_compared_is_refused_before_anything_is_run(
    tmp_path: Path, log: str | None, said: str
) -> None:
    put(tmp_path / "model" / "config" / "Offline" / "performance", run("Offline", settings={"dataset": "demo"}))
    where = refused(tmp_path / "model" / "config", tests=["TEST04"]).partition("would lie in ")[2].split()[0]
    folder = put(Path(where) / "Offline" / "performance", run("Offline", settings={"dataset": "demo"})).parent
    if log is not None:
        (folder / DETAIL).write_text(log)

    refusal = refused(Path(where), tests=["TEST04"])

    assert refusal.startswith(f"{folder / DETAIL}: {said}") and refusal.endswith("; make that run again")
    assert sorted(path.name for path in Path(where).iterdir()) == ["Offline"]


@pytest.mark.parametrize("text", ["", "{", "[1]", json.dumps({"schema": 2})])
def test_a_result_that_is_none_is_named(tmp_path: Path, text: str) -> None:
    put(tmp_path / "Offline" / "performance").write_text(text)

    assert f"{tmp_path}: Offline/performance: " in refused(tmp_path, scenarios=["Offline"], tests=["TEST04"])


def test_a_config_of_another_version_is_refused(tmp_path: Path) -> None:
    result = run("Offline")
    put(tmp_path / "Offline" / "performance", result.model_copy(update={"config": {**result.config, "colour": "red"}}))

    said = refused(tmp_path, tests=["TEST04"])

    assert "Offline/performance/result.json: its config cannot be run by this version: unknown setting 'colour'" in said


def test_a_folder_of_another_scenario_than_is_asked_for_or_none_is_refused(tmp_path: Path) -> None:
    assert "--scenario names Server" in refused(tmp_path / "Offline", scenarios=["Server"])
    assert "nothing: no folder; " in refused(tmp_path / "nothing")
