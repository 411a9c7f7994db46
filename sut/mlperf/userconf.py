"""Reads LoadGen's files (``user.conf``, ``mlperf.conf``, ``audit.config``) with its own precedence, but strictly.

LoadGen's parser ignores what it does not understand: ``key=value`` without blanks, unknown keys, ``1e3`` for an integer
(read as 1). A setting that was typed and did nothing makes a wrong benchmark, so all of these are refused here.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from plugins.files import SMALL_BYTES, read_file
from plugins.registry import suggest
from sut.config import SCENARIOS
from sut.errors import InputError, reason_of
from sut.mlperf.logs import OFFICIAL_SEEDS
from sut.mlperf.official import BENCHMARKS

Kind = Literal["user", "rules", "audit"]
"""``user``: a user.conf; ``rules``: a copy of mlperf.conf; ``audit``: an audit.config."""

_FLAGS: dict[Kind, str] = {"user": "user_conf", "rules": "mlperf_conf", "audit": "audit_conf"}

_INTEGERS = """
    min_duration max_duration min_query_count max_query_count target_latency samples_per_query max_async_queries
    coalesce_queries performance_sample_count_override accuracy_sample_count_override sample_concatenate_permutation
    performance_issue_unique performance_issue_same performance_issue_same_index accuracy_log_sampling_target
    print_timestamps
"""
INTEGER_KEYS = frozenset(_INTEGERS.split())
FLOAT_KEYS = frozenset({"target_qps", "target_latency_percentile"})
_OF_RULES = """
    use_token_latencies infer_token_latencies token_latency_scaling_factor ttft_latency tpot_latency target_duration
"""
RULES_KEYS = frozenset(_OF_RULES.split())
"""Whole numbers that stand in MLPerf's own file and do nothing: for language models, or not read by LoadGen 6.0."""
AUDIT_SEED = "accuracy_log_rng_seed"
"""The one seed that LoadGen takes from a file: which answers of a performance run are logged."""
SEED_KEYS = {f"{test}{seed}" for test in ("", "test05_") for seed in OFFICIAL_SEEDS} | {AUDIT_SEED}
_NAMES = """
    resnet50 ssd-mobilenet retinanet yolo 3d-unet bert dlrm dlrm-v2 dlrm-v3 rnnt gptj mixtral-8x7b llama2-70b
    llama2-70b-interactive llama3_1-405b llama3_1-405b-interactive llama3_1-8b llama3_1-8b-edge llama3_1-8b-interactive
    stable-diffusion-xl wan-2.2-t2v-a14b rgat pointpainting deepseek-r1 deepseek-r1-interactive whisper
    qwen3-vl-235b-a22b gpt-oss-120b gpt-oss-120b-interactive
"""
RULES_MODELS = frozenset(_NAMES.split())
"""The models that LoadGen 6.0's mlperf.conf names. A setting of any other is never looked up: every image classifier is
judged as resnet50."""

REFUSED = {
    "mode": "the mode is chosen by --accuracy and --find-peak-performance",
    "num_issue_query_threads": "LoadGen hangs with it when driven from Python",
    "server_num_issue_query_threads": "LoadGen hangs with it when driven from Python",
}

_RANGES = {
    "target_qps": (math.ulp(0.0), 1e12, "more than 0, or LoadGen never ends its schedule"),
    "samples_per_query": (1, 1_000_000, "1 to 1,000,000"),
    "target_latency_percentile": (math.ulp(0.0), math.nextafter(100.0, 0.0), "more than 0 and less than 100"),
    "accuracy_sample_count_override": (0, 0, "0: what is scored is chosen by --count"),
    # With 1 a SingleStream run took eight times its min_duration.
    "sample_concatenate_permutation": (0, 0, "0: MLPerf has every sample drawn at random for image classifiers"),
}
_MOST = 10**12
"""Of any whole number that is no seed: with a larger duration LoadGen's nanoseconds overflow."""

# ASCII, as LoadGen splits: a no-break space, copied from a web page, is no blank to it.
_BLANKS = " \t\r\v\f"
_LINE = re.compile(r"^(?P<key>\S+)\s+=\s+(?P<value>\S+)$", re.ASCII)
_FRACTIONS = ("SingleStream", "MultiStream")  # LoadGen cuts Server's target_latency to whole milliseconds
# Without a leading zero: LoadGen would read it as octal.
_INTEGER = re.compile(r"^(0|[1-9][0-9]*)$")
_FLOAT = re.compile(r"^[0-9]+(\.[0-9]*)?([eE][+-]?[0-9]+)?$|^\.[0-9]+$")


@dataclass(frozen=True, slots=True)
class Conf:
    """The settings of one file. ``values`` maps ``model.scenario.key`` to its text."""

    path: Path
    values: dict[str, str]

    def lookup(self, model: str, scenario: str, key: str) -> str | None:
        """The text LoadGen would use: model.scenario, then *.scenario, then model.*, then *.*; None where not set."""
        for prefix in (f"{model}.{scenario}", f"*.{scenario}", f"{model}.*", "*.*"):
            if (found := self.values.get(f"{prefix}.{key}")) is not None:
                return found
        return None

    def sets(self, model: str, scenario: str, key: str) -> bool:
        """Whether the file says anything about ``key`` for this model and scenario."""
        return self.lookup(model, scenario, key) is not None


def read_conf(path: Path, kind: Kind = "user") -> Conf:
    """Read a file of LoadGen settings.

    Raises ``InputError`` naming file and line for everything LoadGen would silently ignore or misread.
    """
    try:
        text = read_file(path, SMALL_BYTES).decode()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; give an existing one with --{_FLAGS[kind]}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as text ({reason_of(error)}); expected LoadGen settings") from None
    if text.startswith("\ufeff"):
        raise InputError(f"{path}:1: a byte order mark, which LoadGen takes for a part of the first word; save without")
    values: dict[str, str] = {}
    for number, raw in enumerate(text.split("\n"), start=1):
        line = raw.strip(_BLANKS)
        if not line:
            continue
        where = f"{path}:{number}"
        if line.startswith("#"):
            _check_comment(line, where)
            continue
        name, value = _split(line, where)
        _check(name, value, where, kind)
        values[name] = value
    return Conf(path, values)


def _check_comment(line: str, where: str) -> None:
    """LoadGen knows a comment by the word ``#``; ``#word`` is a setting to it, of a key that does not exist."""
    if line[:2].strip(_BLANKS) == "#" or not re.search(r"\s", line, re.ASCII):
        return
    if (match := _LINE.match(line)) and _FLOAT.match(match["value"]):
        return
    raise InputError(f"{where}: got '{line}': without a blank behind '#' LoadGen refuses the whole file; put one there")


def _split(line: str, where: str) -> tuple[str, str]:
    if match := _LINE.match(line):
        return match["key"], match["value"]
    if "#" in line:
        raise InputError(
            f"{where}: a comment behind a value makes LoadGen refuse the whole file; put it on its own line"
        )
    if "=" in line:
        raise InputError(f"{where}: got '{line}', expected 'key = value' with a blank on both sides of '='")
    raise InputError(f"{where}: got '{line}', expected 'model.scenario.key = value'")


def _check(name: str, value: str, where: str, kind: Kind) -> None:
    parts = name.rsplit(".", 2)
    if len(parts) != 3 or not all(parts):
        raise InputError(f"{where}: got the key '{name}', expected 'model.scenario.key', e.g. '*.Server.target_qps'")
    model, scenario, key = parts
    if kind == "audit" and model != "*":
        raise InputError(
            f"{where}: got the model '{model}', expected '*': LoadGen looks for no other in an audit.config"
        )
    if model != "*" and model not in RULES_MODELS:
        raise InputError(
            f"{where}: LoadGen has no rules for a model '{model}', so this would be ignored; image classifiers of any "
            f"name go by resnet50's, detectors by yolo's ({suggest(model, {'*', 'resnet50', 'retinanet', 'yolo'})})"
        )
    if scenario != "*" and scenario not in SCENARIOS:
        raise InputError(f"{where}: unknown scenario '{scenario}'; {suggest(scenario, (*SCENARIOS, '*'))}")
    if kind == "audit" and key == "mode":
        if value not in ("0", "1", "2", "3"):
            raise InputError(f"{where}: 'mode' takes 0 to 3, got '{value}'")
    elif key in REFUSED:
        raise InputError(f"{where}: '{key}' is refused: {REFUSED[key]}")
    elif key in SEED_KEYS:
        _check_seed(key, value, where, kind)
    else:
        _check_value(key, value, where, scenario, kind)
        # Of another model's rules nothing is ever looked up.
        if kind != "rules" or model in ("*", *(each.conf for each in BENCHMARKS.values())):
            _check_range(key, value, where, scenario)


def _check_seed(key: str, value: str, where: str, kind: Kind) -> None:
    if kind == "user":
        raise InputError(f"{where}: '{key}' is refused: the seeds are LoadGen's official ones")
    if kind == "audit" and key != AUDIT_SEED:
        raise InputError(
            f"{where}: '{key}' is refused: LoadGen takes it from its own rules only, and would ignore it here"
        )
    if not _INTEGER.match(value):
        raise InputError(f"{where}: '{key}' takes a whole number, got '{value}'")


def _check_value(key: str, value: str, where: str, scenario: str, kind: Kind) -> None:
    form, expected, why = _FLOAT, "a number", ""
    if key == "target_latency" and scenario in _FRACTIONS:
        expected = "milliseconds"
    elif key in INTEGER_KEYS or (kind == "rules" and key in RULES_KEYS):
        form, expected, why = _INTEGER, "a whole number", " (LoadGen would read something else)"
    elif key not in FLOAT_KEYS:
        known = INTEGER_KEYS | FLOAT_KEYS | ({"mode", AUDIT_SEED} if kind == "audit" else set())
        raise InputError(f"{where}: unknown key '{key}'; {suggest(key, known)}")
    if not form.match(value):
        raise InputError(f"{where}: '{key}' takes {expected}, got '{value}'{why}")


def _check_range(key: str, value: str, where: str, scenario: str) -> None:
    """Values with which LoadGen would not end, would crash, or would run for another time than it was asked for."""
    least, most, expected = _RANGES.get(key, (0, _MOST, f"at most {_MOST:,}"))
    if key == "target_latency" and scenario != "Server":
        least, expected = math.ulp(0.0), "more than 0"
    if not least <= float(value) <= most:
        raise InputError(f"{where}: '{key}' takes {expected}; got '{value}'")
