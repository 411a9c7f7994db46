"""The machine that a result is of, as far as it decides the figures, and whether two results are of one.

With the standard library alone: ``sut doctor`` shows it where nothing else is installed. ``root`` is where ``proc`` and
``sys`` are looked for.
"""

from __future__ import annotations

import os
import platform
import re
import subprocess
import time
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from plugins.cpuinfo import read_cpuinfo
from sut.process.cgroup import allowed_cores, cpu_quota, memory_limit, read_text, usable_cores

CPU_FEATURES = (
    *("avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile", "amx_int8", "amx_bf16"),
    *("asimd", "asimddp", "sve", "bf16", "i8mm"),
)
"""What decides the speed of float32, bfloat16 and int8 models, as /proc/cpuinfo spells it (x86, then ARM)."""

_COMPARED = {
    "cpu": "CPU",
    "machine": "architecture",
    "features": "CPU features",
    "cache_bytes": "caches",
    "governor": "governor",
    "max_frequency_mhz": "highest frequency in MHz",
    "cores": "usable cores",
    "cores_by_quota": "cores by quota",
    "physical_cores": "physical cores",
    "sockets": "sockets",
    "numa_nodes": "NUMA nodes",
    "memory": "memory",
    "gpus": "GPUs",
}
"""The facts that make two machines two, and what they are called. Not the host's name, which says nothing of it."""

_SAME_MEMORY = 0.01
"""What a kernel keeps for itself differs from one to the next."""


def system_facts(root: Path = Path("/")) -> dict[str, Any]:
    """The machine, as far as it matters to a reader of the figures. None is what cannot be told here."""
    total = re.search(r"^MemTotal:\s*(.+)$", read_text(root / "proc/meminfo"), re.MULTILINE)
    return {
        "platform": platform.platform(),
        "machine": platform.machine(),
        **cpu_facts(root),
        "memory": total[1] if total else None,
        "memory_limit_bytes": memory_limit(root),
        "gpus": gpu_names(root) or None,
        "kernel": platform.release(),
        "container": container(root),
        "utc": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def named(facts: Mapping[str, Any]) -> str:
    """A machine, the ``system`` of a result, in few words."""
    return f"{facts.get('cpu') or facts.get('machine') or 'unknown'}, {facts.get('cores', '?')} cores"


def cpu_facts(root: Path) -> dict[str, Any]:
    """The CPU: what it is, what it can do, and how much of it there is for this process."""
    cpus = root / "sys/devices/system/cpu"
    info = read_cpuinfo(root)
    first = cpus / f"cpu{min(allowed_cores())}"
    highest_khz = read_text(first / "cpufreq/cpuinfo_max_freq").strip()
    return {
        "cpu": info.model or platform.machine(),
        "features": [feature for feature in CPU_FEATURES if feature in info.flags] if info.flags else None,
        "cache_bytes": _caches(first) or None,
        "governor": read_text(first / "cpufreq/scaling_governor").strip() or None,
        "max_frequency_mhz": int(highest_khz) / 1000 if highest_khz.isdigit() else None,
        "cores": usable_cores(root),
        "cores_by_affinity": len(allowed_cores()),
        "cores_by_quota": cpu_quota(root),
        "logical_cores": os.cpu_count(),
        "physical_cores": len(_told(cpus, "topology/thread_siblings_list")) or None,
        "sockets": len(_told(cpus, "topology/physical_package_id")) or None,
        "numa_nodes": len(list((root / "sys/devices/system/node").glob("node[0-9]*"))) or None,
    }


@cache
def gpu_names(root: Path) -> list[str]:
    """NVIDIA's GPUs, from the driver's files or else from nvidia-smi, never through CUDA."""
    return driver_gpus(root) or [line.split(",")[1].strip() for line in nvidia_smi()]


def driver_gpus(root: Path) -> list[str]:
    """Names of the GPUs that NVIDIA's driver has files of."""
    infos = sorted(root.glob("proc/driver/nvidia/gpus/*/information"))
    models = [re.search(r"^Model:\s*(.+)$", read_text(path), re.MULTILINE) for path in infos]
    return [model[1].strip() for model in models if model]


def nvidia_smi() -> list[str]:
    """Lines of index, name, memory in MiB, driver; none where nvidia-smi is not there or has nothing to say."""
    query = ["nvidia-smi", "--query-gpu=index,name,memory.total,driver_version", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return [line for line in done.stdout.splitlines() if line.count(",") == 3]


def container(root: Path) -> str | None:
    """The kind of container that this process is in; None where none is seen."""
    named = read_text(root / "run/systemd/container").strip()
    marks = {".dockerenv": "docker", "run/.containerenv": "podman", "proc/sentry-meminfo": "gvisor"}
    words = [kind for mark, kind in marks.items() if (root / mark).exists()]
    words += re.findall(r"docker|kubepods|lxc|libpod|containerd", read_text(root / "proc/1/cgroup"))
    return named or next(iter(words), None)


def differs(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    """What tells two machines, the ``system`` of two results, apart, in words: ``usable cores: 2 and 4``.

    Empty where they may be one: what one of them does not know is no difference.
    """
    return [
        f"{words}: {_words(a[name])} and {_words(b[name])}"
        for name, words in _COMPARED.items()
        if a.get(name) is not None and b.get(name) is not None and not _same(name, a[name], b[name])
    ]


def _same(name: str, a: Any, b: Any) -> bool:
    if name == "memory":
        sizes = [int(digits[0]) for each in (a, b) if (digits := re.match(r"\d+", str(each)))]
        if len(sizes) == 2:
            return abs(sizes[0] - sizes[1]) <= _SAME_MEMORY * max(sizes)
    return bool(a == b)


def _words(fact: Any) -> str:
    if isinstance(fact, Mapping):
        return ", ".join(f"{name} {value}" for name, value in fact.items()) or "none"
    return " ".join(map(str, fact)) or "none" if isinstance(fact, list) else str(fact)


def _caches(core: Path) -> dict[str, int]:
    """Bytes of a core's caches by name: ``L1d``, ``L1i``, ``L2``, ``L3``. One that cores share counts whole."""
    found = {}
    for index in sorted(core.glob("cache/index[0-9]*")):
        level, kind, size = (read_text(index / name).strip() for name in ("level", "type", "size"))
        if size.endswith("K") and size[:-1].isdigit():
            found[f"L{level}{'' if kind == 'Unified' else kind[:1].lower()}"] = int(size[:-1]) * 1024
    return found


def _told(cpus: Path, name: str) -> set[str]:
    """The different words that the CPUs' files of that name have."""
    return {read_text(path).strip() for path in cpus.glob(f"cpu[0-9]*/{name}")} - {""}
