"""What is asked of a GPU report's figures."""

from __future__ import annotations

import doctest
from typing import Any

import pytest

from sut.studies.gpu_report import targets as module
from sut.studies.gpu_report.targets import beside_anchors, targets
from tests.unit.studies.gpu_report.figures import parity_rows, run_found, same_rows


def test_its_examples_hold() -> None:
    assert doctest.testmod(module).failed == 0


def bench_row(
    group: str, kernel: str, share: float | None = None, wall_ms: float | None = 1.0, **more: Any
) -> dict[str, Any]:
    return {"group": group, "kernel": kernel, "share_of_copy": share, "wall_ms": wall_ms, **more}


HOT = "32 pictures to float32 NCHW 224"
BENCH = [
    bench_row("copy", "device to device", 1.0),
    bench_row("transpose 8192 x 8192 float32", "naive", 0.2),
    bench_row("transpose 8192 x 8192 float32", "tiled", 0.95),
    bench_row("256 pictures to NHWC uint8", "tiled", 0.91),
    bench_row(HOT, "tiled", 0.3, 2.0),
    bench_row(HOT, "fused", 0.75, 0.5),
    bench_row(HOT, "a library", None, 4.0),
    bench_row(HOT, "another", None, 2.0),
    bench_row(HOT, "one that failed", None, None),
]


def rate_row(decoders: str, rate: float, of_sum: float | None = None, to: str = "cuda:0") -> dict[str, Any]:
    return {
        "preprocess": "cuda",
        "decoders": decoders,
        "to": to,
        "lanes": 1,
        "pictures_per_second": rate,
        "of_sum": of_sum,
        "each": {"x": 1} if ", " in decoders else None,
    }


RATES = [
    rate_row("CPU", 50_000, to="host"),
    rate_row("JPEG engine", 12_000),
    rate_row("JPEG engine and nvJPEG", 15_000, 0.99),
    rate_row("JPEG engine, nvJPEG, CPU", 21_000, 0.85),
    rate_row("JPEG engine, nvJPEG, CPU", 20_500, 0.92),
]
SINGLE = {"boundary": "tensor", "scenario": "SingleStream"}
JPEG = {"boundary": "jpeg", "preprocess": "cuda"}


def label_rows(photos: int, crops: int) -> dict[str, Any]:
    counts = (("photos", photos, 11), ("crops", crops, 1000))
    rows = [{"pictures": name, "same": same, "count": count} for name, same, count in counts]
    changed = {"precision": "int8", "pictures": "crops", "same": 700, "count": 1000}  # nothing is asked of it
    return {"table": [{"precision": each} | row for each in ("fp32", "fp16") for row in rows] + [changed]}


ALL_FOUND: dict[str, dict[str, Any]] = {
    "kernels_check": {"cases": 5, "wrong": []},
    "kernels_profile": {"cases": 8, "wrong": []},
    "parity": {"measured": parity_rows("cuda", 99), "same_pixels": same_rows("cuda")},
    "parity_dali": {"measured": [], "same_pixels": same_rows("dali-gpu", 0)},
    "labels_pytorch": label_rows(11, 990),
    "labels_onnxruntime": label_rows(11, 1000),
    "labels_tensorrt": label_rows(11, 995),
    "kernels_bench": {"table": BENCH},
    "preprocess": {"table": RATES},
}
for backend in ("pytorch", "onnxruntime"):
    told = {"backend": backend}
    ALL_FOUND |= {
        f"{backend}_device": run_found(told),
        f"{backend}_single": run_found(told | SINGLE),
        f"{backend}_jpeg": run_found(told | JPEG, 21_000.0, 21_000.0),
        f"{backend}_streams": run_found(told | {"boundary": "tensor"}),
        f"{backend}_one_stream": run_found(told | {"boundary": "tensor", "option": "overlap=false"}, 7_200.0, None),
    }
for boundary, batch, rate in (("device", 8, 900.0), ("device", 32, 1_100.0), ("jpeg", 32, 1_050.0)):
    told = {"model": "yolo11", "boundary": boundary, "batch": batch}
    ALL_FOUND[f"yolo_{boundary}_{batch}"] = run_found(told, rate, None)
EXPECTED = [
    ("result", 1),
    ("result", 1),
    ("result", 1),
    ("result", 0),
    ("result", 1),
    *[("result", 1), ("result", 0.99)],
    *[("result", 1), ("result", 1)],
    *[("result", 1), ("result", 0.995)],
    ("speed", 0.91),
    ("speed", 0.75),
    ("speed", 4),
    ("speed", 21_000),
    ("speed", 0.92),
    *[("speed", pytest.approx(9_000 / 9_100)), ("speed", 10), ("speed", 9_000), ("speed", 1.25)] * 2,
    ("speed", 21_000),
    *[("speed", 1_100), ("speed", 1_050)],
]


def test_every_figure_is_judged() -> None:
    found = targets(ALL_FOUND)

    assert [(each.kind, each.measured) for each in found] == EXPECTED
    assert {each.verdict for each in found} == {"met"}
    assert found[11].of == "256 pictures to NHWC uint8"
    assert found[13].of == "the fastest: another"
    assert found[16].of == "pytorch resnet50 fp16 device opencv"
    assert found[-2].of == "pytorch yolo11 fp16 device opencv batch 32"
    assert [each.verdict for each in targets({})] == ["not measured"] * len(found)


@pytest.mark.parametrize(
    ("position", "part", "worse"),
    [
        (0, "kernels_check", {"cases": 5, "wrong": [{}]}),
        (0, "kernels_check_pycuda", {"cases": 5, "wrong": [{}]}),
        (1, "kernels_profile", {"cases": 8, "wrong": [{}]}),
        (
            2,
            "parity",
            {"measured": parity_rows("cuda", 99), "same_pixels": [*same_rows("cuda"), *same_rows("cuda", 2)]},
        ),
        (3, "parity_dali", {"measured": [], "same_pixels": same_rows("dali-gpu", 3)}),
        (4, "parity", {"measured": parity_rows("cuda", 98), "same_pixels": same_rows("cuda")}),
        (5, "labels_pytorch", label_rows(10, 1000)),
        (8, "labels_onnxruntime", label_rows(11, 989)),
        (10, "labels_tensorrt", label_rows(11, 989)),
        (11, "kernels_bench", {"table": [*BENCH, bench_row("transpose 8192 x 8192 uint8", "tiled", 0.89)]}),
        (12, "kernels_bench", {"table": [bench_row(HOT, "fused", 0.69)]}),
        (13, "kernels_bench", {"table": [*BENCH, bench_row(HOT, "a fast one", None, 1.4)]}),
        (14, "preprocess", {"table": [rate_row("nvJPEG", 19_999)]}),
        (15, "preprocess", {"table": [rate_row("JPEG engine, nvJPEG, CPU", 30_000, 0.89)]}),
        (16, "pytorch_slow", run_found({"boundary": "tensor"}, 960.0, 1_000.0)),
        (17, "pytorch_single", run_found(SINGLE) | {"latency_ns": {"p50": 321_000, "p90": 1, "p99": 1}}),
        (22, "onnxruntime_device", run_found({"backend": "onnxruntime"}, 5_999.0, None)),
        (19, "pytorch_one_stream", run_found({"boundary": "tensor", "option": "overlap=false"}, 9_001.0, None)),
    ],
)
def test_a_figure_that_is_worse_is_not_met(position: int, part: str, worse: dict[str, Any]) -> None:
    judged = targets(ALL_FOUND | {part: worse})

    assert judged[position].verdict == "NOT MET"
    assert "NOT MET" not in [each.verdict for at, each in enumerate(judged) if at != position]


def test_a_run_that_is_not_valid_has_no_figure() -> None:
    found = targets({"a run": run_found() | {"valid": False}})

    assert {each.verdict for each in found} == {"not measured"}


def test_published_figures_stand_beside_the_best_of_ours() -> None:
    of_4090, of_h200, p90 = beside_anchors(ALL_FOUND)

    assert (of_4090["theirs"], of_h200["theirs"], p90["theirs"]) == (44_391, 96_029, 0.282)
    assert (of_h200["ours"], of_h200["of"]) == (21_000, "pytorch resnet50 fp16 jpeg cuda")
    assert (p90["ours"], p90["of"]) == (0.32, "pytorch resnet50 fp16 tensor opencv")
    assert [row["ours"] for row in beside_anchors({})] == [None] * 3


def test_a_transpose_without_a_time_leaves_the_target_unmeasured() -> None:
    found = {"kernels_bench": {"table": [*BENCH, bench_row("transpose 8192 x 8192 uint8", "tiled")]}}
    assert targets(found)[11].verdict == "not measured"
