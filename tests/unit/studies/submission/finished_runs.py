"""Finished runs as they lie in a configuration's folder, made without running anything."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sut.config import make_config
from sut.mlperf import official
from sut.mlperf.loadgen import Settings, asked, settings_for
from sut.mlperf.logs import ACCURACY, SUMMARY
from sut.results.schema import Result
from sut.studies.submission.about import FILLED_FIELDS, About
from sut.studies.submission.runs import ROLES, Entry, Run, Runs
from tests.unit.loadgen_logs import entry, performance, write_detail
from tests.unit.report_results import a_result

SYSTEM = {
    "cpu": "AMD EPYC 9654", "sockets": 2, "physical_cores": 192, "max_frequency_mhz": 3700.0,
    "memory": "790000000 kB", "cache_bytes": {"L2": 2**20, "L3": 32 * 2**20}, "platform": "Linux-6.1", "gpus": None,
}  # fmt: skip
VERSIONS = {"python": "3.11.7", "loadgen-vision-sut": "0.1.0+gabcdef0", "mlcommons-loadgen": "6.0.17"}


def given(scenario: str) -> Settings:
    """What LoadGen was given: nothing that it has anyway."""
    settings = settings_for(official.MODEL, scenario, "performance", [])
    settings.min_duration_ms = 600_000
    settings.single_stream_expected_latency_ns = 3_040_330
    settings.multi_stream_expected_latency_ns = 13_405_500
    settings.server_target_qps = 52.125
    settings.offline_expected_qps = 533.441
    return settings


def answers(count: int) -> bytes:
    """An accuracy log of so many answers."""
    lines = [f'{{ "seq_id" : {index}, "qsl_idx" : {index}, "data" : "0000803F" }}' for index in range(count)]
    return ("[\n" + ",\n".join(lines) + "\n]\n").encode()


def write_run(home: Path, scenario: str, role: str, count: int = 300, **changes: Any) -> Run:
    """One run. ``count`` answers are in its accuracy log."""
    folder = home / scenario / role
    folder.mkdir(parents=True)
    mode = "accuracy" if role == "accuracy" else "performance"
    requested = asked(given(scenario), count, count)
    entries = performance(scenario, [10, 20, 30]) | {key: value for key, value in requested.items() if "request" in key}
    write_detail(folder, *(entry(key, value) for key, value in entries.items()))
    (folder / SUMMARY).write_text(f"Scenario : {scenario}\nof {role}\n")
    (folder / ACCURACY).write_bytes(b"[]\n" if role in ("performance", "TEST04") else answers(count))
    if role in ("accuracy", "TEST01"):
        (folder / "accuracy.txt").write_text(f"accuracy=76.667%, good={count * 23 // 30}, total={count}\n")
    for test, names in {"TEST01": ("accuracy", "performance"), "TEST04": ("performance",)}.items():
        for name in names if role == test else ():
            (folder / f"verify_{name}.txt").write_text("TEST PASS\n")
    (folder / "result.json").write_text("{}")
    (folder / "results.json").write_text("{}")
    return Run(folder, write_result(scenario, mode, **changes))


def write_result(scenario: str, mode: str, **changes: Any) -> Result:
    config = make_config({"model": "resnet50", "scenario": scenario, **changes.pop("config", {})})
    fields = {
        "model": "resnet50", "system": SYSTEM, "versions": VERSIONS, "config": config.model_dump(mode="json"),
        "loaded_sha256": {"resnet50_v1.onnx": "ab" * 32}, "recipe": {"dtype": "float32"},
    }  # fmt: skip
    return a_result(scenario=scenario, mode=mode, **fields | changes)


def finished(home: Path, *scenarios: str, roles: tuple[str, ...] = ROLES, **changes: Any) -> Runs:
    """Runs of these scenarios, of all on the edge without any."""
    names = scenarios or official.EDGE
    made = {name: {role: write_run(home, name, role, **changes) for role in roles} for name in names}
    return Runs(home, {name: Entry(name, runs) for name, runs in made.items()})


def about(**changes: Any) -> About:
    """A closed submission of which all is told."""
    told = {"submitter": "Org", "division": "closed", "system": "box", "fields": dict.fromkeys(FILLED_FIELDS, "told")}
    return About.model_validate(told | changes)


def snapshot(folder: Path) -> Mapping[str, bytes | None]:
    """All that is below a folder: what files hold, and folders."""
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def read_json(path: Path) -> Any:
    return json.loads(path.read_text())
