"""One validated description of one run, from a YAML file, ``--set`` and flags."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from plugins.files import SMALL_BYTES, read_file
from sut.config.strict_yaml import load_yaml
from sut.errors import InputError, one_line, suggest
from sut.process.cgroup import usable_cores as usable_cores
from sut.text import checked_name, shortened

SCENARIOS = ("SingleStream", "MultiStream", "Server", "Offline")

Mode = Literal["performance", "accuracy", "find_peak"]

PROFILES: dict[str, dict[str, str]] = {
    "resnet50-onnxruntime": {"model": "resnet50", "backend": "onnxruntime"},
    "mobilenet-onnxruntime": {"model": "mobilenet", "backend": "onnxruntime"},
}
"""The reference harness's presets that work here."""

HOW_KEPT = frozenset({"mode", "output", "overwrite", "debug", "watchdog_s"})
"""How and where it is run and kept, as opposed to what is run."""

# What does not change what is measured stays out of the directory's name, so that a run finds its earlier self.
NOT_HASHED = {*HOW_KEPT, "scenario", "cache", "cache_dir", "known_models", "agreement"}

_MOST_THREADS = 1024
_MOST_SECONDS = 1e7
"""A third of a year. More than these, a machine is busy with making threads and LoadGen with its numbers."""

TIMED_BOUNDARIES = ("pixels", "jpeg")
"""Those with preprocessing inside the clock."""

AUTO = ("lanes", "threads", "max_batchsize")
"""What is chosen where it is not set, or is set to ``auto``."""

_MOST_PATH_BYTES = 4095
_MOST_NAME_BYTES = 255
"""What Linux takes of a path, and of each name in it."""


class RunConfig(BaseModel):
    """Everything that decides one run. Fields carry their unit; None means "measure it" or "as MLPerf's rules say"."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    backend: str = "onnxruntime"
    model: str = "efficientnet-lite0"
    """A known model's name, or an .onnx or .xml file."""
    model_name: str | None = None
    """Which known model a file is; with ``recipe``, what the model is called."""
    recipe: str | None = None
    """How pictures are prepared for a file: a recipe's name, or a YAML file."""
    device: str = "cpu"
    preprocess: str = "opencv"
    boundary: Literal["device", "tensor", "pixels", "jpeg"] = "tensor"
    precision: Literal["fp32", "fp16", "bf16", "int8"] = "fp32"
    """What must be executed. The backend says which form of the model's file that takes; it is made from the ONNX."""
    fold: bool = False
    """Put mean, std and layout into the graph: its input is then the pixels themselves, uint8 NHWC."""
    calibration_list: Path | None = None
    """Names of the data set's pictures that calibrate ``int8``; None chooses some that are not scored."""
    agreement: int | None = Field(None, ge=0, le=1_000_000)
    """Crops on which the labels of a reduced precision are compared with FP32's; None for 1000, 0 for no comparison."""
    rules: Literal["closed"] | None = None
    """A division whose rules are kept, where they forbid what would otherwise be done."""
    backend_options: dict[str, bool | int | float | str] = {}
    """The backend's own settings, as its ``options`` name them."""
    preprocess_options: dict[str, bool | int | float | str] = {}
    """The preprocessor's own settings, as its ``options`` name them."""
    weights: Literal["trained", "random"] = "trained"
    known_models: dict[str, str] = {}
    """Files of which the user says that they are a known model: MD5 or SHA-256 in hex, and the model's name."""
    scenario: Literal["SingleStream", "MultiStream", "Server", "Offline"] = "SingleStream"
    mode: Mode = "performance"

    dataset: str | None = None
    dataset_path: Path | None = None
    dataset_list: Path | None = None
    cache: bool = False
    """Keep preprocessed tensors on disk, and use those that are there."""
    cache_dir: Path | None = None
    preprocessed_dir: Path | None = None
    """A folder of .npy files, one per picture: filled with what is missing, unless ``use_preprocessed_dataset``."""
    use_preprocessed_dataset: bool = False
    """Take all tensors from ``preprocessed_dir`` as they are, whoever made them; no picture is read."""
    data_format: Literal["NCHW", "NHWC"] | None = None
    inputs: tuple[str, ...] | None = None
    outputs: tuple[str, ...] | None = None

    time_s: float | None = Field(None, gt=0, le=_MOST_SECONDS)
    """min_duration; None leaves MLPerf's 600 s and its query counts."""
    count: int | None = Field(None, ge=1)
    """Use the first ``count`` samples of the data set."""
    qps: float | None = Field(None, ge=1e-3, le=1e9)
    max_latency_s: float | None = Field(None, gt=0, le=_MOST_SECONDS)
    max_batchsize: int | None = Field(None, ge=1, le=65536)
    threads: int | None = Field(None, ge=1, le=_MOST_THREADS)
    """Runtime threads per lane."""
    lanes: int | None = Field(None, ge=1, le=_MOST_THREADS)
    """None, as for ``max_batchsize`` and ``threads``: chosen per scenario, see ``sut/run/auto.py``."""
    preprocess_workers: int = Field(0, ge=0, le=_MOST_THREADS)
    """Threads that only preprocess and feed the lanes; 0: each lane preprocesses for itself."""
    max_wait_ms: float = Field(0.0, ge=0, le=1000 * _MOST_SECONDS)
    batching: Literal["deadline", "fifo"] = "deadline"
    """How Server's batches are cut: with an eye on the latency bound, or first in, first out."""
    coalesce_queries: bool = False
    """Let LoadGen hand over at once all of Server's queries that are due."""
    samples_per_query: int | None = Field(None, ge=1, le=1_000_000)
    performance_sample_count: int | None = Field(None, ge=1, le=1_000_000_000)
    relax_server: bool = False
    """Let Server's latency bound follow the calibrated latency (ten times it, never below the official bound)."""

    output: Path = Path("output")
    overwrite: bool = False
    user_conf: Path | None = None
    mlperf_conf: Path | None = None
    audit_conf: Path | None = None
    watchdog_s: float | None = Field(None, ge=0.1, le=_MOST_SECONDS)
    debug: bool = False

    @field_validator("*", mode="before")
    @classmethod
    def _number(cls, value: Any, info: ValidationInfo) -> Any:
        """YAML's ``yes`` would be taken for 1."""
        kind = cls.model_fields[str(info.field_name)].annotation
        if isinstance(value, bool) and {int, float} & {kind, *get_args(kind)}:
            raise ValueError("expected a number")
        return value

    @field_validator(*AUTO, mode="before")
    @classmethod
    def _auto(cls, value: Any) -> Any:
        return None if isinstance(value, str) and value.strip().lower() == "auto" else value

    @field_validator("*", mode="before")
    @classmethod
    def _possible(cls, value: Any) -> Any:
        """Any word may name a file: what no path can be would be found out where it is used, and told as a failure."""
        if isinstance(value, (str, Path)):
            try:
                path = os.fsencode(value)
            except UnicodeEncodeError:
                raise ValueError("expected characters that can be encoded") from None
            if b"\0" in path:
                raise ValueError("expected no NUL character")
            if len(path) > _MOST_PATH_BYTES or max(map(len, path.split(b"/"))) > _MOST_NAME_BYTES:
                raise ValueError("it is too long for a path")
        return value

    @field_validator("device")
    @classmethod
    def _device(cls, value: str) -> str:
        value = value.lower()
        return "cuda" if value == "gpu" else value

    @field_validator("model_name", "backend", "preprocess")
    @classmethod
    def _word(cls, value: str | None) -> str | None:
        return None if value is None else checked_name(value)

    @field_validator("known_models")
    @classmethod
    def _hashes(cls, value: dict[str, str]) -> dict[str, str]:
        if not all(re.fullmatch(r"([0-9a-fA-F]{32}){1,2}", text) for text in value):
            raise ValueError("expected 'MD5 or SHA-256 of a file: model', 32 or 64 hexadecimal digits")
        return {text.lower(): name for text, name in value.items()}

    @property
    def lane_count(self) -> int:
        """Lanes as set; one as long as nothing has chosen."""
        return self.lanes or 1

    @property
    def threads_per_lane(self) -> int:
        """Runtime threads of each lane: as set, else the usable cores shared among the lanes."""
        return self.threads or max(1, usable_cores() // self.lane_count)

    @property
    def largest_batch(self) -> int:
        """Samples in a batch at most: as set; eight as long as nothing has chosen."""
        return self.max_batchsize or 8

    @property
    def preprocessed_from(self) -> Path | None:
        """Folder of the .npy files, if any; the reference harness looks for a ready one in its cache, too."""
        return self.preprocessed_dir or (self.cache_dir if self.use_preprocessed_dataset else None)

    @property
    def reads_pictures(self) -> bool:
        """Whether the data set's files are needed, as opposed to its list."""
        return self.boundary != "tensor" or not self.use_preprocessed_dataset

    @property
    def times_preprocessing(self) -> bool:
        """Whether any of it lies inside the clock."""
        return self.boundary in TIMED_BOUNDARIES

    @property
    def is_file(self) -> bool:
        """Whether ``model`` names a file rather than a known model."""
        return is_model_file(self.model)

    def digest(self, recipe: str = "") -> str:
        """Eight hex digits that tell this configuration, and what its ``recipe`` says, from others in any scenario."""
        words = self.model_dump(mode="json", exclude=NOT_HASHED) | {"recipe": recipe or self.recipe}
        return hashlib.sha256(json.dumps(words, sort_keys=True).encode()).hexdigest()[:8]


def is_model_file(model: str) -> bool:
    """Whether the word for a model names a file rather than a known one."""
    return model.lower().endswith((".onnx", ".xml")) or "/" in model


def model_stem(model: str) -> str:
    """What a model is called in few words: a file without its folder and ending.

    >>> model_stem("models/cats.v2.onnx"), model_stem("resnet50-v1.5")
    ('cats.v2', 'resnet50-v1.5')
    """
    return Path(model).stem if is_model_file(model) else model


def output_folder() -> Path:
    """Where results go and are looked for, if nobody says."""
    return Path(os.environ.get("OUTPUT_DIR") or "output")


def expanded(word: str) -> Path:
    """The path that a word means, ``~`` spelt out. Raises ``InputError`` for the home of somebody who is not known."""
    try:
        return Path(word).expanduser()
    except RuntimeError as error:
        raise InputError(f"{word}: {one_line(error)}; write the folder's name instead of ~") from None


def make_config(settings: Mapping[str, Any]) -> RunConfig:
    """A validated config. Raises ``InputError`` in one line per the first bad value."""
    if unknown := sorted(set(settings) - set(RunConfig.model_fields)):
        raise InputError(f"unknown setting '{unknown[0]}'; {suggest(unknown[0], RunConfig.model_fields)}")
    try:
        return RunConfig(**settings)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"][:2])
        text = first["msg"].removeprefix("Value error, ")
        if len(first["loc"]) > 2:  # one value of a mapping, which fits none of several types
            text = "expected a number, a word, true or false"
        raise InputError(f"{name}: {text}, got '{shortened(str(first['input']))}'") from None


def read_config_file(path: Path, hint: str = "--config takes one of configs/*.yaml or your own") -> dict[str, Any]:
    """The settings of one YAML file. Raises ``InputError`` naming it, with ``hint`` where it does not exist."""
    try:
        content = load_yaml(read_file(path, SMALL_BYTES).decode())
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; {hint}") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or one_line(error)
        raise InputError(f"{path}: not a readable YAML file ({reason}); {hint}") from None
    if content is None:
        return {}
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise InputError(f"{path}: got {type(content).__name__}, expected 'setting: value' lines")
    return content


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
    found: list[str] = []
    for word in (part.strip() for part in text.split(",")):
        name = by_word.get(word.lower().replace("-", "").replace("_", ""))
        if name is None:
            raise InputError(f"unknown scenario '{word}'; {_suggest_scenario(word)}")
        if name not in found:
            found.append(name)
    return tuple(found)


def _suggest_scenario(word: str) -> str:
    by_word = {name.lower(): name for name in SCENARIOS}
    hint = suggest(word, by_word)
    for lower, name in by_word.items():
        hint = hint.replace(lower, name)
    return hint + ", all"
