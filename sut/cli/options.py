"""What the options of ``sut run`` describe: runs that differ in scenario and mode only."""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from plugins.packages import CHECKOUT
from plugins.registry import suggest
from sut.cli.repeat import settings_of
from sut.config import OPTIONS, PROFILES, RUN_FILES, RunConfig, make_config, read_config_file
from sut.config.option import Option, options_of, setting
from sut.config.words import assign, parse_assignment, parse_scenarios
from sut.errors import InputError
from sut.models.registry import with_folder


class Options(BaseModel):
    """What a command line says of runs: ``settings`` by field of ``RunConfig``, and what is none."""

    model_config = ConfigDict(frozen=True)

    demo: bool = setting("The embedded demo: all scenarios from JPEG to label for some seconds, then accuracy.", False)
    scenario: str | None = setting("SingleStream, MultiStream, Server, Offline; a list; all.")
    accuracy: bool = setting("Accuracy mode instead of performance mode.", False)
    find_peak_performance: bool = setting("LoadGen's own search for Server's highest rate.", False)
    profile: str | None = setting(f"A preset of the reference harness: {', '.join(PROFILES)}.")
    settings: dict[str, Any] = {}
    left_out: tuple[str, ...] = ()
    """What ``sut run`` takes and this command does not."""
    kernels: str | None = setting("Hot path of the preprocessors cuda and dali-gpu: fused, tiled or naive.")
    config: Path | dict[str, Any] | None = setting("Settings from a YAML file; flags win.", takes=Path)
    from_: Path | None = setting("Repeat the run of this result.json; flags win.", flag="--from")
    set_: list[str] = setting("Any setting of a YAML file.", [], flag="--set", takes=list[str], unit="KEY=VALUE")
    as_json: bool = setting("Print one JSON object instead of a table.", False, flag="--json")


def options() -> dict[str, Option]:
    """All that the command line takes of a run, by field, in the order of its help."""
    own = options_of(Options)
    first = list(Options.model_fields).index("settings")
    taken = {name: option for name, option in OPTIONS.items() if option.flag is not None}
    return dict(itertools.islice(own.items(), first)) | taken | own


def configs_of(options: Options) -> list[RunConfig]:
    """The runs that options describe. ``config`` is the YAML file, or the settings that somebody has read from it.

    Raises ``InputError`` for what does not go together or no run has.
    """
    settings = _settings(options)
    mode, scenarios = _asked(options, settings)
    base = make_config({**with_folder(settings), "scenario": scenarios[0], "mode": mode})
    configs = [base.model_copy(update={"scenario": name}) for name in scenarios]
    if options.demo and mode == "performance":
        configs.append(base.model_copy(update={"scenario": "Offline", "mode": "accuracy", "time_s": None}))
    return configs


def _settings(options: Options) -> dict[str, Any]:
    """What is set, a later source over an earlier one: demo, file, --from, --set, profile, flags, environment."""
    settings: dict[str, Any] = {}
    if options.demo:
        settings |= {"time_s": 3.0, "relax_server": True, "dataset": "demo", "boundary": "jpeg"}
    if (file := options.config) is not None:
        settings |= read_config_file(file) if isinstance(file, Path) else file
    if "matrix" in settings:
        raise InputError(f"{file}: it has a matrix, which sut compare takes; leave it out to run one configuration")
    if options.from_ is not None:
        others = [name for name in ("demo", "config", "profile") if getattr(options, name)]
        settings |= settings_of(options.from_, others)
    for text in options.set_:
        key, value = parse_assignment(text)
        assign(settings, key, value)
    if (profile := options.profile) is not None:
        if profile not in PROFILES:
            raise InputError(f"unknown profile '{profile}'; {suggest(profile, PROFILES)}")
        settings |= PROFILES[profile]
    settings |= options.settings
    if options.kernels is not None:
        assign(settings, "preprocess_options.kernels", options.kernels)
    for name in RUN_FILES:
        if name in options.left_out and settings.get(name) is not None:
            raise InputError(f"the setting {name} is for {RUN_FILES[name]}; leave it out")
    _environment(settings, options.demo or options.from_ is not None)
    return settings


def _asked(options: Options, settings: Mapping[str, Any]) -> tuple[object, tuple[str, ...]]:
    """The mode, which nobody has checked yet, and the scenarios."""
    find_peak = options.find_peak_performance
    if options.accuracy and find_peak:
        raise InputError("--accuracy and --find-peak-performance are two modes; give one of them")
    mode = "accuracy" if options.accuracy else "find_peak" if find_peak else settings.get("mode", "performance")
    usual = {"accuracy": "Offline", "find_peak": "Server"}.get(str(mode), "SingleStream")
    default = "all" if options.demo else usual
    scenarios = parse_scenarios(str(options.scenario or settings.get("scenario") or default))
    if mode == "find_peak" and scenarios != ("Server",):
        raise InputError("--find-peak-performance works in Server only; add --scenario Server")
    return mode, scenarios


def _environment(settings: dict[str, Any], has_data: bool) -> None:
    """Defaults from the environment, as the reference harness has them, and the checkout's own user.conf."""
    if not has_data and settings.get("dataset") != "demo" and (data := os.environ.get("DATA_DIR")):
        settings.setdefault("dataset_path", Path(data))
    if out := os.environ.get("OUTPUT_DIR"):
        settings.setdefault("output", Path(out))
    shipped = CHECKOUT / "user.conf"
    if shipped.exists():
        settings.setdefault("user_conf", shipped)
