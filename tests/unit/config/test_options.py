"""A setting is told once: its flag, its help and where it matters come from its field."""

from __future__ import annotations

from pathlib import Path

import pytest

from plugins.extras import names
from sut.cli import app as cli
from sut.cli.options import options
from sut.config import AUTO, OPTIONS, RUN_FILES, RunConfig
from sut.errors import ExitCode
from sut.process.signals import Noted
from sut.studies.ladder.rungs import DEFAULT

FLAGS = {name: option for name, option in OPTIONS.items() if option.flag is not None}
WORDS = {
    "identify_precision": "bf16",
    "identify_workers": "2",
    "fan_out": "3",
    "weights": "random",
    "boundary": "jpeg",
    "precision": "int8",
    "rules": "closed",
    "data_format": "NHWC",
    "cache": "1",
    "affinity": "lanes=0",
    "preprocess_place": "process",
    "preprocess_batch": "2",
    "infer_place": "ray",
    "cluster": "auto",
    "serve": "grpc",
}
OWN = {
    "boundary": {"--rounds"},
    "tune": {"--space", "--budget", "--rounds"},
    "whatif": {"--stage", "--faster", "--rounds", "--budget"},
}


def test_everything_is_told() -> None:
    assert OPTIONS.keys() == RunConfig.model_fields.keys()
    assert [name for name, option in options().items() if not option.help.endswith(".")] == []


@pytest.mark.parametrize("dash", ["-", "_"])
@pytest.mark.parametrize("name", FLAGS)
def test_a_flag_sets_its_setting_and_nothing_else(name: str, dash: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[RunConfig] = []
    monkeypatch.setattr("sut.run.runner.run_all", lambda configs, *rest: given.extend(configs) or ExitCode.OK)
    monkeypatch.setattr("sut.cli.options._environment", lambda *rest: None)
    flag = "--" + str(FLAGS[name].flag)[2:].replace("-", dash)
    numbers = {bool: "", int: "1", float: "1.5"}
    word = WORDS.get(name, "1" if name in AUTO else numbers.get(FLAGS[name].takes, "a-word"))

    assert cli._main(cli._normalise(["run", flag, *([word] if word else [])]), Noted()) == ExitCode.OK

    [config] = given
    assert config.model_fields_set == {name, "scenario", "mode"}
    assert getattr(config, name) != RunConfig.model_fields[name].default


@pytest.mark.parametrize("kind", ["backend", "preprocess"])
def test_help_names_all_there_are(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli._main(["run", "--help"], Noted()) == ExitCode.OK

    assert f"{', '.join(names(kind))}, or a plug-in's name." in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("command", OWN)
def test_a_command_like_run_has_the_options_of_run(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    flags = []
    for each in ("run", command):
        assert cli._main([each, "--help"], Noted()) == ExitCode.OK
        flags.append({word for word in capsys.readouterr().out.split("Options:")[1].split() if word.startswith("--")})

    assert flags[1] - flags[0] == OWN[command]
    assert flags[0] - flags[1] == {"--demo", "--accuracy", "--find-peak-performance", "--trace", "--power-log"} | (
        {"--boundary"} if command == "boundary" else set()
    )


@pytest.mark.parametrize("name", RUN_FILES)
@pytest.mark.parametrize("where", ["--set", "--config"])
@pytest.mark.parametrize(
    "command",
    (
        *("boundary", "breakdown", "compare", "plan", "submit --rehearse", "sweep", "tune", "whatif"),
        *("study energy", "study ladder", "study models", "study shortcuts"),
    ),
)
def test_a_file_beside_a_run_is_refused_by_commands_that_have_no_option_for_it(
    command: str,
    where: str,
    name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delattr("sut.cli.options.make_config")  # so that nothing is ever run
    if command in RUN_FILES[name]:
        name = "trace"
    more = DEFAULT.read_text() if "ladder" in command else ""
    (tmp_path / "a.yaml").write_text(f"{name}: there\n{more}")
    word = f"{name}=there" if where == "--set" else str(tmp_path / "a.yaml")

    assert cli._main([*command.split(), where, word], Noted()) == ExitCode.USAGE

    error = f"error: the setting {name} is for {RUN_FILES[name]}; leave it out\n"
    assert capsys.readouterr().err == error


def test_run_and_the_study_of_energy_take_the_files_beside_a_run_from_a_setting(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for command in (["run"], ["study", "energy"]):
        assert cli._main([*command, "--set", "power_log=none.csv"], Noted()) == ExitCode.USAGE
        assert "power log none.csv: no such file" in capsys.readouterr().err
