"""What words on a command line say: assignments, durations, scenarios."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from plugins.registry import suggest
from sut.config import SCENARIOS
from sut.config.strict_yaml import load_yaml
from sut.errors import InputError
from sut.text import shortened


def parse_assignment(text: str) -> tuple[str, Any]:
    """``KEY=VALUE`` of ``--set``, its value read as YAML.

    >>> parse_assignment("max_batchsize=16")
    ('max_batchsize', 16)
    """
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise InputError(f"--set takes KEY=VALUE, got '{text}'")
    try:
        return key.replace("-", "_"), load_yaml(value)
    except ValueError as error:
        raise InputError(f"--set {key}: '{shortened(value)}' is no YAML value ({error})") from None


def assign(settings: dict[str, Any], key: str, value: Any) -> None:
    """Put a value of ``--set`` into ``settings``. A key with a dot names one entry of a mapping, and keeps the others.

    >>> settings = {"backend_options": {"hint": "latency"}}
    >>> assign(settings, "backend_options.streams", 2)
    >>> settings
    {'backend_options': {'hint': 'latency', 'streams': 2}}
    """
    outer, dot, inner = key.partition(".")
    if not dot:
        settings[key] = value
        return
    within = settings.get(outer, {})
    if not isinstance(within, Mapping):
        raise InputError(f"--set {key}: {outer} is {within!r}, expected a mapping to put {inner} into")
    settings[outer] = {**within, inner: value}


def parse_budget(text: str) -> float:
    """The seconds of a duration with a unit.

    >>> parse_budget("5m"), parse_budget("90 s")
    (300.0, 90.0)
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smh])", text.strip())
    if found is None or not (seconds := float(found[1]) * {"s": 1, "m": 60, "h": 3600}[found[2]]):
        raise InputError(f"--budget takes a time such as 90s, 5m or 1h, got '{shortened(text)}'")
    return seconds


def parse_scenarios(text: str) -> tuple[str, ...]:
    """A comma list of scenarios, or ``all``. Spelling aside, in the order given, each once.

    >>> parse_scenarios("offline,Server")
    ('Offline', 'Server')
    """
    if text.strip().lower() == "all":
        return SCENARIOS
    by_word = {name.lower(): name for name in SCENARIOS}
    found: dict[str, None] = {}
    for word in (part.strip() for part in text.split(",")):
        name = by_word.get(word.lower().replace("-", "").replace("_", ""))
        if name is None:
            raise InputError(f"unknown scenario '{word}'; {suggest(word, (*SCENARIOS, 'all'))}")
        found[name] = None
    return tuple(found)
