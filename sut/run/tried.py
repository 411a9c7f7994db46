"""What was tried before where lanes, threads and batch are ``auto``: one small file per system in the cache folder.

It makes starts faster, and choices better; no run depends on it. So a file that is not there, damaged, another
system's or cannot be written is as good as none, without a word.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter

from plugins.cache import cache_dir, make_private
from plugins.cpuinfo import read_cpuinfo
from plugins.files import SMALL_BYTES, read_file
from sut.files import write_text
from sut.models.content import digest_of
from sut.pipeline.assembly import Assembly
from sut.pipeline.choice import Choice
from sut.process.cgroup import cpu_quota, usable_cores
from sut.results.schema import Result, used
from sut.run.auto import ChoiceRun, Trial, followed_by

Key = Mapping[str, Any]
"""What a figure depends on, beside the choice."""

SHORTEST_S = 1.0
"""Of a run whose figure is kept: shorter ones say more about starting than about running."""
_MOST_RUNS, _MOST_TRIALS, _MOST_FILES = 320, 8, 256


@dataclass(frozen=True, slots=True)
class Settled:
    """What a run is made with, why, and by what it is known where its figure is kept."""

    choice: Choice
    why: str
    key: Key

    def line(self, scenario: str) -> str:
        """What a run is made with and why, in one line."""
        return f"{self.choice.words(scenario)}: {self.why}"


@dataclass(slots=True)
class Tried:
    """All that is known of one system."""

    key: dict[str, Any]
    trials: list[Trial] = field(default_factory=list)
    runs: list[ChoiceRun] = field(default_factory=list)
    """The oldest first."""
    schema: Literal[2] = 2

    def trial_of(self, choices: list[Choice]) -> Trial | None:
        """The last trial of just these candidates."""
        same = (each for each in reversed(self.trials) if each.choices == choices and len(each.rounds) == len(choices))
        return next(same, None)


_TRIED = TypeAdapter(Tried)


def _model(parts: Assembly) -> dict[str, Any]:
    """A model and what runs it."""
    config = parts.config
    runtime = [config.backend, parts.backend.version(), config.device, dict(config.backend_options), config.affinity]
    model = digest_of(parts.model.loads) if parts.model else None
    return {"model": model, "backend": runtime, "precision": config.precision}


def key_of(parts: Assembly, samples_per_query: int) -> Key:
    """What tells a system from others: its model's content, what runs it and how, on what, and the machine."""
    config = parts.config
    key: dict[str, Any] = {
        **_model(parts),
        "boundary": [config.boundary, config.preprocess, config.preprocess_workers, dict(config.preprocess_options)],
        "scenario": config.scenario,
        "samples": min(config.performance_sample_count or parts.performance_samples, parts.dataset.count),
        "cores": [usable_cores(), cpu_quota(Path("/"))],
        "machine": f"{read_cpuinfo().model}, {platform.machine()}, {os.cpu_count()} cores",
    }
    if config.stages_preprocessing and (config.preprocess_place, config.preprocess_batch) != ("thread", 1):
        key["workers"] = [config.preprocess_place, config.preprocess_batch]
    if parts.second is not None:
        how = [config.identify_workers, config.identify_batch, config.channel, config.fan_out]
        key["second"] = [_model(parts.second), how]
    if config.serve != "none":
        key["serve"] = config.serve
    if config.slowdown:
        key["slowdown"] = dict(config.slowdown)
    if config.times_preprocessing:  # larger pictures take longer, whatever the settings
        key["pictures"] = [parts.dataset.name, str(parts.dataset.root)]
    if config.scenario == "MultiStream":
        key["samples_per_query"] = samples_per_query
    if config.scenario == "Server":  # the same rate and bound: what else could be compared?
        key["server"] = [config.qps, config.max_latency_s, config.batching, config.max_wait_ms]
    return key


def read(key: Key) -> Tried:
    """What is known; nothing where there is no file, or one that cannot be believed."""
    try:
        found = _TRIED.validate_json(read_file(_path(key), SMALL_BYTES), strict=False)
    except (OSError, ValueError):
        return Tried(dict(key))
    return found if found.key == json.loads(json.dumps(key)) else Tried(dict(key))


def keep_trial(key: Key, trial: Trial) -> None:
    """Keep what warm-up measured, in the place of an earlier trial of the same candidates."""
    tried = read(key)
    tried.trials = [*(each for each in tried.trials if each.choices != trial.choices), trial][-_MOST_TRIALS:]
    _write(tried)


def keep_run(key: Key, result: Result) -> None:
    """Keep what a finished run came to with its lanes, threads and batch, where its figure says something of them."""
    figure = _figure(result)
    if figure is None or not result.valid or (result.duration_s or 0) < SHORTEST_S or result.is_busy:
        return
    try:
        choice = Choice(**used(result)).seen_by(result.scenario)
    except TypeError:
        return
    tried = read(key)
    tried.runs = followed_by(tried.runs, ChoiceRun(choice, figure, time.time()))[-_MOST_RUNS:]
    _write(tried)


def _figure(result: Result) -> float | None:
    """By what runs are compared: Offline's rate, else the percentile that the scenario's own figure is about, in ns."""
    if result.mode != "performance":
        return None
    if result.scenario == "Offline":
        return result.samples_per_second
    if result.scenario == "Server" and result.config.get("qps") is None:
        return None  # each run's own calibration chose its rate
    return result.latency_ns.get("p90" if result.scenario == "SingleStream" else "p99")


def _path(key: Key) -> Path:
    words = json.dumps(key, sort_keys=True)
    return cache_dir() / "auto" / f"{hashlib.sha256(words.encode()).hexdigest()[:16]}.json"


def _write(tried: Tried) -> None:
    with suppress(OSError, ValueError):
        path = _path(tried.key)
        make_private(path.parent)
        write_text(path, json.dumps(asdict(tried), indent=1) + "\n")
        files = sorted(path.parent.glob("*.json"), key=lambda each: each.stat().st_mtime)
        for old in files[:-_MOST_FILES]:
            old.unlink()
