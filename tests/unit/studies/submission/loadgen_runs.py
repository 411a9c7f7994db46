"""A closed submission's runs for tests: LoadGen's own logs, of a system that answers at once, and results beside them.

The runs take a part of a second, and the data set has few pictures: what the results say is what the tests need.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sut.config import RunConfig, make_config
from sut.mlperf import loadgen, official
from sut.mlperf.audit import read_audit
from sut.mlperf.logs import read_detail
from sut.mlperf.metrics import METRICS
from sut.mlperf.verify_audit import verify_test01, verify_test04
from sut.models.base import ModelSpec
from sut.models.registry import MODELS
from sut.results.schema import FILE, Result
from sut.run.folders import result_home
from sut.studies.submission.about import About
from sut.tasks.base import Score
from sut.tasks.top1 import top1_score

PICTURES = 24
RIGHT = 20
"""Pictures whose answer is the label: more than MLPerf asks for."""
ABOUT = About(submitter="Somebody", division="closed", system="box")


@dataclass(frozen=True)
class Served:
    """What answers: a model, its answer to each picture, and what they score."""

    spec: ModelSpec
    answers: tuple[bytes, ...]
    score: Score
    weights: str
    scenarios: tuple[str, ...] = official.EDGE
    name: str | None = None
    """Behind a network, what LoadGen is told that it is called."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    told: Mapping[str, Any] = field(default_factory=dict)
    """Fields of its results that are others than those of a model that is here."""

    @property
    def benchmark(self) -> official.Benchmark:
        return official.benchmark_of(self.spec.name)


_LABELS = (number % 10 if number < RIGHT else 11 for number in range(PICTURES))
RESNET50 = Served(
    MODELS[official.MODEL],
    tuple(np.float32(label).tobytes() for label in _LABELS),
    top1_score(RIGHT, PICTURES),
    "trained",
)
YOLO = Served(
    MODELS["yolo-99"],
    tuple(np.full((number % 4, 7), number, np.float32).tobytes() for number in range(PICTURES)),
    Score("mAP", 0.6, "mAP=60.000%", PICTURES),
    "unknown",
)
"""Of every fourth picture no box."""
URL = "grpc://192.0.2.7:8001"
BEHIND_NETWORK = replace(
    RESNET50,
    scenarios=official.DATACENTER,
    name=f"{official.NETWORK_SUT}: a server at {URL}",
    settings={"backend": "kserve", "device": URL, "preprocess": "server", "boundary": "jpeg", "rules": "network"},
    told={
        "backend": "kserve", "backend_version": "2.73.0", "device": URL, "device_name": "a server",
        "preprocess": "server",
        "boundary": "jpeg", "weights": None, "model_sha256": None, "loaded_sha256": {},
        "attested": {
            "provider": "a server", "precision": "fp32", "device_name": "a server", "model": "resnet50 1",
            "details": {
                "wire": "jpeg", "answers": "ready", "server_model": "resnet50", "server_sha256": "ab" * 32,
                "server_weights": "trained",
            },
        },
    },
)  # fmt: skip
_MIN_MS = 250
_QUERY_S = 0.0002
_PATIENCE_NS = 2_000_000_000
"""Server's bound: of the machine's speed nothing is asked."""


def write_runs(root: Path, served: Served = RESNET50) -> Path:
    """A HOME below ``root``, with a sound run for each of its scenarios and each role."""
    data = root / "data"
    data.mkdir()
    (data / "val_map.txt").write_text("".join(f"{number}.jpeg {number % 10}\n" for number in range(PICTURES)))
    named = {"model": served.spec.name, "dataset_path": data, "output": root / "output"}
    config = make_config({**named, **served.settings})
    home = result_home(config, served.spec)
    for scenario in served.scenarios:
        for role in ("performance", "accuracy", *served.benchmark.audits):
            _write_run(home / scenario / role, config, scenario, role, served)
        _verify(home / scenario, served)
    return home


def _verify(folder: Path, served: Served) -> None:
    """Leave beside each audit's logs what ``sut audit`` does."""
    found = [verify_test01(folder / "performance", folder / "accuracy", folder / "TEST01", served.benchmark)]
    if "TEST04" in served.benchmark.audits:
        found.append(verify_test04(folder / "performance", folder / "TEST04"))
    for each in found:
        for name, text in each.files().items():
            (folder / each.test / name).write_text(text)
        if each.test == "TEST01":
            (folder / each.test / "accuracy.txt").write_text(served.score.text + "\n")


def ask_little(patch: pytest.MonkeyPatch, model: str, **others: Any) -> None:
    """A benchmark of the few pictures and samples that runs here have."""
    little = {"pictures": PICTURES, "performance_samples": PICTURES, "offline_samples": 500, **others}
    if official.BENCHMARKS[model].server_bound_ms is not None:
        little["server_bound_ms"] = _PATIENCE_NS / 1e6
    patch.setattr(official, "MIN_DURATION_S", 0.25)
    patch.setattr(official, "BENCHMARKS", official.BENCHMARKS | {model: replace(official.BENCHMARKS[model], **little)})


def edit(folder: Path, **changes: Any) -> None:
    """Change fields of the result in ``folder``; a function makes a field's new value of the old one."""
    told = json.loads((folder / FILE).read_text())
    for name, value in changes.items():
        told[name] = value(told[name]) if callable(value) else value
    (folder / FILE).write_text(json.dumps(told))


def put(**values: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """What ``edit`` makes of a mapping: these entries are others."""
    return lambda old: {**old, **values}


def _write_run(folder: Path, config: RunConfig, scenario: str, role: str, served: Served) -> None:
    folder.mkdir(parents=True)
    mode = "accuracy" if role == "accuracy" else "performance"
    audit = folder.parent / "audit.config" if role in official.AUDITS else None
    if audit:
        audit.write_text("".join(f"*.*.{key} = {value}\n" for key, value in served.benchmark.audit(role).items()))
    started = int(time.time())
    took_s = _ask(folder, scenario, mode, audit, served)
    config = config.model_copy(update={"scenario": scenario, "mode": mode, "audit_conf": audit})
    fields = _fields(config, folder, started, took_s, served)
    if audit:
        fields["audit"] = read_audit(audit, scenario, mode)
        fields["rules_broken"] = [f"an audit ({role}) is no result"]
        audit.unlink()
    (folder / FILE).write_text(Result(**fields).to_json())


def _ask(folder: Path, scenario: str, mode: str, audit: Path | None, served: Served) -> float:
    """Let LoadGen ask. Returns how long it took."""
    settings = loadgen.settings_for(served.spec.loadgen_model, scenario, mode, [])
    settings.min_duration_ms = _MIN_MS
    settings.single_stream_expected_latency_ns = settings.multi_stream_expected_latency_ns = int(_QUERY_S * 5e8)
    settings.offline_expected_qps = settings.server_target_qps = 2000
    settings.server_target_latency_ns = _PATIENCE_NS
    if scenario == "Offline":
        settings.min_query_count = 1

    def issue(ids: Sequence[int], indices: Sequence[int]) -> None:
        time.sleep(_MIN_MS / 1000 * 1.2 if scenario == "Offline" else _QUERY_S)
        loadgen.complete(ids, [served.answers[index] for index in indices])

    def nothing(indices: Sequence[int] = ()) -> None:
        pass

    name = served.name
    callbacks = loadgen.Callbacks(issue, nothing, nothing, nothing, None if name is None else lambda: name)
    begin = time.monotonic()
    loadgen.run(callbacks, settings, PICTURES, PICTURES, folder, audit, False)
    return time.monotonic() - begin


def _fields(config: RunConfig, folder: Path, started: int, took_s: float, served: Served) -> dict[str, Any]:
    detail = read_detail(folder)
    queries = detail.number("result_query_count")
    per_query = detail.number("generated_samples_per_query") or 1
    samples = int(queries * per_query) if queries else detail.generated_samples
    name, key, higher = METRICS[config.scenario]
    spec, score = served.spec, served.score
    if config.mode == "accuracy":
        (folder / "accuracy.txt").write_text(score.text + "\n")
    target = served.benchmark.target
    accuracy = {"name": score.name, "value": score.value, "count": PICTURES, "target": target, "met": True}
    measured = config.mode == "performance"
    return {
        "schema": 1, "model": spec.name, "model_sha256": "ab" * 32, "weights": served.weights,
        "loadgen_model": spec.loadgen_model,
        "recipe": asdict(spec.recipe), "backend": "onnxruntime", "backend_version": "1.31.1", "device": "cpu",
        "attested": {"provider": "CPUExecutionProvider", "precision": "fp32", "device_name": ""},
        "preprocess": "opencv", "precision": "fp32", "boundary": "tensor",
        "scenario": config.scenario, "mode": config.mode, "valid": True if measured else None, "invalid_reasons": [],
        "failed_samples": 0,
        "metric": {"name": name, "value": detail.number(key), "higher_is_better": higher} if measured else None,
        "samples": samples, "samples_per_second": samples / took_s,
        "queries": queries and int(queries), "queries_per_second": queries / took_s if queries else None,
        "duration_s": took_s, "accuracy": None if measured else accuracy,
        "loaded_sha256": {f"{spec.name}.onnx": "ab" * 32}, "clock_change_ns": 12, "rules_broken": [], "notes": [],
        "quiet": {"others_share": 0.0, "own_wait_share": 0.0, "steal_share": 0.0},
        "plan": {"scenario": config.scenario, "mode": config.mode, "lanes": 1, "trace": False},
        "config": config.model_dump(mode="json"),
        "system": {"cpu": "AMD EPYC", "cores": 2, "memory": "24684092 kB", "utc": _iso(time.time() + 1)},
        "versions": {
            "loadgen-vision-sut": "0.1.0+g40f23a4", "python": "3.11.7", "onnxruntime": "1.31.1",
            "tritonclient": "2.73.0",
        },
        "started": _iso(started), **served.told,
    }  # fmt: skip


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
