"""Core sets: read, checked against a machine that is made up, and really set for threads of this one."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from sut.errors import InputError, SetupError
from sut.process.affinity import Affinity, cores_of_threads, parse, ranges, stay_on, staying_on

NODES = {"node0": "0-3,8", "node1": "4-7", "node2": ""}


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Ten cores in two nodes, of which this process may use all but 7 and 9; a third node has memory only."""
    for node, cores in NODES.items():
        folder = tmp_path / "sys/devices/system/node" / node
        folder.mkdir(parents=True)
        (folder / "cpulist").write_text(f"{cores}\n")
    cpus = tmp_path / "sys/devices/system/cpu"
    cpus.mkdir(parents=True)
    (cpus / "online").write_text("0-9\n")
    monkeypatch.setattr("sut.process.affinity.allowed_cores", lambda: frozenset({0, 1, 2, 3, 4, 5, 6, 8}))
    return tmp_path


@pytest.mark.parametrize(
    ("text", "lanes", "rest"),
    [
        ("lanes=0-2", [{0, 1, 2}], {}),
        ("lanes=0-1,8/4,6-6", [{0, 1, 8}, {4, 6}], {}),
        ("lanes=node0/node1", [{0, 1, 2, 3, 8}, {4, 5, 6}], {}),
        ("lanes=node0,4 / 5, loadgen=6", [{0, 1, 2, 3, 4, 8}, {5}], {"loadgen": [{6}]}),
        ("  lanes = 0 , 1 / 8 ,loadgen= 2 ", [{0, 1}, {8}], {"loadgen": [{2}]}),
        ("preprocess=0/1/2,lanes=3", [{3}], {"preprocess": [{0}, {1}, {2}]}),
        ("lanes=0,loadgen=0", [{0}], {"loadgen": [{0}]}),
    ],
)
def test_cores_and_nodes_by_stage(machine: Path, text: str, lanes: list[set[int]], rest: dict[str, object]) -> None:
    found = Affinity.of(text, machine)

    assert list(found.lanes) == lanes
    for stage in ("preprocess", "loadgen"):
        assert list(getattr(found, stage)) == rest.get(stage, [])


def test_without_a_word_every_thread_may_be_anywhere(machine: Path) -> None:
    assert Affinity.of(None, machine) == Affinity()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("lanes=7", r"core 7 may not be used by this process \(taskset or cgroup\); it may use 0-6,8"),
        ("lanes=0-8", "core 7 may not be used"),
        ("preprocess=10", "core 10 is not there; it may use 0-6,8"),
        ("lanes=node3", "NUMA node node3 is not there; there is: node0, node1, node2"),
        ("lanes=node2", "NUMA node node2 has no cores"),
    ],
)
def test_what_is_not_there_is_refused(machine: Path, text: str, said: str) -> None:
    with pytest.raises(SetupError, match=said):
        Affinity.of(text, machine)


def test_a_node_of_which_nothing_may_be_used_is_refused(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sut.process.affinity.allowed_cores", lambda: frozenset({0}))

    with pytest.raises(SetupError, match="node1 has cores 4-7, none of which this process may use; it may use 0"):
        Affinity.of("lanes=node1", machine)


def test_two_sets_of_a_stage_share_no_core(machine: Path) -> None:
    with pytest.raises(InputError, match="lanes: core 0 is in two sets; each needs cores of its own"):
        Affinity.of("lanes=0-3/node0", machine)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("lanes=0 1", "'0 1' is no core set"),
        ("lanes=0-3 8", "'0-3 8' is no core set"),
        ("lanes=\u0661", "is no core set"),
        ("0-3", "unknown stage '0-3'"),
        ("lane=0", "unknown stage 'lane'; did you mean lanes"),
        ("lanes=0,lanes=1", "lanes is there twice"),
        ("lanes=", "a core set is empty; expected cores or NUMA nodes by stage: lanes=0-3"),
        ("lanes=0//1", "a core set is empty"),
        ("lanes=0/", "a core set is empty"),
        ("lanes=3-1", "'3-1' is no core set"),
        ("lanes=-1", "'-1' is no core set"),
        ("lanes=0-99999", "'0-99999' is no core set"),
        ("lanes=nodeX", "'nodeX' is no core set"),
        ("loadgen=0/1", "loadgen is one thread"),
        ("", "a stage's name is empty; expected cores or NUMA nodes by stage"),
    ],
)
def test_what_is_no_core_set_is_refused(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parse(text)


def test_a_thread_and_those_that_it_starts_stay_there() -> None:
    core = min(os.sched_getaffinity(0))
    seen: dict[str, str] = {}

    def child() -> None:
        seen.update(cores_of_threads())

    def parent() -> None:
        stay_on(frozenset({core}))
        thread = threading.Thread(target=child, name="the child")
        thread.start()
        thread.join()

    thread = threading.Thread(target=parent, name="the parent")
    thread.start()
    thread.join()

    everywhere = ranges(frozenset(os.sched_getaffinity(0)))
    assert (seen["the parent"], seen["the child"], seen["MainThread"]) == (str(core), str(core), everywhere)


def test_what_stays_for_a_while_is_where_it_was_after_an_error() -> None:
    before = os.sched_getaffinity(0)
    with pytest.raises(RuntimeError), staying_on(frozenset({min(before)})):
        assert os.sched_getaffinity(0) == {min(before)}
        raise RuntimeError

    assert os.sched_getaffinity(0) == before
    with staying_on(None):
        assert os.sched_getaffinity(0) == before
