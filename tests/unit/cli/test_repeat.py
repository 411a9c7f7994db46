"""A run again from its result: which settings it takes over, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from sut.cli import app as cli
from sut.cli.repeat import settings_of
from sut.config import RunConfig, make_config
from sut.errors import InputError
from tests.unit.results.test_collected import put
from tests.unit.results.test_results import a_result


def result_of(folder: Path, **settings: Any) -> Path:
    config = make_config(settings)
    names = ("backend", "device", "preprocess", "precision", "boundary", "scenario", "mode")
    asked = {name: getattr(config, name) for name in names}
    verdict = {"metric": None, "valid": False, "invalid_reasons": ["it hung"]}
    return put(folder, a_result(config=config.model_dump(mode="json"), **asked, **verdict))


def configs_of(monkeypatch: pytest.MonkeyPatch, *words: str) -> list[RunConfig]:
    """The runs that the words after ``sut run`` describe."""
    found: list[RunConfig] = []
    monkeypatch.setattr("sut.run.runner.run_all", lambda configs, *rest: found.extend(configs) or 0)
    cli.register("run")
    answer = CliRunner().invoke(cli.app, ["run", *words])
    if isinstance(answer.exception, InputError):
        raise answer.exception
    return found


@pytest.mark.parametrize(
    "settings",
    [
        {"scenario": "Offline", "lanes": 2, "time_s": 3, "backend_options": {"hint": "latency"}},
        {"scenario": "Server", "mode": "find_peak", "qps": 20.0, "inputs": ["a", "b"]},
        {"scenario": "MultiStream", "mode": "accuracy", "dataset_path": "pictures", "count": 5},
        {"scenario": "SingleStream", "mode": "accuracy", "weights": "random", "known_models": {"0" * 32: "resnet50"}},
    ],
)
def test_a_run_is_repeated_as_it_was_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any]
) -> None:
    monkeypatch.setenv("DATA_DIR", "other-pictures")
    monkeypatch.delenv("OUTPUT_DIR", raising=False)
    path = result_of(tmp_path, **settings, output="old-place", overwrite=True, debug=True)

    [again] = configs_of(monkeypatch, "--from", str(path), "--user-conf", "none.conf")

    assert again == make_config(settings | {"user_conf": "none.conf"})
    assert again.model_fields_set <= {
        *settings,
        "scenario",
        "mode",
        "user_conf",
    }  # else each default is said to be vain


def test_flags_win_over_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = result_of(tmp_path, scenario="Offline", lanes=2, backend_options={"a": 1, "b": 2})

    words = [
        "--lanes",
        "3",
        "--scenario",
        "Server,Offline",
        "--accuracy",
        "--output",
        "here",
        "--set",
        "backend_options.a=9",
    ]
    both = configs_of(monkeypatch, "--from", str(path), *words)

    assert [(each.scenario, each.mode, each.lanes, str(each.output)) for each in both] == [
        ("Server", "accuracy", 3, "here"),
        ("Offline", "accuracy", 3, "here"),
    ]
    assert both[0].backend_options == {"a": 9, "b": 2}


@pytest.mark.parametrize(
    "other", [["--config", "a.yaml"], ["--demo"], ["--profile", "resnet50-onnxruntime"]], ids=lambda words: words[0]
)
def test_two_descriptions_of_a_run_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, other: list[str]
) -> None:
    (tmp_path / "a.yaml").write_text("lanes: 2\n")
    monkeypatch.chdir(tmp_path)

    with pytest.raises(InputError, match=f"^--from and {other[0]} both say what is run; give one of them$"):
        configs_of(monkeypatch, "--from", str(result_of(tmp_path)), *other)


def test_a_setting_of_another_version_is_named(tmp_path: Path) -> None:
    path = result_of(tmp_path)
    content = json.loads(path.read_text())
    content["config"]["turbo"] = None
    path.write_text(json.dumps(content))

    with pytest.raises(InputError, match=r"result\.json: setting 'turbo' is of another version, and unknown here"):
        settings_of(path)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (None, r"cannot be read \(No such file or directory\)"),
        ("{", "no whole JSON file"),
        ('{"schema": 2}', "it has schema 2, expected 1"),
    ],
)
def test_what_is_no_result_cannot_be_repeated(tmp_path: Path, text: str | None, reason: str) -> None:
    path = tmp_path / "old.json"
    if text is not None:
        path.write_text(text)

    with pytest.raises(InputError, match=rf"^--from .*old\.json: {reason}.*; name the result\.json of a run$"):
        settings_of(path)
