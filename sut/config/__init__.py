"""One validated description of one run, from a YAML file, ``--set`` and flags."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from plugins.files import SMALL_BYTES, read_file
from plugins.registry import suggest
from sut.config.option import Only, kinds_of, options_of, setting
from sut.config.secrets import PASSWORD, shows_secret
from sut.config.strict_yaml import load_yaml
from sut.errors import InputError, one_line, reason_of
from sut.process.affinity import parse as parse_affinity
from sut.process.cgroup import usable_cores
from sut.text import checked_name, shortened

Scenario = Literal["SingleStream", "MultiStream", "Server", "Offline"]
SCENARIOS: tuple[Scenario, ...] = get_args(Scenario)
Mode = Literal["performance", "accuracy", "find_peak"]

PROFILES: dict[str, dict[str, str]] = {
    "resnet50-onnxruntime": {"model": "resnet50", "backend": "onnxruntime"},
    "mobilenet-onnxruntime": {"model": "mobilenet", "backend": "onnxruntime"},
}
"""The reference harness's presets that work here."""

RUN_FILES = {"trace": "sut run", "power_log": "sut run, sut study energy and sut study beyond-inference"}
"""Files beside a command's own runs, and the commands that take these settings: those of many runs leave them out."""
HOW_KEPT = frozenset({"mode", "output", "overwrite", "debug", "keep_samples", *RUN_FILES, "watchdog_s"})
"""How and where it is run and kept, as opposed to what is run."""

# What does not change what is measured stays out of the directory's name, so that a run finds its earlier self.
NOT_HASHED = {*HOW_KEPT, "scenario", "audit_conf", "cache", "cache_dir", "known_models", "agreement"}

_MOST_THREADS = 1024
_MOST_SECONDS = 1e7
"""A third of a year. More than these, a machine is busy with making threads and LoadGen with its numbers."""
_Options = dict[str, bool | int | float | str]
_Threads = Annotated[int, Field(ge=1, le=_MOST_THREADS)]
_Name = Annotated[str, AfterValidator(checked_name)]
_Factor = Annotated[float, Field(ge=1, le=100)]
_Resources = dict[str, Annotated[float, Field(gt=0, le=1e6)]]
_Seconds = Annotated[float, Field(gt=0, le=_MOST_SECONDS)]

TIMED_BOUNDARIES = ("pixels", "jpeg")
"""Those with preprocessing inside the clock."""

_in_server = partial(Only, "scenario", ("Server",))
_in_int8 = partial(Only, "precision", ("int8",))
_with_several = partial(Only, "scenario", SCENARIOS[1:])  # samples at a time
_timed = Only("boundary", TIMED_BOUNDARIES, "preprocessing is done before the clock")
_ready = Only("boundary", ("tensor",), "preprocessing is timed, or ends on the device")

AUTO = ("lanes", "threads", "max_batchsize")
"""What is chosen where it is not set, or is set to ``auto``."""

FAN_OUT = re.compile(r"(\d{1,9})(?:\.\.(\d{1,9}))?")
"""``RunConfig.fan_out``: the least crops of a frame, and the most where that is another number."""
MOST_CROPS = 10_000

OF_CLUSTER = ("infer_place", "cluster", "infer_resources", "preprocess_resources", "redo_lost")
"""Settings of stages on Ray, but for ``preprocess_place``."""
CLUSTER = re.compile(r"auto|(?:ray://)?[\w.-]+:\d{1,5}")
"""``RunConfig.cluster``."""
_CUDA = re.compile(r"^cuda(?::(\d+))?$")
_MOST_PATH_BYTES = 4095
_MOST_NAME_BYTES = 255
"""What Linux takes of a path, and of each name in it."""


class RunConfig(BaseModel):
    """Everything that decides one run, each setting told once: the command line, the docs and the schema say the same.

    Fields carry their unit; None means "measure it" or "as MLPerf's rules say".
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    backend: _Name = setting("One of plugins/extras.txt, or another package's.", "onnxruntime", plugs="backend")
    model: str = setting(
        "A known model's name, an .onnx, .xml, .tflite, .pt2, .pt or .pth file, or a folder that an exporter left.",
        "efficientnet-lite0",
    )
    model_name: _Name | None = setting("Which known model a file is; with --recipe, its name in the results.")
    recipe: str | None = setting(
        "How to preprocess for a file of any model: a YAML file, such a folder, or a recipe's name."
    )
    device: str = setting(
        "cpu, gpu (= cuda), cuda:1, or a name the backend lists; several share the work: cuda:0,cuda:1.", "cpu"
    )
    preprocess: _Name = setting("One of plugins/extras.txt, or another package's.", "opencv", plugs="preprocess")
    boundary: Literal["device", "tensor", "pixels", "jpeg"] = setting("Where the clock starts.", "tensor")
    # The backend says which form of the model's file that takes; it is made from the ONNX.
    precision: Literal["fp32", "fp16", "bf16", "int8"] = setting("What the backend must execute.", "fp32")
    fold: bool = setting("Put mean, std and layout into the graph: input uint8 NHWC.", False)
    calibration_list: Path | None = setting(
        "Names of the pictures that calibrate int8; default: some that are not scored.",
        only=_in_int8("only int8 is calibrated on pictures"),
    )
    agreement: Annotated[int, Field(ge=0, le=1_000_000)] | None = setting(
        "Crops on which a reduced precision's labels are compared with FP32's, default 1000; of a detector pictures, "
        "default 50; 0: not.",
        only=Only(
            "precision", ("fp16", "bf16", "int8"), "it is what the labels of other precisions are compared with", "fold"
        ),
    )
    rules: Literal["closed", "network"] | None = setting(
        "closed, or network where a server has the model: official settings; what breaks MLPerf's rules is refused, "
        "what is finished and official is kept."
    )
    backend_options: _Options = setting("The backend's own settings, by name.", {}, flag=None)
    preprocess_options: _Options = setting("The preprocessor's own settings, by name.", {}, flag=None)
    weights: Literal["trained", "random"] = setting("trained, or random for speed work without the file.", "trained")
    known_models: dict[str, str] = setting(
        "Files that you say are a known model: MD5 or SHA-256 in hex, and the model's name.", {}, flag=None
    )
    scenario: Scenario = setting("What LoadGen asks, and when.", "SingleStream", flag=None)
    mode: Mode = setting("What the run is for; find_peak: Server's highest rate.", "performance", flag=None)

    dataset: str | None = setting(
        "demo, rectangles, albums, imagenet, coco, openimages, or folder (nothing to score against)."
    )
    dataset_path: Path | None = setting("Folder of the pictures; default $DATA_DIR.")
    dataset_list: Path | None = setting(
        "List or annotations; default val_map.txt in that folder, or what COCO's layout has."
    )
    cache: bool = setting(
        "1: keep preprocessed tensors on disk for the next start.",
        False,
        only=_ready,
        told="--cache 1",
        takes=Literal["0", "1"],
    )
    cache_dir: Path | None = setting("Where; default tensors in the cache folder.", only=_ready, told="--cache_dir")
    preprocessed_dir: Path | None = setting(
        "Folder of .npy tensors, one per picture; missing ones are made.", only=_ready, told="--preprocessed_dir"
    )
    use_preprocessed_dataset: bool = setting(
        "Use those tensors as they are; no picture is read.", False, only=_ready, told="--use_preprocessed_dataset"
    )
    data_format: Literal["NCHW", "NHWC"] | None = setting("What the model has; only checked against the recipe.")
    inputs: tuple[str, ...] | None = setting("Input names the model must have, comma list.")
    outputs: tuple[str, ...] | None = setting("Output names the model must have, comma list; one of them answers.")

    time_s: _Seconds | None = setting(
        "min_duration; without it MLPerf's 600 s and its query counts.",
        only=Only("mode", ("performance", "find_peak"), "the whole data set is asked once"),
    )
    count: int | None = setting("Use the first COUNT pictures of the data set.", ge=1)
    qps: Annotated[float, Field(ge=1e-3, le=1e9)] | None = setting(
        "Server's rate, or what Offline expects; measured if left out.",
        unit="queries/s",
        only=Only("scenario", ("Server", "Offline"), "the next query follows the answer"),
    )
    max_latency_s: _Seconds | None = setting(
        "Server's latency bound; default MLPerf's own.", only=_in_server("only Server has a latency bound")
    )
    max_batchsize: int | None = setting(
        "Samples in a batch at most; default auto.", only=_with_several("a query is one sample"), ge=1, le=65536
    )
    threads: _Threads | None = setting("Runtime threads a lane; default auto.")
    # None, as for max_batchsize and threads: chosen per scenario, see sut/run/auto.py.
    lanes: _Threads | None = setting(
        "Pipelines that work at once; default auto.",
        only=_with_several("a query is one sample, and they come one at a time"),
        idle=1,
    )
    affinity: str | None = setting(
        "Cores or NUMA nodes by stage, a slash between those of devices: lanes=node0/node1,preprocess=8-11,loadgen=12."
    )
    preprocess_workers: Annotated[int, Field(ge=0, le=_MOST_THREADS)] = setting(
        "Workers that only preprocess and feed the lanes; default 0: each lane preprocesses for itself.",
        0,
        only=_timed,
    )
    preprocess_place: Literal["thread", "process", "ray"] = setting(
        "Where these are: threads, processes with the tensors in shared memory, or actors on a Ray cluster.",
        "thread",
        only=_timed,
    )
    preprocess_batch: Annotated[int, Field(ge=1, le=65536)] = setting(
        "Samples that each of them takes up at once; default 1.", 1, only=_timed
    )
    infer_place: Literal["thread", "ray"] = setting(
        "Where the lanes infer: in this process, or each by an actor on a Ray cluster.", "thread"
    )
    cluster: str | None = setting("The Ray cluster with those actors: auto, HOST:PORT of its head, or ray://HOST:PORT.")
    infer_resources: _Resources = setting(
        "What each actor that infers takes of its node, by Ray's names.", {"CPU": 1.0}, flag=None
    )
    preprocess_resources: _Resources = setting(
        "What each actor that preprocesses takes of its node, by Ray's names.", {"CPU": 1.0}, flag=None
    )
    redo_lost: bool = setting(
        "Have other nodes do again what a lost node had to do, counted, instead of failing.", False, flag=None
    )
    identify: str | None = setting(
        "A second model, which says what is in the boxes of the first: a known model's name, or a file."
    )
    identify_backend: _Name | None = setting("Its runtime; default the first model's.")
    identify_precision: Literal["fp32", "fp16", "bf16", "int8"] = setting("What that must execute.", "fp32")
    identify_options: _Options = setting("That runtime's own settings, by name.", {}, flag=None)
    identify_workers: _Threads = setting(
        "Workers behind a channel, each with that model; default 1. Without a channel each lane identifies.", 1
    )
    identify_batch: Annotated[int, Field(ge=1, le=65536)] = setting(
        "Crops in a batch at most, of any frames; default 8.", 8
    )
    channel: str = setting(
        "How crops reach the second model: none (in the lane), memory, shared, redis, kafka, or a broker's URL.", "none"
    )
    fan_out: str | None = setting(
        "How many crops a frame has, N or A..B by turns, instead of one for each box that is found."
    )
    max_wait_ms: Annotated[float, Field(ge=0, le=1000 * _MOST_SECONDS)] = setting(
        "How long Server waits to fill a batch; default 0.",
        0.0,
        only=_in_server("only Server waits for a batch to fill"),
    )
    batching: Literal["deadline", "fifo"] = setting(
        "How Server's batches are cut: with an eye on the latency bound, or first in, first out.",
        "deadline",
        flag=None,
        only=_in_server("only Server chooses its batches"),
        told="batching={}",
    )
    coalesce_queries: bool = setting(
        "Let LoadGen hand over at once all of Server's queries that are due.",
        False,
        flag=None,
        only=_in_server("only Server's queries come one by one"),
    )
    samples_per_query: Annotated[int, Field(ge=1, le=1_000_000)] | None = setting(
        "MultiStream's samples in a query.", only=Only("scenario", ("MultiStream",), "that is of MultiStream's queries")
    )
    performance_sample_count: int | None = setting("Samples that are loaded at a time.", ge=1, le=1_000_000_000)
    serve: Literal["none", "grpc", "http"] = setting(
        "Put the system behind sut serve, which the run starts on this host, and ask it over that.",
        "none",
    )
    slowdown: dict[str, _Factor] = setting(
        "Stages to stretch, and how many times as long each takes: what sut whatif runs; no result of the system.",
        {},
        flag=None,
    )
    relax_server: bool = setting(
        "Let Server's latency bound be ten times the calibrated latency, if over the official one.", False, flag=None
    )

    output: Path = setting("Where results go; default $OUTPUT_DIR, else ./output.", Path("output"))
    overwrite: bool = setting("Remove an earlier result instead of renaming it.", False)
    user_conf: Path | None = setting("LoadGen settings, read strictly; default user.conf of the checkout.")
    mlperf_conf: Path | None = setting("Rules on top of LoadGen's embedded ones.")
    audit_conf: Path | None = setting("An audit.config (TEST01, TEST04) to obey, read as strictly.")
    watchdog_s: float | None = setting("Stop a run after so long without progress.", ge=0.1, le=_MOST_SECONDS)
    debug: bool = setting("Tracebacks, and keep LoadGen's trace.", False)
    trace: Path | None = setting(
        "Write the run's begin as a trace for Perfetto, compressed if FILE ends in .gz; of several runs, one each."
    )
    power_log: Path | None = setting(
        "What an external power meter writes meanwhile: lines of a time and watts, read after each run.",
        only=Only("mode", ("performance",), "energy is of a run that is timed"),
    )
    keep_samples: bool = setting("Keep each sample's stages beside the result, in samples.npz.", False, flag=None)

    @field_validator("*", mode="before")
    @classmethod
    def _number(cls, value: Any, info: ValidationInfo) -> Any:
        """YAML's ``yes`` would be taken for 1."""
        if isinstance(value, bool) and {int, float} & kinds_of(cls)[str(info.field_name)]:
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
        """Each device by one name, so that none hides behind another."""
        words = ["cuda" if word == "gpu" else word for word in map(str.strip, value.lower().split(","))]
        if not all(words):
            raise ValueError("an empty name between commas" if len(words) > 1 else "the name of the device is empty")
        if any(len(word.split()) > 1 for word in words):
            raise ValueError("a blank within a name; expected commas between devices")
        if len(words) == 1:
            return words[0]
        words = [_CUDA.sub(lambda found: f"cuda:{int(found[1] or 0)}", word) for word in words]
        if twice := next((word for word in words if words.count(word) > 1), None):
            raise ValueError(f"the device {twice} is there twice; name each once")
        return ",".join(words)

    @field_validator("affinity")
    @classmethod
    def _affinity(cls, value: str | None) -> str | None:
        if value is not None:
            parse_affinity(value)
        return value

    @field_validator("fan_out", mode="before")
    @classmethod
    def _fan_out(cls, value: Any) -> Any:
        if value is None:
            return None
        found = FAN_OUT.fullmatch(str(value))
        if isinstance(value, bool) or found is None or int(found[1]) > int(found[2] or found[1]):
            raise ValueError("expected a number of crops, N, or from the least to the most, A..B")
        if int(found[2] or found[1]) > MOST_CROPS:
            raise ValueError(f"expected at most {MOST_CROPS:,} crops")
        return str(value)

    @field_validator("cluster")
    @classmethod
    def _cluster(cls, value: str | None) -> str | None:
        if value is not None and not CLUSTER.fullmatch(value):
            raise ValueError("expected auto, HOST:PORT or ray://HOST:PORT")
        return value

    @field_validator("channel")
    @classmethod
    def _channel(cls, value: str) -> str:
        """Nothing that is secret: a config is shown, kept and told to other processes."""
        if shows_secret(value):
            raise ValueError(f"a password in a URL would be seen; it belongs into the environment, {PASSWORD}")
        return value

    @field_validator("known_models")
    @classmethod
    def _hashes(cls, value: dict[str, str]) -> dict[str, str]:
        if not all(re.fullmatch(r"([0-9a-fA-F]{32}){1,2}", text) for text in value):
            raise ValueError("expected 'MD5 or SHA-256 of a file: model', 32 or 64 hexadecimal digits")
        return {text.lower(): name for text, name in value.items()}

    @property
    def devices(self) -> tuple[str, ...]:
        """The devices by name."""
        return tuple(self.device.split(","))

    @property
    def units(self) -> int:
        """How often the model is loaded: once on each device, or on each core set of the CPU's."""
        return max(len(self.devices), self.lane_sets)

    @property
    def lane_sets(self) -> int:
        """How many core sets the lanes have; 0: they may be anywhere."""
        return len(parse_affinity(self.affinity).get("lanes", ())) if self.affinity is not None else 0

    @property
    def lane_count(self) -> int:
        """Lanes as set, one on each device at the least; as many as these as long as nothing has chosen."""
        return max(self.lanes or 1, self.units)

    @property
    def requests_at_once(self) -> int:
        """Lanes on LoadGen's side: the system's own, or two for each behind a server, one of them on its way."""
        return self.lane_count * (2 if self.serve != "none" and self.scenario != "SingleStream" else 1)

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
    def stages_preprocessing(self) -> bool:
        """Whether preprocessing has workers of its own, where there is any; behind a server those are the server's."""
        return self.preprocess_workers > 0 and self.times_preprocessing and self.serve == "none"

    @property
    def shares_pictures(self) -> bool:
        """Whether processes of their own preprocess."""
        return self.stages_preprocessing and self.preprocess_place == "process"

    @property
    def prepares_on_ray(self) -> bool:
        """Whether actors on a cluster preprocess."""
        return self.stages_preprocessing and self.preprocess_place == "ray"

    @property
    def off_cluster(self) -> RunConfig:
        """The same with all stages in this process or beside it."""
        fields = type(self).model_fields
        own = {name: fields[name].default for name in OF_CLUSTER}
        prepares = {"preprocess_place": "thread"} if self.preprocess_place == "ray" else {}
        return self.model_copy(update=own | prepares)

    @property
    def identifier(self) -> RunConfig:
        """The second model's own config, as far as this one decides it. Raises ``ValueError`` where there is none."""
        if self.identify is None:
            raise ValueError("no second model: identify is not set")
        lanes = self.lane_count if self.channel == "none" else self.identify_workers
        return RunConfig(
            model=self.identify,
            backend=self.identify_backend or self.backend,
            device=self.devices[0],
            precision=self.identify_precision,
            backend_options=self.identify_options,
            preprocess=self.preprocess,
            preprocess_options=self.preprocess_options,
            boundary="pixels",
            weights=self.weights,
            known_models=self.known_models,
            scenario="Offline",
            lanes=1 if self.channel not in ("none", "memory") else lanes,
            threads=self.threads or max(1, usable_cores() // lanes),
            max_batchsize=self.identify_batch,
            rules=None,
        )

    @property
    def is_file(self) -> bool:
        """Whether ``model`` names a file rather than a known model."""
        return is_model_file(self.model)

    def digest(self, recipe: str = "") -> str:
        """Eight hex digits that tell this configuration, and what its ``recipe`` says, from others in any scenario."""
        words = self.model_dump(mode="json", exclude=NOT_HASHED) | {"recipe": recipe or self.recipe}
        return hashlib.sha256(json.dumps(words, sort_keys=True).encode()).hexdigest()[:8]


OPTIONS = options_of(RunConfig)
"""What is told of each setting."""


MODEL_FILES = (".onnx", ".xml", ".tflite", ".pt2", ".pt", ".torchscript", ".pth")


def is_model_file(model: str) -> bool:
    """Whether the word for a model names a file, or a folder with one, rather than a known model."""
    return "/" in model or model.lower().endswith(MODEL_FILES)


def model_stem(model: str) -> str:
    """What a model is called in few words: a file without its folder and ending.

    >>> model_stem("models/cats.v2.onnx"), model_stem("resnet50-v1.5"), model_stem("./vit.v3/")
    ('cats.v2', 'resnet50-v1.5', 'vit.v3')
    """
    path = Path(model)
    return path.stem if path.suffix.lower() in MODEL_FILES else path.name


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
        got = "" if name == "channel" else f", got '{shortened(str(first['input']))}'"  # it may hold a password
        raise InputError(f"{name}: {text}{got}") from None


def read_config_file(path: Path, hint: str = "--config takes one of configs/*.yaml or your own") -> dict[str, Any]:
    """The settings of one YAML file. Raises ``InputError`` naming it, with ``hint`` where it does not exist."""
    try:
        content = load_yaml(read_file(path, SMALL_BYTES).decode())
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; {hint}") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not a readable YAML file ({reason_of(error)}); {hint}") from None
    if content is None:
        return {}
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise InputError(f"{path}: got {type(content).__name__}, expected 'setting: value' lines")
    return content
