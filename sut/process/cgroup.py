"""The cores that this process may use, limits that a cgroup (version 1 or 2) sets it, and how far they were felt.

``root`` is where ``proc`` and ``sys`` are looked for.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

_MOST_THROTTLED = 0.01
"""Of the periods of a CPU quota: beyond, the figures are those of the quota."""


def cpu_quota(root: Path) -> float | None:
    """Cores that the cgroup and those above it allow, or None without a quota (version 2: cpu.max; 1: cfs_quota_us)."""
    return min(_quotas(root).values(), default=None)


def allowed_cores() -> frozenset[int]:
    """The logical cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return frozenset(os.sched_getaffinity(0))
    return frozenset(range(os.cpu_count() or 1))


def usable_cores(root: Path = Path("/")) -> int:
    """Cores this process can keep busy: those it may run on, or the whole ones of a cgroup's quota if they are fewer.

    More threads would all be held back together when the quota is spent. ``root`` is where ``proc`` and ``sys`` are.
    """
    allowed, quota = len(allowed_cores()), cpu_quota(root)
    return allowed if quota is None else min(allowed, max(1, int(quota)))


Periods = Mapping[Path, tuple[int, int]]
"""Per cgroup with a quota: periods in which it wanted to run, and those of them in which it was held back."""


def cpu_periods(root: Path) -> Periods:
    """The periods so far of each cgroup that sets this process a quota (``nr_periods``, ``nr_throttled``)."""
    told = {folder: _table(folder / "cpu.stat") for folder in _quotas(root)}
    known = {folder: words for folder, words in told.items() if "nr_periods" in words}
    return {folder: (words["nr_periods"], words.get("nr_throttled", 0)) for folder, words in known.items()}


def most_throttled(before: Periods, after: Periods) -> tuple[int, int] | None:
    """Periods, and throttled ones, between the two of the cgroup that held this process back most; None without one."""
    spent = [(after[each][0] - count, after[each][1] - held) for each, (count, held) in before.items() if each in after]
    return max(spent, key=lambda periods: periods[::-1], default=None)


def held_back(cores: float, periods: int, throttled: int) -> str | None:
    """What to tell of a quota that held a run back in more than a little of its periods; None of one that did not."""
    if throttled <= _MOST_THROTTLED * periods:
        return None
    return f"the quota of {cores:g} cores held the run back in {throttled:,} of {periods:,} periods"


def _quotas(root: Path) -> dict[Path, float]:
    found = {}
    for folder in _cgroups(root, "cpu"):
        words = (read_text(folder / "cpu.max") or read_text(folder / "cpu.cfs_quota_us")).split()
        words += read_text(folder / "cpu.cfs_period_us").split()
        if len(words) == 2 and words[0].isdigit() and words[1].isdigit():
            found[folder] = int(words[0]) / int(words[1])
    return found


def memory_limit(root: Path) -> int | None:
    """Bytes that the cgroup and those above it allow, or None without a limit."""
    limits = (_memory_limit(folder) for folder in _cgroups(root, "memory"))
    return min((limit for limit in limits if limit is not None), default=None)


def free_memory(root: Path) -> int | None:
    """Bytes that can still be had, of the machine's memory and of each cgroup's limit; None where nothing tells.

    What holds files that are merely cached counts as free.
    """
    available = bytes_told(root / "proc/meminfo", "MemAvailable")
    free = [] if available is None else [available]
    for folder in _cgroups(root, "memory"):
        if (limit := _memory_limit(folder)) is None:
            continue
        used = (read_text(folder / "memory.current") or read_text(folder / "memory.usage_in_bytes")).strip()
        if used.isdigit():
            free.append(max(0, limit - int(used) + _cached(folder)))
    return min(free, default=None)


def bytes_told(path: Path, name: str) -> int | None:
    """What one of the kernel's files says in kB under a name; None where it does not."""
    words = read_text(path).partition(f"{name}:")[2].split()
    return 1024 * int(words[0]) if words else None


def _memory_limit(folder: Path) -> int | None:
    word = (read_text(folder / "memory.max") or read_text(folder / "memory.limit_in_bytes")).strip()
    # Version 1 writes "no limit" as the largest number of whole pages.
    return int(word) if word.isdigit() and int(word) < 2**60 else None


def _cached(folder: Path) -> int:
    """Bytes of files that the cgroup can give back; version 1 has the sum over those below under a name of its own."""
    stat = _table(folder / "memory.stat")
    return sum(stat.get(f"total_{name}", stat.get(name, 0)) for name in ("active_file", "inactive_file"))


def _table(path: Path) -> dict[str, int]:
    """A file of lines with a name and a number."""
    pairs = (line.split() for line in read_text(path).splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2}


def _cgroups(root: Path, controller: str) -> Iterator[Path]:
    """This process's cgroup folders, from its own up to the root: a limit above holds below.

    In a container the path in /proc/self/cgroup may be that of the host: then only the root is there, and it is ours.
    """
    for line in read_text(root / "proc/self/cgroup").splitlines():
        controllers, path = line.split(":", 2)[1:]
        if controllers and controller not in controllers.split(","):
            continue
        own = PurePosixPath(path.lstrip("/"))
        mounts = {controller, controllers} if controllers else {"", "unified"}
        for mount in sorted(mounts):
            yield from (root / "sys/fs/cgroup" / mount / folder for folder in (own, *own.parents))


def read_text(path: Path) -> str:
    """A small system file, or nothing where it is not there."""
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
