"""What to type for a run of a submission."""

from __future__ import annotations

import json
import os.path
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from plugins.packages import CHECKOUT
from sut.config import HOW_KEPT, OPTIONS, RunConfig
from sut.config.strict_yaml import load_yaml
from sut.datasets.demo import DEMO
from sut.mlperf import official
from sut.studies.submission.about import About
from sut.studies.submission.runs import benchmark_asked

_PROGRAM = "./run_local.sh"
_BY_ROLE = frozenset({*HOW_KEPT, "scenario", "audit_conf"} - {"output"})
"""Settings that the role decides, or that are of no matter here."""
_NOT_REHEARSED = frozenset({"output", "rules"})
"""Those that the command which rehearses does not take; where runs go it is told otherwise."""


def asked_of(config: RunConfig, about: About, rehearsal: bool, home: Path | None) -> RunConfig:
    """The configuration that a submission's runs have, but for scenario and mode: a rehearsal's are as they were.

    What only a rehearsal may have, the demo's data and, in the closed division, another model, is left to the default.
    ``home`` is where others lie by now, as it is named from here, so that they are found together; None without any.
    """
    if home is not None:
        config = config.model_copy(update={"output": Path(os.path.normpath(home / "../.."))})
    if rehearsal:
        return config
    asked: dict[str, Any] = {"time_s": None, "count": None}
    if config.dataset == DEMO:
        asked["dataset"] = None
    if about.is_closed:
        asked["rules"] = about.division
        if not config.is_file and config.model not in official.BENCHMARKS:
            asked["model"] = benchmark_asked(config).name
    return config.model_copy(update=asked)


def command_of(config: RunConfig, scenario: str, role: str, home: Path, rehearsal: bool) -> str:
    """What to type for one run. ``home`` is where the others lie, which an audit takes them from."""
    if rehearsal:
        return rehearsal_command(config)
    if role in official.AUDITS:
        return shlex.join([_PROGRAM, "audit", str(home), "--test", role, "--scenario", scenario])
    config = config.model_copy(update={"scenario": scenario, "mode": role})
    accuracy = ["--accuracy"] if role == "accuracy" else []
    return shlex.join([_PROGRAM, *_flags(config), "--scenario", scenario, *accuracy])


def rehearsal_command(config: RunConfig) -> str:
    """What to type for a rehearsal: all of its runs, but for those that are done, and its tree."""
    return shlex.join([_PROGRAM, "submit", str(config.output), "--rehearse", *_flags(config, _NOT_REHEARSED)])


def submit_command(home: Path) -> str:
    """What to type for the tree, once all runs are there."""
    return f"{shlex.join([_PROGRAM, 'submit', str(home)])} --about FILE --output FOLDER"


def matters(name: str, config: Mapping[str, Any]) -> bool:
    """Whether a setting has an effect in a run of this ``config``."""
    only = OPTIONS[name].only
    return only is None or config.get(only.setting) in only.values or bool(only.unless and config.get(only.unless))


def _flags(config: RunConfig, without: frozenset[str] = frozenset()) -> Iterator[str]:
    """The settings that have an effect and are not everybody's, as the command line takes them."""
    asked = config.model_dump(mode="json")
    usual = RunConfig().model_dump(mode="json") | {"user_conf": str(CHECKOUT / "user.conf")}
    for name, value in asked.items():
        if name in _BY_ROLE | without or value in (usual[name], None) or not matters(name, asked):
            continue
        option = OPTIONS[name]
        if option.flag is None:
            each = value.items() if isinstance(value, dict) else [("", value)]
            yield from (word for key, one in each for word in ("--set", f"{name}{'.' * bool(key)}{key}={_yaml(one)}"))
        elif option.takes is bool:
            yield option.flag
        else:
            yield from (option.flag, _word(value))


def _word(value: Any) -> str:
    if isinstance(value, list):
        return ",".join(map(str, value))
    return f"{value:.15g}" if isinstance(value, (float, bool)) else str(value)


def _yaml(value: Any) -> str:
    """A value as ``--set`` reads it."""
    return value if isinstance(value, str) and load_yaml(value) == value else json.dumps(value)
