"""How quiet the machine was: what others took of its cores, and how long this process had to wait for one.

With the standard library alone, and cheap: a few files are read before and after a run, nothing in it. ``root`` is
where ``proc`` and ``sys`` are looked for. What cannot be read is None, and quiet then unknown.
"""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from sut.process.cgroup import allowed_cores, read_text

MOST_OTHERS = 0.1
"""Of the cores; beyond, others decide the figures too."""
MOST_OWN_WAIT = 0.02
"""Of the process's own CPU time."""
MOST_STEAL = 0.01
"""Of the cores: time for which the host of a virtual machine had them run something else."""
WAKING_NS = 20_000
"""Waits that are no longer on average are what waking a thread takes: 2 to 10 us were seen on cores that were idle."""

_LEAST_TICKS = 20
"""Of all cores together: in a shorter time the kernel's ticks are too coarse to tell a tenth."""
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_CPU_TIMES = slice(11, 15)
"""In /proc/PID/stat, behind the name: user and system time of a process, and of its children that have ended."""


@dataclass(frozen=True, slots=True)
class Quiet:
    """What disturbed a process for a while: the first three are shares and decide, the rest says more."""

    # For whoever reads it from a file.
    __pydantic_config__: ClassVar[Mapping[str, Any]] = {"extra": "forbid"}

    others_share: float | None
    """Of the cores that it may run on, what others took."""
    own_wait_share: float | None
    """Its threads' time in the run queue, as a share of their CPU time."""
    steal_share: float | None
    """Of the cores that it may run on, what a virtual machine's host gave to others."""
    own_wait_mean_ns: int | None = None
    """The mean of its threads' waits."""
    busy_share: float | None = None
    """The part of the cores' time in which anybody worked."""
    involuntary_switches: int | None = None
    """How often a thread was made to leave its core."""
    frequency_mhz: float | None = None
    """The cores' mean at the end."""
    thermal_throttles: int | None = None
    """How often one of the cores got too hot."""
    before: Quiet | None = None
    """The same of the time up to the run."""

    @property
    def is_quiet(self) -> bool | None:
        """Whether nothing disturbed beyond a little; None where that cannot be told."""
        found = (
            (self.others_share, MOST_OTHERS),
            (self._disturbing_wait, MOST_OWN_WAIT),
            (self.steal_share, MOST_STEAL),
        )
        if any(share is not None and share > most for share, most in found):
            return False
        return None if any(share is None for share, _ in found) else True

    @property
    def _disturbing_wait(self) -> float | None:
        """The own wait without what is no disturbance: waking up, and waiting for a thread of our own.

        While a thread waits for a core, somebody works there: others as much of the time as their part of all work. A
        runtime with more threads than cores makes its own threads wait for a quarter of their time on an idle machine.
        """
        if self.own_wait_share is None:
            return None
        if self.own_wait_mean_ns is not None and self.own_wait_mean_ns <= WAKING_NS:
            return 0.0
        if self.others_share is None or not self.busy_share:
            return self.own_wait_share
        return self.own_wait_share * min(1.0, self.others_share / self.busy_share)

    def line(self) -> str:
        """All of it that decides, in words."""
        verdict = {True: "quiet", False: "not quiet", None: "quiet or not is unknown"}[self.is_quiet]
        others, steal = map(_percent, (self.others_share, self.steal_share))
        waited = self.own_wait_share
        own = f"{_percent(waited)} of" if waited is None or waited < 1 else f"{waited:.2g} times"
        return f"{verdict}: others used {others} of the cores, own wait for one {own} its CPU time, steal {steal}"


@dataclass(frozen=True, slots=True)
class Look:
    """The kernel's counters at one moment.

    ``cores`` are ticks by core: at work, stolen, and in all; ``allowed`` are those that this process may run on.
    ``tree_ticks`` is the CPU time of the processes that are not others; ``threads`` by id are CPU time in ns, time in
    the run queue in ns, and turns on a core.
    """

    at_s: float
    allowed: frozenset[int]
    cores: Mapping[int, tuple[int, int, int]]
    tree_ticks: int | None
    threads: Mapping[str, tuple[int, int, int]]
    involuntary_switches: int
    frequency_mhz: float | None
    thermal_throttles: int | None


def look(tree: int, root: Path = Path("/")) -> Look:
    """Look at all counters. ``tree`` is the process whose descendants, and itself, are not others."""
    allowed = allowed_cores()
    cpus = [root / f"sys/devices/system/cpu/cpu{core}" for core in allowed]
    frequencies = _numbers(cpus, "cpufreq/scaling_cur_freq")
    throttles = _numbers(cpus, "thermal_throttle/core_throttle_count")
    return Look(
        at_s=time.monotonic(),
        allowed=allowed,
        cores=_cores(read_text(root / "proc/stat")),
        tree_ticks=_tree_ticks(root, tree),
        threads=_threads(root),
        involuntary_switches=resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw,
        frequency_mhz=sum(frequencies) / len(frequencies) / 1000 if frequencies else None,
        thermal_throttles=sum(throttles) if throttles else None,
    )


def between(first: Look, last: Look, before: Quiet | None = None) -> Quiet:
    """What disturbed this process between two looks."""
    others, steal, busy = _disturbed(first, last)
    cpu_ns = wait_ns = turns = 0
    # A thread that has ended took its counters along, so it counts neither as waiting nor as working.
    for thread, now in last.threads.items():
        then = first.threads.get(thread, (0, 0, 0))
        # Less than before: another thread that has got the number of one that ended.
        cpu, wait, turn = (a - b for a, b in zip(now, then if now >= then else (0, 0, 0), strict=True))
        cpu_ns, wait_ns, turns = cpu_ns + cpu, wait_ns + wait, turns + turn
    throttles = None
    if first.thermal_throttles is not None and last.thermal_throttles is not None:
        throttles = last.thermal_throttles - first.thermal_throttles
    return Quiet(
        others_share=others,
        own_wait_share=wait_ns / cpu_ns if cpu_ns else None,
        steal_share=steal,
        own_wait_mean_ns=round(wait_ns / turns) if turns else None,
        busy_share=busy,
        involuntary_switches=last.involuntary_switches - first.involuntary_switches,
        frequency_mhz=last.frequency_mhz,
        thermal_throttles=throttles,
        before=before,
    )


def _disturbed(first: Look, last: Look) -> tuple[float | None, float | None, float | None]:
    """The shares of the cores that others took, that the host took, and in which anybody worked."""
    counted = first.allowed & first.cores.keys() & last.cores.keys()
    ticks = (last.at_s - first.at_s) * _TICKS_PER_S * len(first.allowed)
    if counted != first.allowed or ticks < _LEAST_TICKS:
        return None, None, None
    spent = [[now - then for now, then in zip(last.cores[each], first.cores[each], strict=True)] for each in counted]
    busy, stolen, total = (sum(column) for column in zip(*spent, strict=True))
    if total < ticks / 2:  # some containers' /proc/stat counts nothing, or not the time of these cores
        return None, None, None
    steal, working = (min(1.0, max(0.0, each / ticks)) for each in (stolen, busy))
    if first.tree_ticks is None or last.tree_ticks is None:
        return None, steal, working
    return min(1.0, max(0.0, (busy - (last.tree_ticks - first.tree_ticks)) / ticks)), steal, working


def _cores(stat: str) -> dict[int, tuple[int, int, int]]:
    """Of the text of /proc/stat, where guests' time is in ``user`` already."""
    found = {}
    for line in stat.splitlines():
        name, *words = line.split() or [""]
        if name.startswith("cpu") and name[3:].isdigit() and len(words) >= 8 and all(map(str.isdigit, words)):
            user, nice, system, idle, iowait, irq, softirq, steal = map(int, words[:8])
            busy = user + nice + system + irq + softirq
            found[int(name[3:])] = busy, steal, busy + idle + iowait + steal
    return found


def _tree_ticks(root: Path, top: int) -> int | None:
    """User and system time of a process, its descendants, and those of them that have ended."""
    parents: dict[int, int] = {}
    ticks: dict[int, int] = {}
    for path in (root / "proc").glob("[0-9]*/stat"):
        words = read_text(path).rpartition(")")[2].split()
        if len(words) > _CPU_TIMES.stop:  # else it has ended meanwhile
            with suppress(ValueError):  # whatever it is, it is no reason to fail a run
                process, parent, spent = int(path.parent.name), int(words[1]), sum(map(int, words[_CPU_TIMES]))
                parents[process], ticks[process] = parent, spent
    if top not in ticks:
        return None
    ours, rest = {top}, set(parents) - {top}
    while more := {each for each in rest if parents[each] in ours}:
        ours |= more
        rest -= more
    return sum(ticks[each] for each in ours)


def _threads(root: Path) -> dict[str, tuple[int, int, int]]:
    """Of this process, thread by thread: /proc/self/schedstat is that of its first one alone."""
    found = {}
    for path in (root / "proc/self/task").glob("[0-9]*/schedstat"):
        words = read_text(path).split()
        if len(words) == 3 and all(map(str.isdigit, words)):
            found[path.parent.name] = int(words[0]), int(words[1]), int(words[2])
    return found


def _numbers(folders: list[Path], name: str) -> list[int]:
    return [int(text) for folder in folders if (text := read_text(folder / name).strip()).isdigit()]


def _percent(share: float | None) -> str:
    if share is None:
        return "an unknown part"
    return f"{100 * share:.{0 if share >= 0.1 else 1}f} %".replace(".0 %", " %")
