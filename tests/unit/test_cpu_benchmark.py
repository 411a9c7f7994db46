"""What benchmarks/cpu.py makes of its measurements: verdicts, tables, charts, and sections that keep the rest."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.cpu_report import Measured, Point, charts, comparisons, section
from benchmarks.document import command_line, replace_section

POINTS = [Point("f32", "1", 1, 8, 300.0), Point("bf16", "throughput", 2, 4, 310.0)]
FOUND = [
    Measured("resnet50", "fp32", "Offline", "samples/s", backend="onnxruntime", ours=[40.0, 42.0, 41.0]),
    Measured("resnet50", "int8", "Offline", "samples/s", ours=[390.0], bare=[400.0], grid=POINTS, best=POINTS[1]),
    Measured("resnet50", "int8", "SingleStream", "ms", ours=[3.3], bare=[3.1]),
    Measured("efficientnet-lite0", "int8", "MultiStream", "ms", ours=[22.5], bare=[20.0], parts=2),
    Measured("efficientnet-lite0", "int8", "Offline", "samples/s", ours=[500.0], bare=[505.0]),
    Measured("efficientnet-lite0", "int8", "agreement", "% same labels", ours=[95.0], where="six of them", right=11),
    Measured("efficientnet-lite0", "int8", "agreement", "% same labels", ours=[91.0], where="five of them", right=10),
    Measured("resnet50", "int8", "SingleStream, ONNX Runtime fp32 alone", "ms", ours=[4.0], bare=[31.0]),
    Measured("resnet50", "int8", "Server, simulated", "queries/s", ours=[88.0], bare=[100.0], where="bound 15 ms"),
    Measured("resnet50", "int8", "Server, first in first out", "queries/s", ours=[88.0], bare=[], where="bound 15 ms"),
]
MACHINE = {"utc": "2026-01-01T00:00:00Z", "cpu": "a CPU"}


def test_each_figure_is_held_against_its_target() -> None:
    verdicts = {figure.title: (figure.value, figure.met) for figure in comparisons(FOUND)}

    assert verdicts == {
        "resnet50 int8 Offline": (pytest.approx(0.975), True),
        "resnet50 int8 SingleStream p50": (pytest.approx(0.2), False),
        "efficientnet-lite0 int8 MultiStream-8 p99": (pytest.approx(1.125), False),
        "efficientnet-lite0 int8 Offline": (pytest.approx(500 / 505), True),
        "efficientnet-lite0 int8, six of them": (95.0, True),
        "efficientnet-lite0 int8, six of them: photos right": (11.0, True),
        "efficientnet-lite0 int8, five of them": (91.0, False),
        "efficientnet-lite0 int8, five of them: photos right": (10.0, False),
        "resnet50 int8 SingleStream, ONNX Runtime fp32 alone p50": (pytest.approx(4 / 31), True),
        "resnet50 int8 Server, simulated": (pytest.approx(0.88), False),
        "resnet50 int8 Server, first in first out": (None, None),
        "resnet50 openvino int8 over onnxruntime fp32": (pytest.approx(390 / 41), True),
    }


def test_what_was_measured_survives_json() -> None:
    assert [Measured.load(json.loads(json.dumps(one.dump()))) for one in FOUND] == FOUND


def test_the_section_has_every_verdict_the_grid_and_the_charts(tmp_path: Path) -> None:
    images = charts(FOUND, tmp_path)

    text = section(FOUND, comparisons(FOUND), MACHINE, "python benchmarks/cpu.py", [path.name for path in images])

    assert [path.name for path in images] == ["cpu-resnet50.svg", "cpu-efficientnet-lite0.svg"]
    assert all("<svg" in path.read_text() for path in images)
    assert text.count("| met |") == 6
    assert text.count("| NOT MET |") == 5
    assert text.count("| not measured |") == 1
    assert "f32 1 streams batch 8: 300/s; bf16 throughput mode batch 4: 310/s" in text
    assert "- **resnet50 int8 Server, simulated**: bound 15 ms" in text
    assert "![cpu-resnet50.svg](images/cpu-resnet50.svg)" in text


def test_the_same_figures_make_the_same_chart(tmp_path: Path) -> None:
    first = [path.read_bytes() for path in charts(FOUND, tmp_path / "a")]

    assert [path.read_bytes() for path in charts(FOUND, tmp_path / "b")] == first


def test_a_section_is_added_then_replaced_and_the_rest_kept() -> None:
    once = replace_section("# Performance\n\nWords.\n", "cpu", "Fast", "old")
    twice = replace_section(once + "\nMore words.\n", "cpu", "Fast", "new")

    assert once.startswith("# Performance\n\nWords.\n\n## Fast\n")
    assert "old" not in twice
    assert twice.count("## Fast") == 1
    assert twice.endswith("\nMore words.\n")


def test_markers_out_of_order_are_refused() -> None:
    with pytest.raises(ValueError, match="not once each and in this order"):
        replace_section("<!-- cpu:end --><!-- cpu:begin -->", "cpu", "Fast", "new")


@pytest.mark.parametrize("where", [["--output", "x.json"], ["--output=x.json"], ["--from", "x.json"], []])
def test_where_a_file_was_kept_is_not_told(where: list[str]) -> None:
    told = command_line("cpu.py", ["--repeat", "3", *where, "--write-docs"])

    assert told == "python benchmarks/cpu.py --repeat 3 --write-docs"
