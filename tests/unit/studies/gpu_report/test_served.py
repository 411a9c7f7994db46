"""The runs of the GPU report: what they are told, and on the CPU what comes of them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import typer

from sut.cli.commands import run
from sut.config import RunConfig
from sut.errors import RunError
from sut.studies.gpu_report import served
from sut.studies.gpu_report.parts import PARTS
from sut.studies.gpu_report.served import Cell, all_cells, detector_cells, next_cells, option_cells, tensorrt_cells
from tests.core import needs

CELL = Cell("onnxruntime", "efficientnet-lite0", "fp32", "tensor")


def test_every_backend_model_precision_and_boundary_is_run() -> None:
    names = {cell.name for cell in all_cells()}

    assert len(names) == 2 * 2 * 2 * 5
    detectors = [*detector_cells(), *detector_cells("dali-gpu")]
    others = [*next_cells(), *option_cells(), *tensorrt_cells(), *detectors]
    assert names | {cell.name for cell in others} <= PARTS.keys()
    places = {(cell.boundary, cell.preprocess, cell.batch) for cell in detectors}
    assert places == {
        (boundary, preprocess, batch)
        for boundary, preprocess in (("device", "opencv"), ("jpeg", "cuda"), ("jpeg", "dali-gpu"))
        for batch in (1, 8, 32)
    }
    assert {"pytorch_resnet50_fp16_device", "onnxruntime_lite0_fp32_jpeg_dali-gpu"} < names


def test_the_command_line_takes_what_a_cell_tells_it(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[RunConfig] = []
    monkeypatch.setattr("sut.run.runner.run_all", lambda configs, *others: asked.extend(configs))
    app = typer.Typer()
    run.register(app)
    command = typer.main.get_command(app)

    cells = [*all_cells(), *next_cells(), *option_cells(), *tensorrt_cells(), *detector_cells()]
    for cell in cells:
        command(list(cell.command[1:]), standalone_mode=False)

    for cell, config in zip(cells, asked, strict=True):
        kept = {"output", "user_conf"}
        assert config.model_dump(exclude=kept) == cell.config.model_dump(exclude=kept)
        assert config.device == "cuda"
        assert (config.agreement is None) == (config.precision == "fp32")


def result_of(cell: Cell, **more: Any) -> dict[str, Any]:
    keys = ("backend", "model", "precision", "boundary", "preprocess", "scenario")
    told = {key: getattr(cell, key) for key in keys} | {"weights": "trained", "device": "cuda", "mode": "performance"}
    figures = {"valid": True, "samples": 9, "samples_per_second": 90.0, "latency_ns": {"p50": 5, "p90": 6, "p99": 7}}
    rest = {"invalid_reasons": [], "failed_samples": 0, "config": {}, "started": "now"}
    return told | figures | rest | {"plan": {"lanes": 2, "threads": 1, "max_batchsize": 4}} | more


def test_the_bare_loop_goes_round_with_what_the_run_used(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(served, "rows_of", lambda *command: (0, [result_of(CELL)], ""))
    monkeypatch.setattr(served, "assemble", lambda config: SimpleParts(config))
    monkeypatch.setattr(served, "replace", lambda parts, config: SimpleParts(config))
    looped: list[RunConfig] = []

    def run_bare(parts: Any, *others: object) -> Any:
        looped.append(parts.config)
        return SimpleNamespace(samples_per_second=100.0, p50_ns=4)

    monkeypatch.setattr(served, "run_bare", run_bare)

    found = served.serve(CELL)

    assert (looped[0].lanes, looped[0].threads, looped[0].max_batchsize) == (2, 1, 4)
    assert found["bare"] == {"samples_per_second": 100.0, "p50_ns": 4}
    assert (found["samples_per_second"], found["latency_ns"]["p90"], found["wrong"]) == (90.0, 6, [])
    so_far = json.loads(capsys.readouterr().out)
    assert so_far == {"ok": False, "found": found | {"bare": None}}, "what is kept if the loop does not end"

    def fails(*others: object) -> Any:
        raise RunError("it died")

    monkeypatch.setattr(served, "run_bare", fails)
    assert served.serve(CELL)["wrong"] == [{"of": "the bare loop", "why": "RunError: it died"}]


class SimpleParts(SimpleNamespace):
    def __init__(self, config: RunConfig) -> None:
        super().__init__(config=config)


def test_what_tensorrt_is_needed_for_may_be_missing() -> None:
    cells = tensorrt_cells()

    assert cells[0].name == "tensorrt_resnet50_int8_device_folded"
    assert {cell.precision for cell in cells} == {"fp32", "fp16", "int8"}
    assert {cell.scenario for cell in cells} == {"Offline", "SingleStream", "Server"}
    assert all(PARTS[cell.name].may_be_missing for cell in cells) and PARTS["labels_tensorrt"].may_be_missing
    assert not any(cell.may_be_missing for cell in next_cells())


def test_the_bare_loop_is_not_beside_a_detector_whose_boxes_it_does_not_make(monkeypatch: pytest.MonkeyPatch) -> None:
    [cell, *_] = detector_cells()
    monkeypatch.setattr(served, "rows_of", lambda *command: (0, [result_of(cell, weights="random")], ""))
    found = served.serve(cell)
    assert (found["bare"], found["weights"]) == (None, "random")
    assert found["command"].endswith("--weights random --agreement 0 --lanes 2 --max-batchsize 32")


def test_a_run_that_failed_is_wrong_and_one_that_does_not_count_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    cell = replace(CELL, scenario="Server")
    failed = result_of(cell, valid=False, first_error="out of memory", failed_samples=1)
    monkeypatch.setattr(served, "rows_of", lambda *command: (3, [failed], ""))
    assert served.serve(cell)["wrong"] == [{"why": "out of memory"}]

    invalid = result_of(cell, valid=False, invalid_reasons=["too slow"])
    monkeypatch.setattr(served, "rows_of", lambda *command: (4, [invalid], ""))
    found = served.serve(cell)
    assert (found["wrong"], found["valid"], found["invalid_reasons"]) == ([], False, ["too slow"])


@needs("onnxruntime")
def test_labels_are_compared_on_all_photos_and_on_crops(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(served, "DEVICE", "cpu")
    monkeypatch.setattr(served, "PRECISIONS", ("fp32", "fp16"))
    monkeypatch.setattr(served, "CROPS", 22)

    found = served.labels("onnxruntime")

    assert [(row["precision"], row["pictures"], row["same"], row["count"]) for row in found["table"]] == [
        ("fp32", "photos", 11, 11),
        ("fp32", "crops", 22, 22),
    ]
    assert [row["of"] for row in found["wrong"]] == ["fp16"], "it is no precision of that backend on the CPU"
    assert any(name.startswith("backends.onnxruntime.") for name in found["functions"])


@pytest.mark.slow
@needs("onnxruntime")
def test_a_run_and_its_bare_loop_come_to_their_end(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(served, "DEVICE", "cpu")
    monkeypatch.setattr(served, "SECONDS", 0.5)
    monkeypatch.setattr(served, "_BARE_S", 0.2)
    monkeypatch.setenv("OUTPUT_DIR", str(tmp_path))

    found = served.serve(CELL)

    assert found["wrong"] == [] and found["samples_per_second"] > 0 and found["bare"]["samples_per_second"] > 0
    assert len([*tmp_path.rglob("mlperf_log_summary.txt")]) == 1
