"""On which cores the threads of a stage may run: what ``--affinity`` says, checked against the machine, and set.

``lanes=0-3/4-7,preprocess=node1``: stages with their cores, as numbers, ranges and NUMA nodes; a slash stands between
sets, where devices or workers have some of their own. What a thread starts, a runtime's own threads too, inherits its
cores (``pthread_create``), so that a model is loaded on those that it is to work on.
"""

from __future__ import annotations

import os
import re
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields
from pathlib import Path

from plugins.registry import suggest
from sut.errors import InputError, SetupError
from sut.process.cgroup import allowed_cores, read_text

Cores = frozenset[int]
"""Numbers of logical cores, as Linux counts them."""
Words = Mapping[str, tuple[tuple[str, ...], ...]]
"""By stage the sets, each of numbers, ranges and nodes."""

_AROUND = re.compile(r"\s*([,/=])\s*")
_WORD = re.compile(r"node(\d{1,4})|(\d{1,4})(?:-(\d{1,4}))?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Affinity:
    """The core sets of each stage; a stage without any runs wherever the process may."""

    lanes: tuple[Cores, ...] = ()
    """The lanes' threads, and those that runtimes start for them: one set, or one for each device."""
    preprocess: tuple[Cores, ...] = ()
    """Threads that only preprocess, which take the sets in turn."""
    loadgen: tuple[Cores, ...] = ()
    """The thread in which LoadGen asks."""

    @classmethod
    def of(cls, text: str | None, root: Path = Path("/")) -> Affinity:
        """What a text means on this machine; ``root`` is where ``sys`` is looked for.

        Raises ``SetupError`` for cores and nodes that are not there or not to be used, and ``InputError`` for a core in
        two sets of one stage.
        """
        if text is None:
            return cls()
        allowed = allowed_cores()
        found = {stage: tuple(_cores(each, allowed, root) for each in sets) for stage, sets in parse(text).items()}
        for stage, sets in found.items():
            counted = Counter(core for cores in sets for core in cores)
            if twice := sorted(core for core, times in counted.items() if times > 1):
                raise InputError(f"--affinity {stage}: core {twice[0]} is in two sets; each needs cores of its own")
        return cls(**found)


NOWHERE = Affinity()
"""In particular: every thread may be anywhere."""


def parse(text: str) -> Words:
    """The words of a text by stage. Raises ``ValueError`` for what is no core set, and for an unknown stage.

    >>> parse("lanes=0-3,8/node1,loadgen=9")
    {'lanes': (('0-3', '8'), ('node1',)), 'loadgen': (('9',),)}
    """
    stages = [field.name for field in fields(Affinity)]
    found: dict[str, str] = {}
    stage = ""
    for part in _AROUND.sub(r"\1", text.strip()).split(","):
        name, equals, rest = part.partition("=")
        if not equals and stage:  # one more of the cores before it
            rest = f"{found[stage]},{name}"
        elif not name:
            raise ValueError("a stage's name is empty; expected cores or NUMA nodes by stage: lanes=0-3")
        elif name not in stages:
            raise ValueError(f"unknown stage '{name}'; {suggest(name, stages)}")
        elif name in found:
            raise ValueError(f"{name} is there twice; put a slash between the sets of one stage")
        stage = name if equals else stage
        found[stage] = rest
    sets = {name: tuple(tuple(each.split(",")) for each in words.split("/")) for name, words in found.items()}
    for word in (word for each in sets.values() for words in each for word in words):
        match = _WORD.fullmatch(word)
        if match is None or (match[3] and int(match[3]) < int(match[2])):
            what = f"'{word}' is no core set" if word else "a core set is empty"
            raise ValueError(f"{what}; expected cores or NUMA nodes by stage: lanes=0-3,preprocess=node1")
    if len(sets.get("loadgen", ())) > 1:
        raise ValueError("loadgen is one thread and has one core set")
    return sets


def _cores(words: Sequence[str], allowed: Cores, root: Path) -> Cores:
    """One set. Of a node it has the cores that this process may use."""
    found: set[int] = set()
    for word in words:
        if word.startswith("node"):
            found |= _node(word, allowed, root)
            continue
        low, _, high = word.partition("-")
        asked = range(int(low), int(high or low) + 1)
        if gone := [core for core in asked if core not in allowed]:
            is_there = gone[0] in numbers(read_text(root / "sys/devices/system/cpu/online"))
            why = "may not be used by this process (taskset or cgroup)" if is_there else "is not there"
            raise SetupError(f"--affinity: core {gone[0]} {why}; it may use {ranges(allowed)}")
        found |= {*asked}
    return frozenset(found)


def _node(word: str, allowed: Cores, root: Path) -> Cores:
    nodes = root / "sys/devices/system/node"
    if not (nodes / word).is_dir():
        there = ", ".join(sorted(path.name for path in nodes.glob("node[0-9]*"))) or "none"
        raise SetupError(f"--affinity: NUMA node {word} is not there; there is: {there}")
    of_node = numbers(read_text(nodes / word / "cpulist"))
    if not of_node & allowed:
        has = f"has cores {ranges(of_node)}, none of which this process may use" if of_node else "has no cores"
        raise SetupError(f"--affinity: NUMA node {word} {has}; it may use {ranges(allowed)}")
    return of_node & allowed


def numbers(text: str) -> Cores:
    """A list as the kernel writes it.

    >>> sorted(numbers("0-2,8"))
    [0, 1, 2, 8]
    """
    pairs = (word.partition("-")[::2] for word in text.strip().split(",") if word)
    return frozenset(core for low, high in pairs for core in range(int(low), int(high or low) + 1))


def ranges(cores: Cores) -> str:
    """Cores as the kernel lists them.

    >>> ranges(frozenset({0, 1, 2, 8}))
    '0-2,8'
    """
    begins = sorted(core for core in cores if core - 1 not in cores)
    ends = sorted(core for core in cores if core + 1 not in cores)
    return ",".join(f"{low}-{high}" if high > low else f"{low}" for low, high in zip(begins, ends, strict=True))


def stay_on(cores: Cores | None) -> None:
    """Let this thread, and those that it starts from now on, run on these cores only; None changes nothing."""
    if cores is not None:
        os.sched_setaffinity(0, cores)


@contextmanager
def staying_on(cores: Cores | None) -> Iterator[None]:
    """Stay on these cores for a while, then wherever the thread was before."""
    before = os.sched_getaffinity(0) if cores is not None else None
    stay_on(cores)
    try:
        yield
    finally:
        if before is not None:
            os.sched_setaffinity(0, before)


def cores_of_threads() -> dict[str, str]:
    """On which cores the kernel lets this process's threads run, by name; those of runtimes are counted together.

    >>> cores_of_threads()["MainThread"] == ranges(allowed_cores())
    True
    """
    named = {thread.native_id: thread.name for thread in threading.enumerate()}
    found: dict[str, str] = {}
    others = Counter[str]()
    for task in Path("/proc/self/task").iterdir():
        with suppress(OSError):  # it may have ended
            cores = ranges(frozenset(os.sched_getaffinity(int(task.name))))
            if name := named.get(int(task.name)):
                found[name] = cores
            else:
                others[cores] += 1
    counted = ", ".join(f"{count} on {cores}" for cores, count in sorted(others.items()))
    return dict(sorted(found.items())) | ({"others": counted} if counted else {})


def cores_of_processes(processes: Mapping[str, int]) -> dict[str, str]:
    """On which cores the kernel lets other processes, by name their numbers, run their first threads."""
    found = {}
    for name, number in processes.items():
        with suppress(OSError):  # it may have ended
            found[name] = ranges(frozenset(os.sched_getaffinity(number)))
    return found
