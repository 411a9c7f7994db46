"""What `explain` says of the teaching kernels: the figures of the literature, counted and not assumed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest

from kernels.device import SOURCES
from kernels.host import HostDevice
from kernels.lab.explain import CASES, Explanation, explain


@pytest.fixture(scope="module")
def explained(_start: Callable[..., HostDevice]) -> dict[str, Explanation]:
    return {each.case.kernel: each for each in explain(_start(count=True), CASES)}


# kernel: sectors per request read and written, worst and mean bank conflict
FIGURES: dict[str, tuple[float, float, int | None, float | None]] = {
    "transpose_naive_f32": (4, 16, None, None),
    "transpose_tile16x16_f32": (4, 4, 8, 4.5),
    "transpose_tile16x17_f32": (4, 4, 2, 2),
    "transpose_tiled_f32": (4, 4, 1, 1),
    "transpose_tiled_f16": (4, 4, 1, 1),
    "transpose_tiled_u8": (4, 4, 1, 1),
    "nhwc_to_nchw_naive_u8": (1, 3, None, None),
    "nhwc_to_nchw_tiled_u8": (16, 16, 1, 1),
    "nchw_to_nhwc_tiled_u8": (16, 16, 1, 1),
    "copy_linear_f32": (32, 32, None, None),
    "copy_coalesced_f32": (4, 4, None, None),
    "matmul_naive_f32": (2, 4, None, None),
    "matmul_tiled_f32": (4, 4, 1, 1),
    # resize: 27565 sectors in 2336 requests; normalize: (3 * 392 * 12 + 13 * 96) in (3 * 392 + 13 * 6)
    "resize_f32": (27565 / 2336, 4, 6, 1.3974154),
    "normalize_f32": (15360 / 1254, 16, 6, 2.9972089),
}


def test_every_case_has_its_figures_here() -> None:
    assert {case.kernel for case in CASES} == set(FIGURES)


@pytest.mark.parametrize("kernel", FIGURES)
def test_figures_are_those_of_the_literature(explained: dict[str, Explanation], kernel: str) -> None:
    found = explained[kernel]
    read, write = found.sectors_per_request("read"), found.sectors_per_request("write")
    assert (read, write, found.max_ways, found.mean_ways) == pytest.approx(FIGURES[kernel])


@pytest.mark.parametrize(
    ("kernel", "moved_over_needed"),
    [
        ("transpose_naive_f32", 2.5),  # (4 + 16) sectors for (4 + 4)
        ("transpose_tiled_f32", 1),
        ("transpose_tiled_f16", 1),
        ("transpose_tiled_u8", 1),
        ("nhwc_to_nchw_naive_u8", 2),
        ("nhwc_to_nchw_tiled_u8", 1),
        ("nchw_to_nhwc_tiled_u8", 1),
        ("copy_linear_f32", 8),
        ("copy_coalesced_f32", 1),
    ],
)
def test_bytes_moved_and_the_time_they_take(
    explained: dict[str, Explanation], kernel: str, moved_over_needed: float
) -> None:
    found = explained[kernel]
    assert found.moved_bytes == moved_over_needed * found.case.needed_bytes
    assert found.efficiency == pytest.approx(1 / moved_over_needed)
    assert found.predicted_s(4.3e12) == pytest.approx(moved_over_needed * found.case.needed_bytes / 4.3e12)


def test_a_tile_of_16_saves_seven_eighths_of_the_sectors_that_a_product_reads(
    explained: dict[str, Explanation],
) -> None:
    reads = {
        kernel: sum(site.sectors for site in explained[kernel].sites if site.direction == "read")
        for kernel in ("matmul_naive_f32", "matmul_tiled_f32")
    }
    assert reads["matmul_naive_f32"] == 8 * reads["matmul_tiled_f32"]


def test_the_kernels_of_preprocessing_read_pixels_and_write_planes(explained: dict[str, Explanation]) -> None:
    planes, table = 3 * 224 * 224 * 4, 3 * 256 * 4
    for kernel, pixels in (("resize_f32", 330 * 330 * 3), ("normalize_f32", 3 * 224 * 224)):
        found = explained[kernel]
        written = [site for site in found.sites if (site.space, site.direction) == ("global", "write")]
        assert 32 * sum(site.sectors for site in written) == planes, "every sector once"
        assert found.case.needed_bytes == pytest.approx(pixels + table + planes, rel=0.02)
        assert found.case.needed_bytes < found.moved_bytes < 2 * found.case.needed_bytes
        assert found.predicted_s(1e12) == found.moved_bytes / 1e12
    assert explained["resize_f32"].case.needed_bytes == 929907


def test_every_tile_of_a_resize_reads_the_table(explained: dict[str, Explanation]) -> None:
    assert 112 * 3 * 256 * 4 // 32 in {site.sectors for site in explained["resize_f32"].sites}


def test_what_is_counted_names_its_line(explained: dict[str, Explanation]) -> None:
    sites = explained["transpose_naive_f32"].sites
    lines = (SOURCES / "transpose.cu").read_text(encoding="utf-8").splitlines()
    assert {(site.direction, lines[site.line - 1].strip().split("(")[0]) for site in sites} == {
        ("read", "const T value = load"),
        ("write", "store"),
    }


def test_a_bandwidth_of_nothing_is_refused(explained: dict[str, Explanation]) -> None:
    with pytest.raises(ValueError, match=r"got a bandwidth of 0 bytes/s, expected more than 0"):
        explained["copy_coalesced_f32"].predicted_s(0)


def test_a_device_that_does_not_count_is_refused(host: HostDevice) -> None:
    with pytest.raises(ValueError, match="does not count"):
        explain(host, CASES[:1])


def test_counts_are_of_one_case_alone(counting: HostDevice) -> None:
    twice = explain(counting, [CASES[0], CASES[0]])
    assert dataclasses.asdict(twice[0].sites[0]) == dataclasses.asdict(twice[1].sites[0])
