"""The record of the machine, from drawn files of the kernel, and whether two of them are of one."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from plugins.cpuinfo import read_cpuinfo
from sut.results import machine
from sut.results.machine import differs, system_facts
from tests.unit.process.test_cgroup import V2, plant

CPUS = "sys/devices/system/cpu/"
X86 = "processor : 0\nmodel name\t: Some CPU: 5000\nflags\t\t: fpu avx2 amx_tile\n\nprocessor : 1\nmodel name : Other\n"
ARM = "processor : 0\nFeatures\t: fp asimd asimddp sve\nCPU implementer : 0x41\nCPU part\t: 0xd40\n\nHardware : x\n"
FILES = {
    "proc/cpuinfo": X86,
    "proc/meminfo": "MemTotal:       16777216 kB\nMemFree: 1 kB\n",
    "proc/self/cgroup": V2,
    "sys/fs/cgroup/a/cpu.max": "150000 100000\n",
    "sys/fs/cgroup/a/memory.max": "1073741824\n",
    "proc/driver/nvidia/gpus/0000:1/information": "Model: \t NVIDIA H100\nIRQ: 7\n",
    "sys/devices/system/node/node0/x": "",
    "sys/devices/system/node/node1/x": "",
    ".dockerenv": "",
    f"{CPUS}cpu1/cpufreq/scaling_governor": "powersave\n",
    f"{CPUS}cpu1/cpufreq/cpuinfo_max_freq": "3700000\n",
    **{f"{CPUS}cpu{i}/topology/thread_siblings_list": f"{i % 2},{i % 2 + 2}\n" for i in range(4)},
    **{f"{CPUS}cpu{i}/topology/physical_package_id": "0\n" for i in range(4)},
    **{
        f"{CPUS}cpu1/cache/index{i}/{name}": f"{text}\n"
        for i, cache in enumerate((("1", "Data", "48K"), ("1", "Instruction", "32K"), ("3", "Unified", "32768K")))
        for name, text in zip(("level", "type", "size"), cache, strict=True)
    },
}


def test_the_facts_are_those_of_the_kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {1, 2, 3})
    monkeypatch.setattr(os, "cpu_count", lambda: 4)

    facts = system_facts(plant(tmp_path, FILES))

    expected = {
        "cpu": "Some CPU: 5000",
        "features": ["avx2", "amx_tile"],
        "cache_bytes": {"L1d": 49152, "L1i": 32768, "L3": 2**25},
        "governor": "powersave",
        "max_frequency_mhz": 3700.0,
        "cores": 1,
        "cores_by_affinity": 3,
        "cores_by_quota": 1.5,
        "logical_cores": 4,
        "physical_cores": 2,
        "sockets": 1,
        "numa_nodes": 2,
        "memory": "16777216 kB",
        "memory_limit_bytes": 2**30,
        "gpus": ["NVIDIA H100"],
        "container": "docker",
    }
    assert {name: facts[name] for name in expected} == expected
    assert {"platform", "machine", "kernel", "utc"} == facts.keys() - expected.keys()
    json.dumps(facts)


def test_what_cannot_be_read_is_null(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")

    facts = system_facts(tmp_path)

    known = {"platform", "machine", "kernel", "utc", "cpu", "cores", "cores_by_affinity", "logical_cores"}
    assert {name for name, fact in facts.items() if fact is not None} == known


def test_arm_has_numbers_for_a_name(tmp_path: Path) -> None:
    info = read_cpuinfo(plant(tmp_path, {"proc/cpuinfo": ARM}))

    assert info.model == "ARM implementer 0x41, part 0xd40"
    assert info.flags == {"fp", "asimd", "asimddp", "sve"}


def test_gpus_by_nvidia_smi_where_the_driver_has_no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "nvidia_smi", lambda: ["0, NVIDIA H200, 143771, 580.82.07"])

    assert machine.gpu_names(tmp_path) == ["NVIDIA H200"]


@pytest.mark.parametrize(
    ("files", "kind"),
    [
        ({}, None),
        ({"run/systemd/container": "systemd-nspawn\n", ".dockerenv": ""}, "systemd-nspawn"),
        ({"run/.containerenv": ""}, "podman"),
        ({"proc/1/cgroup": "0::/kubepods/besteffort/pod1\n"}, "kubepods"),
        ({"proc/1/cgroup": "0::/init.scope\n"}, None),
    ],
)
def test_containers(tmp_path: Path, files: dict[str, str], kind: str | None) -> None:
    assert machine.container(plant(tmp_path, files)) == kind


ONE = {
    **{"cpu": "A", "machine": "x86_64", "features": ["avx2"], "cores": 2, "cores_by_quota": None},
    **{"memory": "16000000 kB", "gpus": None, "governor": "performance", "cache_bytes": {"L2": 1}},
}


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({}, []),
        ({"memory": "16100000 kB", "kernel": "other", "utc": "later", "load_average": [9, 9, 9]}, []),
        ({"cores": None, "governor": None, "cores_by_quota": 1.5}, []),
        ({"memory": "32000000 kB"}, ["memory: 16000000 kB and 32000000 kB"]),
        ({"memory": "much"}, ["memory: 16000000 kB and much"]),
        ({"cpu": "B", "cores": 4}, ["CPU: A and B", "usable cores: 2 and 4"]),
        ({"features": []}, ["CPU features: avx2 and none"]),
        ({"cache_bytes": {"L2": 2}}, ["caches: L2 1 and L2 2"]),
    ],
)
def test_what_tells_two_machines_apart(other: dict[str, Any], words: list[str]) -> None:
    assert differs(ONE, {**ONE, **other}) == words
    assert len(differs({**ONE, **other}, ONE)) == len(words)


def test_a_result_without_a_record_tells_nothing() -> None:
    assert differs({}, ONE) == []
    assert differs(ONE, {}) == []
