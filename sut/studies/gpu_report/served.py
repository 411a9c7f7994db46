"""Parts of the GPU report in which LoadGen asks a backend on the GPU: short runs, the bare loop beside each, labels."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from itertools import product
from typing import Any

from plugins.packages import CHECKOUT
from sut.config import OPTIONS, RunConfig, make_config
from sut.config.strict_yaml import load_yaml
from sut.datasets.base import DataSet
from sut.models.precision.agreement import Side, agree
from sut.models.precision.calibration import random_crops, read_picture
from sut.pipeline.assembly import Assembly, assemble
from sut.process.cgroup import usable_cores
from sut.results.schema import Result, used
from sut.run.compared import scores_of, side_of
from sut.studies.bare import has_loop, run_bare
from sut.studies.gpu_report.child import names_of, noted, rows_of, tell_so_far, watched
from sut.tasks.agreement import LabelTally

BACKENDS = ("pytorch", "onnxruntime")
TRAINED, LARGE, DETECTOR = "efficientnet-lite0", "resnet50", "yolo11"
DETECTOR_BATCHES = (1, 8, 32)
PRECISIONS = ("fp32", "fp16")
TENSORRT = "tensorrt"
"""A backend that not everybody has, and the one with INT8 on a GPU."""
DEVICE = "cuda"
ONE_STREAM = "overlap=false"
"""The option without which lanes copy and compute at the same time."""
SECONDS = 3.0
"""Of a run: short, and written as such."""
CROPS = LabelTally.default
_BARE_S = 2.0
_SEED = 20_261_128

_Setting = str | int | float


@dataclass(frozen=True, slots=True)
class Cell:
    """One run. The clock starts at ``boundary``; ``preprocess`` is what works behind it, at ``jpeg``.

    ``option`` is one of the backend's, as ``NAME=VALUE``; ``fold`` puts normalising into the model; ``batch`` is the
    most pictures at a time, None: what is usual in the scenario.
    """

    backend: str
    model: str
    precision: str
    boundary: str
    preprocess: str = "opencv"
    scenario: str = "Offline"
    option: str = ""
    fold: bool = False
    batch: int | None = None

    @property
    def name(self) -> str:
        """Of the part."""
        where = f"{self.boundary}_{self.preprocess}" if self.boundary == "jpeg" else self.boundary
        words = (self.backend, self.model.rpartition("-")[2], self.precision, where)
        more = [] if self.scenario == "Offline" else [self.scenario.lower()]
        more += ["folded"] * self.fold + [self.option.replace("=", "-")] * bool(self.option)
        more += [f"batch{self.batch}"] * bool(self.batch)
        return "_".join([*words, *more])

    @property
    def settings(self) -> dict[str, _Setting]:
        """What ``sut run`` is told. What it would choose by trying is chosen here: a quarter of an hour is short."""
        named: dict[str, _Setting] = {
            name: getattr(self, name) for name in Cell.__slots__ if name not in ("scenario", "option", "fold", "batch")
        }
        named |= {"device": DEVICE, "dataset": "demo", "time_s": SECONDS}
        named["weights"] = "trained" if self.model == TRAINED else "random"
        if self.precision != "fp32":
            named["agreement"] = 0  # it would be with FP32 on the GPU; ``labels`` compares with the CPU
        if self.scenario == "SingleStream":
            return named
        if self.preprocess == "opencv" and self.boundary == "jpeg":
            return named | {"lanes": min(8, usable_cores()), "max_batchsize": 16}  # a lane decodes on one core
        return named | {"lanes": 2, "max_batchsize": self.batch or (128 if self.scenario == "Offline" else 32)}

    @property
    def may_be_missing(self) -> bool:
        """Whether it needs what nothing else does: DALI, or TensorRT."""
        return self.preprocess == "dali-gpu" or TENSORRT in (self.backend, self.option.removeprefix("provider="))

    @property
    def command(self) -> tuple[str, ...]:
        """The words behind ``sut``."""
        words = (word for name, value in self.settings.items() for word in (str(OPTIONS[name].flag), str(value)))
        option = ("--set", f"backend_options.{self.option}") if self.option else ()
        return ("run", "--scenario", self.scenario, *words, *(["--fold"] if self.fold else []), *option)

    @property
    def config(self) -> RunConfig:
        """The same, as a run has it."""
        name, _, value = self.option.partition("=")
        options = {"backend_options": {name: load_yaml(value)}} if self.option else {}
        return make_config(self.settings | {"scenario": self.scenario, "fold": self.fold} | options)


def first_cells() -> list[Cell]:
    """Those that are worth most: the fastest there is, the right one, and what a user would have."""
    fastest = [Cell(backend, LARGE, "fp16", "device") for backend in BACKENDS]
    return fastest + [Cell(backend, TRAINED, "fp32", "tensor") for backend in BACKENDS]


def next_cells() -> list[Cell]:
    """From JPEG to label, the scenarios in which latency counts, and what it gains that copies and models overlap."""
    jpeg = [Cell(backend, LARGE, "fp16", "jpeg", "cuda") for backend in BACKENDS]
    single = [Cell(backend, LARGE, "fp16", "tensor", scenario="SingleStream") for backend in BACKENDS]
    streams = [
        Cell(backend, LARGE, "fp16", "tensor", option=option) for backend in BACKENDS for option in ("", ONE_STREAM)
    ]
    # Each batch size up to the largest is met in warm-up: all of cuDNN's algorithms for each would take minutes.
    server = Cell("onnxruntime", LARGE, "fp16", "tensor", scenario="Server", option="conv_search=heuristic")
    return [*jpeg, *single, server, *streams]


def option_cells() -> list[Cell]:
    """What options do: CUDA graphs, folded input, torch.compile, TensorRT behind ONNX Runtime."""
    graphs = {"pytorch": "mode=graphs", "onnxruntime": "graphs=true"}
    single = [
        Cell(name, LARGE, "fp16", "tensor", scenario="SingleStream", option=each) for name, each in graphs.items()
    ]
    folded = [Cell(backend, LARGE, "fp16", "jpeg", "cuda", fold=True) for backend in BACKENDS]
    others = {"pytorch": "mode=compile", "onnxruntime": "provider=tensorrt"}
    return [*single, *folded, *(Cell(name, LARGE, "fp16", "device", option=each) for name, each in others.items())]


def tensorrt_cells() -> list[Cell]:
    """INT8 that takes pixels first, on the device as published figures have it; then what they are beside."""
    folded = Cell(TENSORRT, LARGE, "int8", "device", fold=True)
    half = [Cell(TENSORRT, LARGE, "fp16", boundary) for boundary in ("device", "tensor")]
    jpeg = replace(folded, boundary="jpeg", preprocess="cuda")
    latency = [replace(folded, boundary="tensor", scenario=scenario) for scenario in ("SingleStream", "Server")]
    return [folded, latency[0], *half, jpeg, latency[1], Cell(TENSORRT, TRAINED, "fp32", "tensor")]


def dali_cells() -> list[Cell]:
    """The same from JPEG by DALI, which comes with the second load."""
    return [Cell(backend, LARGE, "fp16", "jpeg", "dali-gpu") for backend in BACKENDS]


def detector_cells(preprocess: str = "cuda") -> list[Cell]:
    """YOLO11-L, whose weights are random: the largest batches first, behind the model alone and from JPEG to boxes."""
    places = [("jpeg", preprocess)] if preprocess == "dali-gpu" else [("device", "opencv"), ("jpeg", preprocess)]
    ways = product(reversed(DETECTOR_BATCHES), places)
    return [Cell("pytorch", DETECTOR, "fp16", *place, batch=batch) for batch, place in ways]


def all_cells() -> list[Cell]:
    """Each backend with each model and precision at each boundary, with each preprocessor that is timed."""
    places = [("device", "opencv"), ("tensor", "opencv"), *(("jpeg", name) for name in ("cuda", "opencv", "dali-gpu"))]
    ways = product((LARGE, TRAINED), reversed(PRECISIONS), places, BACKENDS)
    return [Cell(backend, model, precision, *place) for model, precision, place, backend in ways]


def serve(cell: Cell) -> dict[str, Any]:
    """One run by ``sut run``, and the bare loop with what it used where there is one that does its work."""
    code, [row], _ = rows_of(*cell.command)
    result = Result.model_validate(row)
    wrong = [{"why": result.first_error or "; ".join(result.invalid_reasons)}] if result.failed else []
    found: dict[str, Any] = {
        "cell": asdict(cell),
        "weights": result.weights,
        "command": f"sut {' '.join(cell.command)}",
        "exit_code": code,
        "valid": result.valid,
        "invalid_reasons": result.invalid_reasons,
        "attested": dict(result.attested),
        "used": used(result),
        "samples_per_second": result.samples_per_second,
        "latency_ns": {name: result.latency_ns.get(name) for name in ("p50", "p90", "p99")},
        "bare": None,
        "wrong": wrong,
    }
    if wrong or not has_loop(cell.config) or cell.model == DETECTOR:  # the loop makes no boxes
        return found
    tell_so_far(found)
    config = cell.config.model_copy(update=used(result))
    with noted("the bare loop", wrong):
        bare = run_bare(replace(assemble(config), config=config), 1, _BARE_S, "the bare loop")
        found["bare"] = {"samples_per_second": bare.samples_per_second, "p50_ns": bare.p50_ns}
    return found


def labels(backend: str) -> dict[str, Any]:
    """Of the demo photos and of crops, how many get the label that FP32 gives on the CPU, in each precision.

    TensorRT is asked for INT8 too: that changes labels, so that nothing is asked of how many.
    ``functions`` are those of backends/ that were called. Nothing is timed.
    """
    told: dict[str, Any] = {"model": TRAINED, "weights": "trained", "dataset": "demo", "threads": usable_cores()}
    on_cpu = assemble(make_config(told | {"backend": "onnxruntime", "device": "cpu"}))
    table: list[dict[str, Any]] = []
    wrong: list[dict[str, Any]] = []
    with watched((f"{CHECKOUT / 'backends'}/",)) as called, ExitStack() as stack:
        reference = _side(on_cpu, stack)
        for precision in (*PRECISIONS, "int8") if backend == TENSORRT else PRECISIONS:
            with noted(precision, wrong):
                on_gpu = told | {"backend": backend, "device": DEVICE, "precision": precision}
                side = _side(assemble(make_config(on_gpu)), stack)
                table += ({"precision": precision} | row for row in _agreements(reference, side, on_cpu.dataset))
    found = {"model": TRAINED, "reference": "onnxruntime cpu fp32", "wrong": wrong, "table": table}
    return found | {"functions": names_of(called)}


def _side(parts: Assembly, stack: ExitStack) -> Side:
    return side_of(parts, scores_of(parts, stack))


def _agreements(reference: Side, side: Side, photos: DataSet) -> Iterable[dict[str, Any]]:
    whole = [read_picture(photos, index, "compare on") for index in range(photos.count)]
    crops = list(random_crops(whole, len(whole), CROPS, _SEED))
    for name, pictures in (("photos", whole), ("crops", crops)):
        count = len(pictures)
        found = agree(reference, side, pictures, count, lambda *now: None, name)
        same = round(found.value * count)
        yield {"pictures": name, "same": same, "count": count, "score_difference": found.score_difference}
