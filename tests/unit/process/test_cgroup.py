"""What a cgroup of either version leaves of cores and memory, in files under a root of our own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sut.process.cgroup import (
    cpu_periods,
    cpu_quota,
    free_memory,
    held_back,
    memory_limit,
    most_throttled,
    usable_cores,
)

V1 = "3:cpu,cpuacct:/job/a\n2:memory:/job/a\n"
V2 = "0::/a/b\n"


def plant(root: Path, files: dict[str, str]) -> Path:
    """A machine's /proc and /sys."""
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({}, None),
        ({"proc/self/cgroup": "0::/\n"}, None),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000\n"}, None),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "150000 100000\n"}, 1.5),
        ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/cpu.max": "50000 100000\n"}, 0.5),
        (
            {
                "proc/self/cgroup": "0::/a/b\n",
                "sys/fs/cgroup/a/b/cpu.max": "400000 100000\n",
                "sys/fs/cgroup/a/cpu.max": "300000 100000\n",
            },
            3.0,
        ),
        ({"proc/self/cgroup": "0::/host/path\n", "sys/fs/cgroup/cpu.max": "200000 100000\n"}, 2.0),
        (
            {
                "proc/self/cgroup": V1,
                "sys/fs/cgroup/cpu,cpuacct/job/a/cpu.cfs_quota_us": "250000\n",
                "sys/fs/cgroup/cpu,cpuacct/job/a/cpu.cfs_period_us": "100000\n",
            },
            2.5,
        ),
        (
            {
                "proc/self/cgroup": V1,
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            None,
        ),
        ({"proc/self/cgroup": "4:cpuset:/\n", "sys/fs/cgroup/cpuset/cpu.max": "1 1"}, None),
    ],
)
def test_the_quota_of_cores(tmp_path: Path, files: dict[str, str], cores: float | None) -> None:
    assert cpu_quota(plant(tmp_path, files)) == cores


@pytest.mark.parametrize(
    ("files", "limit_bytes"),
    [
        ({}, None),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "max\n"}, None),
        ({"proc/self/cgroup": "0::/a\n", "sys/fs/cgroup/a/memory.max": "1073741824\n"}, 2**30),
        ({"proc/self/cgroup": V1, "sys/fs/cgroup/memory/job/a/memory.limit_in_bytes": "4096\n"}, 4096),
        ({"proc/self/cgroup": V1, "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n"}, None),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/unified/memory.max": "8192\n"}, 8192),
    ],
)
def test_the_limit_of_memory(tmp_path: Path, files: dict[str, str], limit_bytes: int | None) -> None:
    assert memory_limit(plant(tmp_path, files)) == limit_bytes


MEMINFO = {"proc/meminfo": "MemTotal: 8 kB\nMemAvailable:    4000 kB\n"}
STAT = "anon 1\nactive_file 300\ninactive_file 4000\n"


@pytest.mark.parametrize(
    ("files", "free_bytes"),
    [
        ({}, None),
        (MEMINFO, 4_096_000),
        ({**MEMINFO, "proc/self/cgroup": "0::/a\n", "sys/fs/cgroup/a/memory.max": "max\n"}, 4_096_000),
        (
            {
                **MEMINFO,
                "proc/self/cgroup": "0::/a\n",
                "sys/fs/cgroup/a/memory.max": "100000\n",
                "sys/fs/cgroup/a/memory.current": "90000\n",
                "sys/fs/cgroup/a/memory.stat": STAT,
            },
            14_300,
        ),
        (
            {
                "proc/self/cgroup": V1,
                "sys/fs/cgroup/memory/job/a/memory.limit_in_bytes": "100000\n",
                "sys/fs/cgroup/memory/job/a/memory.usage_in_bytes": "90000\n",
                "sys/fs/cgroup/memory/job/a/memory.stat": STAT + "total_active_file 0\ntotal_inactive_file 5000\n",
            },
            15_000,
        ),
        (
            {
                "proc/self/cgroup": "0::/\n",
                "sys/fs/cgroup/memory.max": "100\n",
                "sys/fs/cgroup/memory.current": "200\n",
            },
            0,
        ),
        ({**MEMINFO, "proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "100\n"}, 4_096_000),
    ],
)
def test_the_memory_that_is_free(tmp_path: Path, files: dict[str, str], free_bytes: int | None) -> None:
    assert free_memory(plant(tmp_path, files)) == free_bytes


@pytest.mark.parametrize(
    ("quota", "cores"),
    [("max 100000", 4), ("350000 100000", 3), ("100000 100000", 1), ("50000 100000", 1), ("900000 100000", 4)],
)
def test_cores_are_those_of_the_quota_whole_and_at_least_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quota: str, cores: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3})

    assert usable_cores(plant(tmp_path, {"proc/self/cgroup": V2, "sys/fs/cgroup/a/cpu.max": quota})) == cores


@pytest.mark.parametrize(
    "files",
    [
        {"proc/self/cgroup": V2, "sys/fs/cgroup/a/b/cpu.max": "50000 100000", "sys/fs/cgroup/a/b/cpu.stat": "{}"},
        {
            "proc/self/cgroup": V1,
            "sys/fs/cgroup/cpu,cpuacct/job/a/cpu.cfs_quota_us": "50000\n",
            "sys/fs/cgroup/cpu,cpuacct/job/a/cpu.cfs_period_us": "100000\n",
            "sys/fs/cgroup/cpu,cpuacct/job/a/cpu.stat": "{}",
        },
    ],
)
def test_throttled_periods_are_counted_over_the_run(tmp_path: Path, files: dict[str, str]) -> None:
    def told(periods: int, throttled: int) -> dict[str, str]:
        stat = f"usage_usec 17\nnr_periods {periods}\nnr_throttled {throttled}\nthrottled_time 12345\n"
        return {name: stat if text == "{}" else text for name, text in files.items()}

    before = cpu_periods(plant(tmp_path, told(100, 7)))
    after = cpu_periods(plant(tmp_path, told(160, 40)))

    assert most_throttled(before, after) == (60, 33)


def test_of_two_cgroups_the_one_that_throttles_more_counts(tmp_path: Path) -> None:
    inner, outer = "sys/fs/cgroup/a/b/", "sys/fs/cgroup/a/"
    plant(tmp_path, {"proc/self/cgroup": V2, f"{inner}cpu.max": "100000 100000", f"{outer}cpu.max": "300000 100000"})
    zero = plant(tmp_path, {f"{where}cpu.stat": "nr_periods 0\nnr_throttled 0\n" for where in (inner, outer)})
    before = cpu_periods(zero)
    plant(tmp_path, {f"{inner}cpu.stat": "nr_periods 50\nnr_throttled 0\n"})
    plant(tmp_path, {f"{outer}cpu.stat": "nr_periods 40\nnr_throttled 9\n"})

    assert most_throttled(before, cpu_periods(tmp_path)) == (40, 9)


def test_without_a_quota_nothing_is_throttled(tmp_path: Path) -> None:
    root = plant(tmp_path, {"proc/self/cgroup": V2, "sys/fs/cgroup/a/b/cpu.stat": "nr_periods 3\nnr_throttled 1\n"})

    assert most_throttled(cpu_periods(root), cpu_periods(root)) is None


@pytest.mark.parametrize(("periods", "throttled", "told"), [(0, 0, False), (1000, 10, False), (1000, 11, True)])
def test_more_than_a_hundredth_of_the_periods_is_told(periods: int, throttled: int, told: bool) -> None:
    words = "the quota of 1.5 cores held the run back in 11 of 1,000 periods"

    assert held_back(1.5, periods, throttled) == (words if told else None)
