"""What is tried: a grid of settings that have an effect in the scenario, each point a change of one config."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from plugins.options import tuned
from plugins.registry import suggest
from sut.config import OPTIONS, SCENARIOS, RunConfig, make_config
from sut.config.strict_yaml import load_yaml
from sut.config.words import assign
from sut.errors import InputError, one_line
from sut.models.registry import with_folder
from sut.pipeline.loading import load_backend
from sut.text import shortened

BACKEND_OPTIONS = "backend_options."
_OF_SECOND = ("channel", "identify_workers", "identify_batch", "identify_precision")
"""Those of a second model, where there is one."""

EFFECTS: Mapping[str, tuple[str, ...]] = {
    name: only.values if (only := OPTIONS[name].only) and only.setting == "scenario" else SCENARIOS
    for name in (
        *("lanes", "threads", "max_batchsize", "max_wait_ms", "batching", "precision"),
        *("preprocess_workers", "preprocess_place", "preprocess_batch"),
        *_OF_SECOND,
    )
}
"""The settings that change how fast the same work is done, and the scenarios in which each does."""

_BATCHES = {"MultiStream": (1, 4, 8), "Offline": (1, 4, 8, 16, 32), "Server": (1, 8)}


@dataclass(frozen=True, slots=True)
class Point:
    """Some settings that differ from the base config's. ``backend_options.NAME`` names an option of the backend."""

    settings: tuple[tuple[str, Any], ...] = ()

    @property
    def label(self) -> str:
        """The point in one line."""
        return " ".join(f"{key}={_text(value)}" for key, value in self.settings) or "default"

    def apply(self, base: RunConfig, **more: Any) -> RunConfig:
        """``base`` with this point's settings and ``more``. Raises ``InputError`` for a value that it cannot have."""
        return with_settings(base, dict(self.settings) | more)


DEFAULT = Point()
"""The base config as it is."""


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def with_settings(base: RunConfig, changes: Mapping[str, Any]) -> RunConfig:
    """``base`` with other settings; a dotted key names an entry of a setting that is a map.

    Raises ``InputError`` for an unknown setting or a bad value.
    """
    settings = base.model_dump(exclude_unset=True)
    for key, value in changes.items():
        assign(settings, key, value)
    return make_config(with_folder(settings))


def parse_space(texts: Iterable[str], config: RunConfig) -> dict[str, list[Any]]:
    """``KEY=V1,V2`` words, their values read as YAML. Raises ``InputError`` for what has no effect in the scenario.

    >>> parse_space(["lanes=1,2", "threads=1"], RunConfig(scenario="Offline"))
    {'lanes': [1, 2], 'threads': [1]}
    """
    space = parse_lists("--space", itertools.chain.from_iterable(text.split() for text in texts))
    for key, values in space.items():
        _check_key(key, config)
        for value in values:
            _check_backend(with_settings(config, {key: value}))
    return space


def parse_lists(option: str, words: Iterable[str]) -> dict[str, list[Any]]:
    """``KEY=V1,V2`` words of an option, their values read as YAML. Raises ``InputError`` for what is none.

    >>> parse_lists("--vary", ["lanes=1,2", "backend_options.streams=1"])
    {'lanes': [1, 2], 'backend_options.streams': [1]}
    """
    found: dict[str, list[Any]] = {}
    for word in words:
        key, _, values = word.partition("=")
        key = key.strip().replace("-", "_")
        if not key or not all(values.split(",")):
            raise InputError(f"{option} takes KEY=V1,V2, got '{shortened(word)}'; for example {option} lanes=1,2")
        if key in found:
            raise InputError(f"{option} has {key} twice; name all of its values at once: {option} {key}=V1,V2")
        try:
            found[key] = [load_yaml(value) for value in values.split(",")]
        except ValueError as error:
            raise InputError(f"{option} {key}: '{shortened(values)}' are no YAML values ({error})") from None
    return found


def _check_backend(config: RunConfig) -> None:
    """Refuse what the backend cannot do before anything is run. Raises ``InputError``."""
    backend = load_backend(config.backend)
    try:
        backend.read_options(config.backend_options)
    except ValueError as error:
        raise InputError(one_line(error)) from error
    known = backend.precisions_on(config.devices[0])
    if config.precision not in known:
        raise InputError(f"{config.backend} cannot run precision {config.precision}; it has {', '.join(known)}")


def _check_key(key: str, config: RunConfig) -> None:
    if key.startswith(BACKEND_OPTIONS) and key != BACKEND_OPTIONS:
        return
    if key not in EFFECTS:
        raise InputError(f"--space cannot vary '{key}'; {suggest(key, EFFECTS)}, {BACKEND_OPTIONS}NAME")
    if config.scenario not in EFFECTS[key]:
        raise InputError(f"--space {key} has no effect in {config.scenario}; leave it out")
    if key in _OF_SECOND and config.identify is None:
        raise InputError(f"--space {key} has no effect without a second model; add --identify MODEL, or leave it out")
    if (only := OPTIONS[key].only) and only.setting == "boundary" and config.boundary not in only.values:
        raise InputError(f"--space {key} has no effect at the boundary {config.boundary}; leave it out")


def default_space(config: RunConfig, cores: int) -> dict[str, list[Any]]:
    """What is varied where the user names nothing, small enough to end in minutes.

    Threads are left to share the cores among the lanes; of several devices, or core sets, each has as many lanes.
    Precision is not varied: it changes the answers, so it is for the user to allow it. What depends on the lanes, such
    as streams, is for ``default_points``, where the backend says what to try and the user has not decided it.

    Raises ``InputError`` for an unknown backend, ``SetupError`` for one that cannot be loaded.
    """
    backend = load_backend(config.backend)
    if config.scenario == "SingleStream":
        return {"threads": _doublings(cores)}
    some = [config.units * each for each in _doublings(max(1, cores // config.units))]
    lanes = some[-2:] if config.scenario == "MultiStream" else some
    space: dict[str, list[Any]] = {"lanes": lanes, "max_batchsize": [*_BATCHES[config.scenario]]}
    if config.scenario == "Server":
        space["max_wait_ms"] = [0.0, 2.0]
    has_workers = config.times_preprocessing and config.identify is None  # beside a second model they are refused
    if has_workers and config.scenario in ("Server", "Offline"):
        space["preprocess_workers"] = sorted({0, max(1, cores // 2)})
    for name, its in tuned(backend.options).items():
        values = [value for each in lanes if (value := its.of_lanes(each))]
        if values and not {name, *its.unless} & config.backend_options.keys():
            space[BACKEND_OPTIONS + name] = values
    return space


def _doublings(cores: int) -> list[int]:
    """1, a few values between, and all: at most four.

    >>> _doublings(2), _doublings(6), _doublings(64)
    ([1, 2], [1, 3, 6], [1, 16, 32, 64])
    """
    return sorted({max(1, cores // 4), max(1, cores // 2), cores, 1})


def default_points(space: Mapping[str, Sequence[Any]], base: RunConfig) -> list[Point]:
    """The points of ``default_space``: ``points_of`` it, of the backend's options what it says for the lanes."""
    own = {f"{BACKEND_OPTIONS}{name}": its for name, its in tuned(load_backend(base.backend).options).items()}
    points = points_of({key: values for key, values in space.items() if key not in own}, base)
    for point in tuple(points):
        lanes = point.apply(base).lane_count
        points += [
            Point((*point.settings, (key, value)))
            for key, its in own.items()
            if (value := its.of_lanes(lanes)) in space.get(key, ())
        ]
    return points


def points_of(space: Mapping[str, Sequence[Any]], base: RunConfig) -> list[Point]:
    """Every point of the grid that does something else than those before it, the base config as it is first.

    Raises ``InputError`` for a combination that no config can have.
    """
    found = {_effect(base): DEFAULT}
    for values in itertools.product(*space.values()):
        point = Point(tuple(zip(space, values, strict=True)))
        found.setdefault(_effect(point.apply(base)), point)
    return list(found.values())


def _effect(config: RunConfig) -> str:
    """What a config does: the same text for configs that do the same."""
    same: dict[str, Any] = {"threads": config.threads_per_lane, "lanes": config.lane_count} if config.lanes else {}
    if config.max_batchsize == 1:
        same["max_wait_ms"] = 0.0  # nothing to wait for
    if not config.stages_preprocessing:
        same |= {"preprocess_place": "thread", "preprocess_batch": 1}  # of no worker
    return repr(config.model_dump() | same)


def tidy(rate: float) -> float:
    """A rate with four digits, as it is run and written down.

    >>> tidy(123.456)
    123.5
    """
    return float(f"{rate:.4g}") if math.isfinite(rate) else rate
