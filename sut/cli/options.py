"""What the options of ``sut run`` describe: runs that differ in scenario and mode only."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from plugins.packages import CHECKOUT
from sut.cli.repeat import settings_of
from sut.config import PROFILES, RunConfig, assign, make_config, parse_assignment, parse_scenarios, read_config_file
from sut.errors import InputError, suggest

_RENAMED = {"time": "time_s", "max_latency": "max_latency_s", "max_wait": "max_wait_ms", "watchdog": "watchdog_s"}
"""Options whose setting has a unit in its name."""
_LISTS = ("inputs", "outputs")
_NO_SETTINGS = (
    "demo",
    "scenario",
    "accuracy",
    "find_peak_performance",
    "profile",
    "config",
    "from_",
    "set_",
    "as_json",
)


def configs_of(options: Mapping[str, Any]) -> list[RunConfig]:
    """The runs that options describe. ``config`` is the YAML file, or the settings that somebody has read from it.

    Raises ``InputError`` for what does not go together or no run has.
    """
    settings = _settings(options)
    mode, scenarios = _asked(options, settings)
    base = make_config({**settings, "scenario": scenarios[0], "mode": mode})
    configs = [base.model_copy(update={"scenario": name}) for name in scenarios]
    if options["demo"] and mode == "performance":
        configs.append(base.model_copy(update={"scenario": "Offline", "mode": "accuracy", "time_s": None}))
    return configs


def _settings(options: Mapping[str, Any]) -> dict[str, Any]:
    """What is set, a later source over an earlier one: demo, file, --from, --set, profile, flags, environment."""
    settings: dict[str, Any] = {}
    if demo := options["demo"]:
        settings |= {"time_s": 3.0, "relax_server": True, "dataset": "demo", "boundary": "jpeg"}
    if (file := options["config"]) is not None:
        settings |= read_config_file(file) if isinstance(file, Path) else file
    if "matrix" in settings:
        raise InputError(f"{file}: it has a matrix, which sut compare takes; leave it out to run one configuration")
    if (repeated := options["from_"]) is not None:
        settings |= settings_of(repeated, [name for name in ("demo", "config", "profile") if options[name]])
    for text in options["set_"] or []:
        key, value = parse_assignment(text)
        assign(settings, key, value)
    if (profile := options["profile"]) is not None:
        if profile not in PROFILES:
            raise InputError(f"unknown profile '{profile}'; {suggest(profile, PROFILES)}")
        settings |= PROFILES[profile]
    for name, value in options.items():
        key = _RENAMED.get(name, name)
        if name not in _NO_SETTINGS and key in RunConfig.model_fields and value is not None and value is not False:
            settings[key] = value.split(",") if name in _LISTS else value
    if options["kernels"] is not None:
        assign(settings, "preprocess_options.kernels", options["kernels"])
    _environment(settings, demo or repeated is not None)
    return settings


def _asked(options: Mapping[str, Any], settings: Mapping[str, Any]) -> tuple[object, tuple[str, ...]]:
    """The mode, which nobody has checked yet, and the scenarios."""
    find_peak = options["find_peak_performance"]
    if options["accuracy"] and find_peak:
        raise InputError("--accuracy and --find-peak-performance are two modes; give one of them")
    mode = "accuracy" if options["accuracy"] else "find_peak" if find_peak else settings.get("mode", "performance")
    usual = {"accuracy": "Offline", "find_peak": "Server"}.get(str(mode), "SingleStream")
    default = "all" if options["demo"] else usual
    scenarios = parse_scenarios(str(options["scenario"] or settings.get("scenario") or default))
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
